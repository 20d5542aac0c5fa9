"""What goes over the wire: Socket.IO packets and WebSocket frames, encoded once for all clients; and JSON that hostile input cannot break."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from engineio.packet import MESSAGE, Packet

_FINAL_TEXT_FRAME = 0x81
_SHORT_LENGTH_LIMIT = 126
_MEDIUM_LENGTH_LIMIT = 65_536
_EVENT_PREFIX = "2"


class StrictJson:
    """The `json` module as python-socketio uses it: compact, and every refusal is a ValueError, which it expects."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """`value` as compact JSON."""
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        """The value of strict JSON `text`."""
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, encoded: `packet` for Engine.IO's own queue, `data` for a WebSocket. Frames of one `key` supersede one another."""

    key: tuple[str, str | None]
    packet: Packet
    data: bytes


def event_frame(name: str, message: Mapping[str, Any], key: tuple[str, str | None]) -> Frame:
    """The Socket.IO event `name` with one argument, in namespace `/`."""
    packet = Packet(MESSAGE, data=_EVENT_PREFIX + StrictJson.dumps([name, message]))
    return Frame(key, packet, websocket_frame(packet.encode()))


def websocket_frame(text: str) -> bytes:
    """`text` as one final, unmasked text frame (RFC 6455 §5.2)."""
    payload = text.encode()
    length = len(payload)
    if length < _SHORT_LENGTH_LIMIT:
        head = struct.pack("!BB", _FINAL_TEXT_FRAME, length)
    elif length < _MEDIUM_LENGTH_LIMIT:
        head = struct.pack("!BBH", _FINAL_TEXT_FRAME, 126, length)
    else:
        head = struct.pack("!BBQ", _FINAL_TEXT_FRAME, 127, length)
    return head + payload


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

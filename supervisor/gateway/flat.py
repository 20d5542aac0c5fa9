"""The flat dialect of chat (`contracts.md` §4): which requests speak it, and what they mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.config.routing_settings import AUTO
from supervisor.gateway.calls import CHAT, check, check_one_choice
from supervisor.gateway.chat_answers import ChatAnswer, flat_usage
from supervisor.request_fields import Bound, refuse

FIELDS = frozenset({"project_id", "timeout"})
HEADER = "X-Llamavisor-Dialect"
HEADER_VALUE = "flat"
_TIMEOUT = Bound("timeout", 1, 300)


@dataclass(frozen=True, slots=True)
class FlatRequest:
    """What a flat request asks: the same as `chat`, of OpenAI's shape, within `timeout_seconds`."""

    chat: dict[str, Any]
    timeout_seconds: float | None


def is_flat(document: Mapping[str, Any], header: str | None) -> bool:
    """Whether a chat request speaks the flat dialect, by a field that OpenAI does not have or by its `X-Llamavisor-Dialect`."""
    return not FIELDS.isdisjoint(document) or (header is not None and header.strip().lower() == HEADER_VALUE)


def read_request(document: Mapping[str, Any]) -> FlatRequest:
    """The meaning of a flat request; MalformedRequestError that names the field. Who names no model means `auto`."""
    _TIMEOUT.check(document)
    if document.get("stream"):
        raise refuse("stream", "is not for the flat dialect: its streams are on the WebSocket /v1/stream.")
    chat = {name: value for name, value in document.items() if name not in FIELDS}
    if chat.get("model") in (None, ""):
        chat["model"] = AUTO
    check(CHAT, chat)
    check_one_choice(chat, "in the flat dialect")
    return FlatRequest(chat, document.get("timeout"))


def flat_answer(answer: ChatAnswer, cost: float | None, project: str) -> dict[str, Any]:
    """Exactly the fields of the contract; `project` is the one that pays."""
    return {
        "id": answer.id,
        "model": answer.model,
        "content": answer.content,
        "usage": flat_usage(answer.usage),
        "cost": cost,
        "project_id": project,
    }

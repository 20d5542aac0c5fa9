"""Reading requests: bounded, strict, and with errors that name what is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from aiohttp import web

from supervisor.errors import MalformedRequestError, PayloadTooLargeError, RequestTimeoutError
from web.keys import SUPERVISOR

LARGEST_UNIX_SECONDS = 10**11


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """The whole body. Raises PayloadTooLargeError as soon as it is known to exceed `limit_bytes`, declared or not.

    RequestTimeoutError when it is not complete within `server.body_deadline_seconds`.
    """
    declared = request.content_length
    if declared is not None and declared > limit_bytes:
        raise _too_large(limit_bytes)
    deadline_seconds = request.app[SUPERVISOR].settings.server.body_deadline_seconds
    try:
        async with asyncio.timeout(deadline_seconds):
            return await _read_at_most(request, limit_bytes)
    except TimeoutError:
        raise RequestTimeoutError(
            f"The body was not complete within {deadline_seconds:g} s.", param="body", remedy="Send it faster."
        ) from None


async def _read_at_most(request: web.Request, limit_bytes: int) -> bytes:
    parts = bytearray()
    async for chunk in request.content.iter_any():
        parts += chunk
        if len(parts) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(parts)


async def read_json_object(request: web.Request, limit_bytes: int) -> dict[str, Any]:
    """The body as a JSON object; see `parse_json_object`."""
    return parse_json_object(await read_body(request, limit_bytes))


def parse_json_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object. Raises MalformedRequestError for anything else: bad UTF-8, bad JSON, NaN, too deep, not an object."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise MalformedRequestError(f"The body must be a JSON object, not {_kind(value)}.", param="body")
    return value


def parse_json(body: bytes) -> Any:
    """`body` as strict JSON (RFC 8259). Raises MalformedRequestError that says where it goes wrong."""
    if not body.strip():
        raise MalformedRequestError("The body is empty; a JSON object is expected.", param="body")
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        message = f"The body is not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}."
        raise MalformedRequestError(message, param="body") from None
    except json.JSONDecodeError as error:
        message = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise MalformedRequestError(message, param="body") from None
    except RecursionError:
        raise MalformedRequestError("The body nests too deeply.", param="body") from None
    except ValueError as error:
        # Python refuses to read integers of thousands of digits.
        raise MalformedRequestError(f"The body is not acceptable JSON: {error}.", param="body") from None


def query_flag(query: Mapping[str, str], name: str) -> bool:
    """A yes/no parameter: absent is no; `?name`, `1`, `true` are yes; anything unclear is refused."""
    value = query.get(name, "0").lower()
    if value in {"", "1", "true", "yes"}:
        return True
    if value in {"0", "false", "no"}:
        return False
    raise MalformedRequestError(f"`{name}` must be 1 or 0, not {value!r}.", param=name)


def query_integer(query: Mapping[str, str], name: str, default: int, *, minimum: int, maximum: int) -> int:
    """A whole number within bounds. Raises MalformedRequestError that names the parameter and its bounds."""
    text = query.get(name, str(default))
    # `int` alone would take digits of other scripts, "1_000" and thousands of digits.
    if text.isascii() and text.isdigit() and len(text) < len(str(maximum)) + 1 and minimum <= int(text) <= maximum:
        return int(text)
    message = f"`{name}` must be a whole number from {minimum} to {maximum}, not {text[:40]!r}."
    raise MalformedRequestError(message, param=name)


def query_moment(query: Mapping[str, str], name: str, default: int = 0, *, minimum: int = 0) -> int:
    """A point in time, in Unix seconds; errors as `query_integer`."""
    return query_integer(query, name, default, minimum=minimum, maximum=LARGEST_UNIX_SECONDS)


def _too_large(limit_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The body exceeds {limit_bytes} bytes.",
        param="body",
        remedy="Send less, or raise `server.max_body_bytes`.",
    )


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequestError(f"The body holds {name}, which is not JSON.", param="body")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")

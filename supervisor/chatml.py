"""The chat template ChatML, for engines that have none of their own (`contracts.md` §2). Pure; what models bring along is the engine's to render."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supervisor.errors import MalformedRequestError
from supervisor.request_fields import check_messages, refuse, shown

START = "<|im_start|>"
END = "<|im_end|>"
MARKS = (START, END)
ANSWERING = f"{START}assistant\n"


def render(messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
    """The prompt of a conversation; `add_generation_prompt` begins the answer.

    MalformedRequestError for an unknown role (named), for content that is no text, and for text that holds a mark of the template: with it, one
    message could pass for several.
    """
    check_messages(messages)
    turns = [
        f"{START}{message['role']}\n{_text(message.get('content'), f'messages[{index}].content')}{END}\n"
        for index, message in enumerate(messages)
    ]
    return "".join([*turns, ANSWERING if add_generation_prompt else ""])


def _text(content: object, field: str) -> str:
    text = "".join(_texts(content, field)) if isinstance(content, list) else content
    if not isinstance(text, str):
        raise refuse(field, f"must be text, not {shown(content)}.")
    for mark in MARKS:
        if mark in text:
            raise MalformedRequestError(f"`{field}` holds {mark}, a mark of the chat template.", param=field)
    return text


def _texts(parts: Iterable[object], field: str) -> Iterable[str]:
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise refuse(f"{field}[{index}]", f"must be a part of type text, not {shown(part)}.")
        yield text

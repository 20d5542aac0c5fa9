"""Takes out of bodies what must not be kept: keys, tokens, passwords, e-mail addresses, pictures. Pure.

Everything is looked at as JSON, strings that hold JSON too; a stream is put together first, for what it brings in pieces no pattern would find.
Patterns take time in proportion to the text, whatever the text: they hold up the whole process while they run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from supervisor.config.observing_settings import REDACTED_FIELDS

MASK = "[redacted]"
LEFT_OUT = "[left out]"
# A search holds up the whole process while it lasts.
TEXT_LIMIT_CHARACTERS = 128 * 1024
# Tokens one by one, in which what is masked in the text can be read again.
_PIECES = frozenset({"logprobs", "top_logprobs", "token_logprobs"})
# In a stream these are told with every event; everything else is what comes in pieces.
_REPEATED = frozenset(
    {"created", "event", "finish_reason", "id", "index", "item_id", "model", "name", "object", "role", "status",
     "stop_reason", "system_fingerprint", "type"}
)  # fmt: skip
_DATA_URL = re.compile(r"(data:[\w.+/-]{1,100}(?:;[\w=.+-]{1,100}){0,4},)[^\s\"'<>()]*+")
_LINE_END = re.compile(r"\r\n|\n|\r")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{256,}+={0,2}")
_SECRETS = (
    # Bearer tokens, however they are written.
    re.compile(r"(?i)\bbearer\s{1,8}[A-Za-z0-9._~+/=-]{6,}+"),
    # Keys with a prefix: OpenAI's and Anthropic's, our own, Hugging Face's, GitHub's, GitLab's, Slack's, xAI's, Groq's.
    re.compile(
        r"(?<![A-Za-z0-9])(?:sk|pk|rk|lv|hf|gsk|xai|gh[opsur]|github_pat|glpat|xox[abeoprs])[-_][A-Za-z0-9_-]{8,}+"
    ),
    # Amazon's and Google's.
    re.compile(r"(?<![A-Za-z0-9])(?:A[KS]IA[A-Z0-9]{12,}+|AIza[A-Za-z0-9_-]{20,}+)"),
    # JSON web tokens.
    re.compile(r"(?<![\w-])eyJ[\w-]++\.[\w-]++\.[\w-]*+"),
    # Private keys.
    re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*+(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"),
    # User and password in an address.
    re.compile(r"(?<=://)[^/\s:@]*+:[^/\s@]++@"),
    # E-mail addresses.
    re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+"),
)


class Redactor:
    """Takes out what the patterns of this module find, and `patterns` (regular expressions), the values of `fields`, and `literals` as they are."""

    def __init__(
        self, patterns: Iterable[str] = (), fields: Iterable[str] = REDACTED_FIELDS, literals: Iterable[str] = ()
    ) -> None:
        self._fields = frozenset(map(_plain, fields))
        own = [*map(re.escape, filter(None, literals)), *patterns, *_told_in_text(self._fields)]
        self._patterns = (*(re.compile(pattern) for pattern in own), *_SECRETS)

    def text(self, text: str) -> str:
        """A text, or a JSON document that is written in one. Of one that is very long only the beginning is kept."""
        if len(text) > TEXT_LIMIT_CHARACTERS:
            text = _beginning(text)
        if text.lstrip()[:1] in ("{", "[", '"'):
            try:
                return json.dumps(self.document(json.loads(text)), ensure_ascii=False)
            except (ValueError, RecursionError):
                pass
        return self._masked(text)

    def document(self, value: Any) -> Any:
        """A JSON value; what is not to be kept is replaced in it. RecursionError when it is nested too deeply."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._masked(str(name)): self._field(str(name), inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(inner) for inner in value]
        return value

    def _field(self, name: str, value: Any) -> Any:
        if _plain(name) in self._fields and value is not None:
            return MASK
        if name in _PIECES and isinstance(value, Mapping | list):
            return LEFT_OUT
        return self.document(value)

    def _masked(self, text: str) -> str:
        text = _BASE64.sub(_shortened, _DATA_URL.sub(_shortened, text))
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text


def assembled(stream: bytes) -> dict[str, Any]:
    """The events of a stream as one object: by the place in the event, texts put together, and of everything else the last."""
    whole: dict[str, Any] = {}
    for event in _events(stream):
        for place, name, value in _leaves(event):
            before = whole.get(place)
            in_pieces = isinstance(value, str) and isinstance(before, str) and name not in _REPEATED
            whole[place] = before + value if in_pieces else value
    return whole


def _events(stream: bytes) -> Iterator[Any]:
    # Not `splitlines`: what it takes for the end of a line may stand in a text.
    for line in _LINE_END.split(stream.decode("utf-8", "replace")):
        if line.startswith("data:"):
            try:
                yield json.loads(line[len("data:") :])
            except (ValueError, RecursionError):
                continue


def _leaves(value: Any, place: str = "", name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each leaf with its place, such as `choices.0.delta.content`, and the last name of it. An item that tells its index has that one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            if key not in _PIECES:
                yield from _leaves(inner, f"{place}.{key}" if place else key, key)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            own = inner.get("index", number) if isinstance(inner, Mapping) else number
            yield from _leaves(inner, f"{place}.{own}", name)
    elif value not in (None, [], {}):
        yield place, name, value


def _told_in_text(fields: Iterable[str]) -> Iterator[str]:
    """`password: …`, `"api-key" = "…"` and the like, in a text or in half a document."""
    names = "|".join(re.escape(name).replace("_", "[_-]?") for name in sorted(fields))
    if names:
        yield rf"""(?i)(?<![a-z0-9])(?:{names})[\\"']{{0,4}}\s{{0,4}}[:=]\s{{0,4}}[\\"']{{0,4}}[^"'\\,;&}}\n]++"""


def _beginning(text: str) -> str:
    """As much as is looked at; not cut in the midst of a word, for half of a secret looks like none."""
    words = text[:TEXT_LIMIT_CHARACTERS].rpartition(" ")[0]
    return f"{words} [{len(text) - len(words)} characters cut]"


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _shortened(found: re.Match[str]) -> str:
    """A long run of characters that say nothing, without them."""
    kept = found[1] if found.re.groups else ""
    return f"{kept}[{found.end() - found.start() - len(kept)} characters cut]"

"""Asking a server how it is.

Every question has a total deadline and a cap on the answer: a server that hangs, trickles or floods costs us nothing (row 13).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from supervisor.launch import Address, ProbeSpec
from supervisor.process.liveness import Counters

BODY_LIMIT_BYTES = 4 * 1024**2
DETAIL_LIMIT_CHARACTERS = 120
CONNECTION_LIMIT = 4
SILENT = Counters(answered=False)


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a health probe. `ok`: it can serve; `loading`: it says that it is on the way; `detail`: for people, never empty."""

    ok: bool
    loading: bool
    detail: str


class _AnswerTooLargeError(Exception):
    """The body went over the cap."""


# All that a bad server can bring about; a deadline is among them, as an OSError.
_FAILURES = (aiohttp.ClientError, OSError, ValueError, _AnswerTooLargeError)
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is none, or too deeply nested to be meant well."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Prober:
    """Asks one server. No redirects, no cookies, no proxy of the environment.

    No connection is kept: llama.cpp gives each one a thread for itself, which polls it a hundred times a second as long as it is open.

    All methods are for the loop's thread. None of them raises for what the server does. Deadlines are seconds.
    """

    def __init__(self, address: Address, spec: ProbeSpec) -> None:
        self._address = address
        self._spec = spec
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None

    async def health(self, deadline_seconds: float) -> Health:
        """Ask whether it can serve: any 2xx of the health path says yes."""
        try:
            answer = await self._ask("GET", self._spec.health_path, deadline_seconds)
        except _FAILURES as error:
            return Health(ok=False, loading=False, detail=_describe(error, deadline_seconds))
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return Health(ok=True, loading=False, detail="answers")
        said = _message_of(answer)
        loading = answer.status == HTTPStatus.SERVICE_UNAVAILABLE and "loading" in said.lower()
        return Health(ok=False, loading=loading, detail=f"answers {answer.status}{f': {said}' if said else ''}")

    async def counters(self, deadline_seconds: float) -> Counters | None:
        """Read the counters. None: the engine has none, or does not serve them; `answered` is False when the page did not come in time."""
        wanted = self._spec.counters
        if wanted is None:
            return None
        try:
            answer = await self._ask("GET", wanted.path, deadline_seconds)
        except TimeoutError:
            return SILENT
        except _FAILURES:
            return None
        if answer.status != HTTPStatus.OK:
            return None
        samples = read_samples(answer.body, {*wanted.advancing, *wanted.busy})
        if not any(name in samples for name in wanted.advancing):
            return None
        busy = sum(samples.get(name, 0.0) for name in wanted.busy)
        free_slots = await self._free_slots(deadline_seconds) if busy else None
        return Counters(sum(samples.get(name, 0.0) for name in wanted.advancing), busy, free_slots)

    async def canary(self, deadline_seconds: float) -> bool:
        """Ask for one token. True when any token came, and where the engine has no canary: no evidence is no ground for a verdict."""
        canary = self._spec.canary
        if canary is None:
            return True
        try:
            answer = await self._ask("POST", canary.path, deadline_seconds, canary.body)
        except _FAILURES:
            return False
        # A refusal (401, 404, 429, …) comes from the front of the server and says nothing about its decoding, so it does not convict.
        return answer.status < HTTPStatus.INTERNAL_SERVER_ERROR

    async def get_json(self, path: str, deadline_seconds: float) -> object | None:
        """The JSON that `path` answers with 200; None for anything else."""
        try:
            answer = await self._ask("GET", path, deadline_seconds)
        except _FAILURES:
            return None
        document: object = answer.json() if answer.status == HTTPStatus.OK else None
        return document

    async def parts(self, deadline_seconds: float) -> dict[str, int]:
        """The process ids of those that the server consists of, by name; empty where it is one process."""
        path = self._spec.parts_path
        document = None if path is None else await self.get_json(path, deadline_seconds)
        told = document.items() if isinstance(document, dict) else ()
        return {name: pid for name, pid in told if isinstance(pid, int)}

    async def matches_signature(self, deadline_seconds: float) -> bool:
        """Whether this engine's server answers here. An engine without a signature is known by its health path alone."""
        signature = self._spec.signature
        if signature is None:
            return (await self.health(deadline_seconds)).ok
        document = await self.get_json(signature.path, deadline_seconds)
        return isinstance(document, dict) and all(key in document for key in signature.keys)

    async def close(self) -> None:
        """Close the connections; idempotent. A later question opens them anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _free_slots(self, deadline_seconds: float) -> int | None:
        if self._spec.slots_path is None:
            return None
        slots = await self.get_json(self._spec.slots_path, deadline_seconds)
        if not isinstance(slots, list):
            return None
        return sum(1 for slot in slots if isinstance(slot, dict) and slot.get("is_processing") is False)

    async def _ask(self, method: str, path: str, deadline_seconds: float, body: str | None = None) -> _Answer:
        async with asyncio.timeout(deadline_seconds):
            async with self._open_session().request(
                method, self._url(path), data=body, headers=_JSON if body else None, allow_redirects=False
            ) as response:
                return _Answer(response.status, await _read_capped(response))

    def _url(self, path: str) -> URL:
        if path not in self._urls:
            self._urls[path] = URL(self._address.base_url + path, encoded=True)
        return self._urls[path]

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                headers={"Accept-Encoding": "identity", **self._spec.headers},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._address.socket_path is not None:
            return aiohttp.UnixConnector(str(self._address.socket_path), limit=CONNECTION_LIMIT, force_close=True)
        return aiohttp.TCPConnector(limit=CONNECTION_LIMIT, force_close=True)


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise _AnswerTooLargeError
    return bytes(body)


def read_samples(page: bytes, names: Iterable[str]) -> dict[str, float]:
    """Read the samples of `names` from a Prometheus text page, each summed over its labels. What is no finite number is left out."""
    wanted = set(names)
    sums: dict[str, float] = {}
    for line in page.decode("utf-8", "replace").splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in wanted:
            continue
        value = _sample_value(line)
        if value is not None:
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _sample_value(line: str) -> float | None:
    # A label's value may hold blanks and braces, so the number is what follows the last brace.
    words = (line.rpartition("}")[2] if "{" in line else line.partition(" ")[2]).split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _message_of(answer: _Answer) -> str:
    document = answer.json()
    if isinstance(document, dict):
        error = document.get("error")
        said = (
            error.get("message")
            if isinstance(error, dict)
            else error or document.get("message") or document.get("status")
        )
        text = said if isinstance(said, str) else ""
    else:
        text = ""
    return "".join(character for character in text if character.isprintable())[:DETAIL_LIMIT_CHARACTERS]


def _describe(error: BaseException, deadline_seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {deadline_seconds:g} s"
    if isinstance(error, _AnswerTooLargeError):
        return f"its answer is larger than {BODY_LIMIT_BYTES // 1024**2} MiB"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "it closed the connection without an answer"
    return f"its answer is not HTTP ({type(error).__name__})"

"""Reading uploads: a multipart form with one file, taken as it comes, with a cap on everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from supervisor.errors import MalformedRequestError, RequestTimeoutError

T = TypeVar("T")
PARTS_MAX = 8
FIELD_BYTES_MAX = 1_024
CHUNK_BYTES = 256 * 1024
FILE = "file"
# Decoding would make many bytes of few, and nobody sends these any more.
_PLAIN_ENCODINGS = frozenset({"binary", "8bit", "7bit"})


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds beside its file's bytes; `filename` is None when it has no file."""

    fields: Mapping[str, str]
    filename: str | None


async def read_upload(request: web.Request, write: Callable[[bytes], Awaitable[None]], wait_seconds: float) -> Form:
    """Read a form, and give its file's bytes to `write` as they come.

    MalformedRequestError for what is no such form; RequestTimeoutError when nothing comes for `wait_seconds`; what `write` raises.
    """
    reader = _Parts(request, wait_seconds)
    fields: dict[str, str] = {}
    filename: str | None = None
    has_file = False
    async for part in reader:
        name = part.name or ""
        if name != FILE:
            fields[name] = await reader.text_of(part)
            continue
        if has_file:
            raise MalformedRequestError("The form holds more than one file.", param=FILE)
        has_file, filename = True, part.filename or ""
        while data := await reader.bytes_of(part):
            await write(data)
    return Form(fields, filename if has_file else None)


class _Parts:
    """The parts of a form; whatever is wrong with it is a MalformedRequestError."""

    def __init__(self, request: web.Request, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._count = 0
        try:
            self._reader = MultipartReader(request.headers, request.content)
        except (ValueError, KeyError, AssertionError):
            # Without a Content-Type there is no boundary either.
            raise _malformed(ValueError("its Content-Type names none")) from None

    async def __aiter__(self) -> AsyncIterator[BodyPartReader]:
        while (part := await self._within(self._reader.next)) is not None:
            self._count += 1
            if self._count > PARTS_MAX:
                raise MalformedRequestError(f"The form has more than {PARTS_MAX} parts.", param="body")
            yield self._checked(part)

    async def bytes_of(self, part: BodyPartReader) -> bytes:
        """The next bytes of a part; none at its end."""
        return bytes(await self._within(lambda: part.read_chunk(CHUNK_BYTES)))

    async def text_of(self, part: BodyPartReader) -> str:
        """All of a small part, as text."""
        data = bytearray()
        while chunk := await self.bytes_of(part):
            data += chunk
            if len(data) > FIELD_BYTES_MAX:
                message = f"The form's field {part.name!r} exceeds {FIELD_BYTES_MAX} bytes."
                raise MalformedRequestError(message, param="body")
        return data.decode("utf-8", "replace")

    async def _within(self, read: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._deadline():
                return await read()
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as error:
            # What aiohttp's reader says of forms that are none, and of those that end too early.
            raise _malformed(error) from None

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                yield
        except TimeoutError:
            message = f"Nothing of the body came for {self._wait_seconds:g} s."
            raise RequestTimeoutError(message, param="body", remedy="Send it faster.") from None

    @staticmethod
    def _checked(part: BodyPartReader | MultipartReader) -> BodyPartReader:
        if not isinstance(part, BodyPartReader):
            raise MalformedRequestError("The form holds a form.", param="body")
        transfer = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "binary").lower()
        if transfer not in _PLAIN_ENCODINGS or hdrs.CONTENT_ENCODING in part.headers:
            raise MalformedRequestError("The parts of the form must not be encoded.", param="body")
        return part


def _malformed(error: Exception) -> MalformedRequestError:
    return MalformedRequestError(f"The body is no whole multipart form: {str(error)[:200]}.", param="body")

"""Uploaded files and the results of batches: whole, or not there.

Each file is two on disk: `ID.data`, and beside it `ID.json`, which is written last and makes it visible. Ids are ours; no name that a client gave
ever becomes a path.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from supervisor.clock import Clock
from supervisor.config.batch_settings import FilesSettings
from supervisor.data_folder import PRIVATE_FILE, PRIVATE_FOLDER, replace_file
from supervisor.errors import NotFoundError, PayloadTooLargeError
from supervisor.gateway.batch.disk import Disk
from supervisor.gateway.batch.folder import link_or_copy

logger = logging.getLogger(__name__)

UPLOADED_PURPOSE = "batch"
RESULT_PURPOSE = "batch_output"
FILES_MAX = 100_000
PROJECTS_PART = 2
"""One project may have half of the room, half of the files."""

NAME_CHARACTERS_MAX = 255
WRITE_BYTES = 1024**2
_UPLOADING = ".upload-"


class FilesFullError(PayloadTooLargeError):
    """All files together reach `files.total_bytes`, those of a project half of it, or there are too many of them."""

    code = "files_full"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is there. `bytes` its size, `created_at` Unix seconds, `filename` what the client calls it: for people only."""

    id: str
    project: str
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def to_wire(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": None,
        }


def new_file_id() -> str:
    """An id that nobody can guess."""
    return f"file-{secrets.token_hex(12)}"


def shown_name(filename: str | None) -> str:
    """A client's name for a file as it is shown: without folders and control characters, not too long."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    kept = "".join(character for character in last if character.isprintable()).strip()
    return kept[:NAME_CHARACTERS_MAX] or "file"


def _full(what: str, most: int) -> FilesFullError:
    return FilesFullError(
        f"{what}, and what unfinished batches read, would exceed {most} bytes.",
        param="file",
        remedy="Delete some, wait for batches to end, or raise `files.total_bytes`.",
    )


class FileStore:
    """The files of one data folder. Call `load` once, then use it from the loop."""

    def __init__(self, folder: Path, settings: FilesSettings, disk: Disk, clock: Clock) -> None:
        self.settings = settings
        # By project, like what is kept.
        self.uploading_bytes: Counter[str] = Counter()
        self.disk = disk
        self._folder = folder
        self._clock = clock
        self._files: dict[str, StoredFile] = {}
        # The sizes of the inputs of batches, by the file that they were made of: the same bytes, which stay when the file is deleted.
        self._used: dict[str, list[int]] = {}
        self._bytes: Counter[str] = Counter()

    def load(self) -> None:
        """Read what is there, and remove what an interrupted upload left. Blocks; OSError when the folder cannot be used."""
        self._folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        for file in self._read_all():
            self.show(file)
        for path in self._folder.iterdir():
            is_half = path.suffix == ".data" and not path.with_suffix(".json").exists()
            if is_half or path.name.startswith(_UPLOADING):
                path.unlink()

    def all_of(self, project: str) -> list[StoredFile]:
        """The files of a project, the newest first."""
        return [file for file in reversed(self._files.values()) if file.project == project]

    def get(self, file_id: str, project: str) -> StoredFile:
        """One of them; NotFoundError, also for another project's."""
        file = self._files.get(file_id)
        if file is None or file.project != project:
            raise NotFoundError("There is no such file.", code="file_not_found", param="file_id")
        return file

    def path_of(self, file: StoredFile) -> Path:
        """Where its bytes lie."""
        return self._folder / f"{file.id}.data"

    def upload(self, project: str) -> Upload:
        """A new file on its way in; use it in `async with`."""
        if len(self._files) >= FILES_MAX or len(self.all_of(project)) >= FILES_MAX // PROJECTS_PART:
            message = f"There are {FILES_MAX} files, or {FILES_MAX // PROJECTS_PART} of this project."
            raise FilesFullError(message, param="file", remedy="Delete some.")
        return Upload(self, project)

    async def delete(self, file_id: str, project: str) -> None:
        """Remove a file; batches that were made of it have what they need. NotFoundError."""
        file = self.get(file_id, project)
        del self._files[file.id]
        if file.id not in self._used:
            self._bytes[project] -= file.bytes
        await self.disk(lambda: self._remove(file))

    async def adopt(self, path: Path, file_id: str, project: str, filename: str) -> None:
        """Make a file of `path`, which stays where it is until the caller removes it. Does nothing when that was done before."""
        if file_id not in self._files:
            adopted = partial(self._adopted, path, file_id, project, filename)
            self.show(await self.disk.until_done(adopted, f"The result file {filename}"))

    def use(self, file_id: str, project: str, size: int) -> None:
        """A batch reads what this file holds: it counts until it is given back, even if the file is deleted."""
        if file_id not in self._files and file_id not in self._used:
            self._bytes[project] += size
        self._used.setdefault(file_id, []).append(size)

    def give_back(self, file_id: str, project: str) -> None:
        """One batch less reads it."""
        size = self._used[file_id].pop()
        if not self._used[file_id]:
            del self._used[file_id]
            if file_id not in self._files:
                self._bytes[project] -= size

    # For uploads

    def check_room(self, project: str, size: int) -> None:
        """PayloadTooLargeError or FilesFullError when an upload of that size, and those that are on their way, are too much."""
        if size > self.settings.max_bytes:
            raise PayloadTooLargeError(
                f"The file exceeds {self.settings.max_bytes} bytes.",
                param="file",
                remedy="Split it, or raise `files.max_bytes`.",
            )
        taken, most = self.uploading_bytes + self._bytes, self.settings.total_bytes
        if taken.total() > most:
            raise _full("All files together", most)
        # So that nobody can take the room from all others.
        if taken[project] > most // PROJECTS_PART:
            raise _full("The files of one project", most // PROJECTS_PART)

    def begin_data(self) -> tuple[Path, BinaryIO]:
        """A new file to write to, which nobody sees. Blocks."""
        path = self._folder / f"{_UPLOADING}{secrets.token_hex(12)}"
        return path, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE), "wb")

    def describe(self, project: str, filename: str, purpose: str, size: int, file_id: str | None = None) -> StoredFile:
        """The description of a file that comes to be now."""
        return StoredFile(file_id or new_file_id(), project, filename, purpose, size, int(self._clock.wall()))

    def keep(self, path: Path, file: StoredFile) -> None:
        """Make `path` the file's data; it is on the disk afterwards. Blocks."""
        path.rename(self.path_of(file))
        self._write_description(file)

    def show(self, file: StoredFile) -> None:
        """From now on it is listed."""
        self._files[file.id] = file
        self._bytes[file.project] += file.bytes

    def _adopted(self, path: Path, file_id: str, project: str, filename: str) -> StoredFile:
        file = self.describe(project, filename, RESULT_PURPOSE, path.stat().st_size, file_id)
        data = self.path_of(file)
        data.unlink(missing_ok=True)
        link_or_copy(path, data)
        self._write_description(file)
        return file

    def _write_description(self, file: StoredFile) -> None:
        replace_file(self._folder / f"{file.id}.json", json.dumps(asdict(file)))

    def _remove(self, file: StoredFile) -> None:
        (self._folder / f"{file.id}.json").unlink(missing_ok=True)
        self.path_of(file).unlink(missing_ok=True)

    def _read_all(self) -> Iterator[StoredFile]:
        found = []
        for path in self._folder.glob("file-*.json"):
            try:
                file = StoredFile(**json.loads(path.read_text("utf-8")))
                has_data = self.path_of(file).stat().st_size == file.bytes and path.stem == file.id
            except (OSError, ValueError, TypeError):
                has_data = False
            if has_data:
                found.append(file)
            else:
                logger.warning("%s describes no file that is there whole: it is left out.", path)
        return iter(sorted(found, key=lambda file: (file.created_at, file.id)))


class Upload:
    """A file on its way in. `write` it, then `finish`; left without that, nothing of it stays."""

    def __init__(self, store: FileStore, project: str) -> None:
        self._store = store
        self._project = project
        self._waiting = bytearray()
        # Both belong to the disk's thread: a client that leaves while the file is being opened must not leave it open.
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self.bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def write(self, data: bytes) -> None:
        """Take what came. PayloadTooLargeError, FilesFullError or DiskFullError as soon as it is too much."""
        self.bytes += len(data)
        self._store.uploading_bytes[self._project] += len(data)
        self._store.check_room(self._project, self.bytes)
        self._waiting += data
        if len(self._waiting) >= WRITE_BYTES:
            await self._flush()

    async def finish(self, filename: str, purpose: str) -> StoredFile:
        """That was all: the file is there from now on."""
        await self._flush()
        file = self._store.describe(self._project, filename, purpose, self.bytes)
        # Whoever leaves now leaves a whole file behind, which is not to come to light only at the next start.
        return await asyncio.shield(asyncio.create_task(self._commit(file), name=f"file:{file.id}"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.uploading_bytes[self._project] -= self.bytes
        await self._store.disk(self._discard)

    async def _flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        await self._store.disk(lambda: self._write(data))

    async def _commit(self, file: StoredFile) -> StoredFile:
        await self._store.disk(lambda: self._keep(file))
        self._store.show(file)
        return file

    # In the disk's thread

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._path, self._file = self._store.begin_data()
        self._file.write(data)

    def _keep(self, file: StoredFile) -> None:
        assert self._file is not None
        assert self._path is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._store.keep(self._path, file)

    def _discard(self) -> None:
        if self._file is None or self._path is None:
            return
        # What a full disk did not take is not wanted any more.
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

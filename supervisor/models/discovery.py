"""Servable GGUF files in the user's folders."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from supervisor.models.gguf import DEFAULT_LIMITS, GgufError, GgufHeader, GgufLimits, read_gguf_header
from supervisor.models.gguf_source import GgufErrorCode, printable

ModelFileKind = Literal["model", "projector", "adapter", "vocabulary"]

_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_SUFFIX = ".gguf"
_CORRECT_FOLDERS = "Create it, or correct `models.folders`."
MISSING_PARTS_NAMED = 5


@dataclass(frozen=True, slots=True)
class DiscoveryLimits:
    """How far a search goes: `depth` folders down, `entries` names looked at and `files` GGUF files read, over all folders."""

    depth: int = 8
    entries: int = 200_000
    files: int = 2_000
    header: GgufLimits = DEFAULT_LIMITS


DEFAULT_DISCOVERY_LIMITS = DiscoveryLimits()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model on disk, of one file or of the parts of a split one.

    `path` is what an engine is given (the first part); `name` the file's name without suffix and part number; `size_bytes` and the
    header's figures are those of all parts together; `modified_at` unix seconds, of the newest part.
    """

    name: str
    path: Path
    parts: tuple[Path, ...]
    size_bytes: int
    modified_at: int
    header: GgufHeader

    @property
    def kind(self) -> ModelFileKind:
        """What the file is for: only a `model` can be served alone."""
        if self.header.is_projector:
            return "projector"
        if self.header.kind == "adapter":
            return "adapter"
        return "model" if self.header.tensor_count else "vocabulary"


@dataclass(frozen=True, slots=True)
class FoundModels:
    """What a search found, each list sorted by path.

    `companions` are files that go with a model: projectors, LoRA adapters, bare vocabularies. `unreadable` has every file or folder that
    was passed over, with the reason. `cut_short` says which limit ended the search early, if one did.
    """

    models: list[ModelFile] = field(default_factory=list)
    companions: list[ModelFile] = field(default_factory=list)
    unreadable: list[tuple[Path, GgufError]] = field(default_factory=list)
    cut_short: str | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: Path
    size_bytes: int
    modified_at: int


@dataclass(frozen=True, slots=True)
class _Group:
    """One model's candidates by part number; `count` is how many parts the names announce, 0 for a file that is no part."""

    stem: str
    count: int
    parts: dict[int, _Candidate]


def find_models(folders: Iterable[Path], *, limits: DiscoveryLimits = DEFAULT_DISCOVERY_LIMITS) -> FoundModels:
    """Search `folders` and what is beneath them for GGUF files; blocks, so call it through `asyncio.to_thread`.

    Hidden files and folders are passed over, and so is a symbolic link that leads out of the folder given. A file reached in two ways
    is listed once. One bad file never hides the others: it is in `unreadable`.
    """
    walk = _Walk(limits)
    for folder in folders:
        walk.search(folder)
    found = FoundModels(unreadable=walk.unreadable, cut_short=walk.cut_short)
    for group in _groups(walk.candidates):
        try:
            file = _read(group, limits.header)
        except GgufError as error:
            found.unreadable.append((error.path, error))
        else:
            (found.models if file.kind == "model" else found.companions).append(file)
    for listed in (found.models, found.companions):
        listed.sort(key=lambda file: file.path)
    found.unreadable.sort(key=lambda entry: entry[0])
    return found


def read_model_file(path: Path, limits: GgufLimits = DEFAULT_LIMITS) -> ModelFile:
    """The model at `path`; for any part of a split one, the whole. Raises `GgufError`; blocks like `read_gguf_header`."""
    try:
        candidates = [_Candidate(part, status.st_size, int(status.st_mtime)) for part, status in _stat_parts(path)]
    except (OSError, ValueError) as error:
        raise GgufError(
            path, "unreadable", f"it cannot be read ({_reason(error)})", "Check the path and its permissions."
        ) from error
    return _read(_groups(candidates)[0], limits)


def _stat_parts(path: Path) -> list[tuple[Path, os.stat_result]]:
    """The files that are there of the model that `path` is, or is a part of."""
    paths = [path]
    if part := _PART_NAME.fullmatch(path.stem):
        numbers = range(1, int(part["count"]) + 1)
        names = [f"{part['stem']}-{number:05d}-of-{part['count']}{path.suffix}" for number in numbers]
        paths = [file for name in names if (file := path.with_name(name)).exists()] or paths
    return [(file, file.stat()) for file in paths]


class _Walk:
    """Collects candidates, breadth first, within the limits; a folder or file is taken once, however it is reached."""

    def __init__(self, limits: DiscoveryLimits) -> None:
        self.candidates: list[_Candidate] = []
        self.unreadable: list[tuple[Path, GgufError]] = []
        self.cut_short: str | None = None
        self._limits = limits
        self._entries = 0
        self._seen: set[tuple[int, int]] = set()

    def search(self, root: Path) -> None:
        try:
            status = os.stat(root)
        except (OSError, ValueError) as error:
            self._refuse(root, "unreadable", f"the folder cannot be read ({_reason(error)})", _CORRECT_FOLDERS)
            return
        if not stat.S_ISDIR(status.st_mode):
            self._refuse(root, "unreadable", "it is not a folder", _CORRECT_FOLDERS)
            return
        boundary = Path(os.path.realpath(root))
        pending = deque([(root, 0)] if self._is_new(status) else [])
        while pending and self.cut_short is None:
            folder, depth = pending.popleft()
            pending.extend((below, depth + 1) for below in self._visit(folder, boundary) if depth < self._limits.depth)

    def _visit(self, folder: Path, boundary: Path) -> list[Path]:
        """Take note of the files in `folder`; return the folders in it that have not been seen."""
        below: list[Path] = []
        for entry in self._entries_of(folder):
            path = Path(entry.path)
            try:
                status = entry.stat()
            except OSError as error:
                if _is_gguf(path):
                    self._refuse(path, "unreadable", f"it cannot be read ({_reason(error)})", "Mend or remove it.")
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            if (
                not (is_folder or _is_gguf(path))
                or not self._is_inside(entry, path, boundary)
                or not self._is_new(status)
            ):
                continue
            if is_folder:
                below.append(path)
            else:
                self._note(_Candidate(path, status.st_size, int(status.st_mtime)))
        return below

    def _entries_of(self, folder: Path) -> list[os.DirEntry[str]]:
        """The folder's visible entries by name, as many as the limit leaves."""
        allowance = self._limits.entries - self._entries
        try:
            with os.scandir(folder) as scan:
                entries = list(islice(scan, allowance + 1))
        except OSError as error:
            self._refuse(
                folder, "unreadable", f"the folder cannot be read ({_reason(error)})", "Check its permissions."
            )
            return []
        if len(entries) > allowance:
            self.cut_short = (
                f"more than {self._limits.entries:,} names in the folders: name narrower ones in `models.folders`"
            )
        self._entries += len(entries)
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)

    def _is_inside(self, entry: os.DirEntry[str], path: Path, boundary: Path) -> bool:
        if not entry.is_symlink() or Path(os.path.realpath(path)).is_relative_to(boundary):
            return True
        remedy = "Add the folder that it leads to to `models.folders`."
        self._refuse(path, "outside_folder", "it is a symbolic link that leads out of the folder searched", remedy)
        return False

    def _is_new(self, status: os.stat_result) -> bool:
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _note(self, candidate: _Candidate) -> None:
        if len(self.candidates) < self._limits.files:
            self.candidates.append(candidate)
        else:
            self.cut_short = f"more than {self._limits.files:,} GGUF files: name narrower folders in `models.folders`"

    def _refuse(self, path: Path, code: GgufErrorCode, detail: str, remedy: str) -> None:
        self.unreadable.append((path, GgufError(path, code, detail, remedy)))


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == _SUFFIX


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _groups(candidates: Iterable[_Candidate]) -> list[_Group]:
    """The candidates by model: a split one's parts, in order of their numbers, make one group."""
    groups: dict[tuple[Path, str, int], dict[int, _Candidate]] = {}
    for candidate in candidates:
        part = _PART_NAME.fullmatch(candidate.path.stem)
        stem, number, count = (
            (part["stem"], int(part["number"]), int(part["count"])) if part else (candidate.path.stem, 1, 0)
        )
        groups.setdefault((candidate.path.parent, stem, count), {})[number] = candidate
    return [_Group(stem, count, parts) for (_, stem, count), parts in groups.items()]


def _read(group: _Group, limits: GgufLimits) -> ModelFile:
    parts = [group.parts[number] for number in sorted(group.parts)]
    _require_all_parts(group, parts[0].path)
    headers = [read_gguf_header(part.path, limits) for part in parts]
    _require_part_name(group, headers[0])
    return ModelFile(
        name=printable(group.stem),
        path=parts[0].path,
        parts=tuple(part.path for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        modified_at=max(part.modified_at for part in parts),
        header=_together(headers),
    )


def _require_all_parts(group: _Group, first: Path) -> None:
    missing = [number for number in range(1, group.count + 1) if number not in group.parts]
    if not missing:
        return
    named = ", ".join(str(number) for number in missing[:MISSING_PARTS_NAMED]) + (
        ", …" if missing[MISSING_PARTS_NAMED:] else ""
    )
    detail = f"of the {group.count} parts of this model, these are missing: {named}"
    raise GgufError(first, "incomplete", detail, "Fetch them into the same folder.")


def _require_part_name(group: _Group, header: GgufHeader) -> None:
    """An engine finds the other parts by their names; a renamed part cannot be loaded."""
    if header.split_count > 1 and group.count != header.split_count:
        detail = f"it is part {header.split_index + 1} of {header.split_count}, but its name does not say so"
        pattern = f"NAME-{header.split_index + 1:05d}-of-{header.split_count:05d}.gguf"
        raise GgufError(header.path, "incomplete", detail, f"Name it {pattern}, beside the other parts.")


def _together(headers: Sequence[GgufHeader]) -> GgufHeader:
    """The first part's header, which has the metadata, with the figures of all parts."""
    return replace(
        headers[0],
        size_bytes=sum(header.size_bytes for header in headers),
        parameter_count=sum(header.parameter_count for header in headers),
        tensor_count=sum(header.tensor_count for header in headers),
        tensor_bytes=sum(header.tensor_bytes for header in headers),
        quantisation=next((header.quantisation for header in headers if header.quantisation), None),
    )

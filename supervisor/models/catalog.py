"""Models as a server's API lists them, and the one shape in which Llamavisor shows a model.

Three dialects are understood by one parser, because servers mix them: the legacy `/api/models` (a list, or one under `data` or `models`),
Ollama's `models`, OpenAI's `data` with llama.cpp's `meta`, and the `status` of llama-server's router.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from supervisor.errors import LlamavisorError
from supervisor.models.discovery import ModelFile, read_model_file
from supervisor.models.gguf import GgufError, GgufHeader
from supervisor.models.gguf_source import printable

#: Where a server is asked for its models, in this order; the first that answers with a list is believed.
MODEL_LIST_PATHS = ("/api/models", "/v1/models", "/models")
MAX_MODELS = 10_000
MAX_TEXT_CHARACTERS = 1_024
MAX_WHOLE_NUMBER = 2**63 - 1
#: Unix times beyond this (the year 5138) are milliseconds.
_MILLISECONDS_FROM = 100_000_000_000

FetchJson = Callable[[str], Awaitable[object | None]]


class ModelListError(LlamavisorError):
    """A server answered the question for its models with something that is no list of models."""

    code, status = "bad_model_list", 502


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What is known about a model beyond its listing, from its file or, failing that, from the server; `None` is not known."""

    architecture: str | None = None
    parameter_count: int | None = None
    quantisation: str | None = None
    context_length: int | None = None
    embedding_length: int | None = None
    block_count: int | None = None
    vocabulary_size: int | None = None
    has_chat_template: bool | None = None
    licence: str | None = None

    @classmethod
    def from_header(cls, header: GgufHeader) -> ModelMetadata:
        """The part of a file's header that is worth showing."""
        return cls(
            architecture=header.architecture,
            parameter_count=header.parameter_count,
            quantisation=header.quantisation,
            context_length=header.context_length,
            embedding_length=header.embedding_length,
            block_count=header.block_count,
            vocabulary_size=header.vocabulary_size,
            has_chat_template=header.has_chat_template,
            licence=header.licence,
        )

    def to_wire(self) -> dict[str, Any]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a server lists or a folder holds.

    `size` in bytes and `modified_at` in unix seconds are 0 when not known; `status` is the server's word (`loaded`, `unloaded`, …), `None`
    when it has none; `path` is a file of this machine, only ever one that we knew before asking.
    """

    id: str
    name: str
    type: str = "model"
    size: int = 0
    modified_at: int = 0
    status: str | None = None
    metadata: ModelMetadata | None = None
    path: Path | None = None

    def to_wire(self) -> dict[str, Any]:
        """The `LlamaModel` of the live status, and beyond it `status` and `metadata` where they are known."""
        wire: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "type": self.type,
            "modified_at": self.modified_at,
        }
        if self.status is not None:
            wire["status"] = self.status
        if self.metadata is not None:
            wire["metadata"] = self.metadata.to_wire()
        return wire


def model_from_file(file: ModelFile) -> Model:
    """The model that lies in a folder; its id is the file's name without suffix and part number."""
    return Model(
        id=file.name,
        name=file.header.name or file.name,
        type="gguf",
        size=file.size_bytes,
        modified_at=file.modified_at,
        metadata=ModelMetadata.from_header(file.header),
        path=file.path,
    )


async def discover_models(fetch_json: FetchJson, *, known_files: Sequence[Path] = ()) -> list[Model]:
    """Ask a server for its models, and add what their files say.

    `fetch_json(path)` is the decoded answer to a GET, or `None` where the server has no such path or nothing to say. `known_files` are GGUF
    files that it may be serving: a listed model is matched with them by path or name (the only one of each belong together), so a server
    can never make us open a file of its choice. An empty list is an answer only when every path gave none.
    Raises `ModelListError` if answers came and none was a list of models.
    """
    misunderstood: ModelListError | None = None
    understood = False
    for source in MODEL_LIST_PATHS:
        payload = await fetch_json(source)
        if payload is None:
            continue
        try:
            models = parse_model_list(payload, source)
        except ModelListError as error:
            misunderstood = error
            continue
        if models:
            return await asyncio.to_thread(_with_files, models, known_files)
        understood = True
    if misunderstood is not None and not understood:
        raise misunderstood
    return []


def parse_model_list(payload: object, source: str) -> list[Model]:
    """The models in a server's answer from `source` (the path asked), in its order and each id once.

    Entries without a name are left out, and so is every field that is not what it should be. Raises `ModelListError` if there is no list.
    """
    models: dict[str, Model] = {}
    for entry in _entries(payload, source)[:MAX_MODELS]:
        model = _parse_entry(entry)
        if model is not None:
            models[model.id] = _together(models[model.id], model) if model.id in models else model
    return list(models.values())


def _entries(payload: object, source: str) -> list[object]:
    if isinstance(payload, list):
        return payload
    if isinstance(payload, Mapping):
        # llama.cpp sends both, with different halves of the truth about the same models.
        lists = [value for key in ("data", "models") if isinstance(value := payload.get(key), list)]
        if lists:
            return [entry for entries in lists for entry in entries]
    raise ModelListError(
        f"The answer to {source} is not a list of models.",
        param=source,
        remedy="Check that the address is an inference server's.",
    )


def _parse_entry(entry: object) -> Model | None:
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, Mapping):
        return None
    model_id = _first_text(entry, "id", "model", "name")
    if model_id is None:
        return None
    details, meta = _mapping(entry, "details"), _mapping(entry, "meta")
    return Model(
        id=model_id,
        name=_first_text(entry, "name") or _short_name(model_id),
        type=_first_text(entry, "type") or _first_text(details, "format") or _first_text(entry, "object") or "model",
        size=_whole(entry.get("size")) or _whole(meta.get("size")) or 0,
        modified_at=_unix_seconds(entry.get("modified_at")) or _unix_seconds(entry.get("created")) or 0,
        status=_status(entry.get("status")),
        metadata=_server_metadata(details, meta),
    )


def _server_metadata(details: Mapping[str, object], meta: Mapping[str, object]) -> ModelMetadata | None:
    metadata = ModelMetadata(
        architecture=_first_text(details, "family"),
        parameter_count=_whole(meta.get("n_params")),
        quantisation=_first_text(details, "quantization_level") or _first_text(meta, "ftype"),
        context_length=_whole(meta.get("n_ctx_train")),
        embedding_length=_whole(meta.get("n_embd")),
        vocabulary_size=_whole(meta.get("n_vocab")),
    )
    return metadata if metadata != ModelMetadata() else None


def _together(first: Model, second: Model) -> Model:
    """Two entries for one model: the first one's word, and the second's where the first has none."""
    return replace(
        first,
        size=first.size or second.size,
        modified_at=first.modified_at or second.modified_at,
        status=first.status or second.status,
        metadata=_both(first.metadata, second.metadata),
    )


def _both(first: ModelMetadata | None, second: ModelMetadata | None) -> ModelMetadata | None:
    """`first`, completed from `second`."""
    if first is None or second is None:
        return first or second
    return replace(second, **first.to_wire())


def _with_files(models: list[Model], known_files: Sequence[Path]) -> list[Model]:
    """The models with the metadata of the files that they are; a file that cannot be read leaves the server's word."""
    if len(models) == 1 and len(known_files) == 1:
        return [_with_file(models[0], known_files[0])]
    by_name = {name: path for path in known_files for name in (str(path), path.name, path.stem)}
    return [_with_file(model, by_name.get(model.id) or by_name.get(PurePath(model.id).name)) for model in models]


def _with_file(model: Model, path: Path | None) -> Model:
    if path is None:
        return model
    try:
        file = read_model_file(path)
    except GgufError:
        return model
    return replace(
        model,
        type="gguf",
        size=file.size_bytes,
        modified_at=file.modified_at,
        metadata=_both(ModelMetadata.from_header(file.header), model.metadata),
        path=file.path,
    )


def _status(value: object) -> str | None:
    """The router sends `{"value": …, "failed": true}`, others a word."""
    if isinstance(value, Mapping):
        return "failed" if value.get("failed") is True else _first_text(value, "value")
    return _text(value)


def _short_name(model_id: str) -> str:
    """llama.cpp gives the model file's path as the id."""
    return PurePath(model_id).stem if model_id.lower().endswith(".gguf") else model_id


def _mapping(entry: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = entry.get(key)
    return value if isinstance(value, Mapping) else {}


def _first_text(entry: Mapping[str, object], *keys: str) -> str | None:
    texts: Iterable[str | None] = (_text(entry.get(key)) for key in keys)
    return next((text for text in texts if text), None)


def _text(value: object) -> str | None:
    return printable(value[:MAX_TEXT_CHARACTERS]) or None if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    """A number from 0, as a whole one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MAX_WHOLE_NUMBER else None


def _unix_seconds(value: object) -> int | None:
    if isinstance(value, str):
        try:
            return _whole(datetime.fromisoformat(value).timestamp())
        except (ValueError, OverflowError, OSError):
            return None
    seconds = _whole(value)
    return seconds // 1000 if seconds is not None and seconds >= _MILLISECONDS_FROM else seconds

"""What a GGUF file says about itself, read without trusting it.

Model files come from strangers. The engine reads them in a process of its own; the supervisor reads only the header, with a reader that
holds no array, follows no nesting, reads a bounded number of bytes and answers every surprise with a `GgufError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.models.gguf_sections import Metadata, Tensors
from supervisor.models.gguf_source import DEFAULT_LIMITS, GgufError, GgufLimits, GgufSource, open_source
from supervisor.models.gguf_types import FILE_TYPE_GUESSED, FILE_TYPES, TENSOR_TYPES

__all__ = ["DEFAULT_LIMITS", "GgufError", "GgufHeader", "GgufLimits", "read_gguf_header"]

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT_BYTES = 32

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The header of one GGUF file; `None` where the file does not say.

    `kind` is `general.type` (`model`, `adapter`, `mmproj`, …); `quantisation` comes from `general.file_type`, else from the tensor type
    that most weights have. Where layers differ in head counts or lengths, the largest is given. `split_index` counts from 0; only the
    first part of a split model carries an architecture. `tensor_bytes` is the size of the weights.
    """

    path: Path
    size_bytes: int
    version: int
    architecture: str | None
    name: str | None
    kind: str | None
    licence: str | None
    parameter_count: int
    tensor_count: int
    tensor_bytes: int
    quantisation: str | None
    context_length: int | None
    embedding_length: int | None
    block_count: int | None
    head_count: int | None
    head_count_kv: int | None
    key_length: int | None
    value_length: int | None
    expert_count: int | None
    vocabulary_size: int | None
    has_chat_template: bool
    split_index: int
    split_count: int

    @property
    def is_projector(self) -> bool:
        """Whether the file is the vision or audio half of a multimodal model, which no engine serves alone."""
        return self.kind == "mmproj" or self.architecture == "clip"


def read_gguf_header(path: Path, limits: GgufLimits = DEFAULT_LIMITS) -> GgufHeader:
    """Read the header of the GGUF file at `path` (version 2 or 3, little endian); blocks for some milliseconds.

    Raises `GgufError`, and nothing else, for whatever is wrong with the file. A file shorter than its last tensor's end is `truncated`:
    that is how an unfinished download shows. Tensor data is never read.
    """
    with open_source(path, limits.header_bytes) as source:
        version = _read_version(source)
        tensor_count = _bounded_count(source, "tensors", limits.tensor_count)
        key_count = _bounded_count(source, "metadata keys", limits.key_count)
        metadata = Metadata(source, limits)
        for _ in range(key_count):
            metadata.read_pair()
        tensors = Tensors(source, _alignment(source, metadata))
        for _ in range(tensor_count):
            tensors.read_one()
        tensors.check_file_holds_them()
        return _header(source, version, metadata, tensors)


def _header(source: GgufSource, version: int, metadata: Metadata, tensors: Tensors) -> GgufHeader:
    split_index, split_count = _split(source, metadata)
    architecture = _architecture(source, metadata, may_be_absent=split_index > 0)

    def figure(suffix: str) -> int | None:
        return metadata.integer(f"{architecture}.{suffix}")

    return GgufHeader(
        path=source.path,
        size_bytes=source.size_bytes,
        version=version,
        architecture=architecture,
        name=metadata.text("general.name"),
        kind=metadata.text("general.type"),
        licence=metadata.text("general.license"),
        parameter_count=tensors.elements,
        tensor_count=tensors.count,
        tensor_bytes=tensors.data_bytes,
        quantisation=_quantisation(metadata.integer("general.file_type"), tensors.elements_by_type),
        context_length=figure("context_length"),
        embedding_length=figure("embedding_length"),
        block_count=figure("block_count"),
        head_count=figure("attention.head_count"),
        head_count_kv=figure("attention.head_count_kv"),
        key_length=figure("attention.key_length"),
        value_length=figure("attention.value_length"),
        expert_count=figure("expert_count"),
        vocabulary_size=metadata.token_count if metadata.token_count is not None else figure("vocab_size"),
        has_chat_template=metadata.has_chat_template,
        split_index=split_index,
        split_count=split_count,
    )


def _read_version(source: GgufSource) -> int:
    if source.peek(len(MAGIC)) != MAGIC:
        raise _not_gguf(source)
    source.skip(len(MAGIC))
    version = source.u32()
    if version in SUPPORTED_VERSIONS:
        return version
    if version and not version & 0xFFFF:
        detail, remedy = (
            "it is big endian",
            "Get the little-endian file, or convert it with llama.cpp's gguf_convert_endian.py.",
        )
    else:
        detail = f"it is GGUF version {version}, and only versions 2 and 3 are understood"
        remedy = "Get a current conversion of the model." if version < 2 else "Update Llamavisor."
    raise GgufError(source.path, "unsupported_version", detail, remedy)


def _not_gguf(source: GgufSource) -> GgufError:
    """Say what the file is instead, where its first bytes tell: these are the mistakes that people make."""
    start = source.peek(64)
    if not start:
        detail, remedy = "it is empty", "The download did not start: fetch the file again."
    elif start.startswith(b"version https://git-lfs"):
        detail, remedy = (
            "it is a Git LFS pointer, not the model",
            "Run `git lfs pull` in that folder, or download the file itself.",
        )
    elif start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        detail, remedy = (
            "it is a web page",
            "Download the file itself: the address led to a page about it, or to a login.",
        )
    elif start[:4] in (b"lmgg", b"fmgg", b"tjgg"):
        detail, remedy = "it has the format that came before GGUF", "Get a current conversion of the model."
    else:
        detail, remedy = (
            "it does not begin with `GGUF`",
            "Give a GGUF file, or convert the model with llama.cpp's convert_hf_to_gguf.py.",
        )
    return GgufError(source.path, "not_gguf", detail, remedy)


def _bounded_count(source: GgufSource, what: str, limit: int) -> int:
    count = source.u64()
    if count > limit:
        raise source.too_large(f"{count:,} {what}", f"{limit:,}")
    return count


def _alignment(source: GgufSource, metadata: Metadata) -> int:
    alignment = metadata.integer("general.alignment")
    if alignment is None:
        return DEFAULT_ALIGNMENT_BYTES
    if alignment == 0 or alignment & (alignment - 1):
        raise source.malformed(f"`general.alignment` is {alignment}, not a power of two")
    return alignment


def _split(source: GgufSource, metadata: Metadata) -> tuple[int, int]:
    """The part's number from 0, and how many parts there are: (0, 1) for a whole model."""
    index, count = metadata.integer("split.no") or 0, metadata.integer("split.count") or 1
    if index >= count:
        raise source.malformed(f"it says that it is part {index + 1} of {count}")
    return index, count


def _architecture(source: GgufSource, metadata: Metadata, *, may_be_absent: bool) -> str | None:
    architecture = metadata.text("general.architecture")
    if architecture is None and may_be_absent:
        return None
    if architecture is None or not _ARCHITECTURE.fullmatch(architecture):
        raise source.malformed("`general.architecture` does not name an architecture")
    return architecture


def _quantisation(file_type: int | None, elements_by_type: Mapping[int, int]) -> str | None:
    if file_type is not None and (name := FILE_TYPES.get(file_type & ~FILE_TYPE_GUESSED)):
        return name
    if not elements_by_type:
        return None
    dominant = max(elements_by_type, key=lambda number: (elements_by_type[number], -number))
    known = TENSOR_TYPES.get(dominant)
    return known.name if known else f"type-{dominant}"

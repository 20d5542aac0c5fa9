"""The GGUF header reader on files that Hypothesis draws: it agrees with the `gguf` package, and no damage gets past it."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.models.gguf import GgufError, GgufHeader, GgufLimits, read_gguf_header
from supervisor.models.gguf_source import CHUNK_BYTES
from tests.fixtures.gguf_files import finish, minimal, pair, tensor, text_pair, write_tiny_llama

LIMITS = GgufLimits(header_bytes=2 * 1024 * 1024)
#: The window, a window's worth while the next is read, and what Python itself takes for a short parse.
MEMORY_CAP_BYTES = 3 * CHUNK_BYTES

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)
whole = st.integers(0, 2**32 - 1)
values = st.one_of(
    st.text(max_size=200), st.booleans(), st.floats(allow_nan=False, width=32), st.integers(-(2**31), 2**31 - 1)
)
arrays = st.one_of(
    st.lists(st.text(max_size=30), min_size=1, max_size=50),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50),
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=4), min_size=1, max_size=4),
)
storage = st.sampled_from(
    [
        gguf.GGMLQuantizationType.F32,
        gguf.GGMLQuantizationType.F16,
        gguf.GGMLQuantizationType.Q8_0,
        gguf.GGMLQuantizationType.Q4_0,
    ]
)
shapes = st.tuples(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 3)).map(
    lambda drawn: (*drawn[0], 32 * drawn[1])
)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "architecture": draw(st.sampled_from(["llama", "qwen2", "gemma3", "phi-3", "bert"])),
        "name": draw(names.filter(str.isprintable)),
        "context_length": draw(whole),
        "embedding_length": draw(whole),
        "block_count": draw(whole),
        "head_count": draw(whole),
        "tokens": draw(st.lists(st.binary(max_size=30), min_size=1, max_size=60)),
        "template": draw(st.none() | st.text(min_size=1, max_size=300)),
        "file_type": draw(st.none() | st.sampled_from([0, 1, 2, 7, 15])),
        "alignment": draw(st.none() | st.sampled_from([8, 16, 64, 128])),
        "values": draw(st.dictionaries(names.map("x.{}".format), values | arrays, max_size=8)),
        "tensors": draw(
            st.dictionaries(names.filter(lambda name: len(name.encode()) < 64), st.tuples(shapes, storage), max_size=6)
        ),
    }


def write_model(path: Path, model: dict[str, Any]) -> None:
    writer = gguf.GGUFWriter(path, model["architecture"])
    if model["alignment"]:
        writer.add_custom_alignment(model["alignment"])
    writer.add_name(model["name"])
    for figure in ("context_length", "embedding_length", "block_count", "head_count"):
        getattr(writer, f"add_{figure}")(model[figure])
    writer.add_token_list(model["tokens"])
    if model["template"] is not None:
        writer.add_chat_template(model["template"])
    if model["file_type"] is not None:
        writer.add_file_type(model["file_type"])
    for key, value in model["values"].items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, (shape, storage_type) in model["tensors"].items():
        zeros = gguf.quants.quantize(np.zeros(shape, np.float32), storage_type)
        writer.add_tensor(name, zeros, raw_shape=zeros.shape, raw_dtype=storage_type)
    finish(writer)


def read_back(content: bytes) -> GgufHeader:
    """What our reader makes of `content`, after checking that it kept to its limits."""
    read = 0
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        chunk = pread(descriptor, length, offset)
        read += len(chunk)
        return chunk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with patch("os.pread", counting):
                return read_gguf_header(path, LIMITS)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert read <= LIMITS.header_bytes
            assert peak <= MEMORY_CAP_BYTES


@given(models())
def test_agrees_with_the_package_that_wrote_the_file(model: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        write_model(path, model)
        content = path.read_bytes()
        reference = gguf.GGUFReader(path)
        elements = sum(int(one.n_elements) for one in reference.tensors)
        data_bytes = sum(int(one.n_bytes) for one in reference.tensors)
        del reference
    found = read_back(content)
    for figure in ("architecture", "name", "context_length", "embedding_length", "block_count", "head_count"):
        assert getattr(found, figure) == model[figure]
    assert found.vocabulary_size == len(model["tokens"])
    assert found.has_chat_template == (model["template"] is not None)
    assert found.tensor_count == len(model["tensors"])
    assert (found.parameter_count, found.tensor_bytes) == (elements, data_bytes)
    if model["file_type"] is not None:
        assert found.quantisation == {0: "F32", 1: "F16", 2: "Q4_0", 7: "Q8_0", 15: "Q4_K_M"}[model["file_type"]]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small files in which most bytes mean something."""
    whole_model = write_tiny_llama(tmp_path_factory.mktemp("gguf") / "m.gguf").read_bytes()
    nested = b"\x09\0\0\0" + (2).to_bytes(8, "little") + (b"\0\0\0\0" + (3).to_bytes(8, "little") + b"abc") * 2
    by_hand = minimal(
        text_pair("general.name", "n"),
        pair("llama.context_length", 4, bytes(4)),
        pair("x", 9, nested),
        tensors=(tensor("t", (32, 2), 0), tensor("u", (32,), 8, 256)),
        data=bytes(290),
    )
    return [whole_model, by_hand]


@given(data=st.data())
def test_mutation_either_parses_or_is_refused(seeds: list[bytes], data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(content), 8_000) - 1))
        patch_bytes = data.draw(
            st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\x09\0\0\0", b"\x7f" + b"\xff" * 7])
            | st.binary(max_size=12)
        )
        content[place : place + len(patch_bytes)] = patch_bytes
    end = data.draw(st.none() | st.integers(0, len(content)))
    with suppress(GgufError):
        read_back(bytes(content[:end]))


@given(st.binary(max_size=2_000))
def test_noise_after_the_magic_is_refused_or_parsed(noise: bytes) -> None:
    with suppress(GgufError):
        read_back(b"GGUF\x03\0\0\0" + noise)


@given(data=st.data())
def test_every_truncation_is_refused(seeds: list[bytes], data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(seeds))
    kept = data.draw(st.integers(4, len(content) - 32))
    with pytest.raises(GgufError) as caught:
        read_back(content[:kept])
    assert caught.value.code == "truncated"

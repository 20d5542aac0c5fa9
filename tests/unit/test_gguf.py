"""The GGUF header reader on whole, damaged and hostile files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from supervisor.models.gguf import GgufError, GgufLimits, read_gguf_header
from tests.fixtures.gguf_files import (
    BROKEN,
    CONTEXT_LENGTH,
    finish,
    header,
    minimal,
    pair,
    tensor,
    text_pair,
    write_broken,
    write_tiny_llama,
)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, limits: GgufLimits | None = None) -> GgufError:
    with pytest.raises(GgufError) as caught:
        read_gguf_header(path, *([limits] if limits else []))
    return caught.value


def test_tiny_llama(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    found = read_gguf_header(path)
    assert (found.path, found.size_bytes, found.version) == (path, path.stat().st_size, 3)
    assert (found.architecture, found.name, found.kind, found.licence) == ("llama", "Tiny test llama", "model", "mit")
    assert (found.quantisation, found.context_length, found.embedding_length) == ("F16", CONTEXT_LENGTH, 64)
    assert (found.block_count, found.head_count, found.head_count_kv) == (2, 4, 4)
    assert (found.vocabulary_size, found.has_chat_template) == (260, True)
    assert (found.split_index, found.split_count, found.is_projector) == (0, 1, False)
    reference = gguf.GGUFReader(path)
    assert found.tensor_count == len(reference.tensors)
    assert found.parameter_count == sum(int(one.n_elements) for one in reference.tensors)
    assert found.tensor_bytes == sum(int(one.n_bytes) for one in reference.tensors)


def test_version_2_is_read(tmp_path: Path) -> None:
    content = minimal().replace(b"GGUF" + struct.pack("<I", 3), b"GGUF" + struct.pack("<I", 2))
    assert read_gguf_header(write(tmp_path / "v2.gguf", content)).version == 2


def test_model_without_a_chat_template(tmp_path: Path) -> None:
    assert not read_gguf_header(write_tiny_llama(tmp_path / "m.gguf", chat_template=None)).has_chat_template


def test_later_part_of_a_split_model_needs_no_architecture(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "m.gguf", split_max_tensors=10)
    first, last = (read_gguf_header(tmp_path / f"m-0000{number}-of-00003.gguf") for number in (1, 3))
    assert (first.architecture, first.split_index, first.split_count) == ("llama", 0, 3)
    assert (last.architecture, last.split_index, last.split_count) == (None, 2, 3)


def test_quantisation_comes_from_most_of_the_weights_without_a_file_type(tmp_path: Path) -> None:
    tensors = (tensor("a", (32, 64), 8, 0), tensor("b", (64,), 0, 2_176))
    path = write(tmp_path / "m.gguf", minimal(tensors=tensors, data=bytes(2_432)))
    assert read_gguf_header(path).quantisation == "Q8_0"


def test_tensor_type_younger_than_the_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", minimal(tensors=(tensor("a", (32,), 77),)))
    assert read_gguf_header(path).quantisation == "type-77"


def test_guessed_file_type(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", minimal(pair("general.file_type", 4, struct.pack("<I", 1_024 + 15))))
    assert read_gguf_header(path).quantisation == "Q4_K_M"


def test_figures_that_differ_by_layer_give_the_largest(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_head_count_kv([2, 8, 4])
    writer.add_tensor("t", np.zeros(4, np.float32))
    finish(writer)
    assert read_gguf_header(tmp_path / "m.gguf").head_count_kv == 8


def test_array_in_place_of_a_figure_that_holds_no_numbers_is_not_known(tmp_path: Path) -> None:
    texts = struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1) + b"x"
    path = write(tmp_path / "m.gguf", minimal(pair("llama.attention.head_count_kv", 9, texts)))
    assert read_gguf_header(path).head_count_kv is None


def test_projector_is_told_from_a_model(tmp_path: Path) -> None:
    content = header(pairs=2) + text_pair("general.architecture", "clip") + text_pair("general.type", "mmproj")
    assert read_gguf_header(write(tmp_path / "mmproj.gguf", content)).is_projector


def test_text_is_cut_and_made_printable(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.gguf", minimal(text_pair("general.name", "\x1b[31m" + "n" * 10_000), text_pair("a", "b"))
    )
    name = read_gguf_header(path).name
    assert name is not None
    assert name.startswith("\N{REPLACEMENT CHARACTER}[31mn")
    assert len(name) == 4_096


def test_key_longer_than_any_of_interest_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", minimal(text_pair("x" * 60_000 + ".context_length", "not a number")))
    assert read_gguf_header(path).context_length is None


def test_strings_across_many_windows(tmp_path: Path) -> None:
    """Tokens of up to a window's length, so that every boundary between two reads falls somewhere within a string or its length."""
    lengths = [0, 1, 7, 8, 9, 300_000, 0, 262_144, 262_136, 262_135, 3] + [13] * 30_000
    strings = b"".join(struct.pack("<Q", length) + bytes(length) for length in lengths)
    tokens = pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(lengths)) + strings)
    path = write(tmp_path / "m.gguf", minimal(tokens, text_pair("general.name", "after")))
    found = read_gguf_header(path)
    assert (found.vocabulary_size, found.name) == (len(lengths), "after")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write_broken(tmp_path / "broken.gguf", name)
    error = refusal(path)
    assert error.code == BROKEN[name][1]
    assert error.path == path
    assert str(path) in error.message
    assert error.remedy


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99, 0.9999])
def test_unfinished_download_says_how_much_is_there(tmp_path: Path, kept: float) -> None:
    path = write_tiny_llama(tmp_path / "m.gguf")
    whole = path.stat().st_size
    os.truncate(path, int(whole * kept))
    error = refusal(path)
    assert error.code == "truncated"
    assert f"{path.stat().st_size:,} of {whole:,} bytes" in error.message


def test_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "not_gguf"


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    assert refusal(tmp_path / "pipe.gguf").code == "not_gguf"


def test_device() -> None:
    assert refusal(Path("/dev/zero")).code == "not_gguf"


def test_missing_file_and_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to("nowhere.gguf")
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    for name in ("missing.gguf", "link.gguf", "loop.gguf", "a\0b.gguf"):
        assert refusal(tmp_path / name).code == "unreadable"


def test_link_to_a_model_is_read_under_its_own_name(tmp_path: Path) -> None:
    """The Hugging Face cache is made of links."""
    write_tiny_llama(tmp_path / "blob")
    (tmp_path / "m.gguf").symlink_to("blob")
    assert read_gguf_header(tmp_path / "m.gguf").path == tmp_path / "m.gguf"


def test_reading_budget(tmp_path: Path) -> None:
    strings = b"".join(struct.pack("<Q", 5) + b"token" for _ in range(60_000))
    path = write(tmp_path / "m.gguf", minimal(pair("x", 9, struct.pack("<IQ", 8, 60_000) + strings)))
    assert read_gguf_header(path).architecture == "llama"
    assert refusal(path, GgufLimits(header_bytes=500_000)).code == "too_large"


def test_limits_below_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="string_bytes"):
        GgufLimits(string_bytes=1_000)

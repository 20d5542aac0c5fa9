"""Our tables of the format's numbers against those of the `gguf` package."""

from __future__ import annotations

import gguf

from supervisor.models.gguf_types import ARRAY_TYPE, FILE_TYPES, SCALARS, STRING_TYPE, TENSOR_TYPES


def test_every_tensor_type_of_the_package_has_its_name_and_block_size() -> None:
    for number, sizes in gguf.GGML_QUANT_SIZES.items():
        ours = TENSOR_TYPES[int(number)]
        assert (ours.name, ours.block_elements, ours.block_bytes) == (number.name, *sizes)


def test_every_file_type_of_the_package_has_its_name() -> None:
    for file_type in gguf.LlamaFileType:
        if file_type is not gguf.LlamaFileType.GUESSED:
            assert FILE_TYPES[int(file_type)] == file_type.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def test_every_value_type_of_the_package_is_known() -> None:
    assert {int(value_type) for value_type in gguf.GGUFValueType} == {*SCALARS, STRING_TYPE, ARRAY_TYPE}

"""The two sections of a GGUF header: metadata pairs, then tensor descriptions. Both are walked once; next to nothing is held."""

from __future__ import annotations

import re
import struct
from collections import Counter
from math import prod

from supervisor.models.gguf_source import GgufLimits, GgufSource, printable
from supervisor.models.gguf_types import ARRAY_TYPE, INTEGER_TYPES, SCALARS, STRING_TYPE, TENSOR_TYPES

MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**63 - 1
#: Keys and tensor names may not be longer, by the specification.
MAX_NAME_BYTES = 65_535
#: A name or licence is cut to this many bytes.
MAX_TEXT_BYTES = 4_096
#: Per-layer values (`attention.head_count_kv` may differ by layer) are looked at up to this many layers.
MAX_LAYERS = 4_096
#: A real file has about fifteen values of interest; only a hostile one has hundreds.
MAX_HELD_VALUES = 256
MAX_HELD_KEY_BYTES = 256

_HELD_KEYS = re.compile(
    r"general\.(architecture|name|type|file_type|license|alignment)|split\.(no|count)"
    r"|.+\.(context_length|embedding_length|block_count|vocab_size|expert_count"
    r"|attention\.(head_count(_kv)?|key_length|value_length))",
    re.DOTALL,
)
_TOKENS_KEY = "tokenizer.ggml.tokens"
_TEMPLATE_KEY = "tokenizer.chat_template"
#: Dimensions, type and offset of a tensor, by its number of dimensions.
_TENSOR_TAILS = [struct.Struct(f"<{dimensions}QIQ") for dimensions in range(MAX_DIMENSIONS + 1)]

_Value = str | int | float | None


class Metadata:
    """Walks the metadata pairs and holds the few values that matter: never a vocabulary, never a chat template's text.

    `token_count` is the length of the vocabulary's array, when there is one.
    """

    def __init__(self, source: GgufSource, limits: GgufLimits) -> None:
        self.token_count: int | None = None
        self.has_chat_template = False
        self._source = source
        self._limits = limits
        self._held: dict[str, _Value] = {}
        self._arrays = 0

    def integer(self, key: str) -> int | None:
        """The whole number under `key`; of an array, its largest element. Raises `malformed` if it is something else."""
        value = self._held.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._source.malformed(f"`{printable(key)}` is not a whole number from 0")
        return value

    def text(self, key: str) -> str | None:
        """The printable text under `key`, `None` when absent or empty. Raises `malformed` if it is something else."""
        value = self._held.get(key)
        if value is not None and not isinstance(value, str):
            raise self._source.malformed(f"`{printable(key)}` is not text")
        return value or None

    def read_pair(self) -> None:
        """Move over one pair, taking note of it if it matters."""
        key = self._read_key()
        value_type = self._source.u32()
        if key == _TOKENS_KEY and value_type == ARRAY_TYPE:
            self.token_count = self._skip_array(1)
        elif key == _TEMPLATE_KEY and value_type == STRING_TYPE:
            self.has_chat_template = self._skip_string() > 0
        elif _HELD_KEYS.fullmatch(key):
            self._hold(key, self._read_value(value_type))
        else:
            self._skip_value(value_type)

    def _read_key(self) -> str:
        """The key; empty for one that is too long to be of interest."""
        length = read_name_length(self._source, "a metadata key")
        if length > MAX_HELD_KEY_BYTES:
            self._source.skip(length)
            return ""
        return self._source.raw(length).decode("utf-8", "replace")

    def _hold(self, key: str, value: _Value) -> None:
        if key in self._held:
            raise self._source.malformed(f"`{printable(key)}` is there twice")
        if len(self._held) >= MAX_HELD_VALUES:
            raise self._source.too_large("more settings of architectures", f"{MAX_HELD_VALUES} values")
        self._held[key] = value

    def _read_value(self, value_type: int) -> _Value:
        if value_type == STRING_TYPE:
            return self._read_text()
        if value_type == ARRAY_TYPE:
            return self._read_largest()
        value: int | float = self._source.unpack(self._scalar(value_type))[0]
        return value

    def _read_text(self) -> str:
        length = self._string_length()
        held = min(length, MAX_TEXT_BYTES)
        text = self._source.raw(held).decode("utf-8", "replace")
        self._source.skip(length - held)
        return printable(text)

    def _read_largest(self) -> int | None:
        """The largest element of a per-layer array of whole numbers; `None` for an array of anything else."""
        item_type, count = self._array_shape()
        if item_type not in INTEGER_TYPES or count > MAX_LAYERS:
            self._skip_items(item_type, count, depth=1)
            return None
        shape = SCALARS[item_type]
        items = self._source.raw(count * shape.size)
        return max((item for (item,) in shape.iter_unpack(items)), default=None)

    def _skip_value(self, value_type: int) -> None:
        if value_type == STRING_TYPE:
            self._skip_string()
        elif value_type == ARRAY_TYPE:
            self._skip_array(depth=1)
        else:
            self._source.skip(self._scalar(value_type).size)

    def _skip_string(self) -> int:
        length = self._string_length()
        self._source.skip(length)
        return length

    def _skip_array(self, depth: int) -> int:
        if depth > self._limits.array_depth:
            raise self._source.too_large("arrays inside arrays", f"{self._limits.array_depth} levels")
        item_type, count = self._array_shape()
        self._skip_items(item_type, count, depth)
        return count

    def _skip_items(self, item_type: int, count: int, depth: int) -> None:
        if item_type == STRING_TYPE:
            self._source.skip_strings(count, self._limits.string_bytes)
        elif item_type == ARRAY_TYPE:
            for _ in range(count):
                self._skip_array(depth + 1)
        else:
            self._source.skip(count * self._scalar(item_type).size)

    def _array_shape(self) -> tuple[int, int]:
        """The type and number of an array's items."""
        self._arrays += 1
        if self._arrays > self._limits.array_count:
            raise self._source.too_large("more arrays", f"{self._limits.array_count:,}")
        item_type, count = self._source.u32(), self._source.u64()
        if count > self._limits.array_items:
            raise self._source.too_large(f"an array of {count:,} items", f"{self._limits.array_items:,}")
        return item_type, count

    def _string_length(self) -> int:
        length = self._source.u64()
        self._source.check_string(length, self._limits.string_bytes)
        return length

    def _scalar(self, value_type: int) -> struct.Struct:
        shape = SCALARS.get(value_type)
        if shape is None:
            raise self._source.malformed(f"it has a metadata value of the unknown type {value_type}")
        return shape


class Tensors:
    """Walks the tensor descriptions and adds them up.

    `elements` is the number of weights, `data_bytes` what those of known types take in the file.
    """

    def __init__(self, source: GgufSource, alignment: int) -> None:
        self.count = 0
        self.elements = 0
        self.data_bytes = 0
        self.elements_by_type: Counter[int] = Counter()
        self._source = source
        self._alignment = alignment
        self._end = 0

    def read_one(self) -> None:
        """Move over one description."""
        source = self._source
        source.skip(read_name_length(source, "a tensor's name"))
        dimensions = source.u32()
        if dimensions > MAX_DIMENSIONS:
            raise source.malformed(f"a tensor has {dimensions} dimensions, and {MAX_DIMENSIONS} are the most")
        *shape, type_number, offset = source.unpack(_TENSOR_TAILS[dimensions])
        if offset % self._alignment:
            raise source.malformed(f"a tensor begins at {offset}, not at a multiple of {self._alignment}")
        size = self._size_bytes(shape, type_number)
        self.count += 1
        self.elements += prod(shape)
        self.data_bytes += size
        self.elements_by_type[type_number] += prod(shape)
        self._end = max(self._end, offset + size)
        if self.elements > MAX_ELEMENTS:
            raise source.malformed("its tensors have more elements than a 64-bit number can count")

    def check_file_holds_them(self) -> None:
        """Raise `truncated` if the file ends before its last tensor does; the position is at the end of the descriptions."""
        source = self._source
        data_start = -(-source.position // self._alignment) * self._alignment
        if self.count and data_start + self._end > source.size_bytes:
            raise source.truncated(f"it has {source.size_bytes:,} of {data_start + self._end:,} bytes")

    def _size_bytes(self, shape: list[int], type_number: int) -> int:
        """What a tensor takes in the file; 0 for a type younger than this reader."""
        known = TENSOR_TYPES.get(type_number)
        if known is None:
            return 0
        row = shape[0] if shape else 1
        if row % known.block_elements:
            raise self._source.malformed(
                f"a {known.name} tensor has rows of {row}, not a multiple of {known.block_elements}"
            )
        return prod(shape) // known.block_elements * known.block_bytes


def read_name_length(source: GgufSource, what: str) -> int:
    """The length in bytes of the name that follows."""
    length = source.u64()
    if length > MAX_NAME_BYTES:
        raise source.malformed(f"{what} is {length:,} bytes long, and {MAX_NAME_BYTES:,} are the most")
    return length

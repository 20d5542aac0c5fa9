"""From bytes to lines that are safe to show (rows 36 and 37)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.process.lines import LINE_BYTES_MAX, Level, LineAssembler, chunked, guess_level, to_text


def assemble(*parts: bytes) -> list[bytes]:
    assembler = LineAssembler()
    return [line for part in parts for line in assembler.feed(part)] + assembler.flush()


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ((b"one\ntwo\n",), [b"one", b"two"]),
        ((b"on", b"e\ntw", b"o"), [b"one", b"two"]),
        ((b"dos\r\nline\r\n",), [b"dos", b"line"]),
        ((b"dos\r", b"\nline\r\n"), [b"dos", b"line"]),
        ((b"10 %\r20 %\r30 %",), [b"10 %", b"20 %", b"30 %"]),
        ((b"\n\n\nafter blank lines\n",), [b"after blank lines"]),
        ((b"",), []),
    ],
)
def test_lines_end_where_they_end(parts: tuple[bytes, ...], lines: list[bytes]) -> None:
    assert assemble(*parts) == lines


def test_a_line_without_end_comes_in_pieces_and_is_never_held_whole() -> None:
    assembler = LineAssembler()
    pieces = [piece for _ in range(10) for piece in assembler.feed(b"x" * 7_000)]
    assert pieces, "nothing came before the end of line"
    assert all(len(piece) <= LINE_BYTES_MAX for piece in pieces)
    assert b"".join([*pieces, *assembler.flush()]) == b"x" * 70_000


@given(st.text(alphabet="aé☃🙂", min_size=5, max_size=20))
def test_no_character_is_cut(pattern: str) -> None:
    text = pattern * 1_000
    pieces = chunked(text.encode())
    assert "".join(piece.decode("utf-8") for piece in pieces) == text
    assert all(len(piece) <= LINE_BYTES_MAX for piece in pieces)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_however_the_bytes_arrive_the_lines_are_the_same(parts: list[bytes]) -> None:
    assert assemble(*parts) == assemble(b"".join(parts))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07after", "after"),
        (b"nul \x00 bell \x07", "nul \\x00 bell \\x07"),
        (b"bad \xff\xfe", "bad \\xff\\xfe"),
        ("bidi \u202e line \u2028".encode(), "bidi \\u202e line \\u2028"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
        (b"a\tb", "a\tb"),
        (b"lone escape \x1b", "lone escape \\x1b"),
        ("ünï ☃".encode(), "ünï ☃"),
    ],
)
def test_text_shows_what_would_hide(raw: bytes, text: str) -> None:
    assert to_text(raw) == text


@given(st.binary(max_size=300))
def test_any_bytes_become_printable_text(raw: bytes) -> None:
    assert all(char == "\t" or char.isprintable() for char in to_text(raw))


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("llama_model_loader: loaded meta data", "info"),
        ("warning: no usable GPU found", "warn"),
        ("0.00.123.456 W srv  init: no key", "warn"),
        ("0.00.123.456 E srv  load_model: failed", "error"),
        ("error loading model", "error"),
        ("Traceback (most recent call last):", "error"),
        ("terrorists win", "info"),
    ],
)
def test_the_level_is_guessed_from_the_words(message: str, level: Level) -> None:
    assert guess_level(message) == level

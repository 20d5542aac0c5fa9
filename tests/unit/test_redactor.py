"""What is kept of bodies: no secret, whatever it stands in, and in whatever pieces it came."""

from __future__ import annotations

import itertools
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.observing.redactor import LEFT_OUT, MASK, TEXT_LIMIT_CHARACTERS, Redactor, assembled

SERVER_KEY = "the key/of+this.server"
REDACTOR = Redactor(patterns=[r"case-\d{4}"], literals=[SERVER_KEY])
WORD = st.binary(min_size=12, max_size=16).map(bytes.hex)
SECRETS = st.one_of(
    WORD.map("sk-".__add__),
    WORD.map("sk-ant-api03-".__add__),
    st.tuples(WORD, WORD).map("lv-{0[0]}-{0[1]}".format),
    WORD.map("hf_".__add__),
    WORD.map("github_pat_".__add__),
    WORD.map("xoxb-".__add__),
    st.binary(min_size=8, max_size=8).map(lambda data: f"AKIA{data.hex().upper()}"),
    WORD.map("Bearer {}".format),
    st.tuples(WORD, WORD, WORD).map("eyJ{0[0]}.{0[1]}.{0[2]}".format),
    st.tuples(WORD, WORD).map("{0[0]}@{0[1]}.example".format),
    st.tuples(WORD, WORD).map("{0[0]}:{0[1]}@".format).map("postgresql://{}db".format),
    st.just(SERVER_KEY),
    st.integers(1_000, 9_999).map("case-{}".format),
    WORD.map("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----".format),
)
AROUND = st.text(st.characters(exclude_characters="@:/", codec="utf-8"), max_size=12)
TEXTS = st.tuples(AROUND, SECRETS, AROUND).map(lambda parts: (parts[1], f"{parts[0]} {parts[1]} {parts[2]}"))
UNITS = ["a.", "a@b.", "eyJa.", "sk-", "bearer ", "://a:", "data:a;b=", "----BEGIN ", "password"]
NAMES = st.text(string.ascii_letters + "_-", max_size=12)


def around(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Documents with the leaf somewhere in them, in JSON within strings too."""
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.dictionaries(NAMES, inner, min_size=1, max_size=3),
            inner.map(json.dumps),
        ),
        max_leaves=5,
    )


DOCUMENTS = TEXTS.flatmap(lambda found: st.tuples(st.just(found[0]), around(st.just(found[1]))))


def core(secret: str) -> str:
    """The part of it that is one, without what says that it is."""
    return secret.removeprefix("Bearer ").removeprefix("postgresql://").removesuffix("db")


@given(DOCUMENTS)
def test_no_secret_is_left_wherever_it_stands(found: tuple[str, Any]) -> None:
    secret, document = found
    kept = json.dumps(REDACTOR.document(document), ensure_ascii=False)
    assert core(secret) not in kept
    assert secret not in kept


@given(TEXTS, st.sampled_from(["api_key", "API-Key", "password", "client_secret", "Authorization"]), around(st.text()))
def test_no_value_of_such_a_field_is_left(found: tuple[str, str], name: str, value: Any) -> None:
    kept = REDACTOR.document({"arguments": json.dumps({name: value, "other": found[1]}), name: value})
    assert kept[name] == MASK if value is not None else True
    assert json.loads(kept["arguments"])[name] == MASK


@given(TEXTS, st.lists(st.integers(0, 200), max_size=8), st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_a_secret_that_comes_in_pieces_is_found(found: tuple[str, str], cuts: list[int], end: str) -> None:
    secret, text = found
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[begin:until] for begin, until in itertools.pairwise(places)]
    logprobs = {"content": [{"token": secret[:4]}, {"token": secret[4:]}]}
    events = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": piece}, "logprobs": logprobs}]} for piece in pieces
    ]
    stream = "".join(f"data: {json.dumps(event, ensure_ascii=False)}{end}" for event in events) + f"data: [DONE]{end}"
    whole = assembled(stream.encode())
    assert whole["choices.0.delta.content"] == text
    assert core(secret) not in json.dumps(REDACTOR.document(whole), ensure_ascii=False)


def test_a_stream_is_put_together_by_its_places() -> None:
    deltas = [
        {"id": "c", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "b"}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "a1"}}]},
        {
            "id": "c",
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}}],
        },
        {
            "id": "c",
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]}}],
        },
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "a2"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 7}},
    ]
    stream = ": a comment\n\n" + "".join(f"data: {json.dumps(one)}\n\n" for one in deltas) + 'data: {"cut'
    assert assembled(stream.encode()) == {
        "id": "c",
        "choices.0.index": 0,
        "choices.1.index": 1,
        "choices.1.delta.role": "assistant",
        "choices.1.delta.content": "b",
        "choices.0.delta.content": "a1a2",
        "choices.0.delta.tool_calls.0.index": 0,
        "choices.0.delta.tool_calls.0.function.arguments": '{"a":1}',
        "choices.0.finish_reason": "stop",
        "usage.total_tokens": 7,
    }


def test_pictures_are_cut_and_their_kind_is_kept() -> None:
    picture = "iVBORw0KGgo" * 100
    kept = REDACTOR.document({"url": f"data:image/png;base64,{picture}", "data": picture, "more": "short"})
    assert kept["url"] == "data:image/png;base64,[1100 characters cut]"
    assert kept["data"] == "[1100 characters cut]"
    assert kept["more"] == "short"


def test_of_a_long_text_whole_words_are_kept() -> None:
    text = "word " * TEXT_LIMIT_CHARACTERS
    kept = REDACTOR.text(text)
    assert len(kept) < TEXT_LIMIT_CHARACTERS + 50
    assert set(kept.partition(" [")[0].split()) == {"word"}
    assert kept.endswith(" characters cut]")
    pictures = REDACTOR.text("data:image/png;base64," + "iVBO" * TEXT_LIMIT_CHARACTERS)
    assert len(pictures) < 100


def test_half_a_document_hides_its_fields_too() -> None:
    kept = REDACTOR.text('{"user": "ann", "password": "correct horse", "n')
    assert kept == f'{{"user": "ann", "{MASK}", "n'
    assert "hunter2" not in REDACTOR.text("My API-Key = hunter2")


def test_what_is_harmless_stays_as_it_is() -> None:
    document = {
        "model": "demo", "max_tokens": 5, "logprobs": True, "stream": None, "temperature": 0.5,
        "messages": [{"role": "user", "content": "Assess the risk-averse desk-bound task: 1 < 2 @ noon; see https://example.org/a:b"}],
    }  # fmt: skip
    assert REDACTOR.document(document) == document
    assert REDACTOR.document({"logprobs": {"content": []}}) == {"logprobs": LEFT_OUT}


@pytest.mark.parametrize("unit", UNITS)
def test_long_texts_are_read_once(unit: str) -> None:
    """In proportion to the text it takes a fraction of a second; a pattern that went back at each character would exceed the deadline of the test."""
    text = unit * (TEXT_LIMIT_CHARACTERS // len(unit))
    for _ in range(5):
        assert REDACTOR.text(text)

"""The trainer's parts: tokenizer, batches, schedule and optimizer, and that a small run learns."""

import json
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer

from tools.demo_model.batches import endless_batches, pad, with_gaps
from tools.demo_model.corpus import Message, conversations, write_corpus
from tools.demo_model.model import Batch, Llama, Parameters, Shape
from tools.demo_model.optimizer import AdamW, Schedule
from tools.demo_model.tokenizer import (
    CONTROL_TOKENS,
    NO_LABEL,
    TURN_END_ID,
    TURN_START_ID,
    Encoded,
    encode_chats,
    load_tokenizer,
    train_tokenizer,
)
from tools.demo_model.train import TrainingSettings, train

VOCABULARY = 400
CHAT: list[Message] = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 plus 3 is 5."},
    {"role": "user", "content": "Żółw? 你好"},
    {"role": "assistant", "content": "Sorry, no."},
]


@pytest.fixture(scope="module")
def chats() -> list[list[Message]]:
    return list(islice(conversations(seed=0), 300))


@pytest.fixture(scope="module")
def tokenizer(chats: list[list[Message]]) -> Tokenizer:
    return train_tokenizer((message["content"] for chat in chats for message in chat), VOCABULARY)


@pytest.fixture(scope="module")
def encoded(tokenizer: Tokenizer, chats: list[list[Message]]) -> list[Encoded]:
    return encode_chats(tokenizer, chats, context=256)


def as_chatml(chat: list[Message]) -> str:
    return "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in chat)


def test_the_tokenizer_puts_control_tokens_first_and_can_say_every_byte(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in CONTROL_TOKENS] == [0, 1, 2]
    for text in ("What is 2 + 3?", "Żółw 你好 🦙\n\ttab"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_tokenizer_is_the_same_each_time_and_survives_a_file(
    tokenizer: Tokenizer, chats: list[list[Message]], tmp_path: Path
) -> None:
    again = train_tokenizer((message["content"] for chat in chats for message in chat), VOCABULARY)
    assert again.to_str() == tokenizer.to_str()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == tokenizer.to_str()


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="give more text"):
        train_tokenizer(["a b c"], VOCABULARY)


def test_a_chat_is_encoded_as_the_engine_will_tokenise_its_template(tokenizer: Tokenizer) -> None:
    [chat] = encode_chats(tokenizer, [CHAT], context=256)
    assert [*chat.ids] == tokenizer.encode(as_chatml(CHAT)).ids[:-1]


def test_only_the_assistants_words_and_their_end_are_labelled(tokenizer: Tokenizer) -> None:
    [chat] = encode_chats(tokenizer, [CHAT], context=256)
    labelled = [int(label) for label in chat.labels if label != NO_LABEL]
    answers = [message["content"] for message in CHAT if message["role"] == "assistant"]
    assert labelled == [token for answer in answers for token in (*tokenizer.encode(answer).ids, TURN_END_ID)]
    assert np.array_equal(chat.weights > 0, chat.labels != NO_LABEL)


def test_an_answer_counts_with_the_square_root_of_its_length(tokenizer: Tokenizer) -> None:
    [chat] = encode_chats(tokenizer, [CHAT[1:3]], context=256)
    length = int((chat.labels != NO_LABEL).sum())
    assert float(chat.weights.sum()) == pytest.approx(length**0.5)


def test_a_long_chat_is_cut_at_the_context(tokenizer: Tokenizer) -> None:
    [chat] = encode_chats(tokenizer, [CHAT * 20], context=64)
    assert len(chat.ids) == len(chat.labels) == len(chat.weights) == 64


def test_batches_hold_every_conversation_once_an_epoch_within_the_budget(encoded: list[Encoded]) -> None:
    budget, rows = 1024, 0
    for batch in endless_batches(encoded, budget, context=512, seed=0):
        assert batch.ids.size <= budget or len(batch.ids) == 1
        assert np.all(batch.ids[:, 0] == TURN_START_ID)
        rows += len(batch.ids)
        if rows >= len(encoded):
            break
    assert rows == len(encoded)


def test_batches_repeat_with_their_seed(encoded: list[Encoded]) -> None:
    def first(seed: int) -> list[bytes]:
        return [batch.ids.tobytes() for batch in islice(endless_batches(encoded, 1024, 512, seed), 5)]

    assert first(0) == first(0) != first(1)


def test_padding_has_no_label_and_no_weight(encoded: list[Encoded]) -> None:
    short, long = sorted(encoded, key=lambda item: len(item.ids))[:: len(encoded) - 1]
    batch = pad([short, long])
    assert batch.ids.shape[1] % 8 == 0
    assert np.all(batch.labels[0, len(short.ids) :] == NO_LABEL)
    assert not batch.weights[0, len(short.ids) :].any()


def test_gaps_open_only_before_a_turn_after_an_answer_and_stay_in_the_context(encoded: list[Encoded]) -> None:
    rng, found = Random(0), 0
    for batch in islice(endless_batches(encoded, 1024, context=512, seed=0), 30):
        gapped = with_gaps(
            batch._replace(positions=np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)), 512, rng
        )
        steps = np.diff(gapped.positions, axis=1)
        assert gapped.positions.max() < 512
        for row, place in zip(*np.nonzero(steps != 1), strict=True):
            found += 1
            assert batch.ids[row, place + 1] == TURN_START_ID
            assert batch.labels[row, place - 2] == TURN_END_ID
    assert found > 10


def test_the_rate_rises_stays_and_falls() -> None:
    schedule = Schedule(peak=1.0, warmup=0.1, level_until=0.5, floor=0.01)
    rates = [schedule.rate(progress) for progress in (0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0.01, 0.51, 1.0, 1.0, 1.0, 0.5, 0.01])


def test_the_optimizer_clips_what_it_reports_and_spares_norms_from_decay() -> None:
    parameters: Parameters = {"matrix": np.ones((2, 2)), "norm": np.ones(2)}
    optimizer = AdamW(parameters)
    size = optimizer.step({"matrix": np.zeros((2, 2)), "norm": np.zeros(2)}, rate=0.1)
    assert size == 0
    assert parameters["matrix"][0, 0] == pytest.approx(1 - 0.1 * AdamW.WEIGHT_DECAY)
    assert parameters["norm"].tolist() == [1, 1]
    assert optimizer.step({"matrix": np.full((2, 2), 30.0), "norm": np.zeros(2)}, rate=0.1) == pytest.approx(60)
    assert np.all(parameters["matrix"] < 1 - 0.1 * AdamW.WEIGHT_DECAY)


def test_chats_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="longest_chat 65 exceeds the context 64"):
        TrainingSettings(longest_chat=65, shape=Shape(context=64))


def test_one_batch_can_be_learnt_by_heart() -> None:
    model = Llama.random(Shape(vocabulary=20, width=16, layers=1, heads=2, inner=24, context=16), seed=0)
    ids = np.random.default_rng(1).integers(0, 20, (2, 8)).astype(np.int32)
    positions = np.broadcast_to(np.arange(7, dtype=np.int32), (2, 7))
    batch = Batch(ids[:, :-1], positions, ids[:, 1:], np.ones((2, 7), np.float32))
    optimizer = AdamW(model.parameters)
    for _ in range(150):
        _, grads = model.gradients(batch)
        optimizer.step(grads, rate=0.01)
    assert model.loss(batch) < 0.1


def test_a_run_writes_model_and_tokenizer_reports_progress_and_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", seed=0, count=200)
    shape = Shape(vocabulary=VOCABULARY, width=16, layers=1, heads=2, inner=24, context=128)
    settings = TrainingSettings(tokens=4000, batch_tokens=512, longest_chat=64, shape=shape)
    first = train(tmp_path / "corpus.jsonl", tmp_path / "model.npz", tmp_path / "tokenizer.json", settings)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "step"] == ["corpus", "model", "trained"]
    assert events[-1]["progress"] == 1
    assert events[-1]["tokens"] >= settings.tokens
    again = train(tmp_path / "corpus.jsonl", tmp_path / "again.npz", tmp_path / "tokenizer.json", settings)
    assert all(np.array_equal(value, again.parameters[name]) for name, value in first.parameters.items())
    assert Llama.load(tmp_path / "model.npz").shape == shape

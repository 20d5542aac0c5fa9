"""The tokenizer: byte-level BPE as in GPT-2, which llama.cpp knows by the name `gpt-2`, and the ChatML form of a chat."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import Message

PADDING, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (PADDING, TURN_START, TURN_END)
"""Their places in this tuple are their ids."""

PADDING_ID, TURN_START_ID, TURN_END_ID = range(len(CONTROL_TOKENS))
NO_LABEL = -1
"""Marks a position whose next token is not the model's to say."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Encoded(NamedTuple):
    """A conversation as the trainer wants it; all arrays have shape (tokens,).

    `labels[i]` is the token that should follow `ids[i]`, or `NO_LABEL` outside the assistant's answers.
    `weights[i]` is the share of that label in the loss.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a BPE of exactly `vocabulary` tokens (control tokens first), learnt from the texts.

    Raises ValueError where the texts have too few pairs for so large a vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens learnt instead of {vocabulary}: give more text")
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load what `Tokenizer.save` wrote."""
    return Tokenizer.from_file(str(path))


def encode_chats(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]], context: int) -> list[Encoded]:
    """Encode conversations in ChatML, each cut at `context` tokens.

    An answer counts with the square root of its length: were every token equal, stories, most of whose tokens are
    chance, would drown the one token that matters in "Three plus four is seven."
    """
    # Each distinct text once, and all in one call: most answers of the corpus recur many times.
    texts = sorted({text for chat in chats for message in chat for text in _texts_of(message)} | {"\n"})
    known = {text: coded.ids for text, coded in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    return [_encode_chat(known, chat, context) for chat in chats]


def _texts_of(message: Message) -> tuple[str, str]:
    return f"{message['role']}\n", message["content"]


def _encode_chat(known: Mapping[str, list[int]], chat: Sequence[Message], context: int) -> Encoded:
    ids: list[int] = []
    said: list[float] = []
    for message in chat:
        role, text = (known[part] for part in _texts_of(message))
        weight = (len(text) + 1) ** -0.5 if message["role"] == "assistant" else 0.0
        ids += [TURN_START_ID, *role, *text, TURN_END_ID, *known["\n"]]
        said += [0.0] * (1 + len(role)) + [weight] * (len(text) + 1) + [0.0] * len(known["\n"])
    return _shifted(ids[: context + 1], said[: context + 1])


def _shifted(ids: list[int], said: list[float]) -> Encoded:
    following = np.array(ids[1:], np.int32)
    weights = np.array(said[1:], np.float32)
    return Encoded(np.array(ids[:-1], np.int32), np.where(weights > 0, following, NO_LABEL).astype(np.int32), weights)

"""Batches of conversations of like length, so that little is spent on padding."""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np

from .model import Batch
from .tokenizer import NO_LABEL, PADDING_ID, Encoded

POOL = 1024
"""Conversations that are sorted by length together: enough for tight batches, few enough for varied ones."""

ROUND_TO = 8


def endless_batches(data: Sequence[Encoded], tokens: int, seed: int) -> Iterator[Batch]:
    """Yield batches of at most `tokens` tokens, padding included, epoch after epoch, each in an order of its own.

    A conversation longer than `tokens` makes a batch by itself.
    """
    rng = Random(seed)
    while True:
        order = list(range(len(data)))
        rng.shuffle(order)
        for start in range(0, len(order), POOL):
            pool = [data[i] for i in order[start : start + POOL]]
            groups = _groups(sorted(pool, key=lambda item: len(item.ids)), tokens)
            rng.shuffle(groups)
            yield from map(pad, groups)


def pad(group: Sequence[Encoded]) -> Batch:
    """Return the conversations as one rectangle, padded on the right with tokens that have no label."""
    length = _rounded(max(len(item.ids) for item in group))
    ids = np.full((len(group), length), PADDING_ID, np.int32)
    labels = np.full((len(group), length), NO_LABEL, np.int32)
    weights = np.zeros((len(group), length), np.float32)
    for row, item in enumerate(group):
        ids[row, : len(item.ids)] = item.ids
        labels[row, : len(item.labels)] = item.labels
        weights[row, : len(item.weights)] = item.weights
    return Batch(ids, labels, weights)


def _groups(by_length: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    groups: list[list[Encoded]] = [[]]
    for item in by_length:
        if groups[-1] and _rounded(len(item.ids)) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(item)
    return groups


def _rounded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO

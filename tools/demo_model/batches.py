"""Batches of conversations of like length, so that little is spent on padding."""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np

from .layers import Ids
from .model import Batch
from .tokenizer import NO_LABEL, PADDING_ID, TURN_END_ID, TURN_START_ID, Encoded

POOL = 1024
"""Conversations that are sorted by length together: enough for tight batches, few enough for varied ones."""

ROUND_TO = 8


GAP_SHARE = 0.25
"""Share of conversations with a gap in their positions. Such a gap teaches how far-away text looks for the price of a
short conversation; without it, answers fell apart beyond the longest conversation of the training."""


def endless_batches(data: Sequence[Encoded], tokens: int, context: int, seed: int) -> Iterator[Batch]:
    """Yield batches of at most `tokens` tokens, padding included, epoch after epoch, each in an order of its own.

    A conversation longer than `tokens` makes a batch by itself. Positions stay below `context`.
    """
    rng = Random(seed)
    while True:
        order = list(range(len(data)))
        rng.shuffle(order)
        for start in range(0, len(order), POOL):
            pool = [data[i] for i in order[start : start + POOL]]
            groups = _groups(sorted(pool, key=lambda item: len(item.ids)), tokens)
            rng.shuffle(groups)
            yield from (with_gaps(pad(group), context, rng) for group in groups)


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
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    return Batch(ids, positions, labels, weights)


def with_gaps(batch: Batch, context: int, rng: Random) -> Batch:
    """Return the batch with a gap of random size before a random later turn of some of its conversations."""
    positions = batch.positions.copy()
    room = context - positions.shape[1]
    for row, starts in enumerate(map(_later_turns, batch.ids, batch.labels)):
        if len(starts) and rng.random() < GAP_SHARE:
            positions[row, rng.choice(starts) :] += rng.randint(0, room)
    return batch._replace(positions=positions)


def _later_turns(ids: Ids, labels: Ids) -> Sequence[int]:
    """Where a user's turn follows an answer: the answer's last label lies three tokens before (end, line break)."""
    starts = np.flatnonzero(ids == TURN_START_ID)
    starts = starts[starts >= 3]
    found: list[int] = starts[labels[starts - 3] == TURN_END_ID].tolist()
    return found


def _groups(by_length: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    groups: list[list[Encoded]] = [[]]
    for item in by_length:
        if groups[-1] and _rounded(len(item.ids)) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(item)
    return groups


def _rounded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO

"""The building blocks of the model in numpy: each a forward function and its derivative.

A forward function returns its output and what its derivative needs; the derivative takes the gradient of the loss by
the output and returns the gradients by the inputs. All work in the floating type of their inputs: float32 to train,
float64 to be checked against numeric differences.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Ids = NDArray[np.integer[Any]]

NORM_EPSILON = 1e-5


class NormCache(NamedTuple):
    """The normalised rows, shape (rows, width), and the factor that made them so, shape (rows, 1)."""

    unit: Array
    factor: Array


def norm(x: Array, gain: Array) -> tuple[Array, NormCache]:
    """Root-mean-square norm of the rows of `x` (rows, width), times `gain` (width)."""
    mean_square = np.einsum("rw,rw->r", x, x) / x.shape[1]
    factor = (1 / np.sqrt(mean_square + NORM_EPSILON))[:, None].astype(x.dtype)
    unit = x * factor
    return unit * gain, NormCache(unit, factor)


def norm_backward(grad: Array, gain: Array, cache: NormCache) -> tuple[Array, Array]:
    """Return the gradients by `x` and by `gain`."""
    scaled = grad * gain
    along = np.einsum("rw,rw->r", scaled, cache.unit) / grad.shape[1]
    by_x = scaled - cache.unit * along[:, None].astype(grad.dtype)
    by_x *= cache.factor
    return by_x, np.einsum("rw,rw->w", grad, cache.unit)


class Rotation(NamedTuple):
    """Cosines and signed sines of the rotary embedding, shape (positions, head width)."""

    cosine: Array
    sine: Array


def rotation(positions: int, width: int, base: float, dtype: type[np.floating[Any]]) -> Rotation:
    """Return the rotary tables in Hugging Face's order: the first half of a head pairs with the second."""
    angles = np.outer(np.arange(positions), base ** (-np.arange(0, width, 2) / width))
    cosine = np.concatenate([np.cos(angles), np.cos(angles)], axis=1)
    sine = np.concatenate([-np.sin(angles), np.sin(angles)], axis=1)
    return Rotation(cosine.astype(dtype), sine.astype(dtype))


def rotation_at(tables: Rotation, positions: Ids) -> Rotation:
    """Return the tables for the given positions (batch, tokens), shape (batch, 1, tokens, head width)."""
    return Rotation(tables.cosine[positions][:, None], tables.sine[positions][:, None])


def rotate(x: Array, tables: Rotation) -> Array:
    """Rotate `x` (batch, heads, tokens, head width) by tables of `rotation_at`."""
    return x * tables.cosine + _swap_halves(x) * tables.sine


def rotate_backward(grad: Array, tables: Rotation) -> Array:
    """Rotate the gradient back."""
    return grad * tables.cosine + _swap_halves(grad * tables.sine)


def _swap_halves(x: Array) -> Array:
    half = x.shape[-1] // 2
    return np.concatenate([x[..., half:], x[..., :half]], axis=-1)


class AttentionCache(NamedTuple):
    """Queries, keys, values (batch, heads, positions, head width) and the attention (…, positions, positions)."""

    queries: Array
    keys: Array
    values: Array
    attention: Array


def attend(queries: Array, keys: Array, values: Array) -> tuple[Array, AttentionCache]:
    """Causal attention; all of shape (batch, heads, positions, head width), and so is the output."""
    scores = queries @ keys.swapaxes(-1, -2)
    scores *= scores.dtype.type(queries.shape[-1] ** -0.5)
    scores += _causal_mask(scores.shape[-1], scores.dtype)
    attention = softmax_inplace(scores)
    return attention @ values, AttentionCache(queries, keys, values, attention)


def attend_backward(grad: Array, cache: AttentionCache) -> tuple[Array, Array, Array]:
    """Return the gradients by queries, keys and values."""
    by_values = cache.attention.swapaxes(-1, -2) @ grad
    by_scores = grad @ cache.values.swapaxes(-1, -2)
    by_scores -= np.einsum("bhqk,bhqk->bhq", by_scores, cache.attention)[..., None]
    by_scores *= cache.attention
    by_scores *= by_scores.dtype.type(cache.queries.shape[-1] ** -0.5)
    return by_scores @ cache.keys, by_scores.swapaxes(-1, -2) @ cache.queries, by_values


def _causal_mask(positions: int, dtype: np.dtype[Any]) -> Array:
    return np.triu(np.full((positions, positions), -1e9, dtype), 1)


def softmax_inplace(scores: Array) -> Array:
    """Turn scores into probabilities along the last axis, in their own memory."""
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


class GateCache(NamedTuple):
    """Gate and up projections and the gate's sigmoid, each (rows, inner width)."""

    gate: Array
    up: Array
    sigmoid: Array


def swiglu(gate: Array, up: Array) -> tuple[Array, GateCache]:
    """Return `silu(gate) · up`, shape (rows, inner width)."""
    sigmoid = 1 / (1 + np.exp(-gate))
    return gate * sigmoid * up, GateCache(gate, up, sigmoid)


def swiglu_backward(grad: Array, cache: GateCache) -> Array:
    """Return the gradients by gate and up side by side, shape (rows, 2 · inner width)."""
    rows, width = grad.shape
    out = np.empty((rows, 2 * width), grad.dtype)
    silu = cache.gate * cache.sigmoid
    np.multiply(grad, silu, out=out[:, width:])
    slope = cache.sigmoid + silu * (1 - cache.sigmoid)
    slope *= cache.up
    np.multiply(grad, slope, out=out[:, :width])
    return out


def add_rows(target: Array, rows: Ids, grad: Array) -> None:
    """Add each row of `grad` to the row of `target` that `rows` names; many times faster than `numpy.add.at`."""
    order = np.argsort(rows, kind="stable")
    named, starts = np.unique(rows[order], return_index=True)
    target[named] += np.add.reduceat(grad[order], starts, axis=0)

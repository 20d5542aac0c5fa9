"""A Llama in numpy: rotary positions, RMS norms, SwiGLU, input and output embedding tied; forward and backward by hand."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .layers import (
    Array,
    AttentionCache,
    GateCache,
    Ids,
    NormCache,
    Rotation,
    add_rows,
    attend,
    attend_backward,
    norm,
    norm_backward,
    rotate,
    rotate_backward,
    rotation,
    rotation_at,
    softmax_inplace,
    swiglu,
    swiglu_backward,
)

ROPE_BASE = 10_000.0
INITIAL_SCALE = 0.02

Parameters = dict[str, Array]
"""By name: `embedding` (vocabulary, width), `norm` (width), and for each layer N `N.attention_norm`, `N.qkv`
(3 · width, width), `N.out` (width, width), `N.ffn_norm`, `N.gate_up` (2 · inner, width), `N.down` (width, inner)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model. `context` is the number of positions it knows."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    context: int = 2048

    @property
    def head_width(self) -> int:
        """The width of one attention head; `width` must be a multiple of `heads`."""
        return self.width // self.heads


class Batch(NamedTuple):
    """Token ids, their positions, labels and label weights, each of shape (conversations, tokens).

    Positions rise along a row, below the model's context; for the rest see `tokenizer.Encoded`.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


class _LayerCache(NamedTuple):
    attention_in: Array
    attention_norm: NormCache
    attention: AttentionCache
    attention_out: Array
    ffn_in: Array
    ffn_norm: NormCache
    gate: GateCache
    ffn_out: Array


class _HeadCache(NamedTuple):
    rows: Ids
    inputs: Array
    norm: NormCache
    by_logits: Array


class Llama:
    """The model: its parameters, the loss of a batch, and the gradients of that loss."""

    def __init__(self, shape: Shape, parameters: Parameters) -> None:
        self.shape = shape
        self.parameters = parameters
        dtype = parameters["embedding"].dtype.type
        self._rotation: Rotation = rotation(shape.context, shape.head_width, ROPE_BASE, dtype)

    @classmethod
    def random(cls, shape: Shape, seed: int, dtype: type[np.floating[Any]] = np.float32) -> "Llama":
        """Return a model with fresh parameters: the same seed gives the same ones."""
        rng = np.random.default_rng(seed)
        residual = INITIAL_SCALE / (2 * shape.layers) ** 0.5

        def normal(rows: int, columns: int, scale: float = INITIAL_SCALE) -> Array:
            return (rng.standard_normal((rows, columns)) * scale).astype(dtype)

        width, inner = shape.width, shape.inner
        parameters: Parameters = {"embedding": normal(shape.vocabulary, width), "norm": np.ones(width, dtype)}
        for layer in range(shape.layers):
            parameters[f"{layer}.attention_norm"] = np.ones(width, dtype)
            parameters[f"{layer}.qkv"] = normal(3 * width, width)
            parameters[f"{layer}.out"] = normal(width, width, residual)
            parameters[f"{layer}.ffn_norm"] = np.ones(width, dtype)
            parameters[f"{layer}.gate_up"] = normal(2 * inner, width)
            parameters[f"{layer}.down"] = normal(width, inner, residual)
        return cls(shape, parameters)

    @classmethod
    def load(cls, path: Path) -> "Llama":
        """Load what `save` wrote."""
        with np.load(path) as stored:
            arrays = dict(stored)
        shape = Shape(*(int(size) for size in arrays.pop("shape")))
        return cls(shape, arrays)

    def save(self, path: Path) -> None:
        """Write shape and parameters as one `.npz` file."""
        np.savez(path, shape=np.array(list(asdict(self.shape).values())), **self.parameters)  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> float:
        """Return the mean cross-entropy of the labels, in nats, weighted by the batch's weights."""
        x, _ = self._trunk(batch, keep=False)
        return self._head(x, batch)[0]

    def gradients(self, batch: Batch) -> tuple[float, Parameters]:
        """Return the loss and its gradients by every parameter."""
        x, caches = self._trunk(batch, keep=True)
        loss, head = self._head(x, batch)
        turned = rotation_at(self._rotation, batch.positions)
        grads: Parameters = {"embedding": head.by_logits.T @ head.inputs}
        by_inputs, grads["norm"] = norm_backward(
            head.by_logits @ self.parameters["embedding"], self.parameters["norm"], head.norm
        )
        by_x = np.zeros_like(x)
        by_x[head.rows] = by_inputs
        for layer in reversed(range(self.shape.layers)):
            by_x = self._ffn_backward(layer, by_x, caches[layer], grads)
            by_x = self._attention_backward(layer, by_x, caches[layer], turned, grads)
        add_rows(grads["embedding"], batch.ids.ravel(), by_x)
        return loss, grads

    def _trunk(self, batch: Batch, keep: bool) -> tuple[Array, list[_LayerCache]]:
        caches: list[_LayerCache] = []
        turned = rotation_at(self._rotation, batch.positions)
        x = self.parameters["embedding"][batch.ids.ravel()]
        for layer in range(self.shape.layers):
            x, cache = self._layer(layer, x, turned)
            if keep:
                caches.append(cache)
        return x, caches

    def _layer(self, layer: int, x: Array, turned: Rotation) -> tuple[Array, _LayerCache]:
        p = self.parameters
        attention_in, attention_norm = norm(x, p[f"{layer}.attention_norm"])
        queries, keys, values = self._split_heads(attention_in @ p[f"{layer}.qkv"].T, len(turned.cosine))
        mixed, attention = attend(rotate(queries, turned), rotate(keys, turned), values)
        attention_out = self._join_heads(mixed)
        x = x + attention_out @ p[f"{layer}.out"].T
        ffn_in, ffn_norm = norm(x, p[f"{layer}.ffn_norm"])
        gate_up = ffn_in @ p[f"{layer}.gate_up"].T
        ffn_out, gate = swiglu(gate_up[:, : self.shape.inner], gate_up[:, self.shape.inner :])
        x = x + ffn_out @ p[f"{layer}.down"].T
        cache = _LayerCache(attention_in, attention_norm, attention, attention_out, ffn_in, ffn_norm, gate, ffn_out)
        return x, cache

    def _head(self, x: Array, batch: Batch) -> tuple[float, _HeadCache]:
        """Only rows that have a label pass through the vocabulary: that is most of the cost saved."""
        labels = batch.labels.ravel()
        rows = np.flatnonzero(labels >= 0)
        wanted, weights = labels[rows], batch.weights.ravel()[rows].astype(x.dtype)
        weights /= weights.sum()
        inputs, cache = norm(x[rows], self.parameters["norm"])
        chances = softmax_inplace(inputs @ self.parameters["embedding"].T)
        each = np.arange(len(rows))
        tiny = np.finfo(x.dtype).tiny
        loss = float(-(np.log(chances[each, wanted] + tiny) * weights).sum())
        chances[each, wanted] -= 1
        chances *= weights[:, None]
        return loss, _HeadCache(rows, inputs, cache, chances)

    def _ffn_backward(self, layer: int, by_x: Array, cache: _LayerCache, grads: Parameters) -> Array:
        p = self.parameters
        grads[f"{layer}.down"] = by_x.T @ cache.ffn_out
        by_gate_up = swiglu_backward(by_x @ p[f"{layer}.down"], cache.gate)
        grads[f"{layer}.gate_up"] = by_gate_up.T @ cache.ffn_in
        through, grads[f"{layer}.ffn_norm"] = norm_backward(
            by_gate_up @ p[f"{layer}.gate_up"], p[f"{layer}.ffn_norm"], cache.ffn_norm
        )
        return by_x + through

    def _attention_backward(
        self, layer: int, by_x: Array, cache: _LayerCache, turned: Rotation, grads: Parameters
    ) -> Array:
        p = self.parameters
        grads[f"{layer}.out"] = by_x.T @ cache.attention_out
        conversations, _, positions, _ = cache.attention.queries.shape
        by_mixed = (by_x @ p[f"{layer}.out"]).reshape(conversations, positions, self.shape.heads, -1).swapaxes(1, 2)
        by_queries, by_keys, by_values = attend_backward(by_mixed, cache.attention)
        by_queries, by_keys = rotate_backward(by_queries, turned), rotate_backward(by_keys, turned)
        by_qkv = np.concatenate([self._join_heads(part) for part in (by_queries, by_keys, by_values)], axis=1)
        grads[f"{layer}.qkv"] = by_qkv.T @ cache.attention_in
        through, grads[f"{layer}.attention_norm"] = norm_backward(
            by_qkv @ p[f"{layer}.qkv"], p[f"{layer}.attention_norm"], cache.attention_norm
        )
        return by_x + through

    def _split_heads(self, qkv: Array, conversations: int) -> Array:
        """From (rows, 3 · width) to (3, conversations, heads, positions, head width)."""
        parts = qkv.reshape(conversations, -1, 3, self.shape.heads, self.shape.head_width)
        return np.ascontiguousarray(parts.transpose(2, 0, 3, 1, 4))

    def _join_heads(self, x: Array) -> Array:
        """From (conversations, heads, positions, head width) to (rows, width)."""
        return x.swapaxes(1, 2).reshape(-1, self.shape.width)

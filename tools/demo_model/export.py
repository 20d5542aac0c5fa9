"""From the trained arrays to a GGUF file that llama.cpp serves: tensors, tokenizer, chat template, sampling hints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer

from .layers import NORM_EPSILON, Array
from .model import ROPE_BASE, Llama
from .tokenizer import CHAT_TEMPLATE, CONTROL_TOKENS, PADDING_ID, TURN_END_ID

NAME = "llamavisor-demo"
LICENSE = "mit"
DESCRIPTION = "A tiny chat model that shows Llamavisor at work. Trained by the project on text of its own."
TEMPERATURE, TOP_K, TOP_P = 0.4, 20, 0.9
"""Sampling hints: facts stay facts, and stories still differ."""

QUANTISATION = gguf.GGMLQuantizationType.Q8_0


def export(model: Llama, tokenizer: Tokenizer, path: Path) -> None:
    """Write the model as GGUF: matrices in Q8_0, norms in F32. Replaces `path` in one step."""
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(partial, "llama")
    _describe(writer)
    _add_shape(writer, model)
    _add_tokenizer(writer, tokenizer)
    for name, value in _tensors(model):
        _add_tensor(writer, name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license(LICENSE)
    writer.add_languages(["en"])
    writer.add_size_label("1M")
    writer.add_sampling_temp(TEMPERATURE)
    writer.add_sampling_top_k(TOP_K)
    writer.add_sampling_top_p(TOP_P)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, model: Llama) -> None:
    shape = model.shape
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    learnt: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in learnt["merges"]])
    writer.add_eos_token_id(TURN_END_ID)
    writer.add_eot_token_id(TURN_END_ID)
    writer.add_pad_token_id(PADDING_ID)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(model: Llama) -> Iterator[tuple[str, Array]]:
    shape, p = model.shape, model.parameters
    yield "token_embd.weight", p["embedding"]
    yield "output_norm.weight", p["norm"]
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        queries, keys, values = np.split(p[f"{layer}.qkv"], 3)
        gate, up = np.split(p[f"{layer}.gate_up"], 2)
        yield f"{block}.attn_norm.weight", p[f"{layer}.attention_norm"]
        yield f"{block}.attn_q.weight", interleave_halves(queries, shape.heads)
        yield f"{block}.attn_k.weight", interleave_halves(keys, shape.heads)
        yield f"{block}.attn_v.weight", values
        yield f"{block}.attn_output.weight", p[f"{layer}.out"]
        yield f"{block}.ffn_norm.weight", p[f"{layer}.ffn_norm"]
        yield f"{block}.ffn_gate.weight", gate
        yield f"{block}.ffn_up.weight", up
        yield f"{block}.ffn_down.weight", p[f"{layer}.down"]


def interleave_halves(matrix: Array, heads: int) -> Array:
    """Reorder each head's rows: we rotate row i with row i + half, llama.cpp rotates neighbours."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _add_tensor(writer: gguf.GGUFWriter, name: str, value: Array) -> None:
    plain = np.ascontiguousarray(value, np.float32)
    if plain.ndim == 1:
        writer.add_tensor(name, plain)
    else:
        writer.add_tensor(name, gguf.quants.quantize(plain, QUANTISATION), raw_dtype=QUANTISATION)

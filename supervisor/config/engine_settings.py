"""Settings of each engine kind: a union told apart by `kind`; what is None is left to the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from supervisor.config.fields import (
    CacheType,
    Count,
    CountOrZero,
    Flag,
    PositiveRatio,
    Ratio,
    Seed,
    StrictModel,
    Text,
    Threads,
    Tokens,
    refuse,
)

EngineKind = Literal["embedded", "llama-server", "vllm", "linejson", "command"]
DEFAULT_ENGINE_KIND: EngineKind = "embedded"


def _flag_or_auto(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    raise PydanticCustomError("flag_or_auto", 'must be true, false or "auto"')


FlashAttention = Annotated[bool | Literal["auto"], BeforeValidator(_flag_or_auto)]
Temperature = Annotated[float, Field(strict=True, ge=0, le=2, allow_inf_nan=False, json_schema_extra={"x-unit": "0–2"})]
Penalty = Annotated[
    float, Field(strict=True, ge=0, le=100, allow_inf_nan=False, json_schema_extra={"x-unit": "factor"})
]


class LlamaFlags(StrictModel):
    """The flags that llama.cpp's servers have in common."""

    ctx_size: Tokens | None = Field(None, description="Context of the model, shared by its slots.")
    batch_size: Tokens | None = Field(None, description="Largest logical batch of a decode.")
    ubatch_size: Tokens | None = Field(None, description="Largest physical batch of a decode.")
    threads: Threads | None = Field(None, description="Threads that generate.")
    threads_batch: Threads | None = Field(None, description="Threads that read prompts.")
    gpu_layers: CountOrZero | None = Field(
        None, description="Layers of the model put on the GPU; 0 keeps it on the CPU."
    )
    main_gpu: CountOrZero | None = Field(None, description="Index of the GPU that holds what is not split.")
    flash_attn: FlashAttention | None = Field(None, description="Flash attention: on, off, or the engine's own choice.")
    temperature: Temperature | None = Field(None, description="Sampling temperature of requests that set none.")
    top_k: CountOrZero | None = Field(None, description="Candidates kept when sampling; 0 keeps all.")
    top_p: Ratio | None = Field(None, description="Probability mass kept when sampling.")
    repeat_penalty: Penalty | None = Field(None, description="Penalty on repeated tokens; 1 is none.")
    n_predict: Tokens | None = Field(None, description="Most tokens generated for a request that sets no limit.")
    seed: Seed | None = Field(None, description="Seed of the sampler; left out, it is random.")
    verbose: Flag | None = Field(None, description="Let the engine log in detail.")
    embedding: Flag | None = Field(None, description="Serve embeddings instead of completions.")
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(
        None, description="How token embeddings become one, where the model does not say; `/v1/embeddings` needs one."
    )
    cache_type_k: CacheType | None = Field(None, description="Number format of the cached keys.")
    cache_type_v: CacheType | None = Field(None, description="Number format of the cached values.")
    parallel: Count | None = Field(None, description="Slots: requests that the engine works on at once.")


class EmbeddedEngine(LlamaFlags):
    """llama.cpp inside a child process of our own; nothing to install."""

    kind: Literal["embedded"] = Field("embedded", description="The engine: `embedded`.")


class LlamaServerEngine(LlamaFlags):
    """The user's own llama-server."""

    kind: Literal["llama-server"] = Field(description="The engine: `llama-server`.")
    binary: Text = Field(
        "llama-server", description="Program to run: a name searched for on PATH, or a path (it holds a slash)."
    )
    extra_args: tuple[str, ...] = Field((), description="More arguments, passed as they are after ours.")


class VllmEngine(StrictModel):
    """The user's own vLLM."""

    kind: Literal["vllm"] = Field(description="The engine: `vllm`.")
    binary: Text = Field(
        "vllm", description="Program to run: a name searched for on PATH, or a path (it holds a slash)."
    )
    served_model_name: Text | None = Field(None, description="Name that the engine serves the model under.")
    max_model_len: Tokens | None = Field(None, description="Longest prompt and answer together.")
    tensor_parallel_size: Count | None = Field(None, description="GPUs that the model is split over.")
    gpu_memory_utilization: PositiveRatio | None = Field(None, description="Share of the GPU memory to take.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = Field(
        None, description="Number format of the weights."
    )
    extra_args: tuple[str, ...] = Field((), description="More arguments, passed as they are after ours.")


class LinejsonEngine(StrictModel):
    """A tokenizer process over HTTP, and a model process that speaks JSON lines."""

    kind: Literal["linejson"] = Field(description="The engine: `linejson`.")
    tokenizer_argv: tuple[Text, ...] = Field(
        description="Program and arguments of the tokenizer; `${SOCKET}` or `${PORT}`, where it is to listen, and `${MODEL}` are put in.",
        min_length=1,
    )
    model_argv: tuple[Text, ...] = Field(description="The same of the model.", min_length=1)
    ready_markers: tuple[Text, ...] = Field(
        ("LLM init ok", "Model loaded successfully", "Ready to accept requests", "Server listening"),
        description="The model is ready when a line of its output holds one of these; with none, when it takes connections.",
    )
    health_path: Text = Field("/health", description="Path of the tokenizer that answers 200 when it can serve.")
    parallel: Count = Field(1, description="Requests that the model works on at once, each on a connection of its own.")
    working_directory: Path | None = Field(
        None, description="Folder that both run in; left out, that of the supervisor."
    )


class CommandEngine(StrictModel):
    """Any program that serves HTTP."""

    kind: Literal["command"] = Field(description="The engine: `command`.")
    argv: tuple[str, ...] = Field(
        (),
        description="Program and arguments, run without a shell; `${PORT}`, `${HOST}`, `${SOCKET}` and `${MODEL}` are put in.",
    )
    working_directory: Path | None = Field(
        None, description="Folder that the program runs in; left out, that of the supervisor."
    )
    health_path: Text = Field("/health", description="Path that answers 200 when the server can serve.")
    openai: Flag = Field(True, description="Whether it speaks the OpenAI API, so that requests are passed to it.")

    @model_validator(mode="after")
    def _paths(self) -> Self:
        if not self.health_path.startswith("/"):
            refuse([("health_path", "`health_path` must be a path", "begin it with `/`")])
        if self.argv and not self.argv[0]:
            refuse([("argv", "`argv` names no program", "put the program's name or path first")])
        return self


def _expanded(value: object) -> object:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": DEFAULT_ENGINE_KIND, **value}
    return value


_AnyEngine = Annotated[
    EmbeddedEngine | LlamaServerEngine | VllmEngine | LinejsonEngine | CommandEngine,
    Field(discriminator="kind"),
]
EngineSettings = Annotated[
    _AnyEngine,
    BeforeValidator(_expanded, json_schema_input_type=EngineKind | _AnyEngine),
]
"""One engine: an object with `kind` (left out: `embedded`), or the kind alone as text."""

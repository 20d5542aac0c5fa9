"""What the engines print when they die, as recorded from them, and the cause that is read from it."""

import re

import pytest

from supervisor.engines import llama_flags, vllm
from supervisor.launch import FailurePattern
from supervisor.process.classify import classify_exit
from supervisor.process.states import Cause, ExitStatus, Reason

LLAMA = {
    "no such file": (
        Reason.BAD_MODEL,
        True,
        (
            "E gguf_init_from_file: failed to open GGUF file 'missing.gguf' (No such file or directory)\n"
            "E llama_model_load: error loading model: llama_model_loader: failed to load model from missing.gguf\n"
            "E srv    load_model: failed to load model, 'missing.gguf'\n"
            "E srv          init: exiting due to model loading error"
        ),
    ),
    "no GGUF": (
        Reason.BAD_MODEL,
        True,
        (
            "E gguf_init_from_reader: invalid magic characters: 'hell', expected 'GGUF'\n"
            "E llama_model_load_from_file_impl: failed to load model"
        ),
    ),
    "cut short": (Reason.BAD_MODEL, True, "E gguf_init_from_reader: failed to read key-value pairs"),
    "new architecture": (
        Reason.BAD_MODEL,
        True,
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'qwen9'",
    ),
    "embedded, no such file": (
        Reason.BAD_MODEL,
        True,
        "error: failed to load model, 'nope.gguf': No such file or directory",
    ),
    "no memory on the GPU": (
        Reason.OOM,
        False,
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4403.49 MiB on device 0: cudaMalloc failed: out of memory\n"
            "llama_model_load: error loading model: unable to allocate CUDA0 buffer\n"
            "srv    load_model: failed to load model, 'big.gguf'"
        ),
    ),
    "no memory for the cache": (
        Reason.OOM,
        False,
        (
            "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache\n"
            "common_init_from_params: failed to create context with model 'big.gguf'"
        ),
    ),
    "no memory while decoding": (
        Reason.OOM,
        False,
        "CUDA error: out of memory\n  current device: 0, in function alloc",
    ),
    "GPU gone": (
        Reason.GPU_LOST,
        False,
        "CUDA error: unspecified launch failure\n  current device: 0, in function sync",
    ),
    "port taken": (
        Reason.PORT_IN_USE,
        False,
        (
            "E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080\n"
            "E srv          init: exiting due to HTTP server error"
        ),
    ),
    "bad flag": (Reason.BAD_FLAGS, True, "error: invalid argument: --foo"),
    "bad value": (
        Reason.BAD_FLAGS,
        True,
        'error while handling argument "-c": stoi\n\nusage:\n-c,    --ctx-size N',
    ),
    "embedded, bad flag": (
        Reason.BAD_FLAGS,
        True,
        "usage: embedded_server -m MODEL.gguf [flags]\nerror: invalid argument: unrecognized arguments: --foo\nTry --help.",
    ),
    "settings that do not go together": (
        Reason.BAD_FLAGS,
        True,
        (
            "E llama_init_from_model: quantized V cache requires flash_attn to be enabled\n"
            "E srv    load_model: failed to create_context with model 'demo.gguf'\n"
            "E srv          init: exiting due to model loading error"
        ),
    ),
    "nothing telling": (Reason.EXIT_CODE, False, "I srv          init: loading model"),
}
VLLM = {
    "no memory for weights": (
        Reason.OOM,
        False,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 594.00 MiB. GPU 0 has a total capacity of 23.64 GiB",
    ),
    "no memory for the cache": (
        Reason.OOM,
        False,
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
    ),
    "memory held by others": (
        Reason.OOM,
        False,
        (
            "ValueError: Free memory on device cuda:0 (7.34/15.49 GiB) on startup is less than desired GPU memory utilization "
            "(0.8, 12.39 GiB).\nRuntimeError: Engine core initialization failed. See root cause above."
        ),
    ),
    "port taken": (Reason.PORT_IN_USE, False, "OSError: [Errno 98] Address already in use"),
    "no GPU": (Reason.GPU_LOST, False, "RuntimeError: No CUDA GPUs are available"),
    "bad flag": (Reason.BAD_FLAGS, True, "usage: vllm serve\nvllm: error: unrecognized arguments: --foo"),
    "unknown model": (
        Reason.BAD_MODEL,
        True,
        "OSError: no/such is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
    ),
    "unsupported model": (Reason.BAD_MODEL, True, "ValueError: Model architectures ['Foo'] are not supported for now."),
}


def cause_of(text: str, patterns: tuple[FailurePattern, ...]) -> Cause:
    return classify_exit(ExitStatus(code=1), tuple(text.splitlines()), patterns, oom_kill=False, was_ready=False)


@pytest.mark.parametrize("name", LLAMA)
def test_last_words_of_llama_cpp(name: str) -> None:
    reason, permanent, text = LLAMA[name]
    cause = cause_of(text, llama_flags.FAILURES)
    assert (cause.reason, cause.permanent) == (reason, permanent)


@pytest.mark.parametrize("name", VLLM)
def test_last_words_of_vllm(name: str) -> None:
    reason, permanent, text = VLLM[name]
    cause = cause_of(text, vllm.FAILURES)
    assert (cause.reason, cause.permanent) == (reason, permanent)


@pytest.mark.parametrize("pattern", [*llama_flags.FAILURES, *vllm.FAILURES], ids=lambda pattern: str(pattern.reason))
def test_every_pattern_is_sound(pattern: FailurePattern) -> None:
    re.compile(pattern.pattern)
    assert Reason(pattern.reason)
    assert pattern.remedy or pattern.reason == Reason.PORT_IN_USE

"""Why a process died, from what it left."""

import pytest

from supervisor.launch import FailurePattern
from supervisor.process.classify import classify_exit
from supervisor.process.states import Cause, ExitStatus, Reason


def classified(
    exit: ExitStatus,
    *tail: str,
    patterns: tuple[FailurePattern, ...] = (),
    oom_kill: bool = False,
    was_ready: bool = False,
) -> Cause:
    return classify_exit(exit, tail, patterns, oom_kill=oom_kill, was_ready=was_ready)


@pytest.mark.parametrize(
    ("line", "reason", "permanent"),
    [
        ("couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8134", Reason.PORT_IN_USE, False),
        ("OSError: [Errno 98] Address already in use", Reason.PORT_IN_USE, False),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Reason.OOM, False),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 81 MiB: cudaMalloc failed: out of memory",
            Reason.OOM,
            False,
        ),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", Reason.OOM, False),
        ("CUDA error: an illegal memory access was encountered", Reason.GPU_LOST, False),
        ("NVRM: Xid 79: GPU has fallen off the bus", Reason.GPU_LOST, False),
        ("llama_model_load: error loading model: invalid magic characters", Reason.BAD_MODEL, True),
        ("main: failed to load model", Reason.BAD_MODEL, True),
        ("error: unknown argument: --frobnicate", Reason.BAD_FLAGS, True),
        ("api_server.py: error: unrecognized arguments: --x", Reason.BAD_FLAGS, True),
        ("setpriv: failed to execute /x/server: Exec format error", Reason.NOT_EXECUTABLE, True),
        ("./server: error while loading shared libraries: libggml.so: cannot open", Reason.MISSING_BINARY, True),
    ],
)
def test_last_words_tell_the_cause(line: str, reason: Reason, permanent: bool) -> None:
    cause = classified(ExitStatus(code=1), "chatter before", line, "chatter after")
    assert (cause.reason, cause.permanent) == (reason, permanent)
    assert line in cause.message
    assert cause.message.startswith("exited with code 1 while loading")
    assert cause.remedy
    assert cause.output_tail == ("chatter before", line, "chatter after")


@pytest.mark.parametrize(
    ("exit", "was_ready", "reason", "message"),
    [
        (ExitStatus(signal=9), True, Reason.SIGNAL, "killed by signal 9"),
        (ExitStatus(signal=11), False, Reason.SIGNAL, "killed by signal 11 while loading"),
        (ExitStatus(code=1), False, Reason.EXIT_CODE, "exited with code 1 while loading"),
        (ExitStatus(code=0), True, Reason.EXIT_CODE, "exited with code 0"),
        (ExitStatus(), True, Reason.EXITED_UNKNOWN, "exited"),
    ],
)
def test_without_last_words_the_status_tells_it(
    exit: ExitStatus, was_ready: bool, reason: Reason, message: str
) -> None:
    cause = classified(exit, "all is well", was_ready=was_ready)
    assert (cause.reason, cause.message, cause.exit, cause.permanent) == (reason, message, exit, False)


def test_the_engines_own_patterns_come_first() -> None:
    own = FailurePattern(r"error 42", "gpu_lost", remedy="Turn it around.")
    cause = classified(ExitStatus(code=1), "failed to load model", "error 42", patterns=(own,))
    assert (cause.reason, cause.remedy) == (Reason.GPU_LOST, "Turn it around.")


def test_a_kill_for_memory_is_told_from_a_kill() -> None:
    assert classified(ExitStatus(signal=9), oom_kill=True).reason is Reason.OOM
    assert classified(ExitStatus(signal=9), oom_kill=False).reason is Reason.SIGNAL
    assert classified(ExitStatus(signal=11), oom_kill=True).reason is Reason.SIGNAL, (
        "the kernel kills for memory by SIGKILL only"
    )


def test_a_model_that_was_served_is_not_bad_for_ever() -> None:
    assert classified(ExitStatus(code=1), "failed to load model", was_ready=True).permanent is False


def test_a_long_line_is_cut_in_the_message_only() -> None:
    line = "failed to load model " + "x" * 1_000
    cause = classified(ExitStatus(code=1), line)
    assert len(cause.message) < 400
    assert cause.output_tail == (line,)


def test_what_holds_for_any_program_comes_before_an_engines_last() -> None:
    own = FailurePattern(r"^the model process ", "signal", last=True)
    words = "the model process was killed by signal 9"
    assert classified(ExitStatus(code=137), "std::bad_alloc", words, patterns=(own,)).reason is Reason.OOM
    cause = classified(ExitStatus(code=137), "all is well", words, patterns=(own,), was_ready=True)
    assert (cause.reason, cause.message) == (Reason.SIGNAL, f"exited with code 137: {words}")


@pytest.mark.parametrize("exit", [ExitStatus(signal=9), ExitStatus(code=137)], ids=["itself", "its child"])
def test_a_kill_for_want_of_memory_is_no_mere_kill(exit: ExitStatus) -> None:
    assert classified(exit, "all is well", oom_kill=True, was_ready=True).reason is Reason.OOM
    assert classified(exit, "all is well", was_ready=True).reason is not Reason.OOM

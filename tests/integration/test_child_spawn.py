"""How a child is born: what it gets, what it does not get, and what is said when it cannot be (rows 1, 4, 6, 28, 31, 32)."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.launch import Address, LaunchSpec
from supervisor.process.child import CannotSpawnError
from supervisor.process.spawning import child_environment
from supervisor.process.states import ExitStatus, Reason
from tests.fixtures.nursery import Nursery, finished, until

SHOW = """
import json, os, resource, signal, sys
handled = [s for s in signal.valid_signals() if signal.getsignal(s) not in (signal.SIG_DFL, None)]
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
print(json.dumps({
    "umask": os.umask(0), "cwd": os.getcwd(), "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": [s for s in (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD) if signal.getsignal(s) == signal.SIG_IGN],
    "group": os.getpgid(0), "session": os.getsid(0), "pid": os.getpid(),
    "open": [fd for fd in range(3, 256) if is_open(fd)], "environment": dict(os.environ),
}), flush=True)
"""


async def shown(nursery: Nursery, spawn: Callable[[str], object]) -> dict[str, object]:
    spawn(SHOW)
    await nursery.said('"umask"')
    shown = json.loads(next(line for line in nursery.lines() if '"umask"' in line))
    assert isinstance(shown, dict)
    return shown


WITHOUT_STANDARD = """
import asyncio, os, sys
from pathlib import Path
from tests.fixtures.nursery import Nursery, until
async def main():
    nursery = Nursery(Path(sys.argv[1]))
    report = os.fdopen(os.dup(1), "w")
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    nursery.spawn("sh", "-c", "cat; echo out; echo err >&2" if sys.argv[2] == "survive" else "echo out; echo err >&2",
                  survive=sys.argv[2] == "survive")
    def both():
        nursery.output.poll_file()
        return {"out", "err"} <= set(nursery.lines())
    await until(both, "both lines")
    report.write("report " + " ".join(f"{line.stream}={line.message}" for line in nursery.output.tail(9)) + "\\n")
    report.flush()
    await nursery.close()
asyncio.run(main())
"""


def wait_for_zombie(pid: int) -> None:
    """Until a child has ended; raises ChildProcessError when its zombie is gone."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


OTHER_USER = ("setpriv", "--reuid", "61234", "--clear-groups")


def can_run_as_another() -> bool:
    """Only root may become another user, and that one must be able to reach this Python and the code under test."""
    if os.geteuid() != 0:
        return False
    return subprocess.run([*OTHER_USER, sys.executable, "-c", "import supervisor"], check=False).returncode == 0


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may write to."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o777)
        yield Path(name)


class TestInheritance:
    """A child gets what it needs and nothing of ours."""

    async def test_a_group_and_session_of_its_own_and_a_private_umask(self, nursery: Nursery) -> None:
        own_umask = os.umask(0o022)
        try:
            child = await shown(nursery, nursery.python)
        finally:
            assert os.umask(own_umask) == 0o022, "ours is as before"
        assert child["group"] == child["session"] == child["pid"]
        assert child["umask"] == 0o077

    async def test_signals_are_at_their_defaults(self, nursery: Nursery) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            child = await shown(nursery, nursery.python)
        finally:
            signal.signal(signal.SIGUSR1, before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        assert child["blocked"] == []
        assert child["ignored"] == []

    async def test_no_descriptor_leaks_even_if_inheritable(self, nursery: Nursery) -> None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        try:
            child = await shown(nursery, nursery.python)
        finally:
            os.close(descriptor)
        assert child["open"] == []

    async def test_the_folder_is_its_own(self, nursery: Nursery, tmp_path: Path) -> None:
        child = await shown(nursery, lambda code: nursery.spawn(sys.executable, "-c", code, working_directory=tmp_path))
        assert child["cwd"] == str(tmp_path)
        assert Path.cwd() != tmp_path

    async def test_tags_are_added_and_our_own_variables_are_not_passed_on(
        self, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LLAMAVISOR_SERVER__API_KEY", "canary-key")
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
        monkeypatch.setenv("INHERITED", "yes")
        child = await shown(
            nursery,
            lambda code: nursery.spawn(sys.executable, "-c", code, env={"LLAMAVISOR_RUN_ID": "forged", "OWN": "1"}),
        )
        environment = child["environment"]
        assert isinstance(environment, dict)
        assert environment["LLAMAVISOR_RUN_ID"] == nursery.tags.run_id
        assert environment["LLAMAVISOR_INSTANCE"] == "under-test"
        assert environment["LLAMAVISOR_SPEC"] == "digest"
        assert environment["LLAMAVISOR_ADDRESS"].startswith("http://127.0.0.1")
        assert (environment["INHERITED"], environment["OWN"]) == ("yes", "1")
        assert "canary-key" not in json.dumps(environment)
        assert "NOTIFY_SOCKET" not in environment

    def test_the_address_of_a_socket_is_told(self, nursery: Nursery) -> None:
        spec = LaunchSpec("x", Address(socket_path=Path("/run/x.sock")))
        assert child_environment(spec, nursery.tags)["LLAMAVISOR_ADDRESS"] == "unix:/run/x.sock"

    @pytest.mark.parametrize("policy", ["pipes", "survive"])
    async def test_standard_descriptors_may_be_closed_in_us(self, nursery: Nursery, policy: str) -> None:
        """A daemon may have closed 0 to 2; what is opened for the child then has one of these numbers."""
        arguments = (str(nursery.folder / "inner"), policy)
        nursery.spawn(sys.executable, "-c", WITHOUT_STANDARD, *arguments, working_directory=Path.cwd())
        await nursery.said("report")
        streams = ("stdout", "stderr") if policy == "pipes" else ("stdout", "stdout")
        assert set(nursery.lines()[-1].split()[1:]) == {f"{streams[0]}=out", f"{streams[1]}=err"}


class TestExit:
    """Every end is noticed, with its status, at once."""

    @pytest.mark.parametrize(
        ("flags", "status"),
        [
            (("--exit-code", "3"), ExitStatus(code=3)),
            (("--exit-code", "0"), ExitStatus(code=0)),
            (("--signal", "9"), ExitStatus(signal=9)),
            (("--signal", "11"), ExitStatus(signal=11)),
            (("--signal", "6"), ExitStatus(signal=6)),
        ],
    )
    async def test_the_status_is_told(self, nursery: Nursery, flags: tuple[str, ...], status: ExitStatus) -> None:
        child = nursery.misbehaving("--exit-at-once", "--stderr-text", "last words", *flags)
        assert await finished(child.exited) == status
        assert nursery.exits == [status]
        assert nursery.output.stderr_tail() == ("last words",), "the pipes are drained before the exit is reported"

    async def test_the_exit_is_reported_in_the_callback_that_learns_of_it(self, nursery: Nursery) -> None:
        """Row 4: no timer and no scan stands between the kernel's word and ours: one turn of the loop is enough."""
        child = nursery.spawn("sleep", "100")
        await until(lambda: os.getpgid(child.pid) == child.pid, "birth")
        os.kill(child.pid, signal.SIGKILL)
        wait_for_zombie(child.pid)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert nursery.exits == [ExitStatus(signal=9)]

    async def test_the_number_stays_reserved_until_all_is_swept(self, nursery: Nursery) -> None:
        child = nursery.spawn("true")
        await finished(child.exited)
        wait_for_zombie(child.pid)
        assert await child.terminate(5)
        with pytest.raises(ChildProcessError):
            wait_for_zombie(child.pid)

    async def test_a_hundred_lives_leave_no_descriptor_and_no_zombie(self, nursery: Nursery) -> None:
        async def live() -> int:
            child = nursery.spawn("true")
            await finished(child.exited)
            child.close()
            return child.pid

        await live()
        before = len(os.listdir("/dev/fd"))
        for _ in range(100):
            last = await live()
        nursery.output.begin_run()
        assert len(os.listdir("/dev/fd")) <= before
        assert nursery.found() == []
        with pytest.raises(ChildProcessError):
            wait_for_zombie(last)


class TestRefusal:
    """Row 1: what no retry can help is said before anything is started; the rest may be tried again."""

    def refuse(self, nursery: Nursery, *argv: str, folder: Path | None = None) -> CannotSpawnError:
        before = len(os.listdir("/dev/fd"))
        with pytest.raises(CannotSpawnError) as caught:
            nursery.spawn(*argv, working_directory=folder)
        assert len(os.listdir("/dev/fd")) == before
        assert nursery.exits == []
        return caught.value

    async def test_a_name_that_is_not_on_the_path(self, nursery: Nursery) -> None:
        error = self.refuse(nursery, "llama-server-of-nobody")
        assert (error.cause.reason, error.cause.permanent) == (Reason.MISSING_BINARY, True)
        assert "llama-server-of-nobody" in error.message
        assert error.remedy

    async def test_a_file_that_is_not_there(self, nursery: Nursery, tmp_path: Path) -> None:
        error = self.refuse(nursery, str(tmp_path / "engine"))
        assert (error.cause.reason, error.cause.permanent) == (Reason.MISSING_BINARY, True)

    async def test_a_file_that_is_not_executable(self, nursery: Nursery, tmp_path: Path) -> None:
        (tmp_path / "engine").write_text("#!/bin/sh\n")
        error = self.refuse(nursery, str(tmp_path / "engine"))
        assert (error.cause.reason, error.cause.permanent) == (Reason.NOT_EXECUTABLE, True)
        assert "chmod" in str(error.remedy)

    async def test_a_folder(self, nursery: Nursery, tmp_path: Path) -> None:
        assert self.refuse(nursery, str(tmp_path)).cause.reason is Reason.NOT_EXECUTABLE

    async def test_a_script_without_its_interpreter(self, nursery: Nursery, tmp_path: Path) -> None:
        script = tmp_path / "engine"
        script.write_text("#!/nonexistent/python\n")
        script.chmod(0o755)
        error = self.refuse(nursery, str(script))
        assert error.cause.reason is Reason.MISSING_BINARY
        assert "/nonexistent/python" in error.message

    async def test_a_working_directory_that_is_not_there(self, nursery: Nursery, tmp_path: Path) -> None:
        error = self.refuse(nursery, "true", folder=tmp_path / "nowhere")
        assert (error.cause.reason, error.cause.permanent) == (Reason.SPAWN_FAILED, True)
        assert "nowhere" in error.message

    async def test_a_binary_relative_to_the_working_directory(self, nursery: Nursery, tmp_path: Path) -> None:
        script = tmp_path / "engine"
        script.write_text("#!/bin/sh\necho from $PWD\n")
        script.chmod(0o755)
        nursery.spawn("./engine", working_directory=tmp_path)
        await nursery.said(f"from {tmp_path}")

    async def test_a_command_line_that_is_too_long(self, nursery: Nursery) -> None:
        error = self.refuse(nursery, "true", "x" * 200_000)
        assert (error.cause.reason, error.cause.permanent) == (Reason.BAD_FLAGS, True)

    async def test_row_28_only_the_loops_thread_may_spawn(self, nursery: Nursery) -> None:
        """Row 28: the parent-death signal comes when the *thread* ends, so a child of a worker thread would die with that."""
        with pytest.raises(RuntimeError, match="no running event loop"):
            await asyncio.to_thread(nursery.spawn, "sleep", "100")
        assert nursery.found() == []


SPAWN_UNDER_LIMIT = """
import asyncio, os, resource, sys
from pathlib import Path
from supervisor.process.child import CannotSpawnError
from tests.fixtures.nursery import Nursery, finished
async def main():
    nursery = Nursery(Path(sys.argv[1]))
    {limit}
    try:
        nursery.spawn("true")
    except CannotSpawnError as error:
        print("refused", error.cause.reason, error.cause.permanent, error.cause.remedy, flush=True)
    {lift}
    child = nursery.spawn("true")
    print("recovered", (await finished(child.exited)).code, flush=True)
    await nursery.close()
asyncio.run(main())
"""


class TestLimits:
    """A start that fails for want of something fails cleanly, and the next one may succeed."""

    async def test_row_31_a_start_without_descriptors_fails_cleanly_and_the_next_succeeds(
        self, nursery: Nursery, tmp_path: Path
    ) -> None:
        """Row 31."""
        limit = "held = []\n    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))\n"
        limit += "    while len(held) < 100:\n        try: held.append(os.open(os.devnull, os.O_RDONLY))\n        except OSError: break"
        code = SPAWN_UNDER_LIMIT.format(limit=limit, lift="[os.close(descriptor) for descriptor in held]")
        child = nursery.spawn(sys.executable, "-c", code, str(tmp_path), working_directory=Path.cwd())
        await finished(child.exited)
        refused, recovered = nursery.lines()
        assert refused.startswith("refused spawn_failed False")
        assert "ulimit -n" in refused
        assert recovered == "recovered 0"

    @pytest.mark.skipif("not can_run_as_another()", reason="needs another user that can run this Python")
    async def test_row_32_a_start_beyond_the_limit_on_processes_fails_cleanly(
        self, nursery: Nursery, public_folder: Path
    ) -> None:
        """Row 32; the limit does not bind root, hence as somebody who is not."""
        code = SPAWN_UNDER_LIMIT.format(
            limit="resource.setrlimit(resource.RLIMIT_NPROC, (1, 4096))",
            lift="resource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))",
        )
        argv = (*OTHER_USER, sys.executable, "-c", code, str(public_folder))
        child = nursery.spawn(*argv, working_directory=Path.cwd())
        await finished(child.exited)
        refused, recovered = nursery.lines()[-2:]
        assert refused.startswith("refused spawn_failed False"), nursery.lines()
        assert "ulimit -u" in refused
        assert recovered == "recovered 0"

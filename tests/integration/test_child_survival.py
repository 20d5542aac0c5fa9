"""When the supervisor dies: its children die with it, or are taken back; foreign servers are only watched (rows 22, 23, 26, 27)."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from supervisor.clock import SystemClock
from supervisor.launch import Address
from supervisor.process import posix, procfs
from supervisor.process.child import CannotSpawnError, attach_foreign, reattach
from supervisor.process.output import OutputCapture
from supervisor.process.posix import Found, Identity
from supervisor.process.states import ExitStatus
from tests.fixtures.nursery import MISBEHAVING, Nursery, exit_code, finished, until

# Process numbers have 22 bits at most.
NOBODY = 1 << 30

# A small supervisor: spawns one server, tells its pid, and lives until it is killed.
SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from supervisor.process.child import Tags
from tests.fixtures.nursery import Nursery
async def main():
    nursery = Nursery(Path(sys.argv[1]))
    nursery.tags = Tags(sys.argv[2], "survivor", "digest")
    child = nursery.misbehaving(*json.loads(sys.argv[4]), survive=sys.argv[3] == "survive")
    print("spawned", child.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def supervise(nursery: Nursery, policy: str, *flags: str) -> Identity:
    """A supervisor of its own in a process of its own; the identity of its child."""
    arguments = (str(nursery.folder), nursery.tags.run_id, policy, json.dumps(flags))
    nursery.spawn(sys.executable, "-c", SUPERVISOR, *arguments, working_directory=Path.cwd())
    await nursery.said("spawned")
    pid = int(next(line for line in nursery.lines() if line.startswith("spawned")).split()[1])
    await until(
        lambda: [found for found in survivors(nursery) if found.identity.pid == pid], "the child's own environment"
    )
    identity = Identity.of(pid)
    assert identity is not None
    return identity


def survivors(nursery: Nursery) -> list[Found]:
    return [found for found in nursery.found() if found.environ["LLAMAVISOR_INSTANCE"] == "survivor"]


async def logged(output: OutputCapture, text: str) -> None:
    """Until a line has come by way of the log file, polled as the liveness tick does."""

    def has_come() -> bool:
        output.poll_file()
        return text in [line.message for line in output.tail(100)]

    await until(has_come, f"{text!r} in the log file")


def started_wall(identity: Identity) -> float:
    stat = procfs.read_stat(identity.pid)
    assert stat is not None
    return procfs.started_wall(stat)


def server_address(port: int) -> Address:
    return Address(port=port)


def kill_supervisor(nursery: Nursery) -> None:
    """As a crash does: no time for a word."""
    for child in nursery.children:
        os.kill(child.pid, signal.SIGKILL)


class TestSupervisorKilled:
    """Row 23: never two, never none without a word."""

    @pytest.mark.skipif(shutil.which("setpriv") is None, reason="the parent-death signal needs setpriv")
    async def test_the_child_dies_with_it(self, nursery: Nursery) -> None:
        identity = await supervise(nursery, "die", "--ignore-term")
        kill_supervisor(nursery)
        await until(lambda: not identity.is_alive(), "the child's end")

    async def test_its_stdin_ends_as_the_second_way(self, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        identity = await supervise(nursery, "die", "--exit-on-stdin-end")
        assert procfs.read_stat(identity.pid) is not None
        kill_supervisor(nursery)
        await until(lambda: not identity.is_alive(), "the child's end")

    async def test_a_survivor_lives_is_found_and_taken_back(self, nursery: Nursery) -> None:
        """Rows 23, 26, 27: it was never recorded; its log is a file, so that it never writes into a broken pipe."""
        identity = await supervise(nursery, "survive", "--load-progress", "--load-seconds", "1")
        kill_supervisor(nursery)
        await until(lambda: not nursery.children[0].identity.is_alive(), "the supervisor's end")
        (found,) = survivors(nursery)
        assert found.identity == identity
        output = self.capture(nursery)
        process = reattach(found, output)
        await logged(output, "main: model loaded")
        assert process.started_wall == pytest.approx(started_wall(identity), abs=0.1)
        assert not process.is_own_child
        assert process.pids() == [identity.pid]
        assert await process.terminate(60)
        assert await finished(process.exited) == ExitStatus()
        assert survivors(nursery) == []
        process.close()
        output.close()

    async def test_one_that_is_gone_meanwhile_has_ended_when_taken_back(self, nursery: Nursery) -> None:
        child = nursery.spawn("sleep", "100")
        await until(nursery.found, "the child")
        (found,) = nursery.found()
        assert await child.terminate(5)
        output = self.capture(nursery)
        process = reattach(found, output)
        assert await finished(process.exited) == ExitStatus()
        assert await process.terminate(5)
        process.close()
        output.close()

    async def test_the_crash_of_one_taken_back_is_noticed(self, nursery: Nursery) -> None:
        child = nursery.misbehaving(survive=True)
        await until(nursery.found, "the child")
        output = self.capture(nursery)
        process = reattach(nursery.found()[0], output)
        os.kill(child.pid, signal.SIGKILL)
        assert await finished(process.exited) == ExitStatus()
        assert await finished(child.exited) == ExitStatus(signal=signal.SIGKILL)
        process.close()
        output.close()

    def capture(self, nursery: Nursery) -> OutputCapture:
        path = nursery.folder / "logs" / "under-test.log"
        return OutputCapture(
            "survivor", path, ring_lines=100, file_bytes=1 << 20, files=2, clock=SystemClock(), writer=nursery.writer
        )


class TestSurvivor:
    """A child that shall outlive us, while we live."""

    async def test_row_27_a_survivor_holds_none_of_our_pipes_and_speaks_into_its_file(self, nursery: Nursery) -> None:
        child = nursery.misbehaving("--stderr-text", "into the file", survive=True)
        await logged(nursery.output, "into the file")
        targets = [os.readlink(f"/proc/{child.pid}/fd/{descriptor}") for descriptor in (0, 1, 2)]
        log = str(nursery.folder / "logs" / "under-test.log")
        assert targets == ["/dev/null", log, log]
        os.kill(child.pid, signal.SIGKILL)
        await finished(child.exited)
        assert "into the file" in nursery.output.stderr_tail()

    async def test_a_log_that_cannot_be_opened_is_a_spawn_that_failed(self, nursery: Nursery) -> None:
        (nursery.folder / "logs").write_text("in the way")
        with pytest.raises(CannotSpawnError):
            nursery.misbehaving(survive=True)
        assert nursery.found() == []


def a_sleeper() -> int:
    """The process id of a child of this very process that nobody waits for yet."""
    return os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})


class TestForeign:
    """Row 22: an adopted server is watched as closely and never killed, unless asked to in so many words."""

    async def test_its_end_is_noticed_without_a_status(self, nursery: Nursery) -> None:
        server = nursery.misbehaving()
        foreign = attach_foreign(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        assert await finished(foreign.exited) == ExitStatus()
        foreign.close()

    async def test_letting_go_leaves_it_alone(self, nursery: Nursery) -> None:
        server = nursery.misbehaving()
        port = await nursery.port()
        foreign = attach_foreign(server.pid)
        foreign.close()
        assert server.identity.is_alive()
        assert posix.listening_owner(server_address(port)) == server.pid

    async def test_asked_to_end_it_and_its_children_end_but_not_its_group(self, nursery: Nursery) -> None:
        """A server started from a shell shares its group with whatever else runs there, even as its leader."""
        server = nursery.spawn(
            "sh", "-c", f"(sleep 1000 &); exec {sys.executable} {MISBEHAVING} --fork-grandchild --ignore-term"
        )
        port = await nursery.port()
        foreign = attach_foreign(server.pid)
        assert foreign.owns(server_address(port))
        assert len(foreign.pids()) == 2
        assert len(server.pids()) == 3
        assert await foreign.terminate(0.1)
        assert foreign.pids() == []
        foreign.close()
        assert len(server.pids()) == 1, "the sleeper in its group"

    async def test_its_exit_status_is_left_to_who_started_it(self) -> None:
        pid = a_sleeper()
        foreign = attach_foreign(pid)
        assert await foreign.terminate(5)
        foreign.close()
        assert exit_code(pid) == -signal.SIGTERM

    async def test_one_that_is_gone_has_ended(self) -> None:
        foreign = attach_foreign(NOBODY)
        assert await finished(foreign.exited) == ExitStatus()
        assert await foreign.terminate(5)
        foreign.close()

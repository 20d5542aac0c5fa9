"""The stop ladder against real processes that do not want to end (rows 5, 8 to 12)."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from supervisor.process import posix
from supervisor.process.family import Family
from supervisor.process.ladder import StopLadder
from supervisor.process.posix import Identity
from supervisor.process.procfs import boot_id
from supervisor.process.states import ExitStatus
from tests.fixtures.nursery import GENEROUS_SECONDS, Nursery, finished, until

LONG_GRACE_SECONDS = 600.0
SHORT_GRACE_SECONDS = 0.1


async def test_a_good_server_ends_by_the_stop_signal(nursery: Nursery) -> None:
    child = nursery.misbehaving()
    await nursery.port()
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert nursery.exits == [ExitStatus(code=0)]
    assert nursery.lines().count("Received signal, terminating") == 1, "a second signal would mean impatience"
    assert child.pids() == []


async def test_a_slow_but_willing_server_has_its_grace(nursery: Nursery) -> None:
    """The negative twin of row 8."""
    child = nursery.misbehaving("--term-delay-seconds", "0.5")
    await nursery.port()
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert nursery.exits == [ExitStatus(code=0)]


async def test_one_that_ignores_the_signal_is_killed_after_the_grace(nursery: Nursery) -> None:
    """Row 8."""
    child = nursery.misbehaving("--ignore-term")
    await nursery.port()
    assert await child.terminate(SHORT_GRACE_SECONDS)
    assert nursery.exits == [ExitStatus(signal=signal.SIGKILL)]
    assert nursery.found() == []


async def test_force_kills_at_once(nursery: Nursery) -> None:
    child = nursery.misbehaving()
    await nursery.port()
    assert await child.terminate(LONG_GRACE_SECONDS, force=True)
    assert nursery.exits == [ExitStatus(signal=signal.SIGKILL)]


async def test_force_ends_the_grace_of_a_climb_in_progress(nursery: Nursery) -> None:
    child = nursery.misbehaving("--ignore-term")
    await nursery.port()
    patient = asyncio.create_task(child.terminate(LONG_GRACE_SECONDS), name="patient")
    await asyncio.sleep(0)
    assert await child.terminate(LONG_GRACE_SECONDS, force=True)
    assert await patient
    assert nursery.exits == [ExitStatus(signal=signal.SIGKILL)]


async def test_a_caller_that_gives_up_does_not_stop_the_climb(nursery: Nursery) -> None:
    child = nursery.misbehaving("--ignore-term")
    await nursery.port()
    caller = asyncio.create_task(child.terminate(SHORT_GRACE_SECONDS), name="caller")
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (await finished(child.exited)).signal == signal.SIGKILL


async def test_a_stopped_process_gets_its_signal(nursery: Nursery) -> None:
    """Row 9: TERM stays pending on a stopped process until it is continued."""
    child = nursery.misbehaving()
    await nursery.port()
    os.kill(child.pid, signal.SIGSTOP)
    await until(lambda: (Path("/proc") / str(child.pid) / "stat").read_text().split()[2] == "T", "the freeze")
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert nursery.exits == [ExitStatus(code=0)]


async def test_a_daemon_that_fled_is_swept(nursery: Nursery) -> None:
    """Row 10: double fork and setsid; found by its environment."""
    child = nursery.misbehaving("--daemon")
    await nursery.port()
    assert len(nursery.found()) == 2
    assert child.pids() == [child.pid], "it is in no group and below no process of ours"
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert nursery.found() == []


async def test_a_daemon_without_our_environment_is_swept_if_it_was_ever_seen(nursery: Nursery) -> None:
    """Row 10 at its hardest: neither group, session, parent nor environment tell; but we have seen it before it lost its parent."""
    child = nursery.python(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0: os.execve('/bin/sleep', ['sleep', '1000'], {})\n"
        "    print('fled', flush=True); input(); os._exit(0)\ntime.sleep(1000)"
    )
    await nursery.said("fled")
    middle, daemon = sorted(set(child.pids()) - {child.pid})
    identity = Identity.of(daemon)
    assert identity is not None
    os.kill(middle, signal.SIGKILL)
    await until(lambda: identity not in posix.descendants(child.pid), "the flight")
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert not identity.is_alive()


async def test_a_daemon_that_ignores_the_signal_is_killed_too(nursery: Nursery) -> None:
    child = nursery.python(
        "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN); print('fled', flush=True)\n"
        "        while True: signal.pause()\n    os._exit(0)\nos.wait(); signal.pause()"
    )
    await nursery.said("fled")
    assert await child.terminate(SHORT_GRACE_SECONDS)
    assert nursery.found() == []


@pytest.mark.parametrize("ignores", [(), ("--grandchild-ignores-term",)])
async def test_a_wrapper_dies_and_its_grandchild_holds_the_pipe(nursery: Nursery, ignores: tuple[str, ...]) -> None:
    """Row 11: the exit is noticed, the last words are had, and stop returns, though the pipe never ends by itself."""
    child = nursery.misbehaving("--fork-grandchild", "--stderr-text", "last words", *ignores)
    await nursery.port()
    os.kill(child.pid, signal.SIGKILL)
    assert await finished(child.exited) == ExitStatus(signal=signal.SIGKILL)
    assert "last words" in nursery.output.stderr_tail()
    assert len(child.pids()) == 1, "the grandchild lives"
    assert await child.terminate(SHORT_GRACE_SECONDS if ignores else LONG_GRACE_SECONDS)
    assert child.pids() == []
    assert nursery.found() == []


async def test_it_ends_although_it_dies_by_itself_meanwhile(nursery: Nursery) -> None:
    """Row 5, at this layer: the exit is reported once and stop returns."""
    child = nursery.misbehaving("--term-delay-seconds", "100")
    await nursery.port()
    stop = asyncio.create_task(child.terminate(LONG_GRACE_SECONDS), name="stop")
    await nursery.said("Received signal")
    os.kill(child.pid, signal.SIGSEGV)
    async with asyncio.timeout(GENEROUS_SECONDS):
        assert await stop
    assert nursery.exits == [ExitStatus(signal=signal.SIGSEGV)]


async def test_a_process_that_keeps_forking_does_not_outrun_the_kill(nursery: Nursery) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("breeding", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        time.sleep(0.005)
        os._exit(0)
"""
    child = nursery.python(code)
    await nursery.said("breeding")
    assert await child.terminate(SHORT_GRACE_SECONDS)
    assert nursery.found() == []


class Shortsighted(Family):
    """A search that a process slips through by forking and exiting all the time."""

    def survey(self, *, thorough: bool) -> list[Identity]:
        return []


async def test_a_kill_of_the_group_is_the_last_word_even_if_nothing_was_found(nursery: Nursery) -> None:
    child = nursery.misbehaving("--fork-grandchild", "--ignore-term", "--grandchild-ignores-term")
    await nursery.port()
    members = posix.group_members(child.pid)
    assert len(members) == 2
    assert await StopLadder(Shortsighted(child.identity), signal.SIGTERM).climb(0)
    await until(lambda: not any(member.is_alive() for member in members), "the end of the group")


async def test_stopping_twice_and_after_the_end_is_fine(nursery: Nursery) -> None:
    child = nursery.spawn("true")
    await finished(child.exited)
    assert await child.terminate(LONG_GRACE_SECONDS)
    assert await child.terminate(LONG_GRACE_SECONDS)
    child.close()
    child.close()
    assert nursery.exits == [ExitStatus(code=0)]


async def test_closing_kills_nothing_but_ends_the_childs_stdin(nursery: Nursery) -> None:
    patient = nursery.misbehaving()
    await nursery.port()
    patient.close()
    attentive = nursery.misbehaving("--exit-on-stdin-end", "--stdout-text", "attentive")
    await nursery.said("attentive")
    attentive.close()
    await until(lambda: not attentive.identity.is_alive(), "the end of the one that listens to its stdin")
    assert patient.identity.is_alive()


class Unkillable:
    """Row 12: a tree as the ladder sees it when a process hangs inside the kernel; such a one cannot be made to order."""

    def __init__(self, *, relents_after_kills: int | None = None) -> None:
        self.sent: list[signal.Signals] = []
        self._relents_after_kills = relents_after_kills

    def _left(self) -> list[Identity]:
        kills = self.sent.count(signal.SIGKILL)
        gone = self._relents_after_kills is not None and kills >= self._relents_after_kills
        return [] if gone else [Identity(1 << 30, 1, boot_id())]

    def survey(self, *, thorough: bool) -> list[Identity]:
        return self._left()

    def remaining(self) -> list[Identity]:
        return self._left()

    def send(self, members: list[Identity], number: signal.Signals) -> None:
        self.sent.append(number)


class TestUnkillable:
    """The ladder has an end."""

    async def test_it_gives_up_and_says_so(self) -> None:
        tree = Unkillable()
        ladder = StopLadder(tree, signal.SIGTERM, kill_deadline_seconds=0.1)
        assert not await ladder.climb(SHORT_GRACE_SECONDS)
        assert tree.sent[:2] == [signal.SIGTERM, signal.SIGCONT]
        assert set(tree.sent[2:]) == {signal.SIGKILL}

    async def test_one_that_takes_long_to_die_is_not_called_unkillable(self) -> None:
        tree = Unkillable(relents_after_kills=5)
        assert await StopLadder(tree, signal.SIGTERM).climb(0)
        assert set(tree.sent) == {signal.SIGKILL}

    async def test_what_cannot_be_seen_is_not_taken_for_gone(self) -> None:
        """Row 31: without a descriptor the process table cannot be read."""

        class Blind(Unkillable):
            def survey(self, *, thorough: bool) -> list[Identity]:
                raise OSError(24, "Too many open files")

        assert not await StopLadder(Blind(), signal.SIGTERM, kill_deadline_seconds=0.05).climb(0.05)


OUT_OF_DESCRIPTORS = """
import asyncio, os, resource, sys
from pathlib import Path
from tests.fixtures.nursery import Nursery
async def main():
    nursery = Nursery(Path(sys.argv[1]))
    child = nursery.misbehaving("--ignore-term", "--fork-grandchild")
    await nursery.port()
    assert len(child.pids()) == 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
    held = []
    try:
        while True: held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        print("without a descriptor", flush=True)
    assert len(child.pids()) == 2
    print("gone" if await child.terminate(0.1) else "left", len(held), flush=True)
    for descriptor in held: os.close(descriptor)
    await nursery.close()
asyncio.run(main())
"""


async def test_row_31_without_a_descriptor_to_spare_it_ends_all_the_same(nursery: Nursery) -> None:
    """Row 31: to see and to signal takes a descriptor; one is kept back for it."""
    supervisor = nursery.spawn(
        sys.executable, "-c", OUT_OF_DESCRIPTORS, str(nursery.folder / "inner"), working_directory=Path.cwd()
    )
    await finished(supervisor.exited)
    assert nursery.lines()[0] == "without a descriptor", nursery.lines()
    assert nursery.lines()[1].startswith("gone"), nursery.lines()


class TestFamily:
    """Whom a signal may reach."""

    async def test_a_look_finds_newcomers_as_a_survey_does(self, nursery: Nursery, tmp_path: Path) -> None:
        code = f"import os, signal, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        shell = nursery.python(code + "if os.fork(): print('grown', flush=True)\nsignal.pause()")
        family = Family(shell.identity)
        assert family.look() == [shell.identity]
        os.mkdir(tmp_path / "go")
        await nursery.said("grown")
        looked = family.look()
        assert len(looked) == 2
        assert looked == family.look() == family.survey(thorough=False)

    async def test_row_24_the_group_of_a_reused_number_is_not_ours(self, nursery: Nursery) -> None:
        """Row 24: the leader is gone, and its number belongs to another's group."""
        stranger = nursery.spawn("sleep", "100")
        former = Identity(stranger.pid, stranger.identity.start_ticks - 100, boot_id())
        family = Family(former, ("LLAMAVISOR_RUN_ID=another",))
        assert family.survey(thorough=True) == []
        family.send([former], signal.SIGKILL)
        assert stranger.identity.is_alive()

    async def test_only_processes_with_both_tags_are_taken(self, nursery: Nursery) -> None:
        main, neighbour = nursery.spawn("sleep", "100"), nursery.spawn("sleep", "100")
        await until(lambda: len(nursery.found()) == 2, "both")
        run_id = nursery.tags.marks[0]
        other_instance = Family(main.identity, (run_id, "LLAMAVISOR_INSTANCE=other"))
        assert other_instance.survey(thorough=True) == [main.identity]
        same_instance = Family(main.identity, nursery.tags.marks)
        assert set(same_instance.survey(thorough=True)) == {main.identity, neighbour.identity}

    def test_a_foreign_servers_group_is_left_alone(self) -> None:
        """Ours holds the test runner, and whatever started it."""
        me = Identity.of(os.getpid())
        assert me is not None
        assert me not in Family(me, whole_group=False).survey(thorough=False)
        assert me not in Family(me).survey(thorough=False), "we never count ourselves"

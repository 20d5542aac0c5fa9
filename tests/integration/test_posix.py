"""Who is who among processes: identities, sweeps, sockets, usage (rows 10, 21, 24)."""

import ctypes
import dataclasses
import os
import re
import signal
import socket
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from supervisor.launch import Address
from supervisor.process import child as child_module
from supervisor.process import exitwatch, portable, posix, procfs, sockets, usage
from supervisor.process.posix import Identity
from supervisor.process.reaper import OrphanReaper, orphans
from supervisor.process.states import ExitStatus
from supervisor.testing import FakeClock
from tests.fixtures.nursery import Nursery, exit_code, finished, until

pytestmark = pytest.mark.skipif(not procfs.IS_LINUX, reason="reads /proc")


class TestIdentity:
    """A process number is nobody; number, start and boot are."""

    def test_our_own_is_alive_and_the_same_each_time(self) -> None:
        mine = Identity.of(os.getpid())
        assert mine is not None
        assert mine.is_alive()
        assert mine == Identity.of(os.getpid())
        assert mine.start_ticks == posix.start_time_ticks(os.getpid())

    def test_nobody_has_a_number_beyond_the_limit(self) -> None:
        beyond = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
        assert Identity.of(beyond) is None
        assert posix.start_time_ticks(beyond) is None

    def test_a_zombie_is_dead_but_still_has_its_name(self) -> None:
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        zombie = Identity.of(pid)
        assert zombie is not None
        assert not zombie.is_alive()
        os.waitpid(pid, 0)
        assert Identity.of(pid) is None

    async def test_row_24_a_reused_number_gets_no_signal(self, nursery: Nursery) -> None:
        """Row 24: the number is that of a live process, but its start or its boot is another's."""
        child = nursery.spawn("sleep", "100")
        earlier = dataclasses.replace(child.identity, start_ticks=child.identity.start_ticks - 1)
        other_boot = dataclasses.replace(child.identity, boot_id=str(uuid.uuid4()))
        for stranger in (earlier, other_boot):
            assert not stranger.is_alive()
            assert posix.open_pidfd(stranger) is None
            assert not posix.signal_identity(stranger, signal.SIGKILL)
        assert child.identity.is_alive()
        assert posix.signal_identity(child.identity, signal.SIGKILL)
        assert (await finished(child.exited)).signal == signal.SIGKILL

    async def test_a_pidfd_outlives_its_process_without_meaning_another(self, nursery: Nursery) -> None:
        child = nursery.spawn("sleep", "100")
        pidfd = posix.open_pidfd(child.identity)
        assert pidfd is not None
        assert posix.send_signal(pidfd, signal.SIGKILL)
        await finished(child.exited)
        assert await child.terminate(0)
        assert not posix.send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)

    def test_names_with_spaces_and_parentheses_are_read(self) -> None:
        line = "42 (a) b (c) S 1 42 41 0 -1 4194560 10 0 0 0 7 5 0 0 20 0 1 0 123456 1000 10 184"
        stat = procfs.parse_stat(line)
        assert (stat.pid, stat.name, stat.state, stat.parent, stat.group, stat.session) == (
            42,
            "a) b (c",
            "S",
            1,
            42,
            41,
        )
        assert (stat.cpu_ticks, stat.start_ticks) == (12, 123456)

    def test_the_start_of_a_process_is_known_in_wall_time(self) -> None:
        stat = procfs.read_stat(os.getpid())
        assert stat is not None
        assert procfs.started_wall(stat) == pytest.approx(psutil.Process().create_time(), abs=2)


class TestSweep:
    """What lives is found in the process table, not in a record."""

    async def test_it_finds_by_environment_and_tells_the_rest(self, nursery: Nursery) -> None:
        child = nursery.spawn("sleep", "100", env={"SOMETHING": "else"})
        await until(nursery.found, "the child with its environment")
        (found,) = nursery.found()
        assert found.identity == child.identity
        assert found.environ["SOMETHING"] == "else"
        assert found.environ["LLAMAVISOR_INSTANCE"] == "under-test"
        assert posix.find_by_environment("LLAMAVISOR_RUN_ID", nursery.tags.run_id[:-1]) == []

    async def test_it_finds_what_fled_by_double_fork_and_setsid(self, nursery: Nursery) -> None:
        child = nursery.misbehaving("--daemon")
        await nursery.port()
        daemon = next(found.identity for found in nursery.found() if found.identity != child.identity)
        assert os.getsid(daemon.pid) != child.pid
        assert daemon.pid not in [member.pid for member in posix.descendants(child.pid)]

    async def test_group_and_descendants(self, nursery: Nursery) -> None:
        child = nursery.misbehaving("--fork-grandchild")
        await nursery.port()
        (grandchild,) = posix.descendants(child.pid)
        assert {member.pid for member in posix.group_members(child.pid)} == {child.pid, grandchild.pid}


class TestSockets:
    """The listening socket's owner decides who answered."""

    async def test_tcp_owner_by_inode(self, nursery: Nursery) -> None:
        child = nursery.misbehaving()
        address = Address(port=await nursery.port())
        assert posix.listening_owner(address) == child.pid
        assert child.owns(address)
        assert re.fullmatch(rf"python[\d.]* \(pid {child.pid}\)", posix.describe_process(child.pid))

    async def test_unix_owner_by_peer_credentials(self, nursery: Nursery, tmp_path: Path) -> None:
        path = tmp_path / "engine.sock"
        child = nursery.misbehaving("--host", str(path))
        await nursery.said("server is listening")
        assert posix.listening_owner(Address(socket_path=path)) == child.pid
        assert child.owns(Address(socket_path=path))

    async def test_a_grandchild_that_listens_is_ours_too(self, nursery: Nursery) -> None:
        child = nursery.misbehaving("--serve-in-grandchild")
        address = Address(port=await nursery.port())
        assert posix.listening_owner(address) != child.pid
        assert child.owns(address)

    async def test_a_stranger_on_the_port_is_not_ours(self, nursery: Nursery, tmp_path: Path) -> None:
        """Row 21."""
        child = nursery.spawn("sleep", "100")
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            address = Address(port=stranger.getsockname()[1])
            assert posix.listening_owner(address) == os.getpid()
            assert not child.owns(address)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(tmp_path / "s.sock"))
            stranger.listen()
            assert posix.listening_owner(Address(socket_path=tmp_path / "s.sock")) == os.getpid()
            assert not child.owns(Address(socket_path=tmp_path / "s.sock"))

    @pytest.mark.parametrize("host", ["192.0.2.1", "gpu-box.example"])
    async def test_the_owner_of_an_address_elsewhere_is_nobody_here(self, host: str) -> None:
        """Adopted by mistake, the wrong process would be watched, and killed by `stop?kill=1`."""
        with socket.create_server(("0.0.0.0", 0)) as local:
            port = local.getsockname()[1]
            assert posix.listening_owner(Address(host="127.0.0.1", port=port)) == os.getpid()
            assert posix.listening_owner(Address(host=host, port=port)) is None

    async def test_a_shared_port_is_ours_only_when_nobody_shares_it(self, nursery: Nursery) -> None:
        """With SO_REUSEPORT the kernel deals connections to both."""
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            port = stranger.getsockname()[1]
            child = nursery.python(
                "import signal, socket\n"
                "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
                f"s.bind(('127.0.0.1', {port})); s.listen(); print('bound', flush=True); signal.pause()"
            )
            await nursery.said("bound")
            assert not child.owns(Address(port=port))
            stranger.close()
            assert child.owns(Address(port=port))

    def test_wildcards_families_and_nobody(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as listener:
            assert posix.listening_owner(Address(port=listener.getsockname()[1])) == os.getpid()
            assert posix.listening_owner(Address(host="localhost", port=listener.getsockname()[1])) == os.getpid()
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
            assert posix.listening_owner(Address(port=listener.getsockname()[1])) == os.getpid()
            port = listener.getsockname()[1]
        assert posix.listening_owner(Address(port=port)) is None
        assert posix.listening_owner(Address(socket_path=Path("/nonexistent/x.sock"))) is None

    def test_who_only_is_connected_from_a_port_does_not_listen_on_it(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
        ):
            assert posix.listening_owner(Address(port=client.getsockname()[1])) is None


class TestUsage:
    """Numbers from the kernel."""

    async def test_processor_time_and_memory(self, nursery: Nursery) -> None:
        child = nursery.python("x = bytearray(50_000_000)\nwhile True: pass")
        await until(lambda: posix.cpu_seconds(child.pids()) > 0.05, "processor time")
        await until(lambda: posix.memory_bytes(child.pids()) > 50_000_000, "memory")
        await child.terminate(0, force=True)
        assert posix.cpu_seconds([child.pid]) == 0
        assert posix.memory_bytes([child.pid]) == 0

    @pytest.mark.parametrize("way", ["read", "map"])
    async def test_how_much_of_a_file_was_taken_in(self, nursery: Nursery, tmp_path: Path, way: str) -> None:
        path = tmp_path / "big model.gguf"
        path.write_bytes(b"\1" * 40_000_000)
        take = {
            "read": "f.read(20_000_000)",
            "map": "import mmap; m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); m.madvise(mmap.MADV_RANDOM)\n"
            "x = sum(m[i] for i in range(0, 20_000_000, 4096))",
        }[way]
        child = nursery.python(
            f"import signal\nf = open({str(path)!r}, 'rb', buffering=0)\n{take}\nprint('taken', flush=True)\nsignal.pause()"
        )
        assert posix.file_read_fraction(child.pid, path) is not None
        await nursery.said("taken")
        fraction = posix.file_read_fraction(child.pid, path)
        assert fraction is not None
        # Around a page that is touched the kernel maps its neighbours, and a Python reads its own modules.
        assert 0.49 <= fraction <= 0.75

    def test_a_fraction_that_cannot_be_told_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        assert posix.file_read_fraction(os.getpid(), tmp_path / "empty") is None
        assert posix.file_read_fraction(os.getpid(), tmp_path / "missing") is None
        assert posix.file_read_fraction(1 << 30, Path(sys.executable)) is None

    def test_kills_for_memory_are_a_count_or_nothing(self) -> None:
        kills = posix.oom_kills()
        assert kills is None or kills >= 0


class TestSubreaper:
    """In a process of their own: the test runner must not inherit other tests' orphans."""

    async def test_an_orphan_comes_to_us_and_is_collected(self, nursery: Nursery) -> None:
        code = """
import asyncio, os, signal, subprocess, sys, time
from supervisor.clock import SystemClock
from supervisor.process import posix, procfs
from supervisor.process.reaper import OrphanReaper, orphans

assert posix.become_subreaper()
orphaned = int(subprocess.run(
    ["sh", "-c", "setsid sh -c 'echo $$; exec sleep 100 >/dev/null' & sleep 0.2"], stdout=subprocess.PIPE, text=True
).stdout)
deadline = time.monotonic() + 20
while orphaned not in [identity.pid for identity in orphans()]:
    assert time.monotonic() < deadline
    time.sleep(0.01)
theirs = subprocess.Popen(["true"])
os.kill(orphaned, signal.SIGKILL)
while procfs.read_stat(orphaned).is_alive or procfs.read_stat(theirs.pid).is_alive:
    time.sleep(0.01)
reaper = OrphanReaper(SystemClock())
assert reaper.reap() == [], "seen for the first time"
assert reaper.reap() == [orphaned]
assert theirs.wait() == 0, "its status was not stolen"
assert posix.become_subreaper(enable=False)
"""
        child = nursery.spawn(sys.executable, "-c", code, working_directory=Path.cwd())
        status = await finished(child.exited)
        assert status.code == 0, nursery.lines()

    async def test_a_swept_daemon_leaves_no_zombie(self, nursery: Nursery) -> None:
        code = """
import asyncio, sys
from pathlib import Path
from supervisor.process import posix, procfs
from tests.fixtures.nursery import Nursery
async def main():
    assert posix.become_subreaper()
    nursery = Nursery(Path(sys.argv[1]))
    child = nursery.misbehaving("--daemon", "--fork-grandchild", "--ignore-term")
    await nursery.port()
    assert len(nursery.found()) == 3
    assert await child.terminate(0.1)
    assert procfs.children_of_ours() == []
    await nursery.close()
asyncio.run(main())
"""
        child = nursery.spawn(sys.executable, "-c", code, str(nursery.folder / "inner"), working_directory=Path.cwd())
        status = await finished(child.exited)
        assert status.code == 0, nursery.lines()

    async def test_who_died_without_a_trace_is_told_from_who_left_something(self, nursery: Nursery) -> None:
        """The cheap look after an exit: certain where it says yes, and no whenever it is in doubt."""
        code = """
import asyncio, os, signal, subprocess, sys
from pathlib import Path
from supervisor.process import posix, reaper
from tests.fixtures.nursery import Nursery, finished, until
async def main():
    nursery = Nursery(Path(sys.argv[1]))
    neighbour = nursery.spawn("sleep", "1000")
    plain = nursery.spawn("sleep", "1000")
    assert not posix.is_subreaper()
    assert not reaper.is_without_orphans(), "orphans would go elsewhere"
    assert posix.become_subreaper()
    assert posix.is_subreaper()
    theirs = subprocess.Popen(["sleep", "1000"])
    os.kill(plain.pid, signal.SIGKILL)
    await finished(plain.exited)
    assert reaper.is_without_orphans(), "neighbours and subprocesses of others are no orphans"
    assert await plain.terminate(0)
    theirs.kill()
    theirs.wait()
    fled = nursery.misbehaving("--daemon", "--daemon-clean-environment", "--ignore-term")
    await nursery.port()
    os.kill(fled.pid, signal.SIGKILL)
    await finished(fled.exited)
    assert not reaper.is_without_orphans(), "a daemon with neither our environment nor our session"
    [daemon] = reaper.orphans()
    os.kill(daemon.pid, signal.SIGKILL)
    await until(lambda: reaper.orphans(alive=False), "its end")
    assert reaper.collect(daemon.pid)
    assert reaper.is_without_orphans()
    assert neighbour.pids() == [neighbour.pid]
    await nursery.close()
asyncio.run(main())
"""
        child = nursery.spawn(sys.executable, "-c", code, str(nursery.folder / "inner"), working_directory=Path.cwd())
        status = await finished(child.exited)
        assert status.code == 0, nursery.lines()

    def test_it_is_undone(self) -> None:
        assert posix.become_subreaper()
        assert posix.become_subreaper(enable=False)
        flag = ctypes.c_int(-1)
        ctypes.CDLL(None).prctl(37, ctypes.byref(flag), 0, 0, 0)
        assert flag.value == 0

    async def test_whoever_waits_for_a_child_has_the_time_of_one_look(self) -> None:
        clock = FakeClock()
        reaper = OrphanReaper(clock)
        reaper.start()
        first, second = a_child_that_ends(), a_child_that_ends()

        def ended() -> set[int]:
            return {orphan.pid for orphan in orphans(alive=False)} & {first, second}

        await until(lambda: ended() == {first, second}, "their ends")
        clock.advance(5.0)
        assert exit_code(first) == 7
        assert ended() == {second}
        clock.advance(5.0)
        assert ended() == set()
        reaper.close()
        reaper.close()


def a_child_that_ends() -> int:
    """The process id of a child in a session of its own, as an orphan of an instance is; nobody waits for it yet."""
    return os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {}, setsid=True)


class TestPortableTwin:
    """What macOS uses, compared with /proc."""

    async def test_it_sees_the_same_process(self, nursery: Nursery) -> None:
        child = nursery.spawn("sleep", "100")
        await until(lambda: "sleep" in posix.describe_process(child.pid), "the program")
        twin, original = portable.read_stat(child.pid), procfs.read_stat(child.pid)
        assert twin is not None
        assert original is not None
        assert (twin.pid, twin.name, twin.parent, twin.group, twin.session, twin.is_alive) == (
            original.pid,
            original.name,
            original.parent,
            original.group,
            original.session,
            True,
        )
        environment = portable.read_environment(child.pid)
        assert environment is not None
        assert environment["LLAMAVISOR_RUN_ID"] == nursery.tags.run_id
        assert child.pid in portable.all_pids()
        assert portable.resident_bytes(child.pid) > 0

    async def test_it_sees_who_listens_and_who_is_gone(self, nursery: Nursery) -> None:
        child = nursery.misbehaving()
        port = await nursery.port()
        assert portable.listening_pids(port) == {child.pid}
        os.kill(child.pid, signal.SIGKILL)
        await finished(child.exited)
        zombie = portable.read_stat(child.pid)
        assert zombie is not None
        assert not zombie.is_alive
        assert await child.terminate(0)
        assert portable.read_stat(child.pid) is None
        assert portable.read_environment(child.pid) is None
        assert portable.resident_bytes(child.pid) == 0

    async def test_a_child_lives_and_ends_without_any_of_what_only_linux_has(
        self, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (procfs, posix, sockets, usage, exitwatch, child_module):
            monkeypatch.setattr(module, "IS_LINUX", False)
        child = nursery.misbehaving("--fork-grandchild", "--ignore-term")
        port = await nursery.port()
        assert child.identity.is_alive()
        assert child.owns(Address(port=port))
        assert len(child.pids()) == 2
        assert posix.memory_bytes(child.pids()) > 0
        assert posix.cpu_seconds(child.pids()) >= 0
        assert [found.identity.pid for found in nursery.found()] == sorted(child.pids())
        assert not posix.become_subreaper()
        assert await child.terminate(0.1)
        assert nursery.exits == [ExitStatus(signal=signal.SIGKILL)]
        assert nursery.found() == []

    async def test_a_status_is_had_without_waitid(self, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (procfs, posix, exitwatch, child_module):
            monkeypatch.setattr(module, "IS_LINUX", False)
        assert (await finished(nursery.spawn("sh", "-c", "exit 7").exited)) == ExitStatus(code=7)

    def test_a_boot_has_a_name(self) -> None:
        assert portable.boot_id() == portable.boot_id()

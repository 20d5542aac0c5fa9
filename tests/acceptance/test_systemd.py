"""The service manager's side: what `serve` tells it, and whether the units are what systemd understands."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.systemd import Notifier
from tests.fixtures.serve_process import (
    DEMO,
    GENEROUS_SECONDS,
    PROGRAM,
    ROOT,
    ServeProcess,
    clean_environment,
    wait_until,
)

pytestmark = pytest.mark.timeout(180)
UNIT = ROOT / "deploy" / "llamavisor.service"
SURVIVE = ROOT / "deploy" / "llamavisor-survive.conf"
WATCHDOG_SECONDS = 2


class Manager:
    """The socket of a service manager, with all that was told to it."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(GENEROUS_SECONDS)
        self.told: list[dict[str, str]] = []

    def receive(self) -> dict[str, str]:
        """The next notification."""
        fields = dict(line.split("=", 1) for line in self._socket.recv(4_096).decode().splitlines())
        self.told.append(fields)
        return fields

    def wait_for(self, name: str, pattern: str = "1") -> dict[str, str]:
        """The next notification in which `name` has a value of that pattern."""
        while not re.fullmatch(pattern, (fields := self.receive()).get(name, "")):
            continue
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A manager at `tmp_path/notify`."""
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def service(tmp_path: Path, manager: Manager) -> Iterator[ServeProcess]:
    """`serve` as systemd would start it."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
    server = ServeProcess(tmp_path, environment=environment)
    yield server
    server.close()


def test_the_life_of_a_service(service: ServeProcess, manager: Manager) -> None:
    ready = manager.wait_for("READY")
    url = service.wait_serving()
    assert ready["MAINPID"] == str(service.process.pid)
    assert ready["STATUS"] == f"Serving at {url}"
    manager.wait_for("STATUS", f"{re.escape(url)}: 1 of 1 instances ready")
    manager.wait_for("WATCHDOG")
    manager.wait_for("WATCHDOG")

    service.process.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING")
    manager.wait_for("READY")

    service.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING")
    assert service.process.wait(GENEROUS_SECONDS) == 0


def test_a_crash_is_in_the_status(service: ServeProcess, manager: Manager) -> None:
    manager.wait_for("READY")
    engine = service.wait_ready()["pid"]
    manager.wait_for("STATUS", ".*: 1 of 1 instances ready")
    os.kill(engine, signal.SIGKILL)
    manager.wait_for("STATUS", ".*: 0 of 1 instances ready")
    manager.wait_for("STATUS", ".*: 1 of 1 instances ready")


def test_a_refused_reload_is_ready_again_with_the_old_settings(service: ServeProcess, manager: Manager) -> None:
    manager.wait_for("READY")
    running = service.wait_ready()["pid"]
    service.config_path.write_text('{"instances": {"demo": {"modle": 1}}}')
    service.process.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING")
    manager.wait_for("READY")
    wait_until(lambda: "did you mean `model`?" in service.said, "the refusal in the log")
    assert service.wait_ready()["pid"] == running


def test_the_engine_cannot_speak_for_the_service(service: ServeProcess, manager: Manager) -> None:
    manager.wait_for("READY")
    engine = service.wait_ready()["pid"]
    environment = Path(f"/proc/{engine}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environment
    assert b"WATCHDOG_" not in environment


def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"llamavisor-test-{os.getpid()}"
    manager = Manager("\0" + name)
    try:
        assert Notifier({"NOTIFY_SOCKET": "@" + name}).notify(READY=1, STATUS="fine")
        assert manager.receive() == {"READY": "1", "STATUS": "fine"}
    finally:
        manager.close()


def test_no_manager_or_one_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert not Notifier({}).notify(READY=1)
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify(READY=1)


@pytest.mark.parametrize(
    ("usec", "pid"),
    [("", ""), ("0", ""), ("soon", ""), ("1000000", "1")],
    ids=["unset", "zero", "no number", "of another process"],
)
async def test_no_pings_where_none_are_wanted(tmp_path: Path, manager: Manager, usec: str, pid: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})
    notifier.start_watchdog()
    assert "systemd-watchdog" not in {task.get_name() for task in asyncio.all_tasks()}
    notifier.notify(STATUS="last")
    assert manager.receive() == {"STATUS": "last"}
    notifier.stop_watchdog()


def test_without_a_manager_it_serves_all_the_same(tmp_path: Path) -> None:
    server = ServeProcess(tmp_path, DEMO, environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    try:
        server.wait_ready()
        assert server.end() == 0
    finally:
        server.close()


# -- The units


def unit_with_program(folder: Path) -> Path:
    """The unit in `folder`, with a program that is there, and with the drop-in where systemd looks for it."""
    program = folder / "llamavisor"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8").replace("/opt/llamavisor/bin/llamavisor", str(program))
    unit = folder / UNIT.name
    unit.write_text(text, encoding="utf-8")
    return unit


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: apt-get install systemd)"
)
@pytest.mark.parametrize("survive", [False, True], ids=["unit", "unit with the drop-in"])
def test_systemd_understands_the_units(tmp_path: Path, survive: bool) -> None:
    unit = unit_with_program(tmp_path)
    if survive:
        drop_ins = tmp_path / f"{UNIT.name}.d"
        drop_ins.mkdir()
        shutil.copy(SURVIVE, drop_ins / "survive.conf")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or UNIT.name in line]
    assert ours == []
    assert done.returncode == 0


def settings(path: Path) -> dict[str, str]:
    """The last value of each key of a unit."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_fits_the_program() -> None:
    unit, drop_in = settings(UNIT), settings(SURVIVE)
    assert (unit["Type"], unit["KillMode"], drop_in["KillMode"]) == ("notify", "mixed", "process")
    assert int(unit["WatchdogSec"]) > 0
    words = unit["ExecStart"].split()[1:]
    done = subprocess.run([*PROGRAM, words[0], "--help"], capture_output=True, text=True, env=clean_environment(ROOT))
    assert all(word in done.stdout for word in words if word.startswith("--"))


def test_the_unit_leaves_time_for_the_shutdown(tmp_path: Path) -> None:
    shown = subprocess.run(
        [*PROGRAM, "config", "show", "--json"],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    )
    defaults = json.loads(shown.stdout)
    needed = defaults["server"]["shutdown_grace_seconds"] + defaults["defaults"]["stop_grace_seconds"]
    assert int(settings(UNIT)["TimeoutStopSec"]) > needed

"""What `doctor` looks at on the machine, whatever is configured."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from supervisor.cli.findings import Finding, fail, ok, warn
from supervisor.process import posix

KERNEL_NEEDED = (5, 4)
PYTHON_NEEDED = (3, 11)
DESCRIPTORS_WANTED = 4_096
PROGRAM_SECONDS = 20.0
DAY_SECONDS = 86_400
UNIT = "llamavisor.service"


def machine_findings() -> Iterator[Finding]:
    """Everything that does not depend on the configuration."""
    yield _python()
    yield from _platform()
    yield _parent_death()
    yield _descriptors()
    yield from _graphics()
    yield _clock()
    yield from _systemd()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= PYTHON_NEEDED:
        return ok("Python", f"{found}, {platform.machine()}")
    return fail("Python", f"{found} is too old", "Install Python 3.11 or newer and create the environment anew.")


def _platform() -> Iterator[Finding]:
    system, release = platform.system(), platform.release()
    if system == "Darwin":
        yield warn(
            "platform",
            "macOS: for development; exits are noticed by polling, and orphans of engines can escape",
            "Run in production on Linux.",
        )
        return
    if system != "Linux":
        yield fail("platform", f"{system} is not supported", "Use Linux, or WSL 2 on Windows.")
        return
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < KERNEL_NEEDED:
        yield fail("platform", f"Linux {release} is too old", "Use a kernel of 5.4 or newer.")
    else:
        yield ok("platform", f"Linux {release}")
    yield from _kernel_features()


def _kernel_features() -> Iterator[Finding]:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        remedy = "A sandbox forbids pidfd_open: allow it in its seccomp profile."
        yield fail("pidfd", f"exits cannot be noticed at once ({error})", remedy)
    else:
        yield ok("pidfd", "exits are noticed at once")
    if posix.become_subreaper():
        posix.become_subreaper(enable=False)
        yield ok("subreaper", "no orphan of an engine can escape")
    else:
        yield warn(
            "subreaper", "orphans of engines could escape", "Allow prctl(PR_SET_CHILD_SUBREAPER) in the sandbox."
        )


def _parent_death() -> Finding:
    if shutil.which("setpriv") or sys.platform == "darwin":
        return ok("setpriv", "engines end with the supervisor, however it ends")
    remedy = "Install util-linux (Debian: apt-get install util-linux)."
    return warn("setpriv", "engines of others may outlive a supervisor that is killed, until its next start", remedy)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS_WANTED:
        return ok("open files", f"{soft} allowed")
    reachable = f"ulimit -n {DESCRIPTORS_WANTED}" if hard >= DESCRIPTORS_WANTED else "LimitNOFILE= in the systemd unit"
    message = f"{soft} allowed: enough for some {soft // 2} clients at once"
    return warn("open files", message, f"Raise the limit ({reachable}).")


def _graphics() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield ok("GPU", "no NVIDIA GPU is seen: engines compute on the processor")
        return
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    status, output = run_briefly(query)
    if status != 0:
        yield warn("GPU", f"nvidia-smi fails: {output[-200:]}", "Mend or reinstall the driver; a reboot may be due.")
        return
    for line in output.splitlines():
        yield ok("GPU", line.strip())


def _clock() -> Finding:
    """Keys, certificates and records need the time of day; no network is asked."""
    newest = (Path(__file__).stat()).st_mtime
    if time.time() < newest - DAY_SECONDS:
        return fail(
            "clock", "the clock is behind: this program is younger than today", "Set the clock; run an NTP client."
        )
    program = shutil.which("timedatectl")
    status, output = run_briefly([program, "show", "-p", "NTPSynchronized", "--value"]) if program else (1, "")
    if status == 0 and output.strip() == "no":
        return warn("clock", "it is not synchronised", "Turn it on: timedatectl set-ntp true.")
    return ok("clock", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _systemd() -> Iterator[Finding]:
    program = shutil.which("systemctl")
    if program is None or not Path("/run/systemd/system").exists():
        return
    status, output = run_briefly([program, "is-enabled", UNIT])
    state = output.strip().splitlines()[0] if output.strip() else "not installed"
    if status == 0:
        yield ok("systemd", f"{UNIT} is {state}")
    else:
        yield ok("systemd", f"{UNIT} is {state}; `deploy/` in the sources has a unit to copy")


def engine_library() -> Finding:
    """Whether the embedded engine loads; in a process of its own, because a native library can take its process down."""
    code = "import xllamacpp, importlib.metadata as m; print(m.version('xllamacpp'))"
    status, output = run_briefly([sys.executable, "-c", code])
    if status == 0:
        return ok("embedded engine", f"xllamacpp {output.strip()}")
    what = f"it was killed by signal {-status}" if status < 0 else output.strip().splitlines()[-1:] or ["it fails"]
    message = f"xllamacpp does not load: {what if isinstance(what, str) else what[0]}"
    return fail(
        "embedded engine", message, "Reinstall it (pip install --force-reinstall xllamacpp), or use llama-server."
    )


def memory_bytes() -> tuple[int, int]:
    """Total and available bytes; of a control group with a limit, its own."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
    except (OSError, ValueError):
        return total, available
    return min(total, limit), max(0, min(available, limit - used))


def run_briefly(argv: list[str]) -> tuple[int, str]:
    """Exit status and output (both streams) of a small program; 1 and a reason when it does not run or end."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")

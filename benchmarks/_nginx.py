"""nginx as a contender: found on PATH, or unpacked from the distribution's package into a folder; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._processes import Processes, wait_until


@dataclass(frozen=True, slots=True)
class Server:
    """One port, and what it stands in front of. `keeps`: whether connections to the engine are kept."""

    name: str
    port: int
    engine: str
    keeps: bool


def find_nginx(folder: Path) -> Path | None:
    """The program, on PATH or from Debian's package; None when there is neither."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else _unpacked(folder)


def _unpacked(folder: Path) -> Path | None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    target = folder / "nginx-package"
    target.mkdir()
    fetched = subprocess.run(["apt-get", "download", "nginx"], cwd=target, capture_output=True, check=False)
    packages = list(target.glob("nginx_*.deb"))
    if fetched.returncode or not packages:
        return None
    subprocess.run(["dpkg-deb", "-x", packages[0], target], check=True)
    program = target / "usr" / "sbin" / "nginx"
    works = subprocess.run([program, "-v"], capture_output=True, check=False).returncode == 0
    return program if works else None


def nginx_version(program: Path) -> str:
    """What it says of itself."""
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return told.rpartition("/")[2].strip()


def start_nginx(program: Path, servers: list[Server], processes: Processes) -> list[int]:
    """One worker; the process ids that count (the worker's)."""
    prefix = processes.folder / "nginx"
    prefix.mkdir()
    configuration = prefix / "nginx.conf"
    configuration.write_text(configuration_text(prefix, servers))
    master = processes.start(
        "nginx", [program, "-p", prefix, "-c", configuration, "-e", "stderr", "-g", "daemon off;"], logs_output=True
    ).pid

    def worker() -> list[int] | None:
        return [child.pid for child in psutil.Process(master).children()] or None

    return wait_until(worker, "nginx to start its worker")


def configuration_text(prefix: Path, servers: list[Server]) -> str:
    """No log, no buffering, loopback only, every temporary file below `prefix`."""
    # As root, the worker would become another user, who cannot write here.
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n  ".join(f"{kind}_temp_path {prefix / kind};" for kind in kinds)
    blocks = "\n".join(_block(server) for server in servers)
    return f"""{user}
worker_processes 1;
pid {prefix / "pid"};
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  {folders}
  keepalive_requests 1000000000;
  proxy_http_version 1.1;
  proxy_buffering off;
{blocks}
}}
"""


def _block(server: Server) -> str:
    keepalive = "keepalive 128; keepalive_requests 1000000000;" if server.keeps else ""
    connection = '""' if server.keeps else "close"
    return f"""
  upstream {server.name} {{ server {server.engine}; {keepalive} }}
  server {{
    listen 127.0.0.1:{server.port} backlog=1024;
    location / {{ proxy_pass http://{server.name}; proxy_set_header Connection {connection}; }}
  }}"""

"""Who listens on an address: by the socket's inode for TCP, by the peer's credentials for Unix sockets. No answer is ever believed instead."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from supervisor.launch import Address
from supervisor.process import procfs
from supervisor.process.procfs import IS_LINUX

LISTENING = "0A"
CREDENTIALS = struct.Struct("3i")
HEX_WORD = 8


def listening_owner(address: Address) -> int | None:
    """The process that listens on an address: the lowest id when several share the socket; None when nobody does, or nobody we may see."""
    try:
        return min(listening_pids(address), default=None)
    except OSError:
        return None


def belongs_to(address: Address, pids: Collection[int]) -> bool:
    """Whether whoever listens on an address is among `pids`. Where several sockets share a port (SO_REUSEPORT), each must be theirs."""
    if address.socket_path is not None or not IS_LINUX:
        listening = listening_pids(address)
        return bool(listening) and listening <= set(pids)
    inodes = tcp_listening_inodes(address.host, address.port)
    return bool(inodes) and all(holders({inode}, pids) for inode in inodes)


def listening_pids(address: Address) -> set[int]:
    """Every process that holds a socket listening on an address."""
    if address.socket_path is not None:
        peer = unix_peer(address.socket_path)
        return set() if peer is None else {peer}
    if not IS_LINUX:
        from supervisor.process import portable

        return portable.listening_pids(address.port)
    inodes = tcp_listening_inodes(address.host, address.port)
    return holders(inodes, procfs.all_pids())


def unix_peer(path: Path) -> int | None:
    """The process that called `listen` on a Unix socket; None when nobody accepts there. Never waits: a full backlog is None too."""
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(str(path))
            content = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except OSError:
            return None
    pid, _uid, _gid = CREDENTIALS.unpack(content)
    return int(pid) or None


def tcp_listening_inodes(host: str, port: int) -> set[int]:
    """Inodes of the sockets that a connection to `host:port` would reach: those bound to it, else those bound to every address.

    None for a host elsewhere: a socket of this machine on the same port has nothing to do with it.
    """
    exact: set[int] = set()
    wildcard: set[int] = set()
    wanted = _addresses_here(host)
    if not wanted:
        return set()
    for local, inode in _listening_rows(port):
        if local.is_unspecified:
            wildcard.add(inode)
        elif local in wanted:
            exact.add(inode)
    return exact or wildcard


def _addresses_here(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of this machine that `host` means; none for another machine, and for a name, which could be anybody's."""
    if host == "localhost":
        return {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return set()
    return {address} if _is_of_this_machine(address) else set()


def _is_of_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Only an address of one's own can be bound."""
    if address.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _listening_rows(port: int) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    suffix = f":{port:04X}"
    rows = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (procfs.read_bytes(table) or b"").decode("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[1].endswith(suffix):
                rows.append((_parse_kernel_address(fields[1].partition(":")[0]), int(fields[9])))
    return rows


def _parse_kernel_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel prints each 32-bit word in the machine's byte order."""
    words = [int(text[start : start + HEX_WORD], 16) for start in range(0, len(text), HEX_WORD)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    parsed = ipaddress.ip_address(packed)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def holders(inodes: set[int], pids: Iterable[int]) -> set[int]:
    """Those of `pids` that hold a descriptor of one of the sockets."""
    targets = {f"socket:[{inode}]" for inode in inodes}
    return {pid for pid in pids if targets and _holds_any(pid, targets)}


def _holds_any(pid: int, targets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(_link(f"{folder}/{name}") in targets for name in names)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def describe_process(pid: int) -> str:
    """A process in words for people: `nginx (pid 812)`."""
    stat = procfs.read_stat(pid)
    return f"{stat.name} (pid {pid})" if stat is not None else f"pid {pid}"

"""Which process listens on a port or a Unix socket: the kernel's lists of sockets, and the descriptors of processes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator

__all__ = ["holder_of", "holds_one", "name_of", "tcp_listeners", "unix_listeners"]

_LISTEN = "0A"
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON


def tcp_listeners(address: str, port: int) -> set[int]:
    """Return the inodes of the sockets that listen on this port of an address of this machine."""
    inodes = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        wanted = {f"{local}:{port:04X}" for local in _texts(address, family)}
        for fields in _table(name):
            if fields[3] != _LISTEN:  # those that listen are the first
                break
            if fields[1] in wanted:
                inodes.add(int(fields[9]))
    return inodes


def _texts(address: str, family: socket.AddressFamily) -> Iterator[str]:
    """Yield the addresses that a listener may be bound to, as the kernel's list shows them."""
    any_address, mapped = ("0.0.0.0", "") if family == socket.AF_INET else ("::", f"::ffff:{address}")
    for text in (any_address, address.partition("%")[0], mapped):
        with contextlib.suppress(OSError):  # an address of the other family
            packed = socket.inet_pton(family, text)
            yield "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def unix_listeners(path: str) -> set[int]:
    """Return the inodes of the listening Unix sockets whose path has the same last part: paths may be relative."""
    name = os.path.basename(path)
    rows = (fields for fields in _table("unix") if len(fields) > 7 and int(fields[3], 16) & _ACCEPTS)
    return {int(fields[6]) for fields in rows if os.path.basename(fields[7]) == name}


def _table(name: str) -> Iterator[list[str]]:
    with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", "rb") as file:  # no IPv6
        next(file, None)
        for line in map(os.fsdecode, file):
            yield line.rstrip("\n").split(maxsplit=7 if name == "unix" else -1)


def holds_one(pids: Iterable[int], inodes: set[int]) -> bool:
    """Return whether one of the processes has one of the sockets open, or may have: another user's cannot be read."""
    return any(_holds(pid, inodes) is not False for pid in pids)


def holder_of(inodes: set[int]) -> str:
    """Return name and pid of a process that has one of the sockets open, for a message."""
    pids = map(int, filter(str.isdecimal, os.listdir("/proc")))
    return next((name_of(pid) for pid in pids if _holds(pid, inodes)), "another user's process")


def _holds(pid: int, inodes: set[int]) -> bool | None:
    """Return whether the process has one of the sockets open; None if that cannot be read."""
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                    return True
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
    return False


def name_of(pid: int) -> str:
    """Return name and pid of a process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return f"{file.read().strip()} (pid {pid})"
    except OSError:
        return f"a process that is gone (pid {pid})"

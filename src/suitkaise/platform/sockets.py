"""Unix sockets between processes of one user: the check of the other side's user, and paths of any length.

Both sides check. A server that did not check would obey a stranger; a client that did not check would send its data to
a stranger who has put a socket at the same path, and would decode, and so execute, what the stranger answers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator

from suitkaise.platform.log_queue import QueuedLogger

__all__ = [
    "Peers",
    "UntrustedServer",
    "accept_own",
    "bind_unix",
    "blocking",
    "connect_own",
    "connect_unix",
    "is_trusted",
    "listen_unix",
    "peer_of",
    "socket_pair",
]

logger: QueuedLogger = QueuedLogger("suitkaise.sockets")

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_LONGEST_ADDRESS = 100  # bytes that fit into the address of a Unix socket on every system


class UntrustedServer(PermissionError):
    """A socket at the path of one of ours is served by another user."""


def is_trusted(uid: int) -> bool:
    """Return whether a process of this user may be believed: the effective user of this process, or root.

    Root can read and change this process anyway; and workers of a program that has given up root are root's still. The
    real user does not count: that of a setuid program is whoever has started it.
    """
    return uid in (os.geteuid(), 0)


class Peers:
    """Counts the connections of each process at one listener, and limits them to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._connections: Counter[int] = Counter()

    def admit(self, pid: int) -> bool:
        """Count a connection of this process; return False if it has too many."""
        if self._connections[pid] >= self.most:
            return False
        self._connections[pid] += 1
        return True

    def forget(self, pid: int) -> None:
        """Count a connection of this process no more."""
        self._connections[pid] -= 1
        if not self._connections[pid]:
            del self._connections[pid]


def blocking(sock: socket.socket) -> socket.socket:
    """Return the socket in blocking mode: `socket.setdefaulttimeout` of the program is for sockets of its own."""
    sock.settimeout(None)
    return sock


def socket_pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Return a pair of Unix sockets in blocking mode, also for a process that gets one of them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    return blocking(ours), blocking(theirs)


def accept_own(listener: socket.socket, peers: Peers, at_once: int = 64) -> Iterator[tuple[socket.socket, int]]:
    """Accept the connections that wait at `listener`, at most `at_once`, from processes of this user (and of root).

    Yields a non-blocking socket and the pid of the peer for each. A connection of another user, or of a process that
    has too many, is logged and closed before a byte of it is read.

    Raises:
        OSError: no connection can be accepted now, for example because no descriptor is left.
    """
    for _ in range(at_once):
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        pid, uid = peer_of(sock)
        if not is_trusted(uid):
            logger.warning("connection from pid %d of user %d refused", pid, uid)
            sock.close()
            continue
        if not peers.admit(pid):
            logger.warning("process %d has %d connections already; the next one is refused", pid, peers.most)
            sock.close()
            continue
        sock.setblocking(False)
        yield sock, pid


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return pid and user of the peer at the time when it connected, or called `listen`."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def connect_own(sock: socket.socket, path: str | os.PathLike[str]) -> None:
    """Connect to the socket of a process of ours; a server of another user is sent nothing.

    Raises:
        UntrustedServer: another user listens at `path`.
        OSError: as `socket.connect` raises it.
    """
    connect_unix(sock, path)
    pid, uid = peer_of(sock)
    if not is_trusted(uid):
        raise UntrustedServer(
            errno.EPERM,
            f"process {pid} of user {uid} listens at {os.fspath(path)!r}, where only a process of user {os.geteuid()} "
            "or of root may; nothing was sent to it",
        )


def connect_unix(sock: socket.socket, path: str | os.PathLike[str]) -> None:
    """Connect to the Unix socket at `path`, also where the path is longer than the 107 bytes of an address.

    Raises:
        OSError: as `socket.connect` raises it.
    """
    with _address(path) as address:
        sock.connect(address)


def bind_unix(sock: socket.socket, path: str | os.PathLike[str]) -> None:
    """Bind `sock` to `path`, also where the path is longer than the 107 bytes of an address.

    Raises:
        OSError: as `socket.bind` raises it.
    """
    with _address(path) as address:
        sock.bind(address)


def listen_unix(path: str | os.PathLike[str], backlog: int = 512) -> socket.socket:
    """Return a non-blocking socket that listens at `path`, to which only this user and root can connect.

    Raises:
        OSError: as `socket.bind` raises it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_unix(listener, path)
        os.chmod(path, 0o600)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _address(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield an address of the socket at `path` that fits; a long one goes through a descriptor of its directory."""
    address = os.fspath(path)
    if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
        yield address
        return
    folder, name = os.path.split(address)
    descriptor = os.open(folder or os.curdir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)

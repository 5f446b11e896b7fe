"""Unix sockets between processes of one user: the check of the other side's user, and paths of any length."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["accept_own", "connect_unix"]

logger: logging.Logger = logging.getLogger("suitkaise.sockets")

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_LONGEST_ADDRESS = 100  # bytes that surely fit into a Unix socket's address


def accept_own(listener: socket.socket, most: int = 64) -> Iterator[tuple[socket.socket, int]]:
    """Accept the connections that wait at `listener`, at most `most`, from processes of this user.

    Each comes as a non-blocking socket and the pid of the other side. A connection of another user is refused: it is
    closed before a byte of it is read, and the log tells so.

    Raises:
        OSError: no connection can be accepted now; no descriptor is left, most likely.
    """
    for _ in range(most):
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        pid, uid = _peer_of(sock)
        if uid != os.geteuid():
            logger.warning("a connection from process %d of user %d was refused", pid, uid)
            sock.close()
            continue
        sock.setblocking(False)
        yield sock, pid


def _peer_of(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel noted them when the connection was made."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def connect_unix(sock: socket.socket, path: str | os.PathLike[str]) -> None:
    """Connect to the Unix socket at `path`, also where the path is longer than the 107 bytes of an address.

    Raises:
        OSError: as `socket.connect` raises it.
    """
    address = os.fspath(path)
    if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
        sock.connect(address)
        return
    folder, name = os.path.split(address)
    descriptor = os.open(folder or os.curdir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)

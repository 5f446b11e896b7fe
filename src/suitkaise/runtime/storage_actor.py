"""The storage actor: a worker like any other, in a process of its own, that serves the storage to the whole program.

Its listening socket belongs to the program, so clients queue there while the actor is being restarted. The actor
ignores the signals that a whole process group gets, and outlives the program's other workers, so that their
`on_finish` can still write. (This module is separate from `storage_service` because the keeper loads it before it forks
the actor.)
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator
from typing import ClassVar

from suitkaise.errors import StorageError
from suitkaise.platform.processes import has_ended
from suitkaise.platform.sockets import connect_unix, listen_unix, peer_of
from suitkaise.specs import Backoff, Child, SupervisorSpec
from suitkaise.storage.backends.access import WRITER
from suitkaise.storage.backends.integrity import damaged
from suitkaise.storage.client import SOCKET
from suitkaise.storage.place import check_place
from suitkaise.storage.server import StorageServer
from suitkaise.workers.worker import Process

__all__ = ["StorageActor", "declare", "is_served"]

_LAST_WRITES = 10.0
"""Seconds for which a program waits for the workers of a killed one, which have five to finish, and use the storage."""


class StorageActor(Process):
    """Serves the storage in `directory` to the clients that connect to `listener`."""

    _stops_last: ClassVar[bool] = True

    def __init__(self, directory: str, listener: socket.socket, durable: bool, engine: str) -> None:
        super().__init__()
        self._directory = directory
        self._listener = listener
        self._durable = durable
        self._engine = engine

    def on_start(self) -> None:
        """Open the store with everything that earlier incarnations have committed.

        A durable one is read through when a program begins to use it.

        Raises:
            StorageError: it is damaged, or cannot be used.
        """
        try:
            self._server = StorageServer(self._directory, self._listener, durable=self._durable, engine=self._engine)
            if self._durable and self.recalled is None:
                self._server.check()
        except Exception as error:
            raise damaged(self._directory, error) from error

    def loop(self) -> None:
        """Serve until there is a message for the worker, or no client: wait, carry all requests out, answer."""
        if not self._require_context("loop").wait_in(self._serve) and not self._server.client_count:
            self.rejoin()  # the program is gone, and so are all its workers

    def _serve(self, *wake: int) -> None:
        server = self._server
        while not server.serve(server.heartbeat, *wake) and server.client_count:
            pass

    def on_finish(self) -> None:
        """Close the store."""
        self._server.close()


def declare(name: str, directory: str, *, durable: bool, engine: str) -> tuple[SupervisorSpec, socket.socket]:
    """Declare the tree `name`, which supervises the storage actor; return it and the actor's listening socket.

    Any number of restarts is allowed: a storage that keeps failing must not end the program.

    Raises:
        StorageError: the directory cannot be used, or another program uses it.
    """
    path = os.path.join(directory, SOCKET)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if durable:
            check_place(directory)
        with _turn(directory):
            listener = _listen(path)
    except OSError as error:
        raise StorageError(f"the storage cannot be at {directory!r}: {error}", path=directory) from error
    actor = Child(
        StorageActor(directory, listener, durable, engine), id="storage", shutdown=5.0,
        backoff=Backoff(initial=0.001, maximum=1.0, jitter=0.0, reset_after=1.0),
    )  # fmt: skip
    return SupervisorSpec(name, actor, max_restarts=math.inf), listener


@contextlib.contextmanager
def _turn(directory: str) -> Iterator[None]:
    """Keep other programs from taking the directory meanwhile: one would unlink the socket of the other.

    Raises:
        StorageError: another program is about to use the storage.
    """
    descriptor = os.open(os.path.join(directory, WRITER), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(directory) from None
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the descriptor, too
    finally:
        os.close(descriptor)


def _in_use(directory: str) -> StorageError:
    return StorageError(f"the storage at {directory!r} is in use by another program", path=directory)


def _listen(path: str) -> socket.socket:
    if os.path.exists(path):  # a durable storage: left by an earlier program, or in use by another one
        patience = time.monotonic() + _LAST_WRITES
        while is_served(path):
            if time.monotonic() > patience or not _is_left_behind(path):
                raise _in_use(os.path.dirname(path))
            time.sleep(0.02)
        os.unlink(path)
    return listen_unix(path, 1024)


def _is_left_behind(path: str) -> bool:
    """Return whether the program that listens at the socket `path` was killed, so that its workers are finishing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            connect_unix(probe, path)
            owner = os.pidfd_open(peer_of(probe)[0])  # the one that called `listen`, whoever accepts
        except (ConnectionError, FileNotFoundError, ProcessLookupError):
            return True
        except OSError:  # for example a program in another namespace
            return False
    try:
        return has_ended(owner, 0.1)  # a kill just before this call takes a moment
    finally:
        os.close(owner)


def is_served(path: str) -> bool:
    """Return whether a program listens at the socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            connect_unix(probe, path)
        except OSError:
            return False
    return True

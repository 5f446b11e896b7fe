"""What can be asked of the process of a worker on the machine on which it runs: its stacks, a profile, a signal.

The command line does it itself for the workers of its machine; for the others their node does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal, TypeAlias

from suitkaise.engines.worker_signals import DUMP, PROFILE
from suitkaise.errors import SuitkaiseError
from suitkaise.platform.processes import has_default_action
from suitkaise.platform.runtime_directory import profile_socket, stack_file
from suitkaise.platform.sockets import bind_unix, blocking, is_trusted, peer_of

__all__ = ["PATIENCE", "Inspection", "inspect", "own_first", "profile_of", "send_signal", "send_to_worker", "stacks_of"]

Inspection: TypeAlias = Literal["stack", "profile", "signal"]

FIRST_STACK = 2.0
"""Seconds within which a process has to begin to write its stacks; one that is stopped or swapped out does not."""

QUIET = 0.05
"""Seconds without another byte after which the stacks are complete."""

PATIENCE = 5.0
"""Seconds within which a worker has to begin its profile, and to answer after its last look."""


def inspect(directory: str, pid: int, what: Inspection, arguments: Sequence[float] = ()) -> Any:
    """Return the stacks of the process; or its profile, of so many seconds and looks a second; or send a signal to it.

    `directory` is the private directory of the program, or of the node, that has the process. Blocks.

    Raises:
        SuitkaiseError: it cannot be done.
    """
    match what:
        case "stack":
            return stacks_of(stack_file(directory, pid), pid)
        case "profile":
            return profile_of(directory, pid, *arguments)
        case "signal":
            return send_signal(pid, int(arguments[0]))


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process. Raises SuitkaiseError where the system refuses it."""
    try:
        os.kill(pid, number)
    except OSError as error:
        raise SuitkaiseError(f"process {pid}: {error.strerror}") from None


def stacks_of(file: str, pid: int) -> str:
    """Return what process `pid` writes to the file when it is asked for its stacks, and leave the file empty.

    Raises:
        SuitkaiseError: it writes nothing in time.
    """
    try:
        with open(file, "r+b") as stacks:
            fcntl.flock(stacks, fcntl.LOCK_EX)  # observers that come at once take turns
            stacks.truncate(0)  # one of them may have been killed
            send_to_worker(pid, DUMP)
            try:
                _await_stacks(stacks, pid)
                return own_first(stacks.read().decode(errors="replace"))
            finally:
                stacks.truncate(0)
    except OSError as error:
        raise SuitkaiseError(f"process {pid} cannot be asked for its stacks: {error.strerror}") from None


def _await_stacks(stacks: BinaryIO, pid: int) -> None:
    """Wait until something is written to the file, and nothing more comes."""
    deadline = time.monotonic() + FIRST_STACK
    size, changed = 0, 0.0
    while size == 0 or time.monotonic() - changed < QUIET:
        if time.monotonic() >= deadline:
            if size:
                return
            raise SuitkaiseError(f"process {pid} has not written its stacks within {FIRST_STACK:g} s: is it stopped?")
        time.sleep(0.005)
        now = os.fstat(stacks.fileno())
        if not now.st_nlink:
            raise SuitkaiseError(f"process {pid} has ended meanwhile")
        if now.st_size != size:
            size, changed = now.st_size, time.monotonic()


def own_first(stacks: str) -> str:
    r"""Return the stacks with that of the worker's own thread, and its tasks, ahead of its other threads.

    `faulthandler` begins with the youngest thread.

    >>> own_first("Thread 0x2 (...):\n  a\n\nCurrent thread 0x1 (...):\n  b\n")
    'Current thread 0x1 (...):\n  b\n\nThread 0x2 (...):\n  a\n'
    """
    parts = stacks.strip("\n").split("\n\n")
    parts.sort(key=lambda part: 0 if part.startswith("Current thread") else 1 if part.startswith("Task ") else 2)
    return "\n\n".join(parts) + "\n" if stacks else ""


def send_to_worker(pid: int, number: int) -> None:
    """Send a signal that a worker's process handles.

    Raises:
        SuitkaiseError: the process does not handle it, and would be ended by it; or the system refuses it.
    """
    if has_default_action(number, pid):
        raise SuitkaiseError(f"process {pid} cannot be asked: it is no worker's, or it begins or ends just now")
    try:
        os.kill(pid, number)
    except OSError as error:
        raise SuitkaiseError(f"process {pid} cannot be asked: {error.strerror}") from None


def profile_of(directory: str, pid: int, seconds: float, rate: float) -> dict[str, Any]:
    """Have a worker's process sample its own threads for some seconds; Ctrl-C ends that earlier.

    Raises:
        SuitkaiseError: it cannot be done.
    """
    import json  # 1.5 ms, which a program pays only if it profiles

    with contextlib.ExitStack() as stack:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise SuitkaiseError(f"process {pid} cannot be asked: {error.strerror}") from None
        stack.callback(os.close, pidfd)
        worker = stack.enter_context(_connection(directory, pid, pidfd))
        try:
            worker.sendall(json.dumps({"seconds": seconds, "rate": rate}).encode() + b"\n")
            told: dict[str, Any] = json.loads(_receive(worker, pid, pidfd, time.monotonic() + seconds + PATIENCE))
            return told
        except OSError:
            raise SuitkaiseError("the worker has ended meanwhile") from None


def _connection(directory: str, pid: int, pidfd: int) -> socket.socket:
    """Have the worker connect to a socket here, and return its connection."""
    path = profile_socket(directory, pid)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        try:
            turn = os.open(stack_file(directory, pid), os.O_RDONLY | os.O_CLOEXEC)  # a file that the worker has anyway
            stack.callback(os.close, turn)
            fcntl.flock(turn, fcntl.LOCK_EX)  # the socket has one name: observers that come at once take turns
            with contextlib.suppress(FileNotFoundError):  # of a client that was killed
                os.unlink(path)
            bind_unix(listener, path)
            stack.callback(os.unlink, path)
            os.chmod(path, 0o600)
            listener.listen(1)
        except OSError as error:
            raise SuitkaiseError(f"process {pid} cannot be asked: {error.strerror}") from None
        send_to_worker(pid, PROFILE)
        if not _readable(listener, pidfd, PATIENCE):
            raise SuitkaiseError(
                f"process {pid} has not begun within {PATIENCE:g} s: it is stopped, runs as another user, or its main "
                "thread is in C code that does not return to Python; `suitkaise stack` shows where it is, and py-spy "
                "works nevertheless"
            )
        worker = blocking(listener.accept()[0])
        if not is_trusted(peer_of(worker)[1]):
            worker.close()
            raise SuitkaiseError(f"process {pid} does not run as this user")
        return worker


def _readable(sock: socket.socket, pidfd: int, seconds: float) -> bool:
    """Wait until there is input; return False after that time. Raises SuitkaiseError when the process has ended."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)]
    if pidfd in ready and sock.fileno() not in ready:
        raise SuitkaiseError("the worker has ended meanwhile")
    return bool(ready)


def _receive(worker: socket.socket, pid: int, pidfd: int, until: float) -> bytearray:
    """Receive the profile; Ctrl-C ends it earlier, and what there is then counts."""
    data = bytearray()
    while not data.endswith(b"\n"):
        try:
            if not _readable(worker, pidfd, until - time.monotonic()):
                raise SuitkaiseError(f"process {pid} does not answer: is it stopped?")
        except KeyboardInterrupt:
            worker.shutdown(socket.SHUT_WR)
            continue
        part = worker.recv(1 << 20)
        if not part:
            raise SuitkaiseError("the worker has ended meanwhile")
        data += part
    return data

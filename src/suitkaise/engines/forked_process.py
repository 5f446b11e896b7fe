"""The hub's side of one forked process: its control connection, its start and its exit."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Protocol

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.keeper_liveness import PATIENCE
from suitkaise.engines.protocol import Announce, WorkerReport, decode_worker_report
from suitkaise.messaging import wire
from suitkaise.messaging.descriptor_codec import DescriptorOwner
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.descriptors import receive_descriptors
from suitkaise.platform.flag import Flag
from suitkaise.platform.inheritance import Inheritance
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.marks import worker_mark
from suitkaise.platform.processes import children, has_ended, kill_where
from suitkaise.platform.sockets import socket_pair

__all__ = ["ForkedProcess", "ProcessCallbacks"]

logger: QueuedLogger = QueuedLogger("suitkaise.processes")

_FIRST_READ = 1 << 16


class ProcessCallbacks(Protocol):
    """The owner of a forked process: a worker's handle, or a spare. Called in the reactor's thread."""

    def first_frame(self) -> tuple[bytes, list[DescriptorOwner]]:
        """Return the first frame for the process, and the objects whose descriptors go with it (any thread)."""
        ...

    def on_flushed(self) -> None:
        """Frames that waited to be sent were sent."""

    def on_started(self) -> None:
        """The process exists."""

    def on_frame(self, report: WorkerReport, payload: bytes) -> None:
        """The process has sent a frame."""

    def on_exit(self, code: int | None) -> None:
        """The process has ended, with this exit code: negative for a signal, None if unknown."""

    def on_spawn_failed(self, error: str) -> None:
        """There is no process, and there will be none."""

    def kill(self, why: str) -> None:
        """End the process, for this reason."""


class ForkedProcess:
    """A process that the keeper forks, or has forked. Any thread may send; the reactor's thread reads.

    Args:
        context: the program.
        keeper: forks the process.
        path: the worker's path, for errors.
        grace: seconds that the process may take to end when the program is gone.
        stops_last: whether the process ends after all others then.
        keep_children: whether to leave alone what the process has started, when it ends.
        callbacks: the owner of the process.
        slot: the index of its slot on the status board; -1: it has none yet.
    """

    def __init__(
        self,
        context: EngineContext,
        keeper: KeeperClient,
        path: str,
        grace: float,
        stops_last: bool,
        keep_children: bool,
        callbacks: ProcessCallbacks,
        slot: int = -1,
    ) -> None:
        self.number: int = 0
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.dead: bool = False
        self.stopping: bool = False
        self.inherited: Inheritance = {}  # from its keeper
        self.grace: float = grace
        self.stops_last: bool = stops_last
        self.keep_children: bool = keep_children
        self.slot: int = slot
        self._context = context
        self._keeper = keeper
        self._path = path
        self._callbacks = callbacks
        self._lock = RLock()  # a signal handler may send a signal, too
        self._buffer: SendBuffer | None = None
        self._parser = _parser()
        self._announced_pidfd: int | None = None  # received with `Announce`, until that frame is handled
        self._exit_code: int | None = None
        self._exit_code_lost = False
        self._closed = False
        self.reaped: Flag | None = None
        """Set when nothing is left of a process whose end was reported before that; None: of any other one."""

    # ------------------------------------------------------------ from any thread
    def start(self) -> None:
        """Ask the keeper for the process; a failure is reported to the callbacks."""
        try:
            self._keeper.spawn(self)
        except OSError as error:  # for example no descriptor is left
            self.spawn_failed(str(error))
        except Exception as error:  # for example no memory is left
            self.spawn_failed(f"{type(error).__name__}: {error}")

    @property
    def is_requested(self) -> bool:
        """Whether the process was requested; before that nothing can be sent to it."""
        return self._buffer is not None

    def send(self, data: bytes | Pieces, *, force: bool = False) -> None:
        """Send an encoded frame, now or when the process exists.

        Raises:
            MailboxFull: too much waits; nothing of this is sent. Not with `force`.
        """
        assert self._buffer is not None
        self._buffer.write(data, force=force)

    def pass_on(self, data: bytes, descriptor: int) -> bool:
        """Send an encoded frame with a descriptor, if that is possible now; return whether it was sent."""
        return self._buffer is not None and self._buffer.pass_on(data, descriptor)

    def catch_up(self) -> None:
        """Handle the frames that the process has sent so far (reactor's thread)."""
        if self._buffer is not None and self.pid is not None and not self._closed:
            self._on_readable()

    def signal(self, number: int) -> None:
        """Send the process a signal, if it exists; one that has not announced itself gets it from the keeper."""
        with self._lock:
            unknown = self.pid is None and not self._closed
            if self.pidfd is not None:
                try:
                    signal.pidfd_send_signal(self.pidfd, number)
                except ProcessLookupError:
                    pass
                except PermissionError:  # this program has changed its user since then; the keeper has not
                    self._keeper.signal(self.number, number)
        if unknown and self.number:  # without the lock, which the keeper's client takes inside of its own
            self._keeper.signal(self.number, number)

    def end_children(self) -> None:
        """Give the processes that the process has left behind no more time."""
        if self.dead:
            self._keeper.signal(self.number, signal.SIGKILL)

    def hand_over(self, callbacks: ProcessCallbacks) -> bool:
        """Give the process to another owner; return False if the process does not exist (any more)."""
        with self._lock:
            if self.pidfd is None or has_ended(self.pidfd):
                return False
            self._callbacks = callbacks
            return True

    # ------------------------------------------------------------ the start (called by the keeper's client)
    def connect(self) -> socket.socket:
        """Make the control connection; return the process's end.

        All that is sent waits until the process has got its first frame and has announced itself.
        """
        ours, theirs = socket_pair()
        ours.setblocking(False)
        buffer = SendBuffer(self._context.reactor, ours, self._path, self._on_readable)
        with self._lock:
            if self._buffer is not None:
                buffer.take_over(self._buffer)
            self._buffer = buffer
        self._parser = _parser()
        return theirs

    def send_first_frame(self) -> None:
        """Send the first frame, which is made while the keeper and the process wake up."""
        assert self._buffer is not None
        self.inherited = self._keeper.inherited
        first, owners = self._callbacks.first_frame()
        self._context.unannounced[self] = self._read_announcement  # now, since the process may ask the hub from now on
        self._buffer.begin(first, owners)

    def resume_reading(self) -> None:
        """Start to read the control connection, or resume it."""
        assert self._buffer is not None
        self._buffer.resume_reading()

    def pause_reading(self) -> None:
        """Pause reading the control connection, until `resume_reading`."""
        assert self._buffer is not None
        self._buffer.pause_reading()

    def _read_announcement(self) -> None:
        """Handle what the process has sent, if it has announced itself (reactor's thread)."""
        if self.pid is None and not self._closed:
            self._on_readable()

    def _on_announced(self, pid: int) -> None:
        pidfd, self._announced_pidfd = self._announced_pidfd, None
        if pidfd is None:  # the kernel dropped the descriptor on the way
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.spawn_failed("this program has no file descriptor left")
            return
        with self._lock:
            self.pid, self.pidfd = pid, pidfd
            self._context.paths_by_pid[pid] = self._path
            self._context.unannounced.pop(self, None)
            assert self._buffer is not None
            self._buffer.uncork()
        self._callbacks.on_flushed()
        self._callbacks.on_started()
        self._keeper.mark_alive()
        self._context.reserve.refill()
        self._context.reactor.add_reader(pidfd, self._on_death)

    def cancel_spawn(self) -> bool:
        """Return whether the dead keeper has forked no process for this request that could still start.

        The connection is shut down for reading, so a process that has not announced itself by now never can, and ends,
        or is killed: it may be stopped (SIGSTOP).
        """
        assert self._buffer is not None
        self._on_readable()
        if self.pid is not None or self._closed:
            return False
        with contextlib.suppress(OSError):
            self._buffer.sock.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError, wire.WireError):
            self._receive()
        pidfd, self._announced_pidfd = self._announced_pidfd, None
        if pidfd is not None:  # the process announced itself in between, but can send nothing more
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            has_ended(pidfd, None)
            os.close(pidfd)
        kill_where(worker_mark(self._context.directory, self.number, kept=True))
        self._context.reactor.remove_reader(self._buffer)
        return True

    def spawn_failed(self, error: str) -> None:
        """Close the connection and report that there is no process."""
        if self._close():
            self._callbacks.on_spawn_failed(error)

    # ------------------------------------------------------------ frames from the process (reactor's thread)
    def _on_readable(self) -> None:
        assert self._buffer is not None
        if self._buffer.flush():
            self._callbacks.on_flushed()
        try:
            frames = self._receive()
        except BlockingIOError:
            return
        except (wire.PeerClosed, OSError):
            self._context.reactor.remove_reader(self._buffer)  # the pidfd or the keeper reports the process's end
            return
        except wire.WireError as error:
            self._context.reactor.remove_reader(self._buffer)
            no_memory = isinstance(error, wire.NoMemory)
            what = (
                "the program has no memory for what it has sent"
                if no_memory
                else "invalid data from the worker's process"
            )
            self._callbacks.kill(f"{what}: {error}")
            return
        for frame in frames:
            self._handle(frame)

    def _receive(self) -> list[wire.Frame]:
        assert self._buffer is not None
        if self.pid is not None:
            return self._parser.receive(self._buffer.sock)
        data, descriptors = receive_descriptors(self._buffer.sock, _FIRST_READ, 1)
        if not data:
            raise wire.PeerClosed("the process ended before it announced itself")
        if descriptors:
            self._announced_pidfd = descriptors[0]
        return self._parser.feed(data)

    def _handle(self, frame: wire.Frame) -> None:
        report, payload = frame
        if isinstance(report, Announce):
            self._on_announced(report.pid)
        else:
            self._callbacks.on_frame(report, payload)

    # ------------------------------------------------------------ the exit (reactor's thread)
    def _on_death(self) -> None:
        with self._lock:
            self.dead = True
            pidfd, self.pidfd = self.pidfd, None
        assert pidfd is not None
        self._context.reactor.remove_reader(pidfd)
        os.close(pidfd)
        if self._closed:  # its end was reported before
            self._keeper.forget(self)
        if self._exit_code is not None or self._exit_code_lost:
            self._finish()
        else:
            self._keeper.expect_reply()

    def leaves_anything(self) -> bool:
        """Return whether a process that can run no code any more leaves processes behind, which the keeper ends."""
        if self.pid is None or self.keep_children:
            return False
        if any(children(self.pid)):  # first: an orphan moves from here to the keeper
            return True
        known = self._context.paths_by_pid
        has_mark = worker_mark(self._context.directory, self.number)
        return any(has_mark(pid) for pid in children(self._keeper.pid) if pid not in known)

    def end_early(self, code: int) -> None:
        """Report the exit of a process that can run no code any more; the keeper reaps it later (reactor's thread)."""
        if self._exit_code is None and not self._exit_code_lost:
            self.reaped = Flag()
        self._exit_code = code
        self._finish()

    def exit_status(self, code: int) -> None:
        """Take the exit status from the keeper: negative for a signal."""
        if self._closed and self._exit_code not in (code, None):
            logger.error("process %s was reported with exit code %s, and had %s", self.pid, self._exit_code, code)
        self._exit_code = code
        self._note_reaped()
        if self.pid is None:  # the process may have announced itself just before its end
            self._on_readable()
        if self.dead or self.pid is None:
            self._finish()

    def exit_status_lost(self) -> None:
        """Do without the exit status: the keeper that would have read it is gone."""
        self._exit_code_lost = True
        self._note_reaped()
        if self.dead:
            self._finish()

    def _note_reaped(self) -> None:
        if self.reaped is not None:
            self.reaped.set()

    def kill_unwatched(self) -> None:
        """Kill the process and report its end without waiting for an event: the I/O thread has ended."""
        self._note_reaped()  # what will be known of it is known: no reply of the keeper is read any more
        self.signal(signal.SIGKILL)
        if self.pid is None:
            self.spawn_failed("the I/O thread of this program has ended")
        elif self.pidfd is not None:
            has_ended(self.pidfd, PATIENCE)
            self._exit_code_lost = True
            self._on_death()
        else:
            self.exit_status_lost()

    def drain(self) -> None:
        """Handle all frames that the process has sent; it sends no more (reactor's thread)."""
        assert self._buffer is not None
        if self.pid is not None:
            with contextlib.suppress(BlockingIOError, wire.PeerClosed, wire.WireError, OSError):
                while True:  # the last frames are in the socket, even if another process holds the other end open
                    for frame in self._parser.receive(self._buffer.sock):
                        self._handle(frame)

    def _finish(self) -> None:
        self.drain()
        if self._close():
            self._callbacks.on_exit(self._exit_code)

    def _close(self) -> bool:
        """Close the connection; return False if it was closed before."""
        self._context.unannounced.pop(self, None)
        if self._closed:
            return False
        self._closed = True
        if self.pid is not None:
            self._context.paths_by_pid.pop(self.pid, None)
        if self._buffer is not None:
            self._buffer.close()
        self._keeper.forget(self)
        return True

    def close_after_fork(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        if self._buffer is not None:
            self._buffer.sock.close()
        if self.pidfd is not None:
            os.close(self.pidfd)


def _parser() -> wire.Parser:
    # A header may be long: it holds an error, or a line of a log.
    return wire.Parser(max_header=wire.MAX_PAYLOAD, decode=decode_worker_report, lends=True)

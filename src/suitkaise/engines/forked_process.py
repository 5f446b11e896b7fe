"""One forked process, as the hub sees it: the control connection, the birth and the death; whoever lives in it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Protocol

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.keeper_client import PATIENCE, KeeperClient
from suitkaise.messaging import wire
from suitkaise.messaging.connection import SendBuffer
from suitkaise.platform.processes import has_ended

__all__ = ["ForkedProcess", "ProcessCallbacks"]

_FIRST = 1 << 16


class ProcessCallbacks(Protocol):
    """Who lives in a process, or is to. It is called in the reactor's thread."""

    def first_frame(self) -> tuple[bytes, list[socket.socket]]:
        """The first frame for its process, and the sockets that go with it (any thread)."""
        ...

    def on_flushed(self) -> None:
        """What waited was sent."""

    def on_started(self) -> None:
        """The process is there."""

    def on_frame(self, frame: wire.Frame) -> None:
        """The process says something."""

    def on_exit(self, code: int | None) -> None:
        """The process is gone; its exit code, negative for a signal; None if nobody could read it."""

    def on_spawn_failed(self, error: str) -> None:
        """There is no process, and there will be none."""

    def kill(self, why: str) -> None:
        """It must go."""


class ForkedProcess:
    """A process that the keeper forks, or has forked. Any thread may send; the reactor's thread takes in what it says.

    Args:
        site: the program.
        link: to the keeper.
        path: whose it is, for errors.
        grace: seconds that it may take to finish when the program is gone.
        last: whether it is to go last of all, then.
        resident: who lives in it.
    """

    def __init__(
        self, site: EngineContext, link: KeeperClient, path: str, grace: float, last: bool, resident: ProcessCallbacks
    ) -> None:
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.dead: bool = False
        self.grace: float = grace
        self.last: bool = last
        self._site = site
        self._link = link
        self._path = path
        self._resident = resident
        self._lock = threading.Lock()
        self._outbox: SendBuffer | None = None
        self._parser = _parser()
        self._brought: int | None = None  # the pidfd that came with its first word
        self._code: int | None = None
        self._status_lost = False
        self._over = False

    # ------------------------------------------------------------ from any thread
    def start(self) -> None:
        """Ask the keeper for it; what goes wrong is told to the resident."""
        try:
            self._link.spawn(self)
        except OSError as error:  # no descriptor is left, say
            self.spawn_failed(str(error))

    def send(self, data: bytes, *, force: bool = False) -> None:
        """Send it a frame, now or when it is there.

        Raises:
            MailboxFull: too much waits; nothing of this is sent. Not with `force`.
        """
        assert self._outbox is not None
        self._outbox.write(data, force=force)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with self._lock:
            if self.pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, number)

    def hand_over(self, resident: ProcessCallbacks) -> bool:
        """From now on somebody else lives in it; False if it is not there (any more)."""
        with self._lock:
            if self.pidfd is None or has_ended(self.pidfd):
                return False
            self._resident = resident
            return True

    # ------------------------------------------------------------ birth (called by the link)
    def connect(self) -> socket.socket:
        """Make the control connection, and put the luggage into it; returns the process's end.

        Whatever else is sent waits until the process has said that it is there.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        outbox = SendBuffer(self._site.reactor, ours, self._path, self._on_readable)
        with self._lock:
            old, self._outbox = self._outbox, outbox
            if old is not None:
                outbox.take_over(old)
        self._parser = _parser()
        try:
            outbox.begin(*self._resident.first_frame())
        except BaseException:
            theirs.close()
            raise
        return theirs

    def resume_reading(self) -> None:
        """Begin to listen to it."""
        assert self._outbox is not None
        self._outbox.resume_reading()

    def pause_reading(self) -> None:
        """Do not listen to it for a while, until `resume_reading`."""
        assert self._outbox is not None
        self._outbox.pause_reading()

    def _be_born(self, pid: int, pidfd: int | None) -> None:
        if pidfd is None:  # the kernel dropped it on the way
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.spawn_failed("this program has no file descriptor left")
            return
        with self._lock:
            self.pid, self.pidfd = pid, pidfd
            assert self._outbox is not None
            self._outbox.uncork()
        self._resident.on_flushed()
        self._resident.on_started()
        self._link.mark_alive()
        self._site.reactor.add_reader(pidfd, self._on_death)

    def cancel_spawn(self) -> bool:
        """The keeper is gone: whether there is no process yet, nor ever will be from what the keeper was asked."""
        assert self._outbox is not None
        self._on_readable()
        if self.pid is not None or self._over:
            return False
        with contextlib.suppress(OSError):
            self._outbox.sock.shutdown(socket.SHUT_RD)  # from here on it cannot say that it is there, and ends
        with contextlib.suppress(OSError, wire.WireError):
            self._receive()
        pidfd, self._brought = self._brought, None
        if pidfd is not None:  # it has just said so, but could not say anything more
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            has_ended(pidfd, None)
            os.close(pidfd)
        self._site.reactor.remove_reader(self._outbox)
        return True

    def spawn_failed(self, error: str) -> None:
        """There is no process, and there will be none."""
        if self._end():
            self._resident.on_spawn_failed(error)

    # ------------------------------------------------------------ what it says (reactor's thread)
    def _on_readable(self) -> None:
        assert self._outbox is not None
        if self._outbox.flush():
            self._resident.on_flushed()
        try:
            frames = self._receive()
        except BlockingIOError:
            return
        except (wire.PeerClosed, OSError):
            self._site.reactor.remove_reader(self._outbox)  # its death is told by the pidfd, or by the keeper
            return
        except wire.WireError as error:
            self._site.reactor.remove_reader(self._outbox)
            self._resident.kill(f"it talked nonsense: {error}")
            return
        for frame in frames:
            self._take(frame)

    def _receive(self) -> list[wire.Frame]:
        assert self._outbox is not None
        if self.pid is not None:
            return self._parser.receive(self._outbox.sock)
        data, descriptors, _, _ = socket.recv_fds(self._outbox.sock, _FIRST, 1)
        if not data:
            raise wire.PeerClosed("it ended before it was there")
        if descriptors:
            self._brought = descriptors[0]
        return self._parser.feed(data)

    def _take(self, frame: wire.Frame) -> None:
        match frame[0]:
            case ("born", int(pid)):
                pidfd, self._brought = self._brought, None
                self._be_born(pid, pidfd)
            case _:
                self._resident.on_frame(frame)

    # ------------------------------------------------------------ death (reactor's thread)
    def _on_death(self) -> None:
        with self._lock:
            self.dead = True
            pidfd, self.pidfd = self.pidfd, None
        assert pidfd is not None
        self._site.reactor.remove_reader(pidfd)
        os.close(pidfd)
        if self._code is not None or self._status_lost:
            self._leave()
        else:
            self._link.expect_reply()

    def status(self, code: int) -> None:
        """The keeper has read its exit status: negative for a signal."""
        self._code = code
        if self.pid is None:  # was it ever there?
            self._on_readable()
        if self.dead or self.pid is None:
            self._leave()

    def status_lost(self) -> None:
        """The keeper is gone, so nobody will read its exit status."""
        self._status_lost = True
        if self.dead:
            self._leave()

    def abandon(self) -> None:
        """Nobody can listen to it any more: it is killed, and counts as ended."""
        self.signal(signal.SIGKILL)
        if self.pid is None:
            self.spawn_failed("nobody can listen to it")
        elif self.pidfd is not None:
            has_ended(self.pidfd, PATIENCE)
            self._status_lost = True
            self._on_death()
        else:
            self.status_lost()

    def _leave(self) -> None:
        assert self._outbox is not None
        if self.pid is not None:
            with contextlib.suppress(BlockingIOError, wire.PeerClosed, wire.WireError, OSError):
                while True:  # its last words are in the socket, whoever else may hold the other end open
                    for frame in self._parser.receive(self._outbox.sock):
                        self._take(frame)
        if self._end():
            self._resident.on_exit(self._code)

    def _end(self) -> bool:
        """Close the connection; whether this was the time."""
        if self._over:
            return False
        self._over = True
        if self._outbox is not None:
            self._outbox.close()
        self._link.gone(self)
        return True

    def drop(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        if self._outbox is not None:
            self._outbox.sock.close()
        if self.pidfd is not None:
            os.close(self.pidfd)


def _parser() -> wire.Parser:
    return wire.Parser(max_header=wire.MAX_PAYLOAD)  # a header may hold an error, or a line of a log

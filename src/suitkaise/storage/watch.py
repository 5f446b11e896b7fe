"""Watching a part of the tree: the storage actor sends each change once it is committed.

A watch has a connection of its own, and the thread that waits for a change reads from it: so a watch that nobody reads
holds nothing but a socket's buffer. When the storage actor is restarted, the watch connects again and names the last
revision that it has received.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from suitkaise.errors import StorageError, StorageGone
from suitkaise.messaging import wire
from suitkaise.messaging.answer import checked_timeout
from suitkaise.messaging.identity import Stoppable, stoppable
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import DaemonThread
from suitkaise.specs.signatures import is_async_function, misfit
from suitkaise.storage.client import CONNECTION_LOST, await_input, open_socket
from suitkaise.storage.history import KINDS, Change
from suitkaise.storage.pipeline import RETRY_AFTER
from suitkaise.storage.protocol import VERSION, Changes, decode_answer
from suitkaise.storage.protocol import Watch as Subscription

__all__ = ["Change", "Watch", "check_callback", "close_watches"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

_MOMENT = 0.05  # seconds for which an event loop may be held up: only if 1,024 connections wait already

MOST_WATCHES = 320
"""Open watches that a process may have of a storage: each has a connection, and the actor takes 500 of a process."""

_END_OF_CALLBACK = 5.0
"""Seconds for which `close` waits for a callback that is running."""


class Watch:
    """The changes at and below a path, one after the other: `tree.watch` makes it.

    Iterate over it, with `for` or `async for`, or call `get`. While its reader keeps up, every change is an event. For
    a reader that lags behind, the changes of each entry are merged into one; if it lags too far, the changes are
    left out, and a `Change` of the kind "overflow" tells the reader to read everything anew. One thread or
    task reads a watch. The iteration ends when the watch is closed, as `disconnect` does too; in a worker, also when
    the worker is asked to stop.
    """

    def __init__(self, directory: str, path: str, since: int | None, timeout: float) -> None:
        """Subscribe: the watch reports every change after this.

        Args:
            directory: the storage's directory.
            path: the container to watch, with all containers below it.
            since: the revision that has been seen already; None: the present one.
            timeout: how many seconds the storage may take to answer.

        Raises:
            StorageError: the storage did not answer; or this process has 320 watches of it already.
        """
        self.path: str = path
        self._directory = directory
        self._timeout = timeout
        self._ready: deque[Change] = deque()
        self._received = since  # the revision up to which all changes have been received
        self._seen = since
        self._sock: socket.socket | None = None
        self._parser = wire.Parser(decode=decode_answer)
        self._answered = False  # on this connection
        self._closed = False
        self._reading = threading.Lock()
        self._reader: int | None = None  # the thread that has it
        self._thread: DaemonThread | None = None
        _register(self)
        with self._reading:
            deadline = time.monotonic() + timeout
            try:
                while not (self._answered or self._closed):
                    self._receive(deadline)
            except BaseException as error:
                self._closed = True
                self._lose_connection()
                if not isinstance(error, TimeoutError):
                    raise
                raise StorageError(
                    f"the storage in {directory} did not answer the watch of {path!r} within {timeout:g} seconds"
                ) from None
        if self._closed:  # by another thread meanwhile
            self._close_unread()
        if since is None:
            self._seen = self._received

    def __del__(self) -> None:
        sock = getattr(self, "_sock", None)
        if sock is not None:
            sock.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a watch belongs to the process that has opened it; call tree.watch in the other one")

    @property
    def revision(self) -> int:
        """The revision up to which all changes have been handed out; pass it as `since` to go on from there."""
        if not self._ready and self._received is not None:
            return self._received
        return self._seen or 0

    def get(self, timeout: float | None = None) -> Change:
        """Wait for the next change.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            TimeoutError: there was no change within the timeout.
            TypeError: the timeout is no number.
            StorageError: the watch is closed, or the program that owned the storage has ended.
            RuntimeError: the watch has a callback, which gets the changes; or this thread is reading it already.
        """
        change = self._next(checked_timeout(timeout))
        if change is None:
            raise StorageError(f"the watch of {self.path!r} is closed")
        return change

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        change = self._next(None, stoppable())
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        self._refuse_beside_callback()
        if not self._reading.acquire(blocking=False):
            raise RuntimeError("another thread or task is reading this watch; give each a watch of its own")
        self._reader = threading.get_ident()
        try:
            while not self._closed:
                worker = stoppable()
                if worker is not None and not worker.wait_for_input(None):
                    break
                if self._ready:
                    return self._hand_out()
                await self._receive_async(worker)
            raise StopAsyncIteration
        finally:
            self._end_read()

    def close(self) -> None:
        """End the watch. A thread that waits for a change is woken, and a callback is not called again."""
        self._closed = True
        self._shut_down()
        thread = self._thread
        if thread is not None and not thread.is_current():
            thread.join(_END_OF_CALLBACK)
        else:
            self._close_unread()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, callback: Callable[[Change], object]) -> None:
        """Call `callback` with each change, in a thread of its own, until the watch is closed."""
        check_callback(callback)
        name = f"suitkaise-watch-{self.path or 'root'}"
        self._thread = thread = DaemonThread(target=self._call, args=(callback,), name=name)
        try:
            thread.start()
        except BaseException:  # no thread is left
            self._thread = None
            self.close()
            raise

    def _call(self, callback: Callable[[Change], object]) -> None:
        try:
            while (change := self._next(None)) is not None:
                try:
                    callback(change)
                except BaseException:  # `sys.exit()` in it must not end the watch
                    logger.exception("the callback of the watch of %r failed on %r", self.path, change)
        except StorageGone:  # with the program, and so with all that could change
            pass
        except StorageError as error:
            logger.error("the watch of %r has ended: %s", self.path, error)
        finally:
            self.close()

    def _next(self, timeout: float | None, worker: Stoppable | None = None) -> Change | None:
        """Return the next change; None once the watch is closed, or as soon as this `worker` is asked to stop."""
        self._refuse_beside_callback()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._reader == threading.get_ident():
            raise RuntimeError(
                f"the code that this signal handler interrupts, or another task of this thread, is reading the watch "
                f"of {self.path!r}; give it a watch of its own"
            )
        if not self._reading.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise TimeoutError(f"another thread is reading the watch of {self.path!r}")
        self._reader = threading.get_ident()
        try:
            while not self._closed:
                if worker is not None and not worker.wait_for_input(None):
                    return None
                if self._ready:
                    return self._hand_out()
                self._receive(deadline, worker)
            return None
        finally:
            self._end_read()

    def _refuse_beside_callback(self) -> None:
        """Raise RuntimeError for a reader of a watch with a callback: it would wait for ever, or take changes away."""
        if self._thread is not None and not self._thread.is_current() and not self._closed:
            raise RuntimeError(
                f"the callback of the watch of {self.path!r} gets its changes; open another watch to read"
            )

    def _hand_out(self) -> Change:
        change = self._ready.popleft()
        self._seen = change.revision
        return change

    def _receive(self, deadline: float | None, worker: Stoppable | None = None) -> None:
        """Wait for bytes of the storage actor until `deadline`; connect first if necessary.

        With a `worker`, return without any as soon as the worker has something else to do.
        """
        try:
            if self._sock is None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._connect(self._timeout if left is None else min(left, self._timeout))
            assert self._sock is not None
            if worker is None:
                await_input(self._sock, deadline)
            else:
                worker.wait_for_input(self._sock.fileno())
            self._take(self._parser.receive(self._sock, socket.MSG_DONTWAIT))
        except CONNECTION_LOST as error:
            if wire.of_a_signal_handler(error):
                self._lose_connection()  # a frame may have been read in part
                raise
            if not isinstance(error, BlockingIOError):
                if not self._lose_connection():
                    time.sleep(RETRY_AFTER)
            elif deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"nothing at or below {self.path!r} changed in time") from None
        except BaseException:  # from a signal handler, likewise
            self._lose_connection()
            raise

    async def _receive_async(self, worker: Stoppable | None) -> None:
        """Do the same in an event loop."""
        import asyncio

        try:
            if self._sock is None:
                self._connect(_MOMENT)
            sock = self._sock
            assert sock is not None
            loop = asyncio.get_running_loop()
            readable = loop.create_future()
            loop.add_reader(sock, readable.cancel)
            try:
                if worker is None:
                    await asyncio.wait([readable])
                else:
                    await worker.wait_for_future(readable)
            finally:
                loop.remove_reader(sock)
            self._take(self._parser.receive(sock, socket.MSG_DONTWAIT))
        except CONNECTION_LOST as error:
            if wire.of_a_signal_handler(error):
                self._lose_connection()
                raise
            if not isinstance(error, BlockingIOError) and not self._lose_connection():
                await asyncio.sleep(RETRY_AFTER)

    def _connect(self, timeout: float) -> None:
        self._parser = wire.Parser(decode=decode_answer)
        self._answered = False
        self._sock = sock = open_socket(self._directory, timeout)
        if self._closed:
            self._shut_down()
        wire.send(sock, Subscription(VERSION, self.path, self._received))

    def _take(self, frames: list[wire.Frame]) -> None:
        for header, payload in frames:
            if not isinstance(header, Changes):
                raise wire.WireError(f"the storage actor sent {header!r} to a watch")
            if header.overflow:
                self._ready.append(Change(self.path, "", header.revision, "overflow"))
            for revision, kind, path, name in _decode(payload):
                self._ready.append(Change(path, name, revision, KINDS[kind]))
            self._received = header.revision
            self._answered = True

    def _lose_connection(self) -> bool:
        """Close the connection; return whether anything came on it. If not, trying again at once is of no use."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        return self._answered

    def _shut_down(self) -> None:
        """Wake the thread or task that waits for the socket."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _end_read(self) -> None:
        self._reader = None
        self._reading.release()
        if self._closed:  # perhaps only since the last look
            self._close_unread()

    def _close_unread(self) -> None:
        """Close the connection of a closed watch, unless somebody reads, who does that in the end."""
        if self._reading.acquire(blocking=False):
            self._lose_connection()
            self._reading.release()

    def _forked(self) -> None:
        """In a forked child: the connection and the thread are the parent's."""
        self._reading, self._reader = threading.Lock(), None
        self._lose_connection()
        if self._thread is not None:
            self._closed, self._thread = True, None


def close_watches(directory: str) -> None:
    """Close the watches of a storage in this process."""
    for watch in _watches_of(directory):
        watch.close()


def _register(watch: Watch) -> None:
    with _lock:
        if sum(not other._closed for other in _watches_of(watch._directory)) >= MOST_WATCHES:
            raise StorageError(
                f"this process has {MOST_WATCHES} watches of the storage, and may have no more, so {watch.path!r} is "
                "not watched: close some, or watch one path above many, which sees all changes below it",
                path=watch.path,
            )
        _watches[id(watch)] = watch


def _watches_of(directory: str) -> list[Watch]:
    return [watch for watch in _alive() if watch._directory == directory]


def _alive() -> list[Watch]:
    refs = _watches.valuerefs()  # taken at once: a signal handler may open another one meanwhile
    return [watch for ref in refs if (watch := ref()) is not None]


_watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()
_lock = RLock()
_decode: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list[tuple[int, int, str, str]]).decode


def _reset_after_fork() -> None:
    global _lock
    _lock = RLock()
    for watch in _alive():
        watch._forked()


after_fork_in_child(_reset_after_fork)


def check_callback(callback: Any) -> None:
    """Raise TypeError unless a watch can call this with each change."""
    if not callable(callback) or is_async_function(callback):
        is_async = ", whose calls nothing awaits; use `async for change in tree.watch(...)`"
        what = f"an async function{is_async}" if callable(callback) else repr(callback)
        raise TypeError(f"watch: callback must be a plain function of one change, not {what}")
    if why := misfit(callback, None):
        raise TypeError(f"watch: callback is called with one change, and {callback!r} is {why}")

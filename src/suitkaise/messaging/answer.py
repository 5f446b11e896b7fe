"""The answer to an ask: a future that finds deadlocks, and is decoded by the thread that reads it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, cast

from suitkaise.errors import AskTimeout, DeadlockError
from suitkaise.messaging.identity import (
    awaits_alone,
    current_path,
    handles_alone,
    is_hook,
    own_thread_of,
    reads_answers,
)
from suitkaise.messaging.messages import Payload, fails_again, undecodable
from suitkaise.platform.callbacks import run_callback
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.threads import DaemonThread
from suitkaise.specs.options import is_number

if TYPE_CHECKING:
    import asyncio

__all__ = ["DEFAULT_TIMEOUT", "STEP", "Answer", "checked_timeout", "refuse_own_ask", "refuse_reader"]

DEFAULT_TIMEOUT = 5.0
"""Seconds."""

STEP = 0.1
"""Seconds after which a worker's wait for an answer may be a part of a deadlock, and after which it looks again."""

HELD = 0.005
"""Seconds after which a lock of an answer may be held by a thread that a signal handler has interrupted."""

T = TypeVar("T")


def checked_timeout(timeout: float | None) -> float | None:
    """Validate a caller's timeout before any side effect (rule 45); return it in the form that locks accept.

    Raises:
        TypeError: it is neither a number nor None.
    """
    if timeout is None or timeout is DEFAULT_TIMEOUT:
        return timeout
    if not is_number(timeout):
        raise TypeError(f"timeout must be seconds, or None for ever, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


class Asked(Protocol):
    """A ref to the worker that was asked."""

    path: str

    def _timed_out(self, timeout: float | None) -> AskTimeout:
        """Return the error for an answer that has not come in time, with what the worker is doing."""
        ...


class _Undecoded(Exception):
    """Stands for an answer, or an error, that is not decoded yet: `_Undecoded(payload)`."""

    @property
    def payload(self) -> Payload:
        """The encoded answer or error."""
        return cast("Payload", self.args[0])


_OPEN = ("PENDING", "RUNNING")
"""The states of a future without a result."""


class Answer(OwnFuture[T], Generic[T]):
    """The answer to an ask: wait for it with `get(timeout=...)`, or `await` it.

    It is a `concurrent.futures.Future`, so `result`, `add_done_callback` and `as_completed` work too. An answer from
    another process is decoded in the thread that first reads it.

    Callbacks of `add_done_callback` run one after the other, in a thread of their own: one that takes long delays
    others, and nothing else (rule 76). A callback that is added to a finished answer runs at once.

    >>> from suitkaise import Supervisor, Thread
    >>> class Count(Thread):
    ...     def on_receive(self, line: str) -> int:
    ...         return len(line.split())
    >>> with Supervisor("app", Count).start() as running:
    ...     answers = [running["count"].ask_future(line) for line in ("to be", "or not to be")]
    ...     print([answer.get(timeout=10.0) for answer in answers])
    [2, 4]
    """

    asked: Asked | None = None
    """The worker that was asked; None for another request."""

    waits_for: tuple[str, str] | None = None
    """For a request that waits for a worker: what the request does to it, and its path."""

    began: float | None = None
    """When it was asked for (monotonic), where a worker may wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[threading.Lock] = []  # each is released to wake a thread
        self._late = False  # it is settled already, and is set by a thread of its own

    def done(self) -> bool:
        """Do what `concurrent.futures.Future.done` does, without its lock."""
        return self._state not in _OPEN

    def cancel(self) -> bool:
        """Do what `concurrent.futures.Future.cancel` does, and end the `wait` and `as_completed` of others."""
        if not super().cancel():
            return False
        with self._condition:
            if self._state == "CANCELLED":  # else another thread has told those that wait
                self.set_running_or_notify_cancel()
        return True

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn(answer)` in the thread for callbacks when the answer is there, or at once if it is there already.

        Raises:
            TypeError: this is `asyncio.wait`, which would wait for ever.
        """
        if getattr(fn, "__module__", "") == "asyncio.tasks":
            raise TypeError("asyncio.wait takes tasks, and an answer is none; give it asyncio.ensure_future(answer)")
        if self.done() or getattr(fn, "__module__", "") == "asyncio.futures":  # which only wakes its event loop
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: run_callback(lambda: fn(done)))

    def when_done(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn(answer)`, which must not wait for anything, in the thread that sets the answer."""
        super().add_done_callback(fn)

    def get(self, timeout: float | None = DEFAULT_TIMEOUT) -> T:
        """Wait at most `timeout` seconds (default 5.0; None: for ever) for the answer.

        Raises:
            AskTimeout: no answer came in time; the error tells what the worker is doing. The worker still handles the
                message, and `get` may be called again.
            WorkerDead: the worker died before it answered.
            Exception: what the handler raised.
        """
        self._wait_for(checked_timeout(timeout))
        if self.done():
            return self.result(0)
        if self.asked is None:
            raise AskTimeout(f"no answer within {timeout} s")
        raise self.asked._timed_out(timeout)

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # takes 35 ms: only an `await` pays for it

        self._refuse_deadlock(awaits=True)
        if self.asked is None or self.done() or not is_hook():
            return asyncio.wrap_future(self).__await__()
        return self._await_in_hook(asyncio.get_running_loop())

    def _await_in_hook(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, None, T]:
        """Wait in an async hook, where a deadlock is to be found. A worker handles no message meanwhile.

        Raises:
            DeadlockError: the answer cannot come, as workers wait for each other.
        """
        import asyncio

        from suitkaise.messaging.deadlocks import Watch  # which needs the router, and that needs answers

        assert self.asked is not None
        come: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not come.done():
                come.set_result(None)

        def on_done(done: object) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(wake)

        self.when_done(on_done)
        watch = Watch(come, self, self.asked.path)
        try:
            yield from come
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            watch.end()
        if self.cancelled():
            raise asyncio.CancelledError
        self._decode()
        if self._exception is None:
            result: T = self._result
            return result
        error = self.exception(0)
        assert error is not None
        raise error

    def _refuse_deadlock(self, timeout: float | None = None, *, awaits: bool = False) -> None:
        if timeout == 0 or self.done():
            return
        refuse_reader()
        if self.asked is not None and (not awaits or awaits_alone()):
            refuse_own_ask(self.asked.path)

    def result(self, timeout: float | None = None) -> T:
        """Do what `concurrent.futures.Future.result` does. Raises TypeError if the timeout is no number."""
        self._wait_for(checked_timeout(timeout))
        self._decode_in_time()
        error = self._exception
        if error is not None:  # `Future.result` asks whether it is true, and an exception may have a length of 0
            raise error
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Do what `concurrent.futures.Future.exception` does, but return a RuntimeError for a StopIteration (PEP 479).

        An event loop calls it, takes no StopIteration before Python 3.12, and would never end the `await`.

        Raises:
            TypeError: the timeout is no number.
        """
        timeout = checked_timeout(timeout)
        self._refuse_deadlock(timeout)
        if not self.done():
            self._wait(self._await(timeout))
        self._decode_in_time()
        error = super().exception(0)
        if not isinstance(error, StopIteration):
            return error
        stopped = RuntimeError("the handler raised StopIteration")
        stopped.__cause__ = error
        return stopped

    def _decode_in_time(self) -> None:
        """Decode the answer. Raise TimeoutError if it is not there; it may come undecoded at any moment."""
        if not self.done():
            raise TimeoutError
        self._decode()

    def _wait_for(self, timeout: float | None) -> None:
        self._refuse_deadlock(timeout)
        if not self._wait(STEP if timeout is None or timeout > STEP else timeout):
            self._wait_after_step(timeout)

    def _wait(self, seconds: float | None) -> bool:
        """Wait at most `seconds` (None: for ever) until the answer is there; return whether it is.

        A wait of `concurrent.futures.Future` begins and ends with the future's lock. A signal handler that interrupts
        this thread there would hold up the thread that sets the answer, and with it all answers that come by that
        thread, also one for which the handler waits. So this takes no lock.
        """
        if self.done():
            return True
        woken = threading.Lock()
        woken.acquire()
        self._waiting.append(woken)  # first: an answer that comes from now on wakes this thread
        try:
            most = -1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
            return self.done() or woken.acquire(timeout=most) or self.done()
        finally:
            self._waiting.remove(woken)

    def _invoke_callbacks(self) -> None:  # called when the answer has been set
        for woken in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):
                woken.release()
        super()._invoke_callbacks()  # type: ignore[misc]

    def _wait_after_step(self, timeout: float | None) -> bool:
        """Do the same after a first wait; only such a wait is looked at for a deadlock."""
        left = None if timeout is None else max(0.0, timeout - STEP)
        return self._wait(self._await(left) if left != 0.0 and not self.done() else left)

    def _await(self, timeout: float | None) -> float | None:
        """Wait where a deadlock is to be found; return the timeout that is left, or None for ever.

        Raises:
            DeadlockError: the answer cannot come, as workers wait for each other.
        """
        asked = ("asks", self.asked.path) if self.asked is not None else self.waits_for
        if asked is None or handles_alone() is None:
            return timeout
        from suitkaise.messaging.deadlocks import await_answer  # which needs the router, and that needs answers

        return None if await_answer(*asked, timeout, self._wait, self.began, 0.0) else 0.0

    def _get_snapshot(self) -> Any:  # asyncio calls it from Python 3.14 on
        if self.done() and not self.cancelled():
            self._decode()
        return super()._get_snapshot()  # type: ignore[misc]

    def _decode(self) -> None:
        """Decode the answer; if several threads do that at once, all of them use the first one's value."""
        ok = self._exception is None
        undecoded = self._result if ok else self._exception
        if not isinstance(undecoded, _Undecoded):
            return
        try:
            value = undecoded.payload.value
        except Exception as error:
            if not fails_again(undecoded.payload):
                raise
            ok, value = False, undecodable("the answer", undecoded.payload, error)
        with self._condition:
            if undecoded is self._exception or undecoded is self._result:
                self._exception, self._result = (None, value) if ok else (value, None)  # in this order

    def outcome(self) -> tuple[bool, Payload]:
        """Return (True, the answer) or (False, the error) of a finished one undecoded, to be passed on."""
        ok = self._exception is None
        raw = self._result if ok else self._exception
        return ok, raw.payload if isinstance(raw, _Undecoded) else Payload(raw)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an answer belongs to the process that has asked; send what its get() returns")

    def settle(self, ok: bool, payload: Payload) -> None:
        """Set the answer, or the error if not `ok`; ignore a second answer.

        A thread that adds a callback, cancels, or waits for several answers holds locks of this one for a moment. If a
        signal handler interrupts it there, they are held until the handler returns, and that may wait for the thread
        that calls this. So this waits for them 5 ms at most, and then a thread of its own does.
        """
        if self.done() or self._late:
            return
        value: Any = _Undecoded(payload) if payload.encoded else payload.value
        if self._is_held():
            self._late = True
            try:
                DaemonThread(target=self._set, name="suitkaise-answer", args=(ok, value)).start()
                return
            except (RuntimeError, MemoryError):  # no thread can be started
                pass
        self._set(ok, value)

    def _set(self, ok: bool, value: Any) -> None:
        try:
            if ok:
                self.set_result(value)
            else:
                self.set_exception(value)
        except concurrent.futures.InvalidStateError:  # lost a race against another answer
            return

    def _is_held(self) -> bool:
        """Return whether another thread goes on holding a lock that setting the answer takes."""
        condition = self._condition
        if not (condition.acquire(False) or condition.acquire(timeout=HELD)):
            return True
        try:
            return bool(self._waiters) and any(map(_holds_lock, self._waiters))
        finally:
            condition.release()


def _holds_lock(waiter: Any) -> bool:
    """Return whether a lock of a `concurrent.futures.wait` or `as_completed` is held."""
    locks = getattr(waiter, "lock", None), getattr(waiter.event, "_cond", None)
    for lock in locks:
        if lock is not None:
            if not lock.acquire(timeout=HELD):
                return True
            lock.release()
    return False


def refuse_reader() -> None:
    """Raise DeadlockError if this thread reads the answers of the hub, and so must not wait for any."""
    if reads_answers():
        raise DeadlockError("the thread that reads answers cannot wait for one; a `__del__` can only `tell`")


def refuse_own_ask(path: str) -> None:
    """Raise DeadlockError if this thread must not wait for an answer of the worker at `path`."""
    own = own_thread_of()
    if not own.startswith(path):  # a background thread has a path below that of its worker
        return
    if own == path:
        raise DeadlockError(f"{own!r} asks itself, and would wait for its own answer for ever", path=path)
    if current_path() == path:
        raise DeadlockError(
            f"{own!r} asks {path!r}: a background thread cannot wait for its worker, which waits for it at the end; "
            f"tell it, and have it tell the answer",
            path=path,
        )

"""The way of our own log records to `logging`: over a queue to one thread, so that nothing else waits for a handler.

A handler of the application's may block for ever: nobody reads its pipe, the terminal is stopped by Ctrl-S, a lock is
never released. While a queue is open, records are handed to the handlers in its thread; a full queue drops records,
counts them, and tells the number in one line when there is room again. Without an open queue (in worker processes,
before the first tree, after the last) a record goes to the handlers directly.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from suitkaise.escapes import escaped
from suitkaise.platform.blocked_streams import MOMENT, leave_streams, shield_streams
from suitkaise.platform.flag import Flag
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import OwnThread

__all__ = ["PATIENCE", "LogQueue", "QueuedLogger", "always_enabled"]

PATIENCE = 1.0
"""Seconds, at most, for which the end of a tree waits for the handlers."""

LATER = 0.005
"""Seconds between a record and the handlers, after a time without records: the code that has logged goes on first.

It may be in the middle of a restart, and two threads would wait for each other at each of its system calls.
"""

ROOM = 10_000
"""How many records of the program itself may wait for the handlers; further ones are dropped."""

logger: logging.Logger = logging.getLogger("suitkaise.logs")


always_enabled: bool = False
"""Whether a `dictConfig` cannot disable our loggers: in a worker process, where that of the program counts."""


class RemoteError(Protocol):
    """An error of a worker: `error`, which may have to be decoded first, and its traceback as text."""

    @property
    def error(self) -> BaseException:
        """The error, without its frames."""
        ...

    traceback: str


class QueuedLogger:
    """The methods of a `logging.Logger` that this package uses; while a queue is open, none waits for a handler.

    Whether the level is enabled is found out in the queue's thread: the first such question for a level takes a lock
    that a configuration in another thread may hold.
    """

    __slots__ = ("name", "target")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.target: logging.Logger = logging.getLogger(name)

    def __getattr__(self, name: str) -> Any:  # for structlog, which a worker in a thread logs with
        return getattr(self.target, name)

    def __reduce__(self) -> Any:
        return QueuedLogger, (self.name,)

    def info(self, text: str, *args: object, **options: Any) -> None:
        """Log with level INFO."""
        self._log(logging.INFO, text, args, **options)

    def warning(self, text: str, *args: object, **options: Any) -> None:
        """Log with level WARNING."""
        self._log(logging.WARNING, text, args, **options)

    def error(self, text: str, *args: object, **options: Any) -> None:
        """Log with level ERROR."""
        self._log(logging.ERROR, text, args, **options)

    def critical(self, text: str, *args: object, **options: Any) -> None:
        """Log with level CRITICAL."""
        self._log(logging.CRITICAL, text, args, **options)

    def debug(self, text: str, *args: object, **options: Any) -> None:
        """Log with level DEBUG."""
        self._log(logging.DEBUG, text, args, **options)

    def exception(self, text: str, *args: object, exc_info: Any = True, **options: Any) -> None:
        """Log the current exception with level ERROR."""
        self._log(logging.ERROR, text, args, exc_info=exc_info, **options)

    def log(self, level: int, text: str, *args: object, **options: Any) -> None:
        """Log with that level."""
        self._log(level, text, args, **options)

    @property
    def disabled(self) -> bool:
        """Whether the logger is disabled, which structlog reads."""
        if always_enabled:
            self.target.disabled = False
        return self.target.disabled

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Whether the logger logs at that level, which structlog asks for; before 25.5 it does not read `disabled`."""
        return not self.disabled and self.target.isEnabledFor(level)

    def _log(
        self,
        level: int,
        text: str,
        args: tuple[object, ...],
        exc_info: Any = None,
        extra: dict[str, Any] | None = None,
        crash: RemoteError | None = None,
        more: Callable[[], dict[str, Any]] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        """`more` returns further attributes of the record; it is called where no caller waits for it."""
        records = _open
        depth = _depth_of_the_caller() + max(stacklevel, 1) - 1
        if records is None:
            if more is not None and self.target.isEnabledFor(level):
                extra = {**(extra or {}), **more()}
            if crash is not None and self.isEnabledFor(level):
                exc_info = crash.error
            options = {"exc_info": exc_info, "extra": extra, "stack_info": stack_info, "stacklevel": depth}
            self.target.log(level, text, *args, **options)
            return
        if exc_info is True:
            exc_info = sys.exc_info()
        elif isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        caller = _frame(depth - 1)
        place = caller.f_code.co_filename, caller.f_lineno
        stack = _stack(caller) if stack_info else None
        record = logging.LogRecord(self.name, level, *place, text, args, exc_info, caller.f_code.co_name, stack)
        fields = vars(record) if extra is None else {**vars(record), **extra}
        records.put_own(lambda: _hand_over(self.target, level, fields, crash, more))


def _depth_of_the_caller() -> int:
    """Return how many frames `_log` is below the code that logs; those of structlog are passed over."""
    frame, depth = sys._getframe(3), 3
    while frame.f_globals.get("__name__", "").startswith("structlog.") and frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def _frame(depth: int) -> FrameType:
    """Return the frame that is `depth` above the caller's, or the highest."""
    frame = sys._getframe(1)
    while depth > 0 and frame.f_back is not None:
        frame, depth = frame.f_back, depth - 1
    return frame


def _stack(frame: FrameType) -> str:
    """Return the stack down to that frame, as the records of `logging` have it."""
    return "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip("\n")


def _hand_over(
    target: logging.Logger,
    level: int,
    fields: dict[str, Any],
    crash: RemoteError | None,
    more: Callable[[], dict[str, Any]] | None,
) -> None:
    if target.isEnabledFor(level):
        if more is not None:
            fields = {**fields, **more()}
        if crash is not None:
            error = crash.error  # decoded here, where nothing waits for it
            fields = {**fields, "exc_info": (type(error), error, error.__traceback__)}
            if crash.traceback:
                # what formatters show: the error itself has no frames
                fields["exc_text"] = escaped(crash.traceback.rstrip())
        target.handle(logging.makeLogRecord(fields))


class LogQueue:
    """Calls functions that hand records to `logging`, in order, in one thread. `put` and `put_own` never block.

    The caller of `put` bounds what it puts; the program's own records (`put_own`) are bounded here.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[int, Callable[[], object]] | None] = queue.SimpleQueue()
        self._lock = RLock()  # a signal handler may log, too
        self._waiting = 0  # records
        self._own = 0  # those of the program itself among them
        self._dropped = 0
        self._in_time = True
        self._discarding = False
        self._hurry = Flag()
        self._thread = OwnThread(self._run, "suitkaise-logs")
        self._thread.start()

    # ------------------------------------------------------------ from any thread
    def open(self) -> None:
        """Take the records of all `QueuedLogger`s from now on."""
        global _open
        _open = self

    def put(self, call: Callable[[], object], count: int = 1) -> None:
        """Call `call`, which hands over `count` records, behind those that wait."""
        with self._lock:
            self._waiting += count
        self._calls.put((count, call))

    def put_own(self, call: Callable[[], object]) -> None:
        """Call `call` behind those that wait, or count it as dropped if too many wait."""
        with self._lock:
            full = self._own >= ROOM
            self._dropped += full
            self._own += not full
        if not full:
            self.put(lambda: self._call_own(call))

    def _call_own(self, call: Callable[[], object]) -> None:
        with self._lock:
            self._own -= 1
        call()

    def count_dropped(self, count: int) -> None:
        """Count records that the caller has dropped instead of putting them here."""
        with self._lock:
            self._dropped += count

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait up to `patience` seconds until all that waits is handled; return whether it is."""
        if self._thread is threading.current_thread():
            return False
        done = Flag()
        self._hurry.set()
        self._calls.put((0, done.set))
        self._in_time = done.wait(patience)
        self._hurry.clear()
        return self._in_time

    def close(self, patience: float = PATIENCE) -> None:
        """Take no further records; wait up to `patience` seconds for the rest, unless `flush` has waited in vain.

        Records that are left then are handled while the program runs on, and dropped at its end.
        """
        global _open
        if _open is self:
            _open = None
        self._hurry.set()
        self._calls.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(patience if self._in_time else 0.0)
        if self._thread.is_alive():
            _late.append(self)
            shield_streams()

    def discard(self) -> bool:
        """Drop what waits; return whether the thread has ended, after a line that tells the number."""
        self._discarding = True
        self._thread.join(MOMENT)
        return not self._thread.is_alive()

    # ------------------------------------------------------------ the thread
    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            count, call = waiting
            with self._lock:
                self._waiting -= count
                tell = self._dropped and self._waiting <= ROOM // 2
                if self._discarding:
                    self._dropped += count
            if not self._discarding:
                _guarded(call)
                if tell:
                    self._tell_dropped()
        self._tell_dropped()

    def _next(self) -> tuple[int, Callable[[], object]] | None:
        try:
            return self._calls.get_nowait()
        except queue.Empty:
            waiting = self._calls.get()
            self._hurry.wait(LATER)
            return waiting

    def _tell_dropped(self) -> None:
        with self._lock:
            count, self._dropped = self._dropped, 0
        if count:
            _guarded(lambda: logger.warning("%d log records were dropped: %s", count, _TOO_SLOW))


_TOO_SLOW = "the logging handlers are too slow, or one has blocked"


_HAS_RAISED = "a logging handler has raised an exception"


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException as error:  # `sys.exit()` in a handler must not end the thread
        try:
            logger.exception(_HAS_RAISED)
        except BaseException:  # it raises for each record
            if logging.raiseExceptions:
                with contextlib.suppress(BaseException):  # there may be no standard error
                    lines = "".join(traceback.format_exception(error))
                    sys.stderr.write(f"--- {_HAS_RAISED} ---\n{lines}")


_open: LogQueue | None = None
_late: list[LogQueue] = []
"""Queues that were closed before all was handled."""


def _forget_queue() -> None:
    global _open
    _open = None
    _late.clear()


after_fork_in_child(_forget_queue)


@atexit.register
def _drop_the_rest() -> None:
    """At the end of the interpreter: drop what no handler has taken, and do not wait for a handler that blocks."""
    leave_streams(blocked=[late for late in _late if not late.discard()] != [])

"""Logging, silent until the application configures it: structlog over the standard library's loggers.

Nothing here adds a handler that prints. Records of a worker process are sent to the hub, which hands them to its own
logging in a separate thread: a slow handler delays log records and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from suitkaise.events import Event
from suitkaise.messaging import codec
from suitkaise.messaging.router import in_worker_process
from suitkaise.platform.preload import preload
from suitkaise.platform.reactor import PATIENCE, Reactor, SerialExecutor

__all__ = [
    "OUTPUT",
    "Forwarded",
    "ForwardingHandler",
    "LogSource",
    "handle_forwarded",
    "log_event",
    "worker_logger",
]

logging.getLogger("suitkaise").addHandler(logging.NullHandler())

OUTPUT = "suitkaise_output"
"""The attribute with the additional fields, `path` and `stream`, of a record of a command's output."""

ROOM = 10_000
"""How many records of workers may wait for the program's logging handlers; further ones are dropped."""

LONGEST_PAUSE = 1.0
"""Seconds, at most, for which nothing is read from a worker that logs too fast."""

# The attributes of a record that are not sent, because the message is made of them or a formatter has added them; and
# the other attributes of every record, which are sent. All further attributes come from `extra=`.
_NOT_SENT = frozenset(
    {"msg", "args", "exc_info", "exc_text", "stack_info", "relativeCreated", "message", "asctime", OUTPUT}
)
_AS_IT_IS = frozenset(vars(logging.makeLogRecord({}))) - _NOT_SENT

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_tree = logging.getLogger("suitkaise.tree")
logger: logging.Logger = logging.getLogger("suitkaise.logs")


def log_event(event: Event) -> None:
    """Log an event as one line to `suitkaise.tree`; the record has the event as an attribute."""
    level = _LEVELS[event.level]
    if _tree.isEnabledFor(level):
        _tree.log(level, "%s", event, extra={"event": event})


def worker_logger(path: str, on_log_line: Callable[[str], None] | None = None) -> Any:
    """Return a structlog logger that writes to `suitkaise.worker`, bound to the worker's path and pid.

    `on_log_line` is called with each line, too.
    """
    if "structlog" not in sys.modules and in_worker_process():  # takes 110 ms; the next process has it preloaded
        preload("structlog")
    import structlog

    def render(logger: Any, method: str, fields: MutableMapping[str, Any]) -> str:
        text = _render(logger, method, fields)
        if on_log_line is not None:
            on_log_line(f"{method}: {text}")
        return text

    return structlog.wrap_logger(
        logging.getLogger("suitkaise.worker"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.stdlib.PositionalArgumentsFormatter(),
            render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(path=path, pid=os.getpid())


def _render(logger: Any, method: str, fields: MutableMapping[str, Any]) -> str:
    """Return `path: what happened key=value ...`. The pid is left out: the record has it."""
    path, event, exception = fields.pop("path", ""), fields.pop("event", ""), fields.pop("exception", None)
    fields.pop("pid", None)
    more = "".join(f" {name}={value!r}" for name, value in fields.items())
    return f"{path}: {event}{more}" + (f"\n{exception}" if exception else "")


class ForwardingHandler(logging.Handler):
    """In a worker process: passes each record to `send`, with its message formatted and the fields of `extra=`."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on; an invalid one is reported as `logging` does it."""
        try:
            text = record.getMessage()
            if record.exc_info:
                text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
            if record.stack_info:
                text = f"{text}\n{record.stack_info}"
            fields: dict[str, Any] = {**getattr(record, OUTPUT, {}), "msg": _shown(text)}
            extra = {}
            for name, value in vars(record).items():
                if name in _AS_IT_IS:
                    fields[name] = _shown(value) if isinstance(value, str) else value
                elif name not in _NOT_SENT:
                    extra[name] = _encoded(value)
            if extra:
                fields["extra"] = extra
            self._send(fields)
        except Exception:
            self.handleError(record)


def handle_forwarded(fields: dict[str, Any]) -> None:
    """In the hub: hand a worker's record to the logger of the same name."""
    target = logging.getLogger(str(fields["name"]))
    if target.isEnabledFor(int(fields["levelno"])):
        extra = {name: _decoded(data) for name, data in fields.pop("extra", {}).items()}
        target.handle(logging.makeLogRecord({**extra, **fields}))


def _encoded(value: Any) -> bytes:
    try:
        return codec.dumps(value)
    except Exception:  # the value cannot be sent: send its text
        return codec.dumps(_text(value))


def _decoded(data: bytes) -> Any:
    try:
        return codec.loads(data)
    except Exception as error:
        return f"(cannot be decoded here: {error!r})"


def _shown(text: str) -> str:
    r"""Return the text as `sys.stderr` shows it: a byte of a file name that is no UTF-8 as `\udcff`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"({type(value).__name__}, without a text: {type(error).__name__})"


class LogSource(Protocol):
    """The connection of a worker that logs. Both methods are called in the I/O thread."""

    def resume_reading(self) -> None:
        """Read from the worker, again after a pause."""

    def pause_reading(self) -> None:
        """Read nothing from the worker until `resume_reading`."""


class Forwarded:
    """Passes the log records of all workers on to this program's logging: each worker's in order, `ROOM` at most.

    A worker that logs faster than the handlers work is not read from for a moment, as often as necessary; its socket
    fills, and its next log call waits. Records are dropped only if that does not help, since a handler blocks or is
    far too slow: no worker waits for a handler for long.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._executor = SerialExecutor("suitkaise-logs")
        self._paused: list[LogSource] = []
        self._dropped = 0  # written by the I/O thread alone
        self._reported = 0  # written by the executor's thread alone

    def put(self, fields: dict[str, Any], source: LogSource) -> None:
        """Queue a record; never blocks. For the I/O thread only."""
        waiting = len(self._executor)
        if waiting >= ROOM:
            self._dropped += 1
            return
        self._executor.submit(lambda: self._handle(fields))
        if waiting >= ROOM // 2 and source not in self._paused:
            if not self._paused:
                self._reactor.call_at(time.monotonic() + LONGEST_PAUSE, self._resume)
            self._paused.append(source)
            source.pause_reading()

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        for source in paused:
            source.resume_reading()

    def _handle(self, fields: dict[str, Any]) -> None:
        try:
            handle_forwarded(fields)
        finally:
            waiting = len(self._executor)
            if self._paused and waiting <= ROOM // 4:
                self._reactor.call_soon_threadsafe(self._resume)
            if self._dropped > self._reported and waiting <= ROOM // 2:
                count, self._reported = self._dropped - self._reported, self._dropped
                logger.warning("%d records of workers were dropped: they arrive faster than they are handled", count)

    def flush(self, patience: float = PATIENCE) -> None:
        """Wait until the handlers have processed the records queued so far, at most `patience` seconds."""
        self._executor.flush(patience)

    def close(self, patience: float = PATIENCE) -> None:
        """Flush, wait at most `patience` seconds, and end the thread. Called after the I/O thread has ended."""
        self._executor.close(patience)

"""Logging, silent until the application configures it: structlog over the standard library's loggers.

Nothing here adds a handler that prints. Records of a worker process are handed to the program that owns the tree,
which feeds them to its own logging, in a thread that a slow handler may hold up without harm to anything else.
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

__all__ = ["OUTPUT", "ROOM", "Forwarded", "ForwardingHandler", "log_event", "take_forwarded", "worker_logger"]

logging.getLogger("suitkaise").addHandler(logging.NullHandler())

OUTPUT = "suitkaise_output"
"""The attribute of a record of a command's output that holds what it has more than others: `path` and `stream`."""

ROOM = 10_000
"""How many records of workers may wait for the program's logging handlers; those that come then are dropped."""

REST = 1.0
"""Seconds, at most, for which a worker that logs too fast is not listened to."""

# Of a record's attributes: what the message is made of, or a formatter has added; and what all others have, too. The
# rest comes from `extra=`.
_NOT_SENT = frozenset(
    {"msg", "args", "exc_info", "exc_text", "stack_info", "relativeCreated", "message", "asctime", OUTPUT}
)
_AS_IT_IS = frozenset(vars(logging.makeLogRecord({}))) - _NOT_SENT

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_tree = logging.getLogger("suitkaise.tree")
logger: logging.Logger = logging.getLogger("suitkaise.logs")


def log_event(event: Event) -> None:
    """One line in the log `suitkaise.tree`, indented by depth; the event itself rides on the record."""
    level = _LEVELS[event.level]
    if _tree.isEnabledFor(level):
        _tree.log(level, "%s", event, extra={"event": event})


def worker_logger(path: str, note: Callable[[str], None] | None = None) -> Any:
    """A structlog logger that writes to `suitkaise.worker`, bound to the worker's path and pid.

    `note` gets each line, too.
    """
    if "structlog" not in sys.modules and in_worker_process():  # 110 ms: the next process shall have it at once
        preload("structlog")
    import structlog

    def render(logger: Any, method: str, fields: MutableMapping[str, Any]) -> str:
        text = _render(logger, method, fields)
        if note is not None:
            note(f"{method}: {text}")
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
    """`path: what happened key=value ...`; the pid is on the record already."""
    path, event, exception = fields.pop("path", ""), fields.pop("event", ""), fields.pop("exception", None)
    fields.pop("pid", None)
    more = "".join(f" {name}={value!r}" for name, value in fields.items())
    return f"{path}: {event}{more}" + (f"\n{exception}" if exception else "")


class ForwardingHandler(logging.Handler):
    """In a worker process: hands each record, its message already filled in, to `send`; and what `extra=` has added."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record on; a broken one is reported as logging always does."""
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


def take_forwarded(fields: dict[str, Any]) -> None:
    """In the hub: feed a worker's record to the logger of the same name."""
    target = logging.getLogger(str(fields["name"]))
    if target.isEnabledFor(int(fields["levelno"])):
        extra = {name: _decoded(data) for name, data in fields.pop("extra", {}).items()}
        target.handle(logging.makeLogRecord({**extra, **fields}))


def _encoded(value: Any) -> bytes:
    try:
        return codec.dumps(value)
    except Exception:  # it lives in the worker alone: its text has to do
        return codec.dumps(_text(value))


def _decoded(data: bytes) -> Any:
    try:
        return codec.loads(data)
    except Exception as error:
        return f"(cannot be read here: {error!r})"


def _shown(text: str) -> str:
    r"""The text as `sys.stderr` would show it: part of a file's name that is no UTF-8 (a surrogate) as `\udcff`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"({type(value).__name__}, without a text: {type(error).__name__})"


class Speaker(Protocol):
    """A worker that logs. Both are called in the I/O thread."""

    def watch(self) -> None:
        """Listen to it (again)."""

    def rest(self) -> None:
        """Do not listen to it for a while."""


class Forwarded:
    """The records of all workers on their way to this program's logging: each worker's in order, `ROOM` at most.

    Who logs faster than the handlers take it is not listened to for a moment, as often as it takes. Only where that
    does not help, since a handler blocks or crawls, records are dropped: nobody waits for a handler for long.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._errands = SerialExecutor("suitkaise-logs")
        self._resting: list[Speaker] = []
        self._dropped = 0  # counted by the I/O thread, told by the other
        self._told = 0

    def put(self, fields: dict[str, Any], speaker: Speaker) -> None:
        """Take a record; never blocks. For the I/O thread only."""
        waiting = len(self._errands)
        if waiting >= ROOM:
            self._dropped += 1
            return
        self._errands.submit(lambda: self._handle(fields))
        if waiting >= ROOM // 2 and speaker not in self._resting:
            if not self._resting:
                self._reactor.call_at(time.monotonic() + REST, self._listen)
            self._resting.append(speaker)
            speaker.rest()

    def _listen(self) -> None:
        resting, self._resting = self._resting, []
        for speaker in resting:
            speaker.watch()

    def _handle(self, fields: dict[str, Any]) -> None:
        try:
            take_forwarded(fields)
        finally:
            waiting = len(self._errands)
            if self._resting and waiting <= ROOM // 4:
                self._reactor.call_soon_threadsafe(self._listen)
            if self._dropped > self._told and waiting <= ROOM // 2:
                count, self._told = self._dropped - self._told, self._dropped
                logger.warning("%d records of workers were dropped: they come faster than they are handled", count)

    def flush(self, patience: float = PATIENCE) -> None:
        """Wait until the handlers have got what has come so far, at most so many seconds."""
        self._errands.flush(patience)

    def close(self, patience: float = PATIENCE) -> None:
        """Flush, and end the thread. The I/O thread has ended."""
        self._errands.close(patience)

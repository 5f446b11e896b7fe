"""Logging: structlog over the standard library's loggers.

Nothing here adds a handler. So without a configuration Python's handler of last resort prints warnings, as those of any
program, to standard error. Records of a worker process are sent to the hub, which hands them to its own
logging in a separate thread, as it does with its own records (`platform.log_queue`): a slow handler delays log records
and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from suitkaise.escapes import encodable, one_line
from suitkaise.exits import Crashed
from suitkaise.messaging import codec
from suitkaise.messaging.router import in_worker_process
from suitkaise.platform import log_queue
from suitkaise.platform.log_queue import LogQueue, QueuedLogger
from suitkaise.platform.preload import preload
from suitkaise.platform.reactor import Reactor, TimerHandle

if TYPE_CHECKING:
    from suitkaise.events import Event

__all__ = [
    "CommandOutput",
    "Forwarded",
    "ForwardingHandler",
    "LogSource",
    "attributes_of",
    "end_forwarding",
    "forward_all",
    "handle_forwarded",
    "handle_output",
    "log_event",
    "worker_logger",
]

ROOM = 10_000
"""How many records of workers may wait for the program's logging handlers."""

LATEST = 1e11
"""The Unix time (in the year 5138) before which a record's time must be."""

LONGEST_PAUSE = 1.0
"""Seconds for which nothing is read from a worker that logs too fast; further ones if the handlers make progress."""

# The attributes of a record that are not sent, because the message is made of them or a formatter has added them; and
# the other attributes of every record, which are sent. All further attributes come from `extra=`.
_NOT_SENT = frozenset({"msg", "args", "exc_info", "exc_text", "stack_info", "relativeCreated", "message", "asctime"})
_AS_IT_IS = frozenset(vars(logging.makeLogRecord({}))) - _NOT_SENT
_OF_EVERY_RECORD = _AS_IT_IS | _NOT_SENT | {"event", "pid"}  # which a record has in `msg` and `process`

_EMPTY = logging.makeLogRecord({})
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_tree = QueuedLogger("suitkaise.tree")
_worker = QueuedLogger("suitkaise.worker")


def log_event(event: Event) -> None:
    """Log an event as one line to `suitkaise.tree`; the record has the event and its fields as attributes."""
    from suitkaise.events import EndEvent  # which workers do not need

    crash = event.reason if isinstance(event, EndEvent) and isinstance(event.reason, Crashed) else None
    _tree.log(_LEVELS[event.level], "%s", event, extra={"event": event}, more=event.record_fields, crash=crash)


def worker_logger(path: str, on_log_line: Callable[[str], None] | None = None) -> Any:
    """Return a structlog logger that writes to `suitkaise.worker`, bound to the worker's path and pid.

    The keys of a call are attributes of its record, unless every record of a worker has an attribute of that name: then
    they are in the text alone. `on_log_line` is called with each line, too.
    """
    if "structlog" not in sys.modules and in_worker_process():  # takes 110 ms; the next process has it preloaded
        preload("structlog")
    import structlog

    own = {"path": path, "pid": os.getpid()}
    fill = structlog.stdlib.PositionalArgumentsFormatter()
    add_stack = structlog.processors.StackInfoRenderer(additional_ignores=[__name__])

    def fill_in(logger: Any, method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        try:
            return fill(logger, method, fields)
        except Exception as error:  # a wrong log call ends no worker
            args = fields.pop("positional_args")
            fields["event"] = f"{_text(fields['event'])} {_text(args)} ({type(error).__name__}: {_text(error)})"
            return fields

    def render(logger: Any, method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
        options = {name: fields.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in fields}
        text = f"{path}: {_text(fields.pop('event', ''))}"  # the pid is left out: the record has it
        given = {name: value for name, value in fields.items() if name not in own or value is not own[name]}
        text += "".join(f" {name}={_text(value, repr)}" for name, value in given.items())
        attributes = {name: value for name, value in given.items() if name not in _OF_EVERY_RECORD} | {"path": path}
        if on_log_line is not None:
            shown = add_stack(logger, method, structlog.processors.format_exc_info(logger, method, dict(options)))
            further = [shown[name] for name in ("exception", "stack") if name in shown]
            on_log_line("\n".join([f"{method}: {text}", *further]))
        return (text,), {"extra": attributes, **options}

    return structlog.wrap_logger(
        _worker,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            fill_in,
            render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(**own)


class ForwardingHandler(logging.Handler):
    """In a worker process: passes each record to `send`, with its message formatted and the fields of `extra=`."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on; an invalid one is reported as `logging` does it."""
        try:
            exception = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
            said, text = _said(record)
            if exception and not text.endswith(exception):  # structlog's `exception` tells it in both ways
                text = f"{text}\n{exception}"
            if record.stack_info:
                text = f"{text}\n{record.stack_info}"
            fields: dict[str, Any] = {"msg": encodable(text)}
            if said is not None:
                fields["said"] = {encodable(name): _encoded(value) for name, value in said.items()}
                fields["exc_text"] = exception and encodable(exception)
                fields["stack_info"] = record.stack_info and encodable(record.stack_info)
            extra = {}
            for name, value in vars(record).items():
                if name in _AS_IT_IS:
                    fields[name] = encodable(value) if isinstance(value, str) else value
                elif name not in _NOT_SENT:
                    extra[encodable(name)] = _encoded(value)
            if not (isinstance(record.created, (int, float)) and 0 <= record.created < LATEST):
                fields["created"] = time.time()  # whatever has made the record: the program sorts and shows times
            if extra:
                fields["extra"] = extra
            self._send(fields)
        except Exception:
            self.handleError(record)


def attributes_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes that only this record has: those of `extra=`, or the keys of `self.log`."""
    return {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}


def _said(record: logging.LogRecord) -> tuple[dict[str, Any] | None, str]:
    """Return the dictionary that a record has as its message, for a formatter that takes one; and the message as text.

    structlog makes such records for its `ProcessorFormatter`, which would look for the current exception in the
    program: so the dictionary gets its text here.
    """
    said: Any = record.msg
    if not isinstance(said, dict) or not said or record.args or not all(isinstance(name, str) for name in said):
        return None, record.getMessage()
    if not said.get("exc_info") or not hasattr(record, "_logger"):
        return said, record.getMessage()
    import structlog

    said = structlog.processors.format_exc_info(None, "", dict(said))
    text = str({name: value for name, value in said.items() if name != "exception"})
    return said, f"{text}\n{said['exception']}" if "exception" in said else text


class _IfRemoved(logging.Handler):
    """Takes each record that a handler of the root logger would have got, if a configuration has removed that one."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        if self._handler not in logging.root.handlers:
            self._handler.handle(record)


def forward_all(send: Callable[[dict[str, Any]], None]) -> None:
    """In a worker process: pass all records on to `send`, whatever a configuration in the worker does.

    The handler of the root logger keeps `logging.basicConfig` from adding one that prints. A configuration that
    replaces the handlers (`dictConfig`, `basicConfig(force=True)`) leaves alone the logger that stands above the root.
    """
    handler = ForwardingHandler(send)
    logging.root.addHandler(handler)
    above = logging.Logger("suitkaise.forwarding")  # noqa: LOG001  (no configuration may find it)
    above.addHandler(_IfRemoved(handler))
    logging.root.parent = above
    log_queue.always_enabled = True


def end_forwarding() -> None:
    """In a process that a worker forks: forward nothing."""
    logging.root.handlers[:] = [one for one in logging.root.handlers if not isinstance(one, ForwardingHandler)]
    logging.root.parent = None
    log_queue.always_enabled = False


def handle_forwarded(fields: dict[str, Any]) -> None:
    """In the hub: hand a worker's record to the logger of the same name."""
    target = logging.getLogger(str(fields["name"]))
    if target.isEnabledFor(int(fields["levelno"])):
        extra = {name: _decoded(data) for name, data in fields.pop("extra", {}).items()}
        if "said" in fields:
            fields["msg"] = {name: _decoded(data) for name, data in fields.pop("said").items()}
        if logging.getLogRecordFactory() is logging.LogRecord and "created" in fields:
            record = _copy(_EMPTY)  # takes half the time
            record.relativeCreated += (fields["created"] - record.created) * 1000
            record.__dict__.update(extra)
            record.__dict__.update(fields)
        else:
            record = logging.makeLogRecord({**extra, **fields})
        target.handle(record)


class CommandOutput:
    """A piece of the output of a command: runs of lines, each of one stream, in the order in which they were read.

    Args:
        path: the command's path.
        pid: the command's process.
        program: the name of the program.
        runs: stream, Unix time and lines of each run, and whether its line is not complete yet.
    """

    __slots__ = ("path", "pid", "program", "runs")

    def __init__(self, path: str, pid: int, program: str, runs: Sequence[tuple[str, float, list[str], bool]]) -> None:
        self.path: str = path
        self.pid: int = pid
        self.program: str = program
        self.runs: Sequence[tuple[str, float, list[str], bool]] = runs

    def __len__(self) -> int:
        """Return the number of lines."""
        return sum(len(lines) for _, _, lines, _ in self.runs)


def handle_output(output: CommandOutput) -> None:
    """In the hub: hand each line of a command's output, as one record, to the logger `suitkaise.worker`.

    The records of a run differ in their text alone, so they are copies of one: making a record takes longer than
    handling it.
    """
    target = _worker.target
    if not target.isEnabledFor(logging.INFO):
        return
    for stream, created, lines, partial in output.runs:
        fields = {
            "name": target.name, "levelno": logging.INFO, "levelname": logging.getLevelName(logging.INFO),
            "pathname": output.program, "filename": os.path.basename(output.program), "module": output.program,
            "process": output.pid, "processName": output.path, "created": created, "msecs": created % 1 * 1000 // 1,
            "path": output.path, "stream": stream, "partial": partial,
        }  # fmt: skip
        first = logging.makeLogRecord(fields)
        first.relativeCreated += (created - time.time()) * 1000
        plain = type(first) is logging.LogRecord  # else a factory of the application's makes each record
        for line in lines:
            record = _copy(first) if plain else logging.makeLogRecord(vars(first))
            record.msg = f"{output.path} {stream}: {one_line(line, colours=True)}"
            target.handle(record)


def _copy(record: logging.LogRecord) -> logging.LogRecord:
    copy = logging.LogRecord.__new__(logging.LogRecord)
    copy.__dict__.update(record.__dict__)
    return copy


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


def _text(value: Any, make: Callable[[Any], str] = str) -> str:
    try:
        return make(value)
    except Exception as error:
        return f"({type(value).__name__}, without a text: {type(error).__name__})"


class LogSource(Protocol):
    """The connection of a worker that logs. The methods are called in the I/O thread."""

    stopping: bool
    """Whether the worker was asked to stop."""

    def resume_reading(self) -> None:
        """Read from the worker, again after a pause."""

    def pause_reading(self) -> None:
        """Read nothing from the worker until `resume_reading`."""


class Forwarded:
    """Passes the log records of all workers on to this program's logging: each worker's in order.

    A worker that logs faster than the handlers work is not read from for a while, as often as necessary; its socket
    fills, and its next log call waits. If the handlers make no progress meanwhile, since one blocks or is far too slow,
    no worker waits any longer: all are read from, and records for which there is no room are dropped, until the
    handlers have caught up. A worker that was asked to stop is read from in any case, so that no record delays its end.
    """

    room: int = ROOM

    def __init__(self, reactor: Reactor, records: LogQueue) -> None:
        self._reactor = reactor
        self._records = records
        self._put = 0  # written by the I/O thread alone
        self._handled = 0  # written by the queue's thread alone
        self._paused: list[LogSource] = []
        self._timer: TimerHandle | None = None
        self._resuming = False
        self._too_slow = False

    def put(self, fields: dict[str, Any], source: LogSource, done: Callable[[], None] | None = None) -> None:
        """Queue a record; never blocks. For the I/O thread only. `done` is called after it is handled, or dropped."""
        self._add(1, lambda: handle_forwarded(fields), source, done)

    def put_output(self, output: CommandOutput, source: LogSource, done: Callable[[], None] | None = None) -> None:
        """Queue the output of a command; never blocks. For the I/O thread only. `done`: as for `put`."""
        self._add(len(output), lambda: handle_output(output), source, done)

    def release(self, source: LogSource) -> None:
        """Read from a worker that was asked to stop. For the I/O thread only."""
        if source in self._paused:
            self._paused.remove(source)
            source.resume_reading()

    @property
    def waiting(self) -> int:
        """How much was put and is not handled yet."""
        return self._put - self._handled

    def _add(
        self, count: int, call: Callable[[], object], source: LogSource, done: Callable[[], None] | None = None,
        size: int | None = None,
    ) -> None:  # fmt: skip
        """Put `count` records, which take the room of `size` (None: of as many)."""
        waiting = self.waiting
        if waiting <= self.room // 4:
            self._too_slow = False
        must_read = self._too_slow or source.stopping
        if waiting >= self.room and must_read:
            self._drop(count)
            if done is not None:
                done()
            return
        self._put += count if size is None else size
        self._pass_on(count, call, done)
        if waiting >= self.room // 2 and not must_read and source not in self._paused:
            if self._timer is None:
                self._look_later()
            self._paused.append(source)
            source.pause_reading()

    def _pass_on(self, count: int, call: Callable[[], object], done: Callable[[], None] | None) -> None:
        self._records.put(lambda: self._handle(count, call, done), count)

    def _drop(self, count: int) -> None:
        self._records.count_dropped(count)

    def note_dropped(self, count: int) -> None:
        """Count records that were dropped on their way, and have that told soon."""
        self._records.count_dropped(count)
        self._records.put(lambda: None, 0)

    def _look_later(self) -> None:
        handled = self._handled
        self._timer = self._reactor.call_at(time.monotonic() + LONGEST_PAUSE, lambda: self._look(handled))

    def _look(self, before: int) -> None:
        """Go on pausing if the handlers have made progress since `before`."""
        if self._handled - before > self.room // 10:
            self._look_later()
        else:
            self._too_slow = True
            self._resume()

    def _resume(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._resuming = False
        paused, self._paused = self._paused, []
        for source in paused:
            source.resume_reading()

    def _handle(self, count: int, call: Callable[[], object], done: Callable[[], None] | None) -> None:
        self._handled += count
        try:
            call()
        finally:
            if done is not None:
                done()
            if self._paused and not self._resuming and self.waiting <= self.room // 4:
                self._resuming = True
                self._reactor.call_soon_threadsafe(self._resume)

"""Logging, silent until the application configures it: structlog over the standard library's loggers.

Nothing here adds a handler that prints. Records of a worker process are handed to the program that owns the tree,
which feeds them to its own logging.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from suitkaise.events import Event
from suitkaise.messaging.refs import has_remote_post
from suitkaise.preloading import preload

__all__ = ["OUTPUT", "ForwardingHandler", "log_event", "take_forwarded", "worker_logger"]

logging.getLogger("suitkaise").addHandler(logging.NullHandler())

OUTPUT = "suitkaise_output"
"""The attribute of a record of a command's output that holds what it has more than others: `path` and `stream`."""

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_tree = logging.getLogger("suitkaise.tree")


def log_event(event: Event) -> None:
    """One line in the log `suitkaise.tree`, indented by depth; the event itself rides on the record."""
    level = _LEVELS[event.level]
    if _tree.isEnabledFor(level):
        _tree.log(level, "%s", event, extra={"event": event})


def worker_logger(path: str, note: Callable[[str], None] | None = None) -> Any:
    """A structlog logger that writes to `suitkaise.worker`, bound to the worker's path and pid.

    `note` gets each line, too.
    """
    if "structlog" not in sys.modules and has_remote_post():  # 110 ms: the next process shall have it at once
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
    """In a worker process: hands each record, already formatted, to `send`."""

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
            self._send({
                **getattr(record, OUTPUT, {}),
                "name": record.name, "levelno": record.levelno, "levelname": record.levelname, "msg": text,
                "created": record.created, "process": record.process, "threadName": record.threadName,
                "pathname": record.pathname, "lineno": record.lineno, "funcName": record.funcName,
            })  # fmt: skip
        except Exception:
            self.handleError(record)


def take_forwarded(fields: dict[str, Any]) -> None:
    """In the hub: feed a worker's record to the logger of the same name."""
    target = logging.getLogger(str(fields["name"]))
    if target.isEnabledFor(int(fields["levelno"])):
        target.handle(logging.makeLogRecord(fields))

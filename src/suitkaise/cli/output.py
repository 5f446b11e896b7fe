"""How records are logged: lines for people, in colour on a terminal, or one JSON object a line; and values as JSON."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from typing import Any

from suitkaise.escapes import escaped

__all__ = ["HumanFormatter", "as_json", "configure_logging"]

_RED, _GREEN, _YELLOW = 31, 32, 33


def as_json(value: Any, default: Callable[[Any], str] = repr) -> str:
    """Return a value of a user's as JSON that every reader takes.

    What JSON does not have is changed: NaN and infinity to null, keys that are no text, and other objects, to the text
    that `default` makes of them.

    >>> as_json({(1, 2): [float("nan"), {3}]})
    '{"(1, 2)": [null, "{3}"]}'
    """
    try:
        return json.dumps(value, default=default, allow_nan=False)
    except (TypeError, ValueError):
        try:
            return json.dumps(_plain(value, default), default=default)
        except RecursionError:  # it holds itself
            return json.dumps(default(value))


def _plain(value: Any, default: Callable[[Any], str]) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {
                key if isinstance(key, (str, int, type(None))) else default(key): _plain(one, default)
                for key, one in value.items()
            }
        case list() | tuple():
            return [_plain(one, default) for one in value]
    return value


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from suitkaise.events import Event  # loaded by then: a tree runs
        from suitkaise.messaging.logs import attributes_of

        event = getattr(record, "event", None)  # a record of others may have an attribute of this name, too
        fields: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields |= (
            event.to_dict() | {"report_type": event.report_type}
            if isinstance(event, Event)
            else {**attributes_of(record), **fields, "event": record.getMessage(), "pid": record.process}
        )
        if record.exc_text:  # of a worker's error, which has no frames here
            fields["exception"] = record.exc_text
        elif record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        fields.pop("at", None)
        return as_json(fields, str)


class HumanFormatter(logging.Formatter):
    """One line for each record; on a terminal (unless NO_COLOR is set) exits are red and starts are green."""

    def __init__(self, *, terminal: bool) -> None:
        clear = "\r\x1b[K" if terminal else ""  # the program may show its progress in this line
        self._coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        time = "\x1b[2m%(asctime)s.%(msecs)03d\x1b[0m" if self._coloured else "%(asctime)s.%(msecs)03d"
        super().__init__(f"{clear}{time} %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as lines of text; those that follow the first are indented, so that none is forged."""
        return super().format(record).replace("\n", "\n    ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that `logging` calls
        """Return the line, coloured."""
        record.message = escaped(record.message, colours=self._coloured)
        colour = self._colour(record) if self._coloured else None
        if colour is not None:
            record.message = f"\x1b[{colour}m{record.message}\x1b[0m"
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that `logging` calls
        """Return the traceback."""
        return escaped(super().formatException(ei))

    @staticmethod
    def _colour(record: logging.LogRecord) -> int | None:
        event = getattr(record, "event", None)
        if event is not None:
            from suitkaise.events import ChildExited, ChildStarted  # loaded by then: a tree runs

            if isinstance(event, ChildExited):
                return _RED if event.reason is None or not event.reason.clean else None
            if isinstance(event, ChildStarted):
                return _GREEN
        if record.levelno >= logging.ERROR:
            return _RED
        return _YELLOW if record.levelno >= logging.WARNING else None


def configure_logging(*, as_json: bool) -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(HumanFormatter(terminal=sys.stderr.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

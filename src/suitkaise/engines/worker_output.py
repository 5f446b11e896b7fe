"""What workers print and log, on its way into the program: into its rings of last lines, and into its logging."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from suitkaise.engines.engine import EngineContext
from suitkaise.escapes import LONGEST_LINE, shortened
from suitkaise.messaging.log_rings import Run
from suitkaise.messaging.logs import CommandOutput, LogSource
from suitkaise.platform.tail import Printed

__all__ = ["keep_lines", "keep_output", "keep_record"]


def keep_record(
    context: EngineContext, path: str, number: int, fields: dict[str, Any], source: LogSource,
    done: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Take a record of the logging of incarnation `number` at `path` (I/O thread). `done`: see `Forwarded.put`."""
    if fields.get("processName") == "MainProcess":  # which tells no worker from another
        fields["processName"] = path
    if context.log_rings is not None:
        text = fields["msg"]
        line = text if len(text) <= LONGEST_LINE else shortened(text, LONGEST_LINE)
        context.log_rings.put(path, Run(number, fields["levelname"].lower(), fields["created"], (line,)))
    context.logs.put(fields, source, done)


def keep_output(
    context: EngineContext, number: int, output: CommandOutput, source: LogSource,
    done: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Take some output of incarnation `number` of a command (I/O thread). `done`: see `Forwarded.put`."""
    if context.log_rings is not None:
        for stream, created, lines, _ in output.runs:
            context.log_rings.put(output.path, Run(number, stream, created, lines))
    context.logs.put_output(output, source, done)


def keep_lines(context: EngineContext, path: str, number: int, lines: Sequence[Printed]) -> None:
    """Take lines that incarnation `number` at `path` has printed, in runs."""
    if context.log_rings is not None:
        for (stream, time), run in itertools.groupby(lines, lambda line: line[:2]):
            texts = [shortened(text, LONGEST_LINE) for _, _, text in run]
            context.log_rings.put(path, Run(number, stream, time, texts))

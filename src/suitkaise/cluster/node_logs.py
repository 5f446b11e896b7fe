"""The way of what workers on a node log and print to the program: with as little under way as makes full use of it.

The program tells what its handlers have taken. While too much is under way, a worker that logs is not read from, as on
one machine: its next log call waits. So no flood of records stands before other messages on the node's connection. If
the program takes nothing for a while, records are dropped, and the program is told how many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suitkaise.cluster.protocol import LogLines, LogOutput, LogRecord
from suitkaise.messaging.log_rings import LogRings, Run
from suitkaise.messaging.logs import CommandOutput, Forwarded, LogSource
from suitkaise.platform.log_queue import LogQueue
from suitkaise.platform.reactor import Reactor

__all__ = ["WINDOW", "NodeLogs", "NodeRings", "weight_of"]

WINDOW = 1_000
"""How much may be under way to the program: lines, and KiB of long ones."""


def weight_of(frame: LogRecord | LogOutput | LogLines) -> int:
    """Return what a frame counts for: the same at the node and in the program."""
    match frame:
        case LogRecord(fields=fields):
            return 1 + len(fields["msg"]) // 1024
        case LogOutput(runs=runs):
            return sum(1 + len(line) // 1024 for _, _, lines, _ in runs for line in lines)
        case LogLines(lines=lines):
            return sum(1 + len(line) // 1024 for line in lines)


class NodeLogs(Forwarded):
    """Sends the log records of workers, the output of commands and printed lines. For the I/O thread only.

    Args:
        reactor: the I/O thread.
        records: the node's own queue.
        send: sends a frame to the program.
        worker_of: returns the number of the worker in the process of a pid.
        worker_at: returns the number of the newest worker at a path.
    """

    room: int = WINDOW

    def __init__(
        self,
        reactor: Reactor,
        records: LogQueue,
        send: Callable[[Any], None],
        worker_of: Callable[[int], int | None],
        worker_at: Callable[[str], int | None],
    ) -> None:
        super().__init__(reactor, records)
        self._send = send
        self._worker_of = worker_of
        self._worker_at = worker_at
        self._dropped = 0

    def put(self, fields: dict[str, Any], source: LogSource, done: Callable[[], None] | None = None) -> None:
        """Send a record to the program."""
        number = self._worker_of(getattr(source, "pid", None) or 0)
        if number is not None:
            self._put_frame(1, LogRecord(number, fields), source, done)

    def put_output(self, output: CommandOutput, source: LogSource, done: Callable[[], None] | None = None) -> None:
        """Send some output of a command to the program."""
        number = self._worker_at(output.path)
        if number is not None:
            frame = LogOutput(number, output.pid, output.program, list(output.runs))
            self._put_frame(len(output), frame, source, done)

    def put_lines(self, path: str, run: Run) -> None:
        """Send lines that a worker has printed; drop them where there is no room."""
        number = self._worker_at(path)
        if number is None:
            return
        if self.waiting >= self.room:
            self._drop(len(run.texts))
            return
        frame = LogLines(number, run.stream, run.time, list(run.texts))
        self._put += weight_of(frame)
        self._send(frame)

    def _put_frame(
        self, count: int, frame: LogRecord | LogOutput, source: LogSource, done: Callable[[], None] | None
    ) -> None:
        self._add(count, lambda: self._send(frame), source, done, weight_of(frame))

    def _pass_on(self, count: int, call: Callable[[], object], done: Callable[[], None] | None) -> None:
        call()
        if done is not None:
            done()

    def _drop(self, count: int) -> None:
        self._dropped += count

    def taken(self, weight: int) -> None:
        """Note that the program has taken so much."""
        self._handled += weight
        if self._paused and self.waiting <= self.room // 4:
            self._resume()

    def take_dropped(self) -> int:
        """Return the number of dropped lines and records since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class NodeRings(LogRings):
    """Passes on what workers print; keeps nothing: their log records go another way."""

    logs: NodeLogs

    def put(self, path: str, run: Run) -> None:
        """Send the lines to the program."""
        if run.stream in ("stdout", "stderr"):
            self.logs.put_lines(path, run)

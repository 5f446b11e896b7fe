"""Sends the lines of a file through stages, each a process, into another file: each line once, whichever is killed.

    suitkaise run supervisors/pipeline.py INPUT OUTPUT --stage MODULE:FUNCTION [--stage ...] [--batch 200]

A stage is a function of one line (without its end) that returns a line, or None to drop it. The children start in this
order: the sink, the last stage, ... the first stage, the source. So `rest_for_one` restarts, together with a stage that
dies, all stages that feed it and the source. The source then continues behind the last line that the sink has written;
the lines between them were not written yet, and are sent again.

A stage sends one batch while it works on the next one, never more: a slow stage slows down the stages before it.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from suitkaise import Child, Process, Supervisor, WorkerDead

Stage: TypeAlias = Callable[[str], "str | None"]


class Batch(NamedTuple):
    """Some lines, and the positions of their beginning and end in the input. The last batch ends the pipeline."""

    lines: list[str]
    start: int
    end: int
    last: bool


class Feeds(Process):
    """Sends batches to the worker at path `to`. Its lines are sent again after its death, so a stop may kill it."""

    shutdown = "brutal_kill"
    to: str

    def on_start(self) -> None:
        self.feeding: Any = None

    def feed(self, batch: Batch) -> bool:
        """Send a batch once the receiver has taken the batch before it.

        Returns:
            False if a batch was lost or arrived out of order; for the last batch, whether it was written.
        """
        before, self.feeding = self.feeding, None
        try:
            if before is not None and not before.get(None):
                return False
            self.feeding = self.whereis(self.to).ask_future(batch)
            return not batch.last or bool(self.feeding.get(None))
        except WorkerDead:  # unless it was a recall, this worker is stopped too; the lost lines are sent again
            return False


class Source(Feeds):
    """Reads the file, and finishes when the sink has written all lines."""

    restart = "transient"
    significant = True

    def __init__(self, file: Path, to: str, sink: str, size: int) -> None:
        self.file = file
        self.to = to
        self.sink = sink
        self.size = size

    def on_start(self) -> None:
        super().on_start()
        self.input = open(self.file, "rb")  # noqa: SIM115
        self.go_back()

    def go_back(self) -> None:
        self.input.seek(self.whereis(self.sink).ask("position"))

    def loop(self) -> None:
        start = self.input.tell()
        lines = [line.decode().rstrip("\r\n") for line in itertools.islice(self.input, self.size)]
        last = len(lines) < self.size
        if not self.feed(Batch(lines, start, self.input.tell(), last)):
            self.wait(1.0)  # this worker is about to be stopped, or a single stage was recalled
            self.go_back()
        elif last:
            self.rejoin()

    def on_finish(self) -> None:
        self.input.close()


class Work(Feeds):
    """One stage."""

    def __init__(self, function: Stage, to: str) -> None:
        self.function = function
        self.to = to

    def on_receive(self, batch: Batch) -> bool:
        done = [line for one in batch.lines if (line := self.function(one)) is not None]
        return self.feed(batch._replace(lines=done))


class Sink(Process):
    """Writes the lines, and their position to a file beside the output; a restart cuts off the output behind it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.progress = file.with_name(f"{file.name}.progress")

    def on_start(self) -> None:
        self.position, length = 0, 0
        if self.progress.exists():
            self.position, length = map(int, self.progress.read_text().split())
        self.output = open(self.file, "ab")  # noqa: SIM115
        self.output.truncate(length)

    def on_receive(self, message: Any) -> int:
        """Answer `position` with the position to continue from, and a batch with whether it is written."""
        if message == "position":
            return self.position
        if message.start == self.position:  # otherwise it is a repetition, or an earlier batch is missing
            self.output.write("".join(f"{line}\n" for line in message.lines).encode())
            self.output.flush()
            os.fsync(self.output.fileno())
            self.position = message.end
            new = self.progress.with_suffix(".new")
            new.write_text(f"{self.position} {self.output.tell()}")
            os.replace(new, self.progress)
        return bool(message.end <= self.position)

    def on_finish(self) -> None:
        self.output.close()


def pipeline(stages: list[Stage], source: Path, output: Path, *, batch: int = 200) -> Supervisor:
    """Declare the tree: the sink first, the source last."""
    children = [Child(Sink(output), id="sink")]
    for number in range(len(stages), 0, -1):
        to = f"pipeline/stage-{number + 1}" if number < len(stages) else "pipeline/sink"
        children.append(Child(Work(stages[number - 1], to), id=f"stage-{number}"))
    children.append(Child(Source(source, "pipeline/stage-1", "pipeline/sink", batch), id="source"))
    return Supervisor(
        "pipeline", *children, strategy="rest_for_one", auto_shutdown="any_significant", max_restarts=10
    )  # fmt: skip


def load(name: str) -> Stage:
    """Import the function `module:function`."""
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function or "stage")
    if not callable(found):
        raise TypeError(f"{name} is no function")
    return found  # type: ignore[no-any-return]


def main(arguments: list[str]) -> Supervisor:
    """Declare the tree for these command line arguments."""
    parser = argparse.ArgumentParser(
        prog="pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="a file of lines (UTF-8)")
    parser.add_argument("output", type=Path, help="the file for the lines; OUTPUT.progress holds the position")
    parser.add_argument("--stage", action="append", required=True, metavar="MODULE:FUNCTION", dest="stages")
    parser.add_argument("--batch", type=int, default=200, help="lines that are handed on at once (default 200)")
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    if options.batch < 1:
        parser.error("--batch must be 1 or more")
    try:
        options.input.open().close()
        stages = [load(name) for name in options.stages]
    except (OSError, ImportError, AttributeError, TypeError) as error:
        parser.error(str(error))
    return pipeline(stages, options.input.resolve(), options.output.resolve(), batch=options.batch)


if __name__ == "__main__":
    tree = main(sys.argv[1:])

"""Crash reports (rule 58): one for each abnormal exit, in memory and on disk.

The reports on disk outlive the program that wrote them: `suitkaise crashes` shows them even after a SIGKILL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from suitkaise.escapes import LONGEST_LINE, LONGEST_TEXT, figure, indented, one_line, shortened
from suitkaise.records import dataclass

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "KEPT_IN_MEMORY",
    "KEPT_ON_DISK",
    "LATER",
    "OURS",
    "CrashLog",
    "CrashReport",
    "crash_directory",
    "read_reports",
    "where_of",
]

logger: logging.Logger = logging.getLogger("suitkaise")

KEPT_IN_MEMORY = 100
"""The number of reports that a program keeps in memory; the oldest are dropped."""

KEPT_ON_DISK = 200
"""The number of reports that all programs of a user keep on disk; the oldest are removed."""

PER_SECOND = 5
"""The number of reports of one worker that are written to disk in a second; the next report counts the others."""

LARGEST = 4 << 20
"""Bytes: a larger file is none of ours, and is not read."""

LATER = 0.05
"""Seconds between a crash and the write to disk: the restart, which callers may wait for, goes first."""


@dataclass(frozen=True, slots=True)
class CrashReport:
    """An abnormal exit of one incarnation; `print` shows it as a block of text.

    No text in it has more than 64 KiB, and all of them together no more than 256 KiB: of a longer one, the middle is
    left out, and a mark says how many bytes.

    Args:
        id: sortable by time; `suitkaise crashes ID` finds it.
        path: the worker or supervisor.
        kind: `process`, `thread`, `command` or `supervisor`.
        pid: the process that it ran in.
        incarnation: the number of the incarnation; the first start of a child is 1.
        wall: the time of the exit, in seconds of Unix time.
        reason: the exit reason as text, `reason_kind` its class; at most 4 KiB where the traceback has all of it.
        phase: the phase that it was in: `loop`, `on_receive`, `waiting`, ...
        in_phase: the seconds that it was in that phase; None if they are unknown.
        loop: the number of the current or last loop.
        uptime: seconds from the start order to the exit.
        restarts: the earlier restarts of the child.
        verdict: the decision of its supervisor: `restarts`, `gives up`, `is given up`, `stays down` or
            `is being stopped`.
        used: restarts that the window (of the supervisor, or the child's own) holds, this one included, of the
            `allowed` in `seconds`.
        together: the ids of siblings that are restarted with it.
        lines: the last lines that it printed or logged (a thread: logged by `self.log`).
        traceback: the remote traceback of an exception, or the stacks of a worker that hung or did not stop in time.
        skipped: the number of earlier reports of this worker that were not written to disk.
        where: the file and line of the crash, `app.py:31`; empty if they are unknown.
        node: the node of a cluster on which it ran; empty: on the program's machine.
    """

    id: str
    path: str
    kind: str
    pid: int | None
    incarnation: int
    wall: float
    reason: str
    reason_kind: str
    phase: str
    in_phase: float | None
    loop: int
    uptime: float
    restarts: int
    verdict: str
    used: int
    allowed: float
    seconds: float
    together: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    traceback: str = ""
    skipped: int = 0
    where: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        traceback = shortened(self.traceback)
        bounded = {
            "reason": shortened(self.reason, LONGEST_LINE if traceback else LONGEST_TEXT),
            "traceback": traceback,
            "lines": _bounded(self.lines),
            "together": _bounded(self.together),
        }
        for name, value in bounded.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        fields = asdict(self)
        if fields["allowed"] == float("inf"):
            fields["allowed"] = None
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> CrashReport:
        """Make a report from the fields of `to_dict`; unknown fields, of a newer version, are left out.

        Raises:
            ValueError: a field is missing, or its value is no such value.
        """
        if fields.get("allowed", 0) is None:
            fields = {**fields, "allowed": float("inf")}
        report = msgspec.convert(fields, cls)
        try:
            report.when()
        except (OverflowError, OSError) as error:
            raise ValueError(f"{report.wall!r} is no time: {error}") from None
        return report

    def line(self) -> str:
        """Return the report as one line: id, time, path, reason and place."""
        where = f" (at {self.where})" if self.where else ""
        return one_line(f"{self.id}  {self.when()}  {self.path}  {self.reason}{where}")

    def when(self) -> str:
        """Return the local time of the exit as text, to the second."""
        return datetime.fromtimestamp(self.wall).strftime("%Y-%m-%d %H:%M:%S")

    def rows(self) -> list[tuple[str, str]]:
        """Return the facts as pairs of a word and a text, without the last lines and the traceback."""
        since = "" if self.in_phase is None else f" for {figure(self.in_phase)} s"
        loop = f", loop {self.loop}" if self.loop else ""
        node = f" on the node {self.node}" if self.node else ""
        allowed = "any number" if self.allowed == float("inf") else figure(self.allowed, 6)
        used = figure(min(self.used, self.allowed), 6)  # the one too many was not made
        rows = [
            ("worker", f"{self.path} ({self.kind}, pid {self.pid}{node}, incarnation {self.incarnation})"),
            ("reason", self.reason),
            ("where", self.where),
            ("phase", f"{self.phase}{since}{loop}"),
            ("uptime", f"{figure(self.uptime)} s, after {self.restarts} restart{'s' * (self.restarts != 1)}"),
            ("verdict", f"{self.verdict}; {used} of {allowed} restarts used in {figure(self.seconds, 6)} s"),
            ("together", ", ".join(self.together)),
            ("skipped", f"{self.skipped} earlier reports, not written to disk" if self.skipped else ""),
        ]
        return [(word, text) for word, text in rows if text]

    def __str__(self) -> str:
        rows = [f"crash {self.id}  {self.when()}", *(f"  {word:<8} {text}" for word, text in self.rows())]
        if self.lines:
            rows += ["  last lines", *(f"    {one_line(line)}" for line in self.lines)]
        if self.traceback:
            rows += ["  traceback", *(f"    {line}" for line in self.traceback.rstrip().split("\n"))]
        return "\n".join(indented(row, " " * 11) for row in rows)


class CrashLog:
    """The reports of one program: the newest in memory, and all on disk, written by a thread.

    Args:
        directory: where they are written; None: `crash_directory()`.
        warn: logs that they cannot be written.
        call_later: calls a function `LATER`, in another thread: the start of a thread would hold up a restart.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        warn: Callable[..., None] = logger.warning,
        call_later: Callable[[Callable[[], None]], object] = lambda function: function(),
    ) -> None:
        self._directory = directory
        self._warn = warn
        self._call_later = call_later
        self._is_called = False
        self._clock = time.monotonic
        self._reports: deque[tuple[int, CrashReport]] = deque(maxlen=KEPT_IN_MEMORY)
        self._runs: dict[str, int] = {}  # how many trees of a name have begun
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._unwritten: deque[CrashReport] = deque()
        self._writer: threading.Thread | None = None
        self._complained = False
        self._written: deque[tuple[float, str]] = deque()  # in the last second
        self._skipped: dict[str, int] = {}

    def add(self, report: CrashReport) -> None:
        """Keep a report, and write it to disk a moment later. Never blocks, never raises."""
        self._reports.append((self.run_of(report.path.partition("/")[0]), report))
        with self._lock:
            self._unwritten.append(report)
            if self._is_called:
                return
            self._is_called = True
        self._call_later(self._start_writer)

    def _start_writer(self) -> None:
        with self._lock:
            self._is_called = False
            if self._writer is None and self._unwritten:
                writer = threading.Thread(target=self._write_all, name="suitkaise-crashes", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread can be started: the next report tries again
                    writer.start()
                    self._writer = writer

    def begin(self, tree: str) -> None:
        """Take the reports that follow for those of a new run of this tree."""
        self._runs[tree] = self.run_of(tree) + 1

    def run_of(self, tree: str) -> int:
        """Return how many trees of this name have begun: the number of the run that goes on."""
        return self._runs.get(tree, 0)

    def reports(self, under: str, run: int | None = None) -> list[CrashReport]:
        """Return the newest reports about a path and everything below it, the newest last; of one run, or of all."""
        return [
            one
            for number, one in list(self._reports)
            if (one.path == under or one.path.startswith(f"{under}/")) and run in (None, number)
        ]

    def close(self) -> None:
        """Wait until all reports are written."""
        self._closing.set()
        self._start_writer()
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.join()
        self._write_all()  # what is left, if no thread could be started

    def _next(self) -> CrashReport | None:
        with self._lock:
            if self._unwritten:
                return self._unwritten.popleft()
            self._writer = None
            return None

    def _write_all(self) -> None:
        import json

        while (report := self._next()) is not None:
            if self._is_too_much(report.path):
                continue
            try:
                fields = report.to_dict() | {"skipped": self._skipped.pop(report.path, 0)}
                _write(self._directory or crash_directory(), report.id, json.dumps(fields))
            except Exception as error:  # the next report may be written
                if not self._complained:
                    self._complained = True
                    self._warn("crash reports cannot be written to disk: %s", error)

    def _is_too_much(self, path: str) -> bool:
        now = self._clock()
        while self._written and self._written[0][0] <= now - 1.0:
            self._written.popleft()
        if sum(other == path for _, other in self._written) < PER_SECOND:
            self._written.append((now, path))
            return False
        self._skipped[path] = self._skipped.pop(path, 0) + 1
        if len(self._skipped) > KEPT_ON_DISK:
            del self._skipped[next(iter(self._skipped))]
        return True


def crash_directory() -> Path:
    """Return the directory of the reports.

    It is `crashes` in `$SUITKAISE_STATE`, else in `suitkaise` below `$XDG_STATE_HOME` (default: `~/.local/state`).

    Raises:
        OSError: neither variable is set, and there is no home directory.
    """
    from pathlib import Path  # 4 ms, as late as the first crash

    own = os.environ.get("SUITKAISE_STATE")
    if own:
        return Path(own, "crashes")
    state = os.environ.get("XDG_STATE_HOME")
    if not state:
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError:
            raise OSError("there is no home directory for crash reports; set SUITKAISE_STATE to a directory") from None
    return Path(state, "suitkaise", "crashes")


def _write(directory: Path, id: str, text: str) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = directory / f".{id}.json"
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(hidden, directory / f"{id}.json")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        raise
    # Hidden files, which programs that were killed have left, are removed in their turn, too.
    ours = [name for name in os.listdir(directory) if _NAME.fullmatch(name.removeprefix("."))]
    for name in sorted(ours, key=lambda name: name.removeprefix("."), reverse=True)[KEPT_ON_DISK:]:
        with contextlib.suppress(OSError):  # another program has just removed it
            os.unlink(directory / name)


def read_reports(directory: Path | None = None) -> tuple[list[CrashReport], int]:
    """Read all reports on disk, the newest last; return them and the number of files that are no reports."""
    found, others = [], 0
    directory = directory or crash_directory()
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory)):
            if _NAME.fullmatch(name):
                try:
                    found.append(_decode(_content(directory / name)))
                except (OSError, ValueError, RecursionError):
                    others += 1
    return found, others


def _decode(data: bytes) -> CrashReport:
    import json

    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError("a crash report is a JSON object")
    return CrashReport.from_dict(fields)


def _content(file: Path) -> bytes:
    """Return the content of a regular file; a pipe would block, and a link may lead anywhere."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
            raise ValueError(f"{file} is no crash report")
        return os.read(descriptor, LARGEST)
    finally:
        os.close(descriptor)


def _bounded(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last of the texts, as many as one field may hold; a mark in front of them stands for the rest."""
    kept: list[str] = []
    room = LONGEST_TEXT
    for text in reversed(texts):
        text = shortened(text, LONGEST_TEXT // 4)
        room -= len(text.encode("utf-8", "surrogatepass"))
        if room < LONGEST_LINE:
            kept.append(f"[... {len(texts) - len(kept)} earlier ones are left out ...]")
            break
        kept.append(text)
    return tuple(reversed(kept))


def where_of(traceback: str) -> str:
    r"""Return the file and line of the error, `app.py:31`: the innermost frame of the program's own code.

    Libraries, Python's own modules and suitkaise count only if there is no other frame; empty without any.

    Args:
        traceback: a traceback of Python, or stacks that `faulthandler` has written.

    >>> where_of('Traceback (most recent call last):\n  File "/src/app.py", line 31, in loop\n    1 / 0')
    'app.py:31'
    """
    own = traceback.partition("\n--- remote traceback ---")[0]
    if "(most recent call first)" in own:
        stack = own.partition("Current thread")[2] or own
        frames = _FRAME.findall(stack.partition("\n\n")[0])
        match frames:
            case [*_, (above, _), ("<string>", _)] if above.startswith(OURS):
                frames.pop()  # `python -c`, by which the keeper has been started
    else:
        frames = _FRAME.findall(own)[::-1]
    for file, line in [frame for frame in frames if not _is_library(frame[0])] or frames[:1]:
        return f"{os.path.basename(file)}:{line}"
    return ""


def _is_library(file: str) -> bool:
    return file.startswith(_NOT_THE_PROGRAMS) or not _INSTALLED.isdisjoint(re.split(r"[/\\]", file))


OURS: str = os.path.join(os.path.dirname(__file__), "")
"""How the paths of the files of this package begin."""
_NOT_THE_PROGRAMS = (OURS, os.path.join(os.path.dirname(os.__file__), ""), "<frozen ")
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # of a virtual environment, too
_FRAME = re.compile(r'^[ |]*File "([^"\n]+)", line (\d+)', re.MULTILINE)
_NAME = re.compile(r"[0-9a-f-]+\.json")

"""The last lines of all workers of a program: what they printed and logged, and what happened to them.

Lines are put in runs, as they arrive, and are never copied one by one: a run of a thousand lines costs about as much as
a run of one. A reader names how many lines of each worker it has seen, and gets the next ones; so a slow reader costs
nothing, and learns how many lines it has missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeAlias

from suitkaise.platform.locks import RLock

__all__ = ["EVENT", "MOST_BYTES", "MOST_LINES", "MOST_RINGS", "MOST_TOTAL", "Line", "LineSource", "LogRings", "Run",
           "is_below"]  # fmt: skip

MOST_LINES = 2_000
"""How many lines are kept of each worker."""

MOST_BYTES = 256 * 1024
"""How much text is kept of each worker, in characters, with 100 more for each run."""

MOST_TOTAL = 32 * 1024 * 1024
"""How much is kept of the whole program, counted in the same way."""

MOST_RINGS = 4_096
"""Of how many workers lines are kept; beyond, the half of them whose last lines are the oldest is forgotten."""

EVENT = "event"
"""The stream of what happened to a worker; the others are `stdout`, `stderr`, and the levels of log records."""

_RUN = 100
_EVENT = 300
_LATE = 300  # lines that may be put later than others which were said after them


class Run(NamedTuple):
    """Lines that belong together: of one stream, which have arrived at the same time.

    `texts` are the lines, or objects (events) whose text is made when it is read.
    """

    incarnation: int
    stream: str
    time: float
    texts: Sequence[Any]


Line: TypeAlias = tuple[str, int, str, float, str]
"""Path, incarnation (0: of none), stream, Unix time, and text."""


class LineSource(Protocol):
    """An incarnation that prints where the program sees it only when it looks, or listens."""

    def listen(self, on: bool) -> None:
        """Put each line that is printed from now on into the rings at once, or no longer."""

    def read_lines(self) -> Future[None] | None:
        """Put what was printed so far into the rings (reactor's thread); return what is set when that takes longer."""


class _Ring:
    """The last runs of one worker. `count` is the number of lines so far; it begins at `first`."""

    __slots__ = ("count", "first", "kept", "runs", "size")

    def __init__(self, first: int) -> None:
        self.first = first
        self.count = first
        self.kept = 0
        self.size = 0
        self.runs: deque[tuple[Run, int]] = deque()

    def drop(self) -> int:
        run, size = self.runs.popleft()
        self.kept -= len(run.texts)
        self.size -= size
        return size

    def after(self, path: str, seen: int) -> tuple[list[Line], int]:
        """Return the lines behind the first `seen` ones, and how many of them are not kept."""
        dropped = self.count - self.kept
        skip = max(0, seen - dropped)
        lines: list[Line] = []
        for run, _ in self.runs:
            if skip >= len(run.texts):
                skip -= len(run.texts)
            else:
                lines += _lines(path, run, skip)
                skip = 0
        return lines, max(0, dropped - max(seen, self.first))

    def last(self, most: int) -> list[Run]:
        """Return the last runs, newest first, which have at least `most` lines if there are so many."""
        runs: list[Run] = []
        for run, _ in reversed(self.runs):
            if most <= 0:
                break
            runs.append(run)
            most -= len(run.texts)
        return runs


class LogRings:
    """A ring for each worker, by path. Any thread may call the methods."""

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may log, too
        self._rings: dict[str, _Ring] = {}
        self._size = 0
        self._put = 0
        self._sources: dict[str, LineSource] = {}
        self._listened: tuple[str, ...] = ()
        self.on_lines: Callable[[], None] | None = None
        """Called after lines were put, in the thread that puts them; must not block."""
        self.files: dict[str, Callable[[str, Run], None]] = {}
        """By the name of a tree: called with path and run before it is put; must not block."""

    def put(self, path: str, run: Run) -> None:
        """Append lines of a worker; the oldest lines are dropped where there are too many."""
        if self.files and (write := self.files.get(path.partition("/")[0])) is not None:
            write(path, run)
        texts = run.texts
        count = len(texts)
        if count == 1:
            size = _RUN + (_EVENT if run.stream is EVENT else len(texts[0]))
        else:
            if count > MOST_LINES:
                run = run._replace(texts=texts[-MOST_LINES:])
            size = _RUN + sum(map(len, run.texts))
        with self._lock:
            ring = self._rings.get(path)
            if ring is None:
                ring = self._add(path)
            ring.runs.append((run, size))
            ring.count += count
            ring.kept += min(count, MOST_LINES)
            ring.size += size
            self._put += count
            self._size += size
            while (ring.kept > MOST_LINES or ring.size > MOST_BYTES) and len(ring.runs) > 1:
                self._size -= ring.drop()
            if self._size > MOST_TOTAL:
                self._shrink()
        on_lines = self.on_lines  # the last reader may leave meanwhile
        if on_lines is not None:
            on_lines()

    def _add(self, path: str) -> _Ring:
        """Make a ring; if there are too many, forget the half of them that was not written to for the longest time."""
        if len(self._rings) >= MOST_RINGS:
            oldest = sorted(self._rings, key=lambda name: self._rings[name].runs[-1][0].time)
            for name in oldest[: MOST_RINGS // 2]:
                self._size -= self._rings.pop(name).size
        ring = self._rings[path] = _Ring(self._put)
        return ring

    def _shrink(self) -> None:
        """Make room: the worker with the most text loses the older half of it, or all if it is a single run."""
        while self._size > MOST_TOTAL:
            path, ring = max(self._rings.items(), key=lambda one: one[1].size)
            if len(ring.runs) == 1:
                self._size -= self._rings.pop(path).size
                continue
            half = ring.size // 2
            while ring.size > half and len(ring.runs) > 1:
                self._size -= ring.drop()

    def forget(self, tree: str) -> None:
        """Forget the lines of a whole tree."""
        with self._lock:
            for path in [path for path in self._rings if is_below(path, tree)]:
                self._size -= self._rings.pop(path).size

    # ------------------------------------------------------------ what is printed
    def attach(self, path: str, source: LineSource) -> None:
        """Add the incarnation that begins at `path`."""
        with self._lock:
            self._sources[path] = source
            on = self._is_listened(path)
        if on:
            source.listen(True)

    def detach(self, path: str, source: LineSource) -> None:
        """Remove an incarnation that has ended."""
        with self._lock:
            if self._sources.get(path) is source:
                del self._sources[path]

    def listen(self, paths: Sequence[str]) -> None:
        """Listen to the workers at and below these paths, and no longer to others (but for files)."""
        with self._lock:
            self._listened = tuple(paths)
            sources = [(source, self._is_listened(path)) for path, source in self._sources.items()]
        for source, on in sources:
            source.listen(on)

    def _is_listened(self, path: str) -> bool:
        return path.partition("/")[0] in self.files or any(is_below(path, top) for top in self._listened)

    def read_lines(self, path: str) -> list[Future[None]]:
        """Put what the workers at and below `path` have printed so far into their rings (reactor's thread).

        Returns:
            One for each worker whose lines are still on their way, from another machine.
        """
        with self._lock:
            sources = [source for name, source in self._sources.items() if is_below(name, path)]
        return [late for source in sources if (late := source.read_lines()) is not None]

    # ------------------------------------------------------------ readers
    def last(self, path: str, most: int) -> tuple[list[Line], dict[str, int]]:
        """Return the last lines, at most `most` of each worker at `path` and below, and how many lines each has put."""
        with self._lock:
            rings = self._below(path)
            seen = {name: ring.count for name, ring in rings}
            last = [(name, ring.last(most + _LATE)) for name, ring in rings] if most else []
        lines: list[Line] = []
        for name, runs in last:
            own = sorted([line for run in reversed(runs) for line in _lines(name, run, 0)], key=_time)
            lines += own[-most:]
        return sorted(lines, key=_time), seen

    def after(self, path: str, seen: dict[str, int], most: int) -> tuple[list[Line], dict[str, int], dict[str, int]]:
        """Return the next lines behind those that a reader has seen, by path, at most about `most`.

        Returns:
            The lines; how many lines of each worker that had news are seen then; how many lines were skipped, since
            they are not kept any more.
        """
        lines: list[Line] = []
        now: dict[str, int] = {}
        skipped: dict[str, int] = {}
        with self._lock:
            for name, ring in self._below(path):
                before = max(seen.get(name, 0), ring.first)
                if ring.count <= before or len(lines) >= most:
                    continue
                new, missed = ring.after(name, before)
                if missed:
                    skipped[name] = missed
                new = new[: most - len(lines)]
                now[name] = before + missed + len(new)
                lines += new
        return sorted(lines, key=_time), now, skipped

    def has_after(self, path: str, seen: dict[str, int]) -> bool:
        """Return whether there are lines that the reader has not seen."""
        with self._lock:
            return any(ring.count > max(seen.get(name, 0), ring.first) for name, ring in self._below(path))

    def _below(self, path: str) -> list[tuple[str, _Ring]]:
        return [(name, ring) for name, ring in self._rings.items() if is_below(name, path)]


def is_below(path: str, top: str) -> bool:
    """Return whether `path` is `top` or below it; everything is below an empty one."""
    return not top or path == top or path.startswith(f"{top}/")


def _lines(path: str, run: Run, skip: int) -> list[Line]:
    texts = run.texts[skip:] if skip else run.texts
    if run.stream == EVENT:
        texts = [str(text).removeprefix(f"{path} ") for text in texts]
    return [(path, run.incarnation, run.stream, run.time, text) for text in texts]


def _time(line: Line) -> float:
    return line[3]

"""Index the identifiers of a folder of text files with workers that may die at any moment.

    suitkaise run supervisors/indexer.py [--root FOLDER] [--counters N] [--chaos N]

A scanner cuts the files into batches, counters share the batches through the storage, a reporter shows progress and
checks the result against a plain single-process pass. `--chaos N` kills a random worker (the storage actor included)
N times meanwhile; the totals must stay exactly the same.

Nothing is lost or counted twice: one atomic write stores the result of a batch and removes the batch and the claim on
it; and a claim belongs to an incarnation of a counter: it is removed when that incarnation dies, however it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import re
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from suitkaise import Child, Process, Signaled, Supervisor, Thread, sktree
from suitkaise.errors import EntryExists, StorageError

SUFFIXES = {".c", ".cfg", ".h", ".ini", ".js", ".md", ".py", ".pyi", ".rst", ".toml", ".txt"}
IDENTIFIER = re.compile(r"[^\W\d]\w*")
BATCH = 16
STORAGE = "sktree/storage"
TODO, CLAIMS, DONE, COUNTS, ABOUT = (
    "indexer/todo",
    "indexer/claims",
    "indexer/done",
    "indexer/counts",
    "indexer",
)


def text_files(root: str) -> list[str]:
    """List the text files below `root`, in a fixed order, without installed packages."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("site-packages", "__pycache__", ".git", ".venv"))
        found += [os.path.join(folder, name) for name in sorted(names) if Path(name).suffix in SUFFIXES]
    return found


def index(files: Iterable[str]) -> tuple[dict[str, int], Counter[str]]:
    """Count the totals of some files, and the occurrences of each identifier in them."""
    totals = {"files": 0, "lines": 0, "words": 0}
    counts: Counter[str] = Counter()
    for file in files:
        text = Path(file).read_text("utf-8", errors="replace")
        words = IDENTIFIER.findall(text)
        counts.update(words)
        totals["files"] += 1
        totals["lines"] += text.count("\n")
        totals["words"] += len(words)
    return totals, counts


class Scan(Process):
    """Finds the files and adds them to the storage in batches. A second run changes nothing."""

    restart = "transient"

    def __init__(self, root: str) -> None:
        self.root = root

    def loop(self) -> None:
        files = text_files(self.root)
        batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
        for number, batch in enumerate(batches):
            self.tree.atomically(functools.partial(self.hand_out, f"{number:05}", batch))
        self.tree.add("found", {"files": len(files), "batches": len(batches)}, path=ABOUT)
        self.rejoin()

    def hand_out(self, name: str, batch: list[str], tree: sktree.Tree) -> None:
        if tree.get(name, path=DONE, default=None) is None:
            tree.add(name, batch, path=TODO)


class Count(Process):
    """Claims a batch, counts it and stores the result, until no batch is left."""

    restart = "transient"

    def loop(self) -> None:
        batch = self.claim()
        if batch is not None:
            self.count(batch)
        elif self.tree.get("found", path=ABOUT, default=None) and not self.tree.get_all_from(TODO):
            self.rejoin()
        else:
            self.wait(0.02)

    def claim(self) -> str | None:
        waiting = sorted(self.tree.get_all_from(TODO).keys() - self.tree.get_all_from(CLAIMS).keys())
        for name in random.sample(waiting[:8], len(waiting[:8])):
            try:
                self.tree.add(name, self.name, path=CLAIMS, metadata=self.metadata, exist_ok=False)
            except EntryExists:
                continue
            return name
        return None

    def count(self, name: str) -> None:
        files = self.tree.get(name, path=TODO, default=None)
        if files is None:  # another counter finished it before this claim
            self.tree.remove(name, path=CLAIMS)
            return
        totals, counts = index(files)
        with self.tree.transaction():
            self.tree.add(name, totals, path=DONE)
            self.tree.add(name, dict(counts), path=COUNTS)
            self.tree.remove(name, path=TODO)
            self.tree.remove(name, path=CLAIMS)


class Chaos(Thread):
    """Kills a random worker each time that another part of the work is done."""

    restart = "transient"

    def __init__(self, kills: int, victims: list[str]) -> None:
        self.kills = kills
        self.victims = victims

    def loop(self) -> None:
        killed = self.tree.get("kills", path=ABOUT, default=0)
        found = self.tree.get("found", path=ABOUT, default=None)
        if killed >= self.kills:
            self.rejoin()
        elif found and len(self.tree.get_all_from(DONE)) < found["batches"] * killed / (self.kills + 1):
            self.wait(0.005)
        elif self.kill(random.choice(self.victims)):
            self.tree.increment("kills", path=ABOUT)

    def kill(self, path: str) -> bool:
        """Kill a worker; return whether that has ended it: it may have finished just before."""
        victim = self.whereis(path)
        end = victim.monitor()
        pid = victim.pid
        if pid is None:  # it is being restarted, or has finished
            end.cancel()
            self.wait(0.001)
            return False
        self.log.info("chaos kills %s (pid %d)", path, pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return isinstance(end.get(timeout=None).reason, Signaled)


class Report(Thread):
    """Shows the progress; when all batches are counted, prints and checks the result, and so ends the tree."""

    restart = "transient"
    significant = True

    def __init__(self, root: str, kills: int, workers: list[str]) -> None:
        self.root = root
        self.kills = kills
        self.workers = workers

    def on_start(self) -> None:
        self.began = self.tree.setdefault("began", time.time(), path=ABOUT)
        self.shown = 0.0

    def loop(self) -> None:
        found = self.tree.get("found", path=ABOUT, default=None)
        done = self.tree.get_all_from(DONE)
        killed = self.tree.get("kills", path=ABOUT, default=0)
        if found and len(done) == found["batches"] and self.restarts() >= killed >= self.kills:
            self.show(found, done, last=True)
            self.summary(done, killed)
            self.rejoin()
        else:
            self.show(found, done)
            self.wait(0.05)

    def show(self, found: dict[str, int] | None, done: dict[str, dict[str, int]], *, last: bool = False) -> None:
        screen = sys.stdout.isatty()
        now = time.time()
        if not last and now - self.shown < (0.1 if screen else 1.0):
            return
        self.shown = now
        totals = add_up(done.values())
        seconds = now - self.began
        line = (
            f"{totals['files']:>6,} of {found['files'] if found else 0:,} files  {totals['lines']:>9,} lines  "
            f"{totals['words'] / seconds if seconds else 0:>11,.0f} words/s  {self.restarts():>3} restarts"
        )
        print(f"\r\x1b[K{line}" if screen else line, end="" if screen and not last else "\n", flush=True)

    def restarts(self) -> int:
        return sum(self.whereis(path).incarnation - 1 for path in self.workers)

    def summary(self, done: dict[str, dict[str, int]], killed: int) -> None:
        seconds = time.time() - self.began
        totals = add_up(done.values())
        counts: Counter[str] = Counter()
        for part in self.tree.get_all_from(COUNTS).values():
            counts.update(part)
        print("\nThe twenty most frequent identifiers")
        for place, (word, times) in enumerate(counts.most_common(20), 1):
            print(f"{place:>4}. {word:<16} {times:>9,}")
        print(f"\n{totals['files']:,} files, {totals['lines']:,} lines, {totals['words']:,} words in {seconds:.1f} s")
        print(f"{self.restarts()} restarts survived" + (f", {killed} of them by chaos" if killed else ""))
        plain_totals, plain_counts = index(text_files(self.root))
        same = plain_totals == totals and plain_counts == counts
        verdict = "the same as a plain single-process pass" if same else f"WRONG: a plain pass gives {plain_totals}"
        print(f"verified: {verdict} ({len(plain_counts):,} different identifiers)", flush=True)
        if not same:
            raise StorageError("the totals differ from those of a plain pass")


def add_up(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    totals = {"files": 0, "lines": 0, "words": 0}
    for part in parts:
        for name in totals:
            totals[name] += part[name]
    return totals


def declare(root: str, counters: int = 3, chaos: int = 0) -> Supervisor:
    """Declare the tree for the given folder."""
    if not os.path.isdir(root):
        raise SystemExit(f"indexer: there is no folder {root!r}")
    workers = [
        "indexer/scan",
        *(f"indexer/counters/count-{number}" for number in range(counters)),
        STORAGE,
    ]
    patience = 3 + chaos
    children: Iterator[Child] = iter([Child(Chaos(chaos, workers))] if chaos else [])
    return Supervisor(
        "indexer",
        Child(Scan(root)),
        Supervisor(
            "counters",
            *(Child(Count, id=f"count-{number}") for number in range(counters)),
            max_restarts=patience,
        ),
        Child(Report(root, chaos, workers)),
        *children,
        strategy="rest_for_one",
        max_restarts=patience,
        auto_shutdown="any_significant",
    )


def main(arguments: list[str]) -> Supervisor:
    parser = argparse.ArgumentParser(
        prog="indexer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    standard_library = sysconfig.get_paths()["stdlib"]
    parser.add_argument(
        "--root", default=os.environ.get("SUITKAISE_INDEX_ROOT", standard_library), help="the folder to index"
    )
    parser.add_argument("--counters", type=int, default=3, help="how many counter processes (default 3)")
    parser.add_argument("--chaos", type=int, default=0, metavar="N", help="kill a random worker N times")
    options = parser.parse_args(arguments)
    return declare(options.root, options.counters, options.chaos)


if __name__ == "__main__":
    tree = main(sys.argv[1:])

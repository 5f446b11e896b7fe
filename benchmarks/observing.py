"""What it costs to be watched: the indexer with the web page, metrics and logs on, against the same without them.

On means: a page that is open and reads its event stream, a scrape of /metrics each second, and `suitkaise logs -f` of
the whole tree. The folder holds the standard library several times, so that the start of the observer (a process with a
web server, once) does not decide. Wall time tells little on a machine that is not quiet, so the second table counts the
processor time beside the work: that of all processes but the counters (the program, its storage and keeper,
the observer, `suitkaise logs`), as a share of the counters' own, between its start and the check of its result.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from support import ROOT, Row, heading, options, show

SUITKAISE = (sys.executable, "-m", "suitkaise")
LIBRARY = Path(os.__file__).parent
PLACES = {
    "page": re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)"),
    "metrics": re.compile(r"http://127\.0\.0\.1:(\d+)/healthz, /readyz and /metrics"),
}
STARTED = 3.0
"""Seconds after which the start of a program is over."""
DONE = re.compile(r"[\d,]+ files, [\d,]+ lines, [\d,]+ words in ([\d.]+) s")
"""What the indexer prints when all is counted."""


class Watchers:
    """Who watches a program until it ends. `read` counts the bytes that each of them got."""

    def __init__(self) -> None:
        self.read = {"page": 0, "metrics": 0, "logs": 0}
        self._ended = threading.Event()

    def page(self, port: str, token: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=600)
        connection.request("GET", f"/?token={token}")
        reply = connection.getresponse()
        reply.read()
        cookie = (reply.getheader("Set-Cookie") or "").partition(";")[0]
        connection.request("GET", "/events", headers={"Cookie": cookie})
        stream = connection.getresponse()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while piece := stream.read1(65536):
                self.read["page"] += len(piece)

    def metrics(self, port: str) -> None:
        while not self._ended.wait(1.0):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
                connection.request("GET", "/metrics")
                self.read["metrics"] += len(connection.getresponse().read())
                connection.close()

    def logs(self, pid: str) -> None:
        command = (*SUITKAISE, "logs", "-f", "--pid", pid, "indexer")
        self.read["logs"] += len(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)

    @contextlib.contextmanager
    def watching(self, program: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
        found: dict[str, re.Match[str]] = {}
        while len(found) < len(PLACES):
            text = log.read_text()
            found = {name: match for name, pattern in PLACES.items() if (match := pattern.search(text))}
            if program.poll() is not None:
                raise SystemExit(f"the program ended before it was watched:\n{text}")
            time.sleep(0.01)
        threads = [
            threading.Thread(target=self.page, args=found["page"].groups()),
            threading.Thread(target=self.metrics, args=found["metrics"].groups()),
            threading.Thread(target=self.logs, args=(str(program.pid),)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(30)


def fill(folder: Path, library: Path, times: int) -> None:
    """Fill a folder with links to the files of a library, several times."""
    for number in range(times):
        for file in library.rglob("*.py"):
            if "site-packages" not in file.parts:
                link = folder / str(number) / file.relative_to(library)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)


class Usage:
    """The processor time of the processes of an indexer and its watchers, until all is counted."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.first: dict[int, tuple[bool, float]] = {}
        self.last: dict[int, tuple[bool, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def _measure(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(0.5) and DONE.search(self._log.read_text()) is None:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    used = process.cpu_times()
                    self.last[process.pid] = process.name().startswith("sk:count"), used.user + used.system
            if time.monotonic() < began + STARTED:
                self.first.update(self.last)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def beside_the_work(self) -> float:
        """The time of all but the counters, as a share of the counters' time."""
        work = other = 0.0
        for pid, (counts, used) in self.last.items():
            used -= self.first.get(pid, (counts, 0.0))[1]
            work, other = (work + used, other) if counts else (work, other + used)
        return other / work


def run(folder: Path, *, watched: bool) -> tuple[float, float, dict[str, int]]:
    """Run the indexer; return its seconds, the share beside the work, and what the watchers read."""
    watch = ("--observe", "--health", "127.0.0.1:0") if watched else ()
    command = (*SUITKAISE, "run", *watch, str(ROOT / "supervisors" / "indexer.py"), "--root", str(folder))
    watchers = Watchers()
    with tempfile.TemporaryDirectory() as where:
        log = Path(where, "log")
        with log.open("wb") as out, Usage(log) as usage:
            program = subprocess.Popen(command, stdout=out, stderr=out)
            with watchers.watching(program, log) if watched else contextlib.nullcontext():
                program.wait()
        text = log.read_text()
        done = DONE.search(text)
        if program.returncode or done is None:
            raise SystemExit(f"the indexer ended with {program.returncode}:\n{text}")
    if watched and not all(watchers.read.values()):
        raise SystemExit(f"somebody saw nothing: {watchers.read}")
    return float(done[1]), usage.beside_the_work, watchers.read


def main() -> None:
    quick = options(__doc__ or "").quick
    times, rounds = (4, 1) if quick else (16, 5)
    heading("observing")
    names = {False: "nobody watches", True: "page, metrics and logs"}
    wall = {watched: Row(name, goal=1.03 if watched else None) for watched, name in names.items()}
    beside = {watched: Row(name) for watched, name in names.items()}
    read: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as where:
        fill(Path(where), LIBRARY, times)
        for _ in range(rounds):
            for watched in names:
                taken, share, read = run(Path(where), watched=watched)
                wall[watched].values.append(taken)
                beside[watched].values.append(100.0 * share)
    show(f"The indexer over {LIBRARY.name}, {times} times", "seconds", list(wall.values()))
    show("Processor time beside the work", "per cent of the work's own", list(beside.values()))
    cost = beside[True].median - beside[False].median
    print(f"  to be watched takes {cost:.1f} % more processor time (goal: at most 3)")
    print("  read in the last run: " + ", ".join(f"{name} {size:,} bytes" for name, size in read.items()))


if __name__ == "__main__":
    main()

"""What it costs to be watched: the indexer with the web page, metrics and logs on, against the same without them.

On means: a page that is open and reads its event stream, a scrape of /metrics each second, and `suitkaise logs -f` of
the whole tree. The folder holds the standard library several times, so that the start of the observer (a process with a
web server, once) does not decide. Processor time is that of the program and all of its processes, the observer's too.
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

from support import ROOT, Row, heading, options, show

SUITKAISE = (sys.executable, "-m", "suitkaise")
LIBRARY = Path(os.__file__).parent
PLACES = {
    "page": re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)"),
    "metrics": re.compile(r"http://127\.0\.0\.1:(\d+)/healthz, /readyz and /metrics"),
}


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


def run(folder: Path, *, watched: bool) -> tuple[float, float, dict[str, int]]:
    """Run the indexer; return its seconds, the processor time of all of its processes, and what the watchers read."""
    watch = ("--observe", "--health", "127.0.0.1:0") if watched else ()
    command = (*SUITKAISE, "run", *watch, str(ROOT / "supervisors" / "indexer.py"), "--root", str(folder))
    watchers = Watchers()
    with tempfile.TemporaryDirectory() as where:
        log = Path(where, "log")
        with log.open("wb") as out:
            began = time.monotonic()
            program = subprocess.Popen(command, stdout=out, stderr=out)
            with watchers.watching(program, log) if watched else contextlib.nullcontext():
                _, status, used = os.wait4(program.pid, 0)
                taken = time.monotonic() - began
            program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode:
            raise SystemExit(f"the indexer ended with {program.returncode}:\n{log.read_text()}")
    if watched and not all(watchers.read.values()):
        raise SystemExit(f"somebody saw nothing: {watchers.read}")
    return taken, used.ru_utime + used.ru_stime, watchers.read


def main() -> None:
    quick = options(__doc__ or "").quick
    library, times, rounds = (LIBRARY / "asyncio", 1, 1) if quick else (LIBRARY, 8, 7)
    heading("observing")
    names = {False: "nobody watches", True: "page, metrics and logs"}
    wall = {watched: Row(name, goal=1.03 if watched else None) for watched, name in names.items()}
    processor = {watched: Row(name, goal=1.03 if watched else None) for watched, name in names.items()}
    read: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as where:
        fill(Path(where), library, times)
        for _ in range(rounds):
            for watched in names:
                taken, used, read = run(Path(where), watched=watched)
                wall[watched].values.append(taken)
                processor[watched].values.append(used)
    show(f"The indexer over {library.name}, {times} times", "seconds", list(wall.values()))
    show("Processor time of all processes, the observer's included", "seconds", list(processor.values()))
    print("  read in the last run: " + ", ".join(f"{name} {size:,} bytes" for name, size in read.items()))


if __name__ == "__main__":
    main()

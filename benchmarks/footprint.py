"""The processor time of an import, and the memory (PSS) of idle workers and of the process that forks them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

from starting import begin, contexts, end, forkserver_ends
from support import ROOT, Row, Starts, heading, measure, options, show, starts
from workers import Idle

from suitkaise import Child, Supervisor
from suitkaise.platform.processes import children


def processor_time(code: str) -> float:
    """Return the seconds (user and system) of a new interpreter that runs `code`."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)
    return used() - before


def pss(pid: int) -> float:
    """Return the proportional set size of a process in bytes: shared pages count in parts."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024.0 for line in file if line.startswith("Pss:"))


def theirs(count: int, pipe: Starts) -> tuple[list[float], list[float]]:
    """Return the memory of workers of a forkserver, and of the forkserver."""
    processes = [begin(contexts()["forkserver"], pipe.path) for _ in range(count)]
    for _ in processes:
        pipe.next()
    from multiprocessing import forkserver

    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    memory = [pss(process.pid or 0) for process in processes], [pss(server)]
    for process in processes:
        end(process)
    return memory


def ours(count: int, pipe: Starts) -> tuple[list[float], list[float]]:
    """Return the memory of our workers, and of the keeper."""
    with Supervisor("benchmark", Child(Idle(pipe.path), id="worker", copies=count)).start() as running:
        for _ in range(count):
            pipe.next()
        time.sleep(0.5)  # until a process in reserve is there, too, which shares memory with the others
        pids = [running[f"worker-{number}"].pid or 0 for number in range(count)]
        keepers = [pid for pid in children() if pids[0] in children(pid)]
        return [pss(pid) for pid in pids], [pss(keeper) for keeper in keepers]


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("footprint")
    codes = ("pass", "import suitkaise", "from suitkaise import Child, Process, Supervisor")
    group = {code: lambda code=code: processor_time(code) for code in codes}
    show("an import: processor time of the interpreter", "ms", measure(3 if quick else 21, group), scale=1e3)
    count = 5 if quick else 50
    with starts() as pipe, forkserver_ends():
        (workers, server), (own, keeper) = theirs(count, pipe), ours(count, pipe)
    rows = [Row("forkserver", workers), Row("suitkaise", own)]
    show(f"memory of one of {count} idle workers", "MiB", rows, scale=2**-20)
    rows = [Row("forkserver", server), Row("suitkaise", keeper)]
    show("memory of the process that forks them", "MiB", rows, scale=2**-20)


if __name__ == "__main__":
    main()

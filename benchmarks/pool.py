"""`supervisors/pool.py` under load, without and with kills of its workers: requests a second, and lost requests."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import socket
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from support import heading, options

sys.path.insert(0, str(Path(__file__).parents[1]))

from suitkaise.runtime.running_tree import RunningTree
from supervisors.pool import pool

CLIENTS = 8
WORKERS = 3


@dataclass
class Load:
    """The results of all clients."""

    times: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kills: int = 0


def client(port: int, until: float, load: Load) -> None:
    """Send one request after the other, each in a connection of its own."""
    while (began := time.monotonic()) < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            if answer.status == 200 and answer.read().startswith(b"hello"):
                load.times.append(time.monotonic() - began)
            else:
                load.lost.append("cut short")
        except (OSError, http.client.HTTPException) as error:
            load.lost.append(type(error).__name__)
        finally:
            connection.close()


def killer(running: RunningTree, until: float, load: Load) -> None:
    """Kill a random worker every half a second."""
    chance = random.Random(1)
    for number in itertools.count(1):
        pause = until - time.monotonic()
        if pause <= 0.5:
            return
        time.sleep(0.5)
        pid = running[f"serve-{chance.randrange(WORKERS)}"].pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                load.kills = number


def run(seconds: float, *, kills: bool) -> Load:
    """Run the pool under load for that many seconds."""
    load = Load()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        pool(listener, workers=WORKERS).start() as running,
    ):
        until = time.monotonic() + seconds
        port = listener.getsockname()[1]
        threads = [threading.Thread(target=client, args=(port, until, load)) for _ in range(CLIENTS)]
        if kills:
            threads.append(threading.Thread(target=killer, args=(running, until, load)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return load


def main() -> None:
    seconds = 3.0 if options(__doc__ or "").quick else 30.0
    heading("pool")
    print(f"\n{CLIENTS} clients, {WORKERS} workers, {seconds:g} s each")
    print(
        f"  {'':12}  {'requests/s':>10}  {'median ms':>9}  {'99 % ms':>8}  {'killed':>6}  {'lost':>5}  most under way"
    )
    for name, kills in (("no kills", False), ("with kills", True)):
        load = run(seconds, kills=kills)
        cuts = statistics.quantiles(load.times, n=100)
        print(
            f"  {name:12}  {len(load.times) / seconds:>10.0f}  {cuts[49] * 1e3:>9.2f}  {cuts[98] * 1e3:>8.1f}  "
            f"{load.kills:>6}  {len(load.lost):>5}  {CLIENTS * load.kills}",
            flush=True,
        )
        if load.lost:
            kinds = {kind: load.lost.count(kind) for kind in sorted(set(load.lost))}
            print(f"    lost: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")


if __name__ == "__main__":
    main()

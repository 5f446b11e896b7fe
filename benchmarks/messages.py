"""Ask and tell: from the program to process workers (waiting, looping, busy) and threads, and from worker to worker.

The peers carry the same messages between two processes. Run it a second time under `taskset -c 0`: a wake-up on the
same core costs a fraction of one across cores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pykka
from message_peers import Callables, Peer, peers
from message_workers import Asker, BusyLoop, Echo, EchoThread, EmptyLoop, Point, Teller
from support import heading, measure, measure_latencies, options, show, show_latencies

from suitkaise import RunningTree, Supervisor

SMALL, LARGE = 100, 1 << 20
WAITING = "program to a worker that waits"


@dataclass
class OwnPoint:
    """The same as `Point`; it travels by value, as everything of `__main__`."""

    x: int
    y: int

    def moved(self, by: int) -> OwnPoint:
        return OwnPoint(self.x + by, self.y + by)


class EchoActor(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message


def ours(running: RunningTree) -> dict[str, Peer]:
    """Return what messages cost here, from the program to each kind of process worker."""
    workers = {WAITING: "echo", "... whose loop is empty": "empty_loop", "... whose loop takes 20 us": "busy_loop"}
    return {name: Callables(running[id].ask, running[id].tell) for name, id in workers.items()}


def small_asks(others: dict[str, Peer], running: RunningTree, rounds: int, count: int) -> None:
    asker = running["asker"]
    group: dict[str, Callable[[], list[float]]] = {
        name: lambda peer=peer: peer.asks(b"x" * SMALL, count) for name, peer in (others | ours(running)).items()
    }
    group["worker to worker"] = lambda: asker.ask(("benchmark/echo", count), timeout=60)
    goals = {WAITING: 1.5, "worker to worker": 1.3}
    show_latencies("ask a process, 100 bytes", measure_latencies(rounds, group), goals)


def large_asks(others: dict[str, Peer], running: RunningTree, rounds: int, count: int) -> None:
    asker, array = running["asker"], numpy.ones(LARGE, dtype=numpy.uint8)
    python = {name: peer for name, peer in others.items() if not name.startswith("Erlang")}
    first = "bare Unix socket, pickle"
    python = {first: python.pop(first)} | python | {WAITING: ours(running)[WAITING]}
    group: dict[str, Callable[[], list[float]]] = {
        name: lambda peer=peer: peer.asks(array, count) for name, peer in python.items()
    }
    group["worker to worker"] = lambda: asker.ask(("benchmark/echo", count, LARGE), timeout=60)
    show_latencies("ask a process, an array of 1 MiB", measure_latencies(rounds, group), {"worker to worker": 2.0})


def objects(running: RunningTree, rounds: int, count: int) -> None:
    echo = running["echo"]
    both = {"of an importable class": Point(1, 2), "of a class of __main__": OwnPoint(1, 2)}
    group = {
        name: lambda value=value: Callables(echo.ask, echo.tell).asks(value, count) for name, value in both.items()
    }
    show_latencies("ask a process, an object", measure_latencies(rounds, group))


def tells(others: dict[str, Peer], running: RunningTree, rounds: int, count: int) -> None:
    teller = running["teller"]
    group: dict[str, Callable[[], float]] = {
        name: lambda peer=peer: peer.tells(SMALL, count) for name, peer in (others | ours(running)).items()
    }
    group["worker to worker"] = lambda: teller.ask(("benchmark/echo", count), timeout=60)
    show("tell a process, 100 bytes", "messages/ms", measure(rounds, group), scale=1e-3, more_is_better=True)


def threads(running: RunningTree, rounds: int, asks: int, count: int) -> None:
    actor, worker = EchoActor.start(), running["echo_thread"]
    both = {"Pykka": Callables(actor.ask, actor.tell), "thread worker": Callables(worker.ask, worker.tell)}
    taken = measure_latencies(
        rounds, {name: lambda one=one: one.asks(b"x" * SMALL, asks) for name, one in both.items()}
    )
    show_latencies("ask a thread", taken, {"thread worker": 1.0})
    rows = measure(rounds, {name: lambda one=one: one.tells(SMALL, count) for name, one in both.items()},
                   {"thread worker": 1.0})  # fmt: skip
    show("tell a thread", "messages/ms", rows, scale=1e-3, more_is_better=True)
    actor.stop()


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("messages")
    rounds, asks, arrays, count = (3, 50, 5, 500) if quick else (15, 500, 50, 20_000)
    with contextlib.ExitStack() as opened:
        others = opened.enter_context(peers())  # forks, so before there are threads
        children = (Echo(), EmptyLoop(), BusyLoop(), EchoThread(), Asker(), Teller())
        running = opened.enter_context(Supervisor("benchmark", *children, max_restarts=0).start())
        small_asks(others, running, rounds, asks)
        large_asks(others, running, rounds, arrays)
        objects(running, rounds, asks)
        tells(others, running, rounds, count)
        threads(running, rounds, asks, count)


if __name__ == "__main__":
    main()

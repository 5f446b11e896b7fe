"""Random schedules of crashes and requests for random trees, each from one number, checked against the rules.

`python -m tests.testing.schedules SEED` replays one with all details; `... FIRST LAST` runs many.
"""

from __future__ import annotations

import functools
import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from suitkaise import DynamicSupervisor, Process, Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.exits import Crashed, ExitCode, ExitReason, Killed, Lost, Normal, Shutdown, Signaled
from suitkaise.specs import Backoff, Child
from suitkaise.testing import Behaviour
from tests.testing.observed import Observed, Order

__all__ = ["Schedule", "Work", "play", "random_schedule"]

HORIZON = 6.0
"""Virtual seconds of crashes and requests; workers that are started later run without fault."""

GOOD = Behaviour()
IDS = "abcde"
ADDED = "abxy"
REASONS: list[ExitReason] = [
    Normal(), Shutdown(), Shutdown("forced"), Crashed("loop", ValueError("x")), ExitCode(0), ExitCode(3), Signaled(9),
    Signaled(11), Killed("script"), Lost("node"),
]  # fmt: skip
FAILURES: list[ExitReason] = [Crashed("on_start", OSError("no such port")), ExitCode(1), Signaled(9), Shutdown()]


class Work(Process):
    """Has the hooks whose limits the schedules set. Never started: simulated workers run scripts."""

    def before_loop(self) -> None: ...

    def loop(self) -> None: ...

    def after_loop(self) -> None: ...


@dataclass(frozen=True)
class Schedule:
    """Everything that determines one run of one tree.

    `behaviours`: the script of the n-th incarnation at a path (the first is 1); all others do not fail. `lag`: the
    seed of the delays after which supervisors handle events; None: without delay.
    """

    tree: Supervisor
    behaviours: Mapping[tuple[str, int], Behaviour] = field(default_factory=dict)
    orders: tuple[Order, ...] = ()
    lag: int | None = None


def play(schedule: Schedule, note: Callable[[str], None] | None = None) -> Observed:
    """Run a schedule from beginning to end.

    Raises:
        Broken: a rule is broken.
    """
    launches: dict[str, int] = {}

    def behaviour(launch: Launch) -> Behaviour:
        number = launches[launch.path] = launches.get(launch.path, 0) + 1
        behaves = schedule.behaviours.get((launch.path, number), GOOD)
        return behaves if _comes_to_an_end(behaves, launch.child) else GOOD

    observed = Observed(schedule.tree, behaviour, schedule.orders, _lag(schedule.lag), note)
    observed.come_to_rest(HORIZON)
    if observed.reason is None:
        observed.stop()
    observed.end()
    return observed


def _comes_to_an_end(behaviour: Behaviour, child: Child) -> bool:
    """Return whether the incarnation certainly becomes ready or fails, and ends when it is asked to."""
    if behaviour.start_takes is None and child.start_timeout is None:
        return False
    noticed = child.receive_timeout if behaviour.hangs_in == "mailbox" else child.loop_timeout
    endless = behaviour.stop_takes is None or (behaviour.hangs is not None and noticed is None)
    return child.shutdown != "infinity" or not endless


def _lag(seed: int | None) -> Callable[[], float] | None:
    if seed is None:
        return None
    chance = random.Random(seed).random

    def lag() -> float:
        number = chance()
        return 0.0 if number < 0.7 else 0.25 if number < 0.9 else number

    return lag


# ---------------------------------------------------------------- random schedules
def random_schedule(seed: int) -> Schedule:
    """Return the schedule of a seed, the same on every machine and in every process."""
    chance = random.Random(seed)
    tree = _random_tree(chance, 2, "top")
    supervisors = _supervisors(tree)
    supervisors += [one for one in supervisors if not one[1]] * 2  # supervisors without children get more requests
    number = chance.choice((0, 0, 1, 2, 3, 5, 8))
    orders = tuple(_random_order(chance, *chance.choice(supervisors)) for _ in range(number))
    orders += _orders_about_limited(chance, _all_workers(tree, orders))
    slow = [order for order in orders if order.what in ("terminate", "recall")]
    if slow and chance.random() < 0.2:  # a kill of a child that is being stopped
        late = chance.choice(slow)
        orders += (replace(late, at=late.at + chance.choice((0.0, 0.25, 0.5)), what="kill_child"),)
    if chance.random() < 0.3:
        orders += _orders_about_links(chance, list(_all_workers(tree, orders)), [path for path, _ in supervisors])
    end = chance.random()
    if end < 0.15:
        orders += (Order(_quarter(chance, HORIZON), "top", "stop" if end < 0.1 else "kill_root"),)
        if end < 0.05:
            orders += (Order(orders[-1].at + chance.choice((0.0, 0.25, 0.5)), "top", "kill_root"),)
    lag = seed if chance.random() < 0.25 else None
    return Schedule(tree, _random_behaviours(chance, tree, orders), orders, lag)


def _random_behaviours(
    chance: random.Random, tree: Supervisor, orders: tuple[Order, ...]
) -> dict[tuple[str, int], Behaviour]:
    calm = chance.choice((0.3, 0.5, 0.7))
    behaviours = {}
    for path, child in _all_workers(tree, orders).items():
        limited = child.max_restarts is not None  # to be given up it has to crash often
        if not limited and chance.random() < 0.3:
            continue
        for number in range(1, chance.choice((3, 4, 6, 10) if limited else (1, 2, 3, 4, 6, 10)) + 1):
            if chance.random() >= (0.1 if limited else calm):
                behaviours[path, number] = _random_behaviour(chance, child, number)
    return behaviours


def _orders_about_limited(chance: random.Random, workers: dict[str, Child]) -> tuple[Order, ...]:
    """Return requests about children that may be given up: to revive them, above all (rule 78)."""
    orders = []
    for path, child in workers.items():
        if child.max_restarts is not None and chance.random() < 0.5:
            above, _, id = path.rpartition("/")
            for _ in range(chance.choice((1, 2, 3))):
                what = chance.choice(("restart", "restart", "recall", "recall", "terminate", "delete", "kill_child"))
                orders.append(Order(_quarter(chance, HORIZON), above, what, id))
    return tuple(orders)


def _orders_about_links(chance: random.Random, workers: list[str], supervisors: list[str]) -> tuple[Order, ...]:
    """Return links of workers with workers, with supervisors, and with what is not there (rule 60)."""
    orders = []
    for path in chance.choices(workers, k=chance.choice((1, 2, 4))) if workers else ():
        above, _, id = path.rpartition("/")
        other = chance.choice(chance.choice((workers, workers, supervisors)))
        at = _quarter(chance, HORIZON)
        orders.append(Order(at, above, "link", (id, other)))
        if chance.random() < 0.2:
            orders.append(Order(at, above, "trap_exits", (id, "")))
    return tuple(orders)


def _random_behaviour(chance: random.Random, child: Child, number: int) -> Behaviour:
    pick = chance.random
    start: Any = "ok"
    takes: float | None = 0.0
    fate = pick()
    if fate < (0.03 if number == 1 else 0.2):
        start = "fails"
    elif fate < (0.08 if number == 1 else 0.27):
        start = "ignores"
    if pick() < 0.3:
        takes = chance.choice((0.25, 0.5, 1.0, pick()))
        if child.start_timeout is not None and pick() < 0.3:
            takes = None
    lives = hangs = None
    if pick() < 0.75:
        lives = chance.choice((0.0, 0.25, 0.25, 0.5, 0.5, 1.0, 2.0, 3 * pick()))
    places: list[Any] = ["loop", "between_loops"] if child.loop_timeout is not None else []
    places += ["mailbox"] if child.receive_timeout is not None else []
    place = chance.choice(places) if places else "loop"
    if places and pick() < 0.5:
        hangs = chance.choice((0.0, 0.25, 1.0, pick()))
    stops: float | None = 0.0
    if pick() < (0.7 if child.finish_timeout is not None else 0.4):
        stops = chance.choice((0.25, 0.5, 1.0, 3.0, pick()))
        if child.shutdown != "infinity" and pick() < 0.3:
            stops = None
    return Behaviour(
        start, takes, lives, chance.choice(REASONS if start != "fails" else FAILURES), stops,
        Shutdown() if pick() < 0.8 else chance.choice(REASONS), hangs, place,
    )  # fmt: skip


def _quarter(chance: random.Random, most: float) -> float:
    return chance.randrange(int(4 * most) + 1) / 4 if chance.random() < 0.8 else most * chance.random()


def _random_order(chance: random.Random, path: str, ids: list[str]) -> Order:
    what = chance.choice(
        (
            "start_child", "start_child", "terminate", "terminate", "restart", "restart", "delete", "recall", "recall",
            "kill", "kill_child", "recycle",
        )
    )  # fmt: skip
    if not ids and chance.random() < 0.5:
        what = "start_child"
    id = chance.choice(ids or ADDED if chance.random() < 0.8 else ADDED)
    argument: Any = id
    if what == "start_child":
        id = chance.choice(ADDED)
        argument = Child(_random_tree(chance, 0, id)) if chance.random() < 0.1 else _random_child(chance, id, 0.1, True)
    return Order(_quarter(chance, HORIZON), path, what, argument)


def _random_tree(chance: random.Random, depth: int, name: str, significant: bool = False) -> Supervisor:
    restart = "permanent" if name == "top" else _RESTARTS[chance.randrange(4)]
    options: dict[str, Any] = {
        "max_restarts": chance.choice((0, 1, 1, 2, 3, 5, 10, math.inf)),
        "max_seconds": chance.choice((0.5, 1.0, 2.0, 5.0)),
        "restart": restart,
        "shutdown": chance.choice(("infinity", "infinity", "infinity", 0.5, 2.0, "brutal_kill")),
        "significant": significant and restart != "permanent" and chance.random() < 0.5,
    }
    if depth < 2 and chance.random() < 0.3:
        return DynamicSupervisor(name, chance.choice((None, None, 1, 2)), **options)
    auto = chance.choice(("never", "never", "never", "any_significant", "all_significant"))
    strategy = chance.choice(("one_for_one", "one_for_all", "rest_for_one"))
    children: list[Any] = []
    for id in IDS[: chance.choice((0, 1, 2, 2, 3, 3, 4, 5) if depth < 2 else (1, 2, 2, 3, 3, 4, 5))]:
        if depth and chance.random() < 0.3:
            children.append(_random_tree(chance, depth - 1, id, auto != "never"))
        else:
            copies = chance.choice((2, 2, 3)) if chance.random() < 0.15 else 1
            limited = strategy == "one_for_one"  # else SpecError (rule 78)
            children.append(_random_child(chance, id, 0.5 if auto != "never" else 0.0, limited, copies))
    return Supervisor(name, *children, strategy=strategy, auto_shutdown=auto, **options)


_RESTARTS = ("permanent", "permanent", "transient", "temporary")
_BACKOFFS = (
    Backoff(0.25, 2.0, 1.0, 0.0, 1.0), Backoff(0.5, 1.0, 1.0, 0.5, 0.5), Backoff(0.25, 3.0, 2.0, 0.1, 60.0),
    Backoff(0.0, 1.0, 1.0, 0.0, 1.0),
)  # fmt: skip
_LIMITS = (
    ("loop_timeout", 0.5), ("loop_timeout", 1.0), ("start_timeout", 0.75), ("finish_timeout", 0.75),
    ("receive_timeout", 0.5), ("receive_timeout", 1.0),
)  # fmt: skip


def _random_child(chance: random.Random, id: str, significant: float, limited: bool, copies: int = 1) -> Child:
    """Return a worker; `limited`: it may have a `max_restarts` of its own."""
    restart = _RESTARTS[chance.randrange(4)]
    window = None
    if limited and restart != "temporary" and chance.random() < 0.35:
        window = chance.choice((0, 1, 1, 2)), chance.choice((0.5, 1.0, 2.0))
    return _child(
        id,
        restart,
        chance.choice((0.5, 0.5, 2.0, 2.0, 0.0, "brutal_kill", "infinity")),
        restart != "permanent" and chance.random() < significant,
        chance.choice(_BACKOFFS) if chance.random() < 0.25 else None,
        tuple(sorted({chance.choice(_LIMITS) for _ in range(chance.choice((1, 2)))})) if chance.random() < 0.3 else (),
        copies,
        window,
    )


@functools.lru_cache(maxsize=20_000)
def _child(
    id: str,
    restart: Any,
    shutdown: Any,
    significant: bool,
    backoff: Backoff | None,
    limits: Any,
    copies: int,
    window: tuple[float, float] | None,
) -> Child:
    """Declarations are immutable, and making one takes longer than a simulated run."""
    own = {} if window is None else {"max_restarts": window[0], "max_seconds": window[1]}
    return Child(
        Work,
        id=id,
        restart=restart,
        shutdown=shutdown,
        significant=significant,
        backoff=None if restart == "temporary" else backoff,
        copies=copies,
        **dict(limits),
        **own,
    )


def _supervisors(tree: Supervisor) -> list[tuple[str, list[str]]]:
    """Return the paths of the supervisors, each with the ids of its children."""
    found = [(tree.name, [child.id for child in tree.children])]
    for child in tree.children:
        if isinstance(child.what, Supervisor):
            found += [(f"{tree.name}/{path}", ids) for path, ids in _supervisors(child.what)]
    return found


def _all_workers(tree: Supervisor, orders: tuple[Order, ...]) -> dict[str, Child]:
    """Return the workers that are declared, and those that requests add, by path."""
    workers = dict(_workers(tree, tree.name))
    for order in orders:
        if order.what == "start_child":
            child = order.argument
            if isinstance(child.what, Supervisor):
                workers |= dict(_workers(child.what, f"{order.path}/{child.id}"))
            else:
                workers.setdefault(f"{order.path}/{child.id}", child)
    return workers


def _workers(tree: Supervisor, path: str) -> list[tuple[str, Child]]:
    found: list[tuple[str, Child]] = []
    for child in tree.children:
        below = f"{path}/{child.id}"
        found += _workers(child.what, below) if isinstance(child.what, Supervisor) else [(below, child)]
    return found


# ---------------------------------------------------------------- by hand
def main(first: int, last: int | None = None) -> None:
    if last is None:
        play(random_schedule(first), print)
        return
    broken, began = [], time.process_time()
    for seed in range(first, last):
        if seed > first and (seed - first) % 50_000 == 0:
            print(f"{seed - first} schedules so far, {len(broken)} broken", flush=True)
        try:
            play(random_schedule(seed))
        except Exception as error:
            broken.append(seed)
            print(f"seed={seed}: {type(error).__name__}: {error}", flush=True)
    speed = (last - first) / (time.process_time() - began)
    print(f"{last - first} schedules, {len(broken)} broken, {speed:.0f} a second", flush=True)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))

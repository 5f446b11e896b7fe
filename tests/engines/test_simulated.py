"""The simulated engine: a virtual clock, and scripts that do their things at their times."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise import Child
from suitkaise.engines.engine import Launch
from suitkaise.engines.simulated import Behaviour, SimulatedEngine, SimulatedHandle, VirtualClock
from suitkaise.exits import Hung, Killed, Normal, Shutdown
from suitkaise.platform.board import Phase


def work() -> None: ...


def spawn(behaviour: Behaviour) -> tuple[VirtualClock, SimulatedHandle]:
    clock = VirtualClock()
    engine = SimulatedEngine(clock, lambda launch: behaviour)
    return clock, engine.spawn(Launch.of(Child(work), "tree/work", 1, 1))


def phase(handle: SimulatedHandle) -> Phase | None:
    view = handle.snapshot()
    return None if view is None else view.phase


def test_callbacks_run_in_the_order_of_their_times_then_of_the_calls() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []
    for name, when in [("c", 2.0), ("a", 1.0), ("b", 1.0), ("past", -5.0)]:
        clock.at(when, lambda name=name: seen.append((name, clock())))
    assert clock.run() == 4
    assert seen == [("past", 0.0), ("a", 1.0), ("b", 1.0), ("c", 2.0)]


def test_the_clock_stops_at_the_time_that_it_is_given() -> None:
    clock = VirtualClock()
    seen: list[float] = []
    clock.at(1.0, lambda: seen.append(clock()))
    clock.at(3.0, lambda: seen.append(clock()))
    assert (clock.run(until=2.0), clock(), seen) == (1, 2.0, [1.0])


def test_a_cancelled_callback_does_not_run() -> None:
    clock = VirtualClock()
    clock.at(1.0, pytest.fail).cancel()
    clock.run()


def test_a_simulation_that_does_not_come_to_rest_is_an_error() -> None:
    clock = VirtualClock()

    def again() -> None:
        clock.soon(again)

    again()
    with pytest.raises(RuntimeError, match="not at rest after 10 events"):
        clock.run(most=10)


def test_a_script_starts_runs_and_ends_at_its_times() -> None:
    clock, handle = spawn(Behaviour(start_takes=1.0, lives=2.0, reason=Normal()))
    assert phase(handle) is Phase.ON_START
    clock.run(until=1.5)
    assert (handle.ready.done(), phase(handle)) == (True, Phase.WAITING)
    clock.run()
    assert (clock(), handle.exited.result(0).reason, phase(handle)) == (3.0, Normal(), None)


def test_a_start_that_fails_or_is_ignored_is_never_ready() -> None:
    clock, handle = spawn(Behaviour(start="fails", reason=Killed("at once")))
    clock.run()
    assert (handle.ready.done(), handle.exited.result(0).reason) == (False, Killed("at once"))
    clock, handle = spawn(Behaviour(start="ignores"))
    clock.run()
    assert (handle.ready.done(), handle.exited.result(0).ignored) == (False, True)


def test_a_stop_takes_its_time_and_can_be_ignored() -> None:
    clock, handle = spawn(Behaviour(stop_takes=4.0))
    clock.run()
    handle.stop()
    assert phase(handle) is Phase.ON_FINISH
    clock.run()
    assert (clock(), handle.exited.result(0).reason) == (4.0, Shutdown())
    clock, handle = spawn(Behaviour(stop_takes=None))
    handle.stop()
    clock.run()
    assert handle.alive


@pytest.mark.parametrize(
    "place, seen",
    {
        "loop": (Phase.LOOP, 0, False),
        "between_loops": (Phase.WAITING, 0, True),
        "mailbox": (Phase.WAITING, 1, False),
    }.items(),
)
def test_a_script_that_hangs_is_seen_where_it_hangs(place: Any, seen: tuple[Phase, int, bool]) -> None:
    clock, handle = spawn(Behaviour(hangs=1.0, hangs_in=place))
    clock.run(until=2.0)
    view = handle.snapshot()
    assert view is not None
    assert (view.phase, view.queued, view.looping, view.since) == (*seen, 1.0)


def test_a_script_that_hangs_ignores_a_stop_but_not_a_kill() -> None:
    clock, handle = spawn(Behaviour(hangs=1.0))
    clock.run(until=2.0)
    handle.stop()
    clock.run(until=10.0)
    assert (phase(handle), handle.hanging_since) == (Phase.LOOP, 1.0)
    handle.kill_hung(Hung("loop", 1.0))
    clock.run()
    assert handle.exited.result(0).reason == Hung("loop", 1.0)


def test_only_the_first_end_counts() -> None:
    clock, handle = spawn(Behaviour(lives=1.0, reason=Normal()))
    handle.kill("first")
    clock.run()
    assert handle.exited.result(0).reason == Killed("first")

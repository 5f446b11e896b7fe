"""Rule 55 on a virtual clock: when the detector looks at a worker, and when it kills the worker."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from suitkaise import Process, Supervisor
from suitkaise.engines.engine import Exit
from suitkaise.engines.simulated import Behaviour, VirtualClock
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.exits import Hung, Normal, Signaled
from suitkaise.platform.board import Phase, SlotView
from suitkaise.platform.reactor import TimerHandle
from suitkaise.specs import Child
from suitkaise.supervision.hang_detector import EXTENSIONS, LATE, limits_of, watch
from suitkaise.testing import Simulation


def work() -> None: ...


class Works(Process):
    def before_loop(self) -> None: ...

    def loop(self) -> None: ...

    def after_loop(self) -> None: ...


class Watched:
    """A worker whose phases are a list of (time, phase), and a clock that can be late."""

    def __init__(self, *phases: tuple[float, Phase], late: float = 0.0, **limits: float) -> None:
        self.clock = VirtualClock()
        self.phases = phases
        self.late = late
        self.looks: list[float] = []
        self.hung: tuple[float, Hung] | None = None
        self.gone = False
        self.exited: Future[Exit] = Future()
        self.ready: Future[int] = Future()
        self.ready.set_result(1)
        self.looping = False
        self.started: float | None = 0.0  # when it gets its process
        self.queued: list[float] = []  # when a message comes
        self.suspension: tuple[float, float] = (0.0, 0.0)  # from when to when
        self.timers: list[TimerHandle] = []
        watch(Child(Works, **limits), self, self.clock, self.at)  # type: ignore[arg-type]

    @property
    def suspended(self) -> bool:
        return self.suspension[0] <= self.clock.now < self.suspension[1]

    def at(self, when: float, callback: Any) -> TimerHandle:
        self.timers.append(self.clock.at(when + self.late, callback))
        return self.timers[-1]

    def end(self) -> None:
        self.gone = True
        self.exited.set_result(Exit(Normal()))

    def snapshot(self) -> SlotView | None:
        if self.gone:
            return None
        self.looks.append(self.clock.now)
        since, phase = [one for one in self.phases if one[0] <= self.clock.now][-1]
        queued = sum(at <= self.clock.now for at in self.queued)
        return SlotView(1, phase, since, 0, 0.0, 0.0, 0, queued, self.looping, self.started)

    def kill_hung(self, hung: Hung) -> None:
        assert self.hung is None
        self.hung = (self.clock.now, hung)
        self.gone = True


def test_s55_a_child_without_limits_is_never_looked_at() -> None:
    watched = Watched((0.0, Phase.LOOP))
    watched.clock.run(until=1000.0)
    assert watched.looks == []


def test_s55_each_limit_is_that_of_its_phase() -> None:
    child = Child(Works, start_timeout=1, before_loop_timeout=2, loop_timeout=3, after_loop_timeout=4,
                  receive_timeout=5, finish_timeout=6)  # fmt: skip
    assert {phase.hook: limit for phase, limit in limits_of(child).items()} == {
        "on_start": 1, "before_loop": 2, "loop": 3, "after_loop": 4, "on_receive": 5, "handle_timeout": 5,
        "on_finish": 6,
    }  # fmt: skip


@pytest.mark.parametrize("began", [0.0, 0.1, 0.29, 0.31, 5.55])
def test_s55_a_phase_that_outlasts_its_limit_is_noticed_right_then(began: float) -> None:
    watched = Watched((0.0, Phase.WAITING), (began, Phase.LOOP), loop_timeout=0.3)
    watched.clock.run(until=10.0)
    assert watched.hung is not None
    when, hung = watched.hung
    assert when == pytest.approx(began + 0.3)
    assert (hung.phase, hung.seconds) == ("loop", pytest.approx(0.3))


def test_s55_a_short_limit_does_not_shorten_a_long_one() -> None:
    watched = Watched((0.0, Phase.LOOP), (4.0, Phase.ON_RECEIVE), loop_timeout=5.0, receive_timeout=0.5)
    watched.clock.run(until=10.0)
    assert watched.hung is not None
    assert watched.hung[0] == pytest.approx(4.5)
    assert watched.hung[1].phase == "on_receive"


def test_s55_a_healthy_worker_is_looked_at_once_in_each_limit() -> None:
    watched = Watched((0.0, Phase.WAITING), loop_timeout=0.5)
    watched.clock.run(until=100.0)
    assert watched.hung is None
    assert len(watched.looks) == 200


def test_s55_the_looks_end_with_the_incarnation() -> None:
    watched = Watched((0.0, Phase.WAITING), loop_timeout=0.5)
    watched.clock.run(until=1.0)
    watched.gone = True
    assert watched.clock.run() == 1


@pytest.mark.parametrize(
    "phases",
    [
        [(0.0, Phase.BOOT)],
        [(0.0, Phase.BOOT), (1.5, Phase.ON_START)],
        [(0.0, Phase.BOOT), (0.5, Phase.ON_START), (1.0, Phase.WAITING)],  # it has not reported that it is up
    ],
)
def test_s55_the_limit_of_a_start_runs_from_the_fork_whatever_the_process_has_come_to(phases: Any) -> None:
    watched = Watched(*phases, start_timeout=2.0)
    watched.ready, watched.started = Future(), 0.5
    watched.clock.run(until=10.0)
    assert watched.hung == (2.5, Hung("on_start", 2.0))


def test_s55_a_worker_that_has_no_process_yet_does_not_hang() -> None:
    watched = Watched((0.0, Phase.BOOT), start_timeout=2.0)
    watched.ready, watched.started = Future(), None
    watched.clock.run(until=100.0)
    assert watched.hung is None  # its keeper may just start, and is watched by itself


def test_s55_a_start_without_a_limit_may_take_any_time() -> None:
    watched = Watched((0.0, Phase.ON_START), loop_timeout=0.5, receive_timeout=0.5)
    watched.ready, watched.started = Future(), 0.1
    watched.queued = [0.0]
    watched.clock.run(until=100.0)
    assert watched.hung is None


def test_s55_a_worker_with_a_loop_that_stands_between_two_hooks_is_judged_by_its_loop_timeout() -> None:
    watched = Watched((0.0, Phase.LOOP), (0.2, Phase.WAITING), loop_timeout=0.5)
    watched.looping = True
    watched.clock.run(until=10.0)
    assert watched.hung == (1.0, Hung("waiting", 0.5))  # seen at 0.5


def test_s55_a_worker_that_leaves_a_message_unread_is_judged_by_its_receive_timeout() -> None:
    watched = Watched((0.0, Phase.WAITING), receive_timeout=0.5)
    watched.queued = [50.2]
    watched.clock.run(until=100.0)
    assert watched.hung == (51.0, Hung("waiting", 0.5))  # seen at 50.5


def test_s55_a_message_that_comes_after_a_long_rest_has_all_of_its_time() -> None:
    watched = Watched((0.0, Phase.WAITING), loop_timeout=100.0, receive_timeout=0.5)
    watched.looping, watched.queued = True, [50.2]
    watched.clock.run(until=99.0)
    assert watched.hung == (51.0, Hung("waiting", 0.5))  # seen at 50.5


def test_s55_a_message_that_waits_for_the_end_of_a_loop_is_no_hang() -> None:
    watched = Watched((0.0, Phase.LOOP), receive_timeout=0.5)
    watched.looping, watched.queued = True, [1.0]
    watched.clock.run(until=100.0)
    assert watched.hung is None


def test_s55_a_suspended_worker_is_judged_from_the_end_of_its_suspension() -> None:
    watched = Watched((0.0, Phase.WAITING), loop_timeout=0.5, receive_timeout=0.5)
    watched.looping, watched.queued, watched.suspension = True, [1.0], (0.0, 20.0)
    watched.clock.run(until=100.0)
    assert watched.hung == (20.5, Hung("waiting", 0.5))


def test_s55_a_worker_that_comes_to_rest_again_and_again_does_not_hang() -> None:
    watched = Watched(*[(0.3 * number, Phase.WAITING) for number in range(300)], loop_timeout=0.5, receive_timeout=0.5)
    watched.looping, watched.queued = True, [0.0]
    watched.clock.run(until=89.0)
    assert watched.hung is None


def test_s55_a_late_look_gives_the_worker_the_whole_time_again() -> None:
    watched = Watched((0.0, Phase.LOOP), (11.9, Phase.WAITING), loop_timeout=1.0, late=10.0)
    watched.clock.run(until=0.5)
    watched.late = 0.0  # the program is suspended at once, and continues after ten seconds
    watched.clock.run(until=20.0)
    assert watched.looks[:2] == [11.0, 12.0]
    assert watched.hung is None


def test_s55_a_hung_worker_is_killed_even_if_every_look_is_late() -> None:
    watched = Watched((0.0, Phase.LOOP), loop_timeout=1.0, late=2 * LATE)
    watched.clock.run(until=100.0)
    assert watched.hung is not None
    assert len(watched.looks) == EXTENSIONS + 1


def test_s55_a_worker_that_makes_progress_is_never_killed_even_if_every_look_is_late() -> None:
    phases = [(2.0 * number, Phase.LOOP) for number in range(100)]  # each is over its limit when the look comes
    watched = Watched(*phases, loop_timeout=0.5, late=1.4)
    watched.clock.run(until=200.0)
    assert len([look for look in watched.looks if look % 2.0 > 0.5]) > EXTENSIONS
    assert watched.hung is None


def test_s55_a_hung_child_is_restarted_by_the_rules() -> None:
    def behaviour(launch: Any) -> Behaviour:
        return Behaviour(hangs=1.0) if launch.number == 1 else Behaviour()

    simulation = Simulation(Supervisor("app", Child(work, loop_timeout=0.5)), behaviour)
    simulation.run(until=10.0)
    ends = [event for event in simulation.events if isinstance(event, ChildExited)]
    assert [(event.at, event.reason) for event in ends] == [(1.5, Hung("loop", 0.5))]
    assert [event.restarts for event in simulation.events if isinstance(event, ChildStarted)] == [0, 1]


def test_s55_a_worker_that_exits_in_time_has_not_hung() -> None:
    tree = Supervisor("app", Child(work, loop_timeout=0.5, restart="temporary"))
    simulation = Simulation(tree, lambda launch: Behaviour(hangs=1.0, lives=1.4, reason=Signaled(9)))
    simulation.run(until=10.0)
    assert [e.reason for e in simulation.events if isinstance(e, ChildExited)] == [Signaled(9)]


def test_s55_the_exit_of_an_incarnation_cancels_its_timer_at_once() -> None:
    watched = Watched((0.0, Phase.LOOP), loop_timeout=3600.0, receive_timeout=10.0)
    watched.clock.run(until=15.0)
    assert [timer.waits for timer in watched.timers] == [False, True]
    watched.end()
    assert [timer.waits for timer in watched.timers] == [False, False]


def test_s55_an_incarnation_that_exits_during_a_look_is_not_watched_any_longer() -> None:
    watched = Watched((0.0, Phase.WAITING), loop_timeout=10.0)
    watched.snapshot = lambda: (Watched.snapshot(watched), watched.end())[0]  # type: ignore[method-assign, func-returns-value]
    watched.clock.run(until=15.0)
    assert [timer.waits for timer in watched.timers] == [False, False]

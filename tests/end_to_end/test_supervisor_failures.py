"""Supervisors with an internal error, with requests at their last moment, and with status requests during changes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, Shutdown, Status, Supervisor, Thread, WorkerDead, WorkerRef
from suitkaise.errors import SuitkaiseError, TreeFailed
from suitkaise.events import ChildExited, Event, SupervisorStarted, SupervisorStopped, SupervisorStopping
from suitkaise.exits import Crashed
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import next_event
from tests.sample_workers import Echo
from tests.support import eventually, in_background, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LINKED = 300  # two ends a link, some calls each: more than fit on one stack


class Idle(Thread): ...


class Linked(Thread):
    """Links to the worker that was started before it."""

    def __init__(self, before: WorkerRef | None) -> None:
        self.before = before

    def on_start(self) -> None:
        if self.before is not None:
            self.link(self.before)


class Brief(Thread):
    def loop(self) -> None:
        self.rejoin()


@pytest.fixture
def at_the_event() -> Iterator[Callable[[type[Event], str, Callable[[], None]], None]]:
    """Return a function that arranges a call in the supervisor's own thread when an event is published."""
    with Supervisor("other").start():
        bus = runtime.enter().bus
        runtime.leave()

        def arrange(kind: type[Event], path: str, what: Callable[[], None]) -> None:
            def listen(event: Event) -> None:
                if isinstance(event, kind) and event.path == path:
                    bus.unsubscribe(listen)
                    what()

            bus.subscribe(listen)

        yield arrange


def raise_a_fault(event: Any, now: float) -> Any:
    raise ZeroDivisionError("a fault in the supervisor itself")


def break_supervisor(running: RunningTree, path: str = "") -> None:
    """Make the supervisor at `path` fail while it handles a request."""
    executor = running._supervisor(path)
    executor.policy.handle = raise_a_fault  # type: ignore[method-assign]
    executor.administer("terminate", "w")


def test_a_request_after_the_last_event_of_a_supervisor_is_refused(at_the_event: Any) -> None:
    running = Supervisor("app", Child(Idle, id="w")).start()
    answers = []
    at_the_event(SupervisorStopped, "app", lambda: answers.append(running._root.administer("terminate", "w")))
    running.stop()
    with pytest.raises(WorkerDead, match="supervisor 'app' has ended"):
        answers[0].get(15)


@pytest.mark.parametrize("worker", [Idle, Echo])
def test_s68_a_supervisor_with_an_internal_error_ends_its_children_and_is_restarted(worker: Any) -> None:
    inner = Supervisor("inner", Child(worker, id="w"), Supervisor("deeper", Child(worker, id="w")))
    with Supervisor("app", inner).start() as running, running.events() as events:
        before = [running["inner/w"], running["inner/deeper/w"]]
        pids = [ref.pid for ref in before]
        break_supervisor(running, "inner")
        end = next_event(events, ChildExited, "inner")
        assert isinstance(end.reason, Crashed)
        assert "a fault in the supervisor itself" in str(end.reason)
        next_event(events, SupervisorStarted, "inner")
        eventually(lambda: all(ref.incarnation == 2 for ref in before))
        if worker is Echo:
            for pid in pids:
                wait_gone(pid)
            assert running["inner/w"].ask("again", timeout=15) == "again"


def test_s68_a_root_with_an_internal_error_ends_the_tree_with_an_error() -> None:
    running = Supervisor("app", Child(Echo, id="w"), Supervisor("inner", Child(Echo, id="w"))).start()
    refs = [running["w"], running["inner/w"]]
    pids = [ref.pid for ref in refs]
    with running.events() as events:
        break_supervisor(running)
        reason = running.wait(10)
        assert isinstance(reason, Crashed)
        assert "a fault in the supervisor itself" in str(reason)
        last = list(events)[-1]
    assert (type(last), last.path) == (SupervisorStopped, "app")
    for pid in pids:
        wait_gone(pid)
    for ref in refs:
        with pytest.raises(SuitkaiseError):
            ref.ask("there?", timeout=15)
    assert isinstance(running.stop(), Crashed)


class Breaker(Thread):
    def on_start(self) -> None:
        now = runtime.current()
        assert now is not None
        self.bus = now.bus
        self.bus.subscribe(self.listen)

    def listen(self, event: Event) -> None:
        if isinstance(event, SupervisorStarted):
            self.bus.unsubscribe(self.listen)
            executor = runtime.running_trees()["app"]
            executor.policy.handle = raise_a_fault  # type: ignore[method-assign]
            executor.administer("terminate", "w")


def test_s68_run_raises_when_the_root_has_an_internal_error() -> None:
    with pytest.raises(TreeFailed, match="'app' failed: ZeroDivisionError in supervisor: a fault in the") as caught:
        Supervisor("app", Child(Idle, id="w"), Child(Breaker, id="breaker")).run()
    assert "ZeroDivisionError" in "".join(caught.value.__notes__)


def test_s68_pending_requests_to_a_failing_supervisor_are_refused() -> None:
    with Supervisor("app", Supervisor("inner", Child(Idle, id="w"))).start() as running:
        executor = running._supervisor("inner")
        executor.policy.handle = raise_a_fault  # type: ignore[method-assign]
        for answer in [executor.administer("terminate", "w") for _ in range(3)]:
            with pytest.raises(WorkerDead):
                answer.get(15)


def test_a_long_chain_of_linked_workers_ends_when_one_of_them_ends() -> None:
    with DynamicSupervisor("app").start() as running:
        refs: list[WorkerRef] = []
        for _ in range(LINKED):
            refs.append(running.start_child(Child(Linked, args=(refs[-1] if refs else None,), restart="temporary")))
        refs[0].kill()
        for ref in refs:
            ref.join(timeout=10)
        eventually(lambda: running.count_children().active == 0)


def test_the_status_of_a_tree_can_be_read_while_children_start_and_end() -> None:
    with Supervisor("app", DynamicSupervisor("pool", max_restarts=1_000_000)).start() as running:
        over = threading.Event()

        def churn() -> None:
            while not over.is_set():
                running.start_child(Child(Brief, restart="temporary"), under="pool")

        every, often = sys.getswitchinterval(), 1e-5
        sys.setswitchinterval(often)
        churning = [in_background(churn) for _ in range(3)]
        try:
            for _ in range(300):
                running.status()
                running.which_children("pool")
                list(running)
        finally:
            over.set()
            sys.setswitchinterval(every)
            for one in churning:
                one.result(10)


def test_a_subscription_made_at_the_last_event_ends(at_the_event: Any) -> None:
    running = Supervisor("app", Child(Idle, id="w")).start()
    late = []
    at_the_event(SupervisorStopped, "app", lambda: late.append(running.events()))
    running.stop()
    assert in_background(lambda: list(late[0])).result(15) == []


def test_a_subscription_that_has_ended_with_its_tree_is_not_kept() -> None:
    with Supervisor("other").start():
        bus = runtime.enter().bus
        runtime.leave()
        before = len(bus._listeners)
        running = Supervisor("app", Child(Idle, id="w")).start()
        events = running.events()
        running.stop()
        assert isinstance(list(events)[-1], SupervisorStopped)
        assert len(bus._listeners) == before


def test_the_status_of_the_root_follows_its_start_and_stop(at_the_event: Any) -> None:
    running = Supervisor("app", Child(Idle, id="w")).start()
    seen = [running.status().status]
    at_the_event(SupervisorStopping, "app", lambda: seen.append(running.status().status))
    assert isinstance(running.stop(), Shutdown)
    assert [*seen, running.status().status] == [Status.RUNNING, Status.STOPPING, Status.STOPPED]

"""The policy of dynamic supervisors against an independent, deliberately naive model, driven by hypothesis."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from suitkaise import DynamicSupervisor
from suitkaise.events import SupervisorGaveUp
from suitkaise.exits import Normal, Shutdown
from suitkaise.policy.actions import Ignored, Ready, StartChild, StopAll
from suitkaise.specs import Child
from tests.policy.driver import BOOM, Driver, Instance, work
from tests.policy.effort import patience, search
from tests.policy.naive_dynamic_model import NaiveDynamicChild, NaiveDynamicSupervisor
from tests.policy.test_model import REQUESTS, short

pytestmark = patience

IDS = st.sampled_from(["a", "b", "c", "work-2", "work-5"])
NEWS = st.tuples(st.sampled_from(["up", "up", "up", "boom", "clean", "ignore"]), st.integers(0, 9))
ASKED = st.tuples(st.sampled_from(sorted(REQUESTS)), IDS)
SECONDS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 2.25, 10.0])  # sums of these are exact


@st.composite
def specs(draw: st.DrawFn) -> Child:
    restart: Any = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
    return Child(
        work,
        id=draw(st.one_of(IDS, IDS, st.none())),
        restart=restart,
        significant=restart != "permanent" and draw(st.integers(0, 9)) == 0,
        shutdown=draw(st.sampled_from([1.0, 2.0, "brutal_kill", "infinity"])),
    )


class PatientDriver(Driver):
    """Starts and stops last until the test ends them; kills succeed at once."""

    def start_outcome(self, instance: Instance) -> str:
        return "waits"

    def stop_outcome(self, instance: Instance) -> str:
        return "waits"


class DynamicAgainstTheModel(RuleBasedStateMachine):
    @initialize(
        most=st.sampled_from([None, None, 0, 1, 2, 4]),
        max_restarts=st.sampled_from([0, 1, 3, 5, math.inf]),
        max_seconds=st.sampled_from([0.5, 2.0, 10.0]),
    )
    def declare(self, most: int | None, max_restarts: float, max_seconds: float) -> None:
        spec = DynamicSupervisor("pool", most, max_restarts=max_restarts, max_seconds=max_seconds)
        self.driver = PatientDriver(spec)
        self.model = NaiveDynamicSupervisor(math.inf if most is None else most, max_restarts, max_seconds)

    # ------------------------------------------------------------ what happens
    @rule(spec=specs())
    def start_child(self, spec: Child) -> None:
        self.happen([("start_child", spec)])

    @rule(asked=ASKED)
    def request(self, asked: Any) -> None:
        self.happen([asked])

    @rule(news=NEWS)
    def news_of_a_child(self, news: Any) -> None:
        self.happen([news])

    @rule(steps=st.lists(st.one_of(NEWS, NEWS, ASKED, st.tuples(st.just("start_child"), specs())), max_size=6))
    def all_at_once(self, steps: list[Any]) -> None:
        self.happen(steps)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.driver.advance(seconds)
        self.model.pass_time(seconds)

    @precondition(lambda self: len(self.driver.starts) > 4)
    @rule(steps=st.lists(NEWS, max_size=2))
    def stop(self, steps: list[Any]) -> None:
        self.driver.post(StopAll(Shutdown("asked")))
        self.model.mailbox.append(("stop",))
        self.happen(steps)

    def happen(self, steps: list[tuple[str, Any]]) -> None:
        """The same for both, and no event is handled before all have happened."""
        for what, about in steps:
            if what == "start_child":
                one = NaiveDynamicChild(
                    about.id if about.id_given else None, about.restart, about.significant, about.shutdown
                )
                self.tell("request", self.driver.post_request(StartChild, about), what, one)
            elif what in REQUESTS:
                self.tell("request", self.driver.post_request(REQUESTS[what], about), what, about)
            else:
                self.news(what, about)
        self.driver.settle()
        self.model.settle()

    def news(self, what: str, which: int) -> None:
        """What a child does; `which` picks one that is alive and could do it."""
        driver = self.driver
        able = [
            instance
            for instance in driver.instances.values()
            if what in ("boom", "clean") or not (instance.ready or instance.asked)
        ]
        if not able:
            return
        instance = able[which % len(able)]
        if what == "up":
            instance.ready = True
            driver.post(Ready(instance.id, instance.incarnation))
        else:
            self.model.children[instance.id].dead = True
        if what == "ignore":
            del driver.instances[instance.id]
            driver.post(Ignored(instance.id, instance.incarnation))
        elif what != "up":
            driver.post_exit(instance.id, Normal() if what == "clean" else BOOM)
        self.tell("news", what, instance.id, instance.nth)

    def tell(self, *message: Any) -> None:
        self.model.mailbox.append(message)

    # ------------------------------------------------------------ what must be the same
    @invariant()
    def both_agree(self) -> None:
        driver, model = self.driver, self.model
        states = {"waiting": "restarting", "again": "restarting"}
        shown = {id: states.get(one.state, one.state) for id, one in model.children.items()}
        alive = {id: status for id, status in driver.statuses().items() if status in (*shown.values(), "running")}
        assert alive == shown
        assert (driver.ended is not None) == model.ended
        assert [event.child for event in driver.events_of(SupervisorGaveUp)] == ([model.culprit] * bool(model.culprit))
        assert [start.child.id for start in driver.starts] == model.started
        assert driver.stops == model.stopped
        assert {number: short(answer) for number, answer in driver.answers.items()} == model.answers
        if driver.spec.max_restarts != math.inf:
            assert driver.policy.restarts_used(driver.now) == model.restarts_used()

    @invariant()
    def the_alive_are_the_alive(self) -> None:
        alive = {id for id, one in self.model.children.items() if one.state != "waiting"}
        assert set(self.driver.instances) == alive

    @invariant()
    def what_is_over_leaves_no_line_behind(self) -> None:
        waiting = {id for id, line in self.model.waiting.items() if line} | set(self.model.busy)
        assert set(self.driver.policy._queues) == waiting  # type: ignore[attr-defined]


DynamicAgainstTheModel.TestCase.settings = search(examples=150, steps=40)
TestDynamicAgainstTheModel = DynamicAgainstTheModel.TestCase

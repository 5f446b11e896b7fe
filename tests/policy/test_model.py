"""The policy agrees with the naive model: random supervisors, random events, the same script for both.

The engine of the driver answers before the next thing happens: a supervisor that blocks would see the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from suitkaise.events import ChildStopError
from suitkaise.exits import ExitReason, GaveUp, Normal, Shutdown, StartFailure
from suitkaise.policy.actions import DeleteChild, Recall, Refuse, RestartChild, StartChild, StopAll, TerminateChild
from suitkaise.specs import Child
from tests.policy.driver import BOOM, Driver, Instance, child, supervisor
from tests.policy.effort import patience, search
from tests.policy.naive_model import NaiveChild, NaiveSupervisor, Outcomes, StopOutcomes

pytestmark = patience

PATIENCE = 2.0
REQUESTS: dict[str, Any] = {
    "terminate_child": TerminateChild,
    "restart_child": RestartChild,
    "delete_child": DeleteChild,
    "recall": Recall,
}
IDS = st.sampled_from("abcdxy")
COPIES = ["p-0", "p-1", "p-2"]
ALL_IDS = st.sampled_from([*"abcdxy", *COPIES])
SECONDS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 2.25, 10.0])  # sums of these are exact
STARTS = st.lists(st.sampled_from(["fails", "fails", "ignore", "ok"]), min_size=1, max_size=4)
LIMITS: st.SearchStrategy[dict[str, float]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"max_restarts": st.sampled_from([0, 1, 2]), "max_seconds": st.sampled_from([0.5, 2.0])}),
)
STOPS = st.lists(st.sampled_from(["odd", "waits", "clean"]), min_size=1, max_size=2)


@st.composite
def specs(draw: st.DrawFn, ids: st.SearchStrategy[str], significant: bool, limited: bool) -> Child:
    restart = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
    options = draw(LIMITS) if limited and restart != "temporary" else {}
    return child(
        draw(ids),
        restart,
        **options,
        significant=restart != "permanent" and significant and draw(st.booleans()),
        shutdown=draw(st.sampled_from([PATIENCE, "brutal_kill"])),
    )


def naive_child(spec: Child) -> NaiveChild:
    copy_of = None if spec.copy is None else spec.id.rpartition("-")[0]
    brutal = spec.shutdown == "brutal_kill"
    return NaiveChild(spec.id, spec.restart, spec.significant, brutal, copy_of, spec.max_restarts, spec.max_seconds)


class ScriptedDriver(Driver):
    """Its engine reads from the script what the model reads there."""

    outcomes: Outcomes
    stop_outcomes: StopOutcomes
    brisk = False

    def start_outcome(self, instance: Instance) -> str:
        return self.outcomes.get((instance.id, instance.nth), "ok")

    def stop_outcome(self, instance: Instance) -> str:
        outcome = self.stop_outcomes.get((instance.id, instance.nth), "clean")
        return "clean" if self.brisk and outcome == "waits" else outcome

    def come_to_rest(self) -> None:
        """Let the time pass that children take to be killed."""
        self.settle()
        while any(instance.asked for instance in self.instances.values()):
            self.advance(self.next_timer().at - self.now)


def kind_of_end(reason: ExitReason | None) -> tuple[str | None, str | None]:
    match reason:
        case None:
            return None, None
        case Shutdown(GaveUp(path)):
            return "gave up", path.removeprefix("top/")
        case Shutdown(StartFailure(path)):
            return "start failure", path.removeprefix("top/")
        case Shutdown("asked"):
            return "stop", None
        case Shutdown(detail) if str(detail).startswith("auto-shutdown"):
            return "auto-shutdown", None
    raise AssertionError(f"no supervisor ends like this: {reason}")


class AgainstTheModel(RuleBasedStateMachine):
    @initialize(
        data=st.data(),
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        auto_shutdown=st.sampled_from(["never", "never", "any_significant", "all_significant"]),
        max_restarts=st.sampled_from([0, 1, 2, 3, 5, math.inf]),
        max_seconds=st.sampled_from([0.5, 2.0, 10.0]),
    )
    def declare(
        self, data: st.DataObject, strategy: Any, auto_shutdown: Any, max_restarts: float, max_seconds: float
    ) -> None:
        self.significant = auto_shutdown != "never"
        limited = strategy == "one_for_one"
        several = st.lists(specs(IDS, self.significant, limited), max_size=5, unique_by=lambda spec: spec.id)
        declared = data.draw(several, label="children")
        if data.draw(st.booleans(), label="with copies"):
            copies = data.draw(specs(st.just("p"), self.significant, limited)).replace(
                copies=data.draw(st.integers(2, 3))
            )
            declared.insert(data.draw(st.integers(0, len(declared))), copies)
            declared = [one for spec in declared for one in spec.expanded()]
        self.outcomes: Outcomes = {}
        for spec in declared:
            if data.draw(st.integers(0, 9)) == 0:
                self.outcomes[spec.id, 1] = data.draw(st.sampled_from(["fails", "ignore"]), label=spec.id)
        self.stop_outcomes: StopOutcomes = {}
        options = {
            "strategy": strategy,
            "auto_shutdown": auto_shutdown,
            "max_restarts": max_restarts,
            "max_seconds": max_seconds,
        }
        self.driver = ScriptedDriver(supervisor(*declared, **options), begin_now=False)
        self.driver.outcomes, self.driver.stop_outcomes = self.outcomes, self.stop_outcomes
        naive_children = [naive_child(spec) for spec in declared]
        self.model = NaiveSupervisor(naive_children, self.outcomes, self.stop_outcomes, PATIENCE, **options)
        self.driver.begin()
        self.driver.come_to_rest()
        self.model.begin()

    # ------------------------------------------------------------ what is to come
    @rule(id=ALL_IDS, outcomes=STARTS)
    def the_next_starts(self, id: str, outcomes: list[Any]) -> None:
        for number, outcome in enumerate(outcomes, self.driver.starts_of[id] + 1):
            self.outcomes[id, number] = outcome

    @rule(id=ALL_IDS, outcomes=STOPS)
    def the_next_stops(self, id: str, outcomes: list[Any]) -> None:
        for number, outcome in enumerate(outcomes, max(self.driver.starts_of[id], 1)):
            self.stop_outcomes[id, number] = outcome

    # ------------------------------------------------------------ what happens
    @rule(id=ALL_IDS, clean=st.booleans())
    def exit(self, id: str, clean: bool) -> None:
        self.happen([("exit", id, clean)])

    @rule(what=st.sampled_from(list(REQUESTS)), id=ALL_IDS)
    def request(self, what: str, id: str) -> None:
        self.happen([(what, id)])

    @rule(data=st.data())
    def start_child(self, data: st.DataObject) -> None:
        wild = self.significant or data.draw(st.integers(0, 9)) == 0
        self.happen([("start_child", data.draw(specs(IDS, wild, wild or self.driver.spec.strategy == "one_for_one")))])

    @rule(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("exit"), ALL_IDS, st.booleans()),
                st.tuples(st.just("exit"), ALL_IDS, st.booleans()),
                st.tuples(st.sampled_from(list(REQUESTS)), ALL_IDS),
                st.tuples(st.just("start_child"), specs(IDS, False, False)),
            ),
            min_size=2,
            max_size=5,
        )
    )
    def all_at_once(self, steps: list[tuple[Any, ...]]) -> None:
        if self.driver.spec.strategy == "one_for_one":  # there, requests do not delay the restarts of other children
            steps.sort(key=lambda step: step[0] != "exit")
        self.happen(steps, brisk=self.driver.spec.strategy == "one_for_one")

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.driver.advance(seconds)
        self.model.now += seconds

    @precondition(lambda self: self.driver.ended is None and self.driver.now > 5)
    @rule()
    def stop(self) -> None:
        self.driver.post(StopAll(Shutdown("asked")))
        self.model.deliver("stop")
        self.happen([])

    def happen(self, steps: Iterable[tuple[Any, ...]], brisk: bool = False) -> None:
        """The same for both, in this order, and no event is handled before all have happened."""
        driver, model = self.driver, self.model
        driver.brisk = model.brisk = brisk
        for step in steps:
            match step:
                case ("exit", id, clean):
                    if id in driver.instances:
                        model.deliver("exit", id, driver.instances[id].nth, clean)
                        driver.post_exit(id, Normal() if clean else BOOM)
                case ("start_child", spec):
                    model.deliver("start_child", driver.post_request(StartChild, spec), naive_child(spec))
                case (what, id):
                    model.deliver(what, driver.post_request(REQUESTS[what], id), id)
        driver.come_to_rest()
        model.settle()

    # ------------------------------------------------------------ what must be the same
    @invariant()
    def both_agree(self) -> None:
        driver, model = self.driver, self.model
        assert (*kind_of_end(driver.ended),) == (model.end, model.culprit)
        assert [(id, rough(status)) for id, status in driver.statuses().items()] == model.which_children()
        assert [start.child.id for start in driver.starts] == model.started
        assert driver.stops == model.stopped
        assert driver.now == model.now
        assert driver.answers.keys() == model.answers.keys()
        for number, answer in driver.answers.items():
            assert short(answer) in model.answers[number].split("/")
        if driver.spec.max_restarts != math.inf:
            assert driver.policy.restarts_used(driver.now) == model.restarts_used()
        odd = [event for event in driver.events_of(ChildStopError) if event.reason is not BOOM]
        # copies stop at the same time, so the order of their errors is not promised (rule 82)
        assert sorted(event.path.removeprefix("top/") for event in odd) == sorted(model.stop_errors)

    @invariant()
    def the_counts_fit(self) -> None:
        counts, naive_children = self.driver.policy.count_children(), self.model.children
        assert (counts.specs, counts.workers, counts.supervisors) == (len(naive_children), len(naive_children), 0)
        assert (
            counts.active
            == len(self.driver.instances)
            == len([one for one in naive_children if one.state == "running"])
        )

    @invariant()
    def nothing_is_under_way(self) -> None:
        assert not {"starting", "stopping", "restarting"} & set(self.driver.statuses().values())


def rough(status: str) -> str:
    """Return the status as the model has it, which does not distinguish how a stopped child has ended."""
    return status if status in ("running", "restarting", "ignored", "starting", "stopping") else "stopped"


def short(answer: Any) -> str:
    return type(answer.error).__name__ if isinstance(answer, Refuse) else "ok"


AgainstTheModel.TestCase.settings = search(examples=150, steps=30)
TestAgainstTheModel = AgainstTheModel.TestCase

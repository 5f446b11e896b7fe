"""Events in any order keep the rules, also while starts and stops are under way.

Nothing is answered at once. Children become ready, fail and exit at any time; the events arrive later, or twice;
timers are late; requests, stops and kills come at any moment. The ledger of `tests.testing` checks every action.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from suitkaise.events import SupervisorStopping
from suitkaise.exits import ExitReason, Killed, Normal, Shutdown
from suitkaise.policy.actions import (
    Begin,
    DeleteChild,
    Exited,
    Ignored,
    Input,
    KillAll,
    Ready,
    Recall,
    RestartChild,
    SetTimer,
    StartChild,
    StopAll,
    TerminateChild,
    Timer,
)
from suitkaise.specs import Backoff, Child
from tests.policy.driver import BOOM, Driver, Instance, child, supervisor
from tests.policy.effort import LONG, patience, search
from tests.policy.ledger_driver import LedgerDriver

pytestmark = patience

IDS = st.sampled_from("abcdx")
REQUESTS: Any = st.sampled_from([TerminateChild, RestartChild, DeleteChild, Recall, StartChild])
WHICH = st.integers(0, 4)
BACKOFFS = [None, None, Backoff(initial=0.5, maximum=4.0, jitter=0.0)]
DELIVERED = st.sampled_from([True, True, False])
T = TypeVar("T")


@st.composite
def specs(draw: st.DrawFn, ids: st.SearchStrategy[str] = IDS) -> Child:
    restart = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
    limit = None if restart == "temporary" else draw(st.sampled_from([None, None, 0, 1]))
    return child(
        draw(ids),
        restart,
        **({} if limit is None else {"max_restarts": limit, "max_seconds": 2.0}),
        significant=restart != "permanent" and draw(st.integers(0, 4)) == 0,
        shutdown=draw(st.sampled_from([2.0, "brutal_kill", "infinity"])),
        backoff=None if restart == "temporary" else draw(st.sampled_from(BACKOFFS)),
    )


def pick(some: Sequence[T], which: int) -> T:
    return some[which % len(some)]


class Interleavings(RuleBasedStateMachine):
    @initialize(
        a=specs(st.just("a")),
        b=specs(st.just("b")),
        rest=st.lists(specs(st.just("c")), max_size=1),
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        auto_shutdown=st.sampled_from(["never", "never", "all_significant", "any_significant"]),
        max_restarts=st.sampled_from([math.inf, math.inf, 5, 5, 2, 0]),
        up=st.sampled_from([True, True, False]),
    )
    def declare(
        self,
        a: Child,
        b: Child,
        rest: list[Child],
        strategy: Any,
        auto_shutdown: Any,
        max_restarts: float,
        up: bool,
    ) -> None:
        declared = [a, b, *rest]
        if auto_shutdown == "never":
            declared = [spec.replace(significant=False) for spec in declared]
        if strategy != "one_for_one":
            declared = [spec.replace(max_restarts=None, max_seconds=60.0) for spec in declared]
        spec = supervisor(
            *declared, strategy=strategy, auto_shutdown=auto_shutdown, max_restarts=max_restarts, max_seconds=2.0
        )
        self.tree = LedgerDriver(spec, begin_now=False)
        self.on_its_way: defaultdict[str, deque[Input]] = defaultdict(deque)
        self.handled: list[Input] = []
        self.dead: set[tuple[str, int]] = set()
        self.handle(Begin())
        if up:
            self.all_get_on(len(declared))

    # ------------------------------------------------------------ children live their instances
    def living(self) -> list[Instance]:
        return [
            instance
            for instance in self.tree.instances.values()
            if (instance.id, instance.incarnation) not in self.dead
        ]

    def starting(self) -> list[Instance]:
        return [instance for instance in self.living() if not instance.ready]

    @precondition(lambda self: self.living())
    @rule(which=WHICH, delivered=DELIVERED)
    def a_child_gets_on(self, which: int, delivered: bool) -> None:
        instance = pick(self.living(), which)
        self.get_on(instance)
        self.deliver_events_of(instance.id, delivered)

    @precondition(lambda self: self.living())
    @rule(which=WHICH, delivered=DELIVERED)
    def a_child_crashes(self, which: int, delivered: bool) -> None:
        instance = pick(self.living(), which)
        self.die(instance, BOOM if instance.ready else Driver.FAILED)
        self.deliver_events_of(instance.id, delivered)

    @precondition(lambda self: any(instance.ready for instance in self.living()))
    @rule(which=WHICH, delivered=DELIVERED)
    def a_child_ends_well(self, which: int, delivered: bool) -> None:
        instance = pick([instance for instance in self.living() if instance.ready], which)
        self.die(instance, Normal())
        self.deliver_events_of(instance.id, delivered)

    @precondition(lambda self: any(instance.ready for instance in self.living()))
    @rule(which=WHICH, tries=st.integers(1, 3))
    def a_child_crashes_and_fails_to_come_back(self, which: int, tries: int) -> None:
        instance = pick([instance for instance in self.living() if instance.ready], which)
        self.die(instance, BOOM)
        self.deliver_events_of(instance.id)
        for _ in range(tries):
            for instance in self.starting():
                self.die(instance, Driver.FAILED)
                self.deliver_events_of(instance.id)

    @precondition(lambda self: self.starting())
    @rule(which=WHICH, delivered=DELIVERED)
    def a_start_fails(self, which: int, delivered: bool) -> None:
        instance = pick(self.starting(), which)
        self.die(instance, Driver.FAILED)
        self.deliver_events_of(instance.id, delivered)

    @precondition(lambda self: self.starting())
    @rule(which=WHICH, delivered=DELIVERED)
    def a_child_ignores(self, which: int, delivered: bool) -> None:
        instance = pick(self.starting(), which)
        self.dead.add((instance.id, instance.incarnation))
        self.on_its_way[instance.id].append(Ignored(instance.id, instance.incarnation))
        self.deliver_events_of(instance.id, delivered)

    @precondition(lambda self: self.tree.ended is None)
    @rule(rounds=st.integers(1, 4))
    def all_get_on(self, rounds: int) -> None:
        for _ in range(rounds):
            for instance in self.living():
                self.get_on(instance)
            for id in list(self.on_its_way):
                self.deliver_events_of(id)
            while due := self.due():
                self.fire(due[0])

    def get_on(self, instance: Instance) -> None:
        """Make it ready, or end it if it was asked to end."""
        if instance.killed is not None:
            self.die(instance, Killed(instance.killed))
        elif instance.asked:
            self.die(instance, Shutdown())
        elif not instance.ready:
            instance.ready = True
            self.on_its_way[instance.id].append(Ready(instance.id, instance.incarnation))

    def die(self, instance: Instance, reason: ExitReason) -> None:
        self.dead.add((instance.id, instance.incarnation))
        self.on_its_way[instance.id].append(Exited(instance.id, instance.incarnation, reason))

    # ------------------------------------------------------------ news and timers arrive
    @precondition(lambda self: any(self.on_its_way.values()))
    @rule(which=WHICH)
    def an_event_arrives(self, which: int) -> None:
        news = pick([news for news in self.on_its_way.values() if news], which)
        self.handle(news.popleft())

    def deliver_events_of(self, id: str, delivered: bool = True) -> None:
        while delivered and self.on_its_way[id]:
            self.handle(self.on_its_way[id].popleft())

    @precondition(lambda self: self.handled)
    @rule(which=st.integers(0, 50))
    def an_event_arrives_again(self, which: int) -> None:
        before = len(self.tree.starts)
        self.handle(pick(self.handled[::-1], which))
        assert len(self.tree.starts) == before

    @precondition(lambda self: self.due())
    @rule(which=WHICH)
    def a_timer_fires(self, which: int) -> None:
        self.fire(pick(self.due(), which))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.tree.now += seconds

    def due(self) -> list[SetTimer]:
        return [wake for wake in self.tree.timers if wake.at <= self.tree.now]

    def fire(self, wake: SetTimer) -> None:
        self.tree.timers.remove(wake)
        self.handle(Timer(wake.key))

    # ------------------------------------------------------------ orders
    @rule(what=REQUESTS, id=IDS, spec=specs())
    def request(self, what: Any, id: str, spec: Child) -> None:
        number = len(self.tree.requests)
        self.tree.requests[number] = request = what(number, spec if what is StartChild else id)
        self.handle(request)

    @precondition(lambda self: self.tree.now > 8)
    @rule()
    def stop(self) -> None:
        self.handle(StopAll(Shutdown("asked")))

    @precondition(lambda self: self.tree.now > 10)
    @rule()
    def halt(self) -> None:
        self.handle(KillAll("second signal"))

    # ------------------------------------------------------------ a long stretch of all that
    @rule(seed=st.integers(0, 2**32 - 1), moves=st.integers(1, 100))
    def anything_goes(self, seed: int, moves: int) -> None:
        dice = random.Random(seed)
        for _ in range(moves):
            self.move(dice, dice.randrange(100))

    def move(self, dice: random.Random, number: int) -> None:
        which, delivered = dice.randrange(8), dice.random() < 0.7
        ready = [instance for instance in self.living() if instance.ready]
        if number < 30 and self.living():
            self.a_child_gets_on(which, delivered)
        elif number < 42 and ready:
            self.a_child_crashes(which, delivered)
        elif number < 46 and ready:
            self.a_child_ends_well(which, delivered)
        elif number < 54 and self.starting():
            self.a_start_fails(which, delivered)
        elif number < 56 and self.starting():
            self.a_child_ignores(which, delivered)
        elif number < 70 and any(self.on_its_way.values()):
            self.an_event_arrives(which)
        elif number < 75 and self.handled:
            self.an_event_arrives_again(dice.randrange(50))
        elif number < 85 and self.due():
            self.a_timer_fires(which)
        elif number < 90:
            self.time_passes(dice.choice([0.25, 0.5, 1.0, 3.0]))
        elif number < 99:
            id = dice.choice("abcdx")
            what = dice.choice([TerminateChild, RestartChild, DeleteChild, Recall, StartChild, StartChild])
            self.request(what, id, wild(id, dice))
        elif dice.random() < 0.3:
            self.stop() if dice.random() < 0.8 else self.halt()

    # ------------------------------------------------------------ what must hold
    def handle(self, event: Input) -> None:
        if isinstance(event, Ready | Ignored | Exited | Timer):
            self.handled.append(event)
        self.tree.handle(event)

    @precondition(lambda self: self.tree.now > 1 and self.tree.ended is None)
    @rule()
    def all_comes_to_rest(self) -> None:
        self.rest()

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.rest()
            self.tree.handle(StopAll(Shutdown("asked")))
            self.rest()
            assert self.tree.ended is not None
            for event in self.handled:
                assert self.tree.handle(event) == []

    def rest(self) -> None:
        """From now on all children behave, and time passes."""
        tree = self.tree
        for _ in range(1000):
            self.all_get_on(1)
            if not self.living() and not any(self.on_its_way.values()) and not tree.timers:
                break
            if not any(instance.asked or instance.killed or not instance.ready for instance in self.living()):
                if not tree.timers:
                    break
                tree.now = max(tree.now, tree.next_timer().at)
        else:
            raise AssertionError("it never comes to rest")
        assert set(tree.answers) == set(tree.requests), "a request was never answered"
        if self.stopping:
            assert tree.ended is not None
            assert tree.instances == {}
            return
        for id, status in tree.statuses().items():
            assert (status == "running") is (id in tree.instances)
            assert tree.policy.is_over(id) is (status != "running")
        tree.ledger.check_no_child_is_lost()
        tree.check()

    @property
    def stopping(self) -> bool:
        return bool(self.tree.events_of(SupervisorStopping))


Interleavings.TestCase.settings = search(examples=120, steps=40)
TestInterleavings = Interleavings.TestCase


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_a_random_walk_from_any_seed_breaks_nothing(strategy: str) -> None:
    for seed in range(4000 if LONG else 120):
        dice = random.Random(f"{strategy} {seed}")
        walk = Interleavings()
        walk.declare(
            *[wild(id, dice) for id in "ab"],
            rest=[wild("c", dice)],
            strategy=strategy,
            auto_shutdown=dice.choice(["never"] * 8 + ["all_significant", "any_significant"]),
            max_restarts=dice.choice([math.inf, math.inf, 10]),
            up=True,
        )
        for _ in range(300):
            walk.move(dice, dice.randrange(100))
            if dice.random() < 0.01:
                walk.rest()
            if walk.tree.ended is not None:
                break
        walk.teardown()


def wild(id: str, dice: random.Random) -> Child:
    restart = dice.choice(["permanent", "permanent", "transient", "temporary"])
    return child(
        id,
        restart,
        significant=restart != "permanent" and dice.random() < 0.3,
        shutdown=dice.choice([2.0, "brutal_kill", "infinity"]),
        backoff=None if restart == "temporary" else dice.choice(BACKOFFS),
    )

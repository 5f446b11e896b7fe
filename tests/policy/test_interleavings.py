"""Whatever comes in whatever order: what must hold while starts and stops are under way.

Nothing here is answered at once. Children get ready, fail, end and die when they like; news of it arrives later, or
twice; timers are late; requests, stops and kills come at any moment. Only invariants are checked.
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
from tests.policy.driver import BOOM, Driver, Life, child, supervisor
from tests.policy.effort import LONG, patience, search
from tests.policy.ledger_driver import LedgerDriver

pytestmark = patience

IDS = st.sampled_from("abcdx")
REQUESTS: Any = st.sampled_from([TerminateChild, RestartChild, DeleteChild, Recall, StartChild])
WHICH = st.integers(0, 4)
TOLD = st.sampled_from([True, True, False])
T = TypeVar("T")


@st.composite
def specs(draw: st.DrawFn, ids: st.SearchStrategy[str] = IDS) -> Child:
    restart = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
    return child(
        draw(ids),
        restart,
        significant=restart != "permanent" and draw(st.integers(0, 4)) == 0,
        shutdown=draw(st.sampled_from([2.0, "brutal_kill", "infinity"])),
        backoff=draw(st.sampled_from([None, None, Backoff(initial=0.5, maximum=4.0, jitter=0.0)])),
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
        spec = supervisor(
            *declared, strategy=strategy, auto_shutdown=auto_shutdown, max_restarts=max_restarts, max_seconds=2.0
        )
        self.tree = LedgerDriver(spec, begin_now=False)
        self.on_its_way: defaultdict[str, deque[Input]] = defaultdict(deque)
        self.heard: list[Input] = []
        self.dead: set[tuple[str, int]] = set()
        self.hear(Begin())
        if up:
            self.all_get_on(len(declared))

    # ------------------------------------------------------------ children live their lives
    def living(self) -> list[Life]:
        return [life for life in self.tree.lives.values() if (life.id, life.incarnation) not in self.dead]

    def starting(self) -> list[Life]:
        return [life for life in self.living() if not life.ready]

    @precondition(lambda self: self.living())
    @rule(which=WHICH, told=TOLD)
    def a_child_gets_on(self, which: int, told: bool) -> None:
        life = pick(self.living(), which)
        self.get_on(life)
        self.news_of(life.id, told)

    @precondition(lambda self: self.living())
    @rule(which=WHICH, told=TOLD)
    def a_child_crashes(self, which: int, told: bool) -> None:
        life = pick(self.living(), which)
        self.die(life, BOOM if life.ready else Driver.FAILED)
        self.news_of(life.id, told)

    @precondition(lambda self: any(life.ready for life in self.living()))
    @rule(which=WHICH, told=TOLD)
    def a_child_ends_well(self, which: int, told: bool) -> None:
        life = pick([life for life in self.living() if life.ready], which)
        self.die(life, Normal())
        self.news_of(life.id, told)

    @precondition(lambda self: any(life.ready for life in self.living()))
    @rule(which=WHICH, tries=st.integers(1, 3))
    def a_child_crashes_and_fails_to_come_back(self, which: int, tries: int) -> None:
        life = pick([life for life in self.living() if life.ready], which)
        self.die(life, BOOM)
        self.news_of(life.id)
        for _ in range(tries):
            for life in self.starting():
                self.die(life, Driver.FAILED)
                self.news_of(life.id)

    @precondition(lambda self: self.starting())
    @rule(which=WHICH, told=TOLD)
    def a_start_fails(self, which: int, told: bool) -> None:
        life = pick(self.starting(), which)
        self.die(life, Driver.FAILED)
        self.news_of(life.id, told)

    @precondition(lambda self: self.starting())
    @rule(which=WHICH, told=TOLD)
    def a_child_ignores(self, which: int, told: bool) -> None:
        life = pick(self.starting(), which)
        self.dead.add((life.id, life.incarnation))
        self.on_its_way[life.id].append(Ignored(life.id, life.incarnation))
        self.news_of(life.id, told)

    @precondition(lambda self: self.tree.ended is None)
    @rule(rounds=st.integers(1, 4))
    def all_get_on(self, rounds: int) -> None:
        for _ in range(rounds):
            for life in self.living():
                self.get_on(life)
            for id in list(self.on_its_way):
                self.news_of(id)
            while due := self.due():
                self.fire(due[0])

    def get_on(self, life: Life) -> None:
        """It becomes ready, or ends as it was told to."""
        if life.killed is not None:
            self.die(life, Killed(life.killed))
        elif life.asked:
            self.die(life, Shutdown())
        elif not life.ready:
            life.ready = True
            self.on_its_way[life.id].append(Ready(life.id, life.incarnation))

    def die(self, life: Life, reason: ExitReason) -> None:
        self.dead.add((life.id, life.incarnation))
        self.on_its_way[life.id].append(Exited(life.id, life.incarnation, reason))

    # ------------------------------------------------------------ news and timers arrive
    @precondition(lambda self: any(self.on_its_way.values()))
    @rule(which=WHICH)
    def news_arrives(self, which: int) -> None:
        news = pick([news for news in self.on_its_way.values() if news], which)
        self.hear(news.popleft())

    def news_of(self, id: str, told: bool = True) -> None:
        while told and self.on_its_way[id]:
            self.hear(self.on_its_way[id].popleft())

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, 50))
    def news_arrives_again(self, which: int) -> None:
        before = len(self.tree.starts)
        self.hear(pick(self.heard[::-1], which))
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
        self.hear(Timer(wake.key))

    # ------------------------------------------------------------ orders
    @rule(what=REQUESTS, id=IDS, spec=specs())
    def request(self, what: Any, id: str, spec: Child) -> None:
        number = len(self.tree.requests)
        self.tree.requests[number] = request = what(number, spec if what is StartChild else id)
        self.hear(request)

    @precondition(lambda self: self.tree.now > 8)
    @rule()
    def stop(self) -> None:
        self.hear(StopAll(Shutdown("asked")))

    @precondition(lambda self: self.tree.now > 10)
    @rule()
    def halt(self) -> None:
        self.hear(KillAll("second signal"))

    # ------------------------------------------------------------ a long stretch of all that
    @rule(seed=st.integers(0, 2**32 - 1), moves=st.integers(1, 100))
    def anything_goes(self, seed: int, moves: int) -> None:
        dice = random.Random(seed)
        for _ in range(moves):
            self.move(dice, dice.randrange(100))

    def move(self, dice: random.Random, number: int) -> None:
        which, told = dice.randrange(8), dice.random() < 0.7
        ready = [life for life in self.living() if life.ready]
        if number < 30 and self.living():
            self.a_child_gets_on(which, told)
        elif number < 42 and ready:
            self.a_child_crashes(which, told)
        elif number < 46 and ready:
            self.a_child_ends_well(which, told)
        elif number < 54 and self.starting():
            self.a_start_fails(which, told)
        elif number < 56 and self.starting():
            self.a_child_ignores(which, told)
        elif number < 70 and any(self.on_its_way.values()):
            self.news_arrives(which)
        elif number < 75 and self.heard:
            self.news_arrives_again(dice.randrange(50))
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
    def hear(self, event: Input) -> None:
        if isinstance(event, Ready | Ignored | Exited | Timer):
            self.heard.append(event)
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
            for event in self.heard:
                assert self.tree.handle(event) == []

    def rest(self) -> None:
        """From now on all children behave, and time passes."""
        tree = self.tree
        for _ in range(1000):
            self.all_get_on(1)
            if not self.living() and not any(self.on_its_way.values()) and not tree.timers:
                break
            if not any(life.asked or life.killed or not life.ready for life in self.living()):
                if not tree.timers:
                    break
                tree.now = max(tree.now, tree.next_timer().at)
        else:
            raise AssertionError("it never comes to rest")
        assert set(tree.answers) == set(tree.requests), "somebody waits for an answer"
        if self.stopping:
            assert tree.ended is not None
            assert tree.lives == {}
            return
        for id, status in tree.statuses().items():
            assert (status == "running") is (id in tree.lives)
            assert tree.policy.is_over(id) is (status != "running")
        tree.ledger.check_nobody_is_lost()
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
        backoff=dice.choice([None, None, Backoff(initial=0.5, maximum=4.0, jitter=0.0)]),
    )

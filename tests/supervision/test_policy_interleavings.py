"""Whatever comes in whatever order: what must hold while starts and stops are under way.

Nothing here is answered at once. Children get ready, fail, end and die when they like; news of it arrives later, or
twice; timers are late; requests, stops and kills come at any moment. Only invariants are checked.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from suitkaise.errors import ChildStartFailed
from suitkaise.events import ChildRestarting, SupervisorStopping
from suitkaise.exits import ExitReason, Killed, Normal, Shutdown
from suitkaise.specs import Backoff, Child
from suitkaise.supervision.steps import (
    Action,
    Begin,
    DeleteChild,
    Exited,
    Halt,
    Ignored,
    Input,
    Kill,
    Ready,
    Recall,
    Refuse,
    Reply,
    RestartChild,
    Start,
    StartChild,
    Stop,
    StopAll,
    TerminateChild,
    Timer,
)
from tests.supervision.driver import BOOM, Driver, Life, child, supervisor
from tests.supervision.effort import patience, search

pytestmark = patience

IDS = st.sampled_from("abcdx")
REQUESTS: Any = st.sampled_from([TerminateChild, RestartChild, DeleteChild, Recall])


@st.composite
def specs(draw: st.DrawFn, significant: bool) -> Child:
    restart = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
    return child(
        draw(IDS),
        restart,
        significant=restart != "permanent" and significant and draw(st.booleans()),
        shutdown=draw(st.sampled_from([2.0, "brutal_kill", "infinity"])),
        backoff=draw(st.sampled_from([None, None, Backoff(initial=0.5, maximum=4.0, jitter=0.0)])),
    )


@dataclass
class Witness(Driver):
    """A driver whose engine leaves everything to the test, and which looks at every action."""

    highest: dict[str, int] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)  # nobody has to start these again
    halted: bool = False

    def __post_init__(self) -> None:
        self.requests: dict[int, Input] = {}
        super().__post_init__()

    @property
    def stopping(self) -> bool:
        return bool(self.events_of(SupervisorStopping))

    @property
    def in_groups(self) -> bool:
        return self.spec.strategy != "one_for_one"

    def handle(self, event: Input) -> list[Action]:
        order, was_stopping = list(self.statuses()), self.stopping
        if isinstance(event, Ignored | Exited) and self._is(event):
            del self.lives[event.id]
        actions = super().handle(event)
        for action in actions:
            match action:
                case Start():
                    assert not was_stopping, f"{action} while it stops"
                case Stop(id) | Kill(id, _, "brutal_kill") if self.stopping and not self.halted:
                    later = order[order.index(id) + 1 :] if id in order else []
                    assert not set(later) & set(self.lives), f"{action}, but one after it is not gone: {later}"
                case Reply(request) | Refuse(request):
                    self._excuse(self.requests[request], action)
        return actions

    def _is(self, event: Ignored | Exited) -> bool:
        life = self.lives.get(event.id)
        return life is not None and life.incarnation == event.incarnation

    def _excuse(self, request: Input, answer: Reply | Refuse) -> None:
        """Whom a request allows to stay down, at the moment when it is answered."""
        down = {id for id in self.statuses() if id not in self.lives}
        match request, answer:
            case (TerminateChild(_, id), Reply()) | (Recall(_, id), Reply()):
                self.excused |= (down if self.in_groups else {id}) & down
            case (RestartChild(_, id) | Recall(_, id), Refuse(_, ChildStartFailed())):
                self.excused |= (down if self.in_groups else {id}) & down

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Start):
            id, number = action.child.id, action.incarnation
            assert number > self.highest.get(id, 0), f"a number is used twice: {action}"
            self.highest[id] = number
            self.excused.discard(id)
        elif isinstance(action, Stop | Kill):
            life = self.lives.get(action.id)
            assert life is not None, f"nobody of that name is alive: {action}"
            assert life.incarnation == action.incarnation, f"an incarnation that is over: {action}"
        super()._carry_out(action)

    def on_start(self, life: Life) -> None: ...

    def on_stop(self, life: Life) -> None: ...

    def on_kill(self, life: Life) -> None: ...


class Interleavings(RuleBasedStateMachine):
    @initialize(
        data=st.data(),
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        auto_shutdown=st.sampled_from(["never", "never", "never", "any_significant", "all_significant"]),
        max_restarts=st.sampled_from([0, 2, 5, math.inf, math.inf]),
    )
    def declare(self, data: st.DataObject, strategy: Any, auto_shutdown: Any, max_restarts: float) -> None:
        self.significant = auto_shutdown != "never"
        several = st.lists(specs(self.significant), max_size=4, unique_by=lambda spec: spec.id)
        spec = supervisor(
            *data.draw(several),
            strategy=strategy,
            auto_shutdown=auto_shutdown,
            max_restarts=max_restarts,
            max_seconds=2.0,
        )
        self.tree = Witness(spec, begin_now=False)
        self.on_its_way: defaultdict[str, deque[Input]] = defaultdict(deque)
        self.heard: list[Input] = []
        self.dead: set[tuple[str, int]] = set()
        self.ends: dict[str, ExitReason | None] = {}  # the last end of each; None if it was ordered
        self.expected: Counter[str] = Counter(child.id for child in spec.children)  # starts with a reason
        self.hear(Begin())

    # ------------------------------------------------------------ children live their lives
    def living(self) -> list[Life]:
        return [life for life in self.tree.lives.values() if (life.id, life.incarnation) not in self.dead]

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def a_child_gets_on(self, data: st.DataObject) -> None:
        """It becomes ready, or ends as it was told to."""
        life = data.draw(st.sampled_from(self.living()), label="who")
        self.get_on(life)

    def get_on(self, life: Life) -> None:
        if life.killed is not None:
            self.die(life, Killed(life.killed))
        elif life.asked:
            self.die(life, Shutdown())
        elif not life.ready:
            life.ready = True
            self.on_its_way[life.id].append(Ready(life.id, life.incarnation))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), reason=st.sampled_from([BOOM, BOOM, Normal()]))
    def a_child_ends_by_itself(self, data: st.DataObject, reason: ExitReason) -> None:
        life = data.draw(st.sampled_from(self.living()), label="who")
        self.die(life, reason if life.ready else Driver.FAILED)

    @precondition(lambda self: [life for life in self.living() if not life.ready])
    @rule(data=st.data())
    def a_child_ignores(self, data: st.DataObject) -> None:
        life = data.draw(st.sampled_from([life for life in self.living() if not life.ready]), label="who")
        self.dead.add((life.id, life.incarnation))
        self.on_its_way[life.id].append(Ignored(life.id, life.incarnation))

    def die(self, life: Life, reason: ExitReason) -> None:
        self.dead.add((life.id, life.incarnation))
        self.on_its_way[life.id].append(Exited(life.id, life.incarnation, reason))

    # ------------------------------------------------------------ news and timers arrive
    @precondition(lambda self: any(self.on_its_way.values()))
    @rule(data=st.data())
    def news_arrives(self, data: st.DataObject) -> None:
        senders = sorted(id for id, news in self.on_its_way.items() if news)
        self.hear(self.on_its_way[data.draw(st.sampled_from(senders), label="of")].popleft())

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def news_arrives_again(self, data: st.DataObject) -> None:
        before = len(self.tree.starts)
        self.hear(data.draw(st.sampled_from(self.heard), label="again"))
        assert len(self.tree.starts) == before

    @precondition(lambda self: any(wake.at <= self.tree.now for wake in self.tree.timers))
    @rule(data=st.data())
    def a_timer_fires(self, data: st.DataObject) -> None:
        due = [wake for wake in self.tree.timers if wake.at <= self.tree.now]
        wake = data.draw(st.sampled_from(due), label="timer")
        self.tree.timers.remove(wake)
        self.hear(Timer(wake.key))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.tree.now += seconds

    # ------------------------------------------------------------ orders
    @rule(what=REQUESTS, id=IDS)
    def request(self, what: Any, id: str) -> None:
        self.expected[id] += what in (RestartChild, Recall)
        self.ask(what, id)

    @rule(data=st.data())
    def start_child(self, data: st.DataObject) -> None:
        spec = data.draw(specs(self.significant), label="child")
        self.expected[spec.id] += 1
        self.ask(StartChild, spec)

    def ask(self, what: Any, argument: Any) -> None:
        number = len(self.tree.requests)
        self.tree.requests[number] = request = what(number, argument)
        self.hear(request)

    @precondition(lambda self: self.tree.now > 4)
    @rule()
    def stop(self) -> None:
        self.hear(StopAll(Shutdown("asked")))

    @precondition(lambda self: self.tree.now > 6)
    @rule()
    def halt(self) -> None:
        self.tree.halted = True
        self.hear(Halt("second signal"))

    # ------------------------------------------------------------ what must hold
    def hear(self, event: Input) -> None:
        if isinstance(event, Exited) and self.tree._is(event):
            life = self.tree.lives[event.id]
            self.ends[event.id] = None if life.asked or life.killed else event.reason
        if isinstance(event, Ready | Ignored | Exited | Timer):
            self.heard.append(event)
        self.tree.handle(event)

    @invariant()
    def one_thing_at_a_time(self) -> None:
        statuses = list(self.tree.statuses().values())
        assert statuses.count("starting") <= 1
        assert statuses.count("stopping") <= (1 if not self.tree.stopping else 2) or self.tree.halted

    @invariant()
    def the_intensity_is_respected(self) -> None:
        times = [event.at for event in self.tree.events_of(ChildRestarting)]
        for now in times:
            window = [at for at in times if now - self.tree.spec.max_seconds <= at <= now]
            assert len(window) <= self.tree.spec.max_restarts

    @invariant()
    def nobody_starts_without_a_reason(self) -> None:
        if not self.tree.in_groups:
            restarts = Counter(event.path.removeprefix("top/") for event in self.tree.events_of(ChildRestarting))
            for id, starts in self.tree.starts_of.items():
                assert starts <= self.expected[id] + restarts[id]

    @invariant()
    def those_alive_are_listed(self) -> None:
        statuses = self.tree.statuses()
        for life in self.tree.lives.values():
            assert statuses[life.id] in ("starting", "running", "stopping", "restarting")

    @precondition(lambda self: self.tree.now > 1)
    @rule()
    def all_comes_to_rest(self) -> None:
        assume(self.tree.ended is None)
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
            for news in self.on_its_way.values():
                while news:
                    self.hear(news.popleft())
            for life in self.living():
                self.get_on(life)
            if not any(self.on_its_way.values()):
                if not tree.timers:
                    break
                wake = tree.next_timer()
                tree.timers.remove(wake)
                tree.now = max(tree.now, wake.at)
                self.hear(Timer(wake.key))
        else:
            raise AssertionError("it never comes to rest")
        assert set(tree.answers) == set(tree.requests), "somebody waits for an answer"
        if tree.stopping:
            assert tree.ended is not None
            assert tree.lives == {}
        else:
            self.nobody_is_lost()

    def nobody_is_lost(self) -> None:
        tree = self.tree
        for id, status in tree.statuses().items():
            assert (status == "running") is (id in tree.lives)
            assert tree.policy.is_over(id) is (status != "running")
            if status in ("running", "ignored") or id in tree.excused:
                continue
            end = self.ends.get(id)
            finished = tree.policy.get_child_spec(id).restart == "transient" and end is not None and end.clean
            assert finished, f"{id} is {status}, and nobody wanted that"


Interleavings.TestCase.settings = search(examples=150, steps=50)
TestInterleavings = Interleavings.TestCase

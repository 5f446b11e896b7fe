"""Runs a policy with a fake engine and a virtual clock, so that a test reads like the story that it tells.

Where nothing else was planned, a start succeeds at once, a stop is obeyed at once, and a kill kills. What the
engine answers comes before what a test has posted; timers fire in their order, behind everything that waits.
The driver itself refuses impossible orders: a second life beside a first, or anything after the end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.events import Event
from suitkaise.exits import Crashed, ExitReason, Killed, Shutdown
from suitkaise.policy.actions import (
    Action,
    Begin,
    DeleteChild,
    Exited,
    Ignored,
    Input,
    Kill,
    KillAll,
    Publish,
    Ready,
    Recall,
    Refuse,
    Removed,
    Respond,
    RestartChild,
    SetTimer,
    Start,
    StartChild,
    Started,
    Stop,
    StopAll,
    TerminateChild,
    Terminated,
    Timer,
    TimerKey,
)
from suitkaise.policy.dynamic import DynamicPolicy
from suitkaise.policy.static import StaticPolicy
from suitkaise.specs import Child

__all__ = ["BOOM", "Driver", "Life", "begun", "child", "children", "pool", "restarting", "story_of", "supervisor"]

BOOM = Crashed("loop", RuntimeError("boom"))
E = TypeVar("E", bound=Event)


def work() -> None: ...


def child(id: str, restart: Any = "permanent", **options: Any) -> Child:
    return Child(work, id=id, restart=restart, **options)


def children(ids: str, restart: Any = "permanent", **options: Any) -> list[Child]:
    """`children("abc")`: three of them."""
    return [child(id, restart, **options) for id in ids]


def supervisor(*specs: Child | Supervisor, **options: Any) -> Supervisor:
    return Supervisor("top", *specs, **options)


def story_of(action: Action) -> str | None:
    """One action in a few words; timers and events are kept elsewhere."""
    match action:
        case Start(spec):
            return f"start {spec.id}"
        case Stop(id):
            return f"stop {id}"
        case Kill(id, _, why):
            return f"kill {id} ({why})"
        case Removed(id):
            return f"removed {id}"
        case Respond():
            return "reply"
        case Refuse(_, error):
            return f"refuse {type(error).__name__}"
        case Started():
            return "started"
        case Terminated():
            return "end"
    return None


@dataclass
class Life:
    """One incarnation as the engine knows it."""

    child: Child
    incarnation: int
    nth: int  # which start of that id it is, counted by the driver itself
    ready: bool = False
    asked: bool = False
    killed: str | None = None

    @property
    def id(self) -> str:
        return self.child.id


@dataclass
class Driver:
    spec: Supervisor
    begin_now: bool = True
    chance: Callable[[], float] = lambda: 0.5

    now: float = 0.0
    story: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    timers: list[SetTimer] = field(default_factory=list)
    answers: dict[Any, Respond | Refuse] = field(default_factory=dict)
    ended: ExitReason | None = None
    start_plans: defaultdict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    stop_plans: defaultdict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    starts_of: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    FAILED: ClassVar[ExitReason] = Crashed("on_start", OSError("no such port"))
    ODD: ClassVar[ExitReason] = Crashed("on_finish", ValueError("odd"))

    def __post_init__(self) -> None:
        kind = DynamicPolicy if isinstance(self.spec, DynamicSupervisor) else StaticPolicy
        self.policy = kind(self.spec, self.spec.name, self.chance)
        self._answers_of_engine: deque[Input] = deque()
        self._inbox: deque[Input] = deque()
        self._requests = 0
        if self.begin_now:
            self.begin()

    # ------------------------------------------------------------ plans
    def plan_starts(self, id: str, *outcomes: str) -> None:
        """How the next starts of a child go: "ok", "fails", "ignore" or "waits" (for the test to say)."""
        self.start_plans[id].extend(outcomes)

    def plan_stops(self, id: str, *outcomes: str) -> None:
        """How the next stops of a child go: "clean", "odd" (it crashes over it) or "waits"."""
        self.stop_plans[id].extend(outcomes)

    def start_outcome(self, life: Life) -> str:
        plan = self.start_plans[life.id]
        return plan.popleft() if plan else "ok"

    def stop_outcome(self, life: Life) -> str:
        plan = self.stop_plans[life.id]
        return plan.popleft() if plan else "clean"

    # ------------------------------------------------------------ what happens
    def begin(self) -> None:
        self.now_handle(Begin())

    def ready(self, id: str, pid: int | None = None) -> None:
        life = self.lives[id]
        life.ready = True
        self.now_handle(Ready(id, life.incarnation, pid))

    def ignores(self, id: str) -> None:
        life = self.lives.pop(id)
        self.now_handle(Ignored(id, life.incarnation))

    def fails_to_start(self, id: str) -> None:
        self.exits(id, self.FAILED)

    def exits(self, id: str, reason: ExitReason, *, abandoned: bool = False) -> None:
        self.post_exit(id, reason, abandoned=abandoned)
        self.settle()

    def crash(self, id: str) -> None:
        self.exits(id, BOOM)

    def crash_together(self, *ids: str) -> None:
        """All of them are dead before the supervisor hears of the first."""
        for id in ids:
            self.post_exit(id, BOOM)
        self.settle()

    def post_exit(self, id: str, reason: ExitReason, *, abandoned: bool = False) -> None:
        life = self.lives.pop(id)
        self.post(Exited(id, life.incarnation, reason, abandoned))

    def stop(self, reason: ExitReason | None = None) -> None:
        self.now_handle(StopAll(reason or Shutdown()))

    def halt(self, why: str = "second signal") -> None:
        self.now_handle(KillAll(why))

    def start_child(self, spec: Child) -> Any:
        return self.ask(StartChild, spec)

    def terminate_child(self, id: str) -> Any:
        return self.ask(TerminateChild, id)

    def restart_child(self, id: str) -> Any:
        return self.ask(RestartChild, id)

    def delete_child(self, id: str) -> Any:
        return self.ask(DeleteChild, id)

    def recall(self, id: str) -> Any:
        return self.ask(Recall, id)

    def ask(self, request: Callable[[Any, Any], Input], what: Any) -> Any:
        """The answer to a request, as in `answer`."""
        number = self.post_request(request, what)
        self.settle()
        return self.answer(number)

    def post_request(self, request: Callable[[Any, Any], Input], what: Any) -> int:
        self._requests += 1
        self.post(request(self._requests, what))
        return self._requests

    def answer(self, number: int | None = None) -> Any:
        """What became of the last request, or of that one: "ok", the error, or None for no answer yet."""
        match self.answers.get(number if number is not None else self._requests):
            case Respond():
                return "ok"
            case Refuse(_, error):
                return error
        return None

    def now_handle(self, event: Input) -> None:
        self.post(event)
        self.settle()

    def post(self, event: Input) -> None:
        self._inbox.append(event)

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire when their time comes."""
        until = self.now + seconds
        while self.timers and (wake := self.next_timer()).at <= until:
            self.now = max(self.now, wake.at)
            self.settle()
        self.now = until

    def next_timer(self) -> SetTimer:
        return min(self.timers, key=lambda wake: wake.at)

    def timer_keys(self) -> list[TimerKey]:
        return [wake.key for wake in self.timers]

    # ------------------------------------------------------------ the machinery
    def settle(self) -> None:
        """Work off what the engine says, then what was posted, then the timers that are due."""
        while True:
            if self._answers_of_engine:
                self.handle(self._answers_of_engine.popleft())
            elif self._inbox:
                self.handle(self._inbox.popleft())
            elif self.timers and self.next_timer().at <= self.now:
                wake = self.next_timer()
                self.timers.remove(wake)
                self.handle(Timer(wake.key))
            else:
                return

    def handle(self, event: Input) -> list[Action]:
        actions = self.policy.handle(event, self.now)
        for action in actions:
            self._carry_out(action)
        return actions

    def _carry_out(self, action: Action) -> None:
        assert self.ended is None or isinstance(action, Refuse), f"after the end: {action}"
        self.actions.append(action)
        words = story_of(action)
        if words is not None:
            self.story.append(words)
        match action:
            case Start(spec, incarnation):
                assert spec.id not in self.lives, f"a second life of {spec.id}"
                self.starts.append(action)
                self.starts_of[spec.id] += 1
                self.lives[spec.id] = Life(spec, incarnation, self.starts_of[spec.id])
                self.on_start(self.lives[spec.id])
            case Stop(id, incarnation):
                life = self._alive(id, incarnation)
                if life is not None:
                    assert not life.asked, f"{id} was asked twice"
                    life.asked = True
                    self.on_stop(life)
            case Kill(id, incarnation, why):
                life = self._alive(id, incarnation)
                if life is not None:
                    life.killed = why
                    self.on_kill(life)
            case SetTimer():
                self.timers.append(action)
            case Respond(request) | Refuse(request):
                assert request not in self.answers, f"request {request} was answered twice"
                self.answers[request] = action
            case Publish(event):
                self.events.append(event)
            case Terminated(reason):
                assert not self.lives, f"left behind: {list(self.lives)}"
                self.ended = reason

    def _alive(self, id: str, incarnation: int) -> Life | None:
        """That life, if its end is not on its way already."""
        life = self.lives.get(id)
        assert life is None or life.incarnation == incarnation, f"{id}: nobody knows number {incarnation}"
        return life

    def on_start(self, life: Life) -> None:
        match self.start_outcome(life):
            case "ok":
                life.ready = True
                self._answers_of_engine.append(Ready(life.id, life.incarnation))
            case "fails":
                self._dies(life, self.FAILED)
            case "ignore":
                del self.lives[life.id]
                self._answers_of_engine.append(Ignored(life.id, life.incarnation))

    def on_stop(self, life: Life) -> None:
        self.stops.append(life.id)
        match self.stop_outcome(life):
            case "clean":
                self._dies(life, Shutdown())
            case "odd":
                self._dies(life, self.ODD)

    def on_kill(self, life: Life) -> None:
        brutal = not life.asked and life.child.shutdown == "brutal_kill"
        if brutal:
            self.stops.append(life.id)
        odd = brutal and self.stop_outcome(life) == "odd"
        self._dies(life, self.ODD if odd else Killed(life.killed or ""))

    def _dies(self, life: Life, reason: ExitReason) -> None:
        del self.lives[life.id]
        self._answers_of_engine.append(Exited(life.id, life.incarnation, reason))

    # ------------------------------------------------------------ what a test looks at
    def told(self, *verbs: str) -> list[str]:
        """The story since the last call; with verbs ("start", "stop"), those lines of it alone."""
        story, self.story = self.story, []
        return [line for line in story if not verbs or line.split()[0] in verbs]

    def statuses(self) -> dict[str, str]:
        """Every child's status, in start order."""
        return {info.id: str(info.status) for info in self.policy.which_children()}

    def running(self) -> str:
        """The ids of the children that run, in start order: "abc"."""
        return "".join(id for id, status in self.statuses().items() if status == "running")

    def events_of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def last_start(self, id: str) -> Start:
        return next(start for start in reversed(self.starts) if start.child.id == id)


def begun(specs: Iterable[Child], **options: Any) -> Driver:
    """A supervisor whose children are up; what it told so far is forgotten."""
    driver = Driver(supervisor(*specs, **options))
    driver.told()
    return driver


def pool(specs: Iterable[Child] = (), **options: Any) -> Driver:
    """A dynamic supervisor to which these children were added; what it told so far is forgotten."""
    driver = Driver(DynamicSupervisor("pool", **options))
    for spec in specs:
        assert driver.start_child(spec) == "ok"
    driver.told()
    return driver


def restarting(**options: Any) -> Driver:
    """`b` of `abc` crashed and its restart failed; it waits for its next try."""
    tree = begun(children("abc"), **options)
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)
    return tree

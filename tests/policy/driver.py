"""Runs a policy with a fake engine and a virtual clock, so that a test reads like a story.

Unless a test plans otherwise, starts, stops and kills succeed at once. Events of the engine are handled before those
that a test has posted; timers fire in order, after all events that wait. The driver itself refuses impossible actions:
a second incarnation beside a first, or anything after the end.
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

__all__ = ["BOOM", "Driver", "Instance", "begun", "child", "children", "pool", "restarting", "story_of", "supervisor"]

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
        case Removed(id, _):
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
class Instance:
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
    instances: dict[str, Instance] = field(default_factory=dict)
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

    def start_outcome(self, instance: Instance) -> str:
        plan = self.start_plans[instance.id]
        return plan.popleft() if plan else "ok"

    def stop_outcome(self, instance: Instance) -> str:
        plan = self.stop_plans[instance.id]
        return plan.popleft() if plan else "clean"

    # ------------------------------------------------------------ what happens
    def begin(self) -> None:
        self.now_handle(Begin())

    def ready(self, id: str, pid: int | None = None) -> None:
        instance = self.instances[id]
        instance.ready = True
        self.now_handle(Ready(id, instance.incarnation, pid))

    def ignores(self, id: str) -> None:
        instance = self.instances.pop(id)
        self.now_handle(Ignored(id, instance.incarnation))

    def fails_to_start(self, id: str) -> None:
        self.exits(id, self.FAILED)

    def exits(self, id: str, reason: ExitReason, *, abandoned: bool = False) -> None:
        self.post_exit(id, reason, abandoned=abandoned)
        self.settle()

    def crash(self, id: str) -> None:
        self.exits(id, BOOM)

    def crash_together(self, *ids: str) -> None:
        """All of them have exited before the supervisor handles the first exit."""
        for id in ids:
            self.post_exit(id, BOOM)
        self.settle()

    def post_exit(self, id: str, reason: ExitReason, *, abandoned: bool = False) -> None:
        instance = self.instances.pop(id)
        self.post(Exited(id, instance.incarnation, reason, abandoned))

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
        """Handle the events of the engine, then the posted ones, then the timers that are due."""
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
                assert spec.id not in self.instances, f"a second incarnation of {spec.id}"
                self.starts.append(action)
                self.starts_of[spec.id] += 1
                self.instances[spec.id] = Instance(spec, incarnation, self.starts_of[spec.id])
                self.on_start(self.instances[spec.id])
            case Stop(id, incarnation):
                instance = self._alive(id, incarnation)
                if instance is not None:
                    assert not instance.asked, f"{id} was asked twice"
                    instance.asked = True
                    self.on_stop(instance)
            case Kill(id, incarnation, why):
                instance = self._alive(id, incarnation)
                if instance is not None:
                    instance.killed = why
                    self.on_kill(instance)
            case SetTimer():
                self.timers.append(action)
            case Respond(request) | Refuse(request):
                assert request not in self.answers, f"request {request} was answered twice"
                self.answers[request] = action
            case Publish(event):
                self.events.append(event)
            case Terminated(reason):
                assert not self.instances, f"left behind: {list(self.instances)}"
                self.ended = reason

    def _alive(self, id: str, incarnation: int) -> Instance | None:
        """That instance, if its end is not on its way already."""
        instance = self.instances.get(id)
        assert instance is None or instance.incarnation == incarnation, f"{id}: there is no incarnation {incarnation}"
        return instance

    def on_start(self, instance: Instance) -> None:
        match self.start_outcome(instance):
            case "ok":
                instance.ready = True
                self._answers_of_engine.append(Ready(instance.id, instance.incarnation))
            case "fails":
                self._dies(instance, self.FAILED)
            case "ignore":
                del self.instances[instance.id]
                self._answers_of_engine.append(Ignored(instance.id, instance.incarnation))

    def on_stop(self, instance: Instance) -> None:
        self.stops.append(instance.id)
        match self.stop_outcome(instance):
            case "clean":
                self._dies(instance, Shutdown())
            case "odd":
                self._dies(instance, self.ODD)

    def on_kill(self, instance: Instance) -> None:
        brutal = not instance.asked and instance.child.shutdown == "brutal_kill"
        if brutal:
            self.stops.append(instance.id)
        odd = brutal and self.stop_outcome(instance) == "odd"
        self._dies(instance, self.ODD if odd else Killed(instance.killed or ""))

    def _dies(self, instance: Instance, reason: ExitReason) -> None:
        del self.instances[instance.id]
        self._answers_of_engine.append(Exited(instance.id, instance.incarnation, reason))

    # ------------------------------------------------------------ what a test looks at
    def take_story(self, *verbs: str) -> list[str]:
        """Return the story since the last call; with verbs ("start", "stop"), only the lines that begin with one."""
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
    """Return a supervisor whose children are running; its story begins after that."""
    driver = Driver(supervisor(*specs, **options))
    driver.take_story()
    return driver


def pool(specs: Iterable[Child] = (), **options: Any) -> Driver:
    """Return a dynamic supervisor with these children; its story begins after that."""
    driver = Driver(DynamicSupervisor("pool", **options))
    for spec in specs:
        assert driver.start_child(spec) == "ok"
    driver.take_story()
    return driver


def restarting(**options: Any) -> Driver:
    """`b` of `abc` crashed and its restart failed; it waits for its next try."""
    tree = begun(children("abc"), **options)
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)
    return tree

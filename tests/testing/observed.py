"""A simulation in which a ledger checks every supervisor, and the clock is compared with the limits of workers."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Exit, Launch
from suitkaise.engines.simulated import SimulatedEngine, SimulatedHandle
from suitkaise.errors import SuitkaiseError
from suitkaise.events import Event
from suitkaise.exits import Hung
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.identity import owner_of
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.policy.actions import Input, KillAll, StopAll
from suitkaise.specs import Child
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.hang_detector import limits_of
from suitkaise.supervision.interface import SupervisorInterface
from suitkaise.testing import Behaviour, Simulation, VirtualClock
from tests.testing.dynamic_ledger import DynamicLedger
from tests.testing.ledger import Ledger
from tests.testing.link_ledger import LINKED, LinkLedger
from tests.testing.records import EPSILON

__all__ = ["Broken", "Observed", "Order"]

PATIENCE = 400.0  # virtual seconds within which every tree must come to rest


_REPORT = re.compile(r"; see `suitkaise crashes [^`]*`")
"""What no two runs have in common: the id of a report has the wall clock in it."""


class Broken(AssertionError):
    """The tree has broken a rule."""


@dataclass(frozen=True, slots=True)
class Order:
    """A request from outside at a time; `path` is that of the supervisor, `argument` an id or a declaration."""

    at: float
    path: str
    what: str
    argument: Any = None


class Observed(Simulation):
    """A simulated tree that is checked at every step.

    Args:
        tree: the declaration.
        behaviour: the script of each incarnation.
        orders: requests from outside, each with its time.
        lag: seconds until a supervisor handles an event; None: it handles events at once.
        note: is called with a line for each event and action.
    """

    def __init__(
        self,
        tree: Supervisor,
        behaviour: Callable[[Launch], Behaviour],
        orders: tuple[Order, ...] = (),
        lag: Callable[[], float] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.lag = lag
        self.note = note
        self.ledgers: dict[str, Ledger] = {}  # the newest at each path
        self.executors: dict[str, SupervisorInterface] = {}
        self.newest: dict[str, SimulatedHandle] = {}
        self.answers: list[tuple[Order, Answer[Any]]] = []
        self.on_its_way = 0  # events that their supervisors have not handled yet
        self.faults: list[str] = []
        self.links = LinkLedger(self.wrong)
        self._turn_of: Ledger | None = None
        super().__init__(tree, behaviour)
        for order in orders:
            self.clock.at(order.at, lambda order=order: self.carry_out(order))  # type: ignore[misc]

    # ------------------------------------------------------------ supervisors
    def _start_actor(self, executor: Executor) -> Callable[[Input], None]:
        path, spec = executor.path, executor.spec
        before = self.ledgers.get(path)
        if before is not None and before.phase != "ended":
            self.wrong(f"{path}: started while it is {before.phase}")
        kind = DynamicLedger if isinstance(spec, DynamicSupervisor) else Ledger
        ledger = self.ledgers[path] = kind(path, spec, executor.policy, self.clock, self.wrong)
        self.executors[path] = executor.interface
        parent, _, id = path.rpartition("/")
        if self._turn_of is not None and parent:
            self._write_line("start", path)
            record = self._turn_of.records.get(id)
            head = self._turn_of.head(id)
            known = [record.spec] if record is not None else []
            asked = [head.spec] if head is not None and head.spec is not None else []
            child = next((one for one in (*known, *asked) if one.what is spec), None)
            if child is None:
                self.wrong(f"{path}: started, but never declared")
                child = Child(spec, id=id)
            self._turn_of.launch(child, None, None)
        inbox: deque[Input] = deque()

        def turn() -> None:
            self._take_turn(executor, ledger, inbox.popleft())

        def tell(event: Input) -> None:
            if isinstance(event, KillAll) and event.why.startswith(LINKED):
                self.links.killed(path)
            elif isinstance(event, StopAll | KillAll) and self._turn_of is not None and parent:
                self._ordered(path, event.why if isinstance(event, KillAll) else None)
            inbox.append(event)
            self.on_its_way += 1
            self.clock.at(self.clock.now + (0.0 if self.lag is None else self.lag()), turn)

        return tell

    def _take_turn(self, executor: Executor, ledger: Ledger, event: Input) -> None:
        self.on_its_way -= 1
        if self.note is not None:
            self._write_line("handled by", executor.path, _without_request(event))
        ledger.handle(event)
        request = getattr(event, "request", None)
        if request is not None:
            request.when_done(lambda done: self._answered(ledger, done))
        self._turn_of = ledger
        try:
            executor.step(event)
        finally:
            self._turn_of = None
        ledger.after(executor.interface.exited.done())
        self.links.check()
        self.check()

    def _answered(self, ledger: Ledger, done: Answer[Any]) -> None:
        error = done.exception()
        outcome = "ok" if error is None else type(error).__name__
        self._write_line("answer", ledger.path, outcome)
        ledger.answered(done, outcome)

    def _ordered(self, path: str, why: str | None) -> None:
        """Check that a child may be stopped or, with `why`, killed now."""
        self._write_line("stop" if why is None else f"kill ({why})", path)
        if why is not None and why.startswith(LINKED):
            self.links.killed(path)
            return
        ledger, id = self._turn_of, path.rpartition("/")[2]
        if ledger is None:
            return
        if not path.startswith(ledger.path + "/"):
            self.wrong(f"{ledger.path}: ends {path}")
        elif why is None:
            ledger.stop(id)
        else:
            ledger.kill(id, why)

    def _publish(self, event: Event) -> None:
        super()._publish(event)
        self._write_line(event)
        if self._turn_of is None:
            self.wrong(f"an event outside of any turn: {event}")
        else:
            self._turn_of.publish(event)

    def _report(self, crash: CrashReport) -> None:
        super()._report(crash)
        assert self._turn_of is not None
        self._turn_of.report(crash)

    # ------------------------------------------------------------ workers
    def _engine(self, behaviour: Callable[[Launch], Behaviour]) -> SimulatedEngine:
        return _Engine(self.clock, behaviour, self)

    def launched(self, handle: SimulatedHandle) -> None:
        launch = handle.launch
        self._write_line("start", launch.path, launch.number, handle.behaviour if self.note else "")
        before = self.newest.get(launch.path)
        if before is not None and before.alive:
            self.wrong(f"{launch.path}: two incarnations at a time")
        self.newest[launch.path] = handle
        if self._turn_of is None:
            self.wrong(f"{launch.path}: started outside of any turn")
        else:
            self._turn_of.launch(launch.child, launch.number, launch.incarnation.recalled)

    def over(self, handle: SimulatedHandle, exit: Exit) -> None:
        """Check the end of a worker: a hang is noticed at its limit (rule 55), a stop takes no longer than allowed."""
        self._write_line("ends", handle.launch.path, exit.reason)
        now, judged = self.clock.now, _when_hung(handle)
        if isinstance(exit.reason, Hung):
            if judged is None or judged.phase != exit.reason.phase or not judged.may_end_at(now):
                self.wrong(f"{handle.launch.path}: {exit.reason} at {now}, but {judged}")
            elif abs(exit.reason.seconds - judged.limit) > EPSILON:
                self.wrong(f"{handle.launch.path}: {exit.reason}, but {judged}")
        elif judged is not None and judged.too_late(now):
            self.wrong(f"{handle.launch.path}: {judged}, and it is not killed (rule 55)")
        parent, _, id = handle.launch.path.rpartition("/")
        record = self.ledgers[parent].records.get(id)
        if record is None or record.asked_at is None:
            return
        if record.kill_by is not None and now > record.kill_by:
            self.wrong(f"{handle.launch.path}: was to be killed at {record.kill_by}, but it ends at {now} (rule 79)")
        if self.lag is not None:
            return
        seconds = {"brutal_kill": 0.0, "infinity": float("inf")}.get(str(record.spec.shutdown), record.spec.shutdown)
        assert isinstance(seconds, float)
        if now > record.asked_at + seconds + EPSILON:
            self.wrong(f"{handle.launch.path}: stopped at {record.asked_at}, but it ends at {now} (rule 42)")

    # ------------------------------------------------------------ orders from outside
    def carry_out(self, order: Order) -> None:
        executor = self.executors.get(order.path)
        if executor is None or executor.exited.done():
            return
        self._write_line("order", order.what, order.path, order.argument)
        answer: Answer[Any] = Answer()
        try:
            match order.what:
                case "stop":
                    self.stop()
                    return
                case "kill_root":
                    self.root.kill("second signal")
                    return
                case "kill" | "rejoin":
                    answer = executor.control(order.what, order.argument)
                case "link" | "trap_exits":
                    self._use_links(order.what, f"{order.path}/{order.argument[0]}", order.argument[1])
                    return
                case "recycle":
                    executor.recycle(order.argument, executor.policy.incarnation_of(order.argument))
                    return
                case "kill_child":
                    answer = executor.administer(AdminAction.KILL_CHILD, order.argument)
                    self.ledgers[order.path].kill_child(order.argument, answer)
                case _:
                    answer = executor.administer(order.what, order.argument)
        except SuitkaiseError as error:
            answer.set_exception(error)
        self.answers.append((order, answer))

    def _use_links(self, what: str, path: str, other: str) -> None:
        """Do what the newest incarnation at `path` would: link itself with the one at `other`, or trap exits."""
        paths = self.registry.paths()
        caller = self.registry.find(path) if path in paths else None
        serial = None if caller is None else caller.watchers.serial
        if caller is None or serial is None:
            return
        owner = owner_of(path, serial)
        if what == "link":
            self.links.link(caller, serial, self.registry.find(other) if other in paths else None)
            self.registry.request(RequestKind.LINK, other, owner).get()
        else:
            self.links.trap_exits(caller, serial)
            self.registry.request(RequestKind.TRAP_EXITS, path, (owner, True)).get()
        self.links.check()
        self.check()

    # ------------------------------------------------------------ faults
    def wrong(self, what: str) -> None:
        self.faults.append(f"at {self.clock.now:g} s, {what}")

    def check(self) -> None:
        if self.faults:
            raise Broken(self.faults[0])

    def living(self) -> list[Ledger]:
        return [ledger for path, ledger in self.ledgers.items() if not self.executors[path].exited.done()]

    def come_to_rest(self, begin: float) -> None:
        """Run until `begin`, and on until nothing is under way."""
        until = begin
        self.run(until)
        while self.on_its_way or not all(ledger.at_rest for ledger in self.living()):
            until += 1.0
            self.run(until)
            if until > begin + PATIENCE:
                restless = [ledger.path for ledger in self.living() if not ledger.at_rest]
                self.wrong(f"{restless} do not come to rest")
                self.check()
        self.check_rest()

    def check_rest(self) -> None:
        for ledger in self.living():
            ledger.check_no_child_is_lost()
        if self.reason is None:
            expected = {self.root.path: True}
            for ledger in self.living():
                expected |= {f"{ledger.path}/{id}": record.alive for id, record in ledger.records.items()}
            found = {path: not self.registry.find(path).over for path in self.registry.paths()}
            if found != expected:
                self.wrong(f"the registry knows {found} (path: whether it may run again), not {expected}")
            for path, alive in expected.items():
                status = self.registry.find(path).status
                if alive != (status == "running"):
                    self.wrong(f"the status of a ref to {path} is {status}")
        for handle in self.alive():
            judged = _when_hung(handle)
            if judged is not None and judged.too_late(self.clock.now):
                self.wrong(f"{handle.launch.path}: {judged}, and it is not killed (rule 55)")
        self.check()

    def end(self) -> None:
        """Run until the root and all below it have ended."""
        until = self.clock.now
        while self.reason is None:
            until += 10.0
            self.run(until)
            if until > 2 * PATIENCE:
                self.wrong("it does not come to its end")
                self.check()
        self.run(until + 10.0)
        for handle in self.alive():
            self.wrong(f"{handle.launch.path} lives on after the end (rule 46)")
        for path, executor in self.executors.items():
            if not executor.exited.done():
                self.wrong(f"{path} lives on after the end (rule 46)")
        for order, answer in self.answers:
            if not answer.done():
                self.wrong(f"{order} is never answered")
        if self.registry.paths():
            self.wrong(f"the registry still knows {self.registry.paths()}")
        self.check()

    def _write_line(self, *words: object) -> None:
        if self.note is not None:
            line = " ".join([f"{self.clock.now:8.3f} ", *(str(word).strip() for word in words)])
            self.note(_REPORT.sub("", line))


class _Engine(SimulatedEngine):
    def __init__(self, clock: VirtualClock, behaviour: Callable[[Launch], Behaviour], observed: Observed) -> None:
        super().__init__(clock, behaviour)
        self._observed = observed

    def spawn(self, launch: Launch) -> SimulatedHandle:
        handle = _Handle(self.clock, launch, self._behaviour(launch), self._observed)
        self.launched.append(handle)
        self._observed.launched(handle)
        return handle


class _Handle(SimulatedHandle):
    def __init__(self, clock: VirtualClock, launch: Launch, behaviour: Behaviour, observed: Observed) -> None:
        self._observed = observed
        super().__init__(clock, launch, behaviour)

    def stop(self, drain: float | None = None) -> None:
        self._observed._ordered(self.launch.path, None)
        super().stop()

    def kill(self, why: str) -> None:
        self._observed._ordered(self.launch.path, why)
        super().kill(why)

    def _end(self, exit: Exit) -> None:
        if self.alive:
            self._observed.over(self, exit)
        super()._end(exit)
        self._observed.links.check()
        self._observed.check()


@dataclass(frozen=True, slots=True)
class _Limited:
    """A phase with a limit, in which an incarnation is; `notice`: seconds after which its begin is certainly seen."""

    phase: str
    since: float
    limit: float
    notice: float = 0.0

    def may_end_at(self, now: float) -> bool:
        return now >= self.since + self.limit - EPSILON and not self.too_late(now)

    def too_late(self, now: float) -> bool:
        return now > self.since + self.limit + self.notice + EPSILON


def _when_hung(handle: SimulatedHandle) -> _Limited | None:
    """Return the phase with a limit in which an incarnation is, if it is in one."""
    child = handle.launch.child
    if not handle.ready.done():
        return None if child.start_timeout is None else _Limited("on_start", handle.began, child.start_timeout)
    since = handle.hanging_since
    if since is not None:
        place = handle.behaviour.hangs_in
        limit = child.receive_timeout if place == "mailbox" else child.loop_timeout
        if limit is None:
            return None
        if place == "loop":
            return _Limited("loop", since, limit)
        return _Limited("waiting", since, limit, min(limits_of(child).values()))  # a rest counts from when it is seen
    if handle.stop_asked_at is not None and child.finish_timeout is not None:
        return _Limited("on_finish", handle.stop_asked_at, child.finish_timeout)
    return None


def _without_request(event: Input) -> str:
    if getattr(event, "request", None) is None:
        return str(event)
    return f"{type(event).__name__}({getattr(event, 'id', None) or event.child!r})"  # type: ignore[union-attr]

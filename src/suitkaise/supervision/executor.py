"""Carries out what the policy of one supervisor decides: starts, stops, timers, answers, events.

It has no thread of its own. The supervisor actor gives it its turns in a running program, a simulation in a test.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future

from suitkaise.engines.engine import Exit, Handle, Launch, WorkerHandle, settle
from suitkaise.errors import ChildAlreadyStarted, SuitkaiseError
from suitkaise.events import SupervisorStopped
from suitkaise.exits import Crashed, ExitReason, Shutdown, StartFailure
from suitkaise.messaging.address import Address
from suitkaise.messaging.messages import Payload, portable_error
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.supervisor_ref import ref_to
from suitkaise.platform.reactor import TimerHandle
from suitkaise.policy.actions import (
    Action,
    Begin,
    Exited,
    Ignored,
    Input,
    Kill,
    Previous,
    Publish,
    Ready,
    Refuse,
    Removed,
    Respond,
    SetTimer,
    Start,
    Started,
    Stop,
    StopAll,
    Terminated,
    Timer,
)
from suitkaise.policy.children import start_error
from suitkaise.policy.dynamic import DynamicPolicy
from suitkaise.policy.static import Policy
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.recipe import Recipe
from suitkaise.specs.supervisor import DynamicSupervisorSpec
from suitkaise.supervision.crash_reporter import build_report
from suitkaise.supervision.environment import Environment, unprepare
from suitkaise.supervision.hang_detector import watch
from suitkaise.supervision.interface import RootParent, SupervisorInterface
from suitkaise.workers.incarnation import Recalled

__all__ = ["Executor", "begin"]


class Executor(SupervisorInterface):
    """One supervisor at work. It is also the handle by which its own supervisor knows it.

    `tell` may be called from any thread, `step` only by whoever gives the turns.
    """

    def __init__(self, spec: SupervisorSpec, path: str, env: Environment, before: Executor | None = None) -> None:
        policy = DynamicPolicy if isinstance(spec, DynamicSupervisorSpec) else Policy
        super().__init__(policy(spec, path), path, env)
        self.spec = spec
        self.exited: Future[Exit] = Future()
        self.ready: Future[int] = Future()
        self._addresses: dict[str, Address] = {}
        self._down: set[str] = set()  # ended, and it is not yet known whether for good
        self._checkpoints: dict[str, Payload] = {}
        self._began: dict[str, float] = {}
        self._deadlines: dict[str, TimerHandle] = {}  # of those that are being stopped
        self._ends: dict[tuple[str, int], Exit] = {}  # abnormal ones that are not dealt with yet
        self._below: dict[str, Executor] = {}  # the newest of each child that is a supervisor, ended or not
        self.tell: Callable[[Input], None] = env.start_actor(self)
        if before is not None:
            self._inherit(before)
        for child in spec.children:
            self._address(child)
        self._root: Address | None = None
        if "/" not in path:
            self._root = env.registry.add(path, path, "supervisor", RootParent(self))
            self._root.begin(next(env.serials))
            self._root.attach(self)
            self._root.pid = os.getpid()

    # ------------------------------------------------------------ a turn
    def step(self, event: Input) -> None:
        """Let the policy decide about one event, and carry out what it says."""
        if isinstance(event, (Exited, Ignored)):
            self._lose(event)
        for action in self._decide(event):
            match action:
                case Start(child, incarnation, previous):
                    serial = next(self._env.serials)
                    recalled = self._recalled(child.id, previous)
                    self._start(Launch.of(child, f"{self.path}/{child.id}", incarnation, serial, recalled))
                case Stop(id, _) if id in self._handles:  # else its start has failed, and Exited is on its way
                    self._handles[id].stop()
                case Kill(id, _, why) if id in self._handles:
                    self._handles[id].kill(why)
                case SetTimer(key, at):
                    self._wake(Timer(key), at)
                case Publish(happened):
                    self._env.publish(happened)
                case Started():
                    self.ready.set_result(os.getpid())
                case Respond(answer, value):
                    answer.set_result(self._ref(value) if isinstance(value, str) else value)
                case Refuse(answer, error):
                    if isinstance(error, ChildAlreadyStarted) and error.path is not None:
                        error.ref = self._ref(error.path.rpartition("/")[2])
                    answer.set_exception(error)
                case Removed(id):
                    self._forget(id)
                case Terminated(reason):
                    self._end(reason)
        for id in self.policy.gone_for_good(self._down):
            self._down.discard(id)
            self._addresses[id].finish()
            if id in self._below:
                self._below.pop(id).retire()

    def _decide(self, event: Input) -> list[Action]:
        """What the policy says; of an abnormal end it says more than that (rule 58)."""
        now = self._env.clock()
        end = self._ends.pop((event.id, event.incarnation), None) if isinstance(event, Exited) else None
        if end is None or not isinstance(event, Exited):
            return self.policy.handle(event, now)
        before = self.policy.child_info(event.id)
        actions = self.policy.handle(event, now)
        if before is not None and before.incarnation == event.incarnation:
            report = build_report(actions, self.policy, before, end, now - self._began.get(event.id, now), now)
            if report is not None:
                self._env.report(report)
        return actions

    def _ref(self, id: str) -> WorkerRef:
        address = self._addresses.get(id)
        return ref_to(f"{self.path}/{id}", address.kind if address is not None else "process")

    def _start(self, launch: Launch) -> None:
        address = self._address(launch.child)
        spec = launch.child.what
        handle: Handle
        worker: WorkerHandle | None = None
        id, incarnation = launch.child.id, launch.number
        self._began[id] = self._env.clock()
        traps = isinstance(spec, Recipe) and bool(getattr(spec.target, "trap_exits", False))
        address.begin(launch.incarnation.serial, trap_exits=traps)
        try:
            if isinstance(spec, SupervisorSpec):
                handle = Executor(spec, launch.path, self._env, self._below.get(id))
                self._below[id] = handle
            else:
                handle = worker = self._env.engines[launch.child.kind].spawn(launch)
        except Exception as error:
            reason = Crashed("start", *portable_error(error, launch.path))
            self._ends[id, incarnation] = Exit(reason)
            address.detach(reason, None)
            self.tell(Exited(id, incarnation, reason))
            return
        self._suspended.discard(id)
        self._handles[id] = handle
        self._down.discard(id)
        address.attach(handle)

        def on_ready(ready: Future[int]) -> None:
            address.up(handle, ready.result())
            self.tell(Ready(id, incarnation, ready.result()))

        def on_exit(exited: Future[Exit]) -> None:
            over = exited.result()
            if not over.reason.clean:
                self._ends[id, incarnation] = over
            try:
                address.detach(over.reason, over.result)
                self._env.on_gone(launch.incarnation.owner)
            finally:  # whatever went wrong there, the supervisor gets to know of the end
                self.tell(
                    Ignored(id, incarnation) if over.ignored else Exited(id, incarnation, over.reason, over.abandoned)
                )

        if worker is not None:
            watch(launch.child, worker, self._env.clock, self._env.at)
        handle.ready.add_done_callback(on_ready)
        handle.exited.add_done_callback(on_exit)
        if isinstance(handle, Executor):
            handle.tell(Begin())

    def _wake(self, timer: Timer, at: float) -> None:
        if at <= self._env.clock():
            self.tell(timer)
            return
        handle = self._env.at(at, lambda: self.tell(timer))
        what, id, _ = timer.key
        if what == "kill":
            self._deadlines[id] = handle

    def _lose(self, event: Exited | Ignored) -> None:
        info = self.policy.incarnation_of(event.id)
        if info == event.incarnation:
            handle = self._handles.pop(event.id, None)
            deadline = self._deadlines.pop(event.id, None)
            if deadline is not None:
                deadline.cancel()  # it may be hours away
            checkpoint = getattr(handle, "checkpoint", None)  # supervisors have none
            if checkpoint is not None:
                self._checkpoints[event.id] = checkpoint
            self._down.add(event.id)

    def _recalled(self, id: str, previous: Previous | None) -> Recalled | None:
        if previous is None:
            return None
        down_for = self._env.clock() - previous.ended_at
        return Recalled(previous.restarts, previous.reason, down_for, self._checkpoints.get(id))

    def _address(self, child: Child) -> Address:
        address = self._addresses.get(child.id)
        if address is None:
            path = f"{self.path}/{child.id}"
            address = self._addresses[child.id] = self._env.registry.add(path, child.id, child.kind, self)
        return address

    def _inherit(self, before: Executor) -> None:
        """This supervisor was restarted: refs to its declared children stay good, the others' mean nothing now."""
        self.policy.inherit(before.policy)
        kinds = {child.id: child.kind for child in self.spec.children}
        for id, address in list(before._addresses.items()):
            if kinds.get(id) != address.kind:  # where it was deleted, something else may have been added in its place
                before._forget(id)
            elif id in before._below:
                self._below[id] = before._below[id]

    def retire(self) -> None:
        """It has ended and will not come back: so have all refs to what was below it."""
        for id in list(self._addresses):
            self._forget(id)
        unprepare(self._env.engines, self.path, self.spec)

    def _forget(self, id: str) -> None:
        self._down.discard(id)
        self._suspended.discard(id)
        self._checkpoints.pop(id, None)
        self._began.pop(id, None)
        address = self._addresses.pop(id, None)
        if address is not None:
            self._env.registry.remove(address.path)
        if id in self._below:
            self._below.pop(id).retire()
        for engine in self._env.engines.values():
            engine.forget(f"{self.path}/{id}")

    def abort(self, error: BaseException) -> None:
        """A step has failed: kill what is below, wait until it is gone, and end for that reason (rule 68).

        It blocks: what is below ends in other threads.
        """
        error, traceback = portable_error(error, self.path)
        reason = Crashed("supervisor", error, traceback)
        self.policy.abort(reason)
        handles = list(self._handles.values())
        for handle in handles:
            handle.kill(str(reason))
        for handle in handles:
            handle.exited.result()
        self._env.publish(SupervisorStopped(self.path, self._env.clock(), reason=reason))
        self._end(reason)

    def _end(self, reason: ExitReason) -> None:
        if self._root is not None:
            self.retire()
            self._root.detach(reason, None)
            self._env.registry.remove(self.path)
        settle(self.exited, Exit(reason, Payload(None)))


def begin(executor: Executor, wait: Callable[[threading.Event], object] = threading.Event.wait) -> None:
    """Start the children of a new executor, and `wait` until they are up.

    Raises:
        ChildStartFailed: one failed; everything is stopped again.
    """
    up = threading.Event()
    executor.ready.add_done_callback(lambda done: up.set())
    executor.exited.add_done_callback(lambda done: up.set())
    executor.tell(Begin())
    try:
        wait(up)
    except BaseException:
        executor.tell(StopAll(Shutdown("its start was interrupted")))
        executor.exited.result()
        raise
    if not executor.ready.done():
        raise _start_error(executor.exited.result().reason)


def _start_error(reason: ExitReason) -> SuitkaiseError:
    failure = reason.detail if isinstance(reason, Shutdown) else None
    if not isinstance(failure, StartFailure):
        return SuitkaiseError(f"the tree ended while it started: {reason}", reason=reason)
    return start_error(failure)

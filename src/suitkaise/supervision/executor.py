"""Carries out what the policy of one supervisor decides: starts, stops, timers, answers, events.

An executor has no thread of its own: in a program the supervisor's actor drives it, in a simulation the virtual clock.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextvars import copy_context
from typing import cast

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Exit, Handle, Launch, WatchedElsewhere, WorkerHandle, settle
from suitkaise.errors import ChildAlreadyStarted
from suitkaise.events import EndEvent, SupervisorStopped
from suitkaise.exits import ExitReason
from suitkaise.messaging.address import Address
from suitkaise.messaging.exit_watchers import cause_first
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.portable_errors import crash
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
    Terminated,
    Timer,
    TimerKey,
)
from suitkaise.policy.base import BasePolicy
from suitkaise.policy.dynamic import DynamicPolicy
from suitkaise.policy.static import StaticPolicy
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.recipe import Recipe
from suitkaise.specs.supervisor import DynamicSupervisorSpec
from suitkaise.status import Status
from suitkaise.supervision.crash_reporter import build_report
from suitkaise.supervision.environment import Environment, unprepare
from suitkaise.supervision.hang_detector import watch
from suitkaise.supervision.held_exits import PAUSE, HeldExits
from suitkaise.supervision.interface import RootParent, SupervisorInterface
from suitkaise.supervision.memory_limit import MemoryWatch
from suitkaise.workers.incarnation import Recalled

__all__ = ["Executor"]


class Executor:
    """One supervisor at work: its policy decides, and the executor carries the decisions out.

    `interface` is what others see of it. Only the thread of the supervisor's actor calls `step` and `abort`.
    """

    def __init__(
        self,
        spec: SupervisorSpec,
        path: str,
        env: Environment,
        above: Executor | None = None,
        predecessor: Executor | None = None,
    ) -> None:
        env = env.within(spec)
        policy = (DynamicPolicy if isinstance(spec, DynamicSupervisorSpec) else StaticPolicy)(spec, path)
        self.path: str = path
        self.policy: BasePolicy = policy
        context = copy_context() if above is None else above.interface.context_of(path.rpartition("/")[2])
        self.interface: SupervisorInterface = SupervisorInterface(spec, path, policy, env, context)
        self.spec: SupervisorSpec = spec
        self._env = env
        self._handles = self.interface.handles
        self._addresses: dict[str, Address] = {}
        self._ended: set[str] = set()  # children that have ended, and may be started again
        self._checkpoints: dict[str, Payload] = {}
        self._began: dict[str, float] = {}
        self._timers: dict[TimerKey, TimerHandle] = {}
        self._abnormal_exits: dict[tuple[str, int], Exit] = {}  # the policy has not handled them yet
        self._held: HeldExits = HeldExits(policy, None if above is None else above._held)
        self._supervisors: dict[str, Executor] = {}  # the newest of each child that is a supervisor, ended or not
        self.interface.tell = env.start_actor(self)
        if predecessor is not None:
            self._inherit(predecessor)
        for child in spec.children:
            self._address(child)
        self._root: Address | None = None
        if above is None:
            self._root = env.registry.add(path, path, "supervisor", RootParent(self.interface))
            self._root.begin(next(env.serials))
            self._root.attach(self.interface)
            self._root.pid = os.getpid()

    # ------------------------------------------------------------ one step
    def step(self, event: Input) -> None:
        """Let the policy decide about one event, and carry its decisions out, in order."""
        if isinstance(event, Timer):
            self._timers.pop(event.key, None)
        match event:
            case Exited(id, incarnation) if self._held.hold(event):
                self._set_timer(Timer(("verdict", id, incarnation)), self._env.clock() + PAUSE)
                return
            case Timer(("verdict", id, incarnation)):
                held = self._held.due(id, incarnation)
                if held is None:
                    return
                event = held
        if isinstance(event, (Exited, Ignored)):
            self._drop_handle(event)
        actions = self._decide(event)
        if isinstance(event, (Exited, Ignored)) and self.interface.ends.get(event.id) is event:
            del self.interface.ends[event.id]
        for action in actions:
            match action:
                case Start(child, incarnation, previous):
                    serial = next(self._env.serials)
                    recalled = self._recalled(child.id, previous)
                    self.interface.note_caller(child)
                    context = self.interface.context_of(child.id)
                    self._start(Launch.of(child, f"{self.path}/{child.id}", incarnation, serial, recalled, context))
                case Stop(id, _) if id in self._handles:  # else its start has failed, and `Exited` follows
                    self.interface.stop_child(id)
                    self._release(id)
                case Kill(id, _, why) if id in self._handles:
                    self._handles[id].kill(why)
                    self._release(id)
                case SetTimer(key, at):
                    self._set_timer(Timer(key), at)
                case Publish(published):
                    self._env.publish(published)
                case Started():
                    if self._root is not None:
                        self._root.up(self.interface, os.getpid())
                    self.interface.ready.set_result(os.getpid())
                case Respond(answer, value):
                    answer.set_result(self._ref(value) if isinstance(value, str) else value)
                case Refuse(answer, error):
                    if isinstance(error, ChildAlreadyStarted) and error.path is not None:
                        error.ref = self._ref(error.path.rpartition("/")[2])
                    answer.set_exception(error)
                case Removed(id, status):
                    self._forget(id, status)
                case Terminated(reason):
                    self._end(reason)
        for id in self.policy.gone_for_good(self._ended):
            self._ended.discard(id)
            self._addresses[id].finish()
            if id in self._supervisors:
                self._supervisors.pop(id).retire()
        self._env.registry.blocked_asks.refuse()

    def _decide(self, event: Input) -> list[Action]:
        """Return the policy's decisions; report an abnormal exit together with the decision about it (rule 58)."""
        now = self._env.clock()
        if not isinstance(event, Exited):
            return self.policy.handle(event, now)
        exit = self._abnormal_exits.pop((event.id, event.incarnation), None)
        if exit is None:
            return self.policy.handle(event, now)
        before = self.policy.child_info(event.id)
        actions = self.policy.handle(event, now)
        if before is not None and before.incarnation == event.incarnation:
            report = build_report(actions, self.policy, before, exit, now - self._began.get(event.id, now), now)
            if report is not None:
                self._env.report(report)
                return [_with_report(action, report) for action in actions]
        return actions

    def _ref(self, id: str) -> WorkerRef:
        address = self._addresses.get(id)
        return ref_to(f"{self.path}/{id}", address.kind if address is not None else "process")

    # ------------------------------------------------------------ children
    def _start(self, launch: Launch) -> None:
        id, number, what = launch.child.id, launch.number, launch.child.what
        address = self._address(launch.child)
        self._began[id] = self._env.clock()
        trap_exits = isinstance(what, Recipe) and bool(getattr(what.target, "_traps_exits", False))
        address.begin(launch.incarnation.serial, trap_exits=trap_exits)
        handle: Handle
        worker: WorkerHandle | None = None
        try:
            if isinstance(what, SupervisorSpec):
                executor = self._supervisors[id] = Executor(
                    what, launch.path, self._env, self, self._supervisors.get(id)
                )
                handle = executor.interface
            else:
                handle = worker = self._env.engines[launch.child.kind].spawn(launch)
        except Exception as error:
            reason = crash("start", error, launch.path)
            self._abnormal_exits[id, number] = Exit(reason)
            failed = self.interface.ends[id] = Exited(id, number, reason)
            with cause_first():
                address.detach(reason, None)
                self.interface.tell(failed)
            return
        self._handles[id] = handle
        self._ended.discard(id)
        address.attach(handle)
        if worker is not None:
            self._watch(launch, worker)
        self._report_progress(launch, handle, address)
        if isinstance(handle, SupervisorInterface):
            handle.tell(Begin())

    def _watch(self, launch: Launch, worker: WorkerHandle) -> None:
        """Watch the limits of a worker, or have them watched on the machine that it runs on."""
        id, number, env = launch.child.id, launch.number, self._env

        def recycle() -> None:
            self.interface.recycle(id, number)

        if hasattr(worker, "recycle"):  # an `isinstance` of a protocol takes 8 us, at each start
            cast("WatchedElsewhere", worker).recycle = recycle
            return
        watch(launch.child, worker, env.clock, env.call_at)
        if (limit := launch.child.max_memory) is not None:
            MemoryWatch(limit, launch.path, worker, env.clock, env.call_at, env.publish, recycle)

    def _report_progress(self, launch: Launch, handle: Handle, address: Address) -> None:
        """Turn the reports of the handle, which come from any thread, into events for this supervisor."""
        id, number = launch.child.id, launch.number

        def on_ready(ready: Future[int]) -> None:
            address.up(handle, ready.result())
            self.interface.tell(Ready(id, number, ready.result()))

        def on_exit(exited: Future[Exit]) -> None:
            exit = exited.result()
            if not exit.reason.clean:
                self._abnormal_exits[id, number] = exit
            end: Exited | Ignored = Exited(id, number, exit.reason, exit.abandoned, exit.unhandled)
            if exit.ignored:
                end = Ignored(id, number)
            self.interface.ends[id] = end  # before a `Down` is delivered, with which all answers have to agree
            with cause_first():
                try:
                    address.detach(exit.reason, exit.result, exit.returned, exit.view, ignored=exit.ignored)
                    self._env.on_gone(launch.incarnation.owner)
                finally:  # the supervisor must learn of the exit, whatever fails above
                    self.interface.tell(end)

        if not address.ended_early:  # a thread may have returned from `on_start` all the same
            handle.ready.add_done_callback(on_ready)
        handle.exited.add_done_callback(on_exit)

    def _set_timer(self, timer: Timer, at: float) -> None:
        if at <= self._env.clock():
            self.interface.tell(timer)
            return
        self._timers[timer.key] = self._env.call_at(at, lambda: self.interface.tell(timer))

    def _release(self, id: str) -> None:
        """Tell the exit of a child that had ended by SIGTERM before it was ordered to stop (rule 69)."""
        held = self._held.release(id)
        if held is not None:
            self.interface.tell(held)

    def _drop_handle(self, event: Exited | Ignored) -> None:
        """Drop the handle of an incarnation that has ended; keep its checkpoint for the next one."""
        if self.policy.incarnation_of(event.id) != event.incarnation:
            return
        handle = self._handles.pop(event.id, None)
        deadline = self._timers.pop(("kill", event.id, event.incarnation), None)
        if deadline is not None:
            deadline.cancel()
        checkpoint = getattr(handle, "checkpoint", None)  # supervisors have none
        if checkpoint is not None:
            self._checkpoints[event.id] = checkpoint
        self._ended.add(event.id)
        address = self._addresses.get(event.id)
        if address is not None and address.has_asks:  # joins, which have waited while the worker was up
            self._env.registry.blocked_asks.add(address)

    def _recalled(self, id: str, previous: Previous | None) -> Recalled | None:
        if previous is None:
            return None
        down_for = self._env.clock() - previous.ended_at
        return Recalled(previous.restarts, previous.reason, down_for, self._checkpoints.get(id))

    def _address(self, child: Child) -> Address:
        address = self._addresses.get(child.id)
        if address is None:
            path = f"{self.path}/{child.id}"
            address = self._addresses[child.id] = self._env.registry.add(
                path, child.id, child.kind, self.interface, child.mailbox
            )
        return address

    def _inherit(self, predecessor: Executor) -> None:
        """Take over after a restart of this supervisor: refs to its declared children stay valid, all others end."""
        self.policy.inherit(predecessor.policy)
        kinds = {child.id: child.kind for child in self.spec.children}
        for id, address in list(predecessor._addresses.items()):
            if kinds.get(id) != address.kind:  # deleted meanwhile, and another child added under its id
                predecessor._forget(id)
            elif id in predecessor._supervisors:
                self._supervisors[id] = predecessor._supervisors[id]

    def retire(self) -> None:
        """End the refs to all children: this supervisor has ended and will not come back."""
        for id in list(self._addresses):
            self._forget(id)
        unprepare(self._env, self.path, self.spec)

    def _forget(self, id: str, last_status: Status | None = None) -> None:
        self._ended.discard(id)
        self.interface.contexts.pop(id, None)
        self._checkpoints.pop(id, None)
        self._began.pop(id, None)
        address = self._addresses.pop(id, None)
        if address is not None:
            address.last_status = last_status
            self._env.registry.remove(address.path)
            address.leave_parent()
        if id in self._supervisors:
            self._supervisors.pop(id).retire()
        for engine in self._env.engines.values():
            engine.forget(f"{self.path}/{id}")

    def abort(self, error: BaseException) -> None:
        """End after an internal error: kill all children, wait until they are gone, and stop deciding (rule 68).

        Blocks, since the children end in other threads.
        """
        reason = crash("supervisor", error, self.path)
        self.policy.abort(reason)
        handles = list(self._handles.values())
        for handle in handles:
            handle.kill(str(reason))
        for handle in handles:
            handle.exited.result()
        self._env.publish(SupervisorStopped(self.path, self._env.clock(), reason=reason))
        self._end(reason)

    def _end(self, reason: ExitReason) -> None:
        for timer in self._timers.values():
            timer.cancel()  # it may be hours away, and would keep this supervisor until then
        if self._root is not None:
            self.retire()
            self._root.detach(reason, None)
            self._env.registry.remove(self.path)
            self._root.leave_parent()
        settle(self.interface.exited, Exit(reason, Payload(None)))


def _with_report(action: Action, report: CrashReport) -> Action:
    """Let the event of the end name the report about it."""
    if isinstance(action, Publish) and isinstance(action.event, EndEvent) and action.event.path == report.path:
        return Publish(action.event.with_report(report.id, report.where))
    return action

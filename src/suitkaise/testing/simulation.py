"""Runs a declared tree on the simulated engine: no thread, no process, no waiting; the same seed gives the same run."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Launch
from suitkaise.engines.simulated import Behaviour, SimulatedEngine, SimulatedHandle, VirtualClock
from suitkaise.events import Event
from suitkaise.exits import ExitReason, Shutdown
from suitkaise.messaging.registry import Registry
from suitkaise.policy.actions import Begin, Input, StopAll
from suitkaise.specs import SupervisorSpec
from suitkaise.specs.options import is_number
from suitkaise.supervision.environment import Environment, Stepper
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["Simulation"]


class Simulation:
    """A supervision tree on a virtual clock, with scripts in place of workers.

    Args:
        tree: the declaration.
        behaviour: returns what an incarnation will do; default: it starts at once, runs, and stops when asked.

    Raises:
        TypeError: this is no supervisor, or no function.

    >>> from suitkaise.exits import Signaled
    >>> from suitkaise import Child, Supervisor
    >>> def work() -> None: ...
    >>> def dies_once(launch):
    ...     return Behaviour(lives=1.0 if launch.number == 1 else None, reason=Signaled(9))
    >>> simulation = Simulation(Supervisor("app", Child(work)), dies_once)
    >>> simulation.run(until=10.0)
    >>> [event.kind for event in simulation.events]
    ['child_started', 'supervisor_started', 'child_exited', 'child_restarting', 'child_started']
    """

    def __init__(
        self, tree: SupervisorSpec, behaviour: Callable[[Launch], Behaviour] = lambda launch: Behaviour()
    ) -> None:
        if not isinstance(tree, SupervisorSpec):
            raise TypeError(f"Simulation takes a Supervisor, not {tree!r}")
        if not callable(behaviour):
            takes = "a function of the launch, as lambda launch: Behaviour()"  # type: ignore[unreachable]
            raise TypeError(f"Simulation: behaviour must be {takes}, not {behaviour!r}")
        self.clock: VirtualClock = VirtualClock()
        self.events: list[Event] = []
        self.crashes: list[CrashReport] = []
        self.registry: Registry = Registry()
        self.engine: SimulatedEngine = self._engine(behaviour)
        engines = {"process": self.engine, "thread": self.engine, "command": self.engine}
        env = Environment(
            self.registry,
            engines,
            self.clock,
            self.clock.at,
            self._publish,
            self._report,
            lambda owner: None,
            itertools.count(1),
            self._start_actor,
        )
        self.root: SupervisorInterface = Executor(tree, tree.name, env).interface
        self.root.tell(Begin())

    def _engine(self, behaviour: Callable[[Launch], Behaviour]) -> SimulatedEngine:
        return SimulatedEngine(self.clock, behaviour)

    def _publish(self, event: Event) -> None:
        self.events.append(event)

    def _report(self, crash: CrashReport) -> None:
        self.crashes.append(crash)

    def _start_actor(self, executor: Stepper) -> Callable[[Input], None]:
        return lambda event: self.clock.soon(lambda: executor.step(event))

    def run(self, until: float, most: int = 1_000_000) -> None:
        """Advance the virtual clock to `until` (seconds).

        Raises:
            RuntimeError: more than `most` events have happened by then (a start, a stop and a restart are two or three
                each): the tree does not come to rest, or it is that large.
            TypeError: `until` or `most` is no number; nothing has happened.
        """
        if not is_number(until):
            raise TypeError(f"run: until must be seconds, not {until!r}")
        if not is_number(most):
            raise TypeError(f"run: most must be a number of events, not {most!r}")
        self.clock.run(until, most)

    def stop(self, reason: ExitReason | None = None) -> None:
        """Ask the root to stop; `run` carries it out. Raises TypeError if `reason` is no exit reason."""
        if not isinstance(reason, ExitReason | None):
            takes = "an exit reason, as Shutdown('why'), or None"  # type: ignore[unreachable]
            raise TypeError(f"stop: reason must be {takes}, not {reason!r}")
        self.root.tell(StopAll(reason or Shutdown("stop")))

    @property
    def reason(self) -> ExitReason | None:
        """The root's exit reason, once it has ended."""
        return self.root.exited.result().reason if self.root.exited.done() else None

    def alive(self) -> list[SimulatedHandle]:
        """Return the incarnations that exist now."""
        return [handle for handle in self.engine.launched if handle.alive]

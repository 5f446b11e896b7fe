"""The supervisor of a worker's background threads: an executor of its own, in the process that the worker runs in."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, NoReturn

from suitkaise.engines.engine import Engine, EngineContext, Exit
from suitkaise.events import Event, SupervisorStarted, SupervisorStopped, SupervisorStopping
from suitkaise.exits import ExitReason
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.protocol import AdminAction
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.router import Router
from suitkaise.specs import Child
from suitkaise.specs.supervisor import DynamicSupervisorSpec
from suitkaise.supervision.actor import start_actor
from suitkaise.supervision.environment import Environment
from suitkaise.supervision.executor import Executor
from suitkaise.workers.incarnation import OwnRef

__all__ = ["BackgroundSupervisor", "BackgroundThread"]

_OWN = (SupervisorStarted, SupervisorStopping, SupervisorStopped)
_LAST_MOMENT = 1.0
"""Seconds that the supervisor gets to abandon its threads."""


class BackgroundSupervisor:
    """Restarts the background threads of one worker by the rules of a `DynamicSupervisor`.

    The threads have paths below the worker's. They are known in this process only, so the registry is one of their own.
    Their events and crash reports go to the program.

    Args:
        context: the program, or the part of it that a worker's process has.
        engine: runs the threads.
        path: the worker's path.
        on_end: called with the reason when the supervisor has given up.
    """

    def __init__(self, context: EngineContext, engine: Engine, path: str, on_end: Callable[[ExitReason], None]) -> None:
        def publish(event: Event) -> None:
            if not isinstance(event, _OWN):  # the program's tree has no supervisor of that path
                context.publish(event)

        self._registry = Registry()
        self._registry.dead_letters.publish = publish
        env = Environment(
            registry=self._registry,
            engines={"thread": engine},
            clock=time.monotonic,
            call_at=context.reactor.call_at,
            publish=publish,
            report=context.report,
            on_gone=lambda owner: None,  # what the threads put into the storage belongs to the worker
            serials=itertools.count(1),
            start_actor=start_actor,
        )
        name = path.rpartition("/")[2]
        self._root = Executor(DynamicSupervisorSpec(name), path, env).interface
        self._root.begin()

        def ended(exited: Future[Exit]) -> None:
            on_end(exited.result().reason)

        self._root.exited.add_done_callback(ended)

    def start(self, child: Child) -> BackgroundThread:
        """Start a thread; return its ref when its `on_start` has returned."""
        answer: Answer[Any] = self._root.administer(AdminAction.START_CHILD, child)
        return BackgroundThread(answer.get(None).path, self._registry)

    def stop(self, seconds: float) -> None:
        """Ask all threads to finish, and abandon those that have not ended after `seconds`."""
        self.request_stop()
        if not wait([self._root.exited], None if seconds == float("inf") else max(0.0, seconds)).done:
            self.kill("its worker has ended")
            wait([self._root.exited], _LAST_MOMENT)

    def request_stop(self) -> None:
        """Ask all threads to finish, without waiting."""
        self._root.stop(why="its worker ends")

    def kill(self, why: str) -> None:
        """Abandon all threads, without waiting."""
        self._root.kill(why)

    def own_ref(self, path: str) -> BackgroundThread:
        """Return the ref that the thread at `path` has of itself."""
        return BackgroundThread(path, self._registry)


class BackgroundThread(OwnRef):
    """The ref of a background thread, for use in the process that the thread runs in."""

    __slots__ = ("_registry",)

    def __init__(self, path: str, registry: Registry) -> None:
        super().__init__(path, None)
        self._registry = registry

    @property
    def _router(self) -> Router:
        return self._registry

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self.path!r} is a background thread, which is known in its own process only")

    def __repr__(self) -> str:
        return f"BackgroundThread({self.path!r})"

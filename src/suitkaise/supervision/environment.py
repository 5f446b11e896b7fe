"""What a supervisor depends on: the program and the simulation each provide it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Engine
from suitkaise.errors import SpecError
from suitkaise.events import Event
from suitkaise.messaging.registry import Registry
from suitkaise.policy.actions import Input
from suitkaise.policy.base import BasePolicy
from suitkaise.records import dataclass
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.cluster import Ray
from suitkaise.specs.recipe import check_unchanged

__all__ = ["Environment", "Stepper", "prepare", "unprepare"]


class Stepper(Protocol):
    """What a supervisor actor drives: the executor of one supervisor."""

    @property
    def path(self) -> str:
        """The supervisor's path."""

    @property
    def policy(self) -> BasePolicy:
        """The policy that decides."""

    def step(self, event: Input) -> None:
        """Decide about one event and carry the decision out."""

    def abort(self, error: BaseException) -> None:
        """End after an internal error (rule 68)."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a supervisor depends on; a simulation provides its own."""

    registry: Registry
    engines: Mapping[str, Engine]
    """Where children run, by their kind."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    call_at: Callable[[float, Callable[[], None]], Any]
    """Call a function at a time of the clock; returns a handle that can cancel it."""
    publish: Callable[[Event], None]
    report: Callable[[CrashReport], None]
    on_gone: Callable[[str], None]
    """Called with the owner (`path#serial`) of each incarnation that has ended."""
    serials: Iterator[int]
    """Numbers that grow with each incarnation in the program, so that an owner's name is never used again."""
    start_actor: Callable[[Stepper], Callable[[Input], None]]
    """Start the actor that drives an executor; returns the function that sends it an event from any thread."""
    open_cluster: Callable[[Ray], Mapping[str, Engine]] | None = None
    """Returns the engines of a cluster, which is joined or started at the first call; None: all runs here."""
    places: bool = False
    """Whether a child may have a place: below a supervisor whose engine is a cluster, or where all runs here."""

    def within(self, spec: SupervisorSpec) -> Environment:
        """Return what a supervisor with this declaration depends on: the declaration may name an engine of its own.

        Raises:
            SuitkaiseError: the cluster of that engine cannot be joined or started.
        """
        if spec.engine is None or self.open_cluster is None:
            return self
        return replace(self, engines=self.open_cluster(spec.engine), places=True)


def prepare(env: Environment, path: str, what: Any, child: Child | None = None) -> None:
    """Check that the child or the whole supervisor that is declared for `path` can be started here.

    Raises:
        NotSerializable: a worker or argument cannot be sent.
        SpecError: an attribute was assigned to a worker after it was constructed; or the child has a place, and there
            is no cluster.
        SuitkaiseError: the cluster that an engine stands for cannot be joined or started.
    """
    if isinstance(what, SupervisorSpec):
        env = env.within(what)
        for below in what.children:
            prepare(env, f"{path}/{below.id}", below.what, below)
    else:
        assert child is not None
        check_unchanged(what)
        if child.place is not None and not env.places:
            raise SpecError(f"{path!r}: place={child.place!r} needs a supervisor above with engine=Ray(...)")
        env.engines[child.kind].prepare(path, child)


def unprepare(env: Environment, path: str, what: Any) -> None:
    """Make the engines forget what was prepared for `path`; for a supervisor also what was prepared below it."""
    if isinstance(what, SupervisorSpec):
        env = env.within(what)
        for below in what.children:
            unprepare(env, f"{path}/{below.id}", below.what)
    else:
        for engine in env.engines.values():
            engine.forget(path)

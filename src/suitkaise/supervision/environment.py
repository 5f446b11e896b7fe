"""What supervisors find around them in a program, or in a simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Engine
from suitkaise.events import Event
from suitkaise.messaging.registry import Registry
from suitkaise.policy.actions import Input
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.recipe import check_unchanged

if TYPE_CHECKING:
    from suitkaise.supervision.executor import Executor

__all__ = ["Environment", "prepare", "unprepare"]


@dataclass(frozen=True, slots=True)
class Environment:
    """What a supervisor finds around it; a simulation brings its own."""

    registry: Registry
    engines: Mapping[str, Engine]
    clock: Callable[[], float]
    at: Callable[[float, Callable[[], None]], Any]
    publish: Callable[[Event], None]
    report: Callable[[CrashReport], None]
    on_gone: Callable[[str], None]
    serials: Iterator[int]
    """Numbers that grow with each incarnation in the program, so that an owner's name is never used again."""
    start_actor: Callable[[Executor], Callable[[Input], None]]
    """Gives a new executor its turns; returns how to reach it from any thread."""


def prepare(engines: Mapping[str, Engine], path: str, what: Any, child: Child | None = None) -> None:
    """Check that what is declared to be at `path`, a supervisor or a child, can be started here.

    Raises:
        NotSerializable: a worker or argument cannot be sent.
        SpecError: an attribute was assigned to a worker after it was constructed.
    """
    if isinstance(what, SupervisorSpec):
        for below in what.children:
            prepare(engines, f"{path}/{below.id}", below.what, below)
    else:
        assert child is not None
        check_unchanged(what)
        engines[child.kind].prepare(path, child)


def unprepare(engines: Mapping[str, Engine], path: str, what: Any) -> None:
    """Have the engines forget what was prepared, of a supervisor also of those that were never started."""
    if isinstance(what, SupervisorSpec):
        for below in what.children:
            unprepare(engines, f"{path}/{below.id}", below.what)
    else:
        for engine in engines.values():
            engine.forget(path)

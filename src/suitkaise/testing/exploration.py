"""Does a tree survive any order of crashes? The simulated engine plays thousands of orders in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suitkaise.engines.engine import Launch
from suitkaise.engines.simulated import Behaviour
from suitkaise.specs import SupervisorSpec
from suitkaise.specs.options import is_number, is_whole
from suitkaise.supervision.interface import SupervisorInterface
from suitkaise.testing.simulation import Simulation

__all__ = ["Crash", "assert_survives"]

SETTLE = 600.0
"""Seconds, of the virtual clock, that a tree has to recover after the last crash."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash of a story: of the worker at `path`, `after` seconds after the crash before."""

    path: str
    after: float

    def __str__(self) -> str:
        return f"{self.after:>8.3f} s later, {self.path} crashes"


def assert_survives(
    tree: SupervisorSpec, *, crashes: int = 4, apart: float = 0.0, at_most_apart: float = 10.0, examples: int = 300
) -> None:
    """Assert that a tree recovers from any story of crashes: workers, order and times are chosen by hypothesis.

    No worker runs: the supervisors are real, the clock is virtual, and the workers are scripts that run until they
    crash. A story that the tree does not survive is shortened to the shortest one. Needs the extra `testing`.

    Args:
        tree: the declaration.
        crashes: the largest number of crashes in a story.
        apart: the least seconds between two crashes. With 0.0 a tree survives as many crashes as its `max_restarts`.
        at_most_apart: the most seconds between two crashes.
        examples: how many stories are played.

    Raises:
        AssertionError: after a story, the tree has ended, or a permanent or transient child does not run. The error
            holds the story and the events.
        TypeError, ValueError: this is no supervisor, it has no workers, or one of the numbers makes no stories.

    >>> from suitkaise import Child, Supervisor
    >>> def work() -> None: ...
    >>> tree = Supervisor("app", Child(work, copies=2), max_restarts=2, max_seconds=5.0)
    >>> assert_survives(tree, crashes=2)
    >>> assert_survives(tree, crashes=20, apart=3.0)
    >>> assert_survives(tree, crashes=3)
    Traceback (most recent call last):
    AssertionError: 'app' does not survive 3 crashes: it has ended: shutdown (gave up...
    """
    if not isinstance(tree, SupervisorSpec):
        raise TypeError(f"assert_survives takes a Supervisor, not {tree!r}")
    _check_count("crashes", crashes, 0)
    _check_count("examples", examples, 1)
    _check_seconds("apart", apart)
    _check_seconds("at_most_apart", at_most_apart)
    try:
        import hypothesis
        from hypothesis import strategies
    except ImportError:
        hint = "assert_survives needs hypothesis: pip install 'suitkaise-xprocess[testing]'"
        raise ImportError(hint, name="hypothesis") from None

    paths = sorted(handle.launch.path for handle in _started(tree).engine.launched)
    if not paths:
        raise ValueError(f"{tree.name!r} has no workers that could crash")
    crash = strategies.builds(
        Crash, strategies.sampled_from(paths), strategies.floats(apart, max(apart, at_most_apart), allow_nan=False)
    )

    @hypothesis.settings(
        max_examples=examples, database=None, derandomize=True, deadline=None, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck), phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )  # fmt: skip
    @hypothesis.given(strategies.lists(crash, max_size=crashes))
    def survives(story: list[Crash]) -> None:
        trouble = _play(tree, story)
        if trouble:
            raise _NotSurvived(trouble)

    try:
        survives()
    except _NotSurvived as trouble:
        raise AssertionError(str(trouble)) from None


def _check_count(name: str, count: object, least: int) -> None:
    if not is_whole(count, least):
        raise ValueError(f"assert_survives: {name} must be a whole number >= {least}, not {count!r}")


def _check_seconds(name: str, seconds: float) -> None:
    if not is_number(seconds) or not 0 <= seconds < math.inf:
        raise ValueError(f"assert_survives: {name} must be seconds >= 0, not {seconds!r}")


class _NotSurvived(Exception):
    """A story that the tree did not survive."""


def _started(tree: SupervisorSpec) -> Simulation:
    simulation = Simulation(tree, _runs)
    simulation.run(until=0.0)
    return simulation


def _runs(launch: Launch) -> Behaviour:
    return Behaviour()


def _play(tree: SupervisorSpec, story: Sequence[Crash]) -> str:
    """Play a story; return what is wrong after it, nothing if the tree has recovered."""
    simulation = _started(tree)
    now = 0.0
    for crash in story:
        now += crash.after
        simulation.run(until=now)
        for handle in simulation.alive():
            if handle.launch.path == crash.path:
                handle.kill("a crash of the story")
    simulation.run(until=now + SETTLE)
    down = list(_down(simulation.root)) if simulation.reason is None else [f"it has ended: {simulation.reason}"]
    if not down:
        return ""
    events = "\n".join(f"  {event.at:8.3f}  {event}" for event in simulation.events if event.kind != "child_started")
    number = f"{len(story)} crash{'es' * (len(story) != 1)}"
    lines = "\n".join(map(str, story))
    return f"{tree.name!r} does not survive {number}: {'; '.join(down)}\n{lines}\nwhat happened:\n{events}"


def _down(supervisor: SupervisorInterface) -> Iterator[str]:
    for line in supervisor.which_children():
        below = supervisor.child(line.id)
        if below is not None:
            yield from _down(below)
        elif line.status != "running" and supervisor.policy.get_child_spec(line.id).restart != "temporary":
            yield f"{supervisor.path}/{line.id} is {line.status}"

"""The policy is a function of its inputs, and its work does not grow with the number of children."""

from __future__ import annotations

import functools
import gc
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Supervisor
from suitkaise.exits import Normal
from suitkaise.policy.actions import Action, Begin, Exited, Ready, Recall, StopAll, TerminateChild, Timer
from suitkaise.policy.static import StaticPolicy
from suitkaise.specs import Backoff
from tests.policy.driver import BOOM, begun, child, children, supervisor

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


def inputs(seed: int, number: int) -> list[tuple[Any, float]]:
    """Return random events, sensible or not."""
    dice, now = random.Random(seed), 0.0
    made: list[tuple[Any, float]] = [(Begin(), 0.0)]
    for request in range(number):
        id, incarnation = dice.choice("abc"), dice.randint(1, 4)
        now += dice.choice([0.0, 0.1, 1.0])
        event: Any = dice.choice(
            [
                Ready(id, incarnation),
                Exited(id, incarnation, dice.choice([BOOM, Normal()])),
                Timer(("retry", id, incarnation)),
                Timer(("kill", id, incarnation)),
                TerminateChild(request, id),
                Recall(request, id),
            ]
        )
        made.append((event, now))
    return [*made, (StopAll(Normal()), now)]


def run(spec: Supervisor, script: list[tuple[Any, float]]) -> list[list[Action]]:
    policy = StaticPolicy(spec, "top")
    return [policy.handle(event, now) for event, now in script]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_inputs_give_the_same_actions(strategy: str) -> None:
    spec = supervisor(*children("abc", backoff=Backoff()), strategy=strategy, max_restarts=5)
    for seed in range(50):
        script = inputs(seed, 60)
        assert str(run(spec, script)) == str(run(spec, script))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_supervisors_of_one_declaration_do_not_share_anything(strategy: str) -> None:
    spec = supervisor(*children("abc"), strategy=strategy)
    one, other = begun(spec.children, strategy=strategy), begun(spec.children, strategy=strategy)

    one.crash("a")
    one.terminate_child("b")
    one.delete_child("b")

    assert other.running() == "abc"
    assert other.policy.restarts_used(0.0) == 0


def calls_during(act: Callable[[], object]) -> int:
    """Return how many functions are called, in Python or in C."""
    count = 0

    def profiler(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # callbacks of the collector would be counted, too
    sys.setprofile(profiler)
    try:
        act()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


ACTS: dict[str, Callable[[StaticPolicy], object]] = {
    "crash": lambda policy: policy.handle(Exited("w-1", 1, BOOM), 0.0),
    "crash and start": lambda policy: (
        policy.handle(Exited("w-1", 1, BOOM), 0.0),
        policy.handle(Ready("w-1", 2), 0.0),
    ),
    "clean end of a transient child": lambda policy: policy.handle(Exited("transient", 1, Normal()), 0.0),
    "end of a temporary child": lambda policy: policy.handle(Exited("temporary", 1, BOOM), 0.0),
    "terminate": lambda policy: policy.handle(TerminateChild(1, "w-1"), 0.0),
    "status": lambda policy: policy.child_info("w-1"),
}


@pytest.mark.parametrize("act", ACTS)
def test_s54_a_decision_under_one_for_one_costs_the_same_among_few_and_among_many_children(act: str) -> None:
    costs = []
    for number in (4, 4, 400):  # the first time makes what is made once in a process
        spec = supervisor(child("transient", "transient"), child("temporary", "temporary"), child("w", copies=number))
        tree = begun(spec.children)
        costs.append(calls_during(functools.partial(ACTS[act], tree.policy)))

    assert costs[2] == costs[1]

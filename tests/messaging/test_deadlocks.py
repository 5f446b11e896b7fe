"""Circles of waits are found, exactly where there are some, whatever the order in which the hub learns of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from suitkaise.errors import DeadlockError
from suitkaise.messaging import deadlocks, identity, router
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.deadlocks import Wait, Waits
from suitkaise.messaging.identity import owner_of
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import WorkerRef

NAMES = "abcd"
nodes = st.sampled_from(NAMES)


class Client:
    """A worker that waits: what `Wait` does, one step at a time."""

    def __init__(self, waits: Waits, name: str, serial: int = 1) -> None:
        self.name = name
        self.waits = waits
        self.serial = serial
        self.target = ""
        self.answered = False
        self.since = 0.0
        self.told: Answer[Any] | None = None
        self.withdrawn: list[Answer[Any]] = []  # and the hub has not learnt of it

    def begin(self, target: str, since: float) -> None:
        self.target, self.answered, self.since, self.told = target, False, since, None

    def look(self, verb: str = "asks") -> None:
        if not self.target:
            return
        if self.answered:
            self.end()
        elif self.told is None:
            self.tell(verb, (0, 0))
        elif self.told.done():
            self.tell(verb, self.told.result(0))

    def tell(self, verb: str, token: tuple[int, int]) -> None:
        self.told = Answer()
        self.waits.add(self.target, (owner_of(self.name, self.serial), verb, self.since, token), self.told)

    def end(self) -> None:
        self.target, self.answered = "", False
        if self.told is not None:
            self.withdrawn.append(self.told)
            self.told = None

    @property
    def error(self) -> BaseException | None:
        return self.told.exception(0) if self.told is not None and self.told.done() else None


def clients(waits: Waits, names: str = NAMES) -> dict[str, Client]:
    return {name: Client(waits, name) for name in names}


def everywhere(path: str, serial: int) -> bool:
    return True


def look_often(ones: dict[str, Client]) -> list[BaseException]:
    for _ in range(5):
        for one in ones.values():
            if one.error is None:
                one.look()
    return [one.error for one in ones.values() if one.error is not None]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_circle_is_told_once_to_the_one_that_began_to_wait_last(size: int) -> None:
    waits = Waits(everywhere)
    ones = clients(waits, NAMES[:size])
    for number, name in enumerate(ones):
        ones[name].begin(NAMES[(number + 1) % size], float(number))
    [error] = look_often(ones)
    assert ones[NAMES[size - 1]].error is error
    assert isinstance(error, DeadlockError)
    assert str(error).startswith("deadlock: a asks b asks ")
    assert str(error).endswith(" asks a; none of them can answer")


def test_a_chain_is_no_circle_nor_is_what_leads_into_one() -> None:
    waits = Waits(everywhere)
    ones = clients(waits)
    for name, target in ("ab", "bc", "cd"):
        ones[name].begin(target, 1.0)
    assert look_often(ones) == []
    ones["d"].begin("b", 2.0)  # a waits for the circle of b, c and d
    [error] = look_often(ones)
    assert str(error) == "deadlock: b asks c asks d asks b; none of them can answer"


def test_a_circle_is_told_only_after_all_have_looked_again_twice() -> None:
    waits = Waits(everywhere)
    ones = clients(waits, "ab")
    ones["a"].begin("b", 1.0)
    ones["b"].begin("a", 2.0)
    for _ in range(2):
        ones["a"].look()
        ones["b"].look()
        assert all(one.error is None and one.told is not None and one.told.done() for one in ones.values())
    ones["a"].look()
    assert ones["b"].error is None
    ones["b"].look()
    assert isinstance(ones["b"].error, DeadlockError)
    assert ones["b"].error.path == "a"


def test_a_wait_of_an_incarnation_that_is_gone_does_not_count() -> None:
    waits = Waits(lambda path, serial: serial == 2)
    ones = {"a": Client(waits, "a", serial=1), "b": Client(waits, "b", serial=2)}
    ones["a"].begin("b", 1.0)
    ones["b"].begin("a", 2.0)
    assert look_often(ones) == []


def test_nothing_is_kept_of_waits_that_are_over() -> None:
    waits = Waits(everywhere)
    ones = clients(waits)
    for name, target in ("ab", "bc"):
        ones[name].begin(target, 1.0)
    look_often(ones)
    assert len(waits) == 2
    for one in ones.values():
        if one.told is not None:
            one.told.cancel()
    assert len(waits) == 0


class Hub:
    """Takes the requests of this process."""

    def __init__(self) -> None:
        self.waits: list[tuple[Any, Answer[Any]]] = []

    def request(self, kind: RequestKind, path: str, argument: Any) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.waits.append((argument, answer))
        return answer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """This thread is the own one of the background thread `tree/a/one`, in the incarnation 3 of `tree/a`."""
    hub = Hub()
    monkeypatch.setattr(router, "_router", hub)
    identity.set_owner("tree/a#3")
    yield hub
    identity.set_owner(None)
    identity.set_own_thread("")


def test_a_background_thread_tells_its_own_path_and_sends_tokens_back_only_while_it_alone_can_answer(hub: Hub) -> None:
    alone = True
    identity.set_own_thread("tree/a/one", lambda: alone)
    wait = Wait("asks", "tree/b", 7.0)
    wait.look()
    hub.waits[0][1].set_result((5, 1))
    wait.look()
    assert [argument for argument, _ in hub.waits] == [
        ("tree/a/one#3", "asks", 7.0, (0, 0)),
        ("tree/a/one#3", "asks", 7.0, (5, 1)),
    ]
    hub.waits[1][1].set_result((5, 2))
    alone = False  # it was abandoned, or a handler has taken `reply_to()`
    wait.look()
    assert len(hub.waits) == 2
    alone = True
    wait.look()
    assert hub.waits[2][0] == ("tree/a/one#3", "asks", 7.0, (0, 0))  # that token is out of date


def test_an_async_hook_tells_of_no_wait_for_an_answer_that_is_there_and_has_not_woken_it_yet(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlocks, "STEP", 0.0)
    identity.set_own_thread("tree/a", lambda: True, lambda: False, lambda: True)
    answer: Answer[str] = Answer()
    answer.asked = WorkerRef("tree/b")

    async def hook() -> str:
        # The look is due at the same time, and the event loop calls it before what the answer leaves there.
        asyncio.get_running_loop().call_later(0.0, answer.set_result, "the answer")
        return await answer

    assert asyncio.run(hook()) == "the answer"
    assert hub.waits == []


class Model(RuleBasedStateMachine):
    """Workers that wait, answer and look in any order; the hub learns late that a wait is over."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits(everywhere)
        self.ones = clients(self.waits)
        self.time = 0.0

    def is_stuck(self, name: str) -> bool:
        seen = set()
        current = name
        while (one := self.ones[current]).target and not one.answered:
            if one.target == name:
                return True
            if current in seen:
                return False
            seen.add(current)
            current = one.target
        return False

    @rule(name=nodes, other=nodes)
    def wait(self, name: str, other: str) -> None:
        if not self.ones[name].target and name != other:
            self.time += 1
            self.ones[name].begin(other, self.time)

    @rule(name=nodes)
    def answer(self, name: str) -> None:
        """A worker that does not wait answers all that wait for it; they have not seen it yet."""
        if not self.ones[name].target:
            for one in self.ones.values():
                if one.target == name:
                    one.answered = True

    @rule(name=nodes)
    def time_out(self, name: str) -> None:
        if self.ones[name].target:
            self.ones[name].end()

    @rule(name=nodes)
    def withdraw(self, name: str) -> None:
        """The hub learns that a wait is over."""
        for told in self.ones[name].withdrawn:
            told.cancel()
        self.ones[name].withdrawn.clear()

    @rule(name=nodes)
    def look(self, name: str) -> None:
        before = {one.name: one.error for one in self.ones.values()}
        if self.ones[name].error is None:
            self.ones[name].look()
        for one in self.ones.values():
            if one.target and one.error is not None and before[one.name] is None:
                assert self.is_stuck(one.name), f"{one.name} was told of a deadlock that is none: {one.error}"

    @precondition(lambda self: any(one.target and one.error is not None for one in self.ones.values()))
    @rule()
    def take_error(self) -> None:
        for one in self.ones.values():
            if one.target and one.error is not None:
                one.end()

    @rule()
    def settle(self) -> None:
        """When all have looked often enough, each circle has an error."""
        for one in self.ones.values():
            self.withdraw(one.name)
        for _ in range(8):
            for name in NAMES:
                self.look(name)
        for name in NAMES:
            self.withdraw(name)
            if self.is_stuck(name):
                assert any(self.ones[member].error for member in self.circle(name)), f"{name} waits for ever"

    def circle(self, name: str) -> list[str]:
        members = [name]
        while (target := self.ones[members[-1]].target) != name:
            members.append(target)
        return members

    @invariant()
    def nobody_waits_twice_in_the_table(self) -> None:
        assert len(self.waits) <= len(NAMES)


Model.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestTheModel = Model.TestCase

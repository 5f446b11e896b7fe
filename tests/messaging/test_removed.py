"""The results of removed workers: kept until newer ones need the room, and told when they are dropped."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.errors import ChildNotFound, WorkerFailed
from suitkaise.exits import Normal
from suitkaise.messaging import removed
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.registry import Registry
from tests.messaging.test_registry import Parent


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "MOST_REMOVED", 10)
    monkeypatch.setattr(removed, "MOST_RESULT_BYTES", 5_000)
    monkeypatch.setattr(removed, "MOST_FETCHED_BYTES", 2_000)


@pytest.fixture
def registry(little_room: None) -> Registry:
    return Registry()


def ended(registry: Registry, *names: str, size: int = 1_000, encoded: bool = True) -> None:
    """Add workers that end with a result of that size, and are removed."""
    for name in names:
        address = registry.add(f"app/{name}", name, "process", Parent())
        value = bytes(size)
        payload = Payload(value)
        if encoded:
            payload = Payload(data=payload.data)
        address.detach(Normal(), payload)
        registry.remove(f"app/{name}")


def result(registry: Registry, name: str) -> Any:
    return registry.request(RequestKind.RESULT, f"app/{name}").get(1.0)


def kept(registry: Registry, names: str) -> str:
    """Return the names whose results are kept, without fetching them."""
    found = {name: registry._removed.get(f"app/{name}") for name in names}
    return "".join(name for name, address in found.items() if address is not None and address.result is not None)


@pytest.mark.parametrize("encoded", [True, False], ids=["of a process", "of a thread"])
def test_the_oldest_results_are_dropped_when_there_is_no_room_for_a_new_one(registry: Registry, encoded: bool) -> None:
    ended(registry, *"abcdef", encoded=encoded)
    assert kept(registry, "abcdef") == "cdef"
    assert result(registry, "f") == bytes(1_000)


def test_a_result_that_was_fetched_can_be_fetched_again_until_newer_ones_need_its_smaller_room(
    registry: Registry,
) -> None:
    ended(registry, *"abcd")
    assert result(registry, "a") == result(registry, "a")
    assert kept(registry, "abcd") == "abcd"
    result(registry, "b")
    assert kept(registry, "abcd") == "bcd"
    ended(registry, *"ef")
    assert kept(registry, "abcdef") == "bcdef"


def test_a_dropped_result_is_told_with_the_reason_and_the_bounds(registry: Registry) -> None:
    ended(registry, *"abcdef")
    with pytest.raises(
        WorkerFailed, match=r"'app/a' ended with a result, which was dropped: .* call result\(\) sooner"
    ):
        result(registry, "a")


def test_a_single_result_may_have_any_size(registry: Registry) -> None:
    ended(registry, "a", size=1_000_000)
    assert len(result(registry, "a")) == 1_000_000


def test_a_caller_that_waits_at_the_end_gets_the_result_whatever_its_size(registry: Registry) -> None:
    address = registry.add("app/a", "a", "process", Parent())
    answers = [registry.request(RequestKind.RESULT, "app/a") for _ in range(3)]
    address.detach(Normal(), Payload(data=Payload(bytes(1_000_000)).data))
    registry.remove("app/a")
    assert [len(answer.get(1.0)) for answer in answers] == [1_000_000] * 3
    assert kept(registry, "a") == ""


def test_more_workers_than_are_remembered_are_forgotten_with_their_results(registry: Registry) -> None:
    names = [f"w{number}" for number in range(12)]
    ended(registry, *names, size=1)
    with pytest.raises(ChildNotFound):
        result(registry, "w1")
    assert result(registry, "w2") == b"\0"
    assert len(registry._removed._new._sizes) + len(registry._removed._fetched._sizes) == 10


def test_a_new_worker_at_the_path_takes_the_place_of_the_removed_one(registry: Registry) -> None:
    ended(registry, "a", size=4_000)
    registry.add("app/a", "a", "process", Parent())
    assert registry._removed._new._bytes == 0
    ended(registry, "b", size=4_000)
    assert kept(registry, "ab") == "b"

"""Dead letters are all counted, and a flood of them is a few events."""

from __future__ import annotations

import pytest

from suitkaise.events import DeadLetter, Event
from suitkaise.messaging import dead_letters
from suitkaise.messaging.dead_letters import DeadLetters


def test_each_is_counted_and_every_doubling_is_an_event() -> None:
    events: list[Event] = []
    letters = DeadLetters(events.append)
    for _ in range(100):
        letters.add("app/slow", "its inbox is full")
    letters.add("app/other", "it has ended", 3)
    assert letters.count("app/slow") == 100
    assert [(one.path, one.count) for one in events if isinstance(one, DeadLetter)] == [
        ("app/slow", 1), ("app/slow", 2), ("app/slow", 4), ("app/slow", 8), ("app/slow", 16), ("app/slow", 32),
        ("app/slow", 64), ("app/other", 3),
    ]  # fmt: skip


def test_the_event_tells_how_many_and_why() -> None:
    one, many = DeadLetter("app/slow", 0.0, 1, "it is full"), DeadLetter("app/slow", 0.0, 4, "it is full")
    assert str(one) == "app/slow 1 message was not delivered; the last one: it is full"
    assert str(many) == "app/slow 4 messages were not delivered; the last one: it is full"
    assert (many.level, many.kind, many.to_dict()["count"]) == ("warning", "dead_letter", 4)


def test_the_numbers_of_only_so_many_workers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_PATHS", 2)
    letters = DeadLetters()
    for path in ("a", "b", "a", "c"):
        letters.add(path, "why")
    assert [letters.count(path) for path in "abc"] == [2, 0, 1]


def test_another_child_at_the_same_path_is_counted_from_zero() -> None:
    letters = DeadLetters()
    letters.add("a", "why")
    letters.forget("a")
    letters.forget("unknown")
    letters.add("a", "why")
    assert letters.count("a") == 1

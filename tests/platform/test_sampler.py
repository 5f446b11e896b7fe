"""The sampling profiler: which functions it finds, and when it ends."""

from __future__ import annotations

import sys
import threading
from typing import Any

from suitkaise.platform.sampler import sample
from tests.support import eventually, in_background


def wait_here(event: threading.Event) -> None:
    event.wait()


def functions(found: dict[str, Any]) -> dict[str, set[str]]:
    """Return the innermost functions of each thread that are of this file."""
    by_thread: dict[str, set[str]] = {}
    for thread, stack, _ in found["stacks"]:
        names = {found["frames"][one][0] for one in stack if found["frames"][one][1] == __file__}
        by_thread.setdefault(thread, set()).update(names)
    return by_thread


class Waiting:
    """A thread that waits in `wait_here`."""

    def __init__(self, name: str) -> None:
        self.event = threading.Event()
        self.thread = threading.Thread(target=wait_here, args=(self.event,), name=name)

    def __enter__(self) -> Waiting:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.event.set()
        self.thread.join()


def test_it_finds_where_the_wanted_threads_are() -> None:
    with Waiting("one"), Waiting("other"):
        pauses = iter([False] * 5 + [True])
        found = sample(60.0, 1000.0, lambda thread: thread.name == "one", lambda seconds: next(pauses))
    assert functions(found) == {"one": {"wait_here"}}
    assert [count for _, _, count in found["stacks"]] == [6]


def test_it_ends_when_the_threads_have_ended() -> None:
    with Waiting("one") as waiting:
        looks: list[float] = []

        def stopped(seconds: float) -> bool:
            looks.append(seconds)
            waiting.event.set()
            waiting.thread.join()
            return False

        assert sample(60.0, 10.0, lambda thread: thread.name == "one", stopped)["seconds"] < 30
    assert len(looks) == 1


def test_it_ends_after_its_time_and_changes_nothing() -> None:
    interval = sys.getswitchinterval()
    over = threading.Event()
    found = in_background(lambda: sample(0.05, 100.0, lambda thread: True, over.wait)).result(30)
    assert found["stacks"]
    assert sys.getswitchinterval() == interval


def test_profiles_that_overlap_change_nothing_either() -> None:
    interval = sys.getswitchinterval()
    first, second = threading.Event(), threading.Event()
    with Waiting("one"):
        one = in_background(lambda: sample(60.0, 100.0, lambda thread: thread.name == "one", first.wait))
        eventually(lambda: sys.getswitchinterval() < interval)
        looked = threading.Event()

        def stopped(seconds: float) -> bool:
            looked.set()
            return second.wait(seconds)

        other = in_background(lambda: sample(60.0, 100.0, lambda thread: thread.name == "one", stopped))
        assert looked.wait(30)
        first.set()
        one.result(30)
        assert sys.getswitchinterval() < interval
        second.set()
        other.result(30)
    assert sys.getswitchinterval() == interval


def test_a_deep_stack_is_cut_from_outside() -> None:
    event = threading.Event()

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        else:
            wait_here(event)

    thread = threading.Thread(target=deep, args=(400,), name="deep")
    thread.start()
    try:
        found = sample(60.0, 100.0, lambda one: one is thread, lambda seconds: True)
    finally:
        event.set()
        thread.join()
    ((_, stack, _),) = found["stacks"]
    assert len(stack) == 200
    assert "wait_here" in functions(found)["deep"]

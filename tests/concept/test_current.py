"""`current_worker()` gives the worker object that runs in this thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from suitkaise import Child, Process, Recalled, Supervisor, Thread, current_worker


def names() -> tuple[Any, Any]:
    """The worker's name as this thread sees it, and as a plain thread that is started here does."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(getattr(current_worker(), "name", None)))
    thread.start()
    thread.join()
    return getattr(current_worker(), "name", None), found[0]


class InProcess(Process):
    restart = "transient"

    def __init__(self) -> None:
        self.at_construction = getattr(current_worker(), "recalled", "none")

    def on_start(self) -> None:
        self.seen = [names()]

    def loop(self) -> Any:
        self.seen.append(names())
        self.rejoin()
        return current_worker() is self, self.seen


class InThread(Thread):
    restart = "transient"

    def loop(self) -> Any:
        self.rejoin()
        return current_worker() is self, names()


class Async(Thread):
    restart = "transient"

    async def loop(self) -> Any:
        await self.wait_async(0.001)
        self.rejoin()
        return current_worker() is self, getattr(current_worker(), "name", None)


def test_there_is_none_outside_of_a_worker() -> None:
    assert current_worker() is None


@pytest.mark.parametrize(
    "worker, expected",
    [
        (InProcess, (True, [("it", "it"), ("it", "it")])),
        (InThread, (True, ("it", None))),
        (Async, (True, "it")),
    ],
)
def test_a_worker_finds_itself_in_its_own_thread_and_all_threads_of_its_process(worker: Any, expected: Any) -> None:
    with Supervisor("app", Child(worker, id="it")).start() as running:
        assert running["it"].result(timeout=20) == expected
    assert current_worker() is None


def test_a_worker_finds_itself_in_a_plain_function() -> None:
    def work() -> Any:
        worker = current_worker()
        assert worker is not None
        worker.rejoin()
        return worker.name, isinstance(worker.recalled, Recalled)

    with Supervisor("app", Child(work, id="it", restart="transient")).start() as running:
        assert running["it"].result(timeout=20) == ("it", False)

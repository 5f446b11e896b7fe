"""A program that cannot start another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from suitkaise import Child, ChildStartFailed, Supervisor, Thread
from suitkaise.runtime import runtime


class Idle(Thread):
    def on_receive(self, message: object) -> object:
        return message


@pytest.fixture
def no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No worker's thread can be started, until the patch is undone."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("app/"):
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", start)
        yield full


def test_a_thread_that_cannot_be_started_frees_its_slot_of_the_board(no_thread_left: pytest.MonkeyPatch) -> None:
    with Supervisor("app", max_restarts=0).start() as running:
        now = runtime.current()
        assert now is not None
        board = now.engine_context.board
        for _ in range(5):
            with pytest.raises(ChildStartFailed, match="can't start new thread"):
                running.start_child(Child(Idle))
        no_thread_left.undo()
        assert (board._next, len(board._free)) == (1, 1)
        assert running.start_child(Child(Idle)).ask("hello") == "hello"


@pytest.mark.usefixtures("no_thread_left")
def test_s58_a_thread_that_cannot_be_started_leaves_a_report() -> None:
    with Supervisor("app", max_restarts=0).start() as running:
        with pytest.raises(ChildStartFailed):
            running.start_child(Child(Idle))
        [report] = running.crashes()
    assert (report.path, report.reason_kind, report.verdict) == ("app/idle", "Crashed", "stays down")
    assert "can't start new thread" in report.reason
    assert "in start" in report.traceback

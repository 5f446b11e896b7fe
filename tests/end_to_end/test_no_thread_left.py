"""A program that cannot start another thread."""

from __future__ import annotations

import threading

import pytest

from suitkaise import Child, ChildStartFailed, Supervisor, Thread
from suitkaise.supervision import runtime


class Idle(Thread):
    def on_receive(self, message: object) -> object:
        return message


def test_a_thread_that_cannot_be_started_gives_its_place_on_the_board_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("app/"):
            raise RuntimeError("can't start new thread")
        real(thread)

    with Supervisor("app", max_restarts=0).start() as running:
        now = runtime.current()
        assert now is not None
        board = now.site.board
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", start)
            for _ in range(5):
                with pytest.raises(ChildStartFailed, match="can't start new thread"):
                    running.start_child(Child(Idle))
        assert (board._next, len(board._free)) == (1, 1)
        assert running.start_child(Child(Idle)).ask("hello") == "hello"


def test_s58_a_thread_that_cannot_be_started_leaves_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("app/"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Supervisor("app", max_restarts=0).start() as running:
        with pytest.raises(ChildStartFailed):
            running.start_child(Child(Idle))
        [report] = running.crashes()
    assert (report.path, report.reason_kind, report.verdict) == ("app/idle", "Crashed", "stays down")
    assert "can't start new thread" in report.reason
    assert "in start" in report.traceback

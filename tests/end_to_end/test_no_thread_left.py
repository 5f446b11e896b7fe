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

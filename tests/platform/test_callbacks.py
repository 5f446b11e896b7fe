"""Callbacks of the user's run in a thread of their own, one after the other."""

from __future__ import annotations

import threading

import pytest

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Payload
from suitkaise.platform import callbacks
from suitkaise.platform.callbacks import run_callback
from tests.support import eventually


def test_s76_a_callback_runs_in_another_thread_than_the_one_that_sets_the_answer() -> None:
    threads: list[str] = []
    answer: Answer[int] = Answer()
    answer.add_done_callback(lambda done: threads.append(threading.current_thread().name))
    answer.settle(True, Payload(1))
    eventually(lambda: threads == ["suitkaise-callbacks"])
    answer.add_done_callback(lambda done: threads.append(threading.current_thread().name))
    assert threads[1:] == [threading.current_thread().name]


def test_callbacks_run_in_order_and_an_exception_in_one_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []

    def fail() -> None:
        raise SystemExit(3)

    for number in range(200):
        run_callback(fail if number == 100 else lambda number=number: called.append(number))  # type: ignore[misc]
    eventually(lambda: len(called) == 199)
    assert called == [number for number in range(200) if number != 100]
    assert "SystemExit in a callback of an answer was ignored" in caplog.text


def test_where_no_thread_can_be_started_a_callback_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    called: list[int] = []
    for number in range(3):
        run_callback(lambda number=number: called.append(number))  # type: ignore[misc]
    assert called == [0, 1, 2]


@pytest.mark.parametrize("started", [False, True])
def test_an_exception_of_a_signal_handler_at_the_start_of_the_thread_costs_no_callback(
    started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.undo()
        if started:
            start(thread)
        raise KeyboardInterrupt

    eventually(lambda: not callbacks._callbacks.running)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    called: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_callback(lambda: called.append(1))
    eventually(lambda: called == [1])
    run_callback(lambda: called.append(2))
    eventually(lambda: called == [1, 2])
    eventually(lambda: not callbacks._callbacks.running)


def test_where_there_is_no_memory_for_a_thread_a_callback_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise MemoryError

    eventually(lambda: not callbacks._callbacks.running)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    called: list[int] = []
    for number in range(3):
        run_callback(lambda number=number: called.append(number))  # type: ignore[misc]
    assert called == [0, 1, 2]

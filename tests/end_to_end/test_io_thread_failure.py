"""The I/O thread ends by an internal error: no call waits for ever, and all trees end with that reason."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from typing import Any

import pytest

from suitkaise import Child, Process, Supervisor, Thread, WorkerDead
from suitkaise.runtime import runtime
from tests.sample_workers import Echo
from tests.support import eventually, in_background, wait_gone


class Waits(Process):
    def on_receive(self, message: Any) -> Any:
        time.sleep(1000.0)  # unlike `self.wait`, it outlasts the stop


class Idle(Thread):
    def on_receive(self, message: Any) -> Any:
        return message


def break_the_io_thread() -> None:
    now = runtime.current()
    assert now is not None
    reactor = now.reactor

    def select(timeout: float | None = None) -> Any:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    reactor._selector.select = select  # type: ignore[method-assign]
    reactor.call_soon_threadsafe(lambda: None)


def test_when_the_io_thread_ends_asks_and_waits_fail_and_the_next_tree_gets_a_new_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    below = Supervisor("below", Child(Waits), Child(Echo, spares=1))
    running = Supervisor("app", Child(Idle), below, Child(Echo, id="echo")).start()
    pids = [running["below/waits"].pid, running["echo"].pid]
    answer = running["below/waits"].ask_future("for ever")
    ended = in_background(running.wait)
    break_the_io_thread()
    with pytest.raises(WorkerDead):
        answer.get(timeout=10)
    assert "the I/O thread has ended" in str(ended.result(10))
    for pid in pids:
        wait_gone(pid or 0)
    [record] = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert record.exc_info
    assert "Bad file descriptor" in str(record.exc_info[1])
    eventually(lambda: runtime.current() is None)
    with Supervisor("app", Child(Echo)).start() as again:
        assert again["echo"].ask("hello") == "hello"


def test_a_tree_can_be_stopped_when_the_io_thread_has_ended() -> None:
    running = Supervisor("app", Child(Echo)).start()
    break_the_io_thread()
    assert "the I/O thread has ended" in str(running.stop(timeout=10))


class Broken(logging.Handler):
    called = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.called += 1
        raise RuntimeError("the handler is broken")


def test_a_log_handler_that_raises_does_not_end_the_io_thread() -> None:
    handler = Broken()
    logger = logging.getLogger("suitkaise.reactor")
    with Supervisor("app", Child(Echo)).start() as running:
        now = runtime.current()
        assert now is not None
        logger.addHandler(handler)
        try:
            now.reactor.call_soon_threadsafe(lambda: 1 / 0)
            assert running["echo"].ask("hello") == "hello"
            eventually(lambda: handler.called == 1)
        finally:
            logger.removeHandler(handler)


def test_sys_exit_in_a_callback_does_not_end_the_io_thread(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Echo).start() as running:
        running["echo"].ask_future(1).add_done_callback(lambda done: sys.exit(3))
        assert running["echo"].ask(2) == 2
    caplog.clear()

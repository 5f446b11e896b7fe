"""An error of any size: its asker gets it whole, and all that the program keeps, logs and writes of it is bounded."""

from __future__ import annotations

import logging
import subprocess
import threading
from typing import Any

import pytest

from suitkaise import Process, Shutdown, Supervisor, Thread, WorkerFailed
from suitkaise.crashes import LARGEST, crash_directory
from suitkaise.events import ChildExited
from suitkaise.exits import Crashed
from tests.support import eventually

HUGE = 2_000_000


def fail(message: str) -> Any:
    match message:
        case "text":
            raise ValueError("bad frame: " + "x" * HUGE)
        case "note":
            error = ValueError("bad frame")
            error.add_note("x" * HUGE)
            raise error
        case "value":
            raise subprocess.CalledProcessError(3, "tool", output=b"x" * HUGE)
        case "group":
            raise ExceptionGroup("many", [ValueError("x" * 1_000) for _ in range(HUGE // 1_000)])
        case "unpicklable":
            raise ValueError("bad frame: " + "x" * HUGE, threading.Lock())


class FailsInAProcess(Process):
    def on_receive(self, message: str) -> Any:
        self.log.error("about to fail", text="y" * HUGE)
        fail(message)


class FailsInAThread(Thread):
    def on_receive(self, message: str) -> Any:
        self.log.error("about to fail", text="y" * HUGE)
        fail(message)


WORKERS = pytest.mark.parametrize("worker", [FailsInAProcess, FailsInAThread])


@WORKERS
@pytest.mark.parametrize("what", ["text", "note", "value", "group", "unpicklable"])
def test_s58_what_is_kept_of_a_huge_error_is_bounded(
    worker: type[Any], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Supervisor("app", worker(), max_restarts=9).start() as running, running.events() as events:
        ref = running.which_children()[0].ref
        with pytest.raises(Exception, match=r"bad frame|Command 'tool'|many"):
            ref.ask(what, timeout=30)
        eventually(lambda: ref.incarnation == 2)
        report = eventually(running.crashes)[0]
        assert sum(len(str(value)) for value in report.to_dict().values()) < 256 << 10
        ended = next(event for event in events if isinstance(event, ChildExited))
        assert isinstance(ended.reason, Crashed)
        for text in (ended.reason.traceback, str(ended.reason), str(ended.reason.error)):
            assert len(text) < 66_000
        assert len(str(ended)) < 5_000
        assert len(str(running.status())) < 1_000
        file = crash_directory() / f"{report.id}.json"
        eventually(file.exists)
        assert file.stat().st_size < LARGEST // 4
    lines = [record for record in caplog.records if record.name == "suitkaise.tree" and record.levelno >= logging.ERROR]
    assert lines
    assert all(len(record.getMessage()) < 5_000 for record in lines)


@WORKERS
def test_the_asker_gets_a_huge_error_whole_and_its_traceback_shortened(worker: type[Any]) -> None:
    with Supervisor("app", worker(), max_restarts=9).start() as running:
        ref = running.which_children()[0].ref
        with pytest.raises(ValueError, match="bad frame") as caught:
            ref.ask("text", timeout=30)
        assert str(caught.value) == "bad frame: " + "x" * HUGE
        assert "bytes are left out" in caught.value.__notes__[0]
        assert len(caught.value.__notes__[0]) < 66_000


def test_an_exit_reason_with_a_huge_error_names_its_class_and_holds_its_text_shortened() -> None:
    with Supervisor("app", FailsInAProcess(), max_restarts=9).start() as running:
        ref = running.which_children()[0].ref
        down = ref.monitor()
        with pytest.raises(ValueError, match="bad frame"):
            ref.ask("text", timeout=30)
        reason = down.get(30).reason
        assert isinstance(reason, Crashed)
        assert isinstance(reason.error, WorkerFailed)
        assert str(reason).startswith("ValueError in on_receive: bad frame: xxx")
        assert "bytes are left out" in str(reason)


def test_the_reason_of_a_shutdown_is_shown_shortened() -> None:
    assert len(str(Shutdown("x" * HUGE))) < 66_000

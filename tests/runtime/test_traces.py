"""Traces of messages: what an observer gets that comes again late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from suitkaise.messaging.address import Address, TraceReport
from suitkaise.runtime import traces
from suitkaise.runtime.traces import Traces


class Worker:
    """An address whose messages are traced."""

    kind = "process"

    def __init__(self) -> None:
        self.report: TraceReport | None = None

    def trace(self, report: TraceReport | None) -> None:
        self.report = report

    def handle(self, *numbers: int) -> None:
        for number in numbers:
            if self.report is not None:
                self.report({"number": number})


class Scene:
    def __init__(self) -> None:
        self.worker = Worker()
        self.timers: list[Callable[[], None]] = []
        find = cast(Callable[[str], Address], lambda path: self.worker)
        self.traces = Traces(find, lambda when, call: self.timers.append(call))

    def ask(self, number: int | None) -> dict[str, Any]:
        return self.traces.after("app/one", number).get(10)

    def pass_lease(self, patch: pytest.MonkeyPatch) -> None:
        """Let the time pass after which nobody wants the trace any more."""
        patch.setattr(traces.time, "monotonic", lambda: 1e9)
        for call in self.timers[:]:
            call()
        patch.undo()


def test_an_observer_that_comes_again_late_is_told_so_and_loses_no_message_from_then_on() -> None:
    scene = Scene()
    begin = scene.ask(None)["last"]
    scene.worker.handle(1, 2)
    news = scene.ask(begin)
    assert ([one["number"] for one in news["reports"]], news["resumed"]) == ([1, 2], False)
    with pytest.MonkeyPatch.context() as patch:
        scene.pass_lease(patch)
    assert scene.worker.report is None
    scene.worker.handle(3)  # which nobody sees
    again = scene.ask(news["last"])
    assert (again["reports"], again["resumed"]) == ([], True)
    waiting = scene.traces.after("app/one", again["last"])
    scene.worker.handle(4)
    told = waiting.get(10)
    assert ([one["number"] for one in told["reports"]], told["resumed"]) == ([4], False)


def test_an_observer_that_comes_again_late_is_told_so_where_another_one_has_begun_anew() -> None:
    scene = Scene()
    begin = scene.ask(None)["last"]
    scene.worker.handle(*range(10))
    last = scene.ask(begin)["last"]
    with pytest.MonkeyPatch.context() as patch:
        scene.pass_lease(patch)
    scene.ask(None)
    scene.worker.handle(20, 21)
    news = scene.ask(last)
    assert ([one["number"] for one in news["reports"]], news["resumed"]) == ([20, 21], True)

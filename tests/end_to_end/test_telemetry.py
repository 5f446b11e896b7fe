"""Spans of OpenTelemetry: asks, handlers, starts, crashes, restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise import Process, SuitkaiseError, Supervisor, Thread, WorkerDead
from tests.support import eventually, in_background, run_program

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from suitkaise import telemetry
from suitkaise.telemetry import instrument


class Kept(InMemorySpanExporter):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = eventually(lambda: self.named(name), what=name)
        return span


class Counting(Process):
    def on_start(self) -> None:
        self.spans = Kept()
        instrument(self.spans.provider)

    def on_receive(self, message: Any) -> Any:
        if message == "fail":
            raise ValueError("as it was told")
        if message == "spans":
            return [
                (span.name, f"{span.parent.span_id:x}" if span.parent is not None else "")
                for span in self.spans.get_finished_spans()
            ]
        return message


class Threaded(Thread):
    async def on_receive(self, message: Any) -> Any:
        await self.wait_async(0.001)
        return message


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    end = instrument(kept.provider)
    yield kept
    end()
    kept.provider.shutdown()


@pytest.mark.parametrize("wrong", ["x", 5, InMemorySpanExporter(), TracerProvider])
def test_what_makes_no_tracer_is_refused_at_once_and_nothing_is_instrumented(wrong: Any) -> None:
    with pytest.raises(TypeError, match="instrument takes a tracer provider, or None for the global one, not "):
        instrument(wrong)
    instrument()()


def test_an_ask_is_a_span_and_its_handler_in_another_process_a_child_of_it(kept: Kept) -> None:
    with Supervisor("app", Counting).start() as running:
        assert running["counting"].ask(1) == 1
        assert running["counting"].ask_future(2).get(10) == 2
        asked = eventually(lambda: len(found := kept.named("ask app/counting")) == 2 and found)
        assert [span.kind.name for span in asked] == ["CLIENT", "CLIENT"]
        assert [span.status.is_ok for span in asked] == [True, True]
        handled = [parent for name, parent in running["counting"].ask("spans") if name == "handle app/counting"]
        assert handled == [f"{span.context.span_id:x}" for span in asked]


def test_a_handler_that_awaits_has_its_span_around_all_of_it(kept: Kept) -> None:
    with Supervisor("app", Threaded).start() as running:
        assert running["threaded"].ask(1) == 1

        async def ask() -> Any:
            return await running["threaded"].ask_future(2)

        assert asyncio.run(ask()) == 2
        handled = eventually(lambda: len(found := kept.named("handle app/threaded")) == 2 and found)
        asked = kept.named("ask app/threaded")
        assert {span.parent.span_id for span in handled} == {span.context.span_id for span in asked}
        assert all(span.end_time - span.start_time >= 1_000_000 for span in handled)


def test_a_crash_and_the_restart_are_spans_of_the_program_and_the_failed_ask_tells_it(kept: Kept) -> None:
    with Supervisor("app", Counting).start() as running:
        start = kept.one("start app/counting")
        assert start.end_time > start.start_time
        assert start.attributes["process.pid"] == running["counting"].pid
        with pytest.raises(ValueError, match="as it was told"):
            running["counting"].ask("fail")
        crash, restart = kept.one("crash app/counting"), kept.one("restart app/counting")
        assert not kept.one("ask app/counting").status.is_ok
        assert not crash.status.is_ok
        assert "ValueError in on_receive: as it was told" in crash.attributes["suitkaise.reason"]
        (event,) = crash.events
        assert (event.attributes["exception.type"], event.attributes["exception.message"]) == (
            "ValueError", "as it was told",
        )  # fmt: skip
        assert "raise ValueError" in event.attributes["exception.stacktrace"]
        assert restart.attributes["suitkaise.restarts"] == 1
        assert [link.context.span_id for link in restart.links] == [crash.context.span_id]
        assert crash.start_time <= restart.end_time
        pid = running["counting"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(kept.named("restart app/counting")) == 2)


def test_an_ask_that_cannot_be_sent_ends_its_span(kept: Kept) -> None:
    with Supervisor("app", Threaded).start() as running:
        ref = running["threaded"]
        running.terminate_child("threaded")
        with pytest.raises(WorkerDead):
            ref.ask(1)
        with pytest.raises(WorkerDead):
            ref.ask_future(1).get(5)
        assert [span.status.is_ok for span in kept.named("ask app/threaded")] == [False, False]


def test_a_tree_that_runs_already_is_seen_and_afterwards_nothing_more() -> None:
    kept = Kept()
    with Supervisor("app", Threaded).start() as running:
        end = instrument(kept.provider)
        with pytest.raises(SuitkaiseError, match="makes spans already"):
            instrument()
        running.terminate_child("threaded")
        running.restart_child("threaded")
        kept.one("start app/threaded" if kept.named("start app/threaded") else "restart app/threaded")
        end()
        kept.clear()
        running["threaded"].ask(1)
        running.terminate_child("threaded")
        running.restart_child("threaded")
        assert kept.get_finished_spans() == ()
    kept.provider.shutdown()


class Stuck(SpanProcessor):
    """Takes the first span of a tree, and never returns before it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.provider = TracerProvider()
        self.provider.add_span_processor(self)

    def on_end(self, span: ReadableSpan) -> None:
        self.entered.set()
        self.released.wait(60)


def test_an_exporter_that_is_stuck_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "PATIENCE", 0.05)
    stuck = Stuck()
    end = instrument(stuck.provider)
    threads = {one for one in threading.enumerate() if one.name == "suitkaise-spans"}
    try:
        with Supervisor("app", Threaded).start():
            assert stuck.entered.wait(30)
        in_background(end).result(30)
    finally:
        stuck.released.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


class Broken(Kept):
    """A provider with a processor that raises errors at first."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        broken = SpanProcessor()
        self.errors = [error, None]

        def on_start(span: Any, parent_context: Any = None) -> None:
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error

        broken.on_start = on_start  # type: ignore[method-assign]
        self.provider.add_span_processor(broken)


@pytest.mark.parametrize("error", [OSError("no exporter"), SystemExit("no exporter")])
def test_an_error_of_an_exporter_costs_its_span_and_is_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(error)
    end = instrument(broken.provider)
    try:
        with Supervisor("app", Threaded).start() as running:
            running.terminate_child("threaded")
            running.restart_child("threaded")
            eventually(broken.get_finished_spans)
    finally:
        end()
        broken.provider.shutdown()
    assert "no exporter" in caplog.text


def test_the_end_of_former_spans_leaves_the_later_ones_alone() -> None:
    former = instrument(Kept().provider)
    former()
    kept = Kept()
    end = instrument(kept.provider)
    former()
    try:
        with Supervisor("app", Threaded).start() as running:
            running["threaded"].ask(1)
            kept.one("ask app/threaded")
    finally:
        end()
        kept.provider.shutdown()


def test_the_last_spans_of_a_program_are_exported_and_without_the_extra_one_line_tells_what_to_install() -> None:
    program = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from suitkaise import Supervisor, Thread
from suitkaise.telemetry import instrument

class Idle(Thread):
    pass

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
instrument(provider)
Supervisor("app", Idle).start()
"""
    assert '"start app/idle"' in run_program([sys.executable, "-c", program]).check().stdout
    hidden = "import sys; sys.modules['opentelemetry'] = None; import suitkaise.telemetry"
    failed = run_program([sys.executable, "-c", hidden])
    assert "pip install 'suitkaise-xprocess[otel]'" in failed.stderr

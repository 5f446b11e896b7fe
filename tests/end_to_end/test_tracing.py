"""The tracing context of OpenTelemetry goes along with messages and starts; without it nothing is imported."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, Process, Supervisor, Thread, WorkerRef, whereis
from suitkaise.messaging import tracing
from suitkaise.pools import Pool, ProcessPool, ThreadPool
from tests.support import eventually, interrupted_at_each_call, run_program

trace: Any
try:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
except ImportError:
    trace = None

NEEDED = pytest.mark.skipif(trace is None, reason="opentelemetry-sdk is not installed")


@pytest.fixture
def tracer() -> Any:
    return TracerProvider().get_tracer("tests")


def current() -> str:
    """Return the id of the trace here; zeros without one."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


def id_of(span: Any) -> str:
    return f"{span.get_span_context().trace_id:032x}"


NONE = "0" * 32


class TracedProcess(Process):
    def on_start(self) -> None:
        self.seen: list[str] = [current()]

    def on_receive(self, message: Any) -> Any:
        match message:
            case WorkerRef():
                return message.ask("look", 10)
            case ("start", path):
                ref = whereis(path).start_child(Child(TracedProcess, id="started"))  # type: ignore[attr-defined]
                return ref.ask("list", 10)[0]
            case "note":
                self.seen.append(current())
            case "list":
                return self.seen
        return current()

    def look(self) -> str:
        return current()


class TracedThread(Thread):
    def on_receive(self, message: Any) -> Any:
        return message.ask("look", 10) if isinstance(message, WorkerRef) else current()

    def look(self) -> str:
        return current()


class TracedAsync(Process):
    async def on_receive(self, message: Any) -> Any:
        await self.wait_async(0.001)
        return current()

    async def look(self) -> str:
        return current()


@NEEDED
@pytest.mark.parametrize("worker", [TracedProcess, TracedThread, TracedAsync])
def test_a_handler_runs_in_the_trace_of_its_sender_and_the_next_one_does_not(tracer: Any, worker: Any) -> None:
    with Supervisor("app", Child(worker, id="traced")).start() as running:
        ref = running["traced"]
        with tracer.start_as_current_span("request") as span:
            assert ref.ask("look", 10) == id_of(span)
            assert ref.proxy().look().get(10) == id_of(span)
        assert ref.ask("look", 10) == NONE


def traced(_: int) -> str:
    return current()


@NEEDED
@pytest.mark.parametrize("pool", [ProcessPool, ThreadPool])
def test_a_task_of_a_pool_runs_in_the_trace_of_the_caller_that_has_submitted_it(tracer: Any, pool: type[Pool]) -> None:
    with tracer.start_as_current_span("making") as making:
        tasks = pool(1)
    with tasks:
        with tracer.start_as_current_span("first") as first:
            assert tasks.submit(traced, 0).result(10) == id_of(first)
        assert tasks.submit(traced, 0).result(10) == id_of(making)
        with tracer.start_as_current_span("second") as second:
            assert list(tasks.map(traced, range(4), chunksize=2)) == [id_of(second)] * 4
            assert list(tasks.imap(traced, range(2))) == [id_of(second)] * 2
        assert tasks.submit(traced, 0).result(10) == id_of(making)


@NEEDED
@pytest.mark.parametrize("first", [TracedProcess, TracedThread])
@pytest.mark.parametrize("second", [TracedProcess, TracedThread])
def test_a_trace_goes_on_from_worker_to_worker(tracer: Any, first: Any, second: Any) -> None:
    with Supervisor("app", Child(first, id="first"), Child(second, id="second")).start() as running:
        with tracer.start_as_current_span("request") as span:
            assert running["first"].ask(running["second"], 10) == id_of(span)


@NEEDED
def test_a_told_message_is_handled_in_the_trace_of_its_sender(tracer: Any) -> None:
    with Supervisor("app", Child(TracedProcess, id="traced")).start() as running:
        with tracer.start_as_current_span("request") as span:
            running["traced"].tell("note")
        assert running["traced"].ask("list", 10) == [NONE, id_of(span)]


@NEEDED
def test_a_process_starts_in_the_trace_of_the_caller_that_started_it(tracer: Any) -> None:
    with tracer.start_as_current_span("start") as span:
        running = Supervisor("app", Child(TracedProcess, id="traced"), DynamicSupervisor("pool")).start()
    with running:
        assert running["traced"].ask("list", 10) == [id_of(span)]
        with tracer.start_as_current_span("job") as span:
            ref = running.start_child(Child(TracedProcess, id="job"), under="pool")
            assert ref.ask("list", 10) == [id_of(span)]
            assert running["traced"].ask(("start", "app/pool"), 10) == id_of(span)


@NEEDED
def test_a_message_that_waits_for_a_restart_keeps_its_trace(tracer: Any) -> None:
    with Supervisor("app", Child(TracedProcess, id="traced")).start() as running:
        ref = running["traced"]
        ref.kill()
        with tracer.start_as_current_span("request") as span:
            assert eventually(lambda: ref.ask("look", 10)) == id_of(span)


def test_without_opentelemetry_nothing_is_imported_and_messages_have_no_carrier(tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from suitkaise import Process, Supervisor\n"
        "def names():\n"
        "    return [name for name in sys.modules if name.partition('.')[0] == 'opentelemetry']\n"
        "class Echo(Process):\n"
        "    def on_receive(self, message):\n"
        "        return names()\n"
        "if __name__ == '__main__':\n"
        "    with Supervisor('app', Echo).start() as running:\n"
        "        print(running['echo'].ask(1, 10) + names())\n"
    )
    assert run_program(program).check().stdout == "[]\n"


def test_a_carrier_of_a_process_without_opentelemetry_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    assert tracing.continued({"traceparent": "00-0-0-00"}, "app/a", lambda: 3)() == 3


@NEEDED
def test_what_a_signal_handler_raises_while_a_message_notes_its_trace_is_raised(tracer: Any) -> None:
    with tracer.start_as_current_span("span"):
        assert tracing.carrier() is not None
        assert all(interrupted_at_each_call(tracing.carrier, TimeoutError))


@NEEDED
def test_a_propagator_that_fails_costs_no_message(tracer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("of the propagator")

    with tracer.start_as_current_span("span"):
        carrier = tracing.carrier()
    for name in ("inject", "extract"):
        monkeypatch.setattr(f"opentelemetry.propagate.{name}", fail)
    assert tracing.carrier() is None
    tracing.enter(carrier)()

"""Spans of OpenTelemetry for asks, their handlers, and the starts, crashes and restarts of workers; the extra `otel`.

The context of a trace travels with messages anyway (`messaging.tracing`); `instrument` adds spans of its own to it.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from suitkaise.errors import SuitkaiseError
from suitkaise.escapes import shortened
from suitkaise.events import ChildStarted, EndEvent, Event
from suitkaise.exits import Crashed
from suitkaise.messaging import tracing
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import OwnThread
from suitkaise.runtime import runtime as runtimes

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as _error:
    raise ImportError(
        "suitkaise.telemetry needs opentelemetry-api: pip install 'suitkaise-xprocess[otel]'", name="opentelemetry"
    ) from _error

__all__ = ["instrument"]

logger: QueuedLogger = QueuedLogger("suitkaise.telemetry")

BACKLOG = 10_000
"""How many events may wait to become spans; the newest are dropped beyond that."""

PATIENCE = 5.0
"""Seconds, at most, for which the end waits until the last events have become spans."""

CRASHES = 1_000
"""Of how many children the last crash is remembered, so that the restart can link to it."""

_NANOSECONDS = 1_000_000_000


def instrument(tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """Make spans in this process until the function that is returned is called, or the process ends.

    | span | where | what it covers |
    | --- | --- | --- |
    | `ask PATH` (client) | where `ask` or `ask_future` is called | until the answer; the error of `ask`, if it is one |
    | `handle PATH` (server) | in the worker, if it called `instrument` too | the handler; a child of the ask's span |
    | `start PATH` | in the program of the tree | from the order to start a worker until `on_start` has returned |
    | `crash PATH` | there | an abnormal end; its exception, with status error |
    | `restart PATH` | there | from the end of an incarnation until the next one runs; linked to the crash |

    Call it in the program, and in `on_start` of process workers, after the exporter was set up there. Spans of the tree
    are made in a thread of their own: an exporter that is slow delays no restart, and the end by 5 s at most.

    Args:
        tracer_provider: makes the tracer (default None: the global one).

    Raises:
        ImportError: at the import of this module, without the extra `otel`.
        SuitkaiseError: this process makes spans already.
        TypeError: this is no tracer provider; nothing is instrumented.

    >>> from suitkaise.telemetry import instrument
    >>> end = instrument()
    >>> end()
    """
    if not isinstance(tracer_provider, TracerProvider | None):
        raise TypeError(f"instrument takes a tracer provider, or None for the global one, not {tracer_provider!r}")
    if tracing.spans is not None:
        raise SuitkaiseError("this process makes spans already; call the function that instrument() has returned first")
    tracer = trace.get_tracer("suitkaise", tracer_provider=tracer_provider)
    of_messages = tracing.spans = _MessageSpans(tracer)
    of_trees = _TreeSpans(tracer)
    end_listening = runtimes.listen(of_trees.put)

    def end() -> None:
        if tracing.spans is not of_messages:  # it was called before
            return
        tracing.spans = None
        end_listening()
        of_trees.close()
        atexit.unregister(end)

    atexit.register(end)
    return end


class _MessageSpans:
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def ask(self, path: str) -> contextlib.AbstractContextManager[object]:
        return self._tracer.start_as_current_span(f"ask {path}", kind=SpanKind.CLIENT, attributes=_about(path))

    @contextlib.contextmanager
    def ask_later(self, path: str) -> Iterator[Callable[[bool], None]]:
        span = self._tracer.start_span(f"ask {path}", kind=SpanKind.CLIENT, attributes=_about(path))

        def end(ok: bool) -> None:
            if not ok:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        try:
            with trace.use_span(span):  # the message carries it
                yield end
        except BaseException:
            span.end()  # nothing was sent
            raise

    def handle(self, path: str) -> contextlib.AbstractContextManager[object]:
        return self._tracer.start_as_current_span(f"handle {path}", kind=SpanKind.SERVER, attributes=_about(path))


class _TreeSpans:
    """Makes spans of events, in a thread of its own."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._crashes: dict[str, Link] = {}
        self._thread = OwnThread(self._run, "suitkaise-spans")
        self._thread.start()

    def put(self, event: Event) -> None:
        if isinstance(event, ChildStarted | EndEvent) and self._events.qsize() < BACKLOG:
            self._events.put(event)

    def close(self) -> None:
        """Make the spans of the events so far, and end; do not wait longer than `PATIENCE` for that."""
        self._events.put(None)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                if isinstance(event, EndEvent):
                    self._crash(event)
                elif isinstance(event, ChildStarted):
                    self._start(event)
            except BaseException:  # of a processor or an exporter: `sys.exit()` in one must not end the thread
                logger.exception("no span could be made of an event: %s", event)

    def _start(self, event: ChildStarted) -> None:
        crash = self._crashes.pop(event.path, None)
        what, took = ("start", event.startup) if event.took is None else ("restart", event.took)
        about = _about(event.path) | {"suitkaise.restarts": event.restarts}
        if event.pid is not None:
            about["process.pid"] = event.pid
        links = [crash] if what == "restart" and crash is not None else []
        self._span(f"{what} {event.path}", about, event.wall - took, links).end(_nanoseconds(event.wall))

    def _crash(self, event: EndEvent) -> None:
        about = _about(event.path) | {"suitkaise.reason": str(event.reason)}
        if event.report:
            about["suitkaise.report"] = event.report
        span = self._span(f"crash {event.path}", about, event.wall, [])
        if isinstance(event.reason, Crashed):
            span.add_event("exception", _about_error(event.reason), _nanoseconds(event.wall))
        span.set_status(Status(StatusCode.ERROR, str(event.reason)))
        span.end(_nanoseconds(event.wall))
        self._crashes[event.path] = Link(span.get_span_context())
        if len(self._crashes) > CRASHES:
            del self._crashes[next(iter(self._crashes))]

    def _span(self, name: str, about: Mapping[str, Any], began: float, links: list[Link]) -> Span:
        """Begin a span that belongs to no other trace."""
        return self._tracer.start_span(name, Context(), attributes=about, links=links, start_time=_nanoseconds(began))


def _about(path: str) -> dict[str, Any]:
    return {"suitkaise.path": path}


def _about_error(reason: Crashed) -> dict[str, str]:
    """Return what the semantic conventions tell of an exception, as `Span.record_exception` does."""
    kind = type(reason.error)  # decoded here, where nothing waits for it
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {
        "exception.type": name,
        "exception.message": shortened(str(reason.error)),
        "exception.stacktrace": reason.traceback,
    }


def _nanoseconds(wall: float) -> int:
    return int(wall * _NANOSECONDS)

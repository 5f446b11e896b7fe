"""The tracing context of OpenTelemetry, which goes along with messages and with the starts of processes.

It is a part of the sender's context variables, which only a thread could share: so a `Carrier` holds it, the same few
texts that go into the headers of a request over HTTP. The program that never imports OpenTelemetry pays for one look
into `sys.modules`, and nothing is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack
from types import CoroutineType
from typing import Any, Protocol, TypeAlias, TypeVar

__all__ = ["Carrier", "Spans", "Traced", "carrier", "continued", "enter", "spans"]

T = TypeVar("T")

Carrier: TypeAlias = "dict[str, str]"
"""A tracing context as texts, such as `traceparent`."""

_modules = sys.modules


class Spans(Protocol):
    """Makes spans of messages; `suitkaise.telemetry` does."""

    def ask(self, path: str) -> AbstractContextManager[object]:
        """Return a block that is the span of an ask whose answer is waited for in it."""
        ...

    def ask_later(self, path: str) -> AbstractContextManager[Callable[[bool], None]]:
        """Return a block in which an ask is sent; it has the function to call at the answer, or an error."""
        ...

    def handle(self, path: str) -> AbstractContextManager[object]:
        """Return a block that is the span of the handler of a message in the worker at `path`."""
        ...


spans: Spans | None = None
"""Makes spans of the messages of this process; None: there are no spans."""


def carrier() -> Carrier | None:
    """Return the caller's tracing context; None without one, or if the program has not imported OpenTelemetry."""
    return _inject() if "opentelemetry.context" in _modules else None


def _inject() -> Carrier | None:
    def inject() -> Carrier:
        found: Carrier = {}
        importlib.import_module("opentelemetry.propagate").inject(found)
        return {str(name): str(value) for name, value in found.items()}

    return _unless_it_fails(inject) or None


def enter(context: Carrier | None) -> Callable[[], None]:
    """Make it the tracing context from here on; return the function that leaves it, in the same context variables."""

    def extract() -> Any:
        return importlib.import_module("opentelemetry.propagate").extract(context)

    extracted = None if context is None else _unless_it_fails(extract)  # this process may not even have it
    if extracted is not None:
        with contextlib.suppress(Exception):
            contexts = importlib.import_module("opentelemetry.context")
            token = contexts.attach(extracted)
            return lambda: contexts.detach(token)
    return lambda: None


def _unless_it_fails(call: Callable[[], T]) -> T | None:
    """Return what `call` returns; None if it raises: no message fails for a propagator, or half an installation.

    What a signal handler raises in it is raised: another error is raised a second time, too.
    """
    try:
        return call()
    except Exception as error:
        try:
            call()
        except Exception as second:
            if type(second) is type(error):
                return None
        raise


class Traced:
    """A function that is called in a tracing context, also in another process."""

    __slots__ = ("_context", "_function")

    def __init__(self, function: Callable[..., Any], context: Carrier) -> None:
        self._function = function
        self._context = context

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leave = enter(self._context)
        try:
            return self._function(*args, **kwargs)
        finally:
            leave()


def continued(context: Carrier, path: str, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return the function, or the coroutine that it returns, with that tracing context around it.

    `path` is that of the worker whose handler the function is.
    """

    def call() -> Any:
        with ExitStack() as stack:
            stack.callback(enter(context))
            now = spans  # another thread may end them
            if now is not None:
                stack.enter_context(now.handle(path))
            value = function()
            if isinstance(value, CoroutineType):
                return _awaited(value, stack.pop_all())
            return value

    return call


async def _awaited(coroutine: Coroutine[Any, Any, Any], stack: ExitStack) -> Any:
    with stack:
        return await coroutine

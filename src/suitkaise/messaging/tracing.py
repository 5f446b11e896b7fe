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
from types import CoroutineType
from typing import Any, TypeAlias

__all__ = ["Carrier", "carrier", "continued", "enter"]

Carrier: TypeAlias = "dict[str, str]"
"""A tracing context as texts, such as `traceparent`."""

_modules = sys.modules


def carrier() -> Carrier | None:
    """Return the caller's tracing context; None without one, or if the program has not imported OpenTelemetry."""
    return _inject() if "opentelemetry.context" in _modules else None


def _inject() -> Carrier | None:
    found: Carrier = {}
    with contextlib.suppress(Exception):  # a propagator of the user's, or half an installation: no message fails for it
        importlib.import_module("opentelemetry.propagate").inject(found)
    return {str(name): str(value) for name, value in found.items()} or None


def enter(context: Carrier | None) -> Callable[[], None]:
    """Make it the tracing context from here on; return the function that leaves it, in the same context variables."""
    if context is not None:
        with contextlib.suppress(Exception):  # as above; this process may not even have it
            contexts = importlib.import_module("opentelemetry.context")
            token = contexts.attach(importlib.import_module("opentelemetry.propagate").extract(context))
            return lambda: contexts.detach(token)
    return lambda: None


def continued(context: Carrier, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return the function, or the coroutine that it returns, with that tracing context around it."""

    def call() -> Any:
        leave = enter(context)
        try:
            value = function()
        except BaseException:
            leave()
            raise
        if isinstance(value, CoroutineType):
            return _awaited(value, leave)
        leave()
        return value

    return call


async def _awaited(coroutine: Coroutine[Any, Any, Any], leave: Callable[[], None]) -> Any:
    try:
        return await coroutine
    finally:
        leave()

"""Proxies that have the type of a worker's class, so that type checkers know their methods (`ref.proxy(Count)`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from suitkaise.messaging.answer import Answer, checked_timeout, refuse_own_ask
from suitkaise.messaging.ask_timeout import limited
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.protocol import MessageKind
from suitkaise.specs.recipe import without_parameters
from suitkaise.specs.signatures import is_async_function

__all__ = ["Askable", "TypedProxy"]


class Askable(Protocol):
    """What a proxy needs of the ref of its worker."""

    path: str

    def _ask(self, kind: MessageKind, body: Payload, timeout: float | None = None) -> Answer[Any]: ...


class TypedProxy:
    """Asks the worker for each call of a method and each attribute, and waits for the answer; awaits async methods.

    Args:
        ref: the worker.
        cls: the class that the worker is taken to have; it is not checked against the worker.
        timeout: seconds to wait for an answer at most; None: for ever.
    """

    def __init__(self, ref: Askable, cls: type, timeout: float | None) -> None:
        cls = without_parameters(cls)
        if not isinstance(cls, type):
            raise TypeError(f"proxy takes the class of the worker, not {cls!r}")
        checked_timeout(timeout)
        vars(self).update(_ref=ref, _cls=cls, _timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # first: pickle asks for such names before there is a ref
            raise AttributeError(f"{name!r} is private; a proxy reaches public names only")
        ref, cls, timeout = vars(self)["_ref"], vars(self)["_cls"], vars(self)["_timeout"]
        found = inspect.getattr_static(cls, name, None)
        found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        # what else has `__get__` is no method
        if not (inspect.isroutine(found) and callable(getattr(cls, name, None))):
            return _ask_and_wait(ref, "get", name, timeout)
        return _method(ref, name, timeout, awaited=is_async_function(found))

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a proxy cannot set {name!r}; send a message, or call a method that does")

    def __repr__(self) -> str:
        return f"{vars(self)['_ref']!r}.proxy({vars(self)['_cls'].__name__})"


def _method(ref: Askable, name: str, timeout: float | None, *, awaited: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if awaited:
            return value_of(ref._ask("call", Payload((name, args, kwargs))))
        return _ask_and_wait(ref, "call", (name, args, kwargs), timeout)

    async def value_of(answer: Answer[Any]) -> Any:  # a coroutine, as what the class's own method returns
        return await answer

    call.__name__ = value_of.__qualname__ = name  # which Python tells if the coroutine is not awaited
    return call


def _ask_and_wait(ref: Askable, kind: MessageKind, body: Any, timeout: float | None) -> Any:
    refuse_own_ask(ref.path)
    seconds = limited(timeout)
    return ref._ask(kind, Payload(body), seconds).get(seconds)

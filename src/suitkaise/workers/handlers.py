"""What a message asks of a worker: `on_receive`, or what a proxy calls or reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from suitkaise.errors import SuitkaiseError
from suitkaise.messaging.messages import Message

__all__ = ["NoHandler", "handler_of"]


class NoHandler(Exception):
    """The message cannot be handled; its asker gets `error`, and the worker lives on."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def handler_of(
    message: Message, worker: Any, on_receive: Callable[[Any], Any] | None, wants: Callable[[Any], bool]
) -> Callable[[], Any]:
    """What is to be called for the message; what that returns is the answer.

    `wants`: whether `on_receive` is to hear of a signal (`Down`, `LinkedExit`).

    Raises:
        NoHandler: the worker has nothing for it.
    """
    try:
        body = message.body.value
    except Exception as error:
        raise NoHandler(error) from error
    if message.kind == "signal" and (on_receive is None or not wants(body)):
        return _nothing
    if message.kind in ("message", "signal"):
        if on_receive is None:
            raise NoHandler(
                SuitkaiseError(f"{worker.path!r} has no on_receive, so it takes no messages", path=worker.path)
            )
        return partial(on_receive, body)
    if message.kind == "get":
        return partial(_attribute, worker, body)
    name, args, kwargs = body
    method = _attribute(worker, name)
    _check_call(method, name, args, kwargs)
    return partial(method, *args, **kwargs)


def _nothing() -> None: ...


def _attribute(worker: Any, name: str) -> Any:
    if name.startswith("_") or not hasattr(worker, name):
        raise NoHandler(AttributeError(f"{type(worker).__name__} has no public attribute {name!r}"))
    return getattr(worker, name)


def _check_call(method: Any, name: str, args: Any, kwargs: Any) -> None:
    import inspect

    if not callable(method):
        raise NoHandler(TypeError(f"{name!r} is not a method; read it with proxy.{name}.get()"))
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError as error:
        raise NoHandler(TypeError(f"{name}(): {error}")) from None
    except ValueError:  # a built-in without a signature: the call itself will tell
        return

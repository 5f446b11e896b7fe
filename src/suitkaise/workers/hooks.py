"""The parts of a worker that the runtime calls: its constructor, its hooks, and the handlers of its messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from suitkaise.errors import SuitkaiseError
from suitkaise.messaging.identity import set_worker
from suitkaise.messaging.messages import Message, fails_again, undecodable
from suitkaise.specs.recipe import Recipe
from suitkaise.specs.signatures import is_async_function, signature_of
from suitkaise.specs.spellings import HOOKS
from suitkaise.workers.context import WorkerContext
from suitkaise.workers.worker import Process, Thread, Worker
from suitkaise.workers.worker_type import check_attributes, differs_from_class

__all__ = ["NoHandler", "body_of", "build", "give_name", "handler_of", "hook_of", "is_async"]


def build(recipe: Recipe, context: WorkerContext | None) -> Any:
    """Make the running worker of a recipe, in the process or thread of the worker. None is for tests only."""
    cls: Any = recipe.target
    args, kwargs = recipe.args, recipe.kwargs
    if not isinstance(cls, type):
        cls, args, kwargs = _FunctionWorker, (recipe,), {}
    worker = cls.__new__(cls, *args, **kwargs)
    object.__setattr__(worker, "_worker_context", context)
    if context is not None:
        set_worker(worker)
    cls.__init__(worker, *args, **kwargs)
    check_attributes(worker)
    return worker


def give_name(worker: Any, path: str) -> None:
    """Set the `name` of a worker at this path, unless its constructor has, or its class has a property of that name."""
    if hasattr(type(getattr(type(worker), "name", None)), "__set__"):
        return
    if not differs_from_class(worker, "name") or worker.name is None:
        object.__setattr__(worker, "name", path.rpartition("/")[2])


class _FunctionWorker(Worker):
    """Calls a plain function once a loop."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._function = recipe.target
        self._arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = (recipe.args, recipe.kwargs)

    def loop(self) -> Any:
        args, kwargs = self._arguments
        return self._function(*args, **kwargs)


def hook_of(worker: Any, name: str) -> Callable[..., Any] | None:
    """Return the worker's own hook of that name; None if the class has only the empty default."""
    found = getattr(type(worker), name, None)
    if found is None or found is getattr(Worker, name):
        return None
    hook = getattr(worker, name)
    return hook if callable(hook) else lambda: hook  # `result` may be a value


_OURS = {*Process.__mro__, *Thread.__mro__}


def is_async(recipe: Recipe) -> bool:
    """Return whether the worker needs an event loop: for an async hook, public method or function."""
    cls = recipe.target
    if not isinstance(cls, type):
        return is_async_function(cls)
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base not in _OURS:
            found = {**vars(base), **found}
    return any(
        is_async_function(getattr(value, "__func__", value))
        for name, value in found.items()
        if name in HOOKS or not name.startswith("_")
    )


class NoHandler(Exception):
    """The worker has no handler for a message; the asker gets `error`, and the worker goes on."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def body_of(message: Message, path: str) -> Any:
    """Return the decoded body of a message to the worker at `path`.

    Raises:
        NoHandler: it cannot be decoded here.
    """
    try:
        return message.body.value
    except Exception as error:
        if not fails_again(message.body):
            raise
        raise NoHandler(undecodable(f"in {path!r}, the message", message.body, error)) from error


def handler_of(
    message: Message,
    body: Any,
    worker: Any,
    path: str,
    on_receive: Callable[[Any], Any] | None,
    accepts: Callable[[Any], bool],
) -> Callable[[], Any]:
    """Return the call that handles the message with that body; the value of the call is the answer.

    `path` is the worker's path, for errors. `accepts` returns whether a signal (`Down`, `LinkedExit`) is delivered.

    Raises:
        NoHandler: the worker has no handler for the message.
    """
    if message.kind == "signal" and (on_receive is None or not accepts(body)):
        return _nothing
    if message.kind in ("message", "signal"):
        if on_receive is None:
            raise NoHandler(SuitkaiseError(f"{path!r} has no on_receive, so it takes no messages", path=path))
        return partial(on_receive, body)
    if message.kind == "get":
        return partial(_attribute, worker, body)
    name, args, kwargs = body
    method = _attribute(worker, name)
    _check_call(method, name, args, kwargs)
    return partial(method, *args, **kwargs)


def _nothing() -> None: ...


def _attribute(worker: Any, name: str) -> Any:
    if not name.startswith("_"):
        try:
            return getattr(worker, name)
        except AttributeError:
            import inspect

            if inspect.getattr_static(worker, name, NoHandler) is not NoHandler:
                raise  # of a property: an error of the worker's own code
    raise NoHandler(AttributeError(f"{type(worker).__name__} has no public attribute {name!r}"))


def _check_call(method: Any, name: str, args: Any, kwargs: Any) -> None:
    if not callable(method):
        raise NoHandler(TypeError(f"{name!r} is not a method; read it with proxy.{name}.get()"))
    try:
        signature_of(method).bind(*args, **kwargs)
    except TypeError as error:
        raise NoHandler(TypeError(f"{name}(): {error}")) from None
    except ValueError:  # a built-in without a signature: the call itself raises
        return

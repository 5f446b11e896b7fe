"""The names of a worker that belong to the runtime, their descriptors, and the metaclass that makes recipes."""

from __future__ import annotations

import abc
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar, overload

from suitkaise.errors import SpecError
from suitkaise.messaging.identity import worker_of_thread
from suitkaise.specs.options import checked_flag
from suitkaise.specs.recipe import Kind, Recipe, Startable, overrides, record, snapshot
from suitkaise.specs.signatures import signature_of
from suitkaise.specs.spellings import HOOKS, make_mro, spellings_of

__all__ = [
    "OVERRIDABLE",
    "RESERVED",
    "SETTABLE",
    "CurrentLoop",
    "LoopNumber",
    "ReadOnly",
    "TrapExits",
    "WorkerType",
    "check_attributes",
    "differs_from_class",
    "gives",
    "overridable",
    "refuse_other_name",
]

RESERVED: frozenset[str] = frozenset(
    {
        "pid", "current_loop", "last_loop", "last_loop_time", "last_result", "finish_reason", "recalled", "ref",
        "rejoin", "skip_and_rejoin", "force_finish", "wait", "wait_async", "checkpoint", "last_checkpoint",
        "cleanup", "send_after", "every", "reply_to",
        "join_group", "leave_group", "subscribe", "unsubscribe",
        "get_current_loop", "get_pid", "generate_loop_time_report", "start_thread",
        "whereis", "monitor", "demonitor", "link", "unlink",
    }
)  # fmt: skip
"""The names that a worker class can neither define nor assign: what every worker reads and calls.

A definition in a class body raises `SpecError`; an assignment raises `AttributeError`: to an attribute (the first line)
at once, to a method when the constructor or `on_start` has returned.
"""

SETTABLE: frozenset[str] = frozenset({"background", "loop_factory", "name", "num_loops", "tree", "trap_exits"})
"""The names whose value the runtime uses, and which a worker may set: see the docs of each."""

OVERRIDABLE: frozenset[str] = frozenset({"kind", "path", "copy", "metadata", "log", "process_name"})
"""The names that any worker class may define or assign for itself. The runtime's path and copy stay at `self.ref`."""

_HOOKS = frozenset(HOOKS)

T = TypeVar("T")
W = TypeVar("W", bound=Startable)

if TYPE_CHECKING:
    import inspect


class _Start:
    """`start` of a class, as Pykka's actors have it. A class that defines one takes precedence."""

    def __get__(self, cls: Any, metaclass: type) -> Self:
        if cls is not None:
            refuse_other_name(cls, "start")
        return self


class _Signature:
    """What a worker class is called with, for `help` and `inspect`, which would show that of the metaclass's call."""

    def __get__(self, cls: Any, metaclass: type) -> inspect.Signature:
        if cls is None:
            raise AttributeError("__signature__")
        return signature_of(MethodType(cls.__init__, cls))


class WorkerType(abc.ABCMeta):
    """Calling a worker class makes a recipe: an instance that remembers its arguments and its first attributes.

    Each hook of a worker class, and of its mixins, can be read under all of its spellings (see `specs.spellings`).
    """

    def mro(cls) -> list[type]:
        """Return the method resolution order, in which mixins have their hooks under all spellings, too."""
        return make_mro(super().mro(), WorkerType)

    def __setattr__(cls, name: str, value: Any) -> None:
        for spelling in spellings_of(name):
            super().__setattr__(spelling, value)

    if not TYPE_CHECKING:
        start = _Start()
        __signature__ = _Signature()

    # With `-> Any`, pyright would take each worker for `Any`, and read no constructor.
    def __call__(cls: type[W], *args: Any, **kwargs: Any) -> W:  # type: ignore[misc]
        if "target" in kwargs and cls.__module__.startswith("suitkaise."):
            name = getattr(kwargs["target"], "__name__", "function")
            way = (
                f"for a function in a process: Supervisor('app', Child({name}, args=(...)))"
                if cls.__name__ == "Process"
                else f"for a function in a thread, derive from it and call {name} in loop"
            )
            raise SpecError(f"{cls.__name__}(target=...): {cls.__name__} is the base class of workers; {way}")
        kind: Kind = getattr(cls, "_worker_kind", "process")
        recipe = (
            Recipe(cls, args, kwargs, kind) if kind == "thread" else Recipe(cls, snapshot(args), snapshot(kwargs), kind)
        )
        worker: W = super().__call__(*args, **kwargs)  # type: ignore[misc]
        check_attributes(worker)
        record(worker, recipe)
        return worker


class ReadOnly(Generic[T]):
    """An attribute that the runtime provides: the decorated method reads it, and assigning to it raises."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self.__doc__ = read.__doc__
        self.__name__: str = read.__name__

    @overload
    def __get__(self, worker: None, cls: type) -> Self: ...

    @overload
    def __get__(self, worker: object, cls: type) -> T: ...

    def __get__(self, worker: object | None, cls: type) -> Self | T:
        return self if worker is None else self._read(worker)

    def __set__(self, worker: object, value: Never) -> Never:
        _refuse(type(worker), self.__name__)


def overridable(read: Callable[[Any], Any]) -> Any:
    """Make an attribute that the runtime provides as long as the user's class or instance has none of that name.

    Type checkers see `Any`, so that a subclass may define the name in any way.
    """
    return _Overridable(read)


class _Overridable:
    """Without `__set__`, so an attribute of the instance takes precedence at no cost.

    Without a value on the class, so a dataclass field of that name gets no default from here.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read
        self.__doc__ = read.__doc__
        self.__name__: str = read.__name__

    def __get__(self, worker: object | None, cls: type) -> Any:
        if worker is None:
            raise AttributeError(f"{cls.__name__}.{self.__name__} exists on instances only")
        return self._read(worker)


class LoopNumber(int):
    """The number of a loop. A call gives it, too, so `self.get_current_loop` may be read and called.

    >>> f"{LoopNumber(3)}", LoopNumber(3)() + 1
    ('3', 4)
    """

    __slots__ = ()

    def __call__(self) -> int:
        return int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


class CurrentLoop:
    """`get_current_loop`: of an instance its `current_loop`; a call on the class asks the worker of this thread."""

    @overload
    def __get__(self, worker: None, cls: type) -> Self: ...

    @overload
    def __get__(self, worker: object, cls: type) -> LoopNumber: ...

    def __get__(self, worker: Any, cls: type) -> Self | LoopNumber:
        return self if worker is None else LoopNumber(worker.current_loop)

    def __set__(self, worker: object, value: Never) -> Never:
        _refuse(type(worker), "get_current_loop")

    def __call__(self) -> int:
        worker = worker_of_thread()
        return 0 if worker is None else int(worker.current_loop)


class TrapExits:
    """`trap_exits`. A class gives its own value, which a dataclass takes as the default of a field of that name."""

    def __get__(self, worker: Any, cls: Any) -> bool:
        on: bool = (cls if worker is None else worker)._traps_exits
        return on

    def __set__(self, worker: Any, on: Any) -> None:
        checked_flag(type(worker).__name__, "trap_exits", on)
        if worker._worker_context is not None:
            worker._require_address("trap_exits").links.trap_exits(on)
        worker._traps_exits = on


_OTHER_NAMES = {
    "join": "join()", "is_alive": "is_alive()", "kill": "kill()", "terminate": "rejoin()", "stop": "rejoin()",
    "exitcode": "status", "ask": "ask(...)", "tell": "tell(...)", "send": "tell(...)", "proxy": "proxy()",
    "get_result": "result()",
}  # fmt: skip
"""What a process, thread or actor of another library has, by what the ref of a worker has for it here."""

_OWN_NAMES = {"actor_ref": "ref", "exit": "rejoin()", "logger": "log", "sleep": "wait(seconds)", "storage": "tree"}
"""What a worker might have, by what it has itself."""


def refuse_other_name(cls: type, name: str, *, runs: bool = False) -> None:
    """Raise AttributeError if a worker has such an attribute under another name, or its supervisor or ref has it."""
    if name == "start":
        hint = f"a supervisor starts it: running = Supervisor('app', {cls.__name__}).start()"
    elif name in _OWN_NAMES:
        hint = f"use self.{_OWN_NAMES[name]}"
    elif name not in _OTHER_NAMES:
        return
    elif runs:
        hint = "a running worker ends by self.rejoin(), and reaches others by their refs: self.whereis(path)"
    else:
        hint = f"a supervisor starts it, and its ref reaches it: running[id].{_OTHER_NAMES[name]}"
    raise AttributeError(f"{cls.__name__!r}, a worker, has no attribute {name!r}; {hint}", name=name, obj=cls)


def check_attributes(worker: Any) -> None:
    """Raise AttributeError if an attribute of the instance hides a reserved name (`self.wait = ...`), or a hook.

    A hook of the class may be replaced by a function. `self.result = ...` is the result where the class has no method
    of that name. A `loop_factory` of the instance comes too late: it is called before the constructor.
    """
    cls = type(worker)
    if not any(differs_from_class(worker, name) for name in RESERVED | _HOOKS | {"loop_factory"}):
        return
    own = worker.__dict__
    if "loop_factory" in own:
        raise AttributeError(f"{cls.__name__}.loop_factory is assigned too late: set it in the class")
    for name in RESERVED & own.keys():
        _refuse(cls, name)
    for name in _HOOKS & own.keys():
        defined = overrides(cls, name)
        if defined and not callable(own[name]) and callable(getattr(cls, name)):
            raise AttributeError(f"{cls.__name__}.{name} is a hook, so {name!r} cannot be a value; choose another name")
        if callable(own[name]) and not defined and name != "result":
            raise AttributeError(
                f"{cls.__name__}.{name} is assigned, and nothing would call it: define the hook {name} in the class"
            )


def gives(cls: type, name: str) -> bool:
    """Return whether a worker class itself, or a mixin of it, gives the attribute its value."""
    giver = next(base for base in cls.__mro__ if name in vars(base))
    return giver is cls or not isinstance(giver, WorkerType)


def differs_from_class(worker: Any, name: str) -> bool:
    """Return False if an attribute of a running worker is the one of its class, without a look at `worker.__dict__`.

    Python makes that dict when it is first asked for. From then on each `self.x = ...` of the worker takes 15 ns more,
    and 30 to 60 in Python 3.12 and 3.13.
    """
    of_class = getattr(type(worker), name, None)
    if hasattr(type(of_class), "__set__"):  # an assignment does not hide it
        return False
    try:
        found = object.__getattribute__(worker, name)
    except AttributeError:
        return False
    return getattr(found, "__func__", found) is not getattr(of_class, "__func__", of_class)


def _refuse(cls: type, name: str) -> Never:
    raise AttributeError(f"{cls.__name__}.{name} is given by the runtime and cannot be set; choose another name")

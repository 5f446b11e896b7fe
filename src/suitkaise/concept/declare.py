"""From a call of `create_process` or `create_thread` to the declaration of a child.

The keys of `kwargs` that are options of `Child` configure the child; all others go to the function.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from suitkaise.concept.call_site import call_in, caller
from suitkaise.errors import SpecError
from suitkaise.records import dataclass, field
from suitkaise.specs import Child, SpecWarning
from suitkaise.specs.options import ELSEWHERE
from suitkaise.specs.recipe import DERIVE, Recipe, Startable, check_function, recipe_of, without_parameters
from suitkaise.specs.signatures import is_async_function, parameters_of, signature_of
from suitkaise.workers.worker import Process, Thread, Worker

__all__ = ["SPECIAL", "Call", "caller_level", "declared"]

SPECIAL: frozenset[str] = frozenset(inspect.getfullargspec(Child.__init__).kwonlyargs) - {
    *("id", "args", "kwargs"),  # the call has them as arguments of its own
    *("copies", "significant"),  # make no sense for one child of a supervisor that outlives its children
}
"""The keys of `kwargs` that configure the child: options of `Child`."""


_OF_RESTARTS = frozenset({"max_restarts", "max_seconds"})


@dataclass(frozen=True)
class Call:
    """A call of `create_process` or `create_thread`: `what` are its positional arguments."""

    function: Literal["create_process", "create_thread"]
    what: tuple[Any, ...]
    name: str | None = None
    func: Any = None
    setup: Any = None
    args: tuple[Any, ...] | list[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["process", "thread"]:
        """The kind of worker that the call makes."""
        return "process" if self.function == "create_process" else "thread"


def declared(call: Call, defaults: Mapping[str, Any]) -> tuple[Child, bool]:
    """Return the child that a call declares, and whether the caller has given its name.

    `defaults` are options that neither the call nor the worker's class has.

    Raises:
        SpecError: the arguments do not fit together, or an option is wrong.
        TypeError: the function is not callable.
    """
    _refuse_unknown(call)
    call, name, what, setup = _arguments_of(call)
    title = f"{call.function}({name!r})" if name is not None else f"{call.function}()"
    _check_what(call, title, what, setup)
    args, options, kwargs = _sorted_arguments(call, title, what)
    worker: Any = what if _is_worker(what) else setup if _is_worker(setup) else None
    _check_kind(call, title, worker)
    target: Any = what
    child_args: dict[str, Any] = {}
    if _is_worker(what):
        if setup is not None:
            order = f"; the {_FIRST}" if callable(setup) and not _is_worker(setup) else ""
            raise SpecError(
                f"{title}: a setup goes with a function, and {_name_of(what)} is a worker with hooks of its own{order}"
            )
        child_args = {"args": args, "kwargs": kwargs or None}
    elif worker is not None:
        target, child_args = _worker_that_calls(title, setup, what, args, kwargs)
        if name is None and isinstance(setup, Startable):
            name = vars(setup).get("name")
    else:
        target = _function_worker(call, title, what, setup, args, kwargs, options)
    if isinstance(setup, Startable):  # what its constructor has set
        options = {**{key: value for key, value in vars(setup).items() if key in SPECIAL}, **options}
    options = _with_defaults(options, defaults, worker)
    given = name if name is not None else None if _is_worker(what) else _name_of(what)
    child = Child(target, id=given, **child_args, **options)
    return child, name is not None or (isinstance(what, Startable) and child.id_given)


def _with_defaults(options: dict[str, Any], defaults: Mapping[str, Any], worker: Any) -> dict[str, Any]:
    """Add the defaults for which neither the call nor the worker has a value."""
    missing = {key: value for key, value in defaults.items() if getattr(worker, key, None) is None}
    whole = {**missing, **options}
    if whole.get("restart", getattr(worker, "restart", None)) == "temporary":  # never restarted
        whole = {key: value for key, value in whole.items() if key in options or key not in _OF_RESTARTS}
    return whole


# ---------------------------------------------------------------- the arguments
def _refuse_unknown(call: Call) -> None:
    """Refuse a keyword that the call does not take; options and arguments of the function go into `kwargs`."""
    for name, value in call.unknown.items():
        if name in ("target", "function", "fn"):
            hint = "the function is called func"
        elif name in SPECIAL:
            hint = f"an option goes into kwargs: kwargs={{{name!r}: {value!r}}}"
        else:
            hint = "it takes name, func, setup, args, kwargs; arguments of the function and options go into kwargs"
        raise SpecError(f"{call.function}: unknown argument {name}={value!r}; {hint}")


def _arguments_of(call: Call) -> tuple[Call, str | None, Any, Any]:
    """Sort the positional arguments `[name,] function [, setup] [, args] [, kwargs]` and the keywords."""
    rest = list(call.what)
    name = rest.pop(0) if rest and isinstance(rest[0], str) else None
    if name is not None and call.name is not None:
        raise TypeError(f"{call.function}() got name twice: {name!r} and {call.name!r}")
    name = call.name if name is None else name
    setup = without_parameters(call.setup)
    if not rest and call.func is None and _is_worker(setup):  # a worker with a loop of its own needs no function
        return call, name, setup, None
    found = {"func": call.func, "setup": call.setup, "args": call.args, "kwargs": call.kwargs}
    for keyword, fits in _POSITIONS.items():
        if rest and fits(rest[0]):
            value = rest.pop(0)
            if value is not None and found[keyword] is not None:
                raise TypeError(f"{call.function}() got {keyword} twice: {value!r} and {found[keyword]!r}")
            found[keyword] = found[keyword] if value is None else value
    if rest:
        raise TypeError(
            f"{call.function}() takes a name, a function or worker, a setup, args and kwargs, not {call.what!r}"
        )
    call = replace(call, args=found["args"], kwargs=found["kwargs"])
    return call, name, without_parameters(found["func"]), without_parameters(found["setup"])


_POSITIONS: dict[str, Callable[[Any], bool]] = {
    "func": lambda value: True,
    "setup": lambda value: not isinstance(value, (tuple, list)),  # those are `args`: the setup was left out
    "args": lambda value: value is None or isinstance(value, (tuple, list)),
    "kwargs": lambda value: value is None or isinstance(value, Mapping),
}
"""The positional arguments after the name, in their order, each of which may be left out, with what fits there."""


_FIRST = "function stands before its setup"


def _is_worker(what: Any) -> bool:
    return isinstance(what, Startable) or (isinstance(what, type) and issubclass(what, Startable))


def _name_of(what: Any) -> str:
    return Recipe(what).name.strip("<>")


def _check_what(call: Call, title: str, what: Any, setup: Any) -> None:
    if _is_worker(what):
        return
    if isinstance(what, type):
        raise SpecError(f"{title}: {what.__name__} is a class but not a worker; {DERIVE}")
    if not callable(what):
        from suitkaise.concept.setup import BuiltSetup, Setup

        if isinstance(what, BuiltSetup | Setup):
            raise TypeError(f"{title} got a setup in the place of the function; the {_FIRST}")
        called = _called_function(call)
        if called is None and what is None:
            raise TypeError(f"{title} needs a function or a worker, for the {call.kind} to run; got none")
        if called is None and callable(setup) and not _is_worker(setup):  # a function in the place of the setup
            raise TypeError(f"{title}: the name, before the function, must be a text, not {what!r}")
        if called is not None:
            hint = f"pass `{called}`, not `{called}()`"
        else:
            hint = "pass it, and not its name" if isinstance(what, str) else "pass it without calling it"
        raise TypeError(f"{title} takes the function itself, to be called in the {call.kind}; got {what!r}: {hint}")


def _called_function(call: Call) -> str | None:
    """Return the text of the function that the caller has called instead of passing it."""
    site = call_in(caller())
    if site is None:
        return None
    place = 1 if call.what and isinstance(call.what[0], str) else 0
    functions = [keyword.value for keyword in site.keywords if keyword.arg == "func"] or site.args[place : place + 1]
    return ast.unparse(functions[0].func) if functions and isinstance(functions[0], ast.Call) else None


def _check_kind(call: Call, title: str, worker: Any) -> None:
    if worker is None:
        return
    kind = getattr(worker, "_worker_kind", None)
    if kind == call.kind or (kind == "command" and call.kind == "process"):
        return
    other = "skthreading.create_thread" if call.kind == "process" else "xprocess.CrossProcessing().create_process"
    raise SpecError(f"{title}: {_name_of(worker)} is a {kind}, not a {call.kind}; use {other}")


# ---------------------------------------------------------------- the keys of kwargs
def _sorted_arguments(call: Call, title: str, what: Any) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Return the positional arguments, the options, and the other keyword arguments of a call; checked."""
    args, given = () if call.args is None else call.args, {} if call.kwargs is None else call.kwargs
    if not isinstance(args, (tuple, list)):
        raise SpecError(f"{title}: args must be a tuple of positional arguments, not {args!r}; for one: ({args!r},)")
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise SpecError(f"{title}: kwargs must be a dict with names as keys, or None, not {given!r}")
    options = {key: value for key, value in given.items() if key in SPECIAL}
    kwargs = {key: value for key, value in given.items() if key not in SPECIAL}
    _check_keys(title, what, given, kwargs)
    if "num_loops" in options:
        if "join_after" in options:
            raise SpecError(f"{title}: num_loops is another name of join_after; give one of them")
        options["join_after"] = options.pop("num_loops")
    return tuple(args), options, kwargs


def _check_keys(title: str, what: Any, given: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
    """Refuse a key that could mean two things, and one that is neither an option nor a parameter."""
    parameters = _parameters_of(what)
    if parameters is None:
        return
    name = _name_of(what)
    for key in given:
        if key in SPECIAL and key in parameters:
            instead = (
                f"pass a worker that has its arguments: {name}({key}=...)"
                if _is_worker(what)
                else f"rename the parameter, or bind it: functools.partial({name}, {key}=...)"
            )
            raise SpecError(f"{title}: {key!r} is an option of the child and a parameter of {name}(); {instead}")
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, value in rest.items():
        if key in parameters and parameters[key].kind is not inspect.Parameter.VAR_KEYWORD:
            continue
        near = difflib.get_close_matches(key, SPECIAL, 1, 0.8) or difflib.get_close_matches(key, parameters, 1)
        if not takes_any:
            near = near or [name for name in (ELSEWHERE.get(key),) if name in SPECIAL]
            takes = ", ".join(parameters) or "no arguments"
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"it takes {takes}; the options are {', '.join(sorted(SPECIAL))}"
            )
            raise SpecError(f"{title}: {key}={value!r} is neither an option nor a parameter of {name}(); {hint}")
        if near and near[0] in SPECIAL:
            warnings.warn(
                f"{title}: {key}={value!r} goes to {name}(); the option is called {near[0]!r}",
                SpecWarning,
                stacklevel=caller_level(),
            )


def _parameters_of(what: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters that `kwargs` can name; None if they cannot be known."""
    if isinstance(what, Startable):
        return {}
    try:
        if isinstance(what, type):
            constructor: Any = what
            return dict(list(parameters_of(constructor.__init__).items())[1:])
        return parameters_of(what)
    except (ValueError, TypeError):
        return None


def caller_level() -> int:
    """Return the `stacklevel` of a warning, for the function that calls this: the first frame outside of suitkaise."""
    level, frame, outside = 1, sys._getframe(1), caller()
    while frame is not outside and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level


# ---------------------------------------------------------------- setups
def _function_worker(
    call: Call,
    title: str,
    function: Any,
    setup: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Recipe:
    """Return the recipe of a worker that calls the function, with the blocks of its setup, if it has one."""
    if setup is None:
        if call.kind == "thread":
            options.setdefault("join_after", 1)
        return (Process if call.kind == "process" else Thread).of(function, *args, **kwargs)
    from suitkaise.concept.setup import BuiltSetup
    from suitkaise.concept.setup_worker import worker_for

    if not isinstance(setup, BuiltSetup):
        hint = "; pass setup.build()" if hasattr(setup, "build") else ""
        hint = "; a name stands before the function" if isinstance(setup, str) else hint
        raise SpecError(
            f"{title}: a setup is what setup.build() returns, or a worker or its class, not {setup!r}{hint}"
        )
    if options.get("join_after", 0) in (None, math.inf):  # so that the setup's own number does not count
        setup = replace(setup, num_loops=math.inf)
    return worker_for(call.kind, function, setup, args, kwargs)


def _worker_that_calls(
    title: str, setup: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[type, dict[str, Any]]:
    """Return a class like that of `setup`, whose loop calls the function, and the arguments of its constructor."""
    recipe = recipe_of(setup) if isinstance(setup, Startable) else Recipe(setup, kind=setup._worker_kind)
    cls: Any = recipe.target
    if any(getattr(cls, name, None) is not getattr(Worker, name, None) for name in ("loop", "__loop__")):
        raise SpecError(
            f"{title}: {cls.__name__} has a loop of its own, so it takes no function; pass one of them: "
            f"{cls.__name__} without its loop, or the worker alone"
        )
    check_function(function, cls._worker_kind)
    _check_call(title, function, args, kwargs)
    base: Any = _CallsAsyncFunction if is_async_function(function) else _CallsFunction
    body = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_call": (function, args, kwargs)}
    derived = type(cls)(cls.__name__, (base, cls), body)
    return derived, {"args": recipe.args, "kwargs": recipe.kwargs}


def _check_call(title: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise SpecError if the function cannot be called with these arguments."""
    try:
        signature = signature_of(function)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SpecError(f"{title}: {_name_of(function)}{signature}: {error}") from None


class _CallsFunction:
    """The loop of a class-based setup: it calls the function that was given with the class."""

    _call: tuple[Any, ...]

    def loop(self) -> Any:
        function, args, kwargs = self._call
        return function(*args, **kwargs)


class _CallsAsyncFunction:
    """The same for an async function."""

    _call: tuple[Any, ...]

    async def loop(self) -> Any:
        function, args, kwargs = self._call
        return await function(*args, **kwargs)

"""How to rebuild the objects that pickle sends wrongly or not at all: caches, type variables, methods, exceptions.

pickle sends many objects of a module by the name that they have in it. `__main__` of the receiver may not have it, so
those of `__main__` are rebuilt, as one object in each process (see `definitions`).
"""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import copyreg
import dataclasses
import functools
import importlib
import keyword
import struct
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from cloudpickle import cloudpickle as parts  # type: ignore[import-untyped]

from suitkaise.errors import add_note
from suitkaise.messaging import definitions
from suitkaise.messaging.definitions import MAIN, Home, is_by_value, is_module_by_value

__all__ = ["REDUCERS", "is_named_by_value", "reduce_exception", "reduce_method", "reduce_named", "slots_of"]

_MADE_BY_CLASS_STATEMENT = 1 << 9  # Py_TPFLAGS_HEAPTYPE


# ------------------------------------------------------------ other objects that have a name
def _named(value: Any, make: Callable[..., Any], *args: Any) -> Any:
    """Return how to rebuild an object that its module has under its name, as one object in each process."""
    home = definitions.home_of(definitions.name_of(value)[0])
    return _make_named, (definitions.key_of(value), definitions.top_name(value), home, make, args)


def _make_named(key: str, name: str | None, home: Home, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    found = definitions.known(key)
    if found is None:
        found = make(*args)
        with contextlib.suppress(AttributeError, TypeError):  # a ContextVar has no module
            found.__module__ = home[1]
        definitions.register(key, found)
        definitions.finish(key, found, name, definitions.namespace(home))
    return found


def is_named_by_value(value: Any) -> bool:
    """Return whether the global name of an object, which its `__reduce__` returns, leads a receiver nowhere."""
    return is_module_by_value(getattr(value, "__module__", None))


def reduce_named(value: Any, name: str) -> Any:
    """Rebuild such an object (a mark, a cached function) as one object in each process."""
    key, home = definitions.key_of(value), definitions.home_of(value.__module__)
    args: tuple[Any, ...] = value.__getnewargs__() if hasattr(value, "__getnewargs__") else ()
    return _make_instance, (key, type(value), args), (key, name, home, value.__getstate__()), None, None, _fill_instance


def _make_instance(key: str, kind: type, args: tuple[Any, ...]) -> Any:
    return definitions.known_or_made(key, lambda: kind.__new__(kind, *args))


def _fill_instance(value: Any, state: Any) -> None:
    key, name, home, contents = state
    if definitions.is_finished(key):
        return
    if hasattr(value, "__setstate__"):
        value.__setstate__(contents)
    else:
        attributes, slots = contents if isinstance(contents, tuple) else (contents, None)
        for attribute, part in {**(attributes or {}), **(slots or {})}.items():
            object.__setattr__(value, attribute, part)
    definitions.finish(key, value, None if "." in name else name, definitions.namespace(home))


def _reduce_cache(wrapper: Any) -> Any:
    if not is_by_value(wrapper):
        return NotImplemented
    key, how = definitions.key_of(wrapper), wrapper.cache_parameters()
    state = (
        key,
        definitions.top_name(wrapper),
        definitions.home_of(wrapper.__module__),
        wrapper.__wrapped__,
        dict(vars(wrapper)),
    )
    return _make_cache, (key, how["maxsize"], how["typed"]), state, None, None, _fill_cache


class _Cached:
    """Calls the function that a cache has been made for before the function has arrived."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _make_cache(key: str, size: int | None, typed: bool) -> Any:
    def make() -> Any:
        inner = _Cached()
        wrapper = functools.lru_cache(size, typed)(inner)
        wrapper.__wrapped__ = inner
        return wrapper

    return definitions.known_or_made(key, make)


def _fill_cache(wrapper: Any, state: Any) -> None:
    key, name, home, wrapped, extra = state
    if definitions.is_finished(key):
        return
    inner = wrapper.__wrapped__
    if isinstance(inner, _Cached):
        inner.function = wrapped
    functools.update_wrapper(wrapper, wrapped)
    vars(wrapper).update(extra)
    definitions.finish(key, wrapper, name, definitions.namespace(home))


def _reduce_cached_property(value: Any) -> Any:
    state = {name: part for name, part in vars(value).items() if name not in ("func", "lock")}
    return functools.cached_property, (value.func,), state, None, None, _set_attributes


def _reduce_singledispatchmethod(value: Any) -> Any:
    state = {name: part for name, part in vars(value).items() if name != "_method_cache"}
    return _make_singledispatchmethod, (), state, None, None, _set_attributes


def _make_singledispatchmethod() -> Any:
    return functools.singledispatchmethod(_make_singledispatchmethod)


def _set_attributes(value: Any, state: dict[str, Any]) -> None:
    vars(value).update(state)


def _reduce_type_variable(value: Any) -> Any:
    if not is_by_value(value):
        return NotImplemented
    options: dict[str, Any] = {}
    if not isinstance(value, typing.TypeVarTuple):
        options = {"bound": value.__bound__, "covariant": value.__covariant__, "contravariant": value.__contravariant__}
        if getattr(value, "__infer_variance__", False):
            options = {"bound": value.__bound__, "infer_variance": True}
    if sys.version_info >= (3, 13) and value.has_default():
        options["default"] = value.__default__
    constraints = getattr(value, "__constraints__", ())
    make: Any = type(value)
    return _named(value, functools.partial(make, value.__name__, *constraints, **options))


def _reduce_new_type(value: Any) -> Any:
    if not is_by_value(value):
        return NotImplemented
    return _named(value, _make_new_type, value.__name__, value.__supertype__)


def _make_new_type(name: str, supertype: Any) -> Any:
    return typing.NewType(name, supertype)


def _reduce_type_alias(value: Any) -> Any:
    if not is_by_value(value):
        return NotImplemented
    if value.__type_params__ or not value.__name__.isidentifier() or keyword.iskeyword(value.__name__):
        return _named(value, _make_type_alias, value.__name__, value.__value__, value.__type_params__)
    key, home = definitions.key_of(value), definitions.home_of(value.__module__)
    state = key, definitions.top_name(value), home, value.__value__
    return _make_lazy_type_alias, (key, value.__name__, home[1]), state, None, None, _fill_type_alias


def _make_type_alias(name: str, value: Any, parameters: Any) -> Any:
    make: Any = vars(typing)["TypeAliasType"]  # since Python 3.12
    return make(name, value, type_params=parameters)


_unfilled: dict[str, dict[str, Any]] = {}
"""From the key of a type alias to the globals in which it looks for its value: the value may name the alias itself."""


def _make_lazy_type_alias(key: str, name: str, module: str) -> Any:
    def make() -> Any:
        scope = _unfilled[key] = {"__name__": module}
        exec(f"type {name} = value", scope)  # noqa: S102  (an identifier alone; `value` is looked up later)
        return scope.pop(name)

    return definitions.known_or_made(key, make)


def _fill_type_alias(alias: Any, state: Any) -> None:
    key, name, home, value = state
    if not definitions.is_finished(key):
        _unfilled.pop(key)["value"] = value
        definitions.finish(key, alias, name, definitions.namespace(home))


def _reduce_context_variable(value: contextvars.ContextVar[Any]) -> Any:
    """Send the name and the default; the value belongs to a context of this process."""
    try:
        default = {"default": contextvars.Context().run(value.get)}
    except LookupError:
        default = {}
    return _named(value, functools.partial(contextvars.ContextVar, value.name, **default))


def _reduce_struct(value: struct.Struct) -> Any:
    return struct.Struct, (value.format,)


def reduce_method(method: Any) -> Any:
    """Send a bound method that is a function of its module by this name: `random.random` and its kin share a generator.

    Otherwise its object would be copied, and all copies of a worker would draw the same numbers.
    """
    owner, name = method.__self__, method.__name__
    if owner is not None and not isinstance(owner, type | types.ModuleType):
        for module in _modules_for(owner):
            found: Any = vars(module).get(name)
            if type(found) is type(method) and found.__self__ is owner:
                return _attribute, (module.__name__, name)
    return NotImplemented


def _modules_for(owner: Any) -> Iterator[types.ModuleType]:
    first = sys.modules.get(type(owner).__module__)
    for module in (first, *sys.modules.copy().values()):
        if isinstance(module, types.ModuleType) and module.__name__ not in MAIN | parts._PICKLE_BY_VALUE_MODULES:
            yield module


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _reduce_method(method: types.MethodType) -> Any:
    by_name = reduce_method(method)
    return parts._method_reduce(method) if by_name is NotImplemented else by_name


def _reduce_mark_of_dataclasses(value: Any) -> Any:
    """Send what dataclasses compare by identity by its name, as the fields of a class that is sent by value hold it."""
    return _attribute, ("dataclasses", _MARKS[type(value)])


_SENTINEL: Any = vars(builtins).get("sentinel")
"""The type of sentinels, from Python 3.15 on."""

_MARKS = {
    type(vars(dataclasses)[name]): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    if name in vars(dataclasses) and type(vars(dataclasses)[name]) is not _SENTINEL
}


def _reduce_sentinel(value: Any) -> Any:
    """Send it by its name, as Python does, or make it once in each process, if that name leads nowhere there."""
    if not is_named_by_value(value):
        return NotImplemented
    return _named(value, functools.partial(_SENTINEL, value.__name__, repr=repr(value)))


def _reduce_code(code: types.CodeType) -> Any:
    """Keep the file name, which cloudpickle drops from 3.1.3 on: tracebacks show the source, and storage needs it."""
    make, args = parts._code_reduce(code)
    return _rebuild_code, (make, args, code.co_filename)


def _rebuild_code(make: Callable[..., types.CodeType], args: tuple[Any, ...], file: str) -> types.CodeType:
    return make(*args).replace(co_filename=file)


def _reduce_forward_reference(value: typing.ForwardRef) -> Any:
    """Send the name alone: from Python 3.14 on it may hold all globals of the module that it is in."""
    options = {"is_argument": value.__forward_is_argument__, "is_class": value.__forward_is_class__}
    return _make_forward_reference, (value.__forward_arg__, value.__forward_module__, options)


def _make_forward_reference(name: str, module: Any, options: dict[str, bool]) -> typing.ForwardRef:
    return typing.ForwardRef(name, module=module, **options)


REDUCERS: dict[type, Callable[[Any], Any]] = {
    types.CodeType: _reduce_code,
    types.MethodType: _reduce_method,
    types.BuiltinMethodType: reduce_method,
    type(functools.lru_cache(lambda: None)): _reduce_cache,
    functools.cached_property: _reduce_cached_property,
    functools.singledispatchmethod: _reduce_singledispatchmethod,
    typing.TypeVar: _reduce_type_variable,
    typing.ParamSpec: _reduce_type_variable,
    typing.TypeVarTuple: _reduce_type_variable,
    typing.NewType: _reduce_new_type,
    typing.ForwardRef: _reduce_forward_reference,
    contextvars.ContextVar: _reduce_context_variable,
    struct.Struct: _reduce_struct,
    **dict.fromkeys(_MARKS, _reduce_mark_of_dataclasses),
}
"""How to rebuild objects of these very types."""

if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = _reduce_type_alias
if _SENTINEL is not None:
    REDUCERS[_SENTINEL] = _reduce_sentinel


# ------------------------------------------------------------ exceptions
def reduce_exception(error: BaseException) -> Any:
    """Rebuild an exception without its own `__init__`, which pickle would call with the wrong arguments.

    What it holds in `__slots__` comes along, which pickle leaves out. One that has a way of its own to be rebuilt keeps
    its notes, among them the remote traceback.
    """
    kind = type(error)
    if isinstance(kind.__reduce__, types.FunctionType) or isinstance(kind.__reduce_ex__, types.FunctionType):
        reduced = error.__reduce_ex__(5)
        notes = getattr(error, "__notes__", None)
        if notes and isinstance(reduced, tuple):
            return _rebuild_with_notes, (notes, *reduced[:3])
        return NotImplemented
    slots, frozen = slots_of(error), isinstance(kind.__setattr__, types.FunctionType)
    if not (slots or frozen or isinstance(kind.__init__, types.FunctionType)):
        return NotImplemented
    if isinstance(kind.__new__, types.FunctionType):
        return NotImplemented
    reduced = error.__reduce__()
    if not isinstance(reduced, tuple) or reduced[0] is not kind:
        return NotImplemented
    made = _rebuild_exception, (kind, reduced[1])
    if slots or frozen:
        return (*made, (slots, *reduced[2:]), None, None, _set_state)
    return (*made, *reduced[2:])


def slots_of(value: object) -> dict[str, Any]:
    """Return the values in the slots of classes that were made by a class statement."""
    names: list[str] = copyreg._slotnames(type(value))  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _set_state(error: BaseException, state: tuple[dict[str, Any], ...]) -> None:
    slots, *others = state
    for other in others:
        if other is not None:
            _set_state_of(error, other)
    for name, value in slots.items():
        object.__setattr__(error, name, value)  # also in a frozen dataclass


def _set_state_of(error: BaseException, state: Any) -> None:
    """Give an exception what `BaseException.__reduce__` has made of its attributes; also in a frozen dataclass."""
    own = type(error).__setstate__
    if own is BaseException.__setstate__ or getattr(own, "__module__", "") == "dataclasses":  # for slots alone
        vars(error).update(state)
    else:
        error.__setstate__(state)


def _rebuild_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    native = next(base for base in kind.__mro__ if not base.__flags__ & _MADE_BY_CLASS_STATEMENT)
    error: BaseException = kind.__new__(kind, *args)
    native.__init__(error, *args)  # type: ignore[misc]
    return error


def _rebuild_with_notes(notes: list[str], make: Callable[..., Any], args: tuple[Any, ...], state: Any = None) -> Any:
    error = make(*args)
    if state is not None:
        error.__setstate__(state)
    for note in notes:
        add_note(error, note)
    return error

"""Sending code by value: how classes and functions that cannot be imported are taken apart and rebuilt.

cloudpickle does most of it. What is added here: the identity of each definition (see `definitions`), cells that
closures share, and classes that cloudpickle rebuilds wrongly. `reducers` has the other kinds of objects.

An object is made first and filled later (`make_...`, `fill_...`), since its parts may refer to it.
"""

from __future__ import annotations

import abc
import enum
import functools
import io
import itertools
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped]
import msgspec
from cloudpickle import cloudpickle as parts

from suitkaise.messaging import changed_globals, definitions
from suitkaise.messaging.definitions import Home
from suitkaise.messaging.reducers import REDUCERS, reduce_exception, slots_of

__all__ = ["ByValue"]


if TYPE_CHECKING:
    from pickle import Pickler as _Pickler
else:
    _Pickler = cloudpickle.Pickler


class ByValue(_Pickler):
    """Sends by value what has no name to be imported by."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.sent: list[Any] = []
        """The classes and functions that were sent by value."""
        self.notes: changed_globals.Notes = changed_globals.Notes()

    def reducer_override(self, value: Any) -> Any:
        """Return how to rebuild a value, or NotImplemented for pickle's own way."""
        kind = type(value)
        if kind is types.FunctionType:
            if _goes_by_name(value):
                return NotImplemented
            self.sent.append(value)
            return _reduce_function(value, self.notes)
        if isinstance(value, type):
            if value in _CLASSES_OF_BUILTINS or _goes_by_name(value):
                return super().reducer_override(value)
            self.sent.append(value)
            return _reduce_class(value)
        if isinstance(value, BaseException):
            return reduce_exception(value)
        reducer = REDUCERS.get(kind)
        if reducer is not None:
            return reducer(value)
        if isinstance(value, io.TextIOWrapper) and not any(value is known for known in _standard_streams()):
            raise TypeError(f"cannot pickle {kind.__name__!r} object")
        return NotImplemented


_CLASSES_OF_BUILTINS = frozenset({type(None), type(Ellipsis), type(NotImplemented), *parts._BUILTIN_TYPE_NAMES})


def _standard_streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _goes_by_name(definition: Any) -> bool:
    """Return what cloudpickle says, which takes each module that is loaded for one that can be imported."""
    module = getattr(definition, "__module__", None)
    known = module is None or module == "__main__" or not definitions.is_module_by_value(module)
    return known and parts._should_pickle_by_reference(definition)


# ------------------------------------------------------------ functions
def _reduce_function(function: types.FunctionType, notes: changed_globals.Notes) -> Any:
    if function.__code__ is _SINGLEDISPATCH:
        return _reduce_singledispatch(function)
    key = definitions.key_of(function)
    code = function.__code__
    home = definitions.home_of(function.__module__)
    scope = function.__globals__
    names = parts._extract_code_globals(code)
    changed: dict[str, int] = {}
    if scope is definitions.namespace(home):
        definitions.note_sent(home, names, scope)
        used, changed = notes.globals_of(home, names, scope)
    else:
        used = {name: scope[name] for name in names if name in scope}
    cells = [_contents(cell) for cell in function.__closure__ or ()]
    submodules = parts._find_imported_submodules(code, itertools.chain(used.values(), *cells))
    annotations = _annotations_of(function)
    attributes = {
        "__name__": function.__name__, "__qualname__": function.__qualname__, "__module__": function.__module__,
        "__doc__": function.__doc__, "__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": annotations,
    }  # fmt: skip
    if sys.version_info >= (3, 12):
        attributes["__type_params__"] = function.__type_params__
    name = definitions.top_name(function)
    globals_ = {**_names_in(annotations, scope), **used}
    state = key, name, home, attributes, dict(vars(function)), cells, globals_, changed, submodules
    made_from = key, code, home, definitions.scope_key(function), definitions.cell_keys(function, key)
    return _make_function, made_from, state, None, None, _fill_function


def _make_function(key: str, code: types.CodeType, home: Home, scope_key: str | None, cells: list[str]) -> Any:
    found = definitions.known(key)
    if found is not None:
        return found
    scope = definitions.namespace(home) if scope_key is None else definitions.scope_for(scope_key, home)
    function = types.FunctionType(code, scope, None, None, definitions.cells_for(cells))
    definitions.register(key, function, finished=False)
    if scope_key is not None:
        definitions.remember_scope(function, scope_key)
    definitions.remember_cells(function, cells)
    return function


def _fill_function(function: Any, state: Any) -> None:
    key, name, home, attributes, extra, cells, globals_, changed, _ = state
    if definitions.is_finished(key):
        if definitions.in_worker():
            changed_globals.take(home, {name: globals_[name] for name in changed if name in globals_}, changed)
        return
    for attribute, value in attributes.items():
        setattr(function, attribute, value)
    vars(function).update(extra)
    for cell, contents in zip(function.__closure__ or (), cells, strict=True):
        if not _contents(cell):  # otherwise another function shares it
            for value in contents:
                cell.cell_contents = value
    scope = definitions.namespace(home)
    if function.__globals__ is scope:
        changed_globals.take(home, globals_, changed)
    else:
        for used, value in globals_.items():
            definitions.bind(function.__globals__, used, value)
    definitions.finish(key, function, name, scope)


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    """Return what a cell holds: one value, or none if its variable has no value yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


_WORD = re.compile(r"[^\W\d]\w*")


if sys.version_info >= (3, 14):  # which evaluates annotations when they are asked for

    def _annotations_of(owner: Any) -> dict[str, Any]:
        """Return the annotations of a function, or of a class alone; as texts if one names what is not there."""
        from annotationlib import Format, get_annotations

        try:
            return get_annotations(owner)
        except Exception:
            return get_annotations(owner, format=Format.STRING)

else:

    def _annotations_of(owner: Any) -> dict[str, Any]:
        annotations = vars(owner).get("__annotations__", {}) if isinstance(owner, type) else owner.__annotations__
        return annotations if isinstance(annotations, dict) else {}


def _names_in(annotations: Any, scope: dict[str, Any]) -> dict[str, Any]:
    """Return the types and modules of `scope` that annotations name in text: typing and msgspec look them up."""
    texts = [text for text in annotations.values() if isinstance(text, str)] if isinstance(annotations, dict) else []
    found = {word: scope[word] for text in texts for word in _WORD.findall(text) if word in scope}
    return {word: value for word, value in found.items() if _can_annotate(value)}


def _can_annotate(value: Any) -> bool:
    return isinstance(value, type | types.ModuleType) or type(value).__module__ in _MODULES_OF_ANNOTATIONS


_MODULES_OF_ANNOTATIONS = frozenset({"typing", "types", "typing_extensions"})


def _code_of(function: Any) -> Any:
    return function.__code__


_SINGLEDISPATCH = _code_of(functools.singledispatch(_code_of))


def _reduce_singledispatch(function: Any) -> Any:
    key = definitions.key_of(function)
    state = (
        key,
        definitions.top_name(function),
        definitions.home_of(function.__module__),
        function.__wrapped__,
        dict(function.registry),
    )
    return _make_singledispatch, (key, function.__name__), state, None, None, _fill_singledispatch


def _make_singledispatch(key: str, name: str) -> Any:
    def placeholder(value: Any) -> None: ...

    placeholder.__name__ = name
    return definitions.known_or_made(key, lambda: functools.singledispatch(placeholder))


def _fill_singledispatch(function: Any, state: Any) -> None:
    key, name, home, wrapped, registry = state
    if definitions.is_finished(key):
        return
    functools.update_wrapper(function, wrapped)
    for cls, implementation in registry.items():
        function.register(cls, implementation)
    definitions.finish(key, function, name, definitions.namespace(home))


# ------------------------------------------------------------ classes
def _reduce_class(cls: type) -> Any:
    key = definitions.key_of(cls)
    module, qualified = definitions.name_of(cls)
    scope = vars(sys.modules[module]) if module in sys.modules else {}
    names = _names_in(_annotations_of(cls), scope)
    outer = qualified.partition(".")[0]
    if outer != qualified and definitions.is_at_top_level(cls):
        names[outer] = scope[outer]  # pickle finds this class by way of the outer one
    body = _body_of(cls)
    if isinstance(cls, _STRUCT):
        made_from = _struct_parts(cls, body)
        make: Any = _make_struct, (key, type(cls), cls.__name__, cls.__bases__, *made_from, "__post_init__" in body)
    else:
        body.pop("__slots__", None)
        fixed = {
            name: cls.__dict__[name]
            for name in ("__module__", "__qualname__", "__slots__", "__orig_bases__")
            if name in cls.__dict__
        } | {"__qualname__": cls.__qualname__}
        if isinstance(cls.__dict__.get("__dict__"), property):
            fixed["__dict__"] = cls.__dict__["__dict__"]
        fixed |= {name: body.pop(name) for name in _hidden_by_metaclass(cls, body)}
        make = _make_class, (key, type(cls), cls.__name__, cls.__bases__, fixed, _is_quiet(cls))
    name = definitions.top_name(cls)
    state: Any = key, name, definitions.home_of(module), body, names
    if issubclass(cls, enum.Enum):
        members, more = _enum_parts(cls, body)
        return _make_enum, (*make[1], members), (more, state), None, None, _fill_enum
    return *make, state, None, None, _fill_class


def _body_of(cls: type) -> dict[str, Any]:
    """Return what a class holds, in the order of its definition, but for what Python makes with it.

    cloudpickle sorts it, and leaves out what a base holds too, which then hides nothing of the other bases.
    """
    kept = parts._class_getstate(cls)[0]
    body = {
        name: kept.get(name, value)
        for name, value in vars(cls).items()
        if name not in _MADE_BY_PYTHON
        and not (isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls)
    }
    if annotations := _annotations_of(cls):
        body["__annotations__"] = annotations
    return body


_MADE_BY_PYTHON = frozenset(
    {"__dict__", "__weakref__", "__slotnames__", "__annotations__", "__annotate_func__", "__annotations_cache__"}
)
"""What a class holds that is made with it, or of it."""


def _hidden_by_metaclass(cls: type, body: Mapping[str, Any]) -> list[str]:
    """Return the names that a class can only be made with: to set one later would set the class's own of that name.

    A proxy may have a property `__class__` or `__name__`, and a metaclass a property of any name.
    """
    meta: type = type(cls)
    return [
        name
        for name in body
        if name not in _KEPT_IN_THE_CLASS
        and any(name in vars(base) and hasattr(type(vars(base)[name]), "__set__") for base in meta.__mro__)
    ]


_KEPT_IN_THE_CLASS = frozenset({"__module__", "__doc__", "__abstractmethods__", "__annotations__", "__type_params__"})
"""What a class has of its own, and keeps where other attributes are."""


def _is_quiet(cls: type) -> bool:
    """Return whether a class is made without calling `__init_subclass__` and the constructor of its metaclass.

    That is so where those are sent by value too: what they have done is a part of the state of the classes.
    """
    if parts._should_pickle_by_reference(type(cls)) is False or type(cls).__module__ == "typing":
        return True
    owners = (base for base in cls.__mro__[1:] if "__init_subclass__" in vars(base))
    return any(not parts._should_pickle_by_reference(owner) for owner in owners)


def _make_class(key: str, meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any], quiet: bool) -> Any:
    slots = body.get("__slots__")
    if slots is not None and not isinstance(slots, str | dict):
        body = {**body, "__slots__": tuple(slots)}

    def make() -> Any:
        if quiet:
            return _quietly(meta, name, bases, body)
        return types.new_class(name, bases, {"metaclass": meta}, lambda namespace: namespace.update(body))

    return definitions.known_or_made(key, make)


def _quietly(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    """Make a class without calling any code of its bases and of its metaclass.

    While it is made it has one more base, the first, so that no `__init_subclass__` of the others is called.
    """
    new = _constructor(meta)
    if bases == (object,):
        return new(meta, name, bases, body)
    cls = new(meta, name, (_first_before(bases[0]), *bases), body)
    cls.__bases__ = bases
    return cls


def _first_before(base: type) -> Any:
    """Make a base that adds to instances what `base` adds, which Python asks of a base that is taken out again.

    From Python 3.15 on only a subclass of `Generic` can stand before it. What it does with one, Python's own code, it
    does not refuse there, since `__orig_bases__` does not name it.
    """
    while base is not typing.Generic and base.__base__ is not None and _layout(base) == _layout(base.__base__):
        base = base.__base__
    if base is typing.Generic:
        body = {"__slots__": (), "__orig_bases__": (), "__init_subclass__": classmethod(_ignore)}
        return type("_First", (base,), body)
    slots = [name for name in ("__dict__", "__weakref__") if name in vars(base)]
    parent = base.__base__ or object
    return _quietly(type(parent), "_First", (parent,), {"__slots__": slots, "__init_subclass__": classmethod(_ignore)})


def _layout(cls: type) -> tuple[int, ...]:
    return cls.__basicsize__, cls.__itemsize__, cls.__dictoffset__, cls.__weakrefoffset__


def _ignore(cls: type, /, **options: Any) -> None: ...


def _constructor(meta: type) -> Any:
    """Return what makes the classes of a metaclass that Python brings, and does not call the user's metaclasses."""
    return next(vars(base)["__new__"] for base in meta.__mro__ if base in (abc.ABCMeta, enum.EnumType, type))


def _fill_class(cls: Any, state: Any) -> None:
    key, name, home, body, names = state
    if definitions.is_finished(key):
        return
    body = dict(body)
    registered = body.pop("_abc_impl", ())
    first_line = body.pop("__firstlineno__", None)
    for attribute, value in body.items():
        type.__setattr__(cls, attribute, value)
    if first_line is not None:
        cls.__firstlineno__ = first_line
    for subclass in registered:
        cls.register(subclass)
    scope = definitions.namespace(home)
    for used, value in names.items():
        definitions.bind(scope, used, value)
    definitions.finish(key, cls, name, scope)


# ------------------------------------------------------------ enums
_MADE_WITH_ENUM = frozenset({
    "_member_names_", "_member_map_", "_member_type_", "_value2member_map_", "_hashable_values_", "_unhashable_values_",
    "_unhashable_values_map_", "_iter_member_",
})  # fmt: skip
_MADE_WITH_MEMBER = frozenset({"_name_", "_value_", "_sort_order_", "_inverted_", "__objclass__"})
_CONTAINERS = frozenset({list, dict, set, bytearray})


def _enum_parts(cls: Any, body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Take what Python makes with an enum out of its body; return what its members are made from, and the rest of them.

    The rest is what members have as attributes, and the values that lead to a member besides its own.
    """
    for name in _MADE_WITH_ENUM | cls._member_map_.keys():
        body.pop(name, None)
    made_from = {name: (*_made_from(member), member._value_) for name, member in cls._member_map_.items()}
    members = {member._name_: member for member in cls._member_map_.values()}
    attributes = {
        name: ({key: value for key, value in vars(member).items() if key not in _MADE_WITH_MEMBER}, slots_of(member))
        for name, member in members.items()
    }
    values = [
        (value, member._name_)
        for value, member in cls._value2member_map_.items()
        if member._name_ in members and value is not member._value_
    ]
    return made_from, (attributes, values)


def _made_from(member: Any) -> tuple[type, tuple[Any, ...]]:
    """Return the base whose `__new__` makes a member, and the arguments for it: the member may be a text or a date."""
    for base in type(member).__mro__:
        if issubclass(base, enum.Enum):
            continue
        if base in _CONTAINERS:
            return base, (base(member),)
        if "__getnewargs__" in vars(base):
            return base, vars(base)["__getnewargs__"](member)
        if "__reduce__" in vars(base) and base is not object:
            return base, vars(base)["__reduce__"](member)[1]
    return object, ()


def _make_enum(
    key: str,
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, Any],
    quiet: bool,
    members: dict[str, tuple[type, tuple[Any, ...], Any]],
) -> Any:
    """Make an enum and its members without the user's `__new__` and `__init__`: they have run, and come later."""

    def make() -> Any:
        namespace: Any = enum.EnumType.__prepare__(name, bases)
        for attribute, value in {**body, "__new__": _make_member, "__init__": _no_init, **members}.items():
            namespace[attribute] = value
        cls = (_quietly if quiet else _constructor(meta))(meta, name, bases, namespace)
        for attribute in vars(cls).keys() & {"__init__", "__new_member__", "_new_member_", "_use_args_"}:
            type.__delattr__(cls, attribute)
        return cls

    return definitions.known_or_made(key, make)


def _make_member(cls: Any, *made_from: Any) -> Any:
    base, args, value = made_from if len(made_from) == 3 else made_from[0]  # an enum of tuples gets one argument
    member = base.__new__(cls, *args)
    if base in _CONTAINERS:
        base.__init__(member, *args)
    member._value_ = value
    return member


def _no_init(member: Any, *made_from: Any) -> None: ...


def _fill_enum(cls: Any, state: Any) -> None:
    (attributes, values), of_class = state
    if definitions.is_finished(of_class[0]):
        return
    for name, (held, slots) in attributes.items():
        vars(cls._member_map_[name]).update(held)
        for slot, value in slots.items():
            object.__setattr__(cls._member_map_[name], slot, value)
    for value, name in values:
        cls._value2member_map_.setdefault(value, cls._member_map_[name])
    _fill_class(cls, of_class)


# ------------------------------------------------------------ classes of msgspec
_STRUCT: type = type(msgspec.Struct)
_OPTIONS = (
    "frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults", "forbid_unknown_fields",
    "weakref", "dict", "cache_hash", "tag", "tag_field",
)  # fmt: skip


def _struct_parts(cls: Any, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """Take what a class of msgspec is made from out of its body: the namespace, the options and the fields."""
    names = cls.__struct_fields__
    fixed: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    fixed |= {name: body.pop(name) for name in ("__annotations__", "__orig_bases__") if name in body}
    for name in [name for name in body if name.startswith("__struct_")]:
        del body[name]
    for name in ("__slots__", "__match_args__", *names):
        body.pop(name, None)
    defaults = dict(zip(reversed(names), reversed(cls.__struct_defaults__), strict=False))
    fields = {}
    for name, encoded in zip(names, cls.__struct_encode_fields__, strict=True):
        if name not in fixed.get("__annotations__", ()):
            continue  # a field of a base
        default = defaults.get(name, msgspec.NODEFAULT)
        fields[name] = {} if encoded == name else {"name": encoded}
        if type(default).__name__ == "Factory":
            fields[name]["default_factory"] = default.factory
        elif default is not msgspec.NODEFAULT:
            fields[name]["default"] = default
    options = {name: getattr(cls.__struct_config__, name) for name in _OPTIONS}
    options["kw_only"] = any(name not in cls.__match_args__ for name in fields)
    return fixed, {name: value for name, value in options.items() if value is not None}, fields


def _make_struct(
    key: str,
    meta: Any,
    name: str,
    bases: Any,
    body: dict[str, Any],
    options: Any,
    fields: dict[str, Any],
    initialises: bool,
) -> Any:
    def post_init(self: Any) -> None:
        vars(cls)["__post_init__"](self)

    namespace = {**body, **{field: msgspec.field(**how) for field, how in fields.items()}}
    if initialises:  # msgspec calls the function that is there when the class is made
        namespace["__post_init__"] = post_init
    cls: Any = definitions.known_or_made(key, lambda: meta(name, bases, namespace, **options))
    return cls

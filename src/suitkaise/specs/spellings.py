"""The spellings of the hooks: `before_loop` may be written `__beforeloop__` or `__before_loop__`, and so on.

A class defines a hook under one spelling, and has it under all of them. So Python's own rules do the rest: the most
derived class of the method resolution order decides, whichever spelling it uses, and `super()` reaches the hook of a
base under any spelling. A worker class gets the other spellings as attributes of its own. A mixin, which is no worker
class and may be anybody's, stays as it is: a class with the other spellings stands before it in the order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from suitkaise.errors import SpecError

__all__ = ["HOOKS", "likely_mistakes", "make_mro", "spell_all", "spelling_in", "spellings_of"]

HOOKS = ("on_start", "before_loop", "loop", "after_loop", "on_finish", "on_receive", "handle_timeout", "on_failure",
         "result")  # fmt: skip
"""The names that a worker class defines for the runtime to call."""

_SPELLINGS = {hook: (hook, *dict.fromkeys((f"__{hook.replace('_', '')}__", f"__{hook}__"))) for hook in HOOKS}
_HOOK_OF = {spelling: spellings for spellings in _SPELLINGS.values() for spelling in spellings}


_OTHER_NAMES = {"__prerun__": "__beforeloop__", "__run__": "__loop__", "__postrun__": "__afterloop__",
                "__error__": "on_failure"}  # fmt: skip
"""The hooks of suitkaise 0.4 that have another name here."""


def spellings_of(name: str) -> tuple[str, ...]:
    """Return all spellings of the hook of that name; the name alone if it is no hook's.

    >>> spellings_of("__before_loop__")
    ('before_loop', '__beforeloop__', '__before_loop__')
    >>> spellings_of("restart")
    ('restart',)
    """
    return _HOOK_OF.get(name, (name,))


def spelling_in(cls: type, hook: str) -> str:
    """Return how the class that defines the hook has spelled it; the other spellings were added behind that one."""
    for base in cls.__mro__:
        for name in vars(base):
            if name in spellings_of(hook) and not issubclass(base, _Spellings):
                return name
    return hook


def spell_all(cls: type) -> None:
    """Give a new worker class each hook that it defines under all spellings.

    Raises:
        SpecError: the class defines a hook under two spellings, or has a method like `__befor_loop__`.
    """
    _refuse_misspelled(cls)
    for name, value in _missing(cls).items():
        type.__setattr__(cls, name, value)


def make_mro(order: Iterable[type], worker_type: type) -> list[type]:
    """Return a method resolution order in which each mixin has its hooks under all spellings.

    All classes but those of the metaclass `worker_type` are mixins.
    """
    made: list[type] = []
    for cls in order:
        if issubclass(cls, _Spellings):
            continue  # of a base; made again below
        if not isinstance(cls, worker_type) and (missing := _missing(cls)):
            made.append(type(cls.__name__, (_Spellings,), {"__slots__": (), "__module__": cls.__module__, **missing}))
        made.append(cls)
    return made


def _refuse_misspelled(cls: type) -> None:
    """Raise SpecError for a method whose name is nearly a hook's: nothing would call it.

    Only names with two underscores at both ends are looked at: all others may be the user's own methods.
    """
    for name, value in vars(cls).items():
        if name[:2] == "__" == name[-2:] and callable(value) and name not in _HOOK_OF and not hasattr(object, name):
            import difflib

            near = _OTHER_NAMES.get(name) or next(
                iter(difflib.get_close_matches(name.lower(), _HOOK_OF, 1, 0.85)), None
            )
            if near is not None:
                raise SpecError(f"{cls.__name__} defines {name}, which nothing calls; did you mean {near}?")


def likely_mistakes(what: Any, options: Iterable[str]) -> list[str]:
    """Tell the names in a worker class, or in a worker and its class, that are nearly a hook's or an option's.

    They may be meant, so each is worth a warning and no error.

    Args:
        what: the class or the worker.
        options: the names of the options that a class may set.
    """
    cls = what if isinstance(what, type) else type(what)
    own: dict[str, Any] = {} if isinstance(what, type) else dict(vars(what))
    for base in cls.__mro__[:-1]:
        if base.__module__.partition(".")[0] != "suitkaise":
            own = {**vars(base), **own}
    known = tuple(options)
    found = []
    for name, value in own.items():
        near = None if name[:1] == "_" else _near(name, HOOKS if callable(value) else known)
        if near is not None:
            does = "calls" if callable(value) else "reads"
            found.append(f"{cls.__name__} has {name}, which nothing {does}; did you mean {near}?")
    if callable(own.get("run")) and not own.keys() & {"loop", "on_receive"} and _takes_nothing(own["run"]):
        found.append(f"{cls.__name__} has run and no loop: nothing calls run; did you mean loop?")
    for names, hook in _OF_ACTORS.items():
        there = [name for name in names if callable(own.get(name))]
        if there and not own.keys() & set(spellings_of(hook)):
            found.append(f"{cls.__name__} has {there[0]} and no {hook}: nothing calls {there[0]}; did you mean {hook}?")
    return found


_OF_ACTORS = {("handle_call", "handle_cast", "handle_info"): "on_receive", ("terminate", "on_stop"): "on_finish"}
"""The hooks of gen_server and Pykka, by the one here. A worker that has that one, too, may mean them for a proxy."""


@functools.lru_cache(maxsize=4096)
def _near(name: str, known: tuple[str, ...]) -> str | None:
    """Return the known name that differs in one typing error, in case or in underscores; None if there is none."""
    if name in known:
        return None
    bare = name.lower().replace("_", "")
    for one in known:
        other = one.replace("_", "")
        if bare == other or (_one_error(bare, other) and name != f"{one}s" and f"{name}s" != one):
            return one
    return None


def _one_error(name: str, known: str) -> bool:
    """Return whether one letter is wrong, missing or too much, or two are exchanged (in short names only that)."""
    start = 0
    while start < min(len(name), len(known)) and name[start] == known[start]:
        start += 1
    end = 0
    while end < min(len(name), len(known)) - start and name[-1 - end] == known[-1 - end]:
        end += 1
    got, wanted = name[start : len(name) - end], known[start : len(known) - end]
    if len(got) == 2 and got == wanted[::-1]:
        return True
    return len(known) >= _LONG_ENOUGH and len(got) <= 1 and len(wanted) <= 1


_LONG_ENOUGH = 7
"""Letters: in a shorter name, one other letter often makes another word (`loop`, `look`)."""


def _takes_nothing(method: Any) -> bool:
    code = getattr(method, "__code__", None)
    return code is not None and code.co_argcount - len(method.__defaults__ or ()) <= 1 and not code.co_kwonlyargcount


class _Spellings:
    """The other spellings of the hooks of a mixin."""

    __slots__ = ()


def _missing(cls: type) -> dict[str, Any]:
    """Return the hooks that a class defines, under the spellings that it does not use."""
    missing: dict[str, Any] = {}
    for spellings in _SPELLINGS.values():
        defined = [name for name in spellings if name in vars(cls)]
        if not defined:
            continue
        hook = vars(cls)[defined[0]]
        for name in defined[1:]:
            if vars(cls)[name] is not hook:
                raise SpecError(
                    f"{cls.__name__} defines {defined[0]} and {name}, which are two spellings of one hook; define one"
                )
        missing.update(dict.fromkeys(set(spellings).difference(defined), hook))
    return missing

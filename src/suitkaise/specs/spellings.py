"""The spellings of the hooks: `before_loop` may be written `__beforeloop__` or `__before_loop__`, and so on.

A class defines a hook under one spelling, and has it under all of them. So Python's own rules do the rest: the most
derived class of the method resolution order decides, whichever spelling it uses, and `super()` reaches the hook of a
base under any spelling. A worker class gets the other spellings as attributes of its own. A mixin, which is no worker
class and may be anybody's, stays as it is: a class with the other spellings stands before it in the order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from suitkaise.errors import SpecError

__all__ = ["HOOKS", "make_mro", "spell_all", "spelling_in", "spellings_of"]

HOOKS = ("on_start", "before_loop", "loop", "after_loop", "on_finish", "on_receive", "on_failure", "result")
"""The names that a worker class defines for the runtime to call."""

_SPELLINGS = {hook: (hook, *dict.fromkeys((f"__{hook.replace('_', '')}__", f"__{hook}__"))) for hook in HOOKS}
_HOOK_OF = {spelling: spellings for spellings in _SPELLINGS.values() for spelling in spellings}


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

            near = difflib.get_close_matches(name.lower(), _HOOK_OF, 1, 0.85)
            if near:
                raise SpecError(f"{cls.__name__} defines {name}, which nothing calls; did you mean {near[0]}?")


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

"""What a child is made from: a worker, its class, a function or a supervisor.

Each brings along how it is built anew at each start, and perhaps a name and options of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from suitkaise.errors import SpecError
from suitkaise.recipes import Recipe, Startable, check_recipe, with_arguments

if TYPE_CHECKING:
    from suitkaise.specs.supervisor import Supervisor

__all__ = ["Rebuilt", "default_id", "given_name", "options_of", "origin_of"]


class Rebuilt:
    """A recipe on its way into another `Child` (`replace`, `copies`), and the options that it had there."""

    def __init__(self, recipe: Recipe, options: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.options = options


def origin_of(what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recipe | Supervisor:
    """What each start begins from; raises SpecError if nothing can be started from that."""
    if _is_supervisor(what):
        return what
    if isinstance(what, Rebuilt):
        return what.recipe
    if isinstance(what, Recipe):
        recipe = what if not (args or kwargs) else Recipe(what.target, tuple(args), dict(kwargs), what.kind)
    elif isinstance(what, Startable):
        recipe = what.__recipe__
    elif isinstance(what, type) and issubclass(what, Startable):
        if not hasattr(what, "kind"):
            raise SpecError(
                f"Child: {what.__name__} is neither a process nor a thread; derive it from Process or Thread"
            )
        return with_arguments(Recipe(what, kind=what.kind), args, kwargs)
    elif isinstance(what, type):
        raise SpecError(f"Child: {what.__name__} is a class but not a worker; derive it from Process or Thread")
    elif callable(what):
        return with_arguments(Recipe(what), args, kwargs)
    else:
        raise SpecError(
            f"Child: expected a worker, a worker class, a Supervisor or a function, not {type(what).__name__}: {what!r}"
            + (" (was a function called instead of being passed?)" if what is None else "")
        )
    check_recipe(recipe)
    return recipe


def options_of(what: Any) -> tuple[Mapping[str, Any], type]:
    """Where else options may stand: the attributes of an instance, and a class."""
    if isinstance(what, Rebuilt):
        target = what.recipe.target
        return what.options, target if isinstance(target, type) else object
    if _is_supervisor(what):
        return {name: getattr(what, name) for name in ("restart", "shutdown", "significant")}, object
    if isinstance(what, Startable):
        return vars(what), type(what)
    return {}, what if isinstance(what, type) else object


def given_name(what: Any) -> Any:
    """The name that it was given; None: nobody has named it."""
    if _is_supervisor(what):
        return what.name
    return vars(what).get("name") if isinstance(what, Startable) else None


def default_id(recipe: Any) -> Any:
    """The id of a child that nobody has named; a supervisor always is."""
    declared = getattr(recipe.target, "id", None)
    if isinstance(recipe.target, type) and isinstance(declared, str):
        return declared
    if recipe.kind == "command":
        return recipe.kwargs.get("name") or recipe.args[0].rpartition("/")[2]
    if isinstance(recipe.target, type):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", recipe.name).lower()
    return recipe.name.strip("<>")


def _is_supervisor(what: Any) -> TypeGuard[Supervisor]:
    from suitkaise.specs.supervisor import Supervisor  # it is made of children, which are made of this

    return isinstance(what, Supervisor)

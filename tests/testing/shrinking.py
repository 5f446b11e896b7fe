"""Makes a schedule that breaks a rule as small as possible, and writes it as code."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.exits import Crashed, ExitReason
from suitkaise.specs import LIMITS, Child
from suitkaise.specs.options import Backoff
from suitkaise.testing import Behaviour
from tests.testing.observed import Order
from tests.testing.schedules import GOOD, Schedule, play

__all__ = ["as_code", "fault_of", "shrunk"]

TRIES = 3_000


def fault_of(schedule: Schedule) -> str | None:
    """Play a schedule; return its fault, or None."""
    try:
        play(schedule)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrunk(schedule: Schedule, fault: Callable[[Schedule], str | None] = fault_of, tries: int = TRIES) -> Schedule:
    """Return the smallest schedule found that has a fault of the same kind."""
    kind = _kind(fault(schedule))
    assert kind is not None, "nothing is wrong with this schedule"
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(schedule):
            tries -= 1
            if tries < 0:
                return schedule
            if _kind(fault(candidate)) == kind:
                schedule, smaller = candidate, True
                break
    return schedule


def _kind(fault: str | None) -> str | None:
    """Return a fault without its names and numbers."""
    if fault is None:
        return None
    return re.sub(r"'[^']*'|\[.*?\]|\{.*?\}|[\w/]*/\w+:?|\b[a-exy]\b|top:|[\d.]+", "", fault)[:60]


# ---------------------------------------------------------------- candidates, the boldest first
def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    if schedule.lag is not None:
        yield replace(schedule, lag=None)
    for size in (8, 4, 2, 1):
        orders = schedule.orders
        for start in range(0, len(orders), size):
            if size == 1 or len(orders) > size:
                yield replace(schedule, orders=orders[:start] + orders[start + size :])
    for tree in _smaller_trees(schedule.tree):
        yield replace(schedule, tree=tree)
    behaviours = dict(schedule.behaviours)
    for size in (16, 4, 1):
        keys = list(behaviours)
        for start in range(0, len(keys), size):
            if size == 1 or len(keys) > size:
                gone = set(keys[start : start + size])
                yield replace(schedule, behaviours={key: behaviours[key] for key in keys if key not in gone})
    for key, behaviour in behaviours.items():
        for field in dataclasses.fields(Behaviour):
            if getattr(behaviour, field.name) != getattr(GOOD, field.name):
                changed = replace(behaviour, **{field.name: getattr(GOOD, field.name)})
                yield replace(schedule, behaviours={**behaviours, key: changed})
    for number, order in enumerate(orders := schedule.orders):
        if isinstance(order.argument, Child):
            for child in _simpler_children(order.argument):
                simpler = replace(order, argument=child)
                yield replace(schedule, orders=(*orders[:number], simpler, *orders[number + 1 :]))


def _smaller_trees(tree: Supervisor) -> Iterator[Supervisor]:
    """Yield the tree without one child, with a simpler child, or without one option."""
    if isinstance(tree, DynamicSupervisor):
        if tree.max_children is not None:
            yield tree.replace(max_children=None)
        return
    children = tree.children
    for number in range(len(children)):
        yield tree.replace(children=children[:number] + children[number + 1 :])
    plain = {"strategy": "one_for_one", "max_restarts": math.inf, "max_seconds": 5.0, "auto_shutdown": "never"}
    for name, value in plain.items():
        insignificant = not any(child.significant for child in children)
        if getattr(tree, name) != value and (name != "auto_shutdown" or insignificant):
            yield tree.replace(**{name: value})
    for number, child in enumerate(children):
        for simpler in _simpler_children(child):
            yield tree.replace(children=(*children[:number], simpler, *children[number + 1 :]))


def _simpler_children(child: Child) -> Iterator[Child]:
    if isinstance(child.what, Supervisor):
        for tree in _smaller_trees(child.what):
            yield Child(
                tree, id=child.id, restart=child.restart, shutdown=child.shutdown, significant=child.significant
            )
        if child.shutdown != "infinity":
            yield child.replace(shutdown="infinity")
    else:
        for limit in LIMITS:
            if getattr(child, limit) is not None:
                yield child.replace(**{limit: None})
        if child.backoff is not None:
            yield child.replace(backoff=None)
        if child.max_restarts is not None:
            yield child.replace(max_restarts=None, max_seconds=60.0)
        if child.shutdown != 5.0:
            yield child.replace(shutdown=5.0)
    if child.significant:
        yield child.replace(significant=False)
    elif child.restart != "permanent":
        yield child.replace(restart="permanent")


# ---------------------------------------------------------------- code
def as_code(schedule: Schedule) -> str:
    """Return Python code that makes this schedule and plays it."""
    lines = ["play(Schedule(", f"    {_tree(schedule.tree)},", "    behaviours={"]
    lines += [f"        {key!r}: {_behaviour(behaviour)}," for key, behaviour in schedule.behaviours.items()]
    lines += ["    },", "    orders=("]
    lines += [f"        {_order(order)}," for order in schedule.orders]
    lines += ["    ),", f"    lag={schedule.lag},", "), print)"]
    return "\n".join(lines)


def _call(name: str, *parts: str, **options: Any) -> str:
    written = [*parts, *(f"{key}={_value(value)}" for key, value in options.items())]
    return f"{name}({', '.join(written)})"


def _value(value: Any) -> str:
    if value == math.inf:
        return "math.inf"
    if isinstance(value, Crashed):
        return f"Crashed({value.phase!r}, {value.error!r})"
    if isinstance(value, ExitReason | Backoff):
        fields = dataclasses.fields(value)
        return _call(type(value).__name__, *(_value(getattr(value, field.name)) for field in fields if field.repr))
    return repr(value)


def _differing(what: Any, **defaults: Any) -> dict[str, Any]:
    return {name: getattr(what, name) for name, value in defaults.items() if getattr(what, name) != value}


def _tree(tree: Supervisor) -> str:
    options = _differing(tree, max_restarts=3, max_seconds=5.0)
    if isinstance(tree, DynamicSupervisor):
        return _call("DynamicSupervisor", repr(tree.name), **_differing(tree, max_children=None), **options)
    options |= _differing(tree, strategy="one_for_one", auto_shutdown="never")
    return _call("Supervisor", repr(tree.name), *map(_child, tree.children), **options)


def _child(child: Child) -> str:
    common = {"restart": "permanent", "significant": False}
    if isinstance(child.what, Supervisor):
        return _call("Child", _tree(child.what), id=child.id, **_differing(child, **common, shutdown="infinity"))
    rest: dict[str, Any] = {"shutdown": 5.0, "backoff": None, "max_restarts": None, "max_seconds": 60.0}
    return _call("Child", "Work", id=child.id, **_differing(child, **common, **rest, **dict.fromkeys(LIMITS)))


def _behaviour(behaviour: Behaviour) -> str:
    return _call("Behaviour", **_differing(behaviour, **{one.name: getattr(GOOD, one.name) for one in _FIELDS}))


_FIELDS = dataclasses.fields(Behaviour)


def _order(order: Order) -> str:
    argument = _child(order.argument) if isinstance(order.argument, Child) else repr(order.argument)
    parts = [repr(order.at), repr(order.path), repr(order.what)]
    return _call("Order", *parts, *([] if order.argument is None else [argument]))

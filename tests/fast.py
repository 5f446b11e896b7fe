"""Find the fast tests: those that start no process. The conftest marks them, so there is no list to maintain.

A test counts as one that starts a process if its code names something in `STARTS_PROCESSES`, or if a fixture, a
helper or a class of `tests` that it names does so. The
compiled code is searched, not run. The
conftest fails a test that is marked `fast` and starts a process after all.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

__all__ = ["is_fast"]

FOLDERS_WITH_PROCESSES = ("end_to_end", "chaos")
MARKS_OF_LONG_TESTS = ("slow", "chaos", "benchmark", "ray")
STARTS_PROCESSES = frozenset(
    {
        *("subprocess", "multiprocessing", "fork", "posix_spawn", "system", "execv", "execve"),
        *("get_context", "ProcessPoolExecutor", "create_subprocess_exec", "create_subprocess_shell"),
        *("run_program", "start_program", "pytester", "start_async", "DocTestRunner"),
        *("CrossProcessing", "skthreading", "skglobals"),
        *("KeeperClient", "ProcessEngine", "launched_early", "start_keeper", "_launch"),
        *("ProcessPool", "ThreadPool", "create_pool"),
    }
)
STARTS_A_RUNTIME = ({"Supervisor", "start"}, {"Supervisor", "run"}, {"sktree", "connect"})  # in one function


def is_fast(item: pytest.Item) -> bool:
    """Return whether the test starts no process and has no mark of a long test."""
    if any(part in FOLDERS_WITH_PROCESSES for part in item.path.parts):
        return False
    if any(item.get_closest_marker(mark) for mark in MARKS_OF_LONG_TESTS):
        return False
    if STARTS_PROCESSES.intersection(getattr(item, "fixturenames", ())):
        return False
    info = getattr(item, "_fixtureinfo", None)
    fixtures = [definition.func for found in info.name2fixturedefs.values() for definition in found] if info else []
    seen: set[int] = set()
    if any(_starts_processes(code, seen) for code in (getattr(item, "obj", None), *fixtures)):
        return False
    _others.update(seen)
    return True


_starters: set[int] = set()
"""The ids of functions and classes that start a process; they live as long as the modules of the tests."""

_others: set[int] = set()
"""The ids of those that do not."""


def _starts_processes(thing: Any, seen: set[int]) -> bool:
    thing = getattr(thing, "__wrapped__", thing)  # below decorators
    thing = getattr(thing, "__func__", thing)
    if id(thing) in _starters:
        return True
    if id(thing) in seen or id(thing) in _others or not str(getattr(thing, "__module__", "")).startswith("tests"):
        return False
    seen.add(id(thing))
    if isinstance(thing, type):
        starts = bool(STARTS_PROCESSES.intersection(base.__name__ for base in thing.__mro__)) or any(
            _starts_processes(part, seen) for base in thing.__mro__ for part in vars(base).values()
        )
    elif isinstance(thing, FunctionType):
        names = set(_names(thing.__code__))
        simulated = "Simulation" in thing.__globals__
        starts = (
            bool(names & STARTS_PROCESSES)
            or (not simulated and any(names >= together for together in STARTS_A_RUNTIME))
            or any(_starts_processes(thing.__globals__.get(name), seen) for name in names)
        )
    else:
        return False
    if starts:
        _starters.add(id(thing))
    return starts


def _names(code: CodeType) -> Iterator[str]:
    """All names of globals and attributes in that code and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)

"""What a process inherits from the program that starts it: environment variables, resource limits and umask.

The program itself forks no worker, so a worker would inherit what the program had when its keeper was started.
Instead, each start carries what has changed since then; mostly that is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeAlias

from suitkaise.platform.limits import resource
from suitkaise.platform.marks import RLIMIT_LOCKS

__all__ = ["Inheritance", "User", "apply", "changes", "inheritance", "user"]

Inheritance: TypeAlias = dict[bytes | int, bytes | int | tuple[int, int] | None]
"""Variables by their names, limits by the numbers of their resources, and the umask (key -1); None: not set."""

User: TypeAlias = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, ...]]
"""The user ids (real, effective, saved), the group ids, and the other groups."""

_UMASK = -1
_LIMITS = [number for number in range(16) if number != RLIMIT_LOCKS]


def inheritance() -> Inheritance:
    """Return what a process would inherit if this process forked it now."""
    inherited: Inheritance = {number: resource.getrlimit(number) for number in _LIMITS}
    inherited[_UMASK] = _umask()
    inherited.update(os.environb.items())
    return inherited


def changes(before: Inheritance, variables: Mapping[str, str]) -> Inheritance:
    """Return what has changed since `before`, and additional environment variables."""
    now = inheritance()
    for name, value in variables.items():
        now[os.fsencode(name)] = os.fsencode(value)
    if now == before:
        return {}
    return {key: now.get(key) for key in now.keys() | before.keys() if now.get(key) != before.get(key)}


_applied: Inheritance = {}
_replaced: Inheritance = {}


def apply(changed: Inheritance) -> None:
    """Set what has changed in this process; undo what an earlier call has set and this one does not.

    A spare has stood by with what was right at that time; what its modules have set since then stays.
    """
    for key in _applied.keys() - changed.keys():
        _set(key, _replaced[key])
    for key, value in changed.items():
        if key not in _applied:
            _replaced[key] = _get(key)
        if key not in _applied or _applied[key] != value:
            _set(key, value)
    _applied.clear()
    _applied.update(changed)


def _get(key: bytes | int) -> bytes | int | tuple[int, int] | None:
    if isinstance(key, bytes):
        return os.environb.get(key)
    return _umask() if key == _UMASK else resource.getrlimit(key)


def _set(key: bytes | int, value: bytes | int | tuple[int, int] | None) -> None:
    match key, value:
        case bytes(), bytes():
            os.environb[key] = value
        case bytes(), None:
            os.environb.pop(key, None)
        case int(), int():
            os.umask(value)
        case int(), tuple():
            resource.setrlimit(key, value)


def _umask() -> int | None:
    """Return the umask: `os.umask` could only change it, for all threads. None on kernels older than 4.7."""
    with open("/proc/self/status", "rb") as file:
        found = file.read(200).partition(b"\nUmask:\t")[2]
    return int(found.partition(b"\n")[0], 8) if found else None


def user() -> User:
    """Return the user and the groups that this process has, which others cannot be given afterwards."""
    return os.getresuid(), os.getresgid(), tuple(os.getgroups())

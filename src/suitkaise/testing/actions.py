"""What tests do to workers that run: wait for something, kill a worker, let one hang, kill many at random."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from suitkaise.errors import ChildNotFound, SuitkaiseError
from suitkaise.messaging.refs import WorkerRef
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.specs.options import is_number, is_whole
from suitkaise.specs.signatures import is_async_function
from suitkaise.status import ENDED, TreeStatus

__all__ = ["Kill", "chaos", "hang", "kill", "wait_until"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], timeout: float = 10.0, *, what: str = "") -> T:
    """Return the first true value of `condition()`.

    Args:
        condition: called again and again, with pauses of 1 to 50 ms.
        timeout: seconds after which to give up.
        what: the condition in words, for the error.

    Raises:
        AssertionError: the condition is not true in time; the error shows its last value.
        TypeError: the timeout is no number; or the condition is no function; or it is async or returns a coroutine,
            as `lambda: ready()` of an async function does: its calls are not awaited, and a coroutine is true.

    >>> numbers = iter(range(3))
    >>> wait_until(lambda: next(numbers) == 2)
    True
    """
    if is_async_function(condition):
        raise TypeError(f"wait_until: condition is called and not awaited, so {condition!r} must not be async")
    if not callable(condition):
        raise TypeError(f"wait_until: condition must be a function, as lambda: ..., not {condition!r}")
    _check_timeout("wait_until", timeout)
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not (value := condition()):
        if time.monotonic() >= deadline:
            wanted = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{wanted} is not true after {timeout:g} s; the last value is {value!r}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"wait_until: condition is called and not awaited, so {condition!r} must not return {value!r}")
    return value


def kill(ref: WorkerRef, timeout: float = 10.0) -> None:
    """Kill the process of a worker by SIGKILL; return when a new incarnation runs, or when none will come.

    Args:
        ref: a process worker or a command.
        timeout: seconds to wait for the supervisor.

    Raises:
        ValueError: it is a thread or a supervisor, which have no process of their own.
        TypeError: it is no ref, or the timeout is no number; nothing is killed.
        AssertionError: the supervisor has done nothing in time.
    """
    _check_timeout("kill", timeout)
    pid, before = _process_of(ref, "kill")
    with contextlib.suppress(ProcessLookupError):  # it has ended just now
        os.kill(pid, signal.SIGKILL)

    def decided() -> bool:
        try:
            status, _, incarnation, _ = ref._info()
        except ChildNotFound:  # a temporary child
            return True
        return status in ENDED or (incarnation > before and status == "running")

    wait_until(decided, timeout, what=f"the supervisor of {ref.path!r} has dealt with the kill: that")


@contextlib.contextmanager
def hang(ref: WorkerRef) -> Iterator[None]:
    """Hold the process of a worker by SIGSTOP during the block: it neither works, answers nor stops.

    Raises:
        ValueError: it is a thread or a supervisor, which have no process of their own; or the process has ended.
        TypeError: it is no ref.
    """
    pid, _ = _process_of(ref, "hang")
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        raise ValueError(f"the process of {ref.path!r} (pid {pid}) has ended just now") from None
    try:
        wait_until(lambda: _is_held(pid), what=f"{ref.path!r} is stopped: that")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed as hung
            os.kill(pid, signal.SIGCONT)


def _is_held(pid: int) -> bool:
    """Return whether SIGSTOP has reached all threads of a process, or the process has ended."""
    try:
        threads = [Path(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task")]
        return all(thread.read_text().rpartition(")")[2].split()[0] in "TtXZ" for thread in threads)
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended, or all of them
        return not os.path.exists(f"/proc/{pid}")


def _check_timeout(what: str, timeout: float) -> None:
    if not is_number(timeout):
        raise TypeError(f"{what}: timeout must be seconds, not {timeout!r}")


def _process_of(ref: WorkerRef, what: str) -> tuple[int, int]:
    """Return the pid of a worker, and the number of the incarnation that has it."""
    if not isinstance(ref, WorkerRef):
        raise TypeError(f"{what} takes the ref of a worker, such as running[path], not {ref!r}")
    status, pid, incarnation, kind = ref._info()
    if kind not in ("process", "command"):
        raise ValueError(f"{ref.path!r} is a {kind}, which has no process of its own")
    if pid is None:
        raise ValueError(f"{ref.path!r} is {status}; there is no process")
    return pid, incarnation


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill of `chaos`: the worker, its pid, and the seconds since the beginning."""

    path: str
    pid: int
    at: float


def chaos(
    running: RunningTree,
    *,
    seed: int,
    kills: int = 10,
    pause: tuple[float, float] = (0.05, 0.3),
    spare: tuple[str, ...] = (),
) -> list[Kill]:
    """Kill random process workers of a tree by SIGKILL, one after the other; return what was killed.

    Return when each killed worker runs again, or no incarnation of it will come.

    The seed decides which workers are killed and when, so a run can be repeated as far as the machine allows.

    Args:
        running: the tree. Its `max_restarts` must allow that many.
        seed: of the random choices.
        kills: how many.
        pause: the least and the most seconds between two kills.
        spare: paths of workers and supervisors below which nothing is killed, relative to the tree.

    Raises:
        ChildNotFound: there is nothing at a path of `spare`; nothing is killed.
        ValueError, TypeError: another argument is wrong.
        AssertionError: the tree has ended, or for ten seconds no process was alive, or a worker did not come back.
    """
    if not isinstance(running, RunningTree):
        raise TypeError(f"chaos takes a running tree, not {running!r}")
    if isinstance(spare, str):  # type: ignore[unreachable]
        raise TypeError(f"chaos: spare must be several paths, not {spare!r}; use ({spare!r},)")
    if not is_whole(kills, 0):
        raise ValueError(f"chaos: kills must be a whole number >= 0, not {kills!r}")
    match pause:
        case (least, most) if is_number(least) and is_number(most) and 0 <= least <= most < math.inf:
            pass
        case _:
            takes = "the least and the most seconds between two kills, as (0.05, 0.3)"
            raise ValueError(f"chaos: pause must be {takes}, not {pause!r}")
    choose = random.Random(seed)
    spared = tuple(running[path].path for path in spare)
    done: list[Kill] = []
    began = time.monotonic()
    for _ in range(kills):
        time.sleep(choose.uniform(*pause))
        dead = {kill.pid for kill in done}  # the program may not have noticed yet
        victims = wait_until(lambda dead=dead: _victims(running, spared, dead), what="a process is alive: that")  # type: ignore[misc]
        path, pid = choose.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            done.append(Kill(path, pid, time.monotonic() - began))
    dead = {kill.pid for kill in done}
    wait_until(lambda: _is_back(running, dead), what="each killed worker runs again: that")
    return done


def _is_back(running: RunningTree, dead: set[int]) -> bool:
    """Return whether no process that was killed is taken for alive, and no worker is about to start."""
    return all(
        one.pid not in dead and (one.status == "running" or one.status in ENDED)
        for one in _all(_status_of(running))
        if one.kind in ("process", "command")
    )


def _status_of(running: RunningTree) -> TreeStatus:
    """Return the status of the tree. Raises AssertionError if it has ended."""
    try:
        root = running.status()
    except SuitkaiseError as error:
        raise AssertionError(f"{running.name!r} has ended: {error}") from error
    if root.status in ("stopped", "failed"):
        raise AssertionError(f"{running.name!r} has ended: {root.last_exit}")
    return root


def _victims(running: RunningTree, spared: tuple[str, ...], dead: set[int]) -> list[tuple[str, int]]:
    return [
        (one.path, one.pid)
        for one in _all(_status_of(running))
        if one.kind in ("process", "command")
        and one.pid is not None
        and one.pid not in dead
        and not any(f"{one.path}/".startswith(f"{path}/") for path in spared)
    ]


def _all(status: TreeStatus) -> Iterator[TreeStatus]:
    yield status
    for child in status.children:
        yield from _all(child)

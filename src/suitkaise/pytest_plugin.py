"""The pytest plugin: the fixture `tree`, which stops what a test has started and fails if something is left."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.runtime import Runtime
    from suitkaise.supervisor import Supervisor

__all__ = ["StartTree", "pytest_runtest_makereport", "tree"]

GRACE = 5.0
"""Seconds that processes, threads and descriptors have to go after the trees have stopped."""

StartTree: TypeAlias = "Callable[[Supervisor], RunningTree]"
"""The value of the fixture `tree`: starts a tree and returns it; the end of the test stops it."""


_has_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for the fixture whether the test, or its setup, has raised an error."""
    report = yield  # pytest puts the error of a `unittest.TestCase` into `call` meanwhile
    if call.when != "teardown":
        item.stash[_has_failed] = call.excinfo is not None
    return report


@pytest.fixture
def tree(request: pytest.FixtureRequest) -> Iterator[StartTree]:
    """Start trees in a test: `running = tree(Supervisor(...))`. They are stopped at its end, the newest first.

    The test fails if a process, a thread, or an open file or socket that has appeared during the test is there five
    seconds after that; or if it has begun to use the shared storage and has not called `sktree.disconnect()`. Of a test
    that has failed already, only the trees are stopped: pytest keeps its frames, and so all that they hold is still
    there. What belongs to another tree, as one of a fixture of the module, does not count; sockets and pipes cannot be
    told from those of such a tree. Nor do the processes that multiprocessing keeps for the whole program.
    """
    before = _Footprint()
    started: list[RunningTree] = []

    def start(supervisor: Supervisor) -> RunningTree:
        from suitkaise.runtime.running_tree import RunningTree
        from suitkaise.supervisor import Supervisor

        if isinstance(supervisor, RunningTree):
            started.append(supervisor)  # the test after this one finds its name free
            raise TypeError(
                f"the fixture starts trees itself: tree(Supervisor(...)) without .start(), not {supervisor!r}"
            )
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"the fixture takes a Supervisor, as tree(Supervisor(...)), not {supervisor!r}")
        started.append(supervisor.start())
        return started[-1]

    yield start
    with ExitStack() as stops:  # all of them, also if one raises an error
        for running in started:
            stops.callback(running.stop)
    started.clear()
    if request.node.stash.get(_has_failed, False):
        return
    left = before.left()
    if left:
        pytest.fail(f"left behind, {GRACE:g} s after the trees have stopped:\n  " + "\n  ".join(left), pytrace=False)


class _Footprint:
    """Everything that belongs to this program at one moment."""

    def __init__(self) -> None:
        self._runtime = _current()
        self._processes = set(_processes())
        self._threads = set(threading.enumerate())
        self._files = _open_files()

    def left(self) -> list[str]:
        """Return what has appeared since then and does not go."""
        gc.collect()  # an object in a reference cycle is garbage, not a leak
        deadline = time.monotonic() + GRACE
        while (new := self._new()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return new

    def _new(self) -> list[str]:
        kept, pipes = _of_multiprocessing()
        processes = {pid: name for pid, name in _processes().items() if pid not in self._processes | kept}
        threads = [one.name for one in threading.enumerate() if one not in self._threads]
        files = _open_files() - self._files - pipes
        runtime, users = _current(), []
        if runtime is not None:
            # What its keepers, threads and files are for is told by name, or was there before the test.
            for pid in _kept(runtime):
                processes.pop(pid, None)
            threads = [name for name in threads if not name.startswith(_names_of_threads())]
            files = Counter({file: count for file, count in files.items() if _is_users(file, runtime)})
            if runtime is not self._runtime:
                users = [f"the tree or pool {name!r}, which still runs" for name in _running_trees()]
                users = users or ["the shared storage; sktree.disconnect() at the end of the test ends it"]
        return [
            *users,
            *(f"process {pid}: {name}" for pid, name in processes.items()),
            *(f"thread {name}" for name in threads),
            *(f"file or socket {file}" + (f" ({count} times)" if count > 1 else "") for file, count in files.items()),
        ]


def _current() -> Runtime | None:
    """Return the runtime of this program, if there is one; import nothing for that."""
    module = sys.modules.get("suitkaise.runtime.runtime")
    return None if module is None else module.current()


def _of_multiprocessing() -> tuple[set[Any], Counter[str]]:
    """Return the processes that multiprocessing starts once and keeps until the program ends, and its pipes to them."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    pids = {getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)}
    pipes: Counter[str] = Counter()
    for pipe in (getattr(tracker, "_fd", None), getattr(server, "_forkserver_alive_fd", None)):
        with suppress(OSError):  # there is none, or it is closed at this moment
            pipes[os.readlink(f"/proc/self/fd/{pipe}")] += 1
    return pids, pipes


def _kept(runtime: Runtime) -> set[int]:
    """Return the processes that run for all trees of the program, and for those that run on."""
    from suitkaise.platform.processes import descendants

    keepers = {one.pid for engine in (runtime.processes, runtime.commands) for one in list(engine._keepers.values())}
    return keepers.union(*map(descendants, keepers))


def _running_trees() -> list[str]:
    from suitkaise.runtime.runtime import running_trees

    return list(running_trees())


def _names_of_threads() -> tuple[str, ...]:
    """Return how the names of such threads begin."""
    return ("suitkaise-", *(f"{tree}/" for tree in _running_trees()))


def _is_users(file: str, runtime: Runtime) -> bool:
    """Return whether none of them can have opened this; sockets and pipes tell nothing of the code that has."""
    own = (os.devnull, runtime.directory, runtime.storage.place or runtime.directory)
    return file.startswith("/") and not file.startswith(own)


def _processes() -> dict[int, str]:
    """Return the descendants of this process that are alive, with their names."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline()) or process.name()
    return found


def _open_files() -> Counter[str]:
    """Count what the descriptors of this process lead to."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that has listed the directory is closed
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found

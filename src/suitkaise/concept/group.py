"""A group of workers that are made by calls: what `CrossProcessing` and `skthreading` have in common.

The workers of a group are children of a supervisor like any other. The program that makes the first worker starts the
supervisor; in a worker, the group is the supervisor's ref. What the group knows after its end, it has kept.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import time
import warnings
import weakref
from collections.abc import Container
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from suitkaise.concept.declare import Call, caller_level, declared
from suitkaise.errors import AskTimeout, ChildAlreadyPresent, ChildAlreadyStarted, ChildNotFound, SuitkaiseError
from suitkaise.exits import Hung, Killed
from suitkaise.messaging.answer import Answer, checked_timeout
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.router import in_worker_process, router
from suitkaise.messaging.supervisor_ref import ChildLine, SupervisorRef
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.specs import SpecWarning
from suitkaise.status import ENDED, Status, TreeStatus
from suitkaise.workers.worker import Worker, current_worker

if TYPE_CHECKING:
    from suitkaise.runtime.running_tree import RunningTree

__all__ = ["WorkerGroup", "this_worker"]


def this_worker(function: str) -> Worker:
    """Return the worker that calls the public function of that name; raise RuntimeError outside of any."""
    worker = current_worker()
    if worker is None:
        raise RuntimeError(f"{function}() is for the code of a worker: its function, hooks and blocks; this is none")
    return worker


_Kept: TypeAlias = tuple[ChildLine, Answer[Any], Any]
"""What is known of a worker after the end of all: its line, its result, its statistics."""


class WorkerGroup:
    """Workers under one supervisor, by name.

    Args:
        name: the name of the supervisor; a number is added while a tree of that name runs.
        defaults: options of `Child` for workers that have none of their own.
    """

    _kind: ClassVar[Literal["process", "thread"]]
    _modules: ClassVar[tuple[str, ...]] = ()
    """What a worker's process would have to import, if it uses the group or has a setup."""
    _instead_in_workers: ClassVar[str]
    """What to do in a worker's process, which cannot own a group."""

    def __init__(self, name: str, **defaults: Any) -> None:
        self._name = name
        self._defaults = defaults
        self._path: str | None = None
        self._running: RunningTree | None = None  # of the program that owns the group
        self._pid = os.getpid()
        self._kept: dict[str, _Kept] = {}  # after the end
        self._kept_removed: dict[str, _Kept] = {}  # likewise, of temporary workers that had ended before
        self._lock = RLock()
        _groups.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path or self._name!r})"

    # ------------------------------------------------------------ the supervisor
    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the path of the supervisor: in a worker's process, the group is attached to the program's."""
        if self._is_up:
            return _group_at, (type(self), self._path)
        return partial(type(self), self._name, **self._defaults), ()

    @property
    def _is_attached(self) -> bool:
        return self._pid == -1

    @property
    def _is_up(self) -> bool:
        if self._is_attached:
            return True
        return self._running is not None and self._pid == os.getpid() and not self._running._ended.is_set()

    def _supervisor(self) -> SupervisorRef:
        """Return the group's supervisor; start it, if it does not run."""
        own = current_path()
        if self._path is not None and own is not None and own.startswith(f"{self._path}/"):
            return SupervisorRef(self._path)  # `shutdown` has the lock while it waits for this worker
        with self._lock:
            if not self._is_up:
                self._start()
            assert self._path is not None
            return SupervisorRef(self._path)

    def _start(self) -> None:
        if in_worker_process():
            raise SuitkaiseError(
                f"create_{self._kind}() in the process of the worker {current_path()!r}: {self._instead_in_workers}. "
                "If this happened while a module was imported, move the call into a function that the main program "
                "calls, or under `if __name__ == '__main__':`"
            )
        from suitkaise.engines.keeper_process import launched_early

        with launched_early(self._kind == "process"):
            from suitkaise.concept import at_exit  # with the runtime, which workers do not load

            if self._running is not None and self._pid == os.getpid():
                self._running.stop()  # its supervisor has failed
            self._running = at_exit.start(self._name, self)
        self._path, self._pid = self._running.path, os.getpid()
        _owned[self._path] = self

    # ------------------------------------------------------------ workers
    def _create(self, call: Call) -> WorkerRef:
        """Start the worker that a call declares; number its name, if that is taken."""
        child, named = declared(call, {"restart": "transient", **self._defaults})
        supervisor = self._supervisor()
        taken: set[str] = set()
        wanted, number = child.id, 1
        while True:
            try:
                return supervisor.start_child(child)
            except (ChildAlreadyStarted, ChildAlreadyPresent):
                taken |= {child.id, *(line.id for line in supervisor.which_children())}
            while child.id in taken:
                number += 1
                child = child.renamed(f"{wanted}-{number}")
            if named:
                warnings.warn(
                    f"{call.function}: the name {wanted!r} is taken, so this {self._kind} is called {child.id!r}",
                    SpecWarning,
                    stacklevel=caller_level(),
                )

    def _lines(self) -> list[ChildLine]:
        """Return a line about each worker, in the order in which they were made."""
        if self._is_up:
            assert self._path is not None
            return SupervisorRef(self._path).which_children()
        return [line for line, *_ in self._kept.values()]

    def _line(self, worker: str | WorkerRef) -> ChildLine:
        """Return the line about one worker. Raises ChildNotFound."""
        lines = {line.id: line for line in self._lines()}
        name = worker.name if isinstance(worker, WorkerRef) else worker
        if isinstance(worker, WorkerRef):  # one of another tree may have the same name
            own = lines[name].ref.path if name in lines else f"{self._path}/{name}"
            if worker.path != own:
                raise ChildNotFound(
                    f"{worker.path!r} is no {self._kind} of {self._path or self._name!r}", path=worker.path
                )
        if name in lines:
            return lines[name]
        if self._is_up:
            with contextlib.suppress(ChildNotFound):
                return self._removed_line(str(name))
        elif name in self._kept_removed:
            return self._kept_removed[name][0]
        near = difflib.get_close_matches(str(name), lines, 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(lines) or 'none'}"
        raise ChildNotFound(f"there is no {self._kind} {name!r}; {hint}", path=f"{self._path or self._name}/{name}")

    def _removed_line(self, name: str) -> ChildLine:
        """Return the line about a temporary worker that has ended, which is remembered for a while."""
        ref = WorkerRef(f"{self._path}/{name}")
        ask = router().request
        status, _, _, kind = ask(RequestKind.INFO, ref.path).get()
        reason = ask(RequestKind.JOIN, ref.path).get() if Status(status) in ENDED else None
        return ChildLine(name, kind, Status(status), ref, 0, reason)

    def _live_ref(self, worker: str | WorkerRef) -> WorkerRef:
        """Return the ref of one worker, to give it an order. Raises ChildNotFound, or RuntimeError after the end."""
        ref = self._line(worker).ref
        if not self._is_up:
            raise RuntimeError(f"{ref.name!r} has ended with all others: shutdown() was called")
        return ref

    # ------------------------------------------------------------ what the faces offer under names of their own
    def status(self) -> TreeStatus:
        """Return the status of the supervisor and of all that it has started; `print` shows it as a tree."""
        path = self._path or self._name
        supervisor = SupervisorRef(path)
        mine = supervisor.status if self._is_up else Status.STOPPED if self._kept else Status.CREATED
        below = tuple(map(_status_of_line, self._lines())) if self._is_up else tuple(map(_final_status, self._lines()))
        return TreeStatus(path, "supervisor", mine, supervisor.pid if self._is_up else None, 0, None, below)

    def _status_of(self, worker: str | WorkerRef) -> Status:
        return _way_of_end(self._line(worker))

    def _statuses(self) -> dict[str, Status]:
        return {line.id: _way_of_end(line) for line in self._lines()}

    def _rejoin(self, worker: str | WorkerRef, timeout: float | None) -> None:
        checked_timeout(timeout)
        ref = self._live_ref(worker)
        own = current_worker()
        if own is not None and current_path() == ref.path:
            own.rejoin()
            return
        with contextlib.suppress(ChildNotFound):  # a temporary one that has ended
            ref.rejoin()
        ref.join(timeout)

    def _result(self, worker: str | WorkerRef, timeout: float | None) -> Any:
        checked_timeout(timeout)
        line = self._line(worker)
        return line.ref.result(timeout) if self._is_up else self._after_the_end(line)[1].get(timeout)

    def _after_the_end(self, line: ChildLine) -> _Kept:
        return self._kept[line.id] if line.id in self._kept else self._kept_removed[line.id]

    def _stats(self, worker: str | WorkerRef) -> dict[str, Any]:
        line = self._line(worker)
        path = line.ref.path
        stats = router().request(RequestKind.STATS, path).get() if self._is_up else self._after_the_end(line)[2]
        pid, _, uptime, view = stats
        loops, total = (0, 0.0) if view is None else (view.loops, view.total_loop_time)
        return {
            "name": line.id, "kind": line.kind, "status": _way_of_end(line), "pid": pid, "restarts": line.restarts,
            "uptime": uptime, "loops": loops, "total_loop_time": total,
            "mean_loop_time": total / loops if loops else 0.0,
            "last_loop_time": 0.0 if view is None else view.last_loop_time,
            "messages": 0 if view is None else view.messages,
            "memory": None if pid is None or line.kind == "thread" else _memory_of(pid),
            "last_exit": line.last_exit,
        }  # fmt: skip

    def _join_all(self, timeout: float | None) -> dict[str, Status]:
        seconds = checked_timeout(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        known: dict[str, ChildLine] = {}
        while True:
            lines = {line.id: line for line in self._lines()}
            known |= lines
            alive = [one.ref for one in lines.values() if one.status not in ENDED and one.ref.path != current_path()]
            if not alive:
                for name in known.keys() - lines.keys():  # temporary ones, after their end
                    with contextlib.suppress(ChildNotFound):
                        known[name] = self._removed_line(name)
                return {name: _way_of_end(line) for name, line in known.items()}
            for ref in alive:
                try:
                    ref.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
                except AskTimeout:
                    names = ", ".join(repr(line.id) for line in self._lines() if line.status not in ENDED)
                    raise AskTimeout(f"after {timeout} s there still run: {names}", path=self._path) from None

    # ------------------------------------------------------------ the end
    def shutdown(self, timeout: float | None = None) -> None:
        """Ask all to finish, and wait until they have. Their statuses and results stay known.

        Whatever is created after that starts anew.

        Args:
            timeout: seconds to wait (default None: no limit).

        Raises:
            AskTimeout: not all have ended in time; they go on to finish.
            RuntimeError: called in a worker of another process.
            TypeError: the timeout is no number; nothing is shut down.
        """
        checked_timeout(timeout)
        if self._is_attached:
            raise RuntimeError(f"only the main program can shut {self._path!r} down; rejoin() ends one {self._kind}")
        with self._lock:
            running = self._running
            if running is None or self._pid != os.getpid():
                return
            ask = router().request  # the registry that knows these workers
            kept = self._keep_removed(running)
            results = {line.id: ask(RequestKind.RESULT, line.ref.path) for line in running.which_children()}
            ends: dict[str, tuple[ChildLine, Any]] = {}
            for name, result in results.items():  # at its own end: only the last 1,000 that have ended are remembered
                result.when_done(partial(self._note_end, ends, name))
            running.stop(timeout)
            self._keep_removed(running, but=(*kept, *results))  # those that were just being removed
            lines = {line.id: line for line in running.which_children()}
            for name, result in results.items():
                gone, stats = ends[name]
                self._kept[name] = lines.get(name, gone), result, stats
            self._running = None
        from suitkaise.concept import at_exit

        at_exit.forget(self)

    def _note_end(self, ends: dict[str, tuple[ChildLine, Any]], name: str, done: Any) -> None:
        """Note the line and the statistics of a worker whose last end is just being told."""
        line = self._removed_line(name)
        ends[name] = line, router().request(RequestKind.STATS, line.ref.path).get()

    def _keep_removed(self, running: RunningTree, but: Container[str] = ()) -> list[str]:
        """Keep what is known of the temporary workers that have ended; return their names."""
        ask = router().request
        names = [path.rpartition("/")[2] for path in running._runtime.registry.removed_below(running.path)]
        names = [name for name in names if name not in but]
        for name in names:
            gone = self._removed_line(name)
            path = gone.ref.path
            self._kept_removed[name] = gone, ask(RequestKind.RESULT, path), ask(RequestKind.STATS, path).get()
        return names

    def _kill(self, why: str) -> None:
        """Kill all, now; only the program that has started the supervisor does that."""
        if self._running is not None:
            self._running._root.kill(why)


_owned: weakref.WeakValueDictionary[str, WorkerGroup] = weakref.WeakValueDictionary()
"""The groups whose supervisor this program has started, by its path."""


_groups: weakref.WeakSet[WorkerGroup] = weakref.WeakSet()
"""All groups of this process."""


def _reset_after_fork() -> None:
    for group in list(_groups):
        group._lock = RLock()  # another thread of the parent may have had it


after_fork_in_child(_reset_after_fork)


def _group_at(cls: type[WorkerGroup], path: str) -> WorkerGroup:
    """Return the group whose supervisor runs at `path`: the program's own, or in another process one attached to it."""
    own = _owned.get(path)
    if own is not None and own._is_up:
        return own
    group = cls(path)
    group._path, group._pid = path, -1
    return group


def _way_of_end(line: ChildLine) -> Status:
    """Return the status with the way of its end: an ordered end is `finished`, or `killed`."""
    if line.status not in (Status.STOPPED, Status.CRASHED) or line.last_exit is None:
        return line.status
    if isinstance(line.last_exit, Killed | Hung):
        return Status.KILLED if isinstance(line.last_exit, Killed) else Status.HUNG
    return Status.FINISHED if line.last_exit.clean else Status.CRASHED


def _status_of_line(line: ChildLine) -> TreeStatus:
    """Return the status of one child, and of all below it."""
    below: tuple[TreeStatus, ...] = ()
    if isinstance(line.ref, SupervisorRef) and line.status not in ENDED:
        below = tuple(map(_status_of_line, line.ref.which_children()))
    return replace(_final_status(line), pid=line.ref.pid, children=below)


def _final_status(line: ChildLine) -> TreeStatus:
    """Return the status of one child that has ended."""
    status = _way_of_end(line)
    return TreeStatus(line.ref.path, line.kind, status, None, line.restarts, line.last_exit, (), line.abandoned)


def _memory_of(pid: int) -> int | None:
    """Return the bytes of memory that a process uses now (its resident set); None if it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None

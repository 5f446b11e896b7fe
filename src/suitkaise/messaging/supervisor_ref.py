"""Administration of a running supervisor: the same calls in the program that owns it and in its workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NoReturn

from suitkaise.errors import ChildNotFound, DeadlockError, SpecError, no_attribute
from suitkaise.exits import ExitReason
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.patterns import is_pattern
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.messaging.refs import OTHER_NAMES, WorkerRef, refuse_while_starting
from suitkaise.messaging.router import router
from suitkaise.records import dataclass
from suitkaise.specs import Child
from suitkaise.specs.options import checked_drain
from suitkaise.status import Counts, Status

__all__ = ["Administration", "ChildLine", "SupervisorRef", "ref_to", "whereis", "whereis_all"]


@dataclass(frozen=True, slots=True)
class ChildLine:
    """One child as `which_children` lists it (rule 20).

    Args:
        id: its name in its supervisor.
        kind: `"supervisor"`, `"process"`, `"thread"` or `"command"`.
        status: what it is doing.
        ref: the ref of the child.
        restarts: how often it was started again, also on request.
        last_exit: how its last incarnation has ended; None before the first end.
        abandoned: how many abandoned threads of it still run.
    """

    id: str
    kind: str
    status: Status
    ref: WorkerRef
    restarts: int
    last_exit: ExitReason | None
    abandoned: int = 0


class Administration(ABC):
    """The requests that a running supervisor serves. Paths are relative to it: `terminate_child("counters/count-a")`.

    A child may be named by its ref, too: `terminate_child(ref)`.

    Requests that change children are served one at a time, in the order of their arrival; the others at once.
    """

    __slots__ = ()
    path: str

    @abstractmethod
    def _administer(self, under: str, action: AdminAction, argument: Any) -> Answer[Any]:
        """Pass a request on to the supervisor at the path `under` below this one."""

    def start_child(self, what: Any, *, under: str | WorkerRef = "") -> WorkerRef:
        """Add a child (a worker, a worker class, a `Supervisor` or a `Child`), start it, and return its ref.

        Args:
            what: the declaration.
            under: the path, or the ref, of the supervisor below this one that gets the child.

        Raises:
            SpecError, NotSerializable: the declaration is wrong; nothing is stored (rule 7).
            ChildAlreadyStarted, ChildAlreadyPresent: the child's id is taken (rules 8 and 9).
            MaxChildren: a dynamic supervisor has as many children as it may (rule 53).
            ChildStartFailed: the start failed; the declaration is discarded (rule 10).
            ChildNotFound: there is no running supervisor at `under`.
            WorkerDead: the supervisor is stopping, or has ended.
            DeadlockError: a worker asks a supervisor above it while it is being started.
        """
        child = what if isinstance(what, Child) else Child(what)
        if child.copies != 1:
            raise SpecError(f"start_child adds one child; {child.id!r} has copies={child.copies}: add them one by one")
        ref: WorkerRef = self._change(self._path_to(under), AdminAction.START_CHILD, child)
        return ref

    def terminate_child(self, id: str | WorkerRef, *, drain: float | None = None) -> None:
        """Stop a child and keep it stopped (rules 14-16).

        Args:
            id: the child's id, its path below this supervisor, or its ref.
            drain: seconds for which it handles messages first, if at least a second of its shutdown time is left then,
                or half of that time (default None: as its `Child` says; 0: they are dropped at once; rule 72). For a
                supervisor: the seconds of each worker below.

        Raises:
            SpecError: `drain` is no such time.
            ChildNotFound: there is no such child.
            WorkerDead: the supervisor is stopping, and so its children, or has ended.
            DeadlockError: the child is the calling worker, or above it; call `self.rejoin()` instead.
        """
        self._change_child(AdminAction.TERMINATE_CHILD, id, checked_drain(drain))

    def kill_child(self, id: str | WorkerRef) -> None:
        """Kill a child and keep it stopped: an order, unlike `ref.kill()`, so it is not restarted (rule 79).

        Raises:
            ChildNotFound: there is no such child.
            WorkerDead: the supervisor is stopping, or has ended.
            DeadlockError: the child is the calling worker, or above it.
        """
        self._change_child(AdminAction.KILL_CHILD, id)

    def restart_child(self, id: str | WorkerRef) -> WorkerRef:
        """Start a stopped child again (rules 17 and 18).

        Raises:
            ChildNotFound, ChildRunning, ChildRestarting: there is no stopped child of that id.
            ChildStartFailed: the start failed; the child stays stopped.
            WorkerDead: the supervisor is stopping, or has ended.
        """
        ref: WorkerRef = self._change_child(AdminAction.RESTART_CHILD, id)
        return ref

    def delete_child(self, id: str | WorkerRef) -> None:
        """Forget a stopped child (rule 19).

        Raises:
            ChildNotFound, ChildRunning, ChildRestarting: there is no stopped child of that id.
            WorkerDead: the supervisor is stopping, or has ended.
        """
        self._change_child(AdminAction.DELETE_CHILD, id)

    def suspend(self, path: str | WorkerRef) -> None:
        """Suspend a worker: it finishes its current loop, and then neither loops nor takes messages.

        It can be stopped all the same; messages wait. Suspending a supervisor suspends the workers that it has now.
        An incarnation that is started later is not suspended. The workers' status is `suspended`.

        Raises:
            ChildNotFound: there is no such child.
            WorkerDead: the supervisor has ended.
        """
        self._ask_child(AdminAction.SUSPEND, path)

    def resume(self, path: str | WorkerRef) -> None:
        """Resume a suspended worker; no error if it is not suspended. Raises ChildNotFound, and WorkerDead likewise."""
        self._ask_child(AdminAction.RESUME, path)

    def which_children(self, under: str | WorkerRef = "") -> list[ChildLine]:
        """Return the children of this supervisor, or of the one at path or ref `under`, in start order (rule 20)."""
        lines: list[ChildLine] = self._administer(self._path_to(under), AdminAction.WHICH_CHILDREN, None).get(None)
        return lines

    def count_children(self, under: str | WorkerRef = "") -> Counts:
        """Count the children of this supervisor, or of the one at path or ref `under`, and those alive (rule 21)."""
        counts: Counts = self._administer(self._path_to(under), AdminAction.COUNT_CHILDREN, None).get(None)
        return counts

    def get_child_spec(self, id: str | WorkerRef) -> Child:
        """Return the declaration of a child with its defaults filled in (rule 22). Raises ChildNotFound."""
        spec: Child = self._ask_child(AdminAction.GET_CHILD_SPEC, id)
        return spec

    # ------------------------------------------------------------ helpers
    def _below(self, child: str | WorkerRef) -> str:
        """Return the path of a child, relative to this supervisor."""
        if isinstance(child, str):
            return str.__str__(child)  # of a member of an enum
        if not isinstance(child, WorkerRef):
            raise TypeError(f"a child of {self.path!r} is named by its id, its path or its ref, not by {child!r}")
        if not child.path.startswith(f"{self.path}/"):
            raise ChildNotFound(f"{child.path!r} is not below {self.path!r}", path=child.path)
        return child.path.removeprefix(f"{self.path}/")

    def _path_to(self, under: str | WorkerRef) -> str:
        """Return the path of the supervisor that a request is for, relative to this one, whose own path is empty."""
        return "" if isinstance(under, WorkerRef) and under.path == self.path else self._below(under)

    def _ask_child(self, action: AdminAction, child: str | WorkerRef) -> Any:
        under, _, id = self._below(child).rpartition("/")
        return self._administer(under, action, id).get(None)

    def _change_child(self, action: AdminAction, child: str | WorkerRef, drain: float | None = None) -> Any:
        path = self._below(child)
        under, _, id = path.rpartition("/")
        own, target = current_path(), f"{self.path}/{path}"
        if f"{own}/".startswith(f"{target}/"):
            raise DeadlockError(
                f"{own!r} cannot {action} {'itself' if own == target else repr(target) + ', which it is a part of'}: "
                f"it would wait for its own end; to finish, call self.rejoin()",
                path=target,
            )
        return self._change(under, action, id if drain is None else (id, drain))

    def _change(self, under: str, action: AdminAction, argument: Any) -> Any:
        refuse_while_starting(f"{self.path}/{under}" if under else self.path)
        return self._administer(under, action, argument).get(None)


class SupervisorRef(WorkerRef, Administration):
    """Names a supervisor by its path, from any process of the program; `whereis("app/counters")` finds it.

    It is a `WorkerRef` that can administer the supervisor's children as well. A supervisor takes no messages.
    """

    __slots__ = ()

    def _administer(self, under: str, action: AdminAction, argument: Any) -> Answer[Any]:
        return router().administer(action, f"{self.path}/{under}" if under else self.path, argument)

    if not TYPE_CHECKING:  # a type checker is to know the names that there are

        def __getattr__(self, name: str) -> NoReturn:
            more = f"; the program that has started the tree calls running.{name}(...)" if name in _OF_PROGRAM else ""
            raise no_attribute(self, name, OTHER_NAMES, "ref", more)

    def __reduce__(self) -> tuple[Any, ...]:
        return SupervisorRef, (self.path,)

    def __repr__(self) -> str:
        return f"SupervisorRef({self.path!r})"


_OF_PROGRAM = frozenset({"crashes", "events", "stream", "task"})
"""What a `RunningTree` has and a ref has not."""


def ref_to(path: str, kind: str) -> WorkerRef:
    """Return the ref for a path and the kind of child there."""
    return SupervisorRef(path) if kind == "supervisor" else WorkerRef(path)


def whereis(path: str) -> WorkerRef:
    """Return the ref of the worker or supervisor at `path`, from any process of the program.

    For a supervisor it is a `SupervisorRef`, which can administer the supervisor's children; type checkers know that
    after `assert isinstance(ref, SupervisorRef)`. A path with wildcards gives the list that `whereis_all` returns; in
    typed code, call that.

    Raises:
        ChildNotFound: there is no such worker.
        RuntimeGone: no supervision tree runs in this program.
    """
    if not isinstance(path, str):
        raise TypeError(f"whereis takes the path of a worker, a str, not {path!r}")
    if is_pattern(path):
        return whereis_all(path)  # type: ignore[return-value]
    found, kind = router().request(RequestKind.FIND, path).get()
    return ref_to(found, kind)


def whereis_all(pattern: str = "**") -> list[WorkerRef]:
    """Return the refs of all workers and supervisors that the pattern names, from any process of the program.

    In a pattern, `*` and `?` match within one part of a path, `**` matches any number of parts, at its end at
    least one; default: all. They come level by level from the root, and there in the order in which they were declared
    or added. A child that was stopped is one of them until it is deleted.

    >>> from suitkaise import Child, Supervisor, Thread, whereis_all
    >>> class Count(Thread): ...
    >>> with Supervisor("app", Supervisor("team", Child(Count, copies=2)), Supervisor("other", Count)).start():
    ...     print([ref.path for ref in whereis_all("app/*/count-*")], len(whereis_all()))
    ['app/team/count-0', 'app/team/count-1'] 6
    """
    if not isinstance(pattern, str):
        raise TypeError(f"whereis_all takes a pattern of paths, a str, not {pattern!r}")
    return [ref_to(path, kind) for path, kind in router().request(RequestKind.NAMES, pattern).get()]

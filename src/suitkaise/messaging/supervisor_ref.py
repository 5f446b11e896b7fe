"""Administration of a running supervisor: the same calls in the program that owns it and in its workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suitkaise.errors import DeadlockError, SpecError
from suitkaise.exits import ExitReason
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.messages import Answer
from suitkaise.messaging.refs import WorkerRef, refuse_while_starting
from suitkaise.messaging.router import router
from suitkaise.specs import Child
from suitkaise.status import Status

if TYPE_CHECKING:
    from suitkaise.status import Counts

__all__ = ["Administration", "ChildLine", "SupervisorRef", "ref_to", "whereis"]


@dataclass(frozen=True, slots=True)
class ChildLine:
    """One child as `which_children` lists it (rule 20). `abandoned`: threads of it that were cut off and still run."""

    id: str
    kind: str
    status: Status
    ref: WorkerRef
    restarts: int
    last_exit: ExitReason | None
    abandoned: int = 0


class Administration(ABC):
    """What can be asked of a running supervisor. Paths are relative to it: `terminate_child("counters/count-a")`.

    Requests that change children are served in the order they came, one at a time; questions are answered at once.
    """

    __slots__ = ()
    path: str

    @abstractmethod
    def _administer(self, under: str, what: str, argument: Any) -> Answer[Any]:
        """Hand a request to the supervisor at the path `under` below this one."""

    def start_child(self, what: Any, *, under: str = "") -> WorkerRef:
        """Add a child (a worker, a worker class, a `Supervisor` or a `Child`), start it, and return its ref.

        Args:
            what: the declaration.
            under: the path of a supervisor below this one that shall have it.

        Raises:
            SpecError, NotSerializable: the declaration is wrong; nothing is stored (rule 7).
            ChildAlreadyStarted, ChildAlreadyPresent: its id is taken (rules 8 and 9).
            MaxChildren: a dynamic supervisor has as many children as it may (rule 53).
            ChildStartFailed: its start failed; the declaration is discarded (rule 10).
            ChildNotFound: there is no running supervisor at `under`.
            DeadlockError: a worker asks a supervisor above it while it is being started.
        """
        child = what if isinstance(what, Child) else Child(what)
        if child.copies != 1:
            raise SpecError(f"start_child adds one child; {child.id!r} has copies={child.copies}: add them one by one")
        ref: WorkerRef = self._change(under, "start_child", child)
        return ref

    def terminate_child(self, id: str) -> None:
        """Stop a child and keep it stopped (rules 14-16).

        Raises:
            ChildNotFound: there is no such child.
            DeadlockError: it is the calling worker, or above it; say `self.rejoin()` instead.
        """
        self._change_child("terminate", id)

    def restart_child(self, id: str) -> WorkerRef:
        """Start a stopped child again (rules 17 and 18).

        Raises:
            ChildNotFound, ChildRunning, ChildRestarting: there is nothing to start.
            ChildStartFailed: its start failed; it stays stopped.
        """
        ref: WorkerRef = self._change_child("restart", id)
        return ref

    def delete_child(self, id: str) -> None:
        """Forget a stopped child (rule 19). Raises ChildNotFound, ChildRunning or ChildRestarting."""
        self._change_child("delete", id)

    def suspend(self, path: str) -> None:
        """Let a worker rest: it finishes its current loop, and then neither loops nor takes messages.

        It can be stopped all the same; what is told to it waits. A supervisor is suspended by suspending the workers
        that it has now. An incarnation that is started later is not suspended. The workers' status is `suspended`.

        Raises:
            ChildNotFound: there is no such child.
        """
        self._ask_child("suspend", path)

    def resume(self, path: str) -> None:
        """Let a suspended worker go on; no error if it is not suspended. Raises ChildNotFound."""
        self._ask_child("resume", path)

    def which_children(self, under: str = "") -> list[ChildLine]:
        """The children of this supervisor, or of the one at path `under`, in start order (rule 20)."""
        lines: list[ChildLine] = self._administer(under, "which_children", None).get(None)
        return lines

    def count_children(self, under: str = "") -> Counts:
        """How many children it, or the supervisor at `under`, has, and how many are alive (rule 21)."""
        counts: Counts = self._administer(under, "count_children", None).get(None)
        return counts

    def get_child_spec(self, id: str) -> Child:
        """The declaration of a child with its defaults filled in (rule 22). Raises ChildNotFound."""
        spec: Child = self._ask_child("get_child_spec", id)
        return spec

    # ------------------------------------------------------------ how
    def _ask_child(self, what: str, path: str) -> Any:
        under, _, id = path.rpartition("/")
        return self._administer(under, what, id).get(None)

    def _change_child(self, what: str, path: str) -> Any:
        under, _, id = path.rpartition("/")
        own, target = current_path(), f"{self.path}/{path}"
        if f"{own}/".startswith(f"{target}/"):
            raise DeadlockError(
                f"{own!r} cannot {what} {'itself' if own == target else repr(target) + ', which it is a part of'}: it "
                f"would wait for its own end; to finish, call self.rejoin()",
                path=target,
            )
        return self._change(under, what, id)

    def _change(self, under: str, what: str, argument: Any) -> Any:
        refuse_while_starting(f"{self.path}/{under}" if under else self.path)
        return self._administer(under, what, argument).get(None)


class SupervisorRef(WorkerRef, Administration):
    """Names a supervisor by its path, from any process of the program; `whereis("app/counters")` finds it.

    It is a ref as those of workers are, and can administer the supervisor's children. It takes no messages.
    """

    __slots__ = ()

    def _administer(self, under: str, what: str, argument: Any) -> Answer[Any]:
        return router().post("administer", f"{self.path}/{under}" if under else self.path, (what, argument))

    def __reduce__(self) -> tuple[Any, ...]:
        return SupervisorRef, (self.path,)

    def __repr__(self) -> str:
        return f"SupervisorRef({self.path!r})"


def ref_to(path: str, kind: str) -> WorkerRef:
    """The ref of what is at `path`."""
    return SupervisorRef(path) if kind == "supervisor" else WorkerRef(path)


def whereis(path: str) -> WorkerRef:
    """The ref of the worker or supervisor at `path`, from any process of the program.

    Of a supervisor it is a `SupervisorRef`, by which its children can be administered.

    Raises:
        ChildNotFound: there is no such worker.
    """
    found, kind = router().post("find", path).get()
    return ref_to(found, kind)

"""Background threads: the supervised threads that a worker has beside its own.

The supervisor is a real one, with the policy of a `DynamicSupervisor`, and it runs where the worker runs. It belongs to
a higher floor, so the engine gives the worker the means to make one (`Background.supervise`) when a first background
thread is started.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from suitkaise.errors import ChildAlreadyPresent, ChildAlreadyStarted, SpecError, WorkerDead, WorkerFailed
from suitkaise.exits import Crashed, ExitReason, origin
from suitkaise.messaging.held_back import send_held
from suitkaise.platform.locks import RLock
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.recipe import Recipe, Startable, with_arguments, without_parameters

if TYPE_CHECKING:
    from suitkaise.messaging.refs import WorkerRef
    from suitkaise.workers.incarnation import OwnRef

__all__ = ["Background", "MakeSupervisor", "ThreadSupervisor", "background_child", "background_children"]


class ThreadSupervisor(Protocol):
    """The supervisor of the background threads of one worker; for any thread."""

    def start(self, child: Child) -> WorkerRef:
        """Start a thread; return its ref when its `on_start` has returned."""
        ...

    def stop(self, seconds: float) -> None:
        """Ask all threads to finish, and abandon those that have not ended after `seconds`."""

    def request_stop(self) -> None:
        """Ask all threads to finish, without waiting."""

    def kill(self, why: str) -> None:
        """Abandon all threads, without waiting."""

    def own_ref(self, path: str) -> OwnRef:
        """Return the ref that the thread at `path` has of itself."""
        ...


MakeSupervisor: TypeAlias = Callable[[Callable[[ExitReason], None]], ThreadSupervisor]
"""Makes the supervisor; it calls back with the reason if it ends without having been stopped: it has given up."""


class Background:
    """The background threads of one incarnation of the worker at `path`; they are made when they are needed.

    `on_failure` is called, in another thread, when their supervisor has given up; `failure` is the error then.
    """

    def __init__(self, path: str, on_failure: Callable[[], None]) -> None:
        self.supervise: MakeSupervisor | None = None
        """Set by the engine."""
        self.failure: WorkerFailed | None = None
        self._path = path
        self._on_failure = on_failure
        self._declared: tuple[Child, ...] = ()
        self._names: Counter[str] = Counter()  # how many threads have had a default name, or a number behind it
        self._supervisor: ThreadSupervisor | None = None
        self._closed = False
        self._lock = RLock()

    @property
    def in_use(self) -> bool:
        """Whether there is, or was, a background thread."""
        return self._supervisor is not None

    def declare(self, children: tuple[Child, ...]) -> None:
        """Take the threads that the class declares; their names are theirs from now on."""
        self._declared = children
        self._names.update(child.id for child in children)

    def begin(self) -> None:
        """Start the declared threads, one after the other; raises what `start` raises."""
        for child in self._declared:
            self._start(child)

    def start(self, child: Child) -> WorkerRef:
        """Start a thread; return its ref when its `on_start` has returned. A taken default name gets a number.

        Raises:
            ChildStartFailed: its `on_start` failed.
            ChildAlreadyStarted: a thread of that id, which was given, runs.
            WorkerDead: the worker ends, or the supervisor of the threads has given up.
        """
        send_held()
        if child.id_given:
            return self._start(child)
        while True:
            with self._lock:
                self._names[child.id] += 1
                number = self._names[child.id]
            try:
                return self._start(child if number == 1 else child.renamed(f"{child.id}-{number}"))
            except (ChildAlreadyStarted, ChildAlreadyPresent):  # its name was given to another thread
                continue

    def _start(self, child: Child) -> WorkerRef:
        with self._lock:
            if self._closed:
                raise WorkerDead(f"{self._path!r} ends, so it can start no background thread", path=self._path)
            if self._supervisor is None:
                if self.supervise is None:
                    raise RuntimeError(f"{self._path!r} has no supervisor for background threads here")
                self._supervisor = self.supervise(self._on_end)
            supervisor = self._supervisor
        return supervisor.start(child.renamed(child.id))  # else the supervisor would give the name a number

    def close(self, seconds: float) -> None:
        """Stop the threads; start no further one."""
        with self._lock:
            self._closed = True
            supervisor = self._supervisor
        if supervisor is not None:
            supervisor.stop(seconds)

    def request_stop(self) -> None:
        """Ask the threads to finish, without waiting; start no further one."""
        with self._lock:
            self._closed = True
            supervisor = self._supervisor
        if supervisor is not None:
            supervisor.request_stop()

    def kill(self, why: str) -> None:
        """Abandon the threads, without waiting; start no further one."""
        self._closed = True
        if self._supervisor is not None:
            self._supervisor.kill(why)

    def _on_end(self, reason: ExitReason) -> None:
        if self._closed:
            return
        path, cause = origin(reason)
        traceback = cause.traceback if isinstance(cause, Crashed) else ""
        self.failure = WorkerFailed(f"the background threads have ended: {reason}", path=path, reason=reason,
                                    traceback=traceback)  # fmt: skip
        self._on_failure()


def background_children(title: str, items: Any) -> tuple[Child, ...]:
    """Return the declarations in the `background` of a worker class, checked.

    Raises:
        SpecError: one is no thread, or two have the same id.
    """
    if not isinstance(items, (tuple, list)):
        raise SpecError(
            f"{title}.background must be a tuple of Thread workers, functions, or Child(...) of these, not {items!r}"
        )
    children = [background_child(f"{title}.background", item, (), {}) for item in items]
    return SupervisorSpec(f"{title}.background", *children).children


def background_child(title: str, what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Child:
    """Return the declaration of one background thread; a function is called once a loop.

    Raises:
        SpecError: it is no thread, or the arguments do not fit.
    """
    if isinstance(what, Child):
        if args or kwargs:
            raise SpecError(f"{title}: arguments go into the Child, not beside it: {what!r}")
        child = what
    elif callable(what) and not isinstance(without_parameters(what), (type, Startable)):
        child = Child(with_arguments(Recipe(what, kind="thread"), args, kwargs))
    else:
        child = Child(what, args=args, kwargs=kwargs)
    if child.kind != "thread":
        hint = "derive it from Thread" if child.kind == "process" else "give a Thread"
        if isinstance(child.what, Recipe) and not isinstance(child.what.target, type):
            hint = "use Child(Thread.of(function), ...)"
        raise SpecError(f"{title}: {child.id!r} is a {child.kind}, and background threads are threads; {hint}")
    return child

"""What users declare and start: `Supervisor`, the declaration that can be started, and `DynamicSupervisor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from suitkaise.errors import no_attribute
from suitkaise.specs.supervisor import DynamicSupervisorSpec, SupervisorSpec, may_start_processes

if TYPE_CHECKING:
    from suitkaise.exits import ExitReason
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.start import AsyncStart

__all__ = ["DynamicSupervisor", "Supervisor"]


class Supervisor(SupervisorSpec):
    """The declaration of a supervisor and its children.

    Args:
        name: the first part of the paths of its workers; it may hold no `/`.
        children: `Child` declarations; or workers, worker classes, functions and supervisors with their defaults.
        strategy: `"one_for_one"` (default), `"one_for_all"` or `"rest_for_one"` (rules 31-33).
        max_restarts: restarts that are allowed within `max_seconds` (default 3; `math.inf`: any number; rule 28).
        max_seconds: the length of that window, in seconds (default 5.0).
        auto_shutdown: `"never"` (default), `"any_significant"` or `"all_significant"` (rules 47-49).
        engine: `Ray(...)`, to run the processes below it on a cluster (default None: as the supervisor above).
        restart, shutdown, significant: as in `Child`, for a supervisor that is itself a child.
        log_dir: a directory in which each worker of the tree gets a file of its own with what it prints and logs, and
            what happens to it; for the root of a tree alone (default None: no files).
        log_max_bytes: the size from which a file is rotated, at least 1 MiB, as a number of bytes or a text such as
            `"10 MiB"` (default 50 MiB; None: no rotation).
        log_backups: how many earlier files of each worker are kept (default 10).

    Raises:
        SpecError: an option or a child is wrong (rules 4, 5 and 50).

    >>> from suitkaise import Child, Supervisor
    >>> def work() -> None: ...
    >>> print(Supervisor("app", Child(work, restart="transient"), Supervisor("rest")))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, transient
    └─ rest  supervisor, one_for_one, 3 restarts in 5 s
    """

    __slots__ = ()

    def start(self) -> RunningTree:
        """Start the tree; return when every `on_start` has returned (rule 1).

        In an interactive session (a notebook, IPython, `python`) a tree of the same name that runs is stopped first, so
        that a cell can be run again; a line in the log tells it. In a program that is an error.

        Returns:
            The running tree, a context manager that stops the tree at the end of its block.

        Raises:
            ChildStartFailed: a child failed to start; the children before it were stopped again (rule 2).
            NotSerializable: a worker or an argument cannot be sent to a process.
        """
        from suitkaise.runtime.start import start

        return start(self)

    def run(self) -> ExitReason:
        """Start the tree and wait until it ends. SIGINT, SIGTERM or SIGHUP stops it; a second signal kills it.

        The same signal again within a second is the same request (rule 70), and SIGHUP never counts as a second one. A
        SIGINT or SIGHUP that was ignored before, as in the background jobs of a shell or under `nohup`, stays ignored.
        SIGUSR1 prints the stacks of all threads, unless the program has another use for it.

        Where a service manager has set `NOTIFY_SOCKET` (systemd, `Type=notify`), it is told when the tree is up, what
        changes, when the tree stops, and, for its watchdog, that the supervision works.

        Returns:
            The exit reason of the root, also if a signal stopped the tree during its start.

        Raises:
            TreeFailed: the root gave up (rule 30), was killed (rule 65), failed itself (rule 68), or ended because of a
                significant child that had failed (rule 71).
            ChildStartFailed, NotSerializable: as in `start`.
        """
        from suitkaise.engines.keeper_process import launched_early

        with launched_early(may_start_processes(self)):
            from suitkaise.runtime.foreground import run

            return run(self)

    def start_async(self) -> AsyncStart:
        """Start the tree from an event loop: `async with tree.start_async() as running`, or `running = await ...`.

        The event loop is not blocked while the tree starts, nor while it stops at the end of the block. A cancelled
        start stops what it has started before the cancellation goes on. Raises the errors of `start`.

        >>> import asyncio
        >>> async def main() -> None:
        ...     async with Supervisor("app").start_async() as running:
        ...         print(running.name)
        >>> asyncio.run(main())
        app
        """
        from suitkaise.runtime.start import AsyncStart

        return AsyncStart(self)

    if not TYPE_CHECKING:  # for a declaration that is used as if it ran; a type checker knows that it does not

        def __getattr__(self, name: str) -> NoReturn:
            from suitkaise.runtime.running_tree import RunningTree

            has = not name.startswith("_") and hasattr(RunningTree, name)
            raise no_attribute(self, name, {}, "tree", "; a running tree has it: running = tree.start()" if has else "")

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{self!r} is a declaration; start it: with Supervisor(...).start() as running:")

        __exit__ = None

        def __aenter__(self) -> NoReturn:
            raise TypeError(f"{self!r} is a declaration; start it: async with tree.start_async() as running:")

        __aexit__ = None

        def __getitem__(self, path: str) -> NoReturn:
            raise TypeError(f"{self!r} is a declaration; start it: running = tree.start()")


class DynamicSupervisor(DynamicSupervisorSpec, Supervisor):
    """The declaration of a supervisor that starts without children; `start_child` adds them (rules 53 and 54).

    The children have no order: they start in parallel, are restarted independently of each other, and are stopped all
    at once. A child is forgotten when it ends and is not to be restarted, when `terminate_child` stops it, and when it
    raises `Ignore`. So none is stopped, and `restart_child` and `delete_child` are for those that were given up alone
    (rule 78); `recall` restarts a child that runs. A dynamic supervisor that is restarted is empty again (rule 40). A
    child without an id or a name gets a number that is not used again: `fetch-1`, `fetch-2`.

    Args:
        name: as in `Supervisor`.
        max_children: the largest number of children, those that are being restarted included (default None: no
            limit); `start_child` raises `MaxChildren` beyond it.
        max_restarts, max_seconds: as in `Supervisor`, for all its children together (rules 28-30).
        engine: as in `Supervisor`.
        restart, shutdown, significant: as in `Child`, for a supervisor that is itself a child.
        log_dir, log_max_bytes, log_backups: as in `Supervisor`.

    Raises:
        SpecError: an option is wrong (rule 5).

    >>> from suitkaise import DynamicSupervisor, Supervisor
    >>> def work() -> None: ...
    >>> print(Supervisor("app", work, DynamicSupervisor("pool", max_children=100)))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, permanent
    └─ pool  dynamic supervisor, at most 100 children, 3 restarts in 5 s
    """

    __slots__ = ()

"""What users declare and start: `Supervisor`, the declaration that can be started, and `DynamicSupervisor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suitkaise.specs.supervisor import DynamicSupervisorSpec, SupervisorSpec

if TYPE_CHECKING:
    from suitkaise.exits import ExitReason
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.start import AsyncStart

__all__ = ["DynamicSupervisor", "Supervisor"]


class Supervisor(SupervisorSpec):
    """The declaration of a supervisor and its children.

    Args:
        name: its name: the first part of its workers' paths; no `/`.
        children: `Child`ren; or workers, worker classes, functions and supervisors with their defaults.
        strategy: `"one_for_one"` (default), `"one_for_all"` or `"rest_for_one"` (rules 31-33).
        max_restarts: restarts that are borne within `max_seconds` (default 3; `math.inf`: any number; rule 28).
        max_seconds: the length of that window, in seconds (default 5.0).
        auto_shutdown: `"never"` (default), `"any_significant"` or `"all_significant"` (rules 47-49).
        restart, shutdown, significant: as in `Child`, for when this supervisor is itself a child.

    Raises:
        SpecError: anything is wrong with it, here and now (rules 4, 5 and 50).

    >>> from suitkaise import Child, Supervisor
    >>> def work() -> None: ...
    >>> print(Supervisor("app", Child(work, restart="transient"), Supervisor("rest")))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, transient
    └─ rest  supervisor, one_for_one, 3 restarts in 5 s
    """

    __slots__ = ()

    def start(self) -> RunningTree:
        """Start the tree and return once every `on_start` has returned (rule 1).

        The result is a context manager that stops the tree at the end of its block.

        Raises:
            ChildStartFailed: a child's start failed; those before it were stopped again (rule 2).
            NotSerializable: a worker or an argument cannot be sent to a process.
        """
        from suitkaise.runtime.start import start

        return start(self)

    def run(self) -> ExitReason:
        """Start the tree and wait until it ends, or until SIGINT or SIGTERM stop it (a second one kills it).

        Where SIGINT was ignored, as in a shell's jobs in the background, it stays so.

        Returns:
            The exit reason of the root, also when a signal has stopped it while it started.

        Raises:
            TreeFailed: the root gave up (rule 30), was killed (rule 65), or failed itself (rule 68).
            ChildStartFailed, NotSerializable: as in `start`.
        """
        from suitkaise.runtime.foreground import run

        return run(self)

    def start_async(self) -> AsyncStart:
        """Like `start`, for event loops: `async with tree.start_async() as running`, or `running = await ...`.

        The loop goes on while the tree starts, and while it stops at the end of the block. Cancelled, it stops what
        it has started, and only then goes on. Raises what `start` raises.

        >>> import asyncio
        >>> async def main() -> None:
        ...     async with Supervisor("app").start_async() as running:
        ...         print(running.name)
        >>> asyncio.run(main())
        app
        """
        from suitkaise.runtime.start import AsyncStart

        return AsyncStart(self)


class DynamicSupervisor(DynamicSupervisorSpec, Supervisor):
    """The declaration of a supervisor that starts without children; `start_child` adds them (rules 53 and 54).

    Its children have no order: they start side by side, come back independently of each other, and are all stopped
    at once. A child that ends and is not to be restarted, that `terminate_child` stops, or that raises `Ignore` is
    forgotten, so there are no stopped children: `restart_child` and `delete_child` find none, `recall` restarts a
    child that runs. When the dynamic supervisor itself is restarted it is empty again (rule 40). A child that nobody
    has given an id or a name gets a number that is not used again: `fetch-1`, `fetch-2`.

    Args:
        name: its name; no `/`.
        max_children: how many children it may have, those that are being restarted included (default None: any
            number); `start_child` raises `MaxChildren` beyond that.
        max_restarts, max_seconds: as in `Supervisor`, for all its children together (rules 28-30).
        restart, shutdown, significant: as in `Child`, for when this supervisor is itself a child.

    Raises:
        SpecError: anything is wrong with it, here and now (rule 5).

    >>> from suitkaise import DynamicSupervisor, Supervisor
    >>> def work() -> None: ...
    >>> print(Supervisor("app", work, DynamicSupervisor("pool", max_children=100)))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, permanent
    └─ pool  dynamic supervisor, at most 100 children, 3 restarts in 5 s
    """

    __slots__ = ()

"""The ways to start a tree and go on: `tree.start()`, and `async with tree.start_async() as running`.

What a start imports, it imports itself: 0.1 s and more at the first one, for which no event loop waits.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from suitkaise.errors import no_attribute
from suitkaise.messaging.held_back import send_held
from suitkaise.platform.flag import Flag
from suitkaise.specs import SupervisorSpec
from suitkaise.specs.supervisor import may_start_processes

if TYPE_CHECKING:
    import asyncio

    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.runtime import Runtime
    from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["AsyncStart", "added", "in_thread", "start"]

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def added(tree: SupervisorSpec, *, processes: bool | None = None) -> Iterator[tuple[Runtime, SupervisorInterface]]:
    """Enter the runtime and add the tree to it, for the block that starts it; if the block fails, end it and leave.

    `processes` tells whether its workers are processes (default None: its declaration tells it).
    """
    from suitkaise.engines.keeper_process import launched_early

    if processes is None:
        processes = may_start_processes(tree)
    with launched_early(processes):
        from suitkaise.runtime import choices
        from suitkaise.runtime import runtime as runtimes
        from suitkaise.runtime.running_tree import stop_former

        stop_former(tree.name)
        runtime = runtimes.enter()
        supervisor = None
        try:
            supervisor = runtime.add(tree, processes=processes)
            choices.started.add(tree.name)
            yield runtime, supervisor
        except BaseException:
            try:
                if supervisor is not None:
                    supervisor.end_interrupted()
            finally:
                runtimes.leave(None if supervisor is None else tree.name)
            raise


def start(
    tree: SupervisorSpec, wait: Callable[[Flag], object] = Flag.wait, *, processes: bool | None = None
) -> RunningTree:
    """Start the tree; `wait` blocks until the tree is up. See `Supervisor.start`, and `added`."""
    send_held()
    with added(tree, processes=processes) as (runtime, supervisor):
        from suitkaise.runtime.running_tree import RunningTree

        supervisor.begin(wait)
        return RunningTree(supervisor, runtime)


class AsyncStart:
    """The start of a tree from an event loop: enter it or await it, and the tree starts.

    Threads of their own wait for the start and for the stop.
    """

    def __init__(self, tree: SupervisorSpec) -> None:
        self._tree = tree
        self._running: RunningTree | None = None
        self._given_up = False
        self._up: Flag | None = None

    async def __aenter__(self) -> RunningTree:
        import asyncio  # 35 ms

        starting = in_thread(start, self._tree, self._wait)
        try:
            self._running = await asyncio.shield(starting)
        except asyncio.CancelledError:
            from suitkaise.runtime.running_tree import wait_until_done

            self._give_up()
            await wait_until_done(starting)
            if not starting.cancelled() and starting.exception() is None:  # the tree had started already
                await wait_until_done(in_thread(starting.result().stop))
            raise
        return self._running

    def __await__(self) -> Generator[Any, None, RunningTree]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._running is not None
        await self._running.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # for a start that is not awaited; a type checker knows that it is not

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, {}, "", f"; {_AWAIT}")

        def __getitem__(self, path: str) -> NoReturn:
            raise TypeError(_AWAIT)

        def __enter__(self) -> NoReturn:
            raise TypeError(_AWAIT)

        __exit__ = None

    def _wait(self, up: Flag) -> None:
        """Wait, in a thread, until the tree has started or its start is cancelled."""
        self._up = up
        if not self._given_up:
            up.wait()
        if self._given_up:
            raise _GivenUp

    def _give_up(self) -> None:
        self._given_up = True
        if self._up is not None:
            self._up.set()


_AWAIT = "the tree is not started yet: async with tree.start_async() as running, or running = await tree.start_async()"


class _GivenUp(Exception):
    """The task that starts the tree was cancelled."""


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Call a function in a thread of its own: those of the loop's default executor may all wait for workers to end.

    The future is no task: `asyncio.run` does not cancel it at its end. What this thread holds back is sent first.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    send_held()
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    executor = ThreadPoolExecutor(1, thread_name_prefix="suitkaise-async")
    try:
        return loop.run_in_executor(executor, lambda: context.run(function, *args, **kwargs))
    except RuntimeError:  # no thread is left, but the default executor may have one
        return loop.run_in_executor(None, lambda: context.run(function, *args, **kwargs))
    finally:
        executor.shutdown(wait=False)  # when the function has returned

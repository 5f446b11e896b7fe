"""The workers that run the blocks of a setup around a main function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from suitkaise.concept.built import BoundBlock, BuiltSetup
from suitkaise.concept.values import Values, check_call, check_missing
from suitkaise.errors import SpecError
from suitkaise.specs.recipe import Recipe, check_arguments, check_function, snapshot
from suitkaise.specs.signatures import is_async_function
from suitkaise.workers.worker import Process, Thread, Worker

__all__ = ["worker_for"]


def worker_for(
    kind: Literal["process", "thread"],
    function: Callable[..., Any],
    setup: BuiltSetup | None = None,
    args: tuple[Any, ...] | list[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Recipe:
    """Make a worker that calls `function` once a loop, with the blocks of `setup` around it: the `what` of a `Child`.

    A process loops until it is joined. So does a thread whose setup says `loop_infinitely`; other threads call the
    function `num_loops` times, once by default. `join_after` of the `Child` takes precedence.

    Args:
        kind: "process" or "thread".
        function: may be `async def`; what it returns is the `last_result`.
        setup: what `build()` returned.
        args: what each call of the function gets as positional arguments.
        kwargs: what it gets as keyword arguments, besides the values that the blocks give.

    Raises:
        SpecError: the function cannot be called with these arguments, or something is of the wrong type.
    """
    if not callable(function):
        raise SpecError(f"the main function must be a function, not {function!r}; pass it without calling it")
    if not isinstance(setup, BuiltSetup | None):
        raise SpecError(f"the setup must be what setup.build() returns, not {setup!r}")
    check_arguments(function, args or (), kwargs)
    copy = snapshot if kind == "process" else lambda value: value
    given, named = copy(tuple(args or ())), copy(dict(kwargs or {}))
    check_function(function, kind)
    check_call(function, given, named)
    if setup is None and kind == "process" and not isinstance(function, type):
        return Recipe(function, given, named, kind)
    setup = setup or BuiltSetup()
    check_missing(function, given, named, setup.blocks)
    return Recipe(_CLASSES[kind, is_async_function(function)], (setup, function, given, named), kind=kind)


class _SetupWorker(Worker):
    """Runs the blocks of a setup around a function."""

    _default_loops = math.inf

    def __init__(
        self, setup: BuiltSetup, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        loops = setup.num_loops
        super().__init__(num_loops=self._default_loops if loops is None else loops)
        self._function = function
        self._args = args
        self._kwargs: Mapping[str, Any] = kwargs
        self._fixed: Mapping[str, Any] = kwargs
        self._for_next: Mapping[str, Any] = {}
        self._values = Values(function, args, kwargs)
        blocks = setup.bind()
        self._on_start: BoundBlock | None = blocks.get("OnStart")
        self._before_loop: BoundBlock | None = blocks.get("BeforeLoop")
        self._after_loop: BoundBlock | None = blocks.get("AfterLoop")
        self._on_finish: BoundBlock | None = blocks.get("OnFinish")

    def on_start(self) -> None:
        self._fixed = {**self._fixed, **self._run(self._on_start)}

    def before_loop(self) -> None:
        self._kwargs = {**self._fixed, **self._for_next, **self._run(self._before_loop)}

    def loop(self) -> Any:
        return self._function(*self._args, **self._kwargs)

    def after_loop(self) -> None:
        found = self._run(self._after_loop)
        self._for_next = found if self._after_loop is not None and self._after_loop.hook.add_for_next else {}

    def on_finish(self) -> None:
        self._run(self._on_finish)

    def _run(self, block: BoundBlock | None) -> dict[str, Any]:
        """Run a block, and return what the function gets from it."""
        if block is None:
            return {}
        block.run()
        return self._values.of(block)


class SetupProcess(_SetupWorker, Process):
    """Runs a setup and a function in a process."""


class SetupThread(_SetupWorker, Thread):
    """Runs a setup and a function in a thread."""

    _default_loops = 1


class AsyncSetupProcess(SetupProcess):
    """Runs a setup and an async function in a process."""

    async def loop(self) -> Any:
        return await self._function(*self._args, **self._kwargs)


class AsyncSetupThread(SetupThread):
    """Runs a setup and an async function in a thread."""

    async def loop(self) -> Any:
        return await self._function(*self._args, **self._kwargs)


_CLASSES: dict[tuple[str, bool], type[_SetupWorker]] = {
    ("process", False): SetupProcess,
    ("process", True): AsyncSetupProcess,
    ("thread", False): SetupThread,
    ("thread", True): AsyncSetupThread,
}

"""The declaration of a supervisor and its children: a tree, which can be printed and started."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Never, Self

from suitkaise.errors import NotBuiltYet, SpecError
from suitkaise.options import (
    AUTO_SHUTDOWNS,
    RESTARTS,
    STRATEGIES,
    AutoShutdown,
    Options,
    Restart,
    Shutdown,
    Strategy,
    is_number,
    refuse_unknown,
)
from suitkaise.specs.child import Child
from suitkaise.specs.declaration import Declaration, checked_id

if TYPE_CHECKING:
    from suitkaise.exits import ExitReason
    from suitkaise.supervision.running import RunningTree
    from suitkaise.supervision.starting import AsyncStart

__all__ = ["Supervisor", "check_children"]


class Supervisor(Declaration):
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

    >>> def work() -> None: ...
    >>> print(Supervisor("app", Child(work, restart="transient"), Supervisor("rest")))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, transient
    └─ rest  supervisor, one_for_one, 3 restarts in 5 s
    """

    __slots__ = (
        "auto_shutdown",
        "children",
        "max_restarts",
        "max_seconds",
        "name",
        "restart",
        "shutdown",
        "significant",
        "strategy",
    )  # fmt: skip

    name: str
    children: tuple[Child, ...]
    strategy: Strategy
    max_restarts: float
    max_seconds: float
    auto_shutdown: AutoShutdown
    restart: Restart
    shutdown: Shutdown
    significant: bool

    def __init__(
        self,
        name: str,
        *children: Any,
        strategy: Strategy = "one_for_one",
        max_restarts: float = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        engine: None = None,
        restart: Restart = "permanent",
        shutdown: Shutdown = "infinity",
        significant: bool = False,
        **unknown: Never,
    ) -> None:
        checked_id(name, "Supervisor")
        who = f"{type(self).__name__} {name!r}"
        options: dict[str, Any] = {
            "strategy": strategy, "max_restarts": max_restarts, "max_seconds": max_seconds,
            "auto_shutdown": auto_shutdown, "restart": restart, "shutdown": shutdown, "significant": significant,
        }  # fmt: skip
        refuse_unknown(who, unknown, (*options, "engine"))
        if engine is not None:
            raise NotBuiltYet(f"{who}: engine={engine!r} is not built yet; leave the option out")
        option = Options(who, options, {}, object)
        if not (is_number(max_restarts) and max_restarts >= 0 and max_restarts in (math.inf, max_restarts // 1)):
            raise SpecError(f"{who}: max_restarts must be a whole number >= 0 or math.inf, not {max_restarts!r}")
        if not (is_number(max_seconds) and 0 < max_seconds < math.inf):
            raise SpecError(f"{who}: max_seconds must be seconds > 0, not {max_seconds!r}")
        self._set(
            name=name,
            children=tuple(
                clone
                for child in children
                for clone in (child if isinstance(child, Child) else Child(child)).expanded()
            ),
            strategy=option.choice("strategy", STRATEGIES, "one_for_one"),
            max_restarts=max_restarts,
            max_seconds=float(max_seconds),
            auto_shutdown=option.choice("auto_shutdown", AUTO_SHUTDOWNS, "never"),
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity"),
            significant=option.flag("significant"),
        )
        check_children(who, self.children, self.auto_shutdown)

    def replace(self, **changes: Any) -> Self:
        """A copy of this declaration with some options changed (`children=` included), checked again.

        >>> Supervisor("app").replace(strategy="one_for_all").strategy
        'one_for_all'
        """
        fields = {**self.__getstate__(), **changes}
        return type(self)(fields.pop("name"), *fields.pop("children"), **fields)

    def start(self) -> RunningTree:
        """Start the tree and return once every `on_start` has returned (rule 1).

        The result is a context manager that stops the tree at the end of its block.

        Raises:
            ChildStartFailed: a child's start failed; those before it were stopped again (rule 2).
            NotSerializable: a worker or an argument cannot be sent to a process.
        """
        from suitkaise.supervision.running import start

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
        from suitkaise.supervision.foreground import run

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
        from suitkaise.supervision.starting import AsyncStart

        return AsyncStart(self)

    def __str__(self) -> str:
        return "\n".join(_picture(self))

    def _headline(self) -> str:
        auto = "" if self.auto_shutdown == "never" else f", ends with {self.auto_shutdown.replace('_', ' ')}"
        return f"{self.name}  supervisor, {self.strategy}, {self._intensity()}{auto}"

    def _intensity(self) -> str:
        return f"{self.max_restarts:g} restarts in {self.max_seconds:g} s"

    def __repr__(self) -> str:
        return f"Supervisor({self.name!r}, {len(self.children)} children, strategy={self.strategy!r})"


def check_children(who: str, children: tuple[Child, ...], auto_shutdown: AutoShutdown) -> None:
    """The rules that concern children as a group: unique ids (rule 4), significant needs auto-shutdown (rule 50)."""
    seen: set[str] = set()
    for child in children:
        if child.id in seen:
            raise SpecError(f"{who}: two children have the id {child.id!r}; give one another with Child(..., id=...)")
        seen.add(child.id)
        if child.significant and auto_shutdown == "never":
            raise SpecError(
                f"{who}: child {child.id!r} is significant, but auto_shutdown is 'never'; "
                "say 'any_significant' or 'all_significant' (rule 50)"
            )


def _picture(tree: Supervisor) -> Iterator[str]:
    yield tree._headline()
    for number, child in enumerate(tree.children, 1):
        last = number == len(tree.children)
        if isinstance(child.what, Supervisor):
            lines = _picture(child.what if child.id == child.what.name else child.what.replace(name=child.id))
        else:
            what = f": {shlex.join(child.what.args)}" if child.kind == "command" else ""
            lines = iter(
                [f"{child.id}  {child.kind}, {child.restart}{', significant' if child.significant else ''}{what}"]
            )
        for index, line in enumerate(lines):
            branch = ("└─ " if last else "├─ ") if index == 0 else ("   " if last else "│  ")
            yield branch + line

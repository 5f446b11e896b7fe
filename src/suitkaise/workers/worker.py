"""The classes that users derive their workers from.

What they find here is what a running worker has: hooks to override, attributes to read, and what to call. All that
comes from its `life`, which is attached when the worker is built in its own process or thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from suitkaise.errors import NotBuiltYet, SpecError
from suitkaise.messaging.refs import Monitor, WorkerRef
from suitkaise.messaging.supervisor_ref import whereis
from suitkaise.specs.options import Options
from suitkaise.specs.recipe import Recipe, Startable, snapshot
from suitkaise.storage.connect import attach
from suitkaise.workers.worker_type import ReadOnly, WorkerType

if TYPE_CHECKING:
    from suitkaise.workers.incarnation import Recalled
    from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["ALIASES", "HOOKS", "Process", "Thread", "Worker"]

HOOKS = ("on_start", "before_loop", "loop", "after_loop", "on_finish", "on_receive", "on_failure", "result")

ALIASES: dict[str, tuple[str, ...]] = {
    "on_start": ("__onstart__", "__on_start__"),
    "before_loop": ("__beforeloop__", "__before_loop__"),
    "loop": ("__loop__",),
    "after_loop": ("__afterloop__", "__after_loop__"),
    "on_finish": ("__onfinish__", "__on_finish__"),
    "result": ("__result__",),
}

_FREE = frozenset({"hooks", "name", "num_loops", "trap_exits", "tree"})
"""What a worker knows, and may say itself."""


class Worker(Startable, metaclass=WorkerType):
    """What processes and threads have in common: hooks to override, attributes to read, and what to call.

    All hooks are optional. A worker without `loop` waits for messages.

    Hooks, and public methods that proxies call, may be `async def`. The worker then has an event loop, in which all of
    its hooks run one at a time and in the same task, so a plain hook of it may start a task, too. Tasks that it starts
    go on whatever it does: while a hook awaits something, while it waits for messages, and while it is suspended. What
    a hook awaits counts as its time (rule 55). In a stop, a hook that awaits something is waited for like any other
    (rule 42): say `await self.wait_async(seconds)` for a sleep that ends then. At the end, after `result` or a crash,
    tasks that are left are cancelled and waited for, as long as the child's `shutdown` says at most; then the event
    loop is closed. A task that fails and that nobody awaits is told in the log `suitkaise.worker`; in an
    `asyncio.TaskGroup` that stays open from `on_start` to `on_finish` it ends the worker.
    """

    hooks: ClassVar[tuple[str, ...]] = HOOKS + tuple(alias for names in ALIASES.values() for alias in names)
    _life: Lifecycle | None = None
    _num_loops: float | None = None
    name: str | None = None
    trap_exits: ClassVar[bool] = False
    """Whether the end of a linked worker is a message, and not its own end."""

    def __init__(self, name: str | None = None, num_loops: float | None = None) -> None:
        if name is not None:
            self.name = name
        if num_loops is not None:  # a class that says it by itself, below a `Child`, is checked by nobody else
            Options(type(self).__name__, {"num_loops": num_loops}, {}, object).loops()
            self._num_loops = num_loops

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls._reserved:
            if getattr(cls, name) is not getattr(Worker, name):
                raise SpecError(
                    f"{cls.__name__}.{name} is given by the runtime and cannot be redefined; choose another name"
                )
        if "num_loops" in vars(cls):  # kept aside, so that reading it tells what a `Child` made of it
            cls._num_loops = vars(cls)["num_loops"]
            del cls.num_loops
        if vars(cls).get("background"):
            raise NotBuiltYet(
                f"{cls.__name__}.background is not built yet; start a threading.Thread(daemon=True) in on_start"
            )

    # ------------------------------------------------------------ hooks
    def on_start(self) -> Awaitable[None] | None:
        """Called once in the worker's own process or thread, before anything else; the heavy set-up goes here."""

    def before_loop(self) -> Awaitable[None] | None:
        """Called before each loop."""

    def loop(self) -> Any:
        """The work: called again and again until the worker finishes. What it returns becomes `last_result`."""

    def after_loop(self) -> Awaitable[None] | None:
        """Called after each loop; `last_loop_time` is then known."""

    def on_finish(self) -> Awaitable[None] | None:
        """Called once before a clean end: after the last loop, on a stop request, on SIGTERM."""

    def on_receive(self, message: Any) -> Any:
        """Called between loops with each message that was told or asked; an asker gets what it returns."""

    def on_failure(self, error: Exception) -> Awaitable[None] | None:
        """Called before the worker dies of an exception in any hook."""

    def result(self) -> Any:
        """Called after `on_finish`; its value goes to whoever asks for the result. Default: `last_result`."""
        return self.last_result

    # ------------------------------------------------------------ what a worker knows
    @ReadOnly
    def path(self) -> str | None:
        """Its place in the tree: `pipeline/counters/count-a`."""
        return self._life.path if self._life else None

    @ReadOnly
    def pid(self) -> int | None:
        """The process id it runs in."""
        return os.getpid() if self._life else None

    @ReadOnly
    def copy(self) -> int | None:
        """Its number among the `copies` of its child, from 0; else None."""
        return self._life.copy if self._life else None

    @ReadOnly
    def current_loop(self) -> int:
        """1 during the first loop, until after its `after_loop`."""
        return self._life.current_loop if self._life else 0

    @ReadOnly
    def last_loop(self) -> bool:
        """Whether this loop is the last one, as far as is known now."""
        return self._life.is_last_loop() if self._life else False

    @ReadOnly
    def last_loop_time(self) -> float:
        """Seconds from before `before_loop` to after `loop`, of the last loop that got so far."""
        return self._life.last_loop_ns / 1e9 if self._life else 0.0

    @ReadOnly
    def last_result(self) -> Any:
        """What the last `loop` returned."""
        return self._life.last_result if self._life else None

    @ReadOnly
    def recalled(self) -> Recalled | None:
        """None on a first start; else its past (rule 57): `attempt`, `reason`, `down_for` and `checkpoint`."""
        return self._life.recalled if self._life else None

    @ReadOnly
    def log(self) -> Any:
        """A structlog logger, bound to path and pid; it reaches the program's logging."""
        return self._life_or_raise("log").logger()

    @ReadOnly
    def metadata(self) -> dict[str, Any]:
        """What entries in the storage are usually marked with: a new dict at each call."""
        return {
            "name": self.name, "pid": self.pid, "current_loop": self.current_loop,
            "num_loops": self._loops_wanted(), "remove_on_process_join": True,
        }  # fmt: skip

    @property
    def num_loops(self) -> float:
        """After how many loops it finishes; `math.inf` for never."""
        return self._loops_wanted()

    @num_loops.setter
    def num_loops(self, value: Any) -> None:
        raise AttributeError(
            f"{type(self).__name__}.num_loops cannot be set here; say super().__init__(num_loops={value!r}), "
            "or num_loops = ... in the class, or Child(..., join_after=...)"
        )

    @property
    def tree(self) -> Any:
        """The storage that all workers of the program share (`sktree.connect()`); made when it is first used."""
        if "tree" not in self.__dict__:
            self._life_or_raise("tree")
            self.__dict__["tree"] = attach()
        return self.__dict__["tree"]

    @tree.setter
    def tree(self, value: Any) -> None:
        self.__dict__["tree"] = value

    def _loops_wanted(self) -> float:
        if self._life is not None:
            return math.inf if self._life.join_after is None else self._life.join_after
        return math.inf if self._num_loops is None else self._num_loops

    # ------------------------------------------------------------ what a worker can do
    def rejoin(self) -> None:
        """Finish gracefully: this loop, `after_loop` and `on_finish` still run; then it ends with `Normal`."""
        self._life_or_raise("rejoin()").rejoin()

    def skip_and_rejoin(self) -> None:
        """Like `rejoin`, but this loop's `after_loop` is left out."""
        self._life_or_raise("skip_and_rejoin()").rejoin(skip=True)

    def force_finish(self) -> None:
        """End at once: no further hook runs, not even the rest of this one. Ends with `Shutdown("forced")`."""
        self._life_or_raise("force_finish()").force_finish()

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`, but wake up at once when asked to stop; returns whether that was so."""
        return self._life_or_raise("wait()").wait(seconds)

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """The same for async hooks and tasks: `await self.wait_async(1.0)`. Other tasks of the worker go on meanwhile.

        Raises:
            RuntimeError: not called in the worker's own event loop.
        """
        return self._life_or_raise("wait_async()").wait_async(seconds)

    def whereis(self, path: str) -> WorkerRef:
        """The ref of another worker. Raises ChildNotFound if there is none at `path`."""
        return whereis(path)

    @ReadOnly
    def ref(self) -> WorkerRef:
        """Its own ref, to hand to others."""
        return WorkerRef(self._life_or_raise("ref").path)

    def generate_loop_time_report(self, name: str | None = None) -> dict[str, Any]:
        """Loops so far, and their total, mean, fastest, slowest and last time in seconds.

        `name` is the report's title; default: "NAME loop times report".
        """
        return self._life_or_raise("generate_loop_time_report()").loop_time_report(name)

    def cleanup(self) -> None:
        """Remove this worker's storage entries that are marked `remove_on_process_join`."""
        self._life_or_raise("cleanup()").cleanup()

    def get_current_loop(self) -> int:
        """The same as `current_loop`."""
        loop: int = self.current_loop
        return loop

    def checkpoint(self, value: Any) -> None:
        """Hand a value to the next incarnation: it is there as `self.recalled.checkpoint` (rule 57).

        A copy is kept by the supervisor, the last one wins, and once this returns it survives even a SIGKILL of this
        worker. It goes with the child: when that is deleted, or its supervisor restarted. What must survive the
        program belongs into a durable storage. Costs about as much as telling a message.

        Raises:
            NotSerializable: the value cannot be sent; the one before is kept.
        """
        self._life_or_raise("checkpoint()").checkpoint(value)

    def start_thread(self, what: Any, *args: Any, **kwargs: Any) -> None:
        """Not built yet: a supervised background thread of this process."""
        raise NotBuiltYet("start_thread is not built yet; use threading.Thread(target=..., daemon=True)")

    def monitor(self, ref: WorkerRef) -> Monitor:
        """Be told when the incarnation that `ref` names now has ended: a `Down(ref, reason, monitor)` for `on_receive`.

        Exactly once, and at once if nobody is there (rule 60). A restart needs a new monitor, as in Erlang: what comes
        back is another process.
        """
        return self._life_or_raise("monitor()").links.monitor(ref)

    def demonitor(self, monitor: Monitor) -> None:
        """Once this returns, no `Down` of that monitor is delivered any more. No error if it was used up."""
        self._life_or_raise("demonitor()").links.demonitor(monitor)

    def link(self, ref: WorkerRef) -> None:
        """End together: if one of the two incarnations ends abnormally, the other is killed, too (rule 60).

        With `trap_exits = True` in its class a worker is not killed, but told: `on_receive` gets a
        `LinkedExit(ref, reason)`, also of a clean end. Linking to somebody who is not there is an abnormal end of the
        other one. A clean end (`Normal`, `Shutdown`) ends nobody; Erlang passes `shutdown` on. A thread that is killed
        so is abandoned (rule 59). Linking twice is linking once.
        """
        self._life_or_raise("link()").links.link(ref)

    def unlink(self, ref: WorkerRef) -> None:
        """Undo `link`; no error if there is no link."""
        self._life_or_raise("unlink()").links.unlink(ref)

    def _life_or_raise(self, what: str) -> Lifecycle:
        if self._life is None:
            raise RuntimeError(
                f"{type(self).__name__}.{what} is for a running worker; this one was not started by a supervisor"
            )
        return self._life

    def __reduce_ex__(self, protocol: Any) -> Any:
        recipe = self.__dict__.get("__recipe__")
        if recipe is None:
            raise TypeError(f"a running {type(self).__name__} cannot be sent; send its ref (self.ref) instead")
        return _from_recipe, (recipe.target, recipe.args, dict(recipe.kwargs))

    _reserved: ClassVar[frozenset[str]] = frozenset(
        name for name in vars() if not name.startswith("_") and name not in (*HOOKS, *_FREE)
    )


class Process(Worker):
    """A worker in an OS process of its own.

    >>> class Count(Process):
    ...     def __init__(self, upto: int) -> None:
    ...         self.upto = upto
    ...
    ...     def loop(self) -> None:
    ...         if self.current_loop == self.upto:
    ...             self.rejoin()
    >>> from suitkaise.specs import Child
    >>> Child(Count(10), restart="transient").id
    'count'
    """

    kind: ClassVar[Literal["process"]] = "process"

    @staticmethod
    def of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Recipe:
        """A process worker that calls `function(*args, **kwargs)` once a loop; the same as passing the function."""
        return Recipe(function, snapshot(args), snapshot(kwargs), "process")


class Thread(Worker):
    """A worker in a thread of the program that owns the tree.

    Threads cannot be killed: one that does not stop in time is abandoned (rule 59). Constructor arguments are
    shared by reference between its incarnations, so mutable ones are yours to mind (rule 41).
    """

    kind: ClassVar[Literal["thread"]] = "thread"

    @staticmethod
    def of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Recipe:
        """A thread worker that calls `function(*args, **kwargs)` once a loop."""
        return Recipe(function, args, kwargs, "thread")


def _from_recipe(cls: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return cls(*args, **kwargs)

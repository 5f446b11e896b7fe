"""The classes that users derive their workers from: hooks to override, attributes to read, methods to call.

Everything that a running worker reads or calls comes from its `WorkerContext`, which `build` attaches when it makes
the worker in its own process or thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from suitkaise.errors import SpecError
from suitkaise.exits import ExitReason
from suitkaise.messaging.identity import worker_of_thread
from suitkaise.specs.options import Options, checked_drain, checked_flag
from suitkaise.specs.recipe import Kind, Recipe, Startable, snapshot
from suitkaise.specs.signatures import is_async_function, misfit
from suitkaise.specs.spellings import HOOKS, spell_all
from suitkaise.workers.background import background_child, background_children
from suitkaise.workers.worker_type import (
    RESERVED,
    CurrentLoop,
    ReadOnly,
    TrapExits,
    WorkerType,
    gives,
    overridable,
    refuse_other_name,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from suitkaise.messaging.refs import Monitor, WorkerRef
    from suitkaise.workers.context import WorkerContext
    from suitkaise.workers.incarnation import OwnRef, Recalled
    from suitkaise.workers.loop_report import LoopTimeReport
    from suitkaise.workers.replies import ReplyTo
    from suitkaise.workers.timers import Timer

__all__ = ["Process", "Thread", "Worker", "current_worker"]

_NOT_OPEN: Any = object()
"""The storage of a worker that has not used it yet."""


class Worker(Startable, metaclass=WorkerType):
    """The common base of `Process` and `Thread`: hooks to override, attributes to read, methods to call.

    All hooks are optional. A worker without `loop` waits for messages. Each hook has other spellings, which do the
    same: `on_start` may be written `__onstart__` or `__on_start__`, `loop` may be written `__loop__`, and so on.

    Hooks, and public methods that proxies call, may be `async def`. The worker then has an event loop. All hooks run in
    that loop, one at a time and in the same task, so a plain hook may start a task, too. (With `concurrency`, each
    handler of a message runs in a task of its own, beside others.) The worker's tasks go on while a hook awaits
    something, while the worker waits for messages, and while it is suspended. The time that a hook awaits counts as the
    hook's time (rule 55). A stop waits for a hook that awaits something, as for any hook (rule 42); use
    `await self.wait_async(seconds)` for a sleep that a stop ends. After `result` or a crash, the remaining tasks are
    cancelled and awaited for at most the child's `shutdown` seconds; then the event loop is closed. A failed task that
    nothing awaits is reported in the log `suitkaise.worker`; in an `asyncio.TaskGroup` that is open from `on_start` to
    `on_finish`, a failed task ends the worker.
    """

    _worker_hooks: ClassVar[tuple[str, ...]] = HOOKS
    _worker_context: WorkerContext | None = None
    _num_loops: float | None = None
    name: str | None = None
    background: Sequence[Any] = ()
    """The background threads of the worker: `Thread` classes and workers, functions, and a `Child` of one of these.

    Set it in the class, or in the constructor if the threads depend on its arguments.
    """
    loop_factory: Callable[[], AbstractEventLoop] | None = None
    """What makes the event loop of an async worker, such as `uvloop.new_event_loop`; None: `asyncio.new_event_loop`.

    Set it in the class. It is called without arguments, once in each incarnation (`asyncio.Runner` has the same).
    """
    _traps_exits: bool = False
    _worker_tree: Any = _NOT_OPEN
    _public_names: ClassVar[Mapping[str, str]] = {
        "_num_loops": "num_loops", "_traps_exits": "trap_exits", "_worker_tree": "tree",
    }  # fmt: skip

    def __init__(self, name: str | None = None, num_loops: float | None = None) -> None:
        """Set the child's id and the number of loops; a subclass may leave this call out.

        Args:
            name: the id of the child; default: the class's name in snake case. A running worker has the name that the
                child got: with `copies`, or a name that was taken, that is another one.
            num_loops: loops after which each incarnation finishes; `math.inf` or None: never.

        Raises:
            SpecError: `name` is no text, or `num_loops` is not a whole number >= 1.
        """
        if name is not None:
            if not isinstance(name, str):
                raise SpecError(
                    f"{type(self).__name__}: the name must be a text, not {name!r}; for arguments of its own the class "
                    "needs an __init__"
                )
            self.name = name if self._worker_context is None else self._worker_context.path.rpartition("/")[2]
        if num_loops is not None:  # checked here, because a `join_after` of the `Child` would hide a wrong value
            Options(type(self).__name__, {"num_loops": num_loops}, {}, object).loops()
            self._num_loops = num_loops

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if {"process", "thread"} <= {vars(base).get("_worker_kind") for base in cls.__mro__}:
            raise SpecError(f"{cls.__name__} derives from Process and from Thread; derive from one of them")
        spell_all(cls)
        for name in RESERVED:
            if getattr(cls, name) is not getattr(Worker, name):
                raise SpecError(
                    f"{cls.__name__}.{name} is given by the runtime and cannot be redefined; choose another name"
                )
        if "num_loops" in vars(cls):  # moved, so that the property `num_loops` still gives the number of the `Child`
            cls._num_loops = vars(cls)["num_loops"]
            del cls.num_loops
        if gives(cls, "trap_exits"):  # moved likewise
            cls._traps_exits = checked_flag(cls.__name__, "trap_exits", cls.trap_exits)
            cls.trap_exits = TrapExits()  # type: ignore[assignment]  # before the value of a mixin
        if gives(cls, "background"):
            background_children(cls.__name__, cls.background)
        if gives(cls, "loop_factory"):
            _check_loop_factory(cls.__name__, cls.loop_factory)

    @classmethod
    def _has_event_loop(cls) -> bool:
        from suitkaise.workers.hooks import is_async  # which imports this module

        return is_async(Recipe(cls))

    @classmethod
    def _check_options(cls, title: str, options: Mapping[str, Any]) -> None:
        """Raise SpecError if an option of the child makes no sense for this class."""
        if vars(cls).get("loop_factory") is not None and not cls._has_event_loop():
            raise SpecError(
                f"{title}: loop_factory makes no sense here: {cls.__name__} has no event loop; use async def"
            )
        if options["concurrency"] > 1:
            if cls.loop is not Worker.loop:
                raise SpecError(
                    f"{title}: concurrency makes no sense here: {cls.__name__} has a loop, which runs alone"
                )
            if not cls._has_event_loop():
                raise SpecError(
                    f"{title}: concurrency needs handlers that await, and {cls.__name__} has none: use async def"
                )
        if options["idle_timeout"] is not None:
            if cls.loop is not Worker.loop:
                raise SpecError(
                    f"{title}: idle_timeout makes no sense here: {cls.__name__} has a loop, so it is not idle"
                )
            if cls.handle_timeout is Worker.handle_timeout:
                raise SpecError(f"{title}: idle_timeout needs a handle_timeout, which {cls.__name__} does not have")

    # ------------------------------------------------------------ hooks
    def on_start(self) -> Awaitable[None] | None:
        """Called once in the worker's own process or thread, before any other hook; put heavy set-up here.

        An exception here is a failed start. Raise `Ignore` for a worker that is not to run.
        """

    def before_loop(self) -> Awaitable[None] | None:
        """Called before each loop."""

    def loop(self) -> Any:
        """Called again and again until the worker finishes: the work. The returned value becomes `last_result`."""

    def after_loop(self) -> Awaitable[None] | None:
        """Called after each loop; `last_loop_time` is then the time of this loop."""

    def on_finish(self) -> Awaitable[None] | None:
        """Called once before a clean end: after the last loop, on a stop request, on SIGTERM.

        `sys.exit()` in a hook, and `force_finish()`, end the worker without it.
        """

    def on_receive(self, message: Any) -> Any:
        """Called between loops with each message of `tell` and `ask`; an asker gets the returned value.

        A returned future (`concurrent.futures.Future`, such as the `Answer` of another ask; in an async worker also one
        of asyncio, such as a task) answers later: the asker gets its result, or its error, and the worker goes on
        meanwhile. `self.reply_to()` does that by hand.

        Raise `Reject` to refuse a message: the asker gets the error, and the worker goes on. Any other exception is a
        crash.
        """

    def handle_timeout(self) -> Awaitable[None] | None:
        """Called when no message has come for `idle_timeout` seconds, and again after each further time of that length.

        The time runs anew when a handler, or this hook, has returned. Only in a worker without `loop`. An exception is
        a crash, and `receive_timeout` limits its time, as for `on_receive`.
        """

    def on_failure(self, error: Exception) -> Awaitable[None] | None:
        """Called before the worker crashes because of an exception in any hook."""

    def result(self) -> Any:
        """Called after `on_finish`; the returned value is the worker's result.

        Default: the attribute `result`, if the worker has assigned one or its class has one, else `last_result`.
        """
        return self.last_result

    # The other spellings of the hooks, which `super()` reaches, too.
    __onstart__ = on_start
    __on_start__ = on_start
    __beforeloop__ = before_loop
    __before_loop__ = before_loop
    __loop__ = loop
    __afterloop__ = after_loop
    __after_loop__ = after_loop
    __onfinish__ = on_finish
    __on_finish__ = on_finish
    __onreceive__ = on_receive
    __on_receive__ = on_receive
    __handletimeout__ = handle_timeout
    __handle_timeout__ = handle_timeout
    __onfailure__ = on_failure
    __on_failure__ = on_failure
    __result__ = result

    # ------------------------------------------------------------ attributes of a running worker
    @overridable
    def path(self) -> str | None:
        """The worker's path in the tree (`pipeline/counters/count-a`); None outside of a tree.

        A subclass may use the name `path` for itself; the worker's path stays at `self.ref.path`.
        """
        return self._worker_context.path if self._worker_context else None

    @overridable
    def kind(self) -> Kind:
        """`"process"`, `"thread"` or `"command"`. A subclass may use the name `kind` for itself."""
        return self._worker_kind

    @ReadOnly
    def pid(self) -> int | None:
        """The process id of the process that the worker runs in; None outside of a tree."""
        return os.getpid() if self._worker_context else None

    @overridable
    def copy(self) -> int | None:
        """The worker's number among the `copies` of its child, from 0; None without copies.

        A subclass may use the name `copy` for itself; the number stays at `self.ref.copy`.
        """
        return self._worker_context.copy if self._worker_context else None

    @ReadOnly
    def current_loop(self) -> int:
        """The number of the current loop: 1 during the first loop and its `after_loop`, 0 before."""
        return self._worker_context.loop_state.number if self._worker_context else 0

    @ReadOnly
    def last_loop(self) -> bool:
        """Whether this loop is the last one, as far as is known now."""
        return self._worker_context.is_last_loop if self._worker_context else False

    @ReadOnly
    def last_loop_time(self) -> float:
        """Seconds from before `before_loop` to after `loop`, of the last loop that has returned."""
        return self._worker_context.loop_state.took if self._worker_context else 0.0

    @ReadOnly
    def last_result(self) -> Any:
        """The value that the last `loop` returned; None before."""
        return self._worker_context.loop_state.result if self._worker_context else None

    @ReadOnly
    def finish_reason(self) -> ExitReason | None:
        """Why the worker finishes, in `on_finish` and `result`: `Normal()`, or the order to stop; None before."""
        return self._worker_context.finish_reason if self._worker_context else None

    @ReadOnly
    def recalled(self) -> Recalled | None:
        """None on a first start; else the past (rule 57): `attempt`, `reason`, `down_for` and `checkpoint`."""
        return self._worker_context.recalled if self._worker_context else None

    @overridable
    def log(self) -> Any:
        """A structlog logger that is bound to path and pid and writes to the program's log `suitkaise.worker`.

        A subclass may use the name `log` for itself; `logging` works in any worker, too.

        Raises:
            RuntimeError: the worker was not started by a supervisor.
        """
        return self._require_context("log").logger()

    @overridable
    def process_name(self) -> str | None:
        """Another word for `name`. A subclass may use the name `process_name` for itself."""
        return self.name

    @overridable
    def metadata(self) -> dict[str, Any]:
        """The usual metadata of storage entries, a new dict at each access.

        The keys are `name`, `pid`, `current_loop`, `num_loops` and `remove_on_process_join` (True). A subclass may use
        the name `metadata` for itself.
        """
        return {
            "name": self.name, "pid": self.pid, "current_loop": self.current_loop,
            "num_loops": _loops_wanted(self), "remove_on_process_join": True,
        }  # fmt: skip

    if TYPE_CHECKING:  # a class may assign it
        num_loops: float
        """The number of loops after which the worker finishes; `math.inf`: never.

        Set it with `super().__init__(num_loops=...)`, in the class body, or with `Child(..., join_after=...)`.
        """
    else:

        @property
        def num_loops(self) -> float:
            """The number of loops after which the worker finishes; `math.inf`: never."""
            return _loops_wanted(self)

        @num_loops.setter
        def num_loops(self, value: Any) -> None:
            raise AttributeError(
                f"{type(self).__name__}.num_loops cannot be set here; use super().__init__(num_loops={value!r}), "
                "or num_loops = ... in the class, or Child(..., join_after=...)"
            )

    if TYPE_CHECKING:  # a class or an instance may assign it
        trap_exits: bool = False
        """Whether the end of a linked worker is delivered as a message, instead of ending this worker (rule 60).

        Set it in the class, in the constructor or in a hook, as Erlang's `process_flag(trap_exit, true)`: it holds from
        then on, until this incarnation ends.
        """
    else:
        trap_exits = TrapExits()

    @property
    def tree(self) -> Any:
        """The storage that all workers of the program share (`sktree.connect()`), opened at the first access.

        Raises:
            RuntimeError: the worker was not started by a supervisor.
        """
        if self._worker_tree is _NOT_OPEN:
            self._require_context("tree")
            from suitkaise.storage.connect import attach  # a running worker has all this loaded

            object.__setattr__(self, "_worker_tree", attach())
        return self._worker_tree

    @tree.setter
    def tree(self, value: Any) -> None:
        object.__setattr__(self, "_worker_tree", value)

    @ReadOnly
    def ref(self) -> OwnRef:
        """The worker's own ref, to hand to others; `ref.path` and `ref.copy` are the worker's path and copy number.

        Raises:
            RuntimeError: the worker was not started by a supervisor.
        """
        return self._require_context("ref").ref

    # ------------------------------------------------------------ methods of a running worker
    def rejoin(self, why: str | None = None, *, drain: float | None = None) -> None:
        """Finish gracefully: run the rest of this loop, `after_loop` and `on_finish`.

        Args:
            why: the exit reason is then `Shutdown(why)`; without it, `Normal`.
            drain: seconds for which messages are handled before `on_finish` (default None: as the child's `drain`).
                The messages that still wait at the end are for the next incarnation, or dropped without one (rule 72).

        Raises:
            SpecError: `drain` is no such time.
            TypeError: `why` is no text.
        """
        context = self._require_context("rejoin()")
        if not isinstance(why, str | None):
            raise TypeError(f"rejoin: why must be a text, not {why!r}")
        context.rejoin(drain=checked_drain(drain), why=why)

    def skip_and_rejoin(self) -> None:
        """Finish like `rejoin`, but without this loop's `after_loop`."""
        self._require_context("skip_and_rejoin()").rejoin(skip=True)

    def force_finish(self) -> None:
        """Finish at once: leave the current hook and run no other hook; the exit reason is `Shutdown("forced")`.

        Called from another thread, the worker ends when its current hook returns.
        """
        self._require_context("force_finish()").force_finish()

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; return True as soon as the worker is asked to stop, else False.

        Raises:
            ValueError: `seconds` is no number.
            RuntimeError: called in the event loop of an async worker; use `await self.wait_async(seconds)` there.
        """
        return self._require_context("wait()").wait(_checked_seconds("wait", seconds))

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Sleep like `wait`, in async hooks and tasks: `await self.wait_async(1.0)`. Other tasks go on meanwhile.

        Raises:
            ValueError: `seconds` is no number.
            RuntimeError: not called in the worker's own event loop.
        """
        return self._require_context("wait_async()").wait_async(_checked_seconds("wait_async", seconds))

    def whereis(self, path: str) -> WorkerRef:
        """Return the ref of the worker at `path`.

        Raises:
            ChildNotFound: there is no worker at `path`.
        """
        from suitkaise.messaging.supervisor_ref import whereis

        return whereis(path)

    def generate_loop_time_report(self, name: str | None = None) -> LoopTimeReport:
        """Return what is known of the times of the loops so far, a dict: see `LoopTimeReport`.

        `print(report)` shows it as text, `report.save("times.svg")` draws it. It counts the loops of this incarnation
        whose `after_loop` has returned. `name` is the report's title; default: "NAME loop times report".

        Raises:
            TypeError: `name` is no text.
        """
        context = self._require_context("generate_loop_time_report()")
        if not isinstance(name, str | None):
            raise TypeError(f"generate_loop_time_report: name must be a text, not {name!r}")
        return context.loop_time_report(name or f"{self.name} loop times report")

    def cleanup(self) -> None:
        """Remove this worker's storage entries that are marked `remove_on_process_join`."""
        context = self._require_context("cleanup()")
        if self._worker_tree is not _NOT_OPEN or "suitkaise.storage.tree" in sys.modules:  # it may own entries
            context.cleanup(self.tree)

    get_current_loop: ClassVar[CurrentLoop] = CurrentLoop()
    """`current_loop`, as an attribute and as a call: `f"{self.get_current_loop}"`, `self.get_current_loop()`.

    `Process.get_current_loop()`, called on a class, is the number of the worker that runs in the calling thread; 0
    outside of a worker.
    """

    @staticmethod
    def get_pid() -> int:
        """Return the id of the process that this call runs in: in a running worker the worker's `pid`."""
        return os.getpid()

    def checkpoint(self, value: Any) -> None:
        """Keep a copy of `value` for the next incarnation, which reads it with `self.last_checkpoint()` (rule 57).

        The supervisor keeps the last value. After this call has returned, the value survives even a SIGKILL of this
        worker. The value is lost when the child is deleted or its supervisor restarted; data that must survive the
        program belongs in a durable storage. A checkpoint costs about as much as telling a message.

        Raises:
            NotSerializable: the value cannot be sent; the last value is kept.
        """
        self._require_context("checkpoint()").checkpoint(value)

    def last_checkpoint(self, default: Any = None) -> Any:
        """Return a copy of the last checkpoint of this child; the default if there is none, as on a first start.

        >>> from suitkaise import Supervisor, Thread
        >>> class Counter(Thread):
        ...     def on_start(self) -> None:
        ...         self.count = self.last_checkpoint(0)
        ...
        ...     def on_receive(self, message: int) -> int:
        ...         self.count += message
        ...         self.checkpoint(self.count)
        ...         return self.count
        >>> with Supervisor("app", Counter).start() as running:
        ...     assert running["counter"].ask(3) == 3
        ...     running["counter"].recall()
        ...     running["counter"].ask(2)
        5
        """
        return self._require_context("last_checkpoint()").last_checkpoint(default)

    def start_thread(self, what: Any, /, *args: Any, **kwargs: Any) -> WorkerRef:
        """Start a supervised background thread of this worker's process; return its ref when it is up.

        The thread's path is below the worker's: `app/worker/heartbeat`. The thread is restarted when it fails. If that
        happens more than 3 times in 5 seconds, this worker crashes, too. The thread ends with this worker: it is asked
        to finish after `on_finish`, and abandoned if it does not end in time (rule 59). The ref can be used in this
        process.

        Args:
            what: a function, which is called once a loop, again and again; a `Thread` class or worker; or a `Child` of
                one, for options: `Child(Thread.of(function, 1), id="poll", restart="transient", join_after=1)`.
            *args: the positional arguments of the function, or of the class's constructor.
            **kwargs: its keyword arguments.

        Raises:
            SpecError: this is no thread, or the arguments do not fit.
            ChildStartFailed: the thread's `on_start` failed.
            ChildAlreadyStarted: a background thread of this name, which was given, runs already.
            WorkerDead: the worker ends.
        """
        context = self._require_context("start_thread()")
        child = background_child("start_thread", what, args, kwargs)
        if child.copies != 1:
            raise SpecError(
                f"start_thread starts one thread; {child.id!r} has copies={child.copies}: start them one by one"
            )
        return context.background.start(child)

    # ------------------------------------------------------------ answers
    def reply_to(self) -> ReplyTo:
        """Return what answers the message that is being handled; the handler's return value then is not the answer.

        Keep it, and call its `reply(value)` or `fail(error)` later, from any thread of this worker: OTP's
        `gen_server:reply`. The asker's time-out runs on meanwhile. If this incarnation ends before, the asker gets
        `WorkerDead`. A message that was told has no asker, so its answer goes nowhere.

        Raises:
            RuntimeError: no message is being handled in this thread.

        >>> from suitkaise import Supervisor, Thread
        >>> class Gate(Thread):
        ...     def on_start(self) -> None:
        ...         self.waiting = []
        ...
        ...     def on_receive(self, message: str) -> None:
        ...         if message == "wait":
        ...             self.waiting.append(self.reply_to())
        ...         for waiting in self.waiting if message == "open" else ():
        ...             waiting.reply("the gate is open")
        >>> with Supervisor("app", Gate).start() as running:
        ...     answer = running["gate"].ask_future("wait")
        ...     running["gate"].ask("open")
        ...     print(answer.get())
        the gate is open
        """
        return self._require_context("reply_to()").reply_to()

    # ------------------------------------------------------------ timers
    def send_after(self, seconds: float, message: Any, *, to: WorkerRef | None = None) -> Timer:
        """Have `message` delivered to this worker's own `on_receive` after `seconds`; return the timer.

        The timer belongs to this incarnation: it ends with it, and so does a message that waits. The message itself is
        delivered, not a copy, behind the messages that wait.

        Args:
            seconds: from now; 0: at once.
            message: what `on_receive` gets.
            to: tell another worker instead; a message that cannot be delivered is a dead letter
                (`events.DeadLetter`).

        Raises:
            ValueError: `seconds` is no number >= 0.
            TypeError: `to` is no ref.
            RuntimeError: this worker has no `on_receive`, or was not started by a supervisor.
            WorkerDead: this incarnation has ended.

        >>> from suitkaise import Supervisor, Thread
        >>> class Egg(Thread):
        ...     restart = "temporary"
        ...
        ...     def on_start(self) -> None:
        ...         self.send_after(0.01, "done")
        ...
        ...     def on_receive(self, message: str) -> None:
        ...         self.rejoin(f"the egg is {message}")
        >>> with Supervisor("kitchen", Egg, Supervisor("others")).start() as running:
        ...     print(running["egg"].join(10.0))
        shutdown (the egg is done)
        """
        return self._set_timer("send_after", seconds, message, to)

    def every(self, seconds: float, message: Any, *, to: WorkerRef | None = None) -> Timer:
        """Have `message` delivered to this worker's own `on_receive` every `seconds`, the first time after `seconds`.

        The times do not drift. While the last message of the timer still waits, no other one is added: a slow worker
        does not find a queue of them. Apart from that it is as `send_after`, with `seconds` > 0; `cancel()` ends it.
        """
        return self._set_timer("every", seconds, message, to)

    def _set_timer(self, name: str, seconds: float, message: Any, to: WorkerRef | None) -> Timer:
        context = self._require_context(f"{name}()")
        if to is None:
            self._require_on_receive(f"{name}()", "message")
        return context.timers.start(seconds, message, to, repeats=name == "every")

    # ------------------------------------------------------------ links and monitors
    def monitor(self, ref: WorkerRef) -> Monitor:
        """Have a `Down` delivered to `on_receive` when the incarnation that `ref` names now has ended.

        The `Down(ref, reason, monitor)` is delivered exactly once, and at once if there is no such incarnation
        (rule 60). After a restart a new monitor is needed, as in Erlang: the new incarnation is another process.

        Raises:
            TypeError: this is no ref, or that of a background thread (as with `demonitor`, `link` and `unlink`).
            RuntimeError: this worker has no `on_receive`.
        """
        context = self._require_address("monitor()")
        self._require_on_receive("monitor()", "Down")
        return context.links.monitor(ref)

    def demonitor(self, monitor: Monitor) -> None:
        """Remove a monitor: no `Down` of it is delivered after this call. A used monitor is no error."""
        self._require_context("demonitor()").links.demonitor(monitor)

    def link(self, ref: WorkerRef) -> None:
        """Link this incarnation with the one that `ref` names: if one ends abnormally, the other is killed (rule 60).

        A worker with `trap_exits = True` is not killed: its `on_receive` gets a `LinkedExit(ref, reason)`,
        also of a clean end. A link to a worker that is not there counts as an abnormal end of that worker. A clean end
        (`Normal`, `Shutdown`) kills no other worker; in Erlang, `shutdown` does. A thread that is killed by a link is
        abandoned (rule 59). Two calls make one link.
        """
        self._require_address("link()").links.link(ref)

    def unlink(self, ref: WorkerRef) -> None:
        """Remove a link; a missing link is no error."""
        self._require_context("unlink()").links.unlink(ref)

    # ------------------------------------------------------------ groups and topics
    def join_group(self, name: str) -> None:
        """Become a member of the group of that name, until this incarnation ends or leaves it; twice is once.

        Others reach the members by `suitkaise.group(name)`. A restarted worker joins anew, most simply in `on_start`.

        Raises:
            ValueError: the name is no text, or has wildcards.
        """
        from suitkaise.messaging.groups import join_group  # messaging is not needed where a worker is declared

        join_group(name, self._require_address("join_group()").owner)

    def leave_group(self, name: str) -> None:
        """Leave a group; not to be a member is no error."""
        from suitkaise.messaging.groups import leave_group

        leave_group(name, self._require_context("leave_group()").owner)

    def subscribe(self, pattern: str, *, most: int = 1_000) -> None:
        """Have a `Published(topic, message)` delivered to `on_receive` for each message that is published.

        The subscription ends with this incarnation, or by `unsubscribe`; messages that wait then are dropped with it.

        Args:
            pattern: the topic (`"orders/new"`), or several by wildcards: `"orders/*"`, `"**"`.
            most: how many messages may wait in this worker's inbox; what is published beyond that is dropped (default
                1,000). The event `DeadLetter` counts them.

        Raises:
            ValueError: the pattern is no text, or `most` is no number >= 1.
            RuntimeError: this worker has no `on_receive`.
        """
        context = self._require_address("subscribe()")
        self._require_on_receive("subscribe()", "messages")
        from suitkaise.messaging.topics import subscribe

        subscribe(pattern, context.owner, most)

    def unsubscribe(self, pattern: str) -> None:
        """Remove the subscription with this pattern; a missing one is no error."""
        from suitkaise.messaging.topics import unsubscribe

        unsubscribe(pattern, self._require_context("unsubscribe()").owner)

    def _require_context(self, what: str) -> WorkerContext:
        """Return the context; raise RuntimeError unless the worker runs in a tree."""
        if self._worker_context is None:
            raise RuntimeError(
                f"{type(self).__name__}.{what} is for a running worker; this one was not started by a supervisor"
            )
        return self._worker_context

    def _require_address(self, what: str) -> WorkerContext:
        """Return the context; raise RuntimeError unless the program knows the worker by its path."""
        context = self._require_context(what)
        if not context.has_address:
            raise RuntimeError(
                f"{type(self).__name__}.{what} is not for a background thread, which has no address in the tree; let "
                "its worker do it"
            )
        return context

    def _require_on_receive(self, what: str, gets: str) -> None:
        """Raise RuntimeError if this worker has no `on_receive`, which gets what is asked for."""
        if type(self).on_receive is Worker.on_receive:
            raise RuntimeError(f"{type(self).__name__}.{what} needs an on_receive that gets the {gets}")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            behind = getattr(super(), "__getattr__", None)  # of a mixin: `class Both(Process, Mixin)`
            if behind is not None:
                return behind(name)
            refuse_other_name(type(self), name, runs=self._worker_context is not None)
            return object.__getattribute__(self, name)  # raises again what a property has raised

    def __reduce_ex__(self, protocol: Any) -> Any:
        recipe = self.__dict__.get("__recipe__")
        if recipe is None:
            raise TypeError(f"a running {type(self).__name__} cannot be sent; send its ref (self.ref) instead")
        return _from_recipe, (recipe.target, recipe.args, dict(recipe.kwargs))


class Process(Worker):
    """A worker in an OS process of its own. Derive a class and override the hooks.

    An instance that is built where the tree is declared is a *recipe*. Its class and the arguments of its constructor
    are recorded, with copies of plain containers, and each start builds a new worker from them in a new process. So
    `__init__` also runs in the program that declares the tree: put heavy set-up into `on_start`. An attribute that is
    set on the declared instance afterwards would be lost, so it is a `SpecError` where the instance is given to `Child`
    or `Supervisor`, and at `start()`.

    A class may set the options of `Child` as class attributes (`restart = "transient"`). Names that the runtime needs
    (`rejoin`, `wait`, `current_loop`, ...) cannot be defined or assigned.

    >>> from suitkaise import Child, Process, Supervisor
    >>> class Count(Process):
    ...     restart = "transient"
    ...
    ...     def __init__(self, upto: int) -> None:
    ...         self.upto = upto
    ...
    ...     def loop(self) -> None:
    ...         if self.current_loop == self.upto:
    ...             self.rejoin()
    >>> print(Supervisor("app", Count(10), Child(Count, args=(20,), id="more")))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ count  process, transient
    └─ more  process, transient
    """

    _worker_kind: ClassVar[Literal["process"]] = "process"

    @staticmethod
    def of(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recipe:
        """Make a process worker that calls `function(*args, **kwargs)` once a loop.

        `Child(function, args=..., kwargs=...)` does the same.
        """
        return Recipe(function, snapshot(args), snapshot(kwargs), "process")


class Thread(Worker):
    """A worker in a thread of the program that owns the tree. Derive a class and override the hooks, as for `Process`.

    A thread cannot be killed: a thread that does not stop in time is abandoned (rule 59). The declaration and all
    incarnations share the constructor's arguments by reference, so changes of a mutable argument are seen by all of
    them (rule 41).

    >>> from suitkaise import Supervisor, Thread
    >>> class Collect(Thread):
    ...     restart = "transient"
    ...
    ...     def __init__(self, found: list[int]) -> None:
    ...         self.found = found
    ...
    ...     def on_receive(self, message: int) -> int:
    ...         self.found.append(message)
    ...         return len(self.found)
    >>> found: list[int] = []
    >>> with Supervisor("app", Collect(found)).start() as running:
    ...     running["collect"].ask(42)
    1
    >>> found
    [42]
    """

    _worker_kind: ClassVar[Literal["thread"]] = "thread"

    @staticmethod
    def of(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recipe:
        """Make a thread worker that calls `function(*args, **kwargs)` once a loop.

        >>> from suitkaise import Child, Thread
        >>> Child(Thread.of(print, "tick"), id="ticker").kind
        'thread'
        """
        return Recipe(function, args, kwargs, "thread")


def current_worker() -> Worker | None:
    """Return the worker that runs in this thread, for code that has no `self`; None outside of any running worker.

    That is code that a worker calls, the function of `Process.of`, and the blocks of a setup. In a worker's process it
    is also the worker of the threads that the worker has started by itself. It is known from the worker's constructor
    to its last hook.

    >>> from suitkaise import Child, Supervisor, Thread, current_worker
    >>> def count():
    ...     return current_worker().current_loop
    >>> counter = Child(Thread.of(count), id="count", join_after=3, restart="transient")
    >>> with Supervisor("app", counter).start() as running:
    ...     print(running["count"].result(timeout=10.0), current_worker())
    3 None
    """
    worker: Worker | None = worker_of_thread()
    return worker


def _from_recipe(cls: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return cls(*args, **kwargs)


def _check_loop_factory(title: str, factory: Any) -> None:
    if factory is None:
        return
    if not callable(factory) or is_async_function(factory):
        raise SpecError(f"{title}: loop_factory must be a function that returns an event loop, not {factory!r}")
    if why := misfit(factory):
        raise SpecError(f"{title}: loop_factory is called without arguments, also without self, and it is {why}")


def _checked_seconds(name: str, seconds: Any) -> float:
    with contextlib.suppress(TypeError, OverflowError):
        if not math.isnan(seconds):
            return seconds  # type: ignore[no-any-return]
    raise ValueError(f"{name}: seconds must be a number, not {seconds!r}")


def _loops_wanted(worker: Worker) -> float:
    context = worker._worker_context
    wanted = worker._num_loops if context is None else context.join_after
    return math.inf if wanted is None else wanted

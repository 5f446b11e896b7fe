"""The life of one worker: on_start, (before_loop, loop, after_loop)*, on_finish; messages in between.

`Lifecycle` knows nothing of processes and threads: it drives a plain worker object, writes the worker's slot of the
status board, and says in the end how it went. The shell actor gives it its turns.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar

from suitkaise.errors import Ignore, Reject, SuitkaiseError, WorkerDead, with_note
from suitkaise.exits import Crashed, ExitCode, ExitReason, Normal, Shutdown
from suitkaise.messaging import codec
from suitkaise.messaging.identity import set_starting
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message, Payload, portable_error
from suitkaise.platform.board import LAST_LOOP, LOOPS, MESSAGES, PHASE, PID, TOTAL, Phase, Slot
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.context import WorkerLinks
from suitkaise.workers.hooks import NoHandler, build, handler_of, hook_of
from suitkaise.workers.incarnation import ExitWith, ForceFinish, Incarnation, Outcome
from suitkaise.workers.worker_type import check_attributes

if TYPE_CHECKING:
    from suitkaise.workers.incarnation import Recalled

__all__ = ["Lifecycle"]

_clock = time.monotonic_ns
_ON_START, _WAITING, _BEFORE_LOOP, _LOOP = (
    Phase.ON_START.mark,
    Phase.WAITING.mark,
    Phase.BEFORE_LOOP.mark,
    Phase.LOOP.mark,
)
_AFTER_LOOP, _ON_RECEIVE, _ON_FINISH = Phase.AFTER_LOOP.mark, Phase.ON_RECEIVE.mark, Phase.ON_FINISH.mark
_NEVER = 1 << 62
_LOOP_HOOKS = ("before_loop", "loop", "after_loop")


class Lifecycle:
    """One incarnation of a worker, as seen from inside.

    `start`, `iterate`, `receive` and `finish` are its turns; after each, `outcome` tells whether it is over.
    """

    has_tasks: ClassVar[bool] = False
    """Whether `stacks` has something to tell."""

    def __init__(self, recipe: Recipe, birth: Incarnation, mailbox: Mailbox, slot: Slot) -> None:
        self.path: str = birth.path
        self.owner: str = birth.owner
        self.pid: int = os.getpid()
        self.starting: bool = True
        self.copy: int | None = birth.copy
        self.recalled: Recalled | None = birth.recalled
        self.join_after: float | None = birth.join_after
        self.outcome: Outcome | None = None
        self.current_loop: int = 0
        self.last_loop_ns: int = 0
        self.last_result: Any = None
        self.links: WorkerLinks = WorkerLinks(birth.owner)
        self.on_checkpoint: Callable[[Payload], None] | None = None  # takes the checkpoint
        self.on_log_line: Callable[[str], None] | None = (
            None  # gets what is logged, if nobody else adds it to crash reports
        )
        self.append_output: Callable[[str], None] = lambda text: None  # adds to what a crash report will show
        self._birth = birth
        self._recipe = recipe
        self._mailbox = mailbox
        self._slot = slot
        self._over = False
        self._skip_after = False
        self._forced = False
        self._fastest = 0
        self._slowest = 0
        self._worker: Any = None
        self._owed: tuple[Message, BaseException] | None = None
        self._deadline_ns = _NEVER

    # ------------------------------------------------------------ its turns
    def start(self) -> None:
        """Build the worker and run `on_start`."""
        words = self._slot.words
        words[PID] = os.getpid()
        words[PHASE] = _clock() + _ON_START
        self._mailbox.owner = threading.get_ident()
        set_starting(True)
        try:
            self._worker = worker = self._build()
            worker.__dict__.setdefault("name", self.path.rpartition("/")[2])
            if worker.__dict__["name"] is None:
                worker.__dict__["name"] = self.path.rpartition("/")[2]
            if self.join_after is None and worker._num_loops != math.inf:
                self.join_after = worker._num_loops
            self._before = self._hook("before_loop")
            self._loop = self._hook("loop")
            self._after = self._hook("after_loop")
            self._on_receive = self._checked("on_receive")
            hook = self._hook("on_start")
            if hook is not None:
                hook()
                check_attributes(worker)
        except Ignore:
            self.outcome = Outcome(Normal(), ignored=True)
            return
        except BaseException as error:
            self._fail("on_start", error)
            return
        finally:
            set_starting(False)
        self.starting = False
        self._mailbox.looping = self._loop is not None
        if self._birth.join_in is not None:
            until = time.monotonic() + self._birth.join_in
            self._mailbox.deadline = until
            self._deadline_ns = int(until * 1e9)
        words[PHASE] = _clock() + _WAITING

    def iterate(self) -> None:
        """Run loops until something waits in the mailbox or the life is over."""
        if self._over or self._loop is None:  # join_in is over for a worker that only waits for messages
            self.finish(Normal())
            return
        before, loop, after = self._before, self._loop, self._after
        words, bell, clock = self._slot.words, self._mailbox.bell, _clock
        limit = _NEVER if self.join_after is None else int(self.join_after)
        first = not self.current_loop
        deadline = 0 if first else self._deadline_ns  # the first loop is a turn by itself
        total = words[TOTAL]
        fastest, slowest = self._fastest or _NEVER, self._slowest
        now = clock()
        try:
            for number in range(self.current_loop + 1, limit + 1):
                self.current_loop = number
                began = now
                if before is not None:
                    words[PHASE] = now + _BEFORE_LOOP
                    before()
                    now = clock()
                words[PHASE] = now + _LOOP
                self.last_result = loop()
                now = clock()
                took = now - began
                self.last_loop_ns = took
                total += took
                if took < fastest:
                    fastest = took
                if took > slowest:
                    slowest = took
                if after is not None and not self._skip_after:
                    words[PHASE] = now + _AFTER_LOOP
                    after()
                    now = clock()
                words[LOOPS] = number
                words[LAST_LOOP] = took
                words[TOTAL] = total
                if bell[0] or now >= deadline:  # who sets `_over` rings, too
                    break
            if not (self._over or self.current_loop >= limit or now >= self._deadline_ns):
                if first and not self.has_tasks:  # what the hooks return needs no second look
                    self._before, self._loop, self._after = (hook_of(self._worker, hook) for hook in _LOOP_HOOKS)
                return
        except BaseException as error:
            self._fail(Phase.of(words[PHASE]).hook, error)
            return
        finally:
            self._fastest, self._slowest = (0 if fastest == _NEVER else fastest), slowest
            self._rest()
        self.finish(Normal())

    def receive(self, message: Message) -> None:
        """Hand one message to its handler; the asker gets what it returns, or its error."""
        words = self._slot.words
        words[PHASE] = _clock() + _ON_RECEIVE
        words[MESSAGES] += 1
        try:
            answer = self._handler(message)()
        except (Reject, NoHandler) as refusal:
            message.fail(portable_error(refusal.error, self.path)[0])
        except BaseException as error:
            if isinstance(error, Exception):
                portable, text = portable_error(error, self.path)
                self._owed = message, with_note(portable, text)
            self._fail("on_receive", error)
            if not isinstance(error, Exception) and self.outcome is not None:
                self._owed = message, WorkerDead.unanswered(self.path, self.outcome.reason)
        else:
            if message.reply is not None:
                self._answer(message, answer)
        finally:
            self._rest()

    def _rest(self) -> None:
        """No hook runs. If its life is over, the board goes on to show what it did in the end."""
        if self.outcome is None:
            self._slot.words[PHASE] = _clock() + _WAITING

    def leave(self) -> None:
        """Give back what the life itself has held; its outcome is known."""

    def answer_failed_ask(self) -> None:
        """Answer the message whose handler ended this life; what its asker sends next is for the next incarnation."""
        if self._owed is not None:
            message, error = self._owed
            message.fail(error)

    def _answer(self, message: Message, answer: Any) -> None:
        assert message.reply is not None
        try:
            message.reply(True, Payload(answer))
        except SuitkaiseError as error:  # the answer cannot be sent: the asker's trouble, not the worker's
            message.fail(error)

    def finish(self, reason: ExitReason) -> None:
        """Run `on_finish` and `result`; the life ends with `reason`."""
        if self.outcome is not None:
            return
        self._over = True
        self._mailbox.end_waits()
        self._slot.words[PHASE] = _clock() + _ON_FINISH
        phase = "on_finish"
        try:
            hook = self._hook("on_finish")
            if hook is not None and not self._forced:
                hook()
            if self._forced:  # from another thread, or the worker has swallowed it
                raise ForceFinish
            phase = "result"
            result = self._hook("result")
            value = self.last_result if result is None else result()
        except BaseException as error:
            self._fail(phase, error)
            return
        self.outcome = Outcome(reason, Payload(value) if reason.clean else None)

    # ------------------------------------------------------------ what the worker calls
    def rejoin(self, *, skip: bool = False) -> None:
        """Finish after this loop."""
        self._over = True
        try:
            phase = Phase.of(self._slot.words[PHASE])
        except ValueError:  # a thread that the worker has started by itself asks too late
            return
        if skip and phase is not Phase.AFTER_LOOP:
            self._skip_after = True
        if not phase.in_a_loop:
            self._mailbox.order_stop(Normal())
        self._mailbox.end_waits()

    def force_finish(self) -> None:
        """Leave at once, if called from the worker's own thread; else when the current hook returns."""
        self._forced = self._over = self._skip_after = True
        self._mailbox.order_stop(Shutdown("forced"))
        if threading.get_ident() == self._mailbox.owner:
            raise ForceFinish

    def wait(self, seconds: float) -> bool:
        """Sleep, but not when asked to stop."""
        return self._mailbox.wait(seconds)

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Sleep in the worker's event loop, but not when asked to stop."""
        raise RuntimeError("wait_async() is for workers with async hooks; this one has none, so say: self.wait(...)")

    def stacks(self) -> str:
        """What it waits for, as far as the stacks of its threads do not tell; from any thread."""
        return ""

    def interrupt(self, reason: ExitReason) -> None:
        """Nobody waits for it any more: leave what can be left, and end for that reason."""

    def checkpoint(self, value: Any) -> None:
        """Keep a copy of the value for the next incarnation."""
        assert self.on_checkpoint is not None
        self.on_checkpoint(Payload(data=codec.dumps(value, root="checkpoint")))

    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in a wait of the worker's own: `wait(*descriptors)` must return when one of them is readable.

        Returns False when the program that owns the worker is gone.
        """
        return self._mailbox.wait_in(wait, for_messages=for_messages)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `join_in` is over; None without one."""
        return None if self._deadline_ns == _NEVER else max(0.0, (self._deadline_ns - _clock()) / 1e9)

    def report_pid(self, pid: int) -> None:
        """From now on the worker is known by the pid of a process that it looks after."""
        self.pid = self._slot.words[PID] = pid

    def take_over_suspension(self) -> None:
        """From now on the worker has its turns while it is suspended, too: it sees to it itself that it rests."""
        self._mailbox.rests = False

    @property
    def suspended(self) -> bool:
        """Whether the worker is to rest."""
        return self._mailbox.suspended

    @property
    def stop_reason(self) -> ExitReason | None:
        """Why it is to finish, if it is."""
        return self._mailbox.stop_reason

    def is_last_loop(self) -> bool:
        """Whether no loop will follow the current one."""
        return (
            self._over
            or self._mailbox.stop_reason is not None
            or (self.join_after is not None and self.current_loop >= self.join_after)
            or _clock() >= self._deadline_ns
        )

    def loop_time_report(self, name: str | None) -> dict[str, Any]:
        """The figures of all loops so far, in seconds."""
        loops = self._slot.words[LOOPS]
        total = self._slot.words[TOTAL] / 1e9
        return {
            "name": name or f"{self._worker.name} loop times report", "loops": loops, "total": total,
            "mean": total / loops if loops else 0.0, "fastest": self._fastest / 1e9, "slowest": self._slowest / 1e9,
            "last": self.last_loop_ns / 1e9,
        }  # fmt: skip

    def logger(self) -> Any:
        """The worker's own logger."""
        from suitkaise.messaging.logs import worker_logger

        return worker_logger(self.path, self.on_log_line)

    def cleanup(self) -> None:
        """Remove the storage entries that go with this incarnation."""
        tree = self._worker.__dict__.get("tree")
        if tree is not None:
            tree.remove_owned(self._birth.owner)

    # ------------------------------------------------------------ small things
    def _build(self) -> Any:
        return build(self._recipe, self)

    def _hook(self, name: str) -> Callable[..., Any] | None:
        return self._checked(name)

    def _checked(self, name: str) -> Callable[..., Any] | None:
        """The hook; where nothing is awaited, it raises TypeError if it returns what has to be."""
        hook = hook_of(self._worker, name)
        return hook if hook is None or self.has_tasks else partial(_call, f"{self._recipe.name}.{name}", hook)

    def _handler(self, message: Message) -> Callable[[], Any]:
        return handler_of(message, self._worker, self._on_receive, self.links.wants)

    def _fail(self, phase: str, error: BaseException) -> None:
        self._over = True
        self._mailbox.end_waits()
        if isinstance(error, ForceFinish) or self._forced:
            self.outcome = Outcome(Shutdown("forced"))
            return
        if isinstance(error, ExitWith):
            self.outcome = Outcome(error.reason, Payload(error.result) if error.reason.clean else None)
            return
        if isinstance(error, SystemExit):
            self.outcome = Outcome(_exit_code(error))
            return
        hook = self._hook("on_failure") if self._worker is not None else None
        portable, text = portable_error(error, self.path)
        self.outcome = Outcome(Crashed(phase, portable, text))
        if hook is not None:
            try:
                hook(error)
            except ForceFinish:
                self.outcome = Outcome(Shutdown("forced"))
            except BaseException as second:
                portable, text = portable_error(second, self.path)
                self.outcome = Outcome(Crashed("on_failure", portable, text))


def _call(who: str, hook: Callable[..., Any], *args: Any) -> Any:
    value = hook(*args)
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(
            f"{who} has returned a coroutine, which nobody awaits, since it is not seen to be async; "
            "if a decorator hides that, make the function that it returns `async def`, too"
        )
    return value


def _exit_code(error: SystemExit) -> ExitReason:
    code = error.code
    if code is None or code == 0:
        return Normal()
    if isinstance(code, int):
        return ExitCode(code)
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)  # noqa: T201  (as Python does)
    return ExitCode(1)

"""The life cycle of one worker: on_start, (before_loop, loop, after_loop)*, on_finish, and messages between loops.

`Lifecycle` knows nothing of processes and threads: it calls the hooks of a plain worker object, writes the worker's
slot of the status board, and reports the outcome. The worker's actor gives it its turns.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any, ClassVar, NoReturn

from suitkaise.errors import AskTimeout, Ignore, Reject, WorkerDead
from suitkaise.exits import Crashed, ExitReason, Normal
from suitkaise.messaging.identity import set_own_thread, set_starting, set_worker
from suitkaise.messaging.inbox import Taken, dropped_from
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message, Result
from suitkaise.messaging.portable_errors import crash, crash_and_answer
from suitkaise.messaging.tracing import continued
from suitkaise.platform.board import LAST_LOOP, LOOPING, LOOPS, MESSAGES, PHASE, PID, SKIPPED, TOTAL, Phase, Slot
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.specs.recipe import Recipe
from suitkaise.specs.spellings import spelling_in
from suitkaise.workers.background import background_children
from suitkaise.workers.context import WorkerContext
from suitkaise.workers.forked import Forks, end_fork
from suitkaise.workers.hooks import NoHandler, body_of, build, give_name, handler_of, hook_of
from suitkaise.workers.incarnation import FORCED, ExitWith, ForceFinish, Incarnation, Outcome, reason_of_exit
from suitkaise.workers.worker_type import check_attributes

__all__ = ["Lifecycle"]

_logger = QueuedLogger("suitkaise.messages")
_clock = time.monotonic
_ON_START, _WAITING, _BEFORE_LOOP, _LOOP = (
    Phase.ON_START.mark,
    Phase.WAITING.mark,
    Phase.BEFORE_LOOP.mark,
    Phase.LOOP.mark,
)
_AFTER_LOOP, _ON_RECEIVE, _ON_FINISH = Phase.AFTER_LOOP.mark, Phase.ON_RECEIVE.mark, Phase.ON_FINISH.mark

_BEHIND = 1e-4
"""Seconds by which the times on the board may be behind."""

_LOOP_HOOKS = ("before_loop", "loop", "after_loop")


class Lifecycle:
    """Runs one incarnation of a worker.

    `start`, `iterate`, `receive` and `finish` are its turns. After each turn, `outcome` is None while the worker goes
    on, and else how it ended. A turn is one thing at a time in the worker's own thread, so hooks and handlers never
    overlap and need no locks.

    The loop is the hard part. A worker may loop a million times a second, and between any two loops it must notice a
    message, a stop request, `join_after` and `join_in`; the supervisor must see from outside how long the current hook
    has been running (rule 55). An actor's turn for each loop would cost many times an empty loop. So `iterate` runs
    many loops in one turn, and everything that must end the turn, apart from the two limits, sets one byte of shared
    memory, the bell: senders do, and so do the methods of the context that set a flag. If one of them did not, a turn
    would never end, and the worker would get no message and no stop request until it is killed. The phase and the time
    at which it began are one word on the board, so that no reader sees the phase of one hook with the time of another.
    The clock is read once at each border between two hooks: the end of one hook is the start of the next. The loops
    from one sample of `LoopTimes` to the next run in a `for` of their own, so that no loop looks whether it is one. The
    times of finished loops go to the board once in `_BEHIND`, and when a turn ends; the same comparison sees the end
    of `join_in`. Each of these would cost a tenth of an empty loop. Constants are local names there, a fiftieth each.
    """

    has_tasks: ClassVar[bool] = False
    """Whether the worker has an event loop, so that `stacks` has something to show."""

    def __init__(self, recipe: Recipe, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> None:
        self.path: str = incarnation.path
        self.outcome: Outcome | None = None
        self.context: WorkerContext = self._make_context(incarnation, mailbox, slot)
        self.incarnation: Incarnation = incarnation
        self.taken: Taken | None = None
        """Called with each message that is taken out of a bounded mailbox; set by the engine."""
        self._replies = self.context.replies
        self._recipe = recipe
        self._mailbox = mailbox
        mailbox.drain = incarnation.drain
        self._slot = slot
        self._worker: Any = None
        self._failed_ask: tuple[Message, BaseException] | None = None
        self._forks = Forks()
        self._ending_since = 0.0
        self._abandoned = False

    def _make_context(self, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> WorkerContext:
        return WorkerContext(incarnation, mailbox, slot)

    # ------------------------------------------------------------ turns
    def start(self) -> None:
        """Build the worker and run `on_start`."""
        context = self.context
        words = self._slot.words
        words[PID] = os.getpid()
        self._slot.seconds[PHASE] = _clock() + _ON_START
        self._mailbox.owner = threading.get_ident()
        set_starting(True)
        set_own_thread(self.path, self._handles_alone, self._awaits_alone, self._is_hook, self._deadline)
        try:
            phase = "__init__"
            self._worker = worker = self._build()
            phase = "on_start"
            give_name(worker, self.path)
            self._take_loops(worker)
            self._before = self._hook("before_loop")
            self._loop = self._hook("loop")
            self._after = self._hook("after_loop")
            self._on_receive = self._checked_hook("on_receive")
            self._plain_on_receive = None if self.has_tasks else hook_of(worker, "on_receive")
            if worker.background:  # of the class, or set by the constructor
                context.background.declare(background_children(self._recipe.name, worker.background))
            self._on_idle = self._hook("handle_timeout")
            hook = self._hook("on_start")
            if hook is not None:
                hook()
                check_attributes(worker)
                self._take_loops(worker)  # `loop_infinitely` of an SKThread may be set there
            self._end_fork()
            if self._loop is None:
                self._warn_without_loop()
            context.background.begin()
        except Ignore as decline:
            self._end_fork(decline)
            self.outcome = Outcome(Normal(), ignored=True)
            return
        except BaseException as error:
            self._fail(phase, error)
            return
        finally:
            set_starting(False)
        context.starting = False
        self._mailbox.looping = self._loop is not None
        self._mailbox.idle = self.incarnation.idle_timeout
        if self.incarnation.join_in is not None:
            until = time.monotonic() + self.incarnation.join_in
            self._mailbox.deadline = until
            context.deadline = until
        self._slot.seconds[PHASE] = _clock() + _WAITING
        words[LOOPING] = self._loop is not None

    def _take_loops(self, worker: Any) -> None:
        """Take the number of loops from the worker, unless the `Child` has one."""
        if self.incarnation.join_after is None:
            self.context.join_after = None if worker._num_loops == math.inf else worker._num_loops

    def _warn_without_loop(self) -> None:
        """Tell what only a worker with a loop uses; without one, a worker waits for messages until it is stopped."""
        given = {"number of loops": self.context.join_after, "before_loop": self._before, "after_loop": self._after}
        unused = [name for name, part in given.items() if part is not None]
        if unused:
            self.context.logger().warning("no loop: it waits for messages, and nothing uses its " + ", ".join(unused))

    def iterate(self) -> None:
        """Run loops until something waits in the mailbox or the worker is to finish."""
        context = self.context
        if context.finishing or self._loop is None:  # without a loop: `join_in` is over
            self._end_loops()
            return
        before, loop, after = self._before, self._loop, self._after
        words, seconds, bell = self._slot.words, self._slot.seconds, self._mailbox.bell
        state, clock, forks = context.loop_state, _clock, self._forks
        phase, loops, in_before, in_loop, in_after = PHASE, LOOPS, _BEFORE_LOOP, _LOOP, _AFTER_LOOP
        limit = sys.maxsize if context.join_after is None else int(context.join_after)
        times = context.times
        first = not state.number
        last = min(limit, 1) if first else limit  # the first loop is a turn of its own
        deadline = context.deadline
        behind, took = 0.0, state.took
        fastest, floor, sampled = times.fastest, times.floor, times.next
        done = state.number
        now = clock()
        due = min(now + _BEHIND, deadline)
        try:
            while True:
                for number in range(done + 1, min(last, sampled) + 1):
                    state.number = number
                    began = now
                    if before is not None:
                        seconds[phase] = now + in_before
                        before()
                        if forks:
                            end_fork()
                        now = clock()
                    seconds[phase] = now + in_loop
                    state.result = loop()
                    if forks:
                        end_fork()
                    now = clock()
                    state.took = took = now - began
                    if took < fastest:
                        fastest = times.fastest = took
                    if took > floor:
                        floor = times.add_slow(number, took)
                    if after is not None and not context.skip_after_loop:
                        seconds[phase] = now + in_after
                        after()
                        if forks:
                            end_fork()
                        now = clock()
                    words[loops] = number
                    behind += took
                    if now >= due:
                        seconds[LAST_LOOP] = took
                        seconds[TOTAL] += behind
                        behind = 0.0
                        due = min(now + _BEHIND, deadline)
                        if now >= deadline:
                            break
                    if bell[0]:  # setting `context.finishing` rings the bell, too
                        break
                done = state.number
                if done == sampled:
                    sampled = times.add(state.took)
                if bell[0] or now >= deadline or done >= last:
                    break
            if not (context.finishing or state.number >= limit or now >= context.deadline):
                if first and not self.has_tasks:  # the check for coroutines is needed once only
                    self._before, self._loop, self._after = (hook_of(self._worker, hook) for hook in _LOOP_HOOKS)
                return
        except BaseException as error:
            self._fail(self.phase, error)
            return
        finally:
            seconds[LAST_LOOP] = took
            seconds[TOTAL] += behind
            self._mark_waiting()
        self._end_loops()

    def _end_loops(self) -> None:
        """Finish by itself, or order that, if messages are to be handled first."""
        drain = self._mailbox.drain if self.context.drain is None else self.context.drain
        if drain and not self.context.forced:
            self._mailbox.order_stop(self.context.own_reason, drain)
        else:
            self.finish(self.context.own_reason)

    def receive(self, message: Message) -> None:
        """Call the handler of one message; the asker gets the returned value or the error."""
        slot, replies = self._slot, self._replies
        now = _clock()
        slot.seconds[PHASE] = now + _ON_RECEIVE
        slot.words[MESSAGES] += 1
        deadline = message.deadline
        if (self.taken is not None or (deadline is not None and now > deadline)) and self._skips(message, now):
            self._mark_waiting()
            return
        replies.handled = message
        try:
            body = body_of(message, self.path)
            plain = self._plain_on_receive
            if plain is not None and message.kind == "message" and message.carrier is None:  # in fewer steps
                answer = plain(body)
                if type(answer) is CoroutineType:
                    _refuse_coroutine(self._name_of("on_receive"), answer)
            else:
                answer = self._handler(message, body)()
            if self._forks:
                end_fork()
        except (Reject, NoHandler) as refusal:
            self._end_fork(refusal)
            self._refuse(message, refusal)
        except BaseException as error:
            self._fail_with(message, error)
        else:
            if message.reply is not None or replies.deferred:
                self._answer(message, answer)
        replies.handled = None  # not after an internal error: then the asker is told that the worker has ended
        if self.outcome is None:
            slot.seconds[PHASE] = _clock() + _WAITING

    def _skips(self, message: Message, now: float) -> bool:
        """Answer a message that was dropped, or whose asker waits no longer; return False for any other."""
        words = self._slot.words
        if self.taken is not None and self.taken(message, words[MESSAGES]):
            error: Exception = dropped_from(self.path)
        elif message.deadline is not None and now > message.deadline:
            error = AskTimeout(f"{self.path!r} did not begin to handle the message in time", path=self.path)
        else:
            return False
        words[SKIPPED] += 1
        message.fail(error)
        return True

    def idle(self) -> None:
        """Run `handle_timeout`: no message has come for the `idle_timeout`."""
        if self._on_idle is None:
            return
        self._slot.seconds[PHASE] = _clock() + Phase.HANDLE_TIMEOUT.mark
        try:
            self._on_idle()
            self._end_fork()
        except BaseException as error:
            self._fail("handle_timeout", error)
        finally:
            self._mark_waiting()

    def finish(self, reason: ExitReason) -> None:
        """Run `on_finish` and `result`; the outcome has this reason."""
        context = self.context
        if self.outcome is not None:
            return
        context.finish_reason = reason
        self._mark_ending()
        if context.background.failure is not None:
            self._fail("background", context.background.failure)
            return
        self._slot.seconds[PHASE] = _clock() + _ON_FINISH
        phase = "on_finish"
        try:
            hook = self._hook("on_finish")
            if hook is not None and not context.forced:
                hook()
            self._end_fork()
            if context.forced:  # by another thread, or the hook has swallowed the exception
                raise ForceFinish
            phase = "result"
            result = self._hook("result")
            value = (
                getattr(self._worker, "__dict__", {}).get("result", context.loop_state.result)
                if result is None
                else result()
            )
            self._end_fork()
        except BaseException as error:
            self._fail(phase, error)
            return
        by_itself = reason is context.own_reason
        self.outcome = Outcome(reason, Result(value) if reason.clean else None, by_itself=by_itself)

    # ------------------------------------------------------------ after the last turn
    def close(self) -> None:
        """Release the resources of the life cycle itself."""
        self.context.timers.close()
        self._end_background()
        set_own_thread("")
        set_worker(None)

    def _end_background(self) -> None:
        """Stop the background threads, in the time that the worker's end leaves; a part of `on_finish` on the board."""
        background, grace = self.context.background, self.incarnation.grace
        if not background.in_use:
            background.close(0.0)
            return
        if self.outcome is not None:
            self._slot.seconds[PHASE] = _clock() + _ON_FINISH
        if self.context.forced:
            background.request_stop()
        else:
            now = _clock()
            background.close(grace - min(1.0, grace / 2) - (now - (self._ending_since or now)))

    def answer_failed_ask(self) -> None:
        """Answer the message whose handler ended the worker.

        The actor calls this after the engine knows the outcome: the asker's next message is for the next incarnation.
        """
        if self._failed_ask is not None:
            message, error = self._failed_ask
            message.fail(error)

    def unanswered(self) -> list[Message]:
        """Take the messages that are handled now, or were to be answered later: the worker ends, or was abandoned."""
        handled = self._replies.handled
        return [*([] if handled is None else [handled]), *self._replies.take_all()]

    # ------------------------------------------------------------ for the engine
    @property
    def phase(self) -> str:
        """The hook that runs, or ran last; `waiting` between two hooks."""
        return Phase.of(self._slot.seconds[PHASE]).hook

    def stacks(self) -> str:
        """Return what the worker awaits, which the stacks of its threads do not show; for any thread."""
        return ""

    def interrupt(self, reason: ExitReason) -> None:
        """Leave an `await`, and end for that reason: the engine has abandoned the worker."""
        self._abandoned = True
        self.context.timers.close()

    # ------------------------------------------------------------ helpers
    def _handles_alone(self) -> bool:
        """Return whether nothing but this thread can answer the worker's messages now."""
        return self.incarnation.concurrency == 1 and not self._replies.open and not self._abandoned

    def _awaits_alone(self) -> bool:
        """Return whether this worker answers nothing while the caller, in this thread, awaits something."""
        return True

    def _is_hook(self) -> bool:
        """Return whether the caller, in this thread, is an async hook, and no task beside it."""
        return False

    def _deadline(self) -> float | None:
        """Return until when (monotonic) somebody waits for what the handler that runs returns; None: for ever."""
        message = self._replies.handled
        return None if message is None else message.deadline

    def _end_fork(self, error: BaseException | None = None) -> None:
        """End this process if it is a fork of the worker's: its hook has returned, or raised that error."""
        if self._forks:
            end_fork(error)

    def _mark_ending(self) -> None:
        """Make it known that the worker ends; the first call counts for the time that is left."""
        self._ending_since = self._ending_since or _clock()
        self.context.finishing = True
        self._mailbox.end_waits()

    def _mark_waiting(self) -> None:
        """Show on the board that no hook runs; after the outcome, the board keeps showing the last phase."""
        if self.outcome is None:
            self._slot.seconds[PHASE] = _clock() + _WAITING

    def _answer(self, message: Message, answer: Any) -> None:
        self._replies.settle(message, answer)

    def _refuse(self, message: Message, refusal: Reject | NoHandler) -> None:
        """Answer with an error that the worker survives."""
        if message.reply is None and isinstance(refusal, NoHandler):
            _logger.warning("%r does not handle a message: %s", self.path, refusal)
        self._replies.refuse(message, refusal.error)

    def _fail_with(self, message: Message, error: BaseException) -> None:
        """Set the outcome from the exception of a handler; the asker is told of it when the worker has ended."""
        reason = None
        if isinstance(error, Exception):
            reason, answer = crash_and_answer("on_receive", error, self.path)
            self._failed_ask = message, answer
        self._fail("on_receive", error, reason)
        if not isinstance(error, Exception) and self.outcome is not None:
            self._failed_ask = message, WorkerDead.unanswered(self.path, self.outcome.reason)

    def _build(self) -> Any:
        return build(self._recipe, self.context)

    def _hook(self, name: str) -> Callable[..., Any] | None:
        return self._checked_hook(name)

    def _checked_hook(self, name: str) -> Callable[..., Any] | None:
        """Return the hook; without an event loop, a hook that returns a coroutine raises TypeError."""
        hook = hook_of(self._worker, name)
        if hook is None or self.has_tasks:
            return hook
        return partial(_call, self._name_of(name), hook)

    def _name_of(self, hook: str) -> str:
        return f"{self._recipe.name}.{spelling_in(type(self._worker), hook)}"

    def _handler(self, message: Message, body: Any) -> Callable[[], Any]:
        handler = handler_of(message, body, self._worker, self.path, self._on_receive, self.context.accept)
        return handler if message.carrier is None else continued(message.carrier, self.path, handler)

    def _fail(self, phase: str, error: BaseException, reason: Crashed | None = None) -> None:
        """Set the outcome from the exception of a hook, and run `on_failure` if the outcome is a crash.

        `reason`: the exit reason of the crash, if it was made already.
        """
        self._end_fork(error)
        context = self.context
        self._mark_ending()
        if isinstance(error, ForceFinish) or context.forced:
            self.outcome = Outcome(FORCED)
            return
        if isinstance(error, ExitWith):
            self.outcome = Outcome(error.reason, Result(error.result) if error.reason.clean else None)
            return
        if isinstance(error, SystemExit):
            self.outcome = Outcome(reason_of_exit(error))
            return
        hook = self._hook("on_failure") if self._worker is not None else None
        self.outcome = Outcome(crash(phase, error, self.path) if reason is None else reason)
        try:
            context.on_crash(error)
        except BaseException:  # the hook is the user's
            _logger.exception("%r: the exception hook has raised an exception", self.path)
        if hook is not None:
            try:
                hook(error)
                self._end_fork()
            except ForceFinish:
                self._end_fork()
                self.outcome = Outcome(FORCED)
            except BaseException as second:
                self._end_fork(second)
                self.outcome = Outcome(crash("on_failure", second, self.path))


def _call(name: str, hook: Callable[..., Any], *args: Any) -> Any:
    value = hook(*args)
    if type(value) is CoroutineType:
        _refuse_coroutine(name, value)
    return value


def _refuse_coroutine(name: str, value: CoroutineType[Any, Any, Any]) -> NoReturn:
    value.close()
    raise TypeError(
        f"{name} has returned a coroutine, which nothing awaits, because {name} is not defined with `async def`; "
        "if a decorator hides that, let the decorator return an `async def` function"
    )

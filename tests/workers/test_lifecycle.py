"""The life cycle of one worker: hooks, counters, ways to end, messages between loops."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Ignore, Reject, Thread
from suitkaise.errors import AskTimeout, NotSerializable, SpecError, SuitkaiseError, WorkerDead, WorkerFailed
from suitkaise.exits import Crashed, ExitCode, Normal, Shutdown, Signaled
from suitkaise.messaging.ask_timeout import limited
from suitkaise.messaging.identity import handles_alone
from suitkaise.platform.board import Phase
from suitkaise.workers.incarnation import Outcome

Harness = Any
LOOP_HOOKS = ["before_loop", "loop", "after_loop"]
HOOKS = ["on_start", *LOOP_HOOKS, "on_receive", "on_finish", "result"]

plain = pytest.mark.parametrize("harness", ["plain"], indirect=True)
"""For tests of `wait`, which async hooks cannot use: `test_async_lifecycle.py` has the tests of `wait_async`."""


class Recorder(Thread):
    """Records each call of a hook; `acts` are the functions to call in the hooks of these names."""

    def __init__(self, calls: list[str], **acts: Any) -> None:
        self.calls = calls
        self.acts = acts

    def record(self, hook: str) -> Any:
        self.calls.append(hook)
        act = self.acts.get(hook)
        return act(self) if act is not None else None

    def on_start(self) -> None:
        self.record("on_start")

    def before_loop(self) -> None:
        self.record("before_loop")

    def loop(self) -> Any:
        return self.record("loop")

    def after_loop(self) -> None:
        self.record("after_loop")

    def on_finish(self) -> None:
        self.record("on_finish")

    def on_receive(self, message: Any) -> Any:
        self.record("on_receive")
        return message

    def on_failure(self, error: BaseException) -> None:
        self.calls.append(f"on_failure({type(error).__name__})")
        act = self.acts.get("on_failure")
        if act is not None:
            act(self)

    def result(self) -> Any:
        self.record("result")
        return self.last_result


def value(outcome: Outcome) -> Any:
    assert outcome.result is not None
    return outcome.result.value


# ---------------------------------------------------------------- the order of the hooks
@plain
@pytest.mark.parametrize("hook", HOOKS)
def test_a_plain_hook_that_returns_a_coroutine_is_a_crash(harness: Harness, hook: str) -> None:
    async def later() -> None: ...

    body = {"loop": lambda self: None, hook: lambda self, *message: later()}
    one = harness(type("Decorated", (Thread,), body)(), join_after=2)
    one.tell("something")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == (hook, TypeError)
    assert f"Decorated.{hook} has returned a coroutine" in str(reason.error)


@plain
def test_a_plain_function_that_returns_a_coroutine_is_a_crash(harness: Harness) -> None:
    async def later() -> None: ...

    reason = harness(Thread.of(lambda: later())).run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("loop", TypeError)


def test_hooks_are_called_in_order(harness: Harness) -> None:
    calls: list[str] = []
    outcome = harness(Recorder(calls), join_after=2).run()
    assert calls == ["on_start", *LOOP_HOOKS, *LOOP_HOOKS, "on_finish", "result"]
    assert outcome.reason == Normal()


def test_a_worker_is_ready_once_on_start_has_returned(harness: Harness) -> None:
    seen: list[bool] = []

    def see(worker: Any) -> None:
        seen.append(one.was_ready)

    one = harness(Recorder([], on_start=see, loop=see), join_after=1)
    one.run()
    assert seen == [False, True]


def test_a_stop_request_ends_the_worker_after_the_current_loop(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, loop=lambda w: one.mailbox.order_stop(Shutdown())))
    assert one.run().reason == Shutdown()
    assert calls == ["on_start", *LOOP_HOOKS, "on_finish", "result"]


def test_the_first_reason_to_stop_counts(harness: Harness) -> None:
    one = harness(Recorder([]))
    one.mailbox.order_stop(Signaled(15))
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Signaled(15)


def test_after_a_stop_request_before_the_first_loop_no_loop_runs(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls))
    one.mailbox.order_stop(Shutdown())
    one.run()
    assert calls == ["on_start", "on_finish", "result"]


def test_a_worker_without_loop_waits_for_messages_until_it_rejoins(harness: Harness) -> None:
    class Echo(Thread):
        def on_receive(self, message: str) -> str:
            if message == "end":
                self.rejoin()
            return message

    one = harness(Echo())
    answers = [one.ask("a"), one.ask("end")]
    assert one.run().reason == Normal()
    assert [answer.get(0) for answer in answers] == ["a", "end"]


def test_hooks_that_are_only_inherited_from_the_base_are_not_called(harness: Harness) -> None:
    class Plain(Thread):
        def loop(self) -> int:
            return self.current_loop

    one = harness(Plain(), join_after=3)
    assert value(one.run()) == 3
    assert (one.lifecycle._before, one.lifecycle._after) == (None, None)


def test_the_aliases_of_the_hooks_work(harness: Harness) -> None:
    calls: list[str] = []

    class Old(Thread):
        def __init__(self, calls: list[str]) -> None:
            self.calls = calls

        def __onstart__(self) -> None:
            self.calls.append("start")

        def __beforeloop__(self) -> None:
            self.calls.append("before")

        def __loop__(self) -> None:
            self.calls.append("loop")

        def __afterloop__(self) -> None:
            self.calls.append("after")

        def __onfinish__(self) -> None:
            self.calls.append("finish")

        def __result__(self) -> int:
            return 42

    assert value(harness(Old(calls), join_after=1).run()) == 42
    assert calls == ["start", "before", "loop", "after", "finish"]


# ---------------------------------------------------------------- attributes of a running worker
def test_the_current_loop_is_n_from_before_loop_to_after_loop(harness: Harness) -> None:
    seen: dict[str, list[int]] = {hook: [] for hook in HOOKS}
    acts = {hook: lambda w, hook=hook: seen[hook].append(w.current_loop) for hook in HOOKS}
    harness(Recorder([], **acts), join_after=2).run()
    assert seen == {
        "on_start": [0], "before_loop": [1, 2], "loop": [1, 2], "after_loop": [1, 2], "on_receive": [],
        "on_finish": [2], "result": [2],
    }  # fmt: skip


def test_in_after_loop_the_last_loop_time_is_that_of_this_loop(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1.0
    monkeypatch.setattr("suitkaise.workers.lifecycle._clock", lambda: now)

    def spend(seconds: float) -> Any:
        def act(worker: Any) -> None:
            nonlocal now
            now += seconds * worker.current_loop

        return act

    seen: list[tuple[str, float]] = []

    def see(hook: str, then: Any) -> Any:
        def act(worker: Any) -> None:
            seen.append((hook, worker.last_loop_time))
            then(worker)

        return act

    acts = {"before_loop": see("before", spend(1)), "loop": see("loop", spend(2)), "after_loop": see("after", spend(4))}
    one = harness(Recorder([], **acts), join_after=2)
    one.run()
    assert seen == [("before", 0.0), ("loop", 0.0), ("after", 3.0), ("before", 3.0), ("loop", 3.0), ("after", 6.0)]
    report = one.worker.generate_loop_time_report()
    assert (report.pop("slowest_loops"), sum(loops for _, _, loops in report.pop("histogram"))) == (
        [(2, 6.0), (1, 3.0)], 2,
    )  # fmt: skip
    assert report == {
        "name": "worker loop times report", "loops": 2, "total": 9.0, "mean": 4.5, "fastest": 3.0, "slowest": 6.0,
        "last": 6.0, "p50": 3.0, "p95": 6.0, "p99": 6.0,
    }  # fmt: skip
    assert one.worker.generate_loop_time_report("mine")["name"] == "mine"


def test_the_last_loop_is_known_in_its_hooks(harness: Harness) -> None:
    seen: list[tuple[int, bool]] = []
    harness(Recorder([], before_loop=lambda w: seen.append((w.current_loop, w.last_loop))), join_after=3).run()
    assert seen == [(1, False), (2, False), (3, True)]


def test_after_rejoin_this_is_the_last_loop(harness: Harness) -> None:
    seen: list[bool] = []

    def act(worker: Any) -> None:
        seen.append(worker.last_loop)
        worker.rejoin()
        seen.append(worker.last_loop)

    harness(Recorder([], loop=act)).run()
    assert seen == [False, True]


def test_the_last_result_is_what_loop_returned(harness: Harness) -> None:
    seen: list[Any] = []
    harness(
        Recorder([], before_loop=lambda w: seen.append(w.last_result), loop=lambda w: w.current_loop * 10), join_after=3
    ).run()
    assert seen == [None, 10, 20]


def test_a_worker_knows_its_place(harness: Harness) -> None:
    one = harness(Recorder([]), path="app/pool/one", copy=3, join_after=1)
    one.run()
    worker = one.worker
    assert (worker.name, worker.path, worker.copy, worker.pid, worker.ref.path) == (
        "one", "app/pool/one", 3, os.getpid(), "app/pool/one",
    )  # fmt: skip
    assert worker.metadata == {
        "name": "one", "pid": os.getpid(), "current_loop": 1, "num_loops": 1, "remove_on_process_join": True,
    }  # fmt: skip
    assert worker.metadata is not worker.metadata


def test_a_running_worker_has_the_name_of_its_child_and_not_the_name_that_it_asked_for(harness: Harness) -> None:
    class Named(Thread):
        def __init__(self) -> None:
            super().__init__("bob")

        def loop(self) -> None: ...

    declared = Named()
    assert declared.name == "bob"
    one = harness(declared, join_after=1)
    one.run()
    assert one.worker.name == one.worker.ref.name == "worker"  # as with copies, or where the name was taken


def test_a_name_that_a_worker_gives_itself_is_kept(harness: Harness) -> None:
    class Named(Thread):
        def __init__(self) -> None:
            self.name = "bob"

        def loop(self) -> None: ...

    one = harness(Named(), join_after=1)
    one.run()
    assert one.worker.name == "bob"


def test_the_worker_reads_the_number_of_loops_of_the_child(harness: Harness) -> None:
    class Seven(Thread):
        num_loops = 7

        def loop(self) -> float:
            return self.num_loops

    assert value(harness(Seven(), join_after=3).run()) == 3
    assert value(harness(Seven()).run()) == 7


def test_without_a_number_of_loops_num_loops_is_infinite(harness: Harness) -> None:
    seen: list[float] = []

    def act(worker: Any) -> None:
        seen.append(worker.num_loops)
        worker.rejoin()

    harness(Recorder([], loop=act)).run()
    assert seen == [math.inf]


def test_the_board_shows_each_phase_and_the_counters(harness: Harness) -> None:
    seen: list[tuple[str, Phase]] = []
    acts = {hook: lambda w, hook=hook: seen.append((hook, one.slot.read().phase)) for hook in HOOKS[:-1]}
    one = harness(Recorder([], **acts), join_after=1)
    one.tell("x")
    one.run()
    assert seen == [(hook, Phase[hook.upper()]) for hook, _ in seen]
    assert {hook for hook, _ in seen} == set(HOOKS[:-1])
    view = one.slot.read()
    assert (view.pid, view.loops, view.messages) == (os.getpid(), 1, 1)


def test_the_phase_between_loops_is_waiting(harness: Harness) -> None:
    one = harness(Recorder([]), join_after=1)
    one.lifecycle.start()
    assert one.slot.read().phase is Phase.WAITING


# ---------------------------------------------------------------- ways to end
@pytest.mark.parametrize("hook", LOOP_HOOKS)
def test_rejoin_finishes_this_loop(harness: Harness, hook: str) -> None:
    calls: list[str] = []
    outcome = harness(Recorder(calls, **{hook: lambda w: w.rejoin()})).run()
    assert calls == ["on_start", *LOOP_HOOKS, "on_finish", "result"]
    assert outcome.reason == Normal()


@pytest.mark.parametrize("hook", ["before_loop", "loop"])
def test_skip_and_rejoin_skips_after_loop(harness: Harness, hook: str) -> None:
    calls: list[str] = []
    outcome = harness(Recorder(calls, **{hook: lambda w: w.skip_and_rejoin()})).run()
    assert calls == ["on_start", "before_loop", "loop", "on_finish", "result"]
    assert outcome.reason == Normal()


def test_skip_and_rejoin_in_after_loop_is_a_rejoin(harness: Harness) -> None:
    calls: list[str] = []
    assert harness(Recorder(calls, after_loop=lambda w: w.skip_and_rejoin())).run().reason == Normal()
    assert calls == ["on_start", *LOOP_HOOKS, "on_finish", "result"]


@pytest.mark.parametrize("end", ["rejoin", "skip_and_rejoin"])
def test_after_rejoin_in_on_start_no_loop_runs(harness: Harness, end: str) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, on_start=lambda w: getattr(w, end)()))
    assert one.run().reason == Normal()
    assert calls == ["on_start", "on_finish", "result"]
    assert one.was_ready


@pytest.mark.parametrize("end", ["rejoin", "skip_and_rejoin"])
def test_after_rejoin_in_on_receive_no_further_loop_runs(harness: Harness, end: str) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, loop=lambda w: one.tell("end"), on_receive=lambda w: getattr(w, end)()))
    assert one.run().reason == Normal()
    assert calls == ["on_start", *LOOP_HOOKS, "on_receive", "on_finish", "result"]


@pytest.mark.parametrize("hook", ["on_finish", "result"])
def test_rejoin_in_on_finish_and_result_changes_nothing(harness: Harness, hook: str) -> None:
    calls: list[str] = []
    assert harness(Recorder(calls, **{hook: lambda w: w.rejoin()}), join_after=1).run().reason == Normal()
    assert calls == ["on_start", *LOOP_HOOKS, "on_finish", "result"]


@pytest.mark.parametrize("hook", HOOKS)
def test_force_finish_ends_the_worker_at_once(harness: Harness, hook: str) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        worker.force_finish()
        calls.append("never")

    one = harness(Recorder(calls, **{hook: act}), join_after=1)
    one.tell("x")
    outcome = one.run()
    assert outcome.reason == Shutdown("forced")
    assert outcome.result is None
    assert calls[-1] == hook
    assert calls.count(hook) == 1


def test_force_finish_in_on_failure_is_a_forced_end(harness: Harness) -> None:
    calls: list[str] = []

    def crash(worker: Any) -> None:
        raise ValueError

    outcome = harness(Recorder(calls, loop=crash, on_failure=lambda w: w.force_finish())).run()
    assert outcome.reason == Shutdown("forced")


def test_after_a_force_finish_that_the_hook_swallows_no_other_hook_runs(harness: Harness) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        try:
            worker.force_finish()
        except BaseException:
            calls.append("swallowed")

    assert harness(Recorder(calls, loop=act)).run().reason == Shutdown("forced")
    assert calls == ["on_start", "before_loop", "loop", "swallowed"]


def test_force_finish_from_another_thread_ends_the_worker_when_the_hook_returns(harness: Harness) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        helper = threading.Thread(target=lambda: (worker.force_finish(), calls.append("helper goes on")))
        helper.start()
        helper.join()

    assert harness(Recorder(calls, loop=act)).run().reason == Shutdown("forced")
    assert calls == ["on_start", "before_loop", "loop", "helper goes on"]


def test_join_after_ends_the_worker_after_that_many_loops(harness: Harness) -> None:
    one = harness(Recorder([]), join_after=5)
    assert one.run().reason == Normal()
    assert one.slot.read().loops == 5


def test_join_in_ends_the_worker_after_that_time(harness: Harness) -> None:
    began = time.monotonic()
    assert harness(Recorder([]), join_in=0.05).run().reason == Normal()
    assert time.monotonic() - began >= 0.05


def test_join_in_ends_a_worker_that_only_waits_for_messages(harness: Harness) -> None:
    class Quiet(Thread):
        def on_receive(self, message: Any) -> None: ...

    assert harness(Quiet(), join_in=0.05).run().reason == Normal()


def test_a_join_in_of_any_size_is_a_time(harness: Harness) -> None:
    one = harness(Recorder([], loop=lambda worker: None), join_in=1e300, join_after=1)
    assert one.run().reason == Normal()
    assert one.lifecycle.context.seconds_left == 1e300


@plain
@pytest.mark.parametrize("seconds", [math.nan, None, "1"])
def test_a_time_to_wait_that_is_none_is_refused(harness: Harness, seconds: Any) -> None:
    def wait(worker: Any) -> None:
        with pytest.raises(ValueError, match=f"wait: seconds must be a number, not {seconds!r}"):
            worker.wait(seconds)
        assert worker.wait(-1) is False

    assert harness(Recorder([], loop=wait), join_after=1).run().reason == Normal()


@plain
def test_join_in_ends_a_wait(harness: Harness) -> None:
    seen: list[bool] = []
    assert harness(Recorder([], loop=lambda w: seen.append(w.wait(60))), join_in=0.05).run().reason == Normal()
    assert seen == [True]


# ---------------------------------------------------------------- waiting
@plain
def test_wait_returns_false_after_its_time(harness: Harness) -> None:
    seen: list[bool] = []
    harness(Recorder([], loop=lambda w: seen.append(w.wait(0.01))), join_after=1).run()
    assert seen == [False]


@plain
def test_wait_ends_when_the_worker_is_asked_to_stop(harness: Harness) -> None:
    seen: list[bool] = []

    def act(worker: Any) -> None:
        threading.Timer(0.02, one.mailbox.order_stop, [Shutdown()]).start()
        seen.append(worker.wait(60))

    one = harness(Recorder([], loop=act))
    assert one.run().reason == Shutdown()
    assert seen == [True]


@plain
def test_wait_ends_when_another_of_its_threads_calls_rejoin(harness: Harness) -> None:
    seen: list[bool] = []

    def act(worker: Any) -> None:
        threading.Timer(0.02, worker.rejoin).start()
        seen.append(worker.wait(60))

    assert harness(Recorder([], loop=act)).run().reason == Normal()
    assert seen == [True]


def test_another_thread_of_the_worker_can_wait_too(harness: Harness) -> None:
    seen: list[bool] = []
    waiting = threading.Event()
    helpers: list[threading.Thread] = []

    def help_out(worker: Any) -> None:
        waiting.set()
        seen.append(worker.wait(60))

    def act(worker: Any) -> None:
        helpers.append(threading.Thread(target=help_out, args=(worker,)))
        helpers[0].start()
        waiting.wait(5)
        worker.rejoin()

    harness(Recorder([], loop=act)).run()
    helpers[0].join(5)
    assert seen == [True]


def test_a_crash_ends_the_waits_of_the_workers_own_threads(harness: Harness) -> None:
    def crash(worker: Any) -> None:
        raise ValueError

    one = harness(Recorder([], loop=crash))
    one.run()
    assert one.worker.wait(60) is True


@plain
def test_messages_that_arrive_during_a_wait_are_handled_afterwards(harness: Harness) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        if worker.current_loop == 1:
            one.tell("x")
            assert worker.wait(0.01) is False

    one = harness(Recorder(calls, loop=act), join_after=2)
    one.run()
    assert calls == ["on_start", *LOOP_HOOKS, "on_receive", *LOOP_HOOKS, "on_finish", "result"]


# ---------------------------------------------------------------- exceptions
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_in_any_hook_is_a_crash_in_that_phase(harness: Harness, hook: str, error: BaseException) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        raise error

    one = harness(Recorder(calls, **{hook: act}), join_after=1)
    one.tell("x")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == (hook, type(error))
    assert "raise error" in reason.traceback
    assert calls[-2:] == [hook, f"on_failure({type(error).__name__})"]
    assert one.was_ready is (hook != "on_start")


@pytest.mark.parametrize("hook", ["on_start", "loop", "on_receive", "on_finish"])
def test_the_traceback_of_a_crash_begins_with_the_code_of_the_program(harness: Harness, hook: str) -> None:
    def act(worker: Any) -> None:
        raise ValueError("no such device")

    one = harness(Recorder([], **{hook: act}), join_after=1)
    one.tell("x")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert "suitkaise/workers" not in reason.traceback
    assert f'File "{__file__}"' in reason.traceback


def test_the_traceback_of_an_error_of_suitkaise_itself_has_all_frames(harness: Harness) -> None:
    class Sets(Thread):
        def on_start(self) -> None:
            self.every = 1  # what the runtime gives; it is noticed once on_start has returned

    reason = harness(Sets()).run().reason
    assert isinstance(reason, Crashed)
    assert "in start" in reason.traceback


def test_an_exception_in_the_constructor_is_a_crash_in_the_constructor(harness: Harness) -> None:
    class Fickle(Thread):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            if self.made == 2:
                raise ValueError("the second time")

    reason = harness(Fickle()).run().reason
    assert isinstance(reason, Crashed)
    assert reason.phase == "__init__"


def test_an_exception_in_on_failure_shows_both_errors(harness: Harness) -> None:
    def crash(worker: Any) -> None:
        raise ValueError("first")

    def crash_again(worker: Any) -> None:
        raise KeyError("second")

    reason = harness(Recorder([], loop=crash, on_failure=crash_again)).run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("on_failure", KeyError)
    assert "first" in reason.traceback
    assert "second" in reason.traceback


def test_an_exception_that_cannot_be_printed_is_still_a_crash(harness: Harness) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say")

    def crash(worker: Any) -> None:
        raise Unspeakable

    reason = harness(Recorder([], loop=crash)).run().reason
    assert isinstance(reason, Crashed)
    assert "Unspeakable" in str(reason)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "code, reason", [(None, Normal()), (0, Normal()), (3, ExitCode(3)), (True, ExitCode(1)), ("text", ExitCode(1))]
)
def test_sys_exit_in_any_hook_is_an_exit_code_and_no_failure(
    harness: Harness, hook: str, code: Any, reason: Any
) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        raise SystemExit(code)

    one = harness(Recorder(calls, **{hook: act}), join_after=1)
    one.tell("x")
    assert str(one.run().reason) == str(reason)
    assert calls[-1] == hook


def test_ignore_in_on_start_is_no_failure_and_no_start(harness: Harness) -> None:
    calls: list[str] = []

    def act(worker: Any) -> None:
        raise Ignore("not today")

    one = harness(Recorder(calls, on_start=act))
    outcome = one.run()
    assert (outcome.reason, outcome.ignored, one.was_ready) == (Normal(), True, False)
    assert calls == ["on_start"]


def test_ignore_in_another_hook_is_a_crash(harness: Harness) -> None:
    def act(worker: Any) -> None:
        raise Ignore

    assert isinstance(harness(Recorder([], loop=act)).run().reason, Crashed)


def test_a_reserved_name_that_is_assigned_in_on_start_is_a_crash(harness: Harness) -> None:
    reason = harness(Recorder([], on_start=lambda w: setattr(w, "wait", 1))).run().reason
    assert isinstance(reason, Crashed)
    assert "Recorder.wait is given by the runtime" in str(reason)


# ---------------------------------------------------------------- the result
def test_the_result_is_by_default_what_the_last_loop_returned(harness: Harness) -> None:
    class Double(Thread):
        def loop(self) -> int:
            return self.current_loop * 2

    assert value(harness(Double(), join_after=3).run()) == 6


def test_an_attribute_result_is_the_result_of_a_worker_without_the_hook(harness: Harness) -> None:
    class Assigns(Thread):
        def loop(self) -> str:
            self.result = self.current_loop  # type: ignore[assignment,method-assign]
            return "of the loop"

    assert value(harness(Assigns(), join_after=3).run()) == 3


def test_a_value_of_the_class_is_the_result_until_the_worker_assigns_another(harness: Harness) -> None:
    class Counts(Thread):
        result = 0  # type: ignore[assignment]

        def __init__(self, first: int | None = None) -> None:
            if first is not None:
                self.result = first  # type: ignore[method-assign,assignment]

        def loop(self) -> str:
            return "of the loop"

    class CountsLoops(Counts):
        def loop(self) -> str:
            self.result = self.current_loop  # type: ignore[method-assign,assignment]
            return "of the loop"

    workers = (Counts(), Counts(7), CountsLoops())
    assert [value(harness(worker, join_after=2).run()) for worker in workers] == [0, 7, 2]


def test_a_property_result_is_the_result(harness: Harness) -> None:
    class Sum(Thread):
        total = 0

        def loop(self) -> None:
            self.total += self.current_loop

        @property
        def result(self) -> int:  # type: ignore[override]
            return self.total

    assert value(harness(Sum(), join_after=3).run()) == 6


def test_the_result_is_made_after_on_finish(harness: Harness) -> None:
    class Sum(Thread):
        def on_start(self) -> None:
            self.total = 0

        def loop(self) -> None:
            self.total += 1

        def on_finish(self) -> None:
            self.total += 100

        def result(self) -> int:
            return self.total

    assert value(harness(Sum(), join_after=3).run()) == 103


def test_a_result_may_extend_the_default(harness: Harness) -> None:
    class Built(Thread):
        def loop(self) -> int:
            return 7

        def result(self) -> Any:
            return ["built", super().result()]

    assert value(harness(Built(), join_after=1).run()) == ["built", 7]


def test_a_stopped_worker_has_a_result_too(harness: Harness) -> None:
    one = harness(Recorder([], loop=lambda w: one.mailbox.order_stop(Shutdown()) or 5))
    assert value(one.run()) == 5


# ---------------------------------------------------------------- messages
class Calculator(Thread):
    """A worker with methods; it never loops."""

    limit = 3

    def __init__(self, handle: Any = None) -> None:
        self.handle = handle

    def on_receive(self, message: Any) -> Any:
        return self.handle(self, message) if self.handle else message

    def add(self, one: int, other: int = 1) -> int:
        return one + other

    def _secret(self) -> None: ...

    def locked(self) -> Any:
        raise Reject(PermissionError("locked"))

    def broken(self) -> Any:
        raise ValueError("broken")

    def end(self) -> str:
        self.rejoin()
        return "bye"


def test_an_asker_gets_the_returned_value_of_the_handler(harness: Harness) -> None:
    one = harness(Calculator())
    answers = [one.ask({"a": 1}), one.call("add", 2), one.call("add", 2, other=5), one.ask("limit", "get")]
    one.call("end")
    one.run()
    assert [answer.get(0) for answer in answers] == [{"a": 1}, 3, 7, 3]


def test_s85_an_ask_whose_time_is_over_is_not_handled_but_skipped(harness: Harness) -> None:
    class Echo(Thread):
        def on_receive(self, message: Any) -> Any:
            if message == "stop":
                self.rejoin()
            return message, limited(None) is not None, limited(0.0)

    one = harness(Echo())
    late = one.ask("late", deadline=time.monotonic() - 1.0)
    early, endless = one.ask("early", deadline=time.monotonic() + 600.0), one.ask("stop")
    one.run()
    with pytest.raises(AskTimeout, match="did not begin to handle the message in time"):
        late.get(0)
    assert early.get(0) == ("early", True, 0.0)
    assert endless.get(0) == ("stop", False, 0.0)
    view = one.slot.read()
    assert (view.messages, view.skipped) == (2, 1)
    assert limited(None) is None  # outside of any handler


def test_a_handler_that_rejects_answers_the_asker_and_leaves_the_worker_alive(harness: Harness) -> None:
    def refuse(worker: Any, message: Any) -> None:
        raise Reject({"no": PermissionError(message), "class": LookupError}.get(message, "just text"))

    one = harness(Calculator(refuse))
    answers = [one.ask("no"), one.ask("text"), one.call("locked"), one.ask("class"), one.call("end")]
    assert one.run().reason == Normal()
    with pytest.raises(PermissionError, match="no"):
        answers[0].get(0)
    with pytest.raises(SuitkaiseError, match="just text"):
        answers[1].get(0)
    with pytest.raises(PermissionError, match="locked"):
        answers[2].get(0)
    with pytest.raises(LookupError):
        answers[3].get(0)
    assert answers[4].get(0) == "bye"


@pytest.mark.parametrize(
    "call, error, says",
    [
        (("nothing", (), {}), AttributeError, "Calculator has no public attribute 'nothing'"),
        (("_secret", (), {}), AttributeError, "Calculator has no public attribute '_secret'"),
        (("add", (), {}), TypeError, r"add\(\): missing a required argument: 'one'"),
        (("add", (1, 2, 3), {}), TypeError, r"add\(\): too many positional arguments"),
        (("add", (1,), {"nope": 1}), TypeError, r"add\(\): got an unexpected keyword argument 'nope'"),
        (("limit", (), {}), TypeError, r"'limit' is not a method; read it with proxy.limit.get\(\)"),
    ],
)
def test_an_invalid_call_answers_the_asker_and_leaves_the_worker_alive(
    harness: Harness, call: Any, error: type[Exception], says: str
) -> None:
    one = harness(Calculator())
    answer = one.ask(call, "call")
    end = one.call("end")
    assert one.run().reason == Normal()
    with pytest.raises(error, match=says):
        answer.get(0)
    assert end.get(0) == "bye"


def test_a_call_of_a_method_whose_decorator_gives_an_argument_is_no_invalid_one(harness: Harness) -> None:
    def with_ten(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *args: Any) -> Any:
            return method(self, 10, *args)

        return call

    class Decorated(Calculator):
        @with_ten
        def plus(self, ten: int, more: int) -> int:
            return ten + more

        @functools.singledispatchmethod
        def kind(self, value: object) -> str:
            return "object"

        @kind.register
        def _(self, value: int) -> str:
            return "int"

        @functools.lru_cache  # noqa: B019
        def double(self, number: int) -> int:
            return 2 * number

    one = harness(Decorated())
    answers = [one.call("plus", 5), one.call("kind", 1), one.call("kind", "a"), one.call("double", 4)]
    wrong = one.call("double")
    end = one.call("end")
    assert one.run().reason == Normal()
    assert [answer.get(0) for answer in answers] == [15, "int", "object", 8]
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        wrong.get(0)
    assert end.get(0) == "bye"


def test_the_error_of_a_property_is_shown_also_if_it_is_an_attribute_error(harness: Harness) -> None:
    class Broken(Calculator):
        @property
        def total(self) -> int:
            return self.totl  # type: ignore[attr-defined,no-any-return]

    one = harness(Broken())
    answer = one.ask("total", "get")
    assert "no attribute 'totl'" in str(one.run().reason)
    with pytest.raises(AttributeError, match="no attribute 'totl'"):
        answer.get(0)


def test_a_message_for_a_worker_without_on_receive_answers_the_asker(harness: Harness) -> None:
    class Deaf(Thread):
        def loop(self) -> None: ...

    one = harness(Deaf(), join_after=1)
    answer = one.ask("hello")
    assert one.run().reason == Normal()
    with pytest.raises(SuitkaiseError, match="has no on_receive"):
        answer.get(0)


def test_an_exception_in_a_handler_kills_the_worker_and_reaches_the_asker(harness: Harness) -> None:
    one = harness(Calculator())
    answer, behind = one.call("broken"), one.ask("never")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("on_receive", ValueError)
    with pytest.raises(ValueError, match="broken") as raised:
        answer.get(0)
    assert "remote traceback" in "".join(raised.value.__notes__)
    with pytest.raises(WorkerDead, match="ended before it handled the message: ValueError"):
        behind.get(0)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def frozen() -> Exception:
    return Frozen(5)


def noted() -> Exception:
    error = ValueError(5)
    error.__notes__ = 5  # type: ignore[assignment]
    return error


@pytest.mark.parametrize("error", [frozen, noted])
def test_an_exception_that_takes_no_notes_is_a_crash_and_reaches_the_asker(
    harness: Harness, error: Callable[[], Exception]
) -> None:
    def fail(worker: Any, message: Any) -> None:
        raise error()

    one = harness(Calculator(fail))
    answer = one.ask("x")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("on_receive", type(error()))
    with pytest.raises(type(error())):
        answer.get(0)


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("cannot say")


def test_a_refusal_without_a_text_answers_the_asker_and_leaves_the_worker_alive(harness: Harness) -> None:
    def refuse(worker: Any, message: Any) -> None:
        raise Reject(Unspeakable())

    one = harness(Calculator(refuse))
    answer = one.ask("x")
    one.call("end")
    one.run()
    with pytest.raises(WorkerFailed, match="Unspeakable: its text could not be made: RuntimeError"):
        answer.get(0)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt("now")])
def test_an_internal_error_is_a_crash_of_the_worker_and_its_asker_is_told(
    harness: Harness, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    one = harness(Calculator())
    monkeypatch.setattr(one.lifecycle.context.replies, "settle", fail)
    answer, behind = one.ask("x"), one.ask("never")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("on_receive", SuitkaiseError)
    assert f"internal error: {type(error).__name__}" in str(reason)
    assert "in fail" in reason.traceback
    with pytest.raises(WorkerDead, match="died before it answered: SuitkaiseError in on_receive: internal error"):
        answer.get(0)
    with pytest.raises(WorkerDead, match="ended before it handled the message"):
        behind.get(0)


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()])
def test_an_asker_is_answered_when_the_handler_exits(harness: Harness, end: BaseException) -> None:
    def leave(worker: Any, message: Any) -> None:
        raise end

    one = harness(Calculator(leave))
    answer = one.ask("x")
    one.run()
    with pytest.raises(WorkerDead, match="died before it answered"):
        answer.get(0)


def test_an_asker_is_answered_when_the_handler_forces_the_end(harness: Harness) -> None:
    one = harness(Calculator(lambda worker, message: worker.force_finish()))
    answer = one.ask("x")
    one.run()
    with pytest.raises(WorkerDead, match="died before it answered"):
        answer.get(0)


def test_an_answer_that_cannot_be_sent_is_an_error_for_the_asker_only(harness: Harness) -> None:
    from suitkaise.messaging.messages import Message, Payload

    replies: list[tuple[bool, Any]] = []

    def reply(ok: bool, parcel: Payload) -> None:  # as a process does it
        parcel.data  # noqa: B018
        replies.append((ok, parcel.value))

    one = harness(Calculator(lambda worker, message: threading.Lock()))
    one.mailbox.put(Message("message", Payload("x"), reply))
    end = one.call("end")
    assert one.run().reason == Normal()
    [(ok, error)] = replies
    assert not ok
    assert isinstance(error, NotSerializable)
    assert end.get(0) == "bye"


def test_a_message_that_cannot_be_decoded_answers_the_asker(harness: Harness) -> None:
    from suitkaise.messaging.answer import Answer
    from suitkaise.messaging.messages import Message, Payload

    one = harness(Calculator())
    answer: Answer[Any] = Answer()
    one.mailbox.put(Message("message", Payload(data=b"rubbish"), answer.settle))
    one.call("end")
    assert one.run().reason == Normal()
    with pytest.raises(Exception, match=r"."):
        answer.get(0)


def test_an_invalid_call_without_an_asker_is_dropped(harness: Harness) -> None:
    one = harness(Calculator())
    one.tell(("nothing", (), {}), "call")
    one.call("end")
    assert one.run().reason == Normal()


def test_messages_are_handled_between_loops(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, loop=lambda w: one.tell("x") if w.current_loop == 1 else None), join_after=2)
    one.run()
    assert calls == ["on_start", *LOOP_HOOKS, "on_receive", *LOOP_HOOKS, "on_finish", "result"]


def test_messages_that_arrive_before_the_first_loop_are_handled_before_the_loop(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls), join_after=1)
    one.tell("x")
    one.run()
    assert calls == ["on_start", "on_receive", *LOOP_HOOKS, "on_finish", "result"]


def test_a_flood_of_messages_does_not_starve_the_loop(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, on_receive=lambda w: one.tell("again")), join_after=5)
    one.tell("first")
    one.run()
    assert [hook for hook in calls if hook in ("loop", "on_receive")] == ["on_receive", "loop"] * 5


def test_a_busy_loop_does_not_starve_messages(harness: Harness) -> None:
    calls: list[str] = []
    one = harness(Recorder(calls, loop=lambda w: [one.tell(n) for n in range(3)]), join_after=3)
    one.run()
    assert [hook for hook in calls if hook in ("loop", "on_receive")] == (["loop"] + ["on_receive"] * 3) * 2 + ["loop"]


def test_a_stop_request_precedes_messages_and_their_askers_get_an_error(harness: Harness) -> None:
    one = harness(Calculator(lambda worker, message: one.mailbox.order_stop(Shutdown())))
    first, second = one.ask(1), one.ask(2)
    one.run()
    assert first.get(0) is None
    with pytest.raises(WorkerDead, match="ended before it handled the message: shutdown"):
        second.get(0)


def test_the_board_counts_the_messages_that_still_wait(harness: Harness) -> None:
    seen: list[int] = []
    one = harness(Calculator(lambda worker, message: seen.append(one.slot.read().queued)))
    for number in range(3):
        one.tell(number)
    one.call("end")
    one.run()
    assert seen == [3, 2, 1]


# ------------------------------------------------------------ messages before the end
class Drained(Thread):
    """Notes its messages and hooks; the message `rejoin` ends it."""

    def __init__(self, calls: list[Any], on_message: Any = None, drain: float | None = None) -> None:
        self.calls = calls
        self.on_message = on_message
        self.seconds = drain

    def on_receive(self, message: Any) -> None:
        self.calls.append(message)
        if message == "rejoin":
            self.rejoin(drain=self.seconds)
        if self.on_message is not None:
            self.on_message(message)

    def on_finish(self) -> None:
        self.calls.append("on_finish")


class DrainedLoop(Drained):
    def loop(self) -> None:
        self.calls.append("loop")
        if self.seconds is not None:
            self.rejoin(drain=self.seconds)
            self.on_message("loop")


def test_s72_messages_are_handled_before_on_finish_for_the_time_of_the_order(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(Drained(calls))
    one.mailbox.order_stop(Shutdown(), 60.0)
    for number in range(3):
        one.tell(number)
    assert one.run().reason == Shutdown()
    assert calls == [0, 1, 2, "on_finish"]


def test_s72_messages_that_come_while_others_are_drained_are_handled_too(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(Drained(calls, lambda message: message < 5 and one.tell(message + 1)))
    one.mailbox.order_stop(Shutdown(), 60.0)
    one.tell(0)
    one.run()
    assert calls == [0, 1, 2, 3, 4, 5, "on_finish"]


def test_s72_without_time_to_drain_no_message_is_handled_after_the_order(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(Drained(calls))
    one.mailbox.order_stop(Shutdown(), 0.0)
    one.tell(0)
    one.run()
    assert calls == ["on_finish"]


def test_s72_the_time_to_drain_has_an_end(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(Drained(calls, lambda message: one.tell(message + 1)))  # it would go on for ever
    one.mailbox.order_stop(Shutdown(), 0.2)
    one.tell(0)
    one.run()
    assert calls[0] == 0
    assert calls[-1] == "on_finish"


def test_s72_a_later_order_shortens_the_time_to_drain_and_never_prolongs_it(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(Drained(calls))
    one.mailbox.order_stop(Shutdown("first"), 60.0)
    one.mailbox.order_stop(Shutdown(), None)
    one.tell(0)
    one.tell("rejoin")
    one.tell(1)
    assert one.run().reason == Shutdown("first")
    assert calls == [0, "rejoin", 1, "on_finish"]

    del calls[:]
    two = harness(Drained(calls))
    two.mailbox.order_stop(Shutdown(), 0.0)
    two.mailbox.order_stop(Shutdown(), 60.0)
    two.tell(0)
    two.run()
    assert calls == ["on_finish"]


@pytest.mark.parametrize("given", ["the call", "the child"])
def test_s72_rejoin_drains_for_the_time_of_the_call_or_of_the_child(harness: Harness, given: str) -> None:
    calls: list[Any] = []
    one = harness(
        Drained(calls, drain=60.0 if given == "the call" else None), drain=60.0 if given == "the child" else 0.0
    )
    for message in ("rejoin", 1, 2):
        one.tell(message)
    assert one.run().reason == Normal()
    assert calls == ["rejoin", 1, 2, "on_finish"]


def test_s72_rejoin_in_a_loop_drains_without_another_loop(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(DrainedLoop(calls, lambda what: what == "loop" and one.tell(2), drain=60.0))
    one.tell(1)
    one.run()
    assert calls == [1, "loop", 2, "on_finish"]


def test_s72_a_worker_at_its_limit_of_loops_drains_for_the_time_of_its_child(harness: Harness) -> None:
    calls: list[Any] = []
    one = harness(DrainedLoop(calls, lambda message: message == 1 and one.tell(2)), join_after=1, drain=60.0)
    one.tell(1)
    assert one.run().reason == Normal()
    assert calls == [1, "loop", 2, "on_finish"]


def test_s72_the_rest_is_not_drained_after_a_crash_or_a_forced_end(harness: Harness) -> None:
    calls: list[Any] = []

    def fail(message: Any) -> None:
        raise ValueError("crash")

    one = harness(Drained(calls, fail), drain=60.0)
    one.tell(1)
    one.tell(2)
    assert isinstance(one.run().reason, Crashed)
    assert calls == [1]
    del calls[:]
    two = harness(Drained(calls, lambda message: two.worker.force_finish()), drain=60.0)
    two.tell(1)
    two.tell(2)
    assert two.run().reason == Shutdown("forced")
    assert calls == [1]


@pytest.mark.parametrize("drain", [-1, "2", True, float("nan"), float("inf")])
def test_s72_a_drain_that_is_no_time_is_refused(harness: Harness, drain: Any) -> None:
    calls: list[Any] = []
    errors: list[SpecError] = []

    def refuse(message: Any) -> None:
        with pytest.raises(SpecError, match="drain must be seconds >= 0") as refused:
            one.worker.rejoin(drain=drain)
        errors.append(refused.value)
        one.worker.rejoin()

    one = harness(Drained(calls, refuse))
    one.tell(1)
    one.run()
    assert len(errors) == 1


def test_a_worker_that_was_abandoned_takes_part_in_no_deadlock(harness: Harness) -> None:
    alone: list[bool | None] = []

    def loop(worker: Any) -> None:
        alone.append(handles_alone())
        one.lifecycle.interrupt(Shutdown())
        alone.append(handles_alone())

    one = harness(Recorder([], loop=loop), join_after=1)
    one.run()
    assert alone == [True, False]


class Counts(Thread):
    def __init__(self, start: int) -> None:
        self.count = start
        self.seen: dict[str, int] = {}

    def on_start(self) -> None:
        self.upto = self.count + 3

    def loop(self) -> None:
        self.count += 1
        if self.count == self.upto:
            self.rejoin()

    def on_receive(self, message: str) -> None:
        self.seen[message] = self.current_loop

    def on_finish(self) -> None:
        self.has_made_its_dict = has_made_its_dict(self)


def has_made_its_dict(worker: Any) -> bool:
    """Return whether `worker.__dict__` was asked for: each assignment takes longer from then on."""
    context = worker._worker_context
    return any(type(one) is dict and one.get("_worker_context") is context for one in gc.get_objects())


def test_the_runtime_does_not_ask_a_running_worker_for_its_dict(harness: Harness) -> None:
    one = harness(Counts(4))
    one.tell("first")
    one.run()
    assert (one.worker.count, one.worker.seen, one.worker.name) == (7, {"first": 0}, "worker")
    assert not one.worker.has_made_its_dict
    assert one.worker.__dict__["count"] == 7
    assert has_made_its_dict(one.worker)


class NamedByProperty(Counts):
    @property
    def name(self) -> str:  # type: ignore[override]
        return f"from {self.count}"


class NamedByClass(Counts):
    name = "of the class"


class NamedByConstructor(Counts):
    def __init__(self, start: int, name: str | None) -> None:
        super().__init__(start)
        self.name = name


@pytest.mark.parametrize(
    "worker, name",
    [
        (NamedByProperty(1), "from 4"), (NamedByClass(1), "worker"),
        (NamedByConstructor(1, "own"), "own"), (NamedByConstructor(1, None), "worker"),
    ],
)  # fmt: skip
def test_the_name_is_the_last_part_of_the_path_unless_the_class_gives_another(
    harness: Harness, worker: Counts, name: str
) -> None:
    one = harness(worker)
    assert one.run().reason == Normal()
    assert one.worker.name == name


def test_get_current_loop_cannot_be_assigned(harness: Harness) -> None:
    reason = harness(Recorder([], loop=lambda w: setattr(w, "get_current_loop", 1))).run().reason
    assert isinstance(reason, Crashed)
    assert "Recorder.get_current_loop is given by the runtime" in str(reason)

"""Refs and proxies, with a router that records the requests."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import math
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from suitkaise import AskTimeout, Status, SupervisorRef, WorkerRef, whereis, whereis_all
from suitkaise.errors import ChildNotFound, DeadlockError, NotSerializable, RuntimeGone, WorkerDead, WorkerFailed
from suitkaise.exits import Normal
from suitkaise.messaging import codec, router, tracing
from suitkaise.messaging.answer import STEP, Answer
from suitkaise.messaging.groups import Group
from suitkaise.messaging.identity import set_own_thread
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.topics import unsubscribe
from tests.support import GRACE, alarms, in_background, interrupted_at_each_line


class RecordingRouter:
    """Records all requests, and gives the answers that a test has set."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.answers: dict[str, Any] = {}
        self.confirmed: list[str] = []
        self.left: list[str] = []
        self.accepts = True
        self.reply: Any = lambda message: message.reply(True, Payload("fine"))

    def request(self, kind: str, path: str, argument: Any = None) -> Answer[Any]:
        self.requests.append((kind, path))
        answer: Answer[Any] = Answer()
        given = self.answers.get(kind)
        if isinstance(given, Exception):
            answer.set_exception(given)
        elif kind in self.answers:
            answer.set_result(given)
        return answer

    def holds_back(self, path: str, value: Any) -> bool:
        return False

    def send(self, path: str, message: Message) -> bool:
        self.sent.append((path, message.kind, message.body.value))
        if message.reply is not None:
            self.reply(message)
        return True

    def post(self, path: str, message: Message, *, waits: bool = False) -> None:
        self.send(path, message)

    def in_use(self) -> list[str]:
        return []

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        return False

    def leave(self, path: str) -> None:
        self.left.append(path)

    def confirm(self, path: str, until: float) -> bool:
        self.confirmed.append(path)
        return self.accepts

    def flush(self, until: float) -> int:
        return 0 if self.accepts else 2

    def ask(self, path: str, payload: Payload, timeout: float | None, carrier: object) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.send(path, Message("message", payload, answer.settle))
        return answer


@pytest.fixture
def recorder() -> Iterator[RecordingRouter]:
    before, recorder = router._router, RecordingRouter()
    router.set_router(recorder)
    yield recorder
    router.set_router(before)


@pytest.fixture
def ref(recorder: RecordingRouter) -> WorkerRef:
    return WorkerRef("tree/one")


def test_tell_sends_and_goes_on(recorder: RecordingRouter, ref: WorkerRef) -> None:
    ref.tell({"a": 1})
    assert recorder.sent == [("tree/one", "message", {"a": 1})]
    assert recorder.confirmed == []


def test_tell_waits_until_the_message_is_accepted_if_it_shall(recorder: RecordingRouter, ref: WorkerRef) -> None:
    ref.tell(1, confirm=True)
    assert recorder.confirmed == ["tree/one"]
    recorder.accepts = False
    with pytest.raises(AskTimeout, match=r"'tree/one' has not accepted the message within 5\.0 s"):
        ref.tell(2, confirm=True)


def test_flush_tells_how_many_messages_are_not_accepted(recorder: RecordingRouter) -> None:
    router.flush()
    recorder.accepts = False
    with pytest.raises(AskTimeout, match=r"2 told messages were not accepted within 0\.5 s"):
        router.flush(timeout=0.5)
    with pytest.raises(TypeError, match="timeout must be seconds"):
        router.flush(timeout="soon")  # type: ignore[arg-type]


def test_flush_waits_for_nothing_where_no_tree_runs() -> None:
    before = router._router
    router.set_router(None)
    try:
        router.flush()
    finally:
        router.set_router(before)


def test_ask_returns_the_answer(recorder: RecordingRouter, ref: WorkerRef) -> None:
    assert ref.ask("how are you?") == "fine"


def test_ask_raises_what_the_handler_raised(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: message.fail(PermissionError("no"))
    with pytest.raises(PermissionError, match="no"):
        ref.ask("x")


def test_ask_raises_when_no_answer_comes_in_time(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: None
    with pytest.raises(AskTimeout, match=r"'tree/one' did not answer within 0.01 s") as raised:
        ref.ask("x", timeout=0.01)
    assert raised.value.path == "tree/one"
    assert raised.value.__suppress_context__  # it is shown alone, without the errors that led to it


@pytest.mark.parametrize("wrong", ["soon", math.nan, True, [1]])
def test_s45_an_invalid_timeout_is_refused_before_anything_happens(
    recorder: RecordingRouter, ref: WorkerRef, wrong: Any
) -> None:
    for waiting in (lambda: ref.ask("x", timeout=wrong), lambda: ref.recall(timeout=wrong), lambda: ref.join(wrong)):
        with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not "):
            waiting()
    assert (recorder.sent, recorder.requests) == ([], [])


@pytest.mark.parametrize("wrong", ["soon", math.nan, True, [1]])
def test_s45_an_answer_refuses_an_invalid_timeout_also_if_it_is_there_already(wrong: Any) -> None:
    there: Answer[str] = Answer()
    there.set_result("fine")
    for waiting in (there.result, there.exception, there.get, Answer().result, Answer().exception):
        with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not "):
            waiting(wrong)
    assert (there.result(math.inf), there.exception(0)) == ("fine", None)


def test_s45_a_group_refuses_an_invalid_timeout_before_it_chooses_a_member(recorder: RecordingRouter) -> None:
    with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not 'soon'"):
        Group("resizers").ask("x", timeout="soon")  # type: ignore[arg-type]
    assert recorder.requests == []


def test_s45_an_infinite_timeout_waits_for_ever(recorder: RecordingRouter, ref: WorkerRef) -> None:
    assert ref.ask("x", timeout=math.inf) == "fine"


def test_a_timeout_error_of_the_handler_is_not_an_ask_timeout(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: message.fail(TimeoutError("the database"))
    with pytest.raises(TimeoutError, match="the database") as raised:
        ref.ask("x")
    assert not isinstance(raised.value, AskTimeout)


class NoErrors(Exception):
    """A collection of errors, which is empty."""

    def __len__(self) -> int:
        return 0


def test_an_error_that_counts_as_false_is_raised_all_the_same() -> None:
    answer: Answer[None] = Answer()
    answer.settle(False, Payload(NoErrors("all is well")))
    for get in (answer.get, answer.result):
        with pytest.raises(NoErrors, match="all is well"):
            get()


def test_an_error_that_comes_after_a_long_wait_shows_no_time_out() -> None:
    answer: Answer[int] = Answer()
    timer = threading.Timer(STEP * 1.5, answer.set_exception, [LookupError("nothing here")])
    timer.start()
    with pytest.raises(LookupError) as raised:
        answer.get(10)
    timer.join()
    assert raised.value.__context__ is None


def test_an_answer_that_comes_just_after_the_time_out_is_still_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: Answer[int] = Answer()
    with monkeypatch.context() as patch:
        patch.setattr(Answer, "_wait_for", lambda self, timeout: self.done() or self.set_result(7))
        assert answer.get(0.01) == 7


def test_an_answer_can_be_awaited(recorder: RecordingRouter, ref: WorkerRef) -> None:
    async def main() -> Any:
        return await ref.ask_future("x")

    assert asyncio.run(main()) == "fine"


def test_an_answer_that_comes_later_from_another_thread_can_be_awaited(
    recorder: RecordingRouter, ref: WorkerRef
) -> None:
    timers: list[threading.Timer] = []

    def reply(message: Message) -> None:
        timers.append(threading.Timer(0.01, message.reply, (True, Payload("late"))))
        timers[0].start()

    recorder.reply = reply

    async def main() -> Any:
        return await asyncio.wait_for(ref.ask_future("x"), 5)

    assert asyncio.run(main()) == "late"
    timers[0].join()


def test_a_stop_iteration_of_the_handler_ends_an_await_as_it_ends_a_coroutine() -> None:
    answer: Answer[Any] = Answer()

    async def main() -> None:
        await asyncio.wait_for(answer, 5)

    answer.settle(False, Payload(data=Payload(StopIteration("no more")).data))
    with pytest.raises(RuntimeError, match="StopIteration") as raised:
        asyncio.run(main())
    assert isinstance(raised.value.__cause__, StopIteration)
    with pytest.raises(StopIteration, match="no more"):
        answer.get()


def test_only_the_first_answer_counts(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: (message.reply(True, Payload(1)), message.reply(True, Payload(2)))
    assert ref.ask("x") == 1


def test_an_answer_that_was_cancelled_is_dropped(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: None
    answer = ref.ask_future("x")
    answer.cancel()
    answer.settle(True, Payload(1))
    assert answer.cancelled()


def test_an_answer_cannot_be_sent(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: None
    with pytest.raises(NotSerializable, match=r"value\[0\]: .*an answer belongs to the process that has asked; send"):
        codec.dumps([ref.ask_future("x")])


def test_an_answer_that_is_cancelled_ends_the_waits_for_several_answers(
    recorder: RecordingRouter, ref: WorkerRef
) -> None:
    recorder.reply = lambda message: None
    answers = [ref.ask_future("x") for _ in range(3)]
    assert answers[0].cancel()
    assert answers[0].cancel()
    waits = in_background(lambda: concurrent.futures.wait(answers[1:], GRACE))
    answers[1].cancel()
    answers[2].settle(True, Payload(1))
    done, waiting = waits.result(GRACE)
    assert (len(done), len(waiting)) == (2, 0)
    assert set(concurrent.futures.as_completed(answers, GRACE)) == set(answers)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_an_answer_that_comes_just_as_the_wait_ends_is_decoded(seconds: float) -> None:
    class Late(Answer[Any]):
        """Gets its answer when its wait has ended in vain."""

        outcome_to_come: tuple[bool, Any]

        def _wait(self, seconds: float | None) -> bool:
            came = super()._wait(0.0)
            ok, value = self.outcome_to_come
            self.settle(ok, Payload(data=codec.dumps(value)))
            return came

    right, wrong, wrong_too = Late(), Late(), Late()
    right.outcome_to_come = True, 42
    wrong.outcome_to_come = wrong_too.outcome_to_come = False, ValueError("no")
    assert right.result(seconds) == 42
    with pytest.raises(ValueError, match=r"^no$"):
        wrong.get(seconds)
    assert isinstance(wrong_too.exception(seconds), ValueError)


def test_an_answer_that_cannot_be_decoded_is_an_error_for_the_asker(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.reply = lambda message: message.reply(True, Payload(data=b"rubbish"))
    with pytest.raises(WorkerFailed, match="the answer cannot be decoded here: UnpicklingError: "):
        ref.ask("x")


def test_a_worker_that_asks_itself_gets_a_deadlock_error(recorder: RecordingRouter, ref: WorkerRef) -> None:
    set_own_thread("tree/one")
    try:
        with pytest.raises(DeadlockError, match="asks itself"):
            ref.ask("x")
        ref.tell("x")
        assert WorkerRef("tree/one-more").ask("x") == "fine"
    finally:
        set_own_thread("")


def test_status_and_pid_are_requested_each_time(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.answers["info"] = ("running", 123, 4, "process")
    assert (ref.status, ref.pid, ref.incarnation, ref.is_alive()) == (Status.RUNNING, 123, 4, True)
    recorder.answers["info"] = ("restarting", None, 4, "process")
    assert (ref.status, ref.pid, ref.is_alive()) == (Status.RESTARTING, None, False)
    assert recorder.requests == [("info", "tree/one")] * 7


@pytest.mark.parametrize("status", [status for status in Status if status.value not in (
    "starting", "running", "suspended", "stopping")])  # fmt: skip
def test_a_worker_in_these_states_is_not_alive(recorder: RecordingRouter, ref: WorkerRef, status: Status) -> None:
    recorder.answers["info"] = (status.value, None, 1, "process")
    assert not ref.is_alive()


@pytest.mark.parametrize("method", ["kill", "rejoin", "recall"])
def test_kill_rejoin_and_recall_are_requests(recorder: RecordingRouter, ref: WorkerRef, method: str) -> None:
    recorder.answers[method] = None
    getattr(ref, method)()
    assert recorder.requests == [(method, "tree/one")]
    assert recorder.left == (["tree/one"] if method == "kill" else [])


def test_join_and_result_wait_for_the_end(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.answers.update(join=Normal(), result=42)
    assert (ref.join(), ref.result()) == (Normal(), 42)


@pytest.mark.parametrize("wait", ["join", "result"])
def test_waiting_for_the_end_takes_a_time_out(recorder: RecordingRouter, ref: WorkerRef, wait: str) -> None:
    with pytest.raises(AskTimeout, match=r"'tree/one' still runs after 0.01 s"):
        getattr(ref, wait)(timeout=0.01)


def test_a_recall_that_takes_too_long_says_what_it_waited_for(recorder: RecordingRouter, ref: WorkerRef) -> None:
    with pytest.raises(AskTimeout, match=r"'tree/one' is not up after 0.01 s; its recall goes on") as caught:
        ref.recall(timeout=0.01)
    assert caught.value.path == "tree/one"


def test_errors_of_the_router_are_raised(recorder: RecordingRouter, ref: WorkerRef) -> None:
    recorder.answers["result"] = WorkerDead("over")
    with pytest.raises(WorkerDead):
        ref.result()


def test_a_ref_is_its_path(ref: WorkerRef) -> None:
    other = WorkerRef("tree/one")
    assert ref == other
    assert len({ref, other, WorkerRef("tree/two")}) == 2
    assert (ref.name, repr(ref)) == ("one", "WorkerRef('tree/one')")
    assert ref != "tree/one"


def test_a_ref_can_be_sent_and_copied(ref: WorkerRef) -> None:
    assert pickle.loads(pickle.dumps(ref)) == copy.deepcopy(ref) == ref


@pytest.mark.parametrize("path", [5, None, b"app/one", Path("app/one")])
def test_a_path_that_is_no_text_is_refused_before_it_is_sent(recorder: RecordingRouter, path: Any) -> None:
    for use in (WorkerRef, whereis, whereis_all):
        with pytest.raises(TypeError, match=f", a str, not {re.escape(repr(path))}"):
            use(path)
    with pytest.raises(ValueError, match="a pattern of topics must be a text"):
        unsubscribe(path, "app/one#1")
    with pytest.raises(ValueError, match="the name of a group must be a text"):
        Group(path)
    assert recorder.requests == []


@pytest.mark.parametrize("timeout", [None, 15.0])
def test_a_timeout_of_an_alarm_is_not_taken_for_that_of_the_answer(timeout: float | None) -> None:
    def ring(*_: object) -> None:
        raise TimeoutError("of an alarm")

    answer: Answer[int] = Answer()
    with pytest.raises(TimeoutError, match="of an alarm") as raised:
        with alarms(ring, 0.2):
            answer.get(timeout)
    assert type(raised.value) is TimeoutError


def test_an_answer_that_is_a_timeout_is_raised_as_that() -> None:
    answer: Answer[int] = Answer()
    answer.set_exception(TimeoutError("of the handler"))
    with pytest.raises(TimeoutError, match="of the handler") as raised:
        answer.get(0.0)
    assert type(raised.value) is TimeoutError


def test_whereis_finds_or_raises(recorder: RecordingRouter) -> None:
    recorder.answers["find"] = "tree/two", "process"
    assert whereis("tree/two") == WorkerRef("tree/two")
    recorder.answers["find"] = "tree/two", "supervisor"
    assert isinstance(whereis("tree/two"), SupervisorRef)
    recorder.answers["find"] = ChildNotFound("no worker at 'tree/two'")
    with pytest.raises(ChildNotFound):
        whereis("tree/two")


def test_without_a_tree_refs_raise_runtime_gone() -> None:
    before = router._router
    router.set_router(None)
    try:
        with pytest.raises(RuntimeGone, match="no supervision tree runs in this program; a ref works in"):
            WorkerRef("tree/one").tell(1)
    finally:
        router.set_router(before)


# ---------------------------------------------------------------- proxies
def test_a_proxy_turns_calls_into_messages(recorder: RecordingRouter, ref: WorkerRef) -> None:
    proxy = ref.proxy()
    assert proxy.add(1, other=2).get() == "fine"
    assert proxy.limit.get() == "fine"
    assert recorder.sent == [("tree/one", "call", ("add", (1,), {"other": 2})), ("tree/one", "get", "limit")]


@pytest.mark.parametrize(
    "use, error, text",
    [
        (lambda proxy: proxy._secret, AttributeError, "'_secret' is private"),
        (lambda proxy: proxy.a.b, AttributeError, r"one level deep; read 'a' with get\(\) first"),
        (lambda proxy: setattr(proxy, "a", 1), AttributeError, "a proxy cannot set 'a'"),
        (lambda proxy: proxy(), TypeError, "a proxy is not callable"),
        (lambda proxy: proxy.get(), TypeError, "name an attribute first"),
    ],
)
def test_a_wrong_use_of_a_proxy_raises_a_clear_error(
    ref: WorkerRef, use: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        use(ref.proxy())


def test_the_repr_of_a_proxy_shows_path_and_attribute(ref: WorkerRef) -> None:
    assert repr(ref.proxy()) == "WorkerProxy('tree/one')"
    assert repr(ref.proxy().add) == "WorkerProxy('tree/one', 'add')"


class Noted:
    """A value that notes the thread in which it is decoded."""

    threads: ClassVar[list[threading.Thread]] = []

    def __setstate__(self, state: Any) -> None:
        Noted.threads.append(threading.current_thread())

    def __getstate__(self) -> int:
        return 1


@pytest.mark.parametrize("ok, value", [(True, Noted()), (False, ValueError(Noted()))])
def test_an_answer_is_decoded_once_and_in_the_thread_that_reads_it(ok: bool, value: Any) -> None:
    Noted.threads.clear()
    answer: Answer[Any] = Answer()
    data = Payload(value).data
    receiver = threading.Thread(target=lambda: answer.settle(ok, Payload(data=data)))
    receiver.start()
    receiver.join(5)
    assert answer.done()
    assert Noted.threads == []
    if ok:
        assert isinstance(answer.get(), Noted)
        assert answer.get() is answer.result() is asyncio.run(wait_for(answer))
        assert answer.exception() is None
    else:
        for _ in range(2):
            with pytest.raises(ValueError):
                answer.get()
        assert isinstance(answer.exception(), ValueError)
    assert Noted.threads == [threading.current_thread()]


def test_an_error_counts_as_an_exception_before_it_is_decoded() -> None:
    answers: list[Answer[Any]] = [Answer(), Answer()]
    answers[0].settle(False, Payload(data=Payload(ValueError("no")).data))
    done, waiting = concurrent.futures.wait(answers, timeout=5, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, waiting) == ({answers[0]}, {answers[1]})


async def wait_for(answer: Answer[Any]) -> Any:
    return await answer


class NoSpans:
    """Makes spans of nothing."""

    def ask(self, path: str) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def ask_later(self, path: str) -> Iterator[Callable[[bool], None]]:
        yield lambda ok: None

    def handle(self, path: str) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


@pytest.mark.parametrize("act", ["ask", "ask_future", "handle"])
def test_the_end_of_spans_harms_no_message_at_any_moment_of_it(
    act: str, recorder: RecordingRouter, ref: WorkerRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: dict[str, Callable[[], object]] = {
        "ask": lambda: ref.ask("a"),
        "ask_future": lambda: ref.ask_future("a").get(),
        "handle": tracing.continued({}, "tree/one", lambda: "fine"),
    }

    def prepare() -> Callable[[], object]:
        monkeypatch.setattr(tracing, "spans", NoSpans())
        return acts[act]

    def end() -> None:
        tracing.spans = None

    assert set(interrupted_at_each_line(prepare, end)) == {"fine"}


@pytest.mark.parametrize("held", ["by one who adds a callback", "by one who waits for several answers"])
def test_a_thread_that_settles_an_answer_does_not_wait_for_one_who_holds_its_locks(held: str) -> None:
    answer: Answer[Any] = Answer()
    waiter = concurrent.futures._base._AllCompletedWaiter(1, stop_on_exception=False)  # type: ignore[attr-defined]
    if held == "by one who waits for several answers":
        answer._waiters.append(waiter)  # type: ignore[attr-defined]
    lock = waiter.lock if answer._waiters else answer._condition  # type: ignore[attr-defined]
    with lock:  # as where a signal handler has interrupted it
        in_background(lambda: answer.settle(True, Payload(1))).result(GRACE)
        in_background(lambda: answer.settle(True, Payload(2))).result(GRACE)
    assert answer.get(GRACE) == 1

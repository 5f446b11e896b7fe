"""The address of a path, and the registry's answers to requests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from suitkaise import Status
from suitkaise.errors import (
    AskTimeout,
    ChildNotFound,
    MailboxFull,
    NotSerializable,
    SuitkaiseError,
    WorkerDead,
    WorkerFailed,
)
from suitkaise.exits import Crashed, ExitReason, GaveUp, Hung, Killed, Normal, Shutdown, Signaled
from suitkaise.messaging import pending
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import AdminAction, ControlKind, RequestKind
from suitkaise.messaging.registry import Registry


class Parent:
    """A supervisor that notes what is requested of its children."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.status: Status | None = Status.RUNNING

    def status_of(self, id: str) -> Status:
        if self.status is None:
            raise ChildNotFound(id)
        return self.status

    def control(self, kind: str, id: str, drain: float | None = None) -> Answer[Any]:
        self.requests.append((kind, id))
        answer: Answer[Any] = Answer()
        answer.set_result(f"{kind} done")
        return answer


class Worker:
    """An incarnation that keeps the messages, or refuses them."""

    def __init__(self, *refusals: Exception) -> None:
        self.got: list[Any] = []
        self.accepted: list[bool] = []
        self._refusals = list(refusals)

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        if self._refusals:
            raise self._refusals.pop(0)
        self.got.append(message.body.value)
        self.accepted.append(accepted)


def tell(body: Any) -> Message:
    return Message("message", Payload(body))


def ask(body: Any) -> tuple[Message, Answer[Any]]:
    answer: Answer[Any] = Answer()
    return Message("message", Payload(body), answer.settle), answer


@pytest.fixture
def address() -> Address:
    return Address("tree/one", "one", "thread", Parent())


def test_a_message_goes_to_the_incarnation_that_is_there(address: Address) -> None:
    worker = Worker()
    address.begin(1)
    assert address.incarnation == 1  # which it may ask for as soon as it runs
    address.attach(worker)
    address.send(tell(1))
    assert (worker.got, address.incarnation) == ([1], 1)


class InThread(Worker):
    """An incarnation in a thread: senders put messages into its inbox."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = self
        self.is_shut = False

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        if self.is_shut:
            raise WorkerDead.just_ended("tree/one")
        super().deliver(message, accepted=accepted)

    def put(self, message: Message) -> bool:
        if not self.is_shut:
            self.got.append(message.body.value)
        return not self.is_shut


def test_messages_to_a_thread_go_into_its_inbox_and_wait_once_it_has_ended() -> None:
    registry = Registry()
    address = registry.add("tree/one", "one", "thread", Parent())
    registry.send("tree/one", tell(1))
    first, second = InThread(), InThread()
    address.attach(first)
    registry.send("tree/one", tell(2))
    assert (first.got, first.accepted) == ([1, 2], [True])  # which waited, and which is put in
    first.is_shut = True
    registry.send("tree/one", tell(3))
    registry.send("tree/one", tell(4))
    address.detach(Normal(), None)
    registry.send("tree/one", tell(5))
    address.attach(second)
    registry.send("tree/one", tell(6))
    assert (first.got, second.got) == ([1, 2], [3, 4, 5, 6])


class JustEnded(Address):
    """Its incarnation ends in the moment in which a sender has looked for the inbox."""

    _there: Any = None

    @property
    def mailbox(self) -> Any:
        there, self._there = self._there, None
        return there

    @mailbox.setter
    def mailbox(self, mailbox: Any) -> None:
        self._there = mailbox


def test_a_sender_uses_the_inbox_that_it_has_found() -> None:
    registry, worker = Registry(), InThread()
    address = registry._addresses["tree/one"] = JustEnded("tree/one", "one", "thread", Parent())
    address.attach(worker)
    registry.send("tree/one", tell(1))
    address.mailbox = worker
    with pytest.raises(AskTimeout):
        registry.ask("tree/one", Payload(2), 0.0, None)
    assert (worker.got, worker.accepted) == ([1, 2], [])


def test_a_thread_that_stands_for_a_process_gets_what_can_be_sent_to_a_process() -> None:
    registry = Registry()
    worker = InThread()
    registry.add("tree/one", "one", "process", Parent()).attach(worker)
    with pytest.raises(NotSerializable):
        registry.send("tree/one", tell(threading.Lock()))
    with pytest.raises(NotSerializable):
        registry.ask("tree/one", Payload(threading.Lock()), 1.0, None)
    assert worker.got == []


def test_s67_an_address_leads_to_the_incarnation_that_is_there_now(address: Address) -> None:
    first, second = Worker(), Worker()
    address.begin(1)
    address.attach(first)
    address.send(tell(1))
    address.detach(Signaled(9), None)
    address.begin(2)
    address.attach(second)
    address.send(tell(2))
    assert (first.got, second.got, address.incarnation) == ([1], [2], 2)


def test_messages_before_the_start_and_between_incarnations_wait_in_order(address: Address) -> None:
    address.send(tell(1))
    address.send(tell(2))
    first, second = Worker(), Worker()
    address.attach(first)
    address.send(tell(3))
    address.detach(Signaled(9), None)
    address.send(tell(4))
    address.attach(second)
    assert (first.got, second.got) == ([1, 2, 3], [4])


def test_the_number_of_pending_messages_is_limited(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 3)
    for number in range(3):
        address.send(tell(number))
    with pytest.raises(MailboxFull, match="3 messages already wait for the restart of 'tree/one'"):
        address.send(tell(3))
    worker = Worker()
    address.attach(worker)
    assert worker.got == [0, 1, 2]


def test_the_bytes_of_pending_messages_for_a_process_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST_BYTES", 10_000)
    address = Address("tree/one", "one", "process", Parent())
    address.send(tell(bytes(20_000)))  # a single one may have any size
    with pytest.raises(MailboxFull, match=r"20\d\d\d bytes of messages already wait for the restart of 'tree/one'"):
        address.send(tell(1))
    for turn in range(3):
        worker = Worker()
        address.attach(worker)
        address.detach(Signaled(9), None)
        address.send(tell(bytes(6_000)))
        with pytest.raises(MailboxFull):
            address.send(tell(bytes(6_000)))
        assert len(worker.got) == 1, turn


def test_pending_messages_are_delivered_as_accepted_and_new_ones_may_be_refused(address: Address) -> None:
    address.send(tell(1))
    worker = Worker()
    address.attach(worker)
    address.send(tell(2))
    assert worker.accepted == [True, False]


def test_a_message_that_cannot_be_pickled_raises_also_when_no_process_is_there_yet() -> None:
    address = Address("tree/one", "one", "process", Parent())
    with pytest.raises(NotSerializable):
        address.send(tell(threading.Lock()))


def test_any_value_may_wait_for_a_thread(address: Address) -> None:
    lock = threading.Lock()
    address.send(tell(lock))
    worker = Worker()
    address.attach(worker)
    assert worker.got == [lock]


def test_a_message_for_an_incarnation_that_has_just_ended_waits_for_the_next_one(address: Address) -> None:
    address.attach(Worker(WorkerDead("it has just ended")))
    address.send(tell(1))
    address.send(tell(2))
    address.detach(Signaled(9), None)
    worker = Worker()
    address.attach(worker)
    assert worker.got == [1, 2]


def test_waiting_messages_stay_when_the_next_incarnation_ends_at_once(address: Address) -> None:
    for number in range(3):
        address.send(tell(number))
    dying = Worker(WorkerDead("it has just ended"))
    address.attach(dying)
    assert dying.got == []
    worker = Worker()
    address.attach(worker)
    assert worker.got == [0, 1, 2]


def test_a_waiting_message_that_cannot_be_delivered_fails_alone(address: Address) -> None:
    message, answer = ask("too much")
    address.send(message)
    address.send(tell("fine"))
    worker = Worker(SuitkaiseError("no"))
    address.attach(worker)
    assert worker.got == ["fine"]
    with pytest.raises(SuitkaiseError, match="no"):
        answer.get(0)


def test_other_errors_reach_the_sender(address: Address) -> None:
    address.attach(Worker(MailboxFull("full")))
    with pytest.raises(MailboxFull):
        address.send(tell(1))


def test_the_end_of_the_last_incarnation_fails_pending_asks(address: Address) -> None:
    message, answer = ask(1)
    address.send(message)
    address.send(tell(2))
    address.detach(Signaled(9), None)
    address.finish()
    with pytest.raises(WorkerDead, match=r"'tree/one' is over: signal 9") as raised:
        answer.get(0)
    assert (raised.value.path, raised.value.reason) == ("tree/one", Signaled(9))


def test_after_the_end_sending_raises(address: Address) -> None:
    address.attach(Worker())
    address.detach(Normal(), None)
    address.finish()
    with pytest.raises(WorkerDead, match="is over: normal"):
        address.send(tell(1))


def test_a_worker_that_is_started_again_after_its_end_takes_messages_again(address: Address) -> None:
    address.finish()
    worker = Worker()
    address.begin(2)
    address.attach(worker)
    address.send(tell(1))
    assert (worker.got, address.over) == ([1], False)


def test_when_over_calls_back_once_after_the_end(address: Address) -> None:
    called: list[str] = []
    address.when_over(lambda: called.append("early"))
    assert called == []
    address.finish()
    address.finish()
    assert called == ["early"]
    address.when_over(lambda: called.append("late"))
    assert called == ["early", "late"]


def test_a_when_over_callback_may_use_the_address(address: Address) -> None:
    called: list[str] = []
    address.when_over(lambda: address.when_over(lambda: called.append("again")))
    address.finish()
    assert called == ["again"]


@pytest.mark.parametrize(
    "reason, status",
    [
        (None, Status.STOPPED),
        (Shutdown(), Status.STOPPED),
        (Shutdown(GaveUp("tree/one/below", Signaled(9), 3, 5.0)), Status.FAILED),
        (Normal(), Status.FINISHED),
        (Signaled(9), Status.CRASHED),
        (Killed("ref.kill()"), Status.KILLED),
        (Hung("loop", 1.0), Status.HUNG),
    ],
)
def test_the_status_of_a_child_that_was_removed_tells_how_it_ended(reason: ExitReason | None, status: Status) -> None:
    parent = Parent()
    parent.status = None
    address = Address("tree/one", "one", "thread", parent)
    if reason is not None:
        address.detach(reason, None)
    assert address.status is status


# ---------------------------------------------------------------- requests
@pytest.fixture
def registry(address: Address) -> Registry:
    registry = Registry()
    registry._addresses["tree/one"] = address
    return registry


def test_a_path_is_found_until_it_is_removed(registry: Registry, address: Address) -> None:
    assert registry.find("tree/one") is address
    assert ("tree/one" in registry, len(registry), registry.paths()) == (True, 1, ["tree/one"])
    registry.remove("tree/one")
    registry.remove("tree/one")
    assert address.over
    with pytest.raises(ChildNotFound, match="no worker at 'tree/one'"):
        registry.find("tree/one")


def test_a_path_keeps_its_address_when_it_gets_another_parent(registry: Registry, address: Address) -> None:
    parent = Parent()
    assert registry.add("tree/one", "one", "thread", parent) is address
    assert address.parent is parent
    assert registry.add("tree/two", "two", "thread", parent) is registry.find("tree/two")


def test_a_join_inside_of_a_join_callback_finds_a_worker_that_was_just_removed(
    registry: Registry, address: Address
) -> None:
    reasons: list[Any] = []
    answer = registry.request(RequestKind.JOIN, "tree/one")
    answer.add_done_callback(lambda done: reasons.append(registry.request(RequestKind.JOIN, "tree/one").get(0)))
    address.attach(Worker())
    address.detach(Shutdown("done"), None)
    registry.remove("tree/one")
    assert reasons == [Shutdown("done")]


def test_info_is_answered_at_once(registry: Registry, address: Address) -> None:
    for serial in (1, 2):
        address.begin(serial)
        address.attach(Worker())
    address.pid = 123
    assert registry.request(RequestKind.INFO, "tree/one").get(0) == (Status.RUNNING, 123, 2, "thread")


def test_a_request_for_no_such_worker_is_answered_with_an_error(registry: Registry) -> None:
    with pytest.raises(ChildNotFound):
        registry.request(RequestKind.INFO, "tree/two").get(0)


@pytest.mark.parametrize("path", ["tree/oen", "one", "tree/tree/one", "trees/one"])
def test_a_path_that_nobody_has_is_told_with_those_that_may_be_meant(
    registry: Registry, address: Address, path: str
) -> None:
    for ask in (registry.kind_of, lambda path: registry.request(RequestKind.FIND, path).get(0)):
        with pytest.raises(ChildNotFound, match=f"no worker at '{path}'; did you mean 'tree/one'\\?"):
            ask(path)
    with pytest.raises(ChildNotFound, match=r"no worker at 'quite/different'$"):
        registry.kind_of("quite/different")


def test_an_action_for_a_path_without_a_running_supervisor_is_answered_with_an_error(registry: Registry) -> None:
    for path, text in [("tree/two", "no worker at 'tree/two'"), ("tree/one", "'tree/one': it is a worker")]:
        with pytest.raises(ChildNotFound, match=text):
            registry.administer(AdminAction.WHICH_CHILDREN, path).get(0)


@pytest.mark.parametrize("kind", [RequestKind.KILL, RequestKind.REJOIN, RequestKind.RECALL])
def test_kill_rejoin_and_recall_are_passed_on_to_the_supervisor(
    registry: Registry, address: Address, kind: ControlKind
) -> None:
    assert registry.request(kind, "tree/one").get(0) == f"{kind} done"


def test_a_kill_of_an_incarnation_that_is_being_made_ends_it_as_soon_as_it_is_there(address: Address) -> None:
    class Killable(Worker):
        def kill(self, why: str) -> None:
            self.got.append(why)

    first, second = Killable(), Killable()
    address.begin(1)
    assert address.control(RequestKind.KILL).get(0) is None
    address.attach(first)
    address.detach(Killed("ref.kill()"), None)
    assert address.control(RequestKind.KILL).get(0) == "kill done"  # the supervisor knows that nothing is alive
    address.begin(2)
    address.attach(second)
    assert (first.got, second.got) == (["ref.kill()"], [])


def test_join_gives_the_last_reason(registry: Registry, address: Address) -> None:
    answer = registry.request(RequestKind.JOIN, "tree/one")
    address.attach(Worker())
    address.detach(Shutdown(), None)
    assert not answer.done()
    address.finish()
    assert answer.get(0) == Shutdown()


def test_the_result_is_that_of_the_last_incarnation(registry: Registry, address: Address) -> None:
    answer = registry.request(RequestKind.RESULT, "tree/one")
    address.detach(Normal(), Payload(41))
    address.detach(Normal(), Payload(42))
    address.finish()
    assert answer.get(0) == 42


def test_no_result_is_an_error_with_the_remote_traceback(registry: Registry, address: Address) -> None:
    address.detach(Crashed("loop", ValueError("no"), "Traceback: line 7"), None)
    address.finish()
    with pytest.raises(WorkerFailed, match=r"'tree/one' ended without a result: ValueError in loop: no") as raised:
        registry.request(RequestKind.RESULT, "tree/one").get(0)
    assert "line 7" in "".join(raised.value.__notes__)
    assert raised.value.traceback == "Traceback: line 7"


def test_the_result_of_a_worker_that_never_ran_is_an_error(registry: Registry, address: Address) -> None:
    address.finish()
    with pytest.raises(WorkerFailed, match="it never ran"):
        registry.request(RequestKind.RESULT, "tree/one").get(0)


def test_a_service_answers_at_once_later_or_with_an_error(registry: Registry) -> None:
    later: Answer[Any] = Answer()

    def fail() -> Any:
        raise ValueError("no storage")

    registry.services[RequestKind.STORAGE] = lambda: "/directory"
    assert registry.request(RequestKind.STORAGE, "").get(0) == "/directory"
    registry.services[RequestKind.STORAGE] = lambda: later
    assert registry.request(RequestKind.STORAGE, "") is later
    registry.services[RequestKind.STORAGE] = fail
    with pytest.raises(ValueError, match="no storage"):
        registry.request(RequestKind.STORAGE, "").get(0)


def test_a_service_that_the_program_does_not_have_is_an_error(registry: Registry) -> None:
    with pytest.raises(SuitkaiseError, match="this program does not serve 'storage' requests"):
        registry.request(RequestKind.STORAGE, "").get(0)


def test_sending_from_many_threads_during_restarts_loses_nothing_and_keeps_each_order(address: Address) -> None:
    workers: list[Worker] = []
    done = threading.Event()

    def send(sender: int) -> None:
        for number in range(400):
            address.send(tell((sender, number)))

    def restart() -> None:
        while not done.is_set():
            workers.append(Worker())
            address.attach(workers[-1])
            address.detach(Signaled(9), None)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    restarter = threading.Thread(target=restart)
    for thread in (restarter, *threads):
        thread.start()
    for thread in threads:
        thread.join(10)
    done.set()
    restarter.join(10)
    workers.append(Worker())
    address.attach(workers[-1])
    got = [body for worker in workers for body in worker.got]
    assert len(got) == 1600
    for sender in range(4):
        assert [number for who, number in got if who == sender] == list(range(400))


def test_a_signal_for_an_incarnation_that_never_came_up_does_not_reach_the_next_one(address: Address) -> None:
    address.begin(1)
    address.signal(1, Message("signal", Payload("for the first")))
    address.send(tell("for any incarnation"))
    address.detach(Crashed("start", ValueError()), None)
    address.begin(2)
    worker = Worker()
    address.attach(worker)
    assert worker.got == ["for any incarnation"]


@pytest.mark.parametrize(
    "what",
    [
        lambda address: address.detach(Signaled(9), None),
        lambda address: address.take_asks(lambda asker: asker == "tree/two"),
    ],
    ids=["signals", "asks"],
)
def test_a_message_of_a_signal_handler_waits_also_when_it_interrupts_the_removal_of_others(
    address: Address, what: Callable[[Address], Any]
) -> None:
    sent = list(range(5))

    def handler(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == pending.__file__:
            sys.settrace(None)
            sent.append(len(sent))
            address.send(tell(sent[-1]))
            sys.settrace(handler)
        return handler

    address.begin(1)
    for number in sent[:]:
        address.send(tell(number))
        address.signal(1, Message("signal", Payload("signal")))
        address.send(Message("message", Payload("ask"), lambda ok, payload: None, "tree/two"))
    before = sys.gettrace()
    sys.settrace(handler)
    try:
        what(address)
    finally:
        sys.settrace(before)
    worker = Worker()
    address.attach(worker)
    assert len(sent) > 10
    assert [one for one in worker.got if isinstance(one, int)] == sent
    assert address._pending._bytes == 0


@pytest.mark.parametrize("kind", [RequestKind.JOIN, RequestKind.RESULT])
def test_a_cancelled_join_or_result_leaves_no_callback_behind(
    registry: Registry, address: Address, kind: RequestKind
) -> None:
    kept = registry.request(kind, address.path)
    for _ in range(500):
        registry.request(kind, address.path).cancel()
    assert len(address._on_over) == 1
    address.finish()
    assert kept.done()

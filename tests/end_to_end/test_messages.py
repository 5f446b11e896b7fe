"""Messages between hub and workers, and from worker to worker through the hub."""

import asyncio
import logging
import os
import threading
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Backoff,
    Bounded,
    Child,
    ChildNotFound,
    DeadlockError,
    MailboxFull,
    NotSerializable,
    Process,
    Reject,
    SuitkaiseError,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerFailed,
    WorkerRef,
    whereis,
)
from suitkaise.messaging import connection, send_buffer
from tests.sample_workers import Echo
from tests.support import eventually, in_background

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LONG = 1_500_000  # bytes: many frames of the wire


class Adder:
    """The worker of most tests, in a process and in a thread."""

    total = 0

    def add(self, n):
        self.total += n
        return self.total

    def on_receive(self, message):
        match message:
            case "reject":
                raise Reject(LookupError("not me"))
            case "crash":
                raise ValueError("bad")
            case "lock":
                return threading.Lock()
            case "slow":
                self.wait(60)
            case ("ask", path, what):
                return self.whereis(path).ask(what)
            case ("tell", path, what):
                self.whereis(path).tell(what)
        return message


class InProcess(Adder, Process):
    pass


class InThread(Adder, Thread):
    pass


@pytest.fixture
def running():
    children = Child(InProcess, id="process", shutdown=1.0), Child(InThread, id="thread", shutdown=1.0), Child(Echo)
    with Supervisor("tree", *children, max_restarts=99).start() as running:
        yield running


both = pytest.mark.parametrize("id", ["process", "thread"])


@both
def test_ask_and_ask_future_return_the_answers_also_after_a_tell(running, id):
    ref = running[id]
    assert ref.ask({"a": [1, 2]}) == {"a": [1, 2]}
    ref.tell("no answer is read")
    assert [future.get() for future in [ref.ask_future(n) for n in range(50)]] == list(range(50))


@both
def test_an_answer_can_be_awaited(running, id):
    async def main():
        return await asyncio.gather(*(running[id].ask_future(n) for n in range(3)))

    assert asyncio.run(main()) == [0, 1, 2]


def test_asyncio_wait_takes_tasks_of_answers_and_refuses_the_answers(running):
    async def main():
        answers = {running["echo"].ask_future(n) for n in range(3)}
        with pytest.raises(TypeError, match=r"asyncio\.ensure_future\(answer\)"):
            await asyncio.wait(answers, timeout=10)
        done, _ = await asyncio.wait(map(asyncio.ensure_future, answers), timeout=10)
        return {task.result() for task in done}

    assert asyncio.run(main()) == {0, 1, 2}


@both
def test_a_proxy_calls_methods_and_reads_attributes(running, id):
    proxy = running[id].proxy()
    proxy.add(2).get()
    assert proxy.add(3).get() == 5
    assert proxy.total.get() == 5


@both
def test_a_message_that_cannot_be_handled_is_an_error_for_its_asker_only(running, id):
    ref = running[id]
    with pytest.raises(LookupError, match="not me"):
        ref.ask("reject")
    with pytest.raises(AttributeError, match="no_such"):
        ref.proxy().no_such().get()
    with pytest.raises(TypeError, match="add"):
        ref.proxy().add().get()
    assert ref.incarnation == 1


@both
def test_a_crash_answers_with_the_exception_and_its_remote_traceback(running, id):
    with pytest.raises(ValueError, match="bad") as caught:
        running[id].ask("crash")
    assert "remote traceback" in caught.value.__notes__[0]
    eventually(lambda: running[id].incarnation == 2)
    assert running[id].ask("back?") == "back?"


def test_a_message_or_an_answer_that_cannot_be_pickled_is_an_error_for_the_asker(running):
    with pytest.raises(NotSerializable, match=r"^message: cannot pickle"):
        running["process"].ask(threading.Lock())
    with pytest.raises(NotSerializable, match=r"^answer: cannot pickle"):
        running["process"].ask("lock")
    assert running["process"].incarnation == 1


@both
def test_an_ask_that_takes_too_long_times_out(running, id):
    with pytest.raises(AskTimeout):
        running[id].ask("slow", timeout=0.1)


def test_workers_ask_each_other_through_the_hub(running):
    for asker in ("process", "thread"):
        for asked in ("process", "thread", "echo"):
            if asked != asker:
                assert running[asker].ask(("ask", f"tree/{asked}", "hello")) == "hello"


@both
def test_a_worker_that_asks_itself_gets_a_deadlock_error(running, id):
    with pytest.raises(DeadlockError):
        running[id].ask(("ask", f"tree/{id}", "hello"))


def test_an_ask_is_answered_with_an_error_when_the_worker_dies(running):
    answer = running["process"].ask_future("slow")
    running["process"].kill()
    with pytest.raises(WorkerDead, match=r"ref\.kill"):
        answer.get(15)


class StartsSlowly(Echo):
    def on_start(self):
        if self.recalled:
            self.wait(0.3)


def test_messages_wait_for_a_worker_that_is_being_restarted():
    with Supervisor("tree", StartsSlowly()).start() as running:
        ref = running["starts_slowly"]
        ref.kill()
        eventually(lambda: ref.status == "restarting" or ref.incarnation == 2)
        assert [future.get() for future in [ref.ask_future(n) for n in range(5)]] == [0, 1, 2, 3, 4]


class Late(Process):
    """Can be restarted only once the file `gate` exists."""

    restart = "permanent"

    def __init__(self, gate):
        self.gate = gate

    def on_start(self):
        self.seen = 0
        if self.recalled is not None:
            eventually(lambda: os.path.exists(self.gate), timeout=30)

    def on_receive(self, message):
        match message:
            case "die":
                os._exit(3)
            case bytes():
                self.seen += 1
        return self.seen


def test_all_messages_accepted_during_a_restart_reach_the_next_incarnation(tmp_path):
    gate = tmp_path / "gate"
    child = Child(Late, args=(str(gate),), backoff=Backoff(initial=600.0, maximum=600.0))
    with Supervisor("app", child).start() as running:
        ref = running["late"]
        ref.tell("die")
        eventually(lambda: ref.status == "restarting")
        accepted = 0
        with pytest.raises(MailboxFull, match="bytes of messages already wait for the restart of 'app/late'"):
            for _ in range(10_000):
                ref.tell(bytes(100_000))
                accepted += 1
        back = in_background(lambda: running.recall("late"))
        eventually(lambda: ref.incarnation == 2)  # all messages are sent now, but the worker does not read them yet
        gate.touch()
        assert ref.ask("seen", timeout=60) == accepted
        back.result(60)


def test_a_worker_that_is_not_restarted_refuses_messages_for_good(running):
    ref = running["echo"]
    running.terminate_child("echo")
    with pytest.raises(WorkerDead):
        ref.ask("hello")
    assert not ref.is_alive()
    with pytest.raises(SuitkaiseError):
        whereis("tree/nobody")


def test_a_megabyte_is_sent_and_answered(running):
    data = bytes(range(256)) * 4096
    assert running["process"].ask(data) == data


def test_many_threads_ask_one_worker_at_once(running):
    def ask(n):
        answers.extend(running["echo"].ask((n, i)) == (n, i) for i in range(100))

    answers = []
    askers = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert answers == [True] * 400


class Unsendable(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Handy(Process):
    """Logs, rejects, waits, answers bytes or asks another worker, as a message names."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "log":
                logging.getLogger("handy").warning("y" * LONG)
            case "reject":
                raise Reject(Unsendable())
            case "wait":
                self.wait(5)
            case ("bytes", int(size)):
                return bytes(size)
            case ("ask", ref, what, float(timeout)):
                return len(ref.ask(what, timeout))
            case bytes():
                return len(message)
        return message


def test_a_long_log_line_does_not_break_the_connection_to_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Handy).start() as running:
        running["handy"].ask("log")
        assert running["handy"].ask(1) == 1
    caplog.clear()


def test_a_message_that_is_longer_than_the_backlog_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKLOG", 1 << 20)
    monkeypatch.setattr(send_buffer, "BACKLOG", 1 << 20)
    with Supervisor("app", Handy, Child(Handy, id="other")).start() as running:
        assert running["handy"].ask(bytes(5 << 20), timeout=10) == 5 << 20
        assert running["handy"].ask(("ask", running["other"], ("bytes", 5 << 20), 10.0), timeout=10) == 5 << 20
        assert running["handy"].ask(1) == 1


def test_a_rejection_that_cannot_be_pickled_arrives_as_text_and_the_worker_runs_on() -> None:
    with Supervisor("app", Handy).start() as running:
        pid = running["handy"].pid
        with pytest.raises(WorkerFailed, match="it holds a lock"):
            running["handy"].ask("reject")
        assert running["handy"].pid == pid


def test_a_time_out_inside_a_handler_reaches_the_asker_as_that_time_out() -> None:
    with Supervisor("app", Handy, Child(Handy, id="other", shutdown="brutal_kill")).start() as running:
        with pytest.raises(AskTimeout) as caught:
            running["handy"].ask(("ask", running["other"], "wait", 0.01))
        assert caught.value.path == "app/other"


def test_messages_sent_right_after_a_kill_reach_the_next_incarnation() -> None:
    with Supervisor("app", Echo, max_restarts=100).start() as running:
        for number in range(5):
            running["echo"].kill()
            assert running["echo"].ask(number) == number


class AsksLater:
    """Asks by a future, and returns what is wrong: with the call, or with the answer."""

    restart = "temporary"

    def on_receive(self, path):
        return errors_of_a_future(path)


class AsksLaterInProcess(AsksLater, Process): ...


class AsksLaterInThread(AsksLater, Thread): ...


class Refuses(Thread):
    mailbox = Bounded(1, on_full="reject")

    def __init__(self, begins):
        self.begins = begins

    def on_receive(self, message):
        self.begins.set()
        self.wait(60.0)


def errors_of_a_future(path):
    ref = WorkerRef(path)
    answers = [ref.ask_future("x"), ref.proxy().on_receive("x")]
    return [type(answer.exception(20)) for answer in answers]


@pytest.mark.parametrize("asker", [None, AsksLaterInProcess, AsksLaterInThread])
def test_what_is_wrong_with_the_receiver_of_a_future_is_told_by_the_future_whoever_asks(asker):
    begins = threading.Event()
    askers = [] if asker is None else [Child(asker, id="asker")]
    with Supervisor("tree", Child(Refuses(begins), id="full"), Child(Echo, id="over"), *askers).start() as running:
        running.terminate_child("over")
        running["full"].tell("handled")
        assert begins.wait(20)
        running["full"].tell("waits")
        ask = errors_of_a_future if asker is None else running["asker"].ask
        assert ask("tree/over") == [WorkerDead, WorkerDead]
        assert ask("tree/full") == [MailboxFull, MailboxFull]
        assert ask("tree/nobody") == [ChildNotFound, ChildNotFound]

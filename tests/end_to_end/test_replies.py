"""Answers after the handler has returned, between real processes and threads, through crashes, kills and hangs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from suitkaise import AskTimeout, Child, Hung, Process, Supervisor, Thread, WorkerDead, WorkerRef
from suitkaise.events import ChildExited
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import next_event

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Desk(Worker):
    """Answers some messages later."""

    def on_start(self) -> None:
        self.waiting: list[Any] = []
        self.pool = ThreadPoolExecutor(1)

    def on_receive(self, message: Any) -> Any:
        match message:
            case "wait":
                self.waiting.append(self.reply_to())
            case ("answer", value):
                for waiting in self.waiting:
                    waiting.reply(value)
            case ("answer in a thread", value):
                threading.Thread(target=lambda: [one.reply(value) for one in self.waiting]).start()
            case ("compute", a, b):
                return self.pool.submit(divmod, a, b)
            case ("forward", WorkerRef() as other, what):
                return other.ask_future(what)
            case "crash":
                raise LookupError("as told")
            case "end":
                self.rejoin()
            case threading.Event():
                message.wait(60)
        return len(self.waiting)

    def on_finish(self) -> None:
        self.pool.shutdown()


class DeskProcess(Desk, Process):
    pass


class DeskThread(Desk, Thread):
    pass


class AsyncDesk(Process):
    """Answers with a task, in another process."""

    async def on_receive(self, message: float) -> Any:
        return asyncio.get_running_loop().create_task(asyncio.sleep(message, result="slept"))


CLASSES = {"process": DeskProcess, "thread": DeskThread}
both = pytest.mark.parametrize("kind", CLASSES)


def desk(kind: str, id: str = "desk", **options: Any) -> Child:
    return Child(CLASSES[kind], id=id, **options)


@both
@pytest.mark.parametrize("how", ["answer", "answer in a thread"])
def test_many_askers_wait_for_one_answer_while_the_worker_goes_on(kind: str, how: str) -> None:
    with Supervisor("app", desk(kind)).start() as running:
        ref = running["desk"]
        asked = [ref.ask_future("wait") for _ in range(20)]
        ref.ask((how, "now"))
        assert [answer.get() for answer in asked] == ["now"] * 20


@both
def test_a_handler_hands_its_work_to_a_pool_of_threads(kind: str) -> None:
    with Supervisor("app", desk(kind)).start() as running:
        assert running["desk"].ask(("compute", 7, 2)) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            running["desk"].ask(("compute", 7, 0))
        assert running["desk"].ask("still there?") == 0
        assert running["desk"].incarnation == 1


@both
@pytest.mark.parametrize("other", CLASSES)
def test_an_ask_is_passed_on_to_another_worker(kind: str, other: str) -> None:
    with Supervisor("app", desk(kind), desk(other, "other")).start() as running:
        first, second = running["desk"], running["other"]
        assert first.ask(("forward", second, ("compute", 9, 4))) == (2, 1)
        assert second.ask(("forward", first, ("forward", second, ("compute", 9, 4)))) == (2, 1)


@both
def test_a_time_out_of_the_asker_holds_and_a_later_answer_goes_nowhere(kind: str) -> None:
    with Supervisor("app", desk(kind)).start() as running:
        ref = running["desk"]
        with pytest.raises(AskTimeout):
            ref.ask("wait", timeout=0.05)
        assert ref.ask(("answer", "too late")) == 1


@both
@pytest.mark.parametrize("how", ["crash", "end", "kill"])
def test_an_asker_that_waits_is_told_that_the_worker_has_ended(kind: str, how: str) -> None:
    with Supervisor("app", desk(kind, restart="temporary"), Supervisor("others")).start() as running:
        ref = running["desk"]
        asked = [ref.ask_future("wait") for _ in range(3)]
        ref.ask("how many?")
        ref.kill() if how == "kill" else ref.tell(how)
        for answer in asked:
            with pytest.raises(WorkerDead):
                answer.get()


def test_the_asker_of_an_abandoned_thread_is_told_too() -> None:
    release = threading.Event()
    child = desk("thread", restart="temporary", receive_timeout=0.2)
    with Supervisor("app", child, Supervisor("others")).start() as running, running.events() as events:
        asked = running["desk"].ask_future("wait")
        hung = running["desk"].ask_future(release)
        assert isinstance(next_event(events, ChildExited, "desk").reason, Hung)
        for answer in (asked, hung):
            with pytest.raises(WorkerDead, match="abandoned"):
                answer.get()
        release.set()


def test_an_async_worker_answers_with_tasks_that_run_side_by_side() -> None:
    with Supervisor("app", AsyncDesk, Supervisor("others")).start() as running:
        ref = running["async_desk"]
        long, short = ref.ask_future(600.0), ref.ask_future(0.0)
        assert short.get() == "slept"
        running.terminate_child("async_desk")
        with pytest.raises(WorkerDead):
            long.get()


def test_every_answer_comes_exactly_once_however_many_threads_give_it() -> None:
    counted: list[Future[Any]] = []

    class Races(Thread):
        def on_receive(self, message: Any) -> Any:
            reply = self.reply_to()
            threads = [threading.Thread(target=reply.reply, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    with Supervisor("app", Races).start() as running:
        for _ in range(50):
            answer = running["races"].ask_future("go")
            answer.when_done(counted.append)
            assert answer.get() in range(4)
    assert len(counted) == 50

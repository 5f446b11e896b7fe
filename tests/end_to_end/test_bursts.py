"""What a thread holds back of a burst is with its receiver before the thread does anything that others may notice.

In most tests the I/O threads send nothing of it, so that only the thread itself can.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Process, Reject, Supervisor, Thread, WorkerRef, current_worker, flush, whereis
from suitkaise.messaging import route
from suitkaise.pools import ProcessPool, ThreadPool
from suitkaise.runtime.running_tree import RunningTree
from tests.support import GRACE, eventually, in_background, run_program

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

COUNT = route.BURST + 10
LATER = 10 * GRACE


over = threading.Event()
"""Ends the handlers of this program's threads."""


class Notes(Process):
    """Notes in a file what it is told."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_receive(self, message: Any) -> str:
        if message != "all":
            with self.file.open("a") as file:
                print(message, file=file)
        return self.file.read_text() if self.file.exists() else ""


class Answers(Thread):
    def on_receive(self, message: Any) -> Any:
        return message


ALL = "".join(f"{number}\n" for number in range(COUNT))


def burst() -> None:
    ref = WorkerRef("tree/to")
    ref.ask("all")
    ref.ask("all")  # over a connection
    for number in range(COUNT):
        ref.tell(number)


class _Sends:
    """Tells a burst, and does after that what the message says."""

    restart = "temporary"

    def on_start(self) -> None:
        route._SOON = route._MOMENT = LATER

    def on_receive(self, act: str) -> Any:
        burst()
        if act == "crash":
            raise ValueError
        if act == "exit":
            raise SystemExit(0)
        if act == "refuse":
            raise Reject("refused")
        if act == "fail":
            self.reply_to().fail("failed")  # type: ignore[attr-defined]
        if act == "wait":
            self.wait(LATER)  # type: ignore[attr-defined]
        if act == "store a checkpoint":
            self.checkpoint(act)  # type: ignore[attr-defined]
            over.wait(LATER)
        if act in ACTS or act in ACTS_OF_WORKERS:
            (ACTS | ACTS_OF_WORKERS)[act]()
            over.wait(LATER)
        return "answer"


def fork() -> None:
    """Fork, as `multiprocessing` does it: the copy may use refs."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


ACTS: dict[str, Callable[[], Any]] = {
    "tell a worker": lambda: WorkerRef("tree/other").tell("told"),
    "ask a worker": lambda: WorkerRef("tree/other").ask("all"),
    "ask a thread": lambda: WorkerRef("tree/answers").ask("asked"),
    "look for a worker": lambda: whereis("tree/other"),
    "flush": flush,
    "fork": fork,
}


def worker() -> Any:
    return current_worker()


ACTS_OF_WORKERS: dict[str, Callable[[], Any]] = {
    "set a timer": lambda: worker().send_after(0.0, "due", to=WorkerRef("tree/other")),
    "start a thread": lambda: worker().start_thread(Answers),
}


class Waits(_Sends, Process): ...


class Async(_Sends, Process):
    async def on_receive(self, act: str) -> Any:
        return super().on_receive(act)


class Loops(_Sends, Process):
    def loop(self) -> None: ...


class InThread(_Sends, Thread): ...


KINDS = {"waits": Waits, "async": Async, "loops": Loops, "thread": InThread}


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningTree]:
    monkeypatch.setattr(route, "_SOON", LATER)
    monkeypatch.setattr(route, "_MOMENT", LATER)
    notes = [Child(Notes, args=(tmp_path / id,), id=id, shutdown=GRACE, drain=1.0) for id in ("to", "other")]
    senders = [Child(cls, id=id, shutdown=0.1) for id, cls in KINDS.items()]
    with Supervisor("tree", *notes, Child(Answers, id="answers"), *senders).start() as running:
        over.clear()
        yield running
        over.set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["return", "refuse", "fail", "crash", "exit"])
def test_what_a_worker_has_told_is_there_before_its_answer_and_before_its_end(
    act: str, kind: str, running: RunningTree, tmp_path: Path
) -> None:
    answer = running[kind].ask_future(act)
    assert (answer.exception(GRACE) is None) is (act == "return")
    assert running["to"].ask("all") == ALL


@pytest.mark.parametrize("kind", ["waits", "async", "thread"])
def test_what_a_worker_has_told_is_there_while_it_waits_for_its_next_message(
    kind: str, running: RunningTree, tmp_path: Path
) -> None:
    running[kind].tell("return")
    eventually(lambda: (tmp_path / "to").exists() and (tmp_path / "to").read_text() == ALL)


@pytest.mark.parametrize("kind", ["waits", "loops", "thread"])
def test_what_a_worker_has_told_is_there_while_it_waits_in_a_hook(
    kind: str, running: RunningTree, tmp_path: Path
) -> None:
    running[kind].tell("wait")
    eventually(lambda: (tmp_path / "to").exists() and (tmp_path / "to").read_text() == ALL)


@pytest.mark.parametrize("kind", ["waits", "thread"])
@pytest.mark.parametrize("act", [*ACTS, *ACTS_OF_WORKERS, "store a checkpoint"])
def test_what_a_worker_has_told_is_on_its_way_before_anything_else_that_it_sends(
    act: str, kind: str, running: RunningTree, tmp_path: Path
) -> None:
    running[kind].tell(act)
    eventually(lambda: (tmp_path / "to").exists() and (tmp_path / "to").read_text() == ALL)


@pytest.mark.parametrize("act", ACTS)
def test_what_the_program_has_told_is_on_its_way_before_anything_else_that_it_sends(
    act: str, running: RunningTree, tmp_path: Path
) -> None:
    burst()
    ACTS[act]()
    eventually(lambda: (tmp_path / "to").exists() and (tmp_path / "to").read_text() == ALL)


def test_what_other_threads_of_the_program_have_told_is_on_its_way_after_a_flush(
    running: RunningTree, tmp_path: Path
) -> None:
    over = threading.Event()
    told = threading.Event()

    def tell() -> None:
        burst()
        told.set()
        over.wait(LATER)

    telling = in_background(tell)
    try:
        assert told.wait(GRACE)
        flush()
        assert running["to"].ask("all") == ALL
    finally:
        over.set()
        telling.result(GRACE)


class Computes(Process):
    """Tells a burst, and then computes until all of it has arrived. Its I/O thread sends the last of it."""

    def on_receive(self, file: Path) -> bool:
        burst()
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if file.exists() and file.read_text() == ALL:
                return True
        return False


def test_the_last_messages_of_a_burst_leave_while_their_sender_computes(tmp_path: Path) -> None:
    with Supervisor("tree", Child(Notes, args=(tmp_path / "to",), id="to"), Child(Computes, id="from")).start() as tree:
        assert tree["from"].ask(tmp_path / "to", timeout=2 * GRACE)


def burst_and_answer() -> str:
    route._SOON = route._MOMENT = LATER
    burst()
    return "answer"


@pytest.mark.parametrize("pool", [ProcessPool, ThreadPool])
def test_what_a_task_has_told_is_there_before_its_result(pool: Any, running: RunningTree) -> None:
    with pool(1) as executor:
        assert executor.submit(burst_and_answer).result(GRACE) == "answer"
        assert running["to"].ask("all") == ALL


def test_what_a_task_of_the_program_has_told_is_there_before_its_result(running: RunningTree) -> None:
    assert running.task(burst_and_answer).result(GRACE) == "answer"
    assert running["to"].ask("all") == ALL


def received() -> str:
    return str(WorkerRef("tree/to").ask("all"))


@pytest.mark.parametrize("pool", [ProcessPool, ThreadPool])
def test_what_the_program_has_told_is_there_before_a_task_of_a_pool_that_it_submits_next(
    pool: Any, running: RunningTree
) -> None:
    with pool(1) as executor:
        assert executor.submit(received).result(GRACE) == ""
        burst()
        assert executor.submit(received).result(GRACE) == ALL


@pytest.mark.parametrize("pool", [ProcessPool, ThreadPool])
def test_what_the_program_has_told_is_on_its_way_before_a_pool_that_it_ends_next(
    pool: Any, running: RunningTree, tmp_path: Path
) -> None:
    with pool(1) as executor:
        assert executor.submit(abs, -1).result(GRACE) == 1
        burst()
        executor.kill_workers() if isinstance(executor, ProcessPool) else executor.shutdown(wait=False)
        eventually(lambda: (tmp_path / "to").exists() and (tmp_path / "to").read_text() == ALL)


class Starts(Thread):
    def on_start(self) -> None:
        self.received = received()

    def on_receive(self, message: Any) -> str:
        return self.received


class StartsLate(Thread):
    """Starts when it may."""

    may_start = threading.Event()

    def on_start(self) -> None:
        self.may_start.wait(LATER)


def test_what_the_program_has_told_is_there_before_a_task_that_waits_for_a_supervisor_that_is_busy(
    running: RunningTree,
) -> None:
    StartsLate.may_start.clear()
    starting = in_background(lambda: running.start_child(Child(StartsLate, id="late")))
    eventually(lambda: "late" in str(running.status()))
    try:
        first = running.task(abs, -1)
        burst()
        second = running.task(received)
    finally:
        StartsLate.may_start.set()
    starting.result(GRACE)
    assert first.result(GRACE) == 1
    assert second.result(GRACE) == ALL


class Introduces(Thread):
    """Tells a burst when it starts, and never waits for a message."""

    def on_start(self) -> None:
        burst()

    def loop(self) -> None:
        over.wait(LATER)


def test_what_a_thread_has_told_in_its_start_is_there_before_its_next_sibling_starts(running: RunningTree) -> None:
    siblings = Child(Introduces, id="first", shutdown=0.1), Child(Starts, id="starts")
    with Supervisor("next", *siblings).start() as following:
        assert following["starts"].ask("received") == ALL


def test_what_the_program_has_told_is_there_before_a_tree_that_it_starts_next(running: RunningTree) -> None:
    burst()
    with Supervisor("next", Child(Starts, id="starts")).start() as following:
        assert following["starts"].ask("received") == ALL


ORDERS: dict[str, Callable[[RunningTree], Any]] = {
    "rejoin": lambda running: running["to"].rejoin(drain=GRACE),
    "terminate_child": lambda running: running.terminate_child("to", drain=GRACE),
    "stop": lambda running: running.stop(drain=GRACE),
}


@pytest.mark.parametrize("order", ORDERS)
def test_what_the_program_has_told_a_worker_is_there_before_an_order_to_stop(
    order: str, running: RunningTree, tmp_path: Path
) -> None:
    burst()
    ref = running["to"]
    ORDERS[order](running)
    if order == "rejoin":
        ref.join(GRACE)
    assert (tmp_path / "to").read_text() == ALL


def test_what_an_event_loop_has_told_is_there_before_it_leaves_the_block_of_a_tree(
    running: RunningTree, tmp_path: Path
) -> None:
    async def leave() -> None:
        async with running:
            burst()

    asyncio.run(leave())
    assert (tmp_path / "to").read_text() == ALL


ENDS = """
from suitkaise import Child, Process, Supervisor
from suitkaise.messaging import route

class Prints(Process):
    def on_receive(self, message):
        if message != "all":
            print(message, flush=True)

if __name__ == "__main__":
    route._SOON = route._MOMENT = 60.0
    ref = Supervisor("tree", Child(Prints, id="to", drain=3.0)).start()["to"]
    ref.ask("all")
    ref.ask("all")
    for number in range(COUNT):
        ref.tell(number)
"""


def test_what_a_program_has_told_is_there_before_its_end_stops_its_trees() -> None:
    assert run_program(ENDS.replace("COUNT", str(COUNT))).check().stdout == ALL

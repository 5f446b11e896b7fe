"""Bounded mailboxes of real processes and threads, with senders in other processes (rule 84)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import (
    AskTimeout,
    Bounded,
    Child,
    ChildNotFound,
    DeadlockError,
    MailboxFull,
    Process,
    Status,
    Supervisor,
    Thread,
    WorkerRef,
    preload,
)
from suitkaise.events import DeadLetter
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from suitkaise.platform.board import SlotView
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.runtime import current
from tests.end_to_end.kinds import next_event
from tests.support import eventually, in_background, start_threads_of_the_runtime

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

TO = WorkerRef("tree/to")


class Receiver:
    """Collects what it is told. "hold" keeps it busy until the file `gate` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handled: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case "hold":
                (self.folder / "held").touch()
                eventually((self.folder / "gate").exists, timeout=60)
            case "handled?":
                return self.handled
            case "self":
                return self.tell_itself()
            case _:
                self.handled.append(message if not isinstance(message, bytes) else len(message))
        return message

    def tell_itself(self) -> list[str]:
        names = []
        for _ in range(3):
            try:
                self.ref.tell("own")  # type: ignore[attr-defined]
                names.append("told")
            except MailboxFull as error:
                names.append(type(error).__name__)
        return names


class InProcess(Receiver, Process): ...


class InThread(Receiver, Thread): ...


class InLoops(Receiver, Process):
    def loop(self) -> None:
        self.wait(0.001)


class Async(Process):
    """Handles two messages at a time."""

    concurrency = 2

    def __init__(self, folder: Path) -> None:
        self.receiver = Receiver(folder)

    async def on_receive(self, message: Any) -> Any:
        return self.receiver.on_receive(message)


class Sender(Process):
    """Calls the function in a message with the rest of it."""

    def on_receive(self, message: Any) -> Any:
        function, *arguments = message
        return function(*arguments)


KINDS = (InProcess, InThread, InLoops, Async)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def program() -> Iterator[RunningTree]:
    """One program for all tests: each of them starts a receiver of its own."""
    preload(__name__)
    with Supervisor("tree", Child(Sender, id="from", shutdown=30.0), max_restarts=1000).start() as running:
        for _ in range(2):
            run(running, is_known)  # it connects to the program
        start_threads_of_the_runtime()
        yield running


@pytest.fixture
def start(program: RunningTree, tmp_path: Path) -> Iterator[Callable[..., RunningTree]]:
    """Start a receiver of this kind, with this mailbox; it ends with the test."""

    def begin(kind: Any, mailbox: Bounded | None, *, held: bool = False) -> RunningTree:
        program.start_child(Child(kind, args=(tmp_path,), id="to", mailbox=mailbox, shutdown=30.0))
        if held:
            program["to"].tell("hold")
            eventually((tmp_path / "held").exists, timeout=30)
        return program

    yield begin
    (tmp_path / "gate").touch()
    for id in {"to", "middle"} & {child.id for child in program.which_children()}:
        with suppress(ChildNotFound):  # a temporary one that has ended
            program.terminate_child(id)
            program.delete_child(id)


def figures() -> SlotView:
    """Return what the status board shows of the receiver."""
    view: SlotView = router().request(RequestKind.STATS, "tree/to").get()[3]
    return view


def release(running: RunningTree, folder: Path) -> Any:
    """Let the receiver go on; when nothing waits for it any more, return what it has handled."""
    (folder / "gate").touch()
    eventually(lambda: figures().queued == 0, timeout=30)
    return running["to"].ask("handled?", timeout=30)


def run(running: RunningTree, function: Callable[..., Any], *arguments: Any) -> Any:
    return running["from"].ask((function, *arguments), timeout=60)


# ------------------------------------------------------------ in the sender's process
def is_known() -> bool:
    return TO.is_alive()


def tell(*messages: Any, confirm: bool = False) -> list[str]:
    """Tell the receiver each of the messages; return how that ended."""
    ends = []
    for message in messages:
        try:
            TO.tell(message, confirm=confirm)
            ends.append("told")
        except MailboxFull:
            ends.append("full")
    return ends


def ask(message: Any, timeout: float) -> str:
    try:
        return repr(TO.ask(message, timeout=timeout))
    except (MailboxFull, AskTimeout) as error:
        return f"{type(error).__name__}: {error}"


# ------------------------------------------------------------ the tests
@kinds
def test_s84_reject_counts_exactly_whoever_sends(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, Bounded(3, "reject"), held=True)
    running["to"].tell("mine")
    assert run(running, tell, 1, 2, 3, 4) == ["told", "told", "full", "full"]
    with pytest.raises(MailboxFull, match="the mailbox of 'tree/to' is full: 3 messages wait for it"):
        running["to"].tell("mine")
    assert "MailboxFull" in run(running, ask, 5, 5.0)
    assert release(running, tmp_path) == ["mine", 1, 2]


@kinds
def test_s84_a_sender_is_blocked_until_there_is_room(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, Bounded(2, "block"), held=True)
    sent = running["from"].ask_future((tell, *range(20)))
    eventually(lambda: figures().blocked == 1)
    assert "its mailbox is full" in str(timed_out(running["to"]))
    assert not sent.done()
    (tmp_path / "gate").touch()
    assert sent.get(30) == ["told"] * 20
    assert run(running, ask, "handled?", 30.0) == repr(list(range(20)))


def timed_out(ref: WorkerRef) -> AskTimeout | None:
    try:
        ref.ask("late", timeout=0.05)
    except AskTimeout as error:
        return error
    return None


@kinds
def test_s84_drop_oldest_keeps_the_newest(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, Bounded(5, "drop_oldest"), held=True)
    events = running.events()
    assert run(running, tell, *range(500)) == ["told"] * 500
    dropped = next_event(events, DeadLetter)
    assert (dropped.path, "drop_oldest" in dropped.why) == ("tree/to", True)
    assert release(running, tmp_path) == list(range(495, 500))


@pytest.mark.parametrize("kind", [InProcess, InThread])
def test_s84_drop_newest_tells_only_who_wants_to_know(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, Bounded(1, "drop_newest"), held=True)
    assert run(running, tell, 0, 1) == ["told", "told"]
    assert run(running, lambda: tell(2, confirm=True)) == ["full"]
    with pytest.raises(MailboxFull):
        running["to"].tell(3, confirm=True)
    assert release(running, tmp_path) == [0]


@pytest.mark.parametrize("kind", [InProcess, InThread])
def test_s84_orders_neither_count_nor_wait(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, Bounded(1, "block"), held=True)
    run(running, tell, 0)
    waits = running["from"].ask_future((tell, 1))
    eventually(lambda: figures().blocked == 1)
    running.suspend("to")
    assert running["to"].status is Status.SUSPENDED
    running.resume("to")
    stopped = in_background(lambda: running.terminate_child("to"))
    eventually(lambda: running["to"].status is Status.STOPPING)
    (tmp_path / "gate").touch()
    stopped.result(30)
    assert waits.get(30) == ["told"]  # what waited in the mailbox is lost with the incarnation, so there is room


@pytest.mark.parametrize("kind", [InProcess, InThread])
def test_s84_a_worker_that_tells_itself_gets_an_error_and_no_deadlock(kind: Any, start: Any) -> None:
    running = start(kind, Bounded(2, "block"))
    assert running["to"].ask("self", timeout=30) == ["told", "told", "MailboxFull"]


def test_s84_a_destructor_in_the_io_thread_does_not_wait_for_room(start: Any) -> None:
    running = start(InProcess, Bounded(1, "block"), held=True)
    running["to"].tell("fills it")
    outcome: Future[str] = Future()
    runtime = current()
    assert runtime is not None
    runtime.engine_context.reactor.call_soon_threadsafe(lambda: outcome.set_result(tell("from the I/O thread")[0]))
    assert outcome.result(30) == "full"


def test_s84_the_overview_tells_how_full_it_is(start: Any) -> None:
    running = start(InThread, Bounded(2, "block"), held=True)
    assert run(running, tell, 1, 2) == ["told", "told"]
    waits = running["from"].ask_future((tell, 3))
    eventually(lambda: figures().blocked == 1)
    trees = router().request(RequestKind.OVERVIEW, "").get()["trees"]
    (facts,) = [one for tree in trees for one in tree["children"] if one["path"] == "tree/to"]
    assert (facts["queued"], facts["blocked"]) == (2, 1)
    assert facts["oldest_message"] > 0
    assert not waits.done()


class Owner(Process):
    """Has a background thread whose mailbox holds two messages."""

    def on_start(self) -> None:
        self.thread = self.start_thread(Child(Waits, args=(self.gate,), mailbox=Bounded(2, "reject")))

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"

    def on_receive(self, message: Any) -> list[str]:
        ends = []
        for number in range(4):
            try:
                self.thread.tell(number)
                ends.append("told")
            except MailboxFull:
                ends.append("full")
            eventually((self.gate.parent / "began").exists)
        return ends


class Waits(Thread):
    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def on_receive(self, message: Any) -> None:
        (self.gate.parent / "began").touch()
        eventually(self.gate.exists, timeout=60)


def test_s84_the_mailbox_of_a_background_thread_is_bounded_as_well(start: Any) -> None:
    running = start(Owner, None)
    assert running["to"].ask("go", timeout=30) == ["told", "told", "told", "full"]


class Chatty:
    """Tells the other one more than there is room for, as soon as the other one does the same."""

    mailbox = Bounded(1, "block")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_receive(self, other: str) -> str:
        if not other:
            return ""
        (self.folder / self.name).touch()  # type: ignore[attr-defined]
        eventually((self.folder / other).exists, timeout=30)
        try:
            for _ in range(3):
                WorkerRef(f"chat/{other}").tell("")
        except DeadlockError as error:
            return str(error)
        return "told"


class ChattyProcess(Chatty, Process): ...


class ChattyThread(Chatty, Thread): ...


@pytest.mark.parametrize("kind", [ChattyProcess, ChattyThread])
def test_s84_of_two_workers_that_wait_for_room_at_each_other_one_gets_an_error(kind: Any, tmp_path: Path) -> None:
    children = [Child(kind, args=(tmp_path,), id="a"), Child(ChattyProcess, args=(tmp_path,), id="b")]
    with Supervisor("chat", *children).start() as running:
        answers = running["a"].ask_future("b"), running["b"].ask_future("a")
        texts = sorted(answer.get(30) for answer in answers)
        assert texts[0].startswith("deadlock: chat/")
        assert "tells" in texts[0]
        assert texts[1] == "told"


@pytest.mark.parametrize("kind", [InProcess, InLoops])
def test_s84_no_message_is_handled_twice_or_overtaken_when_the_worker_is_killed(kind: Any, start: Any) -> None:
    running = start(kind, Bounded(3, "block"))
    sent = running["from"].ask_future((tell, *range(300)))
    for number in range(1, 4):
        eventually(lambda number=number: running["to"].incarnation == number and running["to"].pid)  # type: ignore[misc]
        running["to"].kill()
    assert set(sent.get(60)) == {"told"}
    handled = running["to"].ask("handled?", timeout=30)
    assert handled == sorted(set(handled))


def test_s84_a_message_of_a_sender_that_is_killed_while_it_waits_is_not_accepted(start: Any, tmp_path: Path) -> None:
    running = start(InProcess, Bounded(1, "block"), held=True)
    running.start_child(Child(Sender, id="middle", restart="temporary"))
    running["middle"].tell((tell, 0, 1))
    eventually(lambda: figures().blocked == 1)
    assert figures().oldest is not None
    running["middle"].kill()
    eventually(lambda: figures().blocked == 0)
    assert release(running, tmp_path) == [0]


def memory() -> int:
    return psutil.Process().memory_info().rss


def flood(number: int, size: int) -> int:
    """Tell the receiver that many messages of that size; return by how much the memory of this process grew."""
    before = memory()
    for _ in range(number):
        TO.tell(os.urandom(size))
    return memory() - before


def test_s84_a_flood_to_a_worker_that_does_not_read_leaves_all_memory_bounded(start: Any, tmp_path: Path) -> None:
    running = start(InProcess, Bounded(10, "drop_oldest"), held=True)
    receiver = psutil.Process(running["to"].pid)
    before, hub = receiver.memory_info().rss, memory()
    grown = run(running, flood, 1000, 200_000)  # 200 MB
    most = 40_000_000
    assert grown < most
    assert memory() - hub < most
    assert receiver.memory_info().rss - before < most
    assert len(release(running, tmp_path)) == 10


def test_s84_many_threads_and_processes_block_at_one_worker_and_all_come_through(start: Any) -> None:
    running = start(InLoops, Bounded(2, "block"))
    ends: list[list[str]] = []
    threads = [threading.Thread(target=lambda: ends.append(tell(*["x"] * 20))) for _ in range(8)]
    future = running["from"].ask_future((tell, *["y"] * 50))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert future.get(60) == ["told"] * 50
    assert ends == [["told"] * 20] * 8
    assert sorted(running["to"].ask("handled?", timeout=30)) == ["x"] * 160 + ["y"] * 50


# ------------------------------------------------------------ deadlines (rule 85)
class Middle(Process):
    """Passes a question on, with a time-out that is longer than its asker's."""

    def on_receive(self, message: Any) -> Any:
        began = time.monotonic()
        try:
            return TO.ask(message, timeout=None)
        except AskTimeout as error:
            self.waited, self.error = time.monotonic() - began, str(error)
            return None

    def last(self) -> tuple[float, str]:
        return self.waited, self.error


@pytest.mark.parametrize("kind", [InProcess, InThread])
def test_s85_an_ask_in_a_handler_waits_no_longer_than_the_asker(kind: Any, start: Any) -> None:
    running = start(kind, None, held=True)
    running.start_child(Child(Middle, shutdown=30.0))
    with suppress(AskTimeout):  # both give up at the same time
        assert running["middle"].ask("x", timeout=0.5) is None
    waited, text = running["middle"].proxy().last().get(30)
    assert waited < 20
    assert "all that was left of the time of the ask that is being handled" in text


@kinds
def test_s85_an_ask_whose_asker_waits_no_longer_is_not_handled(kind: Any, start: Any, tmp_path: Path) -> None:
    running = start(kind, None)
    run(running, tell, 0, 1)  # the second one makes a direct connection
    running["to"].tell("hold")
    eventually((tmp_path / "held").exists)
    assert "AskTimeout" in run(running, ask, "late", 0.1)
    with pytest.raises(AskTimeout):
        running["to"].ask("late, too", timeout=0.1)
    run(running, tell, 2)
    assert release(running, tmp_path) == [0, 1, 2]
    eventually(lambda: figures().skipped == 2)

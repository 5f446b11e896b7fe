"""Messages from worker to worker over a direct connection: what a ref promises holds at every end of either side."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    Killed,
    MailboxFull,
    Normal,
    Process,
    Published,
    Shutdown,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerRef,
    flush,
    group,
    preload,
    publish,
)
from suitkaise.events import ChildExited, ChildStopped, DeadLetter
from suitkaise.messaging.address import Address
from suitkaise.messaging.direct import Routes
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.route import Route
from suitkaise.messaging.router import HubClient, router
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import next_event
from tests.support import descriptors_of, eventually, in_background, send_signal

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


@pytest.fixture(autouse=True, scope="module")
def quick_starts() -> None:
    preload(__name__)


def await_file(file: Path) -> None:
    eventually(file.exists, timeout=30)


class Runs:
    """Calls the function in a message with itself and the rest of the message."""

    def on_receive(self, message: Any) -> Any:
        function, *arguments = message
        return function(self, *arguments)


class Sender(Runs, Process): ...


class SenderAsync(Process):
    async def on_receive(self, message: Any) -> Any:
        function, *arguments = message
        return await function(self, *arguments)


class Receiver:
    """Notes what it is told in a file; some messages end it."""

    restart = "permanent"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_receive(self, message: Any) -> Any:
        match message:
            case "pid":
                return os.getpid()
            case "renew":
                self.rejoin()  # type: ignore[attr-defined]
            case "crash":
                raise ValueError("crash")
            case "block":
                (self.folder / "blocked").touch()
                await_file(self.folder / "gate")
            case "hold":
                (self.folder / "blocked").touch()
                self.wait(30)  # type: ignore[attr-defined]
            case "fork":
                return fork_a_sleeper()
            case bytes():
                return message
            case _:
                with (self.folder / "handled").open("a") as file:
                    file.write(f"{message}\n")
        return message


class Waits(Receiver, Process): ...


class Loops(Receiver, Process):
    def loop(self) -> None:
        pass


class WaitsAsync(Receiver, Process):
    async def on_receive(self, message: Any) -> Any:
        return super().on_receive(message)


receivers = pytest.mark.parametrize("receiver", [Waits, Loops, WaitsAsync])


def fork_a_sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def handled(folder: Path) -> list[str]:
    file = folder / "handled"
    return file.read_text().split() if file.exists() else []


def tree_of(receiver: Any, folder: Path, **options: Any) -> Supervisor:
    return Supervisor(
        "tree",
        Child(receiver, args=(folder,), id="to", shutdown=20.0),
        Child(Sender, id="from", shutdown=20.0),
        **{"max_restarts": 1000, **options},
    )


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningTree]:
    with tree_of(Waits, tmp_path).start() as running:
        yield running


def run(running: RunningTree, function: Callable[..., Any], *arguments: Any) -> Any:
    return running["from"].ask((function, *arguments), timeout=60)


# ------------------------------------------------------------ in the sender's process
TO = WorkerRef("tree/to")


def own_route(path: str = TO.path) -> Route | None:
    """Return the direct connection of this thread, if there is one that can be used."""
    hub = router()
    if isinstance(hub, HubClient):
        routes = hub._routes
    else:
        assert isinstance(hub, Registry)
        assert hub._routes is not None
        routes = hub._routes._routes
    assert routes is not None
    known = routes._of_thread.__dict__.get(path)
    return known if isinstance(known, Route) and not known.broken else None


def is_direct(path: str = TO.path) -> bool:
    return own_route(path) is not None


def connect() -> None:
    """Send until this thread has a direct connection."""

    def ask() -> bool:
        assert TO.ask(b"connect", timeout=30) == b"connect"
        return is_direct()

    eventually(ask)


def is_direct_after_two(sender: Any) -> list[bool]:
    seen = []
    for _ in range(3):
        TO.ask(b"x")
        seen.append(is_direct())
    return seen


def test_the_second_message_to_a_worker_makes_a_connection(running: RunningTree) -> None:
    assert run(running, is_direct_after_two) == [False, True, True]


def answers_of_all_kinds(sender: Any) -> list[Any]:
    connect()
    futures = [TO.ask_future(b"%d" % number) for number in range(100)]
    return [
        TO.ask(b"asked"),
        [future.get(30) for future in futures] == [b"%d" % number for number in range(100)],
        TO.ask(b"again"),
        TO.proxy().folder.get() is not None,
        is_direct(),
    ]


@receivers
def test_asks_futures_and_proxies_are_answered(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, answers_of_all_kinds) == [b"asked", True, b"again", True, True]


async def awaits_answers(sender: Any) -> Any:
    for _ in range(3):
        await TO.ask_future(b"connect")
    import asyncio

    return await asyncio.gather(*(TO.ask_future(b"%d" % number) for number in range(50))), is_direct()


def test_an_async_worker_awaits_answers_of_a_direct_connection(tmp_path: Path) -> None:
    children = Child(Waits, args=(tmp_path,), id="to"), Child(SenderAsync, id="from")
    with Supervisor("tree", *children).start() as running:
        answers, direct = run(running, awaits_answers)
        assert answers == [b"%d" % number for number in range(50)]
        assert direct


def send_mixed(sender: Any, count: int) -> bool:
    """Send numbers by tells, asks and futures, the first ones through the hub."""
    futures = []
    for number in range(count):
        if number % 7 == 3:
            futures.append(TO.ask_future(number))
        elif number % 11 == 5:
            assert TO.ask(number, timeout=30) == number
        else:
            TO.tell(number)
    for future in futures:
        future.get(30)
    TO.ask(b"last", timeout=30)
    return is_direct()


@receivers
def test_messages_of_a_thread_keep_their_order_also_where_the_way_changes(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, send_mixed, 1000)
    assert handled(tmp_path) == list(map(str, range(1000)))


class Member(Receiver):
    """Is in a group and has subscribed to a topic; notes the first part of what it gets there."""

    def on_start(self) -> None:
        self.join_group("members")  # type: ignore[attr-defined]
        self.subscribe("numbers")  # type: ignore[attr-defined]

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Published):
            message = message.message
        return super().on_receive(message[0] if isinstance(message, list) else message)


class MemberWaits(Member, Process): ...


class MemberLoops(Member, Process):
    def loop(self) -> None:
        pass


class MemberWaitsAsync(Member, Process):
    async def on_receive(self, message: Any) -> Any:
        return super().on_receive(message)


members = pytest.mark.parametrize("receiver", [MemberWaits, MemberLoops, MemberWaitsAsync])


def send_all_ways(sender: Any, folder: Path, count: int, size: int, futures: bool) -> list[Any]:
    """Send numbers by tells and futures, to a group and under a topic, while the receiver is busy; return the answers.

    With each message go `size` bytes.
    """
    connect()
    TO.tell("block")
    await_file(folder / "blocked")
    answers = []
    for number in range(count):
        message = [number, bytes(size)]
        match number % 6:
            case 1:
                assert publish("numbers", message) == 1
            case 3 if futures:
                answers.append(TO.ask_future(message))
            case 4:
                assert group("members").tell(message) == 1
            case 5:
                assert publish("nobody has subscribed to this", message) == 0
                TO.tell(message)
            case _:
                TO.tell(message)
    (folder / "gate").touch()
    TO.ask(b"last", timeout=30)
    connect()  # again
    return [answer.get(30) for answer in answers]


all_ways = pytest.mark.parametrize("count, size", [(100, 0), (300, 5_000), (30, 1_000_000)])
with_futures = pytest.mark.parametrize("futures", [False, True])


@all_ways
@with_futures
@members
def test_what_a_thread_publishes_and_tells_a_group_keeps_its_place_among_its_messages_to_a_busy_worker(
    receiver: Any, count: int, size: int, futures: bool, tmp_path: Path
) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        answers = run(running, send_all_ways, tmp_path, count, size, futures)
    assert handled(tmp_path) == list(map(str, range(count)))
    assert answers == ([number for number in range(count) if number % 6 == 3] if futures else [])


LARGE = 5_000_000  # more than a socket holds: a receiver has other input before it has read all of it


def interrupt_once(owner: Any, name: str, handler: Callable[[], Any], *, after: bool = False) -> None:
    """Have the next call of a method run a handler first, or after it, as a signal may do in its thread."""
    method = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        setattr(owner, name, method)
        if not after:
            handler()
        value = method(*arguments)
        if after:
            handler()
        return value

    setattr(owner, name, interrupted)


WAYS: dict[str, Callable[[Any], Any]] = {
    "tell": TO.tell,
    "ask_future": TO.ask_future,
    "publish": lambda message: publish("numbers", message),
    "group": lambda message: group("members").tell(message),
}


def send_with_a_handler_before_the_hub_is_told(sender: Any, folder: Path, how: str) -> bool:
    """Send by way of the hub, interrupted by a handler that sends as well, and then once more."""

    def handler() -> None:
        for _ in range(3):  # which would make a connection
            TO.ask(b"x", timeout=30)
        TO.tell("block")
        await_file(folder / "blocked")

    interrupt_once(HubClient, "_current", handler)
    WAYS[how]([1, bytes(LARGE)])
    TO.tell([2])
    (folder / "gate").touch()
    TO.ask(b"last", timeout=30)
    connect()
    return is_direct()


ways = pytest.mark.parametrize("how", WAYS)


@ways
@members
def test_a_signal_handler_makes_no_connection_by_which_messages_overtake_the_one_that_it_interrupts(
    receiver: Any, how: str, tmp_path: Path
) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, send_with_a_handler_before_the_hub_is_told, tmp_path, how)
    assert handled(tmp_path) == ["1", "2"]


def send_with_a_handler_while_a_connection_is_made(sender: Any, folder: Path, how: str) -> bool:
    """Send by a new connection, interrupted by a handler that sends by way of the hub when it is made."""
    TO.ask(b"first", timeout=30)

    def handler() -> None:
        TO.ask(b"x", timeout=30)
        TO.tell("block")
        await_file(folder / "blocked")
        WAYS[how]([1, bytes(LARGE)])

    interrupt_once(Routes, "_connect", handler, after=True)
    TO.tell([2])
    (folder / "gate").touch()
    TO.ask(b"last", timeout=30)
    connect()
    return is_direct()


@ways
@members
def test_what_a_signal_handler_sends_while_its_thread_makes_a_connection_is_not_overtaken(
    receiver: Any, how: str, tmp_path: Path
) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, send_with_a_handler_while_a_connection_is_made, tmp_path, how)
    assert handled(tmp_path) == ["1", "2"]


@ways
@members
def test_a_signal_handler_of_the_program_makes_no_connection_either_while_its_thread_sends(
    receiver: Any, how: str, tmp_path: Path
) -> None:
    def handler() -> None:
        for _ in range(3):
            TO.ask(b"x", timeout=30)
        TO.tell("block")
        await_file(tmp_path / "blocked")

    with tree_of(receiver, tmp_path).start(), pytest.MonkeyPatch.context() as patch:
        for name in ("send", "offer"):
            patch.setattr(Address, name, getattr(Address, name))
        interrupt_once(Address, "offer" if how == "publish" else "send", handler)
        WAYS[how]([1, bytes(LARGE)])
        TO.tell([2])
        (tmp_path / "gate").touch()
        TO.ask(b"last", timeout=30)
        connect()
    assert handled(tmp_path) == ["1", "2"]


class Few(Receiver, Process):
    def on_start(self) -> None:
        self.subscribe("few", most=10)

    def on_receive(self, message: Any) -> Any:
        return super().on_receive(message.message if isinstance(message, Published) else message)


def publish_many(sender: Any, folder: Path) -> int:
    """Publish to a receiver that reads nothing; return how many messages were sent to it."""
    connect()
    TO.tell("block")
    await_file(folder / "blocked")
    TO.tell("told")
    reached = sum(publish("few", number) for number in range(3000))
    (folder / "gate").touch()
    TO.ask(b"last", timeout=30)
    return reached


def test_what_is_published_to_a_worker_that_reads_nothing_is_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    with tree_of(Few, tmp_path).start() as running, running.events() as events:
        reached = run(running, publish_many, tmp_path)
        assert handled(tmp_path) == ["told", *map(str, range(reached))]
        assert reached == 9
        event = next_event(events, DeadLetter)
        assert event.why == "published as 'few': 10 messages already wait for 'tree/to'"


def publish_and_tell(sender: Any, folder: Path) -> int:
    """Tell and publish to a receiver that reads nothing; return how many descriptors both have more, at most."""
    connect()
    pid = TO.ask("pid")
    first = number_of_descriptors(pid)
    TO.tell("block")
    await_file(folder / "blocked")
    most = 0
    for _ in range(50):
        TO.tell("x")
        publish("numbers", "y")
        TO.tell("x")
        most = max(most, number_of_descriptors(pid) - first)
    (folder / "gate").touch()
    TO.ask(b"last", timeout=30)
    return max(most, number_of_descriptors(pid) - first)


def number_of_descriptors(pid: int) -> int:
    return len(descriptors_of(os.getpid())) + len(descriptors_of(pid))


def test_who_publishes_to_a_worker_that_reads_nothing_makes_no_connection_after_the_other(tmp_path: Path) -> None:
    with tree_of(MemberWaits, tmp_path).start() as running:
        assert run(running, publish_and_tell, tmp_path) <= 4
    assert handled(tmp_path) == ["x", "y", "x"] * 50


def send_with_renewals(sender: Any, count: int) -> list[Any]:
    futures = []
    for number in range(count):
        if number % 50 == 20:
            TO.tell("renew")
        if number % 3:
            TO.tell(number)
        else:
            futures.append(TO.ask_future(number))
    answers = [future.get(30) for future in futures]
    TO.ask(b"last", timeout=30)
    return answers


@receivers
def test_s72_no_message_is_lost_or_overtaken_when_the_receiver_renews_itself(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        answers = run(running, send_with_renewals, 500)
        assert answers == [number for number in range(500) if number % 3 == 0]
        assert running["to"].incarnation > 2
    assert handled(tmp_path) == list(map(str, range(500)))


def ask_and_renew(sender: Any, count: int) -> list[Any]:
    return [TO.ask("renew" if number % 3 == 0 else number, timeout=30) for number in range(count)]


def test_s72_no_ask_is_lost_between_two_incarnations(running: RunningTree) -> None:
    assert run(running, ask_and_renew, 60) == ["renew" if number % 3 == 0 else number for number in range(60)]
    assert running["to"].incarnation > 10


def ask_held(sender: Any) -> Any:
    connect()
    return TO.ask("hold", timeout=50)


def test_an_ask_is_answered_with_the_reason_when_the_receiver_is_killed(running: RunningTree, tmp_path: Path) -> None:
    answer = running["from"].ask_future((ask_held,))
    await_file(tmp_path / "blocked")
    running["to"].kill()
    with pytest.raises(WorkerDead, match=r"'tree/to' died before it answered: killed \(ref\.kill") as caught:
        answer.get(30)
    assert isinstance(caught.value.reason, Killed)
    assert run(running, ask_and_renew, 3)[1:] == [1, 2]


def ask_after_a_crash(sender: Any, count: int) -> list[Any]:
    seen: list[Any] = []
    for number in range(count):
        connect()
        try:
            TO.ask("crash", timeout=30)
        except ValueError as error:
            seen.append(str(error))
        seen.append(TO.ask(number, timeout=30))
    return seen


def test_the_ask_after_a_crash_is_for_the_next_incarnation(running: RunningTree) -> None:
    expected = [one for number in range(10) for one in ("crash", number)]
    assert run(running, ask_after_a_crash, 10) == expected
    assert running["to"].incarnation == 11


def ask_after_a_kill(sender: Any, count: int) -> list[int]:
    connect()
    pids = [TO.ask("pid")]
    for _ in range(count):
        TO.kill()
        pids.append(TO.ask("pid", timeout=30))
        connect()
    return pids


def test_the_ask_after_a_kill_is_for_the_next_incarnation(running: RunningTree) -> None:
    assert len(set(run(running, ask_after_a_kill, 10))) == 11


def tell_and_wait(sender: Any, count: int) -> None:
    connect()
    TO.tell("hold")
    for number in range(count):
        TO.tell(number)


def test_s72_a_stop_counts_the_messages_that_came_directly(running: RunningTree, tmp_path: Path) -> None:
    with running.events() as happened:
        run(running, tell_and_wait, 7)
        await_file(tmp_path / "blocked")
        running["to"].rejoin()
        event = next_event(happened, ChildStopped)
        assert (event.reason, event.unhandled) == (Shutdown(), 7)
    assert handled(tmp_path) == []


def test_s72_a_kill_counts_the_messages_that_came_directly(running: RunningTree, tmp_path: Path) -> None:
    with running.events() as happened:
        run(running, tell_and_wait, 7)
        await_file(tmp_path / "blocked")
        running["to"].kill()
        assert next_event(happened, ChildExited).unhandled == 7
    assert handled(tmp_path) == []


def tell_until_enough(sender: Any, folder: Path, name: int) -> int:
    """Tell messages of all sizes in bursts until there is a file `enough`; return how many were accepted."""
    connect()
    accepted = 0
    while not (folder / "enough").exists():
        for size in (0, 0, 100, 0, 600, 0, 40_000, 0) * 10:
            try:
                TO.tell((name, accepted, bytes(size)))
            except (MailboxFull, WorkerDead):
                threading.Event().wait(0.01)
            else:
                accepted += 1
    flush(60)
    return accepted


class Writes(Receiver, Process):
    """Notes who has sent a message."""

    def on_start(self) -> None:
        self.file = os.open(self.folder / "handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, tuple):
            os.write(self.file, f"{message[0]}\n".encode())
        return message


@pytest.mark.parametrize("in_the_program", [False, True])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_s72_each_message_of_a_flood_is_handled_or_counted_once_although_the_receiver_ends(
    tmp_path: Path, how: str, in_the_program: bool
) -> None:
    ends = 5
    with tree_of(Writes, tmp_path).start() as running, running.events() as happened:
        sender = running["from"].ask_future((tell_until_enough, tmp_path, 1))
        also = in_background(lambda: tell_until_enough(None, tmp_path, 2) if in_the_program else 0)
        unhandled, enough = 0, 0
        for _ in range(ends):
            enough += 500
            eventually(lambda: len(handled(tmp_path)) > enough, timeout=30)  # noqa: B023
            if how == "kill":
                running["to"].kill()
                unhandled += next_event(happened, ChildExited).unhandled
            else:
                running.terminate_child("to")
                unhandled += next_event(happened, ChildStopped).unhandled
                running.restart_child("to")
            enough = len(handled(tmp_path))
        (tmp_path / "enough").touch()
        accepted = sender.get(60) + also.result(60)
        assert TO.ask(b"last", timeout=30) == b"last"
        hub = router()
        assert isinstance(hub, Registry)
        lost = hub.dead_letters.count(TO.path)
    assert 0 <= accepted - len(handled(tmp_path)) - unhandled - lost <= ends  # a kill may come before the line


def tell_renew(sender: Any) -> None:
    connect()
    TO.tell("block")
    TO.tell("renew")
    for number in range(5):
        TO.tell(number)


def ask_often(sender: Any, times: int) -> None:
    connect()
    for _ in range(times):
        TO.ask(b"again", timeout=30)
    assert is_direct()


def tell_by_the_former_connection(sender: Any) -> None:
    assert is_direct()
    TO.tell("late")
    TO.ask(b"last", timeout=30)


def test_s55_a_former_sender_does_not_change_what_the_next_incarnation_is_believed_to_have_unread(
    tmp_path: Path,
) -> None:
    children = Child(Waits, args=(tmp_path,), id="to"), Child(Sender, id="from"), Child(Sender, id="other")
    with Supervisor("tree", *children, max_restarts=9).start() as running:
        run(running, ask_often, 100)
        first = running["to"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: running["to"].pid not in (None, first))
        running["other"].ask((ask_often, 3), timeout=60)
        run(running, tell_by_the_former_connection)
        hub = router()
        assert isinstance(hub, Registry)
        handle: Any = hub.find(TO.path).receiver
        eventually(lambda: handle.snapshot().queued == 0)


FLOOD = 20_000


def count_handled(folder: Path) -> int:
    return (folder / "handled").stat().st_size


class Heavy(Process):
    """Counts in a file what it is told. Its memory is large, so its sockets close long after it can run no code."""

    restart = "permanent"

    def __init__(self, folder: Path) -> None:
        self.memory = bytearray(b"x") * (300 << 20)
        self.file = os.open(folder / "handled", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_receive(self, message: Any) -> Any:
        if message == "told":
            os.write(self.file, b"x")
        return message


def tell_heavy(sender: Any, folder: Path) -> None:
    connect()
    (folder / "blocked").touch()
    for number in range(FLOOD):
        TO.tell("told")
        if number % 4 == 0:
            sender.wait(0.0001)
    flush(30)
    TO.ask("last", timeout=30)


def test_s72_each_message_of_a_flood_is_handled_or_counted_although_its_receiver_is_restarted_early(
    tmp_path: Path,
) -> None:
    children = (
        Child(Heavy, args=(tmp_path,), id="to", early_restart=True, spares=1),
        Child(Sender, id="from", shutdown=20.0),
    )
    with Supervisor("tree", *children, max_restarts=9).start() as running, running.events() as events:
        flooding = running["from"].ask_future((tell_heavy, tmp_path))
        await_file(tmp_path / "blocked")
        unhandled, ends = 0, 3
        for _ in range(ends):
            pid, before = running["to"].pid, count_handled(tmp_path)
            assert pid is not None
            eventually(lambda before=before: count_handled(tmp_path) > before + 1000)  # type: ignore[misc]
            os.kill(pid, signal.SIGKILL)
            unhandled += next_event(events, ChildExited).unhandled
            eventually(lambda pid=pid: running["to"].pid not in (None, pid))  # type: ignore[misc]
        flooding.get(60)
    assert 0 <= FLOOD - count_handled(tmp_path) - unhandled <= ends  # a kill may come before the write


def test_s72_messages_that_came_directly_wait_for_the_next_incarnation(running: RunningTree, tmp_path: Path) -> None:
    with running.events() as happened:
        run(running, tell_renew)
        (tmp_path / "gate").touch()
        event = next_event(happened, ChildExited)
        assert (event.reason, event.unhandled) == (Normal(), 5)
        eventually(lambda: len(handled(tmp_path)) == 5)
    assert handled(tmp_path) == list(map(str, range(5)))


def time_out(sender: Any, folder: Path) -> list[Any]:
    connect()
    TO.tell("block")
    with pytest.raises(AskTimeout, match=r"'tree/to' did not answer within 0\.05 s"):
        TO.ask(b"late", timeout=0.05)
    (folder / "gate").touch()
    return [TO.ask(b"%d" % number, timeout=30) for number in range(20)] + [is_direct()]


@receivers
def test_an_answer_that_comes_too_late_is_given_to_no_other_ask(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, time_out, tmp_path) == [*(b"%d" % number for number in range(20)), True]


def ask_large(sender: Any, size: int) -> bool:
    connect()
    data = os.urandom(size)
    future = TO.ask_future(data)
    return TO.ask(data, timeout=60) == data and future.get(60) == data and is_direct()


@receivers
def test_large_messages_and_answers_pass(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        assert run(running, ask_large, 5 << 20)


def test_a_forked_child_of_the_receiver_does_not_keep_the_connection(running: RunningTree, tmp_path: Path) -> None:
    run(running, send_mixed, 10)
    child = running["to"].ask("fork")
    answer = running["from"].ask_future((ask_held,))
    await_file(tmp_path / "blocked")
    running["to"].ask_future("pid")
    send_signal(running["to"], signal.SIGKILL)
    with pytest.raises(WorkerDead):
        answer.get(30)
    assert child


def ask_in_a_fork(sender: Any) -> list[Any]:
    connect()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answers = [TO.ask(b"child%d" % number, timeout=30) for number in range(5)]
            os.write(writer, b" ".join(answers))
        finally:
            os._exit(0)
    answers = [TO.ask(b"parent%d" % number, timeout=30) for number in range(5)]
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read().split()
    os.waitpid(pid, 0)
    return [answers, theirs, TO.ask(b"after"), is_direct()]


def test_a_forked_child_of_the_sender_makes_a_connection_of_its_own(running: RunningTree) -> None:
    assert run(running, ask_in_a_fork) == [
        [b"parent%d" % number for number in range(5)],
        [b"child%d" % number for number in range(5)],
        b"after",
        True,
    ]


def ask_in_threads(sender: Any, threads: int, count: int) -> list[Any]:
    wrong: list[Any] = []

    def work(thread: int) -> None:
        for number in range(count):
            question = b"%d %d" % (thread, number)
            if number % 3 == 0:
                TO.tell(f"{thread}-{number}")
            if TO.ask(question, timeout=30) != question:
                wrong.append(question)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


def test_threads_of_a_worker_have_connections_of_their_own(running: RunningTree, tmp_path: Path) -> None:
    assert run(running, ask_in_threads, 8, 100) == []
    lines = handled(tmp_path)
    for thread in range(8):
        own = [int(line.split("-")[1]) for line in lines if line.startswith(f"{thread}-")]
        assert own == list(range(0, 100, 3))


def disturb(sender: Any, count: int) -> list[Any]:
    """Send while a signal handler sends, too."""
    connect()
    told: list[str] = []
    answers: list[Any] = []
    main = threading.main_thread().ident
    over = threading.Event()

    def handler(number: int, frame: Any) -> None:
        if len(told) < 300:
            told.append(f"h{len(told)}")
            TO.tell(told[-1])
            if len(told) % 10 == 0:
                answers.append(TO.ask(b"h", timeout=30))

    def send_signals() -> None:
        while not over.wait(0.001):
            signal.pthread_kill(main or 0, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    sending = threading.Thread(target=send_signals)
    sending.start()
    wrong = []
    for number in range(count):
        TO.tell(number)
        if number % 5 == 0 and TO.ask(b"%d" % number, timeout=30) != b"%d" % number:
            wrong.append(number)
    over.set()
    sending.join()
    signal.signal(signal.SIGUSR2, before)
    TO.ask(b"last", timeout=30)
    return [wrong, len(told), set(answers)]


def test_a_signal_handler_may_tell_and_ask_at_any_moment(running: RunningTree, tmp_path: Path) -> None:
    wrong, told, answers = run(running, disturb, 2000)
    assert wrong == []
    assert answers <= {b"h"}
    run(running, send_mixed, 0)
    lines = handled(tmp_path)
    ours = [line for line in lines if line.startswith("h")]  # a handler may interrupt a handler before it sends
    assert sorted(ours) == sorted(f"h{number}" for number in range(told))
    assert [line for line in lines if not line.startswith("h")] == list(map(str, range(2000)))


def raise_in_asks(sender: Any, count: int) -> list[Any]:
    """Ask while a signal handler raises exceptions."""

    class Stop(BaseException):  # as KeyboardInterrupt; an Exception at the wrong moment is one of the decoding
        pass

    connect()
    main = threading.main_thread().ident
    over, armed = threading.Event(), False

    def handler(number: int, frame: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Stop

    def send_signals() -> None:
        while not over.wait(0.0007):
            signal.pthread_kill(main or 0, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    sending = threading.Thread(target=send_signals)
    sending.start()
    wrong, stopped = [], 0
    for number in range(count):
        try:
            armed = True
            answer = TO.ask(b"%d" % number, timeout=30)
            armed = False
            if answer != b"%d" % number:
                wrong.append((number, answer))
        except Stop:
            stopped += 1
    over.set()
    sending.join()
    signal.signal(signal.SIGUSR2, before)
    return [wrong, stopped > 0, TO.ask(b"well", timeout=30)]


def test_an_exception_of_a_signal_handler_mixes_up_no_answers(running: RunningTree) -> None:
    assert run(running, raise_in_asks, 1000) == [[], True, b"well"]


def flood(sender: Any) -> list[Any]:
    """Tell a worker that does not read, until it is refused."""
    connect()
    TO.tell("block")
    told = 0
    try:
        while told < 3000:
            TO.tell(b"x" * 50_000)
            told += 1
    except MailboxFull as error:
        return [told, str(error)]
    return [told, "never refused"]


def test_a_worker_that_does_not_read_bounds_what_waits_for_it(running: RunningTree, tmp_path: Path) -> None:
    told, error = run(running, flood)
    assert 50 * 20 < told < 3000
    assert "bytes already wait to be read by 'tree/to'" in error
    (tmp_path / "gate").touch()
    assert run(running, ask_and_renew, 2)[1] == 1


class EchoThread(Thread):
    def on_receive(self, message: Any) -> Any:
        return message


def ask_a_thread(sender: Any) -> bool:
    ref = WorkerRef("tree/thread")
    return all(ref.ask(number) == number for number in range(20)) and not is_direct(ref.path)


def test_a_thread_of_the_program_is_asked_through_the_hub(tmp_path: Path) -> None:
    with Supervisor("tree", Child(EchoThread, id="thread"), Child(Sender, id="from")).start() as running:
        assert run(running, ask_a_thread)


def test_the_connection_of_a_sender_that_has_ended_is_closed(running: RunningTree) -> None:
    def sockets() -> int:
        return sum(name.startswith("socket:") for name in descriptors_of(running["to"].pid or 0))

    before = sockets()
    run(running, send_mixed, 5)
    assert sockets() == before + 1
    running["from"].kill()
    eventually(lambda: sockets() == before)


def tell_and_end(sender: Any, count: int) -> None:
    connect()
    TO.tell("block")
    for _ in range(count):
        TO.tell(b"x" * 50_000)
    TO.tell("last")
    sender.rejoin()


def test_what_a_worker_has_told_arrives_although_the_worker_ends_at_once(running: RunningTree, tmp_path: Path) -> None:
    run(running, tell_and_end, 100)
    await_file(tmp_path / "blocked")
    (tmp_path / "gate").touch()
    eventually(lambda: handled(tmp_path) == ["last"])


def tell_in_a_child(sender: Any, folder: Path, way: str) -> int | None:
    """Tell a worker that does not read more than its socket takes, in a child that ends at once; return its exit code.

    The worker reads on a moment after that.
    """

    def tell_all() -> None:
        connect()
        TO.tell("block")
        await_file(folder / "blocked")
        for _ in range(100):
            TO.tell(b"x" * 50_000)
        TO.tell("last")
        (folder / "told").touch()

    process = multiprocessing.get_context("fork").Process(target=tell_all)
    if way == "multiprocessing":
        process.start()
    elif (child := os.fork()) == 0:
        tell_all()
        return None
    await_file(folder / "told")
    threading.Timer(0.05, (folder / "gate").touch).start()
    if way == "os.fork":
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    process.join()
    return process.exitcode


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_what_a_forked_child_of_a_worker_has_told_arrives_although_the_child_ends_at_once(
    running: RunningTree, tmp_path: Path, way: str
) -> None:
    assert run(running, tell_in_a_child, tmp_path, way) == 0
    eventually(lambda: handled(tmp_path) == ["last"])


# ------------------------------------------------------------ told, and accepted
def tell_a_blocked_one(sender: Any, folder: Path, count: int, size: int) -> tuple[bool, int]:
    """Tell a worker that does not read more than its socket takes; return what the two waits have told."""
    connect()
    TO.tell("block")
    await_file(folder / "blocked")
    for _ in range(count):
        TO.tell(bytes(size))
    try:
        flush(timeout=0.05)
        flushed = True
    except AskTimeout:
        flushed = False
    threading.Timer(0.05, (folder / "gate").touch).start()
    TO.tell("last", confirm=True)
    flush(timeout=30)
    hub = router()
    assert isinstance(hub, HubClient)
    return flushed, hub.flush(0.0)


def test_flush_waits_until_a_worker_that_did_not_read_has_all(running: RunningTree, tmp_path: Path) -> None:
    assert run(running, tell_a_blocked_one, tmp_path, 40, 50_000) == (False, 0)
    eventually(lambda: handled(tmp_path) == ["last"])


def test_what_a_socket_takes_is_accepted_while_the_worker_is_busy(running: RunningTree, tmp_path: Path) -> None:
    assert run(running, tell_a_blocked_one, tmp_path, 10, 10) == (True, 0)


def confirm_to_one_that_ends(sender: Any, folder: Path) -> str:
    connect()
    TO.tell("hold", confirm=True)
    await_file(folder / "blocked")
    ending = threading.Timer(0.05, TO.rejoin)
    ending.start()
    try:
        while True:
            with contextlib.suppress(MailboxFull):  # no more may wait until it is known that there is no restart
                TO.tell(b"more", confirm=True)
    except WorkerDead as error:
        ending.join()
        return str(error)


def test_a_message_for_a_worker_that_is_over_is_not_confirmed(running: RunningTree, tmp_path: Path) -> None:
    assert run(running, confirm_to_one_that_ends, tmp_path).startswith("'tree/to' is over")


class Listens(Receiver, Thread): ...


@pytest.mark.parametrize("receiver", [Waits, Listens])
def test_the_program_itself_can_confirm_and_flush(receiver: Any, tmp_path: Path) -> None:
    with Supervisor("tree", Child(receiver, args=(tmp_path,), id="to")).start() as running:
        running["to"].tell("told", confirm=True)
        flush()
        eventually(lambda: handled(tmp_path) == ["told"])
        running["to"].rejoin()
        running["to"].join(timeout=30)
        with pytest.raises(WorkerDead, match="'tree/to' is over"):
            running["to"].tell("late", confirm=True)

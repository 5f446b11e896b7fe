"""Messages of the program's own threads over direct connections: what a ref promises holds for them, too.

Most of the senders are those of `test_direct_connections`: they run in the program's main thread here, and in a thread
worker of the program.
"""

from __future__ import annotations

import asyncio
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
    ChildNotFound,
    Killed,
    Shutdown,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerRef,
    flush,
    preload,
)
from suitkaise.engines import process_handle
from suitkaise.events import ChildExited, ChildRestarting, ChildStopped, DeadLetter
from suitkaise.messaging import direct
from suitkaise.messaging.identity import supervises
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.router import router
from suitkaise.platform import connection_counts
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.runtime import current
from tests.end_to_end import test_direct_connections as senders
from tests.end_to_end.kinds import next_event
from tests.end_to_end.test_direct_connections import (
    TO,
    Runs,
    Waits,
    await_file,
    connect,
    handled,
    is_direct,
    own_route,
    receivers,
)
from tests.support import descriptors_of, eventually, in_background

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


@pytest.fixture(autouse=True, scope="module")
def quick_starts() -> None:
    preload(senders.__name__)


class SenderThread(Runs, Thread): ...


def tree_of(receiver: Any, folder: Path, *children: Any) -> Supervisor:
    receives = Child(receiver, args=(folder,), id="to", shutdown=20.0)
    return Supervisor("tree", receives, Child(SenderThread, id="from", shutdown=20.0), *children, max_restarts=1000)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningTree]:
    with tree_of(Waits, tmp_path).start() as running:
        yield running


def run_in(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    if where == "main thread":
        return function(None, *arguments)
    return WorkerRef("tree/from").ask((function, *arguments), timeout=60)


anywhere = pytest.mark.parametrize("where", ["main thread", "thread worker"])


@anywhere
def test_the_second_ask_makes_a_connection(where: str, running: RunningTree) -> None:
    assert run_in(where, senders.is_direct_after_two) == [False, True, True]


def only_tells_and_futures(sender: Any) -> bool:
    for number in range(10):
        TO.tell(number)
        TO.ask_future(b"x").get(30)
    return is_direct()


@anywhere
def test_tells_and_futures_need_no_connection(where: str, running: RunningTree) -> None:
    assert not run_in(where, only_tells_and_futures)


@anywhere
@receivers
def test_asks_futures_and_proxies_are_answered(where: str, receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start():
        assert run_in(where, senders.answers_of_all_kinds) == [b"asked", True, b"again", True, True]


@receivers
def test_messages_of_a_thread_keep_their_order_also_where_the_way_changes(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start():
        assert senders.send_mixed(None, 1000)
    assert handled(tmp_path) == list(map(str, range(1000)))


@senders.all_ways
@senders.with_futures
@senders.members
def test_what_a_thread_publishes_and_tells_a_group_keeps_its_place_among_its_messages_to_a_busy_worker(
    receiver: Any, count: int, size: int, futures: bool, tmp_path: Path
) -> None:
    with tree_of(receiver, tmp_path).start():
        answers = senders.send_all_ways(None, tmp_path, count, size, futures)
    assert handled(tmp_path) == list(map(str, range(count)))
    assert answers == ([number for number in range(count) if number % 6 == 3] if futures else [])


@receivers
def test_s72_no_message_is_lost_or_overtaken_when_the_receiver_renews_itself(receiver: Any, tmp_path: Path) -> None:
    with tree_of(receiver, tmp_path).start() as running:
        connect()
        answers = senders.send_with_renewals(None, 500)
        assert answers == [number for number in range(500) if number % 3 == 0]
        assert running["to"].incarnation > 2
    assert handled(tmp_path) == list(map(str, range(500)))


@anywhere
def test_s72_no_ask_is_lost_between_two_incarnations(where: str, running: RunningTree) -> None:
    expected = ["renew" if number % 3 == 0 else number for number in range(36)]
    assert run_in(where, senders.ask_and_renew, 36) == expected
    assert running["to"].incarnation > 10


@anywhere
def test_the_ask_after_a_crash_is_for_the_next_incarnation(where: str, running: RunningTree) -> None:
    expected = [one for number in range(10) for one in ("crash", number)]
    assert run_in(where, senders.ask_after_a_crash, 10) == expected
    assert running["to"].incarnation == 11


@anywhere
def test_the_ask_after_a_kill_is_for_the_next_incarnation(where: str, running: RunningTree) -> None:
    assert len(set(run_in(where, senders.ask_after_a_kill, 10))) == 11


def test_an_ask_is_answered_with_the_reason_when_the_receiver_is_killed(running: RunningTree, tmp_path: Path) -> None:
    asking = in_background(lambda: senders.ask_held(None))
    await_file(tmp_path / "blocked")
    running["to"].kill()
    with pytest.raises(WorkerDead, match=r"'tree/to' died before it answered: killed \(ref\.kill") as caught:
        asking.result(30)
    assert isinstance(caught.value.reason, Killed)
    assert senders.ask_and_renew(None, 3)[1:] == [1, 2]


# ------------------------------------------------------------ what the program knows of the messages that wait
def test_messages_that_a_busy_worker_has_not_read_yet_are_counted(running: RunningTree, tmp_path: Path) -> None:
    connect()
    TO.tell("block")
    await_file(tmp_path / "blocked")
    for number in range(7):
        TO.tell(number)
    assert is_direct()
    with pytest.raises(AskTimeout, match="8 messages wait for it"):
        TO.ask("late", timeout=0.01)
    (tmp_path / "gate").touch()
    TO.ask(b"last", timeout=30)
    (tmp_path / "blocked").unlink()
    TO.tell("hold")
    await_file(tmp_path / "blocked")
    with pytest.raises(AskTimeout, match="1 message waits for it"):
        TO.ask("late", timeout=0.01)


def test_a_worker_with_as_many_connections_as_it_may_have_is_reached_through_the_hub(
    running: RunningTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_counts, "CONNECTIONS", 1)

    def ask_three_times() -> bool:
        assert [TO.ask(b"x") for _ in range(3)] == [b"x"] * 3
        return is_direct()

    connect()
    assert not in_background(ask_three_times).result(30)
    assert is_direct()


def test_s72_a_kill_counts_the_messages_that_came_directly(running: RunningTree, tmp_path: Path) -> None:
    connect()
    with running.events() as happened:
        TO.tell("block")
        await_file(tmp_path / "blocked")
        for number in range(7):
            TO.tell(number)
        running["to"].kill()
        assert next_event(happened, ChildExited).unhandled == 7
    assert handled(tmp_path) == []


def receiver_at(path: str) -> Any:
    hub = router()
    assert isinstance(hub, Registry)
    return hub.find(path).receiver


def test_s72_the_exit_waits_for_a_sender_that_has_not_counted_yet_what_it_has_sent(
    running: RunningTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_handle, "_COUNTING", 60.0)
    connect()
    route = own_route()
    assert route is not None
    word = route._outbox.counted
    before = word[0]
    with running.events() as happened:
        word[0] = before + 1  # as by a thread that is in a system call, or has lost the interpreter right after it
        pid = running["to"].pid
        assert pid is not None
        handle = receiver_at(TO.path)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: handle._end_by, what="the program knows of the end")
        word[0] = before + 2 * 3
        assert next_event(happened, ChildExited).unhandled == 3


def test_s72_a_stop_counts_the_messages_that_came_directly(running: RunningTree, tmp_path: Path) -> None:
    with running.events() as happened:
        senders.tell_and_wait(None, 7)
        await_file(tmp_path / "blocked")
        running["to"].rejoin()
        event = next_event(happened, ChildStopped)
        assert (event.reason, event.unhandled) == (Shutdown(), 7)
    assert handled(tmp_path) == []


def test_s72_messages_that_came_directly_wait_for_the_next_incarnation(running: RunningTree, tmp_path: Path) -> None:
    with running.events() as happened:
        senders.tell_renew(None)
        (tmp_path / "gate").touch()
        assert next_event(happened, ChildExited).unhandled == 5
        eventually(lambda: len(handled(tmp_path)) == 5)
    assert handled(tmp_path) == list(map(str, range(5)))


def test_a_message_that_does_not_reach_a_worker_which_does_not_come_back_is_a_dead_letter(
    running: RunningTree, tmp_path: Path
) -> None:
    with running.events() as happened:
        connect()
        TO.tell("block")
        await_file(tmp_path / "blocked")
        for _ in range(20):
            TO.tell(bytes(50_000))
        running["to"].rejoin()  # returns at once
        with pytest.raises(ChildNotFound):
            running.delete_child("any")  # the supervisor answers this when it has given the order to stop
        (tmp_path / "gate").touch()
        assert next_event(happened, DeadLetter).path == TO.path


# ------------------------------------------------------------ deadlines, sizes, signals
@anywhere
def test_an_answer_that_comes_too_late_is_given_to_no_other_ask(
    where: str, running: RunningTree, tmp_path: Path
) -> None:
    assert run_in(where, senders.time_out, tmp_path) == [*(b"%d" % number for number in range(20)), True]


def test_large_messages_and_answers_pass(running: RunningTree) -> None:
    assert senders.ask_large(None, 5 << 20)


def test_threads_have_connections_of_their_own_which_end_with_them(running: RunningTree, tmp_path: Path) -> None:
    before = sockets()
    assert senders.ask_in_threads(None, 8, 50) == []
    lines = handled(tmp_path)
    for thread in range(8):
        own = [int(line.split("-")[1]) for line in lines if line.startswith(f"{thread}-")]
        assert own == list(range(0, 50, 3))
    eventually(lambda: sockets() == before)


def test_a_signal_handler_may_tell_and_ask_at_any_moment(running: RunningTree, tmp_path: Path) -> None:
    wrong, told, answers = senders.disturb(None, 1000)
    assert wrong == []
    assert answers <= {b"h"}
    lines = handled(tmp_path)
    assert sorted(line for line in lines if line.startswith("h")) == sorted(f"h{number}" for number in range(told))
    assert [line for line in lines if not line.startswith("h")] == list(map(str, range(1000)))


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # it may interrupt the making of a socket pair
def test_an_exception_of_a_signal_handler_mixes_up_no_answers(running: RunningTree) -> None:
    assert senders.raise_in_asks(None, 500) == [[], True, b"well"]


def test_a_worker_that_does_not_read_bounds_what_waits_for_it(running: RunningTree, tmp_path: Path) -> None:
    told, error = senders.flood(None)
    assert 50 * 20 < told < 3000
    assert "bytes already wait to be read by 'tree/to'" in error
    flush()  # all of it has left for a worker of this program, or waits in it
    (tmp_path / "gate").touch()
    assert TO.ask(b"last", timeout=60) == b"last"


# ------------------------------------------------------------ threads that must not wait
def test_the_threads_on_which_trees_depend_make_no_connection(running: RunningTree) -> None:
    runtime = current()
    assert runtime is not None
    seen: dict[str, Any] = {}
    asked = threading.Event()

    def look(name: str) -> None:
        routes = runtime.registry._routes
        assert routes is not None
        seen[name] = [routes.find(TO.path) for _ in range(3)]
        asked.set()

    runtime.reactor.call_soon_threadsafe(lambda: look("I/O thread"))
    assert asked.wait(30)
    asked.clear()

    def on_event(event: Any) -> None:
        if isinstance(event, ChildRestarting) and supervises():
            look("supervisor")

    runtime.bus.subscribe(on_event)
    try:
        running["to"].kill()
        assert asked.wait(30)
    finally:
        runtime.bus.unsubscribe(on_event)
    assert seen == {"I/O thread": [None] * 3, "supervisor": [None] * 3}


def test_futures_are_awaited_while_the_event_loop_goes_on(running: RunningTree, tmp_path: Path) -> None:
    connect()

    async def main() -> tuple[list[Any], bool]:
        TO.tell("block")
        await asyncio.to_thread(await_file, tmp_path / "blocked")
        futures = [asyncio.ensure_future(awaited(TO.ask_future(b"%d" % number))) for number in range(50)]
        await asyncio.sleep(0)
        assert not any(future.done() for future in futures)  # the loop runs although no answer can be there
        (tmp_path / "gate").touch()
        return await asyncio.gather(*futures), is_direct()

    async def awaited(answer: Any) -> Any:
        return await answer

    assert asyncio.run(main()) == ([b"%d" % number for number in range(50)], True)


# ------------------------------------------------------------ descriptors
def sockets() -> int:
    return sum(name.startswith("socket:") for name in descriptors_of(os.getpid()))


def test_the_connection_to_an_incarnation_that_has_ended_is_closed(running: RunningTree) -> None:
    before = sockets()
    connect()
    assert sockets() == before + 1
    running["to"].kill()
    eventually(lambda: running["to"].incarnation == 2 and running["to"].is_alive())
    eventually(lambda: sockets() == before)
    connect()
    assert sockets() == before + 1


class Echo(senders.Process):
    def on_receive(self, message: Any) -> Any:
        return message


def test_a_thread_with_as_many_connections_as_there_may_be_gets_others_in_place_of_those_it_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST", 2)
    monkeypatch.setattr(direct, "UNUSED", 0.0)
    with Supervisor("tree", *(Child(Echo, id=f"echo{number}") for number in range(4))).start() as running:
        before = sockets()

        def ask(number: int) -> bool:
            assert running[f"echo{number}"].ask(number) == number
            return is_direct(f"tree/echo{number}")

        for number in range(4):
            eventually(lambda: ask(number))  # noqa: B023
            assert sockets() <= before + 2
        assert [running[f"echo{number}"].ask(number) for number in range(4)] == list(range(4))


def test_a_program_that_forks_leaves_its_connections_to_the_parent(running: RunningTree) -> None:
    connect()
    pid = os.fork()
    if pid == 0:
        try:
            code = 0 if sockets() == 0 or not is_open_route() else 1
        except BaseException:
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert TO.ask(b"after") == b"after"
    assert is_direct()


def is_open_route() -> bool:
    return any(not route.closed for routes in direct._in_this_process for route in routes._open())


def test_an_ask_that_is_handled_while_the_tree_is_stopped_is_answered(tmp_path: Path) -> None:
    running = tree_of(Waits, tmp_path).start()
    asking = in_background(lambda: senders.ask_held(None))
    await_file(tmp_path / "blocked")
    running.stop()
    assert asking.result(30) == "hold"


def test_a_stopped_process_does_not_stop_a_teller(running: RunningTree) -> None:
    connect()
    pid = running["to"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(100):
            TO.tell(bytes(20_000))
        TO.tell("told", confirm=True)
        flush()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert TO.ask(b"last", timeout=30) == b"last"

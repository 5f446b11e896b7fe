from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.errors import EntryNotFound, StorageError, StorageGone
from suitkaise.messaging.held_back import holders
from suitkaise.platform.threads import DaemonThread
from suitkaise.storage import client as client_module
from suitkaise.storage import pipeline
from suitkaise.storage.client import MOST_OWN, MOST_SHARED, SOCKET, Client, client_of, clients_of
from suitkaise.storage.connections import MAX_CONNECTIONS
from suitkaise.storage.protocol import WINDOW
from suitkaise.storage.tree import Tree
from suitkaise.storage.watch import MOST_WATCHES
from tests.storage.support import Storage
from tests.support import GRACE, ROOT, alarms, eventually, in_background, interrupted_at_each_call, run_program


@pytest.fixture(scope="module")
def engine() -> str:
    """What a client does depends on the engine in nothing."""
    return "lmdb"


@contextlib.contextmanager
def stopped(storage: Storage) -> Iterator[None]:
    """Stop the server process inside of the block."""
    assert storage.server is not None
    storage.server.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, storage.server.pid, os.WSTOPPED)
    try:
        yield
    finally:
        storage.server.send_signal(signal.SIGCONT)


def test_writes_succeed_across_kills_and_restarts_of_the_server(storage: Storage) -> None:
    tree = storage.tree
    for round_ in range(5):
        for _ in range(10):
            tree.increment("n", path="p", wait=False)
        storage.restart()
        assert tree.increment("n", path="p") == 11 * (round_ + 1)


@pytest.mark.parametrize("wait", [True, False])
def test_what_a_thread_holds_back_of_its_messages_is_sent_before_what_it_writes(wait: bool, storage: Storage) -> None:
    seen: list[Any] = []

    class Holds:
        def end_burst(self) -> None:
            seen.append(storage.tree.get("key", default=None))

    holders[threading.get_ident()] = Holds()
    storage.tree.add("key", 1, wait=wait)
    assert seen == [None]
    assert not holders


def test_writes_posted_while_the_server_is_down_arrive_without_a_flush(storage: Storage) -> None:
    tree, other = storage.tree, Tree(storage.directory)
    tree.add("there", 1, path="p")
    storage.kill()
    for number in range(10):
        tree.add(f"n{number}", number, path="p", wait=False)
    storage.start()
    eventually(lambda: len(other.get_all_from("p")) == 11, timeout=10)


def test_a_write_that_a_thread_posted_before_its_end_arrives(storage: Storage) -> None:
    tree = storage.tree
    tree.add("there", 1, path="p")
    with stopped(storage):
        thread = threading.Thread(target=lambda: tree.add("late", 1, path="p", wait=False))
        thread.start()
        thread.join()
        del thread
    eventually(lambda: tree.exists("late", path="p"), timeout=10)


def test_a_reader_does_not_need_the_server(storage: Storage) -> None:
    storage.tree.add("a", [1], path="p")
    storage.kill()
    assert storage.tree.get("a", path="p") == [1]
    assert Tree(storage.directory).get_all_from("p") == {"a": [1]}


def test_a_stopped_server_makes_writes_timeout_and_bounds_the_posted_writes(storage: Storage) -> None:
    storage.tree.add("a", 0, path="p")
    tree = Tree(storage.directory, timeout=0.1)
    tree.add("b", 0, path="p")
    with stopped(storage):
        posted = 0
        with pytest.raises(StorageError, match=r"did not answer within 0\.1 seconds"):
            while posted < 10 * WINDOW:
                tree.increment("a", path="p", wait=False)
                posted += 1
        assert posted <= WINDOW
        with pytest.raises(StorageError, match="did not answer"):
            tree.add("b", 1, path="p")
    with pytest.raises(StorageError, match="did not answer"):
        tree.flush()
    tree.flush()
    assert tree.increment("b", path="p", start=5) in (1, 2)
    assert tree.get("a", path="p") <= posted + 1


def test_a_write_that_times_out_without_a_connection_tells_why_there_is_none(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: str, timeout: float) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    tree = Tree(storage.directory, timeout=0.1)
    why = r"did not answer within 0\.\d+ seconds \(no connection to it can be made: .*Too many open files\)"
    with monkeypatch.context() as patch:
        patch.setattr(client_module, "open_socket", refuse)
        with pytest.raises(StorageError, match=why):
            tree.add("a", 1)
        tree.add("b", 1, wait=False)
        with pytest.raises(StorageError, match=why):
            tree.flush()
    Tree(storage.directory).add("a", 1)
    with stopped(storage), pytest.raises(StorageError, match=r"did not answer within 0\.1 seconds;"):
        tree.add("a", 2)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda tree: tree.add("b", 1, path="p"), id="a write"),
        pytest.param(lambda tree: tree.add("b", bytes(10 << 20), path="p"), id="a large write"),
        pytest.param(lambda tree: Tree(tree.directory, timeout=0.1).add("b", 1, path="p"), id="the first use"),
        pytest.param(lambda tree: (tree.add("b", 1, path="p", wait=False), tree.flush()), id="a flush"),
    ],
)
def test_a_timer_of_the_program_prolongs_no_timeout(storage: Storage, use: Callable[[Tree], object]) -> None:
    storage.tree.add("a", 0, path="p")
    tree = Tree(storage.directory, timeout=0.5)
    tree.add("a", 1, path="p")
    with stopped(storage), alarms(lambda *_: None, 0.02):
        assert storage.server is not None
        rescue = threading.Timer(GRACE, storage.server.send_signal, (signal.SIGCONT,))
        rescue.start()
        with pytest.raises(StorageError, match="did not answer"):
            use(tree)
        rescue.cancel()
    tree.close()


def test_a_signal_handler_may_write_while_its_thread_writes(storage: Storage) -> None:
    tree = storage.tree
    calls = []

    def handler(*_: object) -> None:
        tree.increment("handled", path="p")
        tree.increment("posted", path="p", wait=False)
        calls.append(1)
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    tree.increment("n", 0, path="p")
    with alarms(handler, 10.0, first=0.002):
        number = 0
        while len(calls) < 50:
            number += 1
            assert tree.increment("n", path="p") == number
            tree.increment("quiet", path="p", wait=False)
    tree.flush()
    counted = tree.get_all_from("p")
    assert counted == {"handled": len(calls), "posted": len(calls), "n": number, "quiet": number}


@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # it may interrupt the assignment of a new socket
def test_an_exception_from_a_signal_handler_leaves_the_connection_in_order(storage: Storage) -> None:
    tree = storage.tree

    class InterruptedError_(Exception):
        pass

    def handler(*_: object) -> None:
        raise InterruptedError_

    done = interrupted = 0
    while interrupted < 30:
        try:
            with alarms(handler, 10.0, first=0.001):
                for _ in range(200):
                    tree.increment("n", path="p")
                    done += 1
        except InterruptedError_:
            interrupted += 1
    # Each interrupted increment may have been carried out, once.
    assert done <= tree.increment("n", 0, path="p") <= done + interrupted


def _select(tree: Tree) -> None:
    assert list(tree.select_all_with({"kind": "x"}, "p"))


@pytest.mark.parametrize("error", [TimeoutError, BlockingIOError, ConnectionResetError, ValueError, KeyError])
@pytest.mark.parametrize(
    "use",
    [
        lambda tree: tree.add("a", {"n": 1}, path="p"),
        lambda tree: tree.increment("n", path="p"),
        lambda tree: tree.update("a", lambda value: value, path="p"),
        lambda tree: tree.add("posted", 1, path="p", wait=False),
        lambda tree: tree.get("a", path="p"),
        lambda tree: tree.get("n", path="p"),
        _select,
    ],
    ids=["add", "increment", "update", "add without waiting", "get", "get a number", "select"],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # see above
def test_what_a_signal_handler_raises_in_a_call_is_raised_whatever_it_is(
    storage: Storage, use: Callable[[Tree], object], error: type[Exception]
) -> None:
    tree = storage.tree
    tree.add("a", {"n": 1}, path="p", metadata={"kind": "x"})
    tree.increment("n", path="p")
    use(tree)  # and so open what is opened once
    assert all(interrupted_at_each_call(lambda: use(tree), error))
    tree.flush()
    tree.add("a", {"n": 2}, path="p")
    assert tree.get("a", path="p") == {"n": 2}


def test_an_alarm_ends_the_wait_for_a_storage_that_does_not_answer(storage: Storage) -> None:
    tree = storage.tree
    tree.add("n", 1, path="p")

    def out_of_time(*_: object) -> None:
        raise TimeoutError("of the alarm")

    rescue = threading.Timer(GRACE, storage.server.send_signal, (signal.SIGCONT,))  # type: ignore[union-attr]
    with stopped(storage), alarms(out_of_time, 600.0, first=0.1):
        rescue.start()
        with pytest.raises(TimeoutError, match="of the alarm"):
            tree.increment("n", path="p")
        rescue.cancel()
    rescue.join()
    assert tree.increment("n", path="p") in (2, 3)


def test_a_signal_handler_may_write_while_its_thread_sends_in_a_flush(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "COLLECT", 0.2)  # the thread of the pipeline leaves the sending to the flush
    tree, large = storage.tree, b"b" * (8 << 20)
    tree.add("there", 1, path="p")
    for attempt in range(20):
        tree.close()
        tree.add("large", large, path="p", wait=False)
        with alarms(lambda *_: tree.increment("handled", path="p"), 10.0, first=0.0005 + 0.0004 * attempt):
            tree.flush()
            eventually(lambda after=attempt + 1: tree.get("handled", path="p", default=0) == after)
        assert tree.get("large", path="p") == large


def test_a_signal_handler_may_write_for_the_first_time_while_its_thread_looks_for_its_clients(storage: Storage) -> None:
    tree, handled = storage.tree, []

    class Interrupted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            if not handled:
                handled.append(1)
                signal.raise_signal(signal.SIGALRM)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    tree.add("n", 1, path="p")
    client_of(str(tree.directory), tree.timeout).directory = Interrupted(tree.directory)
    with alarms(lambda *_: Tree(tree.directory, timeout=2 * GRACE).add("handled", 1, path="p"), 600.0):
        tree.flush()
    assert handled
    assert tree.get("handled", path="p") == 1


def test_a_flush_of_a_signal_handler_does_not_wait_for_the_flush_that_it_has_interrupted(storage: Storage) -> None:
    tree, errors = storage.tree, []

    def handler(*_: object) -> None:
        try:
            tree.flush()
        except StorageError as error:
            errors.append(str(error))
        assert storage.server is not None
        storage.server.send_signal(signal.SIGCONT)

    tree.add("there", 1, path="p")
    with stopped(storage):
        tree.add("late", 1, path="p", wait=False)
        with alarms(handler, 10.0, first=0.1):
            tree.flush()
    assert errors == ["flush in a signal handler cannot wait for the write that the signal has interrupted"]
    assert tree.get("late", path="p") == 1


def test_an_error_that_is_recorded_while_a_flush_takes_the_errors_is_told_by_the_next_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Errors(dict[str, deque[StorageError]]):
        def setdefault(self, key: str, default: Any = None) -> Any:
            found = super().setdefault(key, default)
            told.append(pipeline.pop_background_error(key))  # another thread flushes at this moment
            return found

    told: list[StorageError | None] = []
    monkeypatch.setattr(pipeline, "_errors", Errors())
    for number in range(2):
        pipeline.record_background_error("here", StorageError(str(number)))
    told.append(pipeline.pop_background_error("here"))
    assert list(map(str, told)) == ["None", "0", "1"]


def test_posted_writes_for_which_there_was_no_memory_once_are_sent_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(client: Client) -> None:
        if not failed:
            failed.append(client)
            raise MemoryError
        sent(client)

    tree, sent, failed = storage.tree, Client._send, list[Client]()
    tree.add("there", 1, path="p")
    monkeypatch.setattr(Client, "_send", send)
    tree.increment("n", path="p", wait=False)
    eventually(lambda: tree.get("n", "p", 0) == 1)
    assert failed


def test_ctrl_c_while_the_thread_of_the_pipeline_starts_harms_no_later_write(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: DaemonThread) -> None:
        started(thread)
        raise KeyboardInterrupt

    tree, started = storage.tree, DaemonThread.start
    tree.add("there", 1, path="p")
    with monkeypatch.context() as patched:
        patched.setattr(DaemonThread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            tree.add("a", 1, path="p", wait=False)
    with stopped(storage):
        tree.add("b", 1, path="p", wait=False)
        eventually(lambda: [one.name for one in threading.enumerate()].count("suitkaise-storage-pipeline") == 1)
        assert pipeline._pump is not None
    eventually(lambda: tree.get_all_from("p") == {"there": 1, "a": 1, "b": 1})


def test_a_write_that_an_exception_has_interrupted_is_not_carried_out_later(storage: Storage) -> None:
    class Stop(Exception):
        pass

    def handler(*_: object) -> None:
        raise Stop

    tree, other = storage.tree, Tree(storage.directory)
    tree.add("n", 0, path="p")
    storage.kill()
    with pytest.raises(Stop), alarms(handler, 10.0, first=0.1):
        tree.add("n", 1, path="p")
    storage.start()
    in_background(lambda: other.add("n", 2, path="p")).result(10)
    tree.add("later", 1, path="p")
    tree.flush()
    assert tree.get("n", path="p") == 2


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(24, "Too many open files")])
def test_without_the_thread_of_the_pipeline_a_posted_write_is_sent_at_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tree = storage.tree
    tree.add("there", 1, path="p")
    eventually(lambda: pipeline._pump is None)

    def fail(*_: object, **options: object) -> None:
        raise error

    with monkeypatch.context() as without:
        without.setattr(*((threading.Thread, "start") if isinstance(error, RuntimeError) else (os, "eventfd")), fail)
        tree.add("a", 1, path="p", wait=False)
        assert tree.get("a", path="p") == 1
    tree.add("b", 2, path="p", wait=False)  # and the next one is collected again
    eventually(lambda: tree.exists("b", path="p"))


def test_a_closed_listener_raises_storage_gone_at_once(storage: Storage) -> None:
    storage.tree.add("a", 1, path="p")
    storage.kill()
    storage.listener.close()
    with pytest.raises(StorageGone, match="the program that owned it has ended"):
        storage.tree.add("a", 2, path="p")
    storage.tree.add("a", 3, path="p", wait=False)
    with pytest.raises(StorageGone, match="the program that owned it has ended"):
        storage.tree.flush()
    assert storage.tree.get("a", path="p") == 1


def test_posted_writes_that_are_given_up_are_logged(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.tree.add("a", 1, path="p")
    storage.kill()
    storage.listener.close()
    with caplog.at_level(logging.WARNING):
        storage.tree.add("a", 2, path="p", wait=False)
        eventually(lambda: "1 writes with wait=False are given up" in caplog.text)
    with contextlib.suppress(StorageGone):
        storage.tree.flush()


def test_a_program_with_posted_writes_ends_soon_though_the_server_is_stopped(storage: Storage) -> None:
    program = "import sys; from suitkaise.storage.tree import Tree; t = Tree(sys.argv[1])\n"
    program += "t.add('a', 1, wait=False)"
    with stopped(storage):
        done = subprocess.run(
            [sys.executable, "-c", program, str(storage.directory)], cwd=ROOT, timeout=20, check=False
        )
    assert done.returncode == 0


def test_each_thread_has_a_connection_of_its_own(storage: Storage) -> None:
    tree = storage.tree
    home = str(storage.directory)
    mine = client_of(home, 10.0)
    assert client_of(home, 10.0) is mine
    others = []
    thread = threading.Thread(target=lambda: others.append(client_of(home, 10.0)))
    thread.start()
    thread.join()
    assert others[0] is not mine
    assert set(clients_of(home)) == {mine, others[0]}
    others.clear()
    tree.add("a", 1)
    assert clients_of(home) == [mine]


def test_a_thread_keeps_no_client_of_a_storage_that_is_closed_once_it_uses_another_one(storage: Storage) -> None:
    with Storage() as other:
        other.tree.add("a", 1)
        home = str(other.directory)
        assert len(clients_of(home)) == 1
    storage.tree.add("a", 1)
    assert clients_of(home) == []


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Call `work` with each number in a thread of its own, none of which ends before all have; return what came."""
    outcomes: list[object] = []
    all_are_there = threading.Barrier(count)

    def run(number: int) -> None:
        all_are_there.wait(GRACE)
        try:
            outcomes.append(work(number))
        except StorageError as error:
            outcomes.append(error)
        all_are_there.wait(GRACE)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_more_threads_can_write_than_the_actor_takes_connections(storage: Storage) -> None:
    count = MAX_CONNECTIONS + 100
    assert sorted(in_threads(count, lambda number: storage.tree.increment("n"))) == list(range(1, count + 1))


def test_all_watches_that_a_process_may_have_leave_its_threads_room_to_write(storage: Storage) -> None:
    with contextlib.ExitStack() as watches:
        for number in range(MOST_WATCHES):
            watches.enter_context(storage.tree.watch(f"watched/{number}"))
        with pytest.raises(StorageError, match=f"has {MOST_WATCHES} watches of the storage, and may have no more"):
            storage.tree.watch("watched/more")
        count = MOST_OWN + MOST_SHARED + 10
        assert sorted(in_threads(count, lambda number: storage.tree.increment("n"))) == list(range(1, count + 1))
    with storage.tree.watch("watched/more") as watch:
        storage.tree.add("a", 1, path="watched/more")
        assert watch.get(timeout=GRACE).name == "a"


def test_threads_share_connections_when_there_are_many(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MOST_OWN", 3)
    monkeypatch.setattr(client_module, "MOST_SHARED", 2)
    tree, home = storage.tree, str(storage.directory)
    tree.add("main", 1)
    connections = []

    def work(number: int) -> None:
        for _ in range(20):
            tree.increment("n")
            tree.increment("posted", wait=False)
        connections.append(len(clients_of(home)))
        if number == 4:
            storage.restart()

    assert in_threads(12, work) == [None] * 12
    tree.flush()
    assert (tree.get("n"), tree.get("posted")) == (240, 240)
    assert max(connections) == 5
    eventually(lambda: len(clients_of(home)) == 1, what="the connections end with their threads")


def test_threads_that_share_a_connection_do_not_wait_for_it_without_end(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MOST_OWN", 0)
    monkeypatch.setattr(client_module, "MOST_SHARED", 1)
    tree = Tree(storage.directory, timeout=0.3)
    storage.tree.add("there", 1)
    with stopped(storage):
        outcomes = in_threads(6, lambda number: tree.add("a", number))
    assert all("did not answer within 0.3 seconds" in str(outcome) for outcome in outcomes)


def test_the_pipeline_thread_ends_when_nothing_is_under_way(storage: Storage) -> None:
    for _ in range(3):
        storage.tree.add("a", 1, wait=False)
        assert any(thread.name == "suitkaise-storage-pipeline" for thread in threading.enumerate())
        eventually(lambda: pipeline._pump is None)
        assert storage.tree.get("a") == 1


def test_the_pipeline_thread_does_not_wait_for_replies_that_another_thread_took(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    about_to_wait, wait = threading.Event(), threading.Event()

    class Poll:
        def __init__(self) -> None:
            self.register = (poll := poll_of()).register
            self._poll = poll.poll

        def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
            if milliseconds is None:  # for replies
                about_to_wait.set()
                wait.wait()
            return self._poll(milliseconds)

    storage.tree.add("n", 0)
    eventually(lambda: pipeline._pump is None)
    poll_of = select.poll
    monkeypatch.setattr(select, "poll", Poll)
    with stopped(storage):
        storage.tree.add("n", 1, wait=False)
        assert about_to_wait.wait(15)
    monkeypatch.undo()
    storage.tree.flush()
    wait.set()
    eventually(lambda: pipeline._pump is None)


def test_the_directory_may_have_a_path_longer_than_a_unix_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30) / ("name" * 30)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.serve", folder, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=ROOT,
        )
        try:
            tree = Tree(folder)
            tree.add("a", 1)
            assert tree.get("a") == 1
            tree.close()
        finally:
            server.kill()
            server.wait()


def test_flush_raises_the_error_of_a_thread_that_has_ended(storage: Storage) -> None:
    storage.tree.add("there", 1, path="p")
    client = in_background(lambda: _update_nothing(storage.tree, "nothing")).result(10)
    eventually(lambda: client() is None, timeout=10)
    with pytest.raises(EntryNotFound, match="there is no 'nothing' in 'p'"):
        storage.tree.flush()
    storage.tree.flush()


def _update_nothing(tree: Tree, name: str) -> weakref.ref[Client]:
    tree.update(name, 2, path="p", wait=False)
    client = client_of(str(tree.directory), tree.timeout)
    client.drain(10)
    return weakref.ref(client)


def test_flush_raises_the_errors_of_all_threads_as_one(storage: Storage) -> None:
    go = threading.Event()
    posted = [threading.Event() for _ in range(3)]

    def post(number: int) -> None:
        storage.tree.update(f"no-{number}", 2, path="p", wait=False)
        posted[number].set()
        go.wait()

    threads = [threading.Thread(target=post, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for event in posted:
        assert event.wait(10)
    storage.tree.add("fine", 1, path="p", wait=False)
    with pytest.raises(EntryNotFound) as caught:
        storage.tree.flush()
    text = "\n".join([str(caught.value), *caught.value.__notes__])
    assert all(f"no-{number}" in text for number in range(3)), text
    assert storage.tree.get("fine", path="p") == 1
    storage.tree.flush()
    go.set()
    for thread in threads:
        thread.join()


def test_the_timeout_of_flush_covers_all_connections_together(storage: Storage) -> None:
    tree = storage.tree
    threads = []
    with stopped(storage):
        for _ in range(4):
            ready, go = threading.Event(), threading.Event()
            thread = threading.Thread(target=_post_and_stay, args=(tree, ready, go), daemon=True)
            thread.start()
            threads.append((thread, go))
            assert ready.wait(10)
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"did not answer within"):
            tree.flush(1.0)
        assert time.monotonic() - began < 3.0
        for thread, go in threads:
            go.set()
            thread.join()


def _post_and_stay(tree: Tree, ready: threading.Event, go: threading.Event) -> None:
    tree.add("late", 1, path="p", wait=False)
    ready.set()
    go.wait()


@pytest.mark.parametrize("timeout", [math.nan, "1", True])
def test_the_timeout_of_flush_must_be_a_number(storage: Storage, timeout: object) -> None:
    with pytest.raises(TypeError, match=r"flush: timeout must be seconds, or None for the handle's, not"):
        storage.tree.flush(timeout)  # type: ignore[arg-type]


def test_errors_that_no_flush_raised_are_logged_at_the_end_of_the_program(storage: Storage) -> None:
    storage.tree.add("a", 1, path="p")
    program = "import logging, sys; from suitkaise.storage.tree import Tree; logging.basicConfig()\n"
    program += "Tree(sys.argv[1]).update('nothing', 1, path='p', wait=False)\n"
    done = run_program(program, str(storage.directory)).check()
    assert "no flush reported it: there is no 'nothing' in 'p'" in done.stderr


def test_a_broken_connection_does_not_delay_another_one(storage: Storage, tmp_path: Path) -> None:
    """The pauses between one client's attempts to connect must not pause the pipeline thread."""
    with Storage(tmp_path) as broken:
        for one in (broken, storage):
            one.tree.add("a", 1, path="p")
        broken.kill()
        broken.tree.add("b", 1, path="p", wait=False)
        for number in range(20):
            storage.tree.add(f"n{number}", 1, path="p", wait=False)
            eventually(lambda number=number: storage.tree.exists(f"n{number}", path="p"))  # type: ignore[misc]
        broken.start()
        broken.tree.flush()


def test_an_unexpected_error_where_posted_writes_are_sent_is_told_and_later_writes_are_sent(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, failed = Client._send, threading.Event()

    def fail_once(client: Client) -> None:
        if threading.current_thread().name == "suitkaise-storage-pipeline" and not failed.is_set():
            failed.set()
            raise ZeroDivisionError("no such place")
        send(client)

    tree.add("before", 1, path="p")
    monkeypatch.setattr(Client, "_send", fail_once)
    tree.add("lost", 1, path="p", wait=False)
    assert failed.wait(10.0)
    with pytest.raises(StorageError, match="no such place"):
        tree.flush()
    tree.add("later", 1, path="p", wait=False)
    eventually(lambda: tree.exists("later", path="p"))

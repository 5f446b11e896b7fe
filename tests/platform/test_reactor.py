"""The I/O thread of a program."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from suitkaise.platform import reactor as reactors
from suitkaise.platform.reactor import Reactor, SerialExecutor
from suitkaise.platform.selector import Selector, Source
from tests.support import eventually, no_thread_is_left

SOON = 10.0


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def finished(reactor: Reactor) -> None:
    """Wait until the reactor has run all callbacks so far."""
    done = threading.Event()
    reactor.call_soon_threadsafe(done.set)
    assert done.wait(SOON)


def test_callbacks_run_in_its_own_thread_in_their_order(reactor: Reactor) -> None:
    seen: list[tuple[int, bool]] = []
    for number in range(100):
        reactor.call_soon_threadsafe(lambda number=number: seen.append((number, reactor.in_thread)))
    finished(reactor)
    assert seen == [(number, True) for number in range(100)]
    assert not reactor.in_thread


def test_many_threads_may_call_at_once(reactor: Reactor) -> None:
    seen: list[tuple[int, int]] = []
    threads = [
        threading.Thread(
            target=lambda t=t: [reactor.call_soon_threadsafe(lambda n=n: seen.append((t, n))) for n in range(500)]
        )
        for t in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    finished(reactor)
    assert len(seen) == 3000
    for t in range(6):
        assert [n for thread, n in seen if thread == t] == list(range(500))


def test_a_callback_may_call_and_time_further_ones(reactor: Reactor) -> None:
    done = threading.Event()
    reactor.call_soon_threadsafe(lambda: reactor.call_soon_threadsafe(lambda: reactor.call_at(0, done.set)))
    assert done.wait(SOON)


def test_a_callback_that_calls_itself_again_does_not_starve_the_others(reactor: Reactor) -> None:
    done = threading.Event()

    def again() -> None:
        if not done.is_set():
            reactor.call_soon_threadsafe(again)

    reactor.call_soon_threadsafe(again)
    reactor.call_at(time.monotonic() + 0.01, done.set)
    assert done.wait(SOON)


def test_timers_fire_in_order_and_not_too_early(reactor: Reactor) -> None:
    fired: list[tuple[float, float]] = []
    done = threading.Event()
    now = time.monotonic()
    for delay in (0.05, 0.01, 0.03, 0.03, -1.0):
        reactor.call_at(now + delay, lambda delay=delay: fired.append((delay, time.monotonic() - now)))
    reactor.call_at(now + 0.06, done.set)
    assert done.wait(SOON)
    assert [delay for delay, _ in fired] == [-1.0, 0.01, 0.03, 0.03, 0.05]
    assert all(after >= delay for delay, after in fired)


def test_a_timer_that_is_cancelled_does_not_fire(reactor: Reactor) -> None:
    fired: list[str] = []
    done = threading.Event()
    now = time.monotonic()
    cancelled = reactor.call_at(now + 0.01, lambda: fired.append("cancelled"))
    reactor.call_at(now + 0.005, lambda: cancelled.cancel())
    reactor.call_at(now + 0.03, done.set)
    assert done.wait(SOON)
    assert fired == []


def test_a_timer_can_be_cancelled_after_it_has_fired(reactor: Reactor) -> None:
    fired = threading.Event()
    handle = reactor.call_at(0, fired.set)
    assert fired.wait(SOON)
    handle.cancel()
    handle.fire()


def test_timers_that_are_cancelled_do_not_pile_up_and_the_others_fire(reactor: Reactor) -> None:
    fired: list[int] = []
    done = threading.Event()
    far = time.monotonic() + 1000.0
    near = time.monotonic() + 0.2
    for number in range(5000):
        reactor.call_at(far, lambda: fired.append(-1)).cancel()
        if number % 100 == 0:
            reactor.call_at(near, lambda number=number: fired.append(number))
    reactor.call_at(near, done.set)
    finished(reactor)
    assert len(reactor._timers) <= 200
    assert done.wait(SOON)
    assert fired == list(range(0, 5000, 100))


def test_a_reader_is_called_until_it_is_removed(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    got = threading.Semaphore(0)

    def read() -> None:
        seen.append(ours.recv(1))
        got.release()

    reactor.call_soon_threadsafe(lambda: reactor.add_reader(ours, read))
    theirs.send(b"ab")
    assert got.acquire(timeout=SOON)
    assert got.acquire(timeout=SOON)
    reactor.call_soon_threadsafe(lambda: reactor.remove_reader(ours))
    finished(reactor)
    theirs.send(b"c")
    finished(reactor)
    assert seen == [b"a", b"b"]


def test_a_listener_is_asked_again_a_moment_after_it_could_not_accept(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    times: list[float] = []
    accepted = threading.Event()

    def accept() -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            reactor.accept_later(ours, accept)
        else:
            ours.recv(1)
            accepted.set()

    reactor.call_soon_threadsafe(lambda: reactor.add_reader(ours, accept))
    theirs.send(b"a")
    assert accepted.wait(SOON)
    first, second = times
    assert second - first >= 0.4


class FullSelector(Selector):
    """A selector for which the kernel has no room until `full` is cleared."""

    full = False

    def add(self, source: Source, callback: Any, *, writes: bool = False) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().add(source, callback, writes=writes)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reactor, FullSelector]]:
    monkeypatch.setattr(reactors, "Selector", FullSelector)
    reactor = Reactor()
    selector = reactor._selector
    assert isinstance(selector, FullSelector)
    selector.full = True
    yield reactor, selector
    reactor.close()


def test_a_source_for_which_the_kernel_has_no_room_is_watched_when_there_is_some(
    full: tuple[Reactor, FullSelector],
    pair: tuple[socket.socket, socket.socket],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reactor, selector = full
    ours, theirs = pair
    received: SimpleQueue[bytes] = SimpleQueue()
    theirs.send(b"early")
    reactor.add_reader(ours, lambda: received.put(ours.recv(100)))
    finished(reactor)
    assert received.empty()
    selector.full = False
    assert received.get(timeout=SOON) == b"early"
    theirs.send(b"late")
    assert received.get(timeout=SOON) == b"late"
    assert [record.message for record in caplog.records] == [
        "events of a process or a connection are noticed later: epoll_ctl: [Errno 28] No space left on device"
    ]


def test_a_source_for_which_the_kernel_has_no_room_can_get_a_writer(
    full: tuple[Reactor, FullSelector], pair: tuple[socket.socket, socket.socket]
) -> None:
    reactor, selector = full
    written = threading.Event()

    def on_event() -> None:
        written.set()
        reactor.remove_reader(pair[0])

    reactor.add_reader(pair[0], on_event)
    reactor.call_soon_threadsafe(lambda: reactor.set_writer(pair[0], on_event, also=True))
    finished(reactor)
    selector.full = False
    assert written.wait(SOON)


def test_a_source_that_is_removed_or_closed_while_the_kernel_has_no_room_is_not_watched_later(
    full: tuple[Reactor, FullSelector], pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    reactor, selector = full
    ours, theirs = pair
    called: list[str] = []
    reactor.add_reader(ours, lambda: called.append("removed"))
    reactor.add_reader(theirs, lambda: called.append("closed"))
    reactor.call_soon_threadsafe(lambda: reactor.remove_reader(ours))
    finished(reactor)
    ours.close()
    theirs.close()
    selector.full = False
    eventually(lambda: not reactor._unwatched)
    finished(reactor)
    assert not called
    assert not [record for record in caplog.records if "internal error" in record.message]


def test_a_callback_may_remove_readers_whose_event_is_due_in_the_same_round(reactor: Reactor) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    seen: list[int] = []

    def take(number: int) -> None:
        seen.append(number)
        for ours, _ in pairs:
            reactor.remove_reader(ours)

    def watch_all() -> None:
        for number, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            reactor.add_reader(ours, lambda number=number: take(number))

    reactor.call_soon_threadsafe(watch_all)
    finished(reactor)
    finished(reactor)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert len(seen) == 1


def test_an_event_of_a_closed_descriptor_does_not_reach_its_next_owner(reactor: Reactor) -> None:
    first, second = socket.socketpair(), socket.socketpair()
    seen: list[str] = []
    replacements: list[socket.socket] = []

    def take(name: str, other: socket.socket) -> None:
        seen.append(name)
        reactor.remove_reader(first[0])
        reactor.remove_reader(second[0])
        number = other.fileno()
        other.close()
        new, peer = socket.socketpair()
        if new.fileno() != number:
            new = socket.socket(fileno=os.dup2(new.detach(), number))
        replacements.extend((new, peer))
        reactor.add_reader(new, lambda: seen.append("the wrong one"))

    def watch_both() -> None:
        first[1].send(b"x")
        second[1].send(b"x")
        reactor.add_reader(first[0], lambda: take("first", second[0]))
        reactor.add_reader(second[0], lambda: take("second", first[0]))

    reactor.call_soon_threadsafe(watch_both)
    finished(reactor)
    finished(reactor)
    reactor.close()
    for one in (*first, *second, *replacements):
        one.close()
    assert len(seen) == 1


def test_removing_a_reader_that_does_not_exist_or_is_closed_is_no_error(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[Any] = []
    theirs.close()
    for source in (ours, theirs, 9999):
        reactor.call_soon_threadsafe(lambda source=source: seen.append(reactor.remove_reader(source)))
    finished(reactor)
    assert seen == [None] * 3


def test_a_writer_is_called_while_it_is_set(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    writable = threading.Event()

    def event() -> None:
        writable.set()
        reactor.set_writer(ours, event, also=False)

    def begin() -> None:
        reactor.add_reader(ours, event)
        reactor.set_writer(ours, event, also=True)

    reactor.call_soon_threadsafe(begin)
    assert writable.wait(SOON)


def test_an_error_in_a_callback_is_logged_and_harms_no_other(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    read = threading.Event()

    def fail() -> None:
        reactor.remove_reader(ours)
        read.set()
        raise ValueError("in a watch")

    def fail_call() -> None:
        raise ValueError("in a call")

    def fail_timer() -> None:
        raise ValueError("in a timer")

    with caplog.at_level(logging.ERROR, "suitkaise.reactor"):
        theirs.send(b"x")
        reactor.call_soon_threadsafe(fail_call)
        reactor.call_at(0, fail_timer)
        reactor.call_soon_threadsafe(lambda: reactor.add_reader(ours, fail))
        assert read.wait(SOON)
        finished(reactor)
    said = sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info)
    assert said == ["in a call", "in a timer", "in a watch"]


def test_closing_waits_for_the_thread_and_may_be_done_twice() -> None:
    reactor = Reactor()
    called = threading.Event()
    reactor.call_soon_threadsafe(called.set)
    assert called.wait(SOON)
    reactor.close()
    assert not reactor._thread.is_alive()
    reactor.close()


def test_it_can_be_closed_by_a_callback() -> None:
    reactor = Reactor()
    reactor.call_soon_threadsafe(reactor.close)
    reactor._thread.join(SOON)
    assert not reactor._thread.is_alive()


def test_calls_after_the_end_do_nothing_and_do_not_write_into_other_descriptors() -> None:
    reactor = Reactor()
    number = reactor._bell
    reactor.close()
    ours, theirs = socket.socketpair()
    foreign = number not in (ours.fileno(), theirs.fileno())
    if foreign:
        os.dup2(theirs.fileno(), number)
    reactor.call_soon_threadsafe(lambda: None)
    reactor.call_at(0, lambda: None)
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(8)
    if foreign:
        os.close(number)


def test_a_reactor_whose_thread_cannot_be_started_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread_is_left)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Reactor()
    assert os.listdir("/proc/self/fd") == before


def test_a_forked_child_closes_the_descriptors(reactor: Reactor) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            bell = reactor._bell
            reactor.close_after_fork()
            reactor.call_soon_threadsafe(lambda: None)
            os.fstat(bell)
        except OSError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finished(reactor)


def test_a_time_that_is_months_away_does_not_end_the_thread(reactor: Reactor) -> None:
    reactor.call_at(time.monotonic() + 90 * 86_400.0, lambda: None)
    finished(reactor)
    finished(reactor)  # it has slept in between, with no other timer


def test_a_callback_for_which_no_thread_can_be_started_is_not_run_later(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, run = SerialExecutor("suitkaise-test"), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread_is_left)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(lambda: run.append("refused"))
    executor.submit(lambda: run.append("accepted"))
    executor.close()
    assert run == ["accepted"]


def test_the_thread_goes_on_after_it_had_no_memory(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    select, failures = reactor._selector.select, [MemoryError()]

    def fails_once(timeout: float | None) -> Any:
        if failures:
            raise failures.pop()
        return select(timeout)

    monkeypatch.setattr(reactor._selector, "select", fails_once)
    finished(reactor)
    finished(reactor)

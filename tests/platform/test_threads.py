"""Threads that start also where Python starts none any more."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from suitkaise.platform import threads
from suitkaise.platform.flag import Flag
from suitkaise.platform.reactor import Reactor, SerialExecutor
from suitkaise.platform.threads import DaemonThread, Reserve
from tests.support import eventually, interrupted_at_each_call, no_thread_is_left, run_program

SOON = 10.0


@pytest.fixture
def reserve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reserve]:
    """Two idle threads, and no others can be started."""
    before = set(threading.enumerate())
    reserve = Reserve(2)

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threads, "_reserve", reserve)
    monkeypatch.setattr(threading.Thread, "start", start)
    yield reserve
    reserve.close()
    eventually(lambda: set(threading.enumerate()) <= before)


def test_an_idle_thread_runs_in_place_of_one_that_cannot_be_started_and_is_idle_again(reserve: Reserve) -> None:
    names = []
    for number in range(5):
        thread = DaemonThread(lambda: names.append(threading.current_thread().name), f"number-{number}")
        thread.start()
        thread.join(SOON)
        assert not thread.is_alive()
    assert names == [f"number-{number}" for number in range(5)]
    assert {one.name for one in threading.enumerate()} >= {"suitkaise-idle"}


def test_a_thread_knows_itself_also_where_an_idle_one_runs_in_its_place(reserve: Reserve) -> None:
    seen: list[bool] = []
    thread = DaemonThread(lambda: seen.append(thread.is_current()), "lent")
    assert not thread.is_current()
    thread.start()
    thread.join(SOON)
    assert (seen, thread.is_current()) == ([True], False)


def test_a_callback_in_a_lent_thread_does_not_wait_for_itself(reserve: Reserve) -> None:
    executor = SerialExecutor("lent")
    closed = Flag()

    def close() -> None:
        executor.close(patience=SOON)
        closed.set()

    executor.submit(close)
    assert closed.wait(SOON / 2)


def test_an_io_thread_knows_itself_also_where_an_idle_one_runs_in_its_place(reserve: Reserve) -> None:
    reactor = Reactor()
    inside: Future[bool] = Future()
    reactor.call_soon_threadsafe(lambda: inside.set_result(reactor.in_thread))
    assert inside.result(SOON)
    assert not reactor.in_thread
    reactor.close()


def test_where_all_idle_threads_are_busy_the_start_fails(reserve: Reserve) -> None:
    over = threading.Event()
    busy = [DaemonThread(over.wait, f"busy-{number}", (SOON,)) for number in range(2)]
    for thread in busy:
        thread.start()
        assert thread.is_alive()
    with pytest.raises(RuntimeError, match="interpreter shutdown"):
        DaemonThread(over.wait, "one too many").start()
    over.set()
    for thread in busy:
        thread.join(SOON)
    eventually(lambda: not any(thread.is_alive() for thread in busy))


def test_a_reserve_has_as_many_threads_as_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread_is_left)
        reserve = Reserve(2)
    assert not reserve.lend(DaemonThread(lambda: None, "refused"))


def test_an_exception_in_a_lent_thread_is_told_and_the_thread_is_idle_again(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append((args.exc_type, args.thread.name)))
    for number in range(3):
        thread = DaemonThread(lambda: 1 / 0, f"fails-{number}")
        thread.start()
        thread.join(SOON)
    assert told == [(ZeroDivisionError, f"fails-{number}") for number in range(3)]


def test_where_threads_can_be_started_one_of_its_own_runs() -> None:
    seen: list[threading.Thread] = []
    thread = DaemonThread(lambda: seen.append(threading.current_thread()), "own")
    thread.start()
    thread.join(SOON)
    assert seen == [thread]
    assert thread.daemon


ENDS = """
import atexit, os, threading, time
from suitkaise import skthreading, sktree, xprocess

tries = []

def await_end():
    while not os.path.exists("over"):
        time.sleep(0.01)

def work():
    await_end()
    tree = sktree.connect()
    tree.add_to_root("finished", 1)
    print("value", tree.get("finished", path=""), flush=True)

def crash():
    await_end()
    raise ValueError("boom")

def fragile():
    await_end()
    tries.append(1)
    if len(tries) < 3:
        raise ValueError("bang")
    print("tries", len(tries), flush=True)

xp = xprocess.CrossProcessing()
xp.create_process("w", work, kwargs={"join_after": 1})
xp.create_process("c", crash, kwargs={"join_after": 1, "restart": "temporary"})
skthreading.create_thread(name="t", func=fragile, kwargs={"join_after": 1})
atexit.register(lambda: open("over", "w").close())  # the last that is registered, so the first that is called
print("main is over", flush=True)
"""


def test_at_the_end_of_a_program_workers_use_the_storage_are_recalled_and_leave_crash_reports() -> None:
    finished = run_program(ENDS)
    told = finished.stdout.splitlines()
    assert told[0] == "main is over"
    assert sorted(told[1:]) == ["tries 3", "value 1"], finished.stderr
    assert finished.stderr.count("; see `suitkaise crashes ") == 3, finished.stderr
    listed = run_program([sys.executable, "-m", "suitkaise", "crashes"])
    for report in finished.stderr.split("see `suitkaise crashes ")[1:]:
        assert report.partition("`")[0] in listed.stdout


def test_a_signal_handler_that_raises_during_the_start_of_a_thread_does_not_stop_it() -> None:
    """As Ctrl-C does; a `threading.Thread` would wait for ever for a lock that its starter keeps."""

    class SlowThread(DaemonThread):
        def _bootstrap(self) -> None:  # so that its starter waits for it
            threading.Event().wait(0.02)
            super()._bootstrap()  # type: ignore[misc]

    threads: list[tuple[DaemonThread, Flag, int]] = []  # none ends in the call: the callback of a weakref runs then

    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    def start() -> None:
        runs = Flag()
        threads.append((SlowThread(runs.set, "interrupted"), runs, count()))
        threads[-1][0].start()

    for _ in interrupted_at_each_call(start):
        for thread, runs, before in threads[-1:]:
            if runs.is_set() or count() > before:  # else it was not begun
                assert runs.wait(SOON)
                thread.join(SOON)
                assert not thread.is_alive()
    assert sum(runs.is_set() for _, runs, _ in threads) > 1


FRAMES_AMONG_GARBAGE = """
import gc, threading
from suitkaise.platform.threads import current_frames

class Node:
    pass

def leave_garbage():
    node = Node()
    node.itself, node.local = node, threading.local()
    node.local.value = node

def stands_deep(depth, at_the_end):
    return stands_deep(depth - 1, at_the_end) if depth else at_the_end.wait()

for threshold in range(1, 60):  # one of them has the collector run while the frames are made
    over = threading.Event()
    others = [threading.Thread(target=stands_deep, args=(2, over)) for _ in range(20)]
    for one in others:
        one.start()
    gc.collect()
    gc.disable()
    leave_garbage()
    gc.set_threshold(threshold)
    gc.enable()
    assert len(current_frames()) == 21
    assert gc.isenabled()
    gc.set_threshold(700)
    over.set()
    for one in others:
        one.join()
gc.disable()
current_frames()
print("gc is", gc.isenabled())
"""


def test_the_frames_of_all_threads_are_there_although_their_making_sets_off_the_garbage_collector(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(FRAMES_AMONG_GARBAGE)
    assert run_program(program).check().stdout == "gc is False\n"  # as it was

"""The lock that tells the end of a process: of which ends, with which status, and what is no end."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.platform import death_lock
from suitkaise.platform.board import Board
from suitkaise.platform.death_lock import DeathWatch, status_at_end
from suitkaise.platform.processes import has_ended
from tests.support import eventually

SOON = 15.0

HOLDER = """
import ctypes, os, signal, sys, threading, time
from suitkaise.platform import death_lock
from suitkaise.platform.board import Board

board = Board(os.open(sys.argv[1], os.O_RDWR))
death_lock.hold(board.lock_address(int(sys.argv[2])))
for _ in range(2):
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
memory = b"x" * (32 << 20)
print("holds", flush=True)
exec(sys.stdin.readline())
print("done", flush=True)
sys.stdin.readline()
"""

pytestmark = pytest.mark.skipif(bool(death_lock.refusal()), reason=death_lock.refusal())


class Holder:
    """A process that holds the lock of a slot, with two other threads."""

    def __init__(self, file: Path, board: Board, slot: int) -> None:
        command = [sys.executable, "-c", HOLDER, str(file), str(slot)]
        self.address = board.lock_address(slot)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        assert self.read() == "holds"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass
        os.close(self.pidfd)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a watch look at an ending process for as long as the machine needs to end its threads."""
    monkeypatch.setattr(death_lock, "_LONGEST_PAUSE", SOON)


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[Holder]]:
    """Two processes that hold locks."""
    file = tmp_path / "board"
    board = Board.create(str(file))
    with contextlib.ExitStack() as made:
        made.callback(board.close)
        slots = [board.take(name) for name in "ab"]
        holders = []
        for slot in slots:
            made.callback(slot.release)
            holders.append(Holder(file, board, slot.index))
            made.callback(holders[-1].end)
        yield holders


@pytest.fixture
def watch(holders: list[Holder]) -> Iterator[DeathWatch]:
    """A watch that is closed before the board with the locks is: it reads them."""
    watch = DeathWatch()
    yield watch
    watch.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "suitkaise-deaths"]


@pytest.fixture
def holder(holders: list[Holder]) -> Holder:
    return holders[0]


@pytest.fixture
def told() -> queue.SimpleQueue[int]:
    return queue.SimpleQueue()


def reap(holder: Holder) -> int:
    """Wait for the end of the process; return its wait status."""
    assert has_ended(holder.pidfd, SOON)
    result = os.waitid(os.P_PIDFD, holder.pidfd, os.WEXITED | os.WNOWAIT)
    assert result is not None
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "code, is_known",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", True),
        ("threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGKILL)).start()", True),
        ("os.kill(os.getpid(), signal.SIGSEGV)", True),
        ("threading.Thread(target=os._exit, args=(8,)).start()", True),
        ("os._exit(7)", False),
        ("os._exit(0)", False),
    ],
)
def test_the_end_is_told_once_with_the_status_that_waitpid_gives_if_it_is_known(
    code: str, is_known: bool, watch: DeathWatch, holder: Holder, told: queue.SimpleQueue[int]
) -> None:
    assert watch.add(holder.address, holder.pid, told.put)
    holder.order(code)
    status = told.get(timeout=SOON)
    assert status == (reap(holder) if is_known else 0)
    assert told.empty()


@pytest.mark.usefixtures("patient")
def test_each_end_is_told_of_its_own_process(
    watch: DeathWatch, holders: list[Holder], told: queue.SimpleQueue[int]
) -> None:
    for holder in holders:
        assert watch.add(holder.address, holder.pid, told.put)
    holders[1].order("os.abort()")
    assert told.get(timeout=SOON) & 0x7F == signal.SIGABRT
    holders[0].process.kill()
    assert told.get(timeout=SOON) == signal.SIGKILL


def test_the_end_of_the_main_thread_is_not_that_of_the_process(
    watch: DeathWatch, holder: Holder, told: queue.SimpleQueue[int]
) -> None:
    assert watch.add(holder.address, holder.pid, told.put)
    holder.order("ctypes.CDLL(None).pthread_exit(None)")
    eventually(lambda: not watch._watched)
    assert status_at_end(holder.pid) is None
    assert not has_ended(holder.pidfd)
    holder.process.kill()
    assert reap(holder) == signal.SIGKILL
    assert told.empty() or told.get() == 0


@pytest.mark.parametrize("thread", [False, True])
def test_another_program_in_the_same_process_is_no_end(
    thread: bool, watch: DeathWatch, holder: Holder, told: queue.SimpleQueue[int]
) -> None:
    assert watch.add(holder.address, holder.pid, told.put)
    run = "os.execv('/bin/sh', ['sh', '-c', 'echo runs; read line; exit 5'])"
    holder.order(f"threading.Thread(target=lambda: {run}).start()" if thread else run)
    eventually(lambda: holder.read() == "runs")
    eventually(lambda: not watch._watched)
    assert not has_ended(holder.pidfd)
    holder.order("")
    assert reap(holder) == 5 << 8
    assert told.empty() or told.get() == 0


@pytest.mark.usefixtures("patient")
def test_a_forked_process_does_not_hold_the_lock(
    watch: DeathWatch, holder: Holder, told: queue.SimpleQueue[int]
) -> None:
    assert watch.add(holder.address, holder.pid, told.put)
    holder.order("os.waitpid(os.fork() or os._exit(4), 0)")
    assert holder.read() == "done"
    assert told.empty()
    holder.process.kill()
    assert told.get(timeout=SOON) == signal.SIGKILL


@pytest.mark.usefixtures("patient")
def test_a_process_that_is_watched_no_longer_is_not_told_of(
    watch: DeathWatch, holders: list[Holder], told: queue.SimpleQueue[int]
) -> None:
    first, second = holders
    for holder in holders:
        assert watch.add(holder.address, holder.pid, told.put)
    watch.remove(first.address)
    first.process.kill()
    assert has_ended(first.pidfd, SOON)
    second.process.kill()
    assert told.get(timeout=SOON) == signal.SIGKILL
    assert told.empty()


def test_a_process_that_holds_no_lock_or_has_ended_is_not_watched(
    watch: DeathWatch, holders: list[Holder], told: queue.SimpleQueue[int]
) -> None:
    assert not watch.add(holders[0].address, holders[1].pid, told.put)
    holders[0].process.kill()
    assert has_ended(holders[0].pidfd, SOON)
    assert not watch.add(holders[0].address, holders[0].pid, told.put)


def test_more_processes_than_a_thread_can_wait_for_are_not_watched(
    watch: DeathWatch, holders: list[Holder], told: queue.SimpleQueue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_lock, "MOST", 1)
    assert [watch.add(holder.address, holder.pid, told.put) for holder in holders] == [True, False]


@pytest.fixture
def without_futex_waitv(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel knows no system call of that number."""
    monkeypatch.setattr(death_lock, "_WAITV", 100_000)
    death_lock.refusal.cache_clear()
    yield
    death_lock.refusal.cache_clear()


@pytest.mark.usefixtures("without_futex_waitv")
def test_a_kernel_without_futex_waitv_refuses(watch: DeathWatch, holder: Holder, told: queue.SimpleQueue[int]) -> None:
    assert death_lock.refusal() == f"futex_waitv: {os.strerror(errno.ENOSYS)}"
    assert not watch.add(holder.address, holder.pid, told.put)


def test_a_call_that_is_forbidden_later_ends_the_watch_with_a_warning(
    watch: DeathWatch,
    holder: Holder,
    told: queue.SimpleQueue[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not death_lock.refusal()
    monkeypatch.setattr(death_lock, "_WAITV", 100_000)
    assert watch.add(holder.address, holder.pid, told.put)
    eventually(lambda: "ends of processes are noticed later: futex_waitv: " in caplog.text)
    assert not watch._watched


def test_a_process_that_runs_or_does_not_exist_has_no_status(holder: Holder) -> None:
    assert status_at_end(holder.pid) is None
    assert status_at_end(2**22 + 1) is None

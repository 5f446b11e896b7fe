"""The status board."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.errors import SuitkaiseError
from suitkaise.platform import board as module
from suitkaise.platform.board import BELL, LAST_LOOP, LOOPS, MESSAGES, PHASE, PID, QUEUED, TOTAL, Board, Phase

SOON = 10.0


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board.create(str(tmp_path / "board"))
    yield board
    board.close()


def test_a_slot_shows_the_values_that_were_written_into_it(board: Board) -> None:
    slot = board.take("tree/one")
    now = time.monotonic()
    for word, number in ((PID, 7), (LOOPS, 3), (MESSAGES, 11), (QUEUED, 13)):
        slot.words[word] = number
    for word, seconds in ((PHASE, Phase.LOOP.mark + now), (LAST_LOOP, 2.0), (TOTAL, 5.0)):
        slot.seconds[word] = seconds
    view = slot.read()
    assert (view.pid, view.phase, view.loops, view.last_loop_time, view.total_loop_time) == (7, Phase.LOOP, 3, 2.0, 5.0)
    assert (view.messages, view.queued) == (11, 13)
    assert view.since == pytest.approx(now, abs=1e-6)


def test_a_new_slot_is_empty(board: Board) -> None:
    slot = board.take("tree/one")
    view = slot.read()
    assert (view.pid, view.phase, view.loops, view.queued) == (0, Phase.BOOT, 0, 0)
    assert slot.bytes[BELL] == 0


def test_phases_are_numbered_and_know_their_hooks() -> None:
    assert sorted(Phase) == list(range(9))
    assert [phase.hook for phase in (Phase.ON_START, Phase.BEFORE_LOOP, Phase.ON_RECEIVE)] == [
        "on_start", "before_loop", "on_receive",
    ]  # fmt: skip


def test_another_view_of_the_board_sees_the_same(board: Board, tmp_path: Path) -> None:
    slot = board.take("tree/one")
    other = Board(os.open(tmp_path / "board", os.O_RDWR))
    there = other.slot(slot.index)
    there.words[LOOPS] = 42
    assert slot.read().loops == 42
    there.release()
    other.close()


def test_a_board_is_made_once_and_for_its_own_user_only(board: Board, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        Board.create(str(tmp_path / "board"))
    assert (tmp_path / "board").stat().st_mode & 0o777 == 0o600


def test_an_empty_board_takes_no_memory(board: Board, tmp_path: Path) -> None:
    assert (tmp_path / "board").stat().st_blocks * 512 < 1 << 16


def test_a_slot_that_was_given_back_is_used_again_and_is_clean(board: Board) -> None:
    first = board.take("tree/one")
    first.words[LOOPS] = 3
    first.bytes[BELL] = 1
    index = first.index
    first.release()
    board.give_back(first)
    again = board.take("tree/two")
    assert (again.index, again.read().loops, again.bytes[BELL]) == (index, 0, 0)


def test_slots_do_not_overlap(board: Board) -> None:
    slots = [board.take(f"tree/{number}") for number in range(50)]
    for number, slot in enumerate(slots):
        for word in range(module.SLOT_BYTES // 8):
            slot.words[word] = number
    assert all(set(slot.words) == {number} for number, slot in enumerate(slots))


def test_a_full_board_refuses_another_worker(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 3)
    slots = [board.take("x") for _ in range(3)]
    with pytest.raises(SuitkaiseError, match="'tree/one': a program can have at most 3 workers at a time"):
        board.take("tree/one")
    board.give_back(slots[1])
    assert board.take("tree/one").index == slots[1].index


def test_many_threads_take_different_slots(board: Board) -> None:
    taken: list[int] = []

    def take() -> None:
        for _ in range(100):
            slot = board.take("x")
            taken.append(slot.index)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert sorted(taken) == list(range(500))


def test_the_board_can_be_closed_while_slots_are_in_use(tmp_path: Path) -> None:
    board = Board.create(str(tmp_path / "board"))
    slot = board.take("tree/one")
    board.close()
    slot.words[LOOPS] = 1
    assert slot.read().loops == 1


# ---------------------------------------------------------------- across processes
def test_a_reader_never_sees_a_torn_word(board: Board) -> None:
    """The writer alternates between two values whose every byte differs."""
    slot = board.take("tree/one")
    low, high = 0, 2**64 - 1
    pid = os.fork()
    if pid == 0:
        words = slot.words
        while True:
            words[LOOPS] = low
            words[LOOPS] = high
    try:
        words = slot.words
        deadline = time.monotonic() + SOON
        while words[LOOPS] != high and time.monotonic() < deadline:
            pass
        seen = {words[LOOPS] for _ in range(1_000_000)}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen <= {low, high}


def test_phase_and_its_start_always_agree(board: Board) -> None:
    slot = board.take("tree/one")
    pid = os.fork()
    if pid == 0:
        seconds, number = slot.seconds, 0
        while True:
            number += 1
            seconds[PHASE] = Phase(number % 8).mark + number
    try:
        seen = [slot.seconds[PHASE] for _ in range(200_000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert all(Phase.of(word) == word % 2**30 % 8 for word in seen)


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_word_has_the_phase_and_the_time_to_a_microsecond_for_34_years(board: Board, phase: Phase) -> None:
    slot = board.take("tree/one")
    for now in (0.0, 1.234567, 86_400.000001, 34 * 365.25 * 86_400 - 0.5, 2**30 - 2e-6):
        slot.seconds[PHASE] = phase.mark + now
        view = slot.read()
        assert view.phase is phase
        assert view.since == pytest.approx(now, abs=1e-6)


def test_the_last_values_of_a_killed_writer_can_still_be_read(board: Board) -> None:
    slot = board.take("tree/one")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        words = slot.words
        words[PID] = os.getpid()
        slot.seconds[PHASE] = Phase.LOOP.mark + time.monotonic()
        for number in range(1, 1001):
            words[LOOPS] = number
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    view = slot.read()
    assert (view.pid, view.phase, view.loops) == (pid, Phase.LOOP, 1000)
    assert 0 <= time.monotonic() - view.since < 60

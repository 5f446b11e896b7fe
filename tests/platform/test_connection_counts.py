"""The counts of direct connections: what was sent and not taken, on both sides of the status board."""

from __future__ import annotations

import pytest

from suitkaise.platform.board import Board
from suitkaise.platform.connection_counts import CONNECTIONS, COUNTS_BYTES, ConnectionCounts


@pytest.fixture
def counts() -> ConnectionCounts:
    return ConnectionCounts(memoryview(bytearray(COUNTS_BYTES)))


def test_messages_are_counted_from_the_moment_in_which_they_are_sent(counts: ConnectionCounts) -> None:
    first, second = counts.add(), counts.add()
    assert (first, second) == (0, 1)
    assert counts.messages == 0
    counts.sent(0)[0], counts.taken(0)[0] = 2 * 7, 3
    counts.sent(1)[0] = 2 * 5
    assert counts.messages == 12


def test_a_message_that_is_taken_before_its_sender_has_counted_it_counts_once(counts: ConnectionCounts) -> None:
    counts.add()
    counts.taken(0)[0] = 1
    assert counts.messages == 1
    counts.sent(0)[0] = 2 * 1
    assert counts.messages == 1


def test_a_sender_tells_that_it_is_sending(counts: ConnectionCounts) -> None:
    counts.add()
    for word, sends in ((0, False), (1, True), (2, False), (3, True)):
        counts.sent(0)[0] = word
        assert (counts.is_sent_to, counts.messages) == (sends, word // 2)
    counts.close(0)
    assert not counts.is_sent_to


def test_the_number_of_a_closed_connection_is_given_to_the_next_one_and_counts_from_zero(
    counts: ConnectionCounts,
) -> None:
    for _ in range(3):
        counts.add()
    counts.sent(1)[0], counts.taken(1)[0] = 2 * 5, 4
    counts.close(1)
    assert counts.messages == 4  # what the worker has not taken is its sender's
    assert counts.add() == 1
    assert (counts.messages, counts.sent(1)[0], counts.taken(1)[0]) == (4, 0, 0)
    assert counts.add() == 3


def test_there_are_no_more_than_the_board_has_room_for(counts: ConnectionCounts) -> None:
    assert [counts.add() for _ in range(CONNECTIONS)] == list(range(CONNECTIONS))
    assert counts.add() is None
    counts.close(CONNECTIONS - 1)
    assert counts.add() == CONNECTIONS - 1


def test_both_sides_and_the_hub_see_the_same_counts_of_each_worker() -> None:
    board = Board.in_memory()
    slots = [board.take(name) for name in ("tree/one", "tree/two")]
    hubs = [board.new_counts(slot.index) for slot in slots]
    for hub in hubs:
        hub.add()
    marks = board.marks(slots[1].index, 0)
    marks.sent[0] = 2 * 4
    worker = board.counts(slots[1].index)
    worker.taken(0)[0] = 1
    assert [hub.messages for hub in hubs] == [0, 4]
    slots[1].bytes[:] = bytes(len(slots[1].bytes))
    assert hubs[1].messages == 4  # no slot lies over it
    assert board.new_counts(slots[1].index).messages == 0


def test_the_counts_of_the_last_slot_are_on_the_board() -> None:
    board = Board.in_memory()
    last = board.new_counts(16_383)
    last.add()
    last.sent(0)[0] = 2 * 1
    assert last.messages == 1

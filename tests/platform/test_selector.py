"""The selector of the I/O thread: signal handlers come, and raise, at any moment of a registration."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.platform.selector import Selector
from tests.support import interrupted_at_each_call, interrupted_at_each_line


@pytest.fixture
def selector() -> Iterator[Selector]:
    with contextlib.closing(Selector()) as selector:
        yield selector


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def nothing() -> None: ...


def other() -> None: ...


def test_a_source_is_told_while_it_has_input_and_no_longer_than_it_is_watched(selector: Selector, pair: Any) -> None:
    ours, theirs = pair
    selector.add(ours, nothing)
    assert selector.select(0.0) == []
    theirs.send(b"input")
    assert selector.select(None) == selector.select(5.0) == [(ours, nothing)]
    assert selector.watches(ours, nothing)
    assert not selector.watches(ours, other)
    selector.remove(ours)
    assert selector.select(0.0) == []
    assert not selector.watches(ours, nothing)
    selector.remove(ours)


def test_a_source_that_is_added_again_has_the_new_callback_and_events(selector: Selector, pair: Any) -> None:
    ours, _ = pair
    selector.add(ours, nothing)
    selector.add(ours, other, writes=True)
    assert selector.select(0.0) == [(ours, other)]
    selector.add(ours, nothing)
    assert selector.select(0.0) == []


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
def test_a_wait_ends_with_its_time(selector: Selector, seconds: float) -> None:
    assert selector.select(seconds) == []


def test_a_closed_source_is_refused_and_can_be_removed(selector: Selector) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        selector.add(ours, nothing)
        ours.close()
        with pytest.raises(ValueError, match="a source is closed"):
            selector.add(ours, nothing)
        selector.remove(ours)
        assert ours not in selector


def test_the_number_of_a_closed_source_may_be_the_number_of_the_next_one(selector: Selector) -> None:
    first, writes = os.pipe()
    selector.add(first, nothing)
    closed, peer = socket.socketpair()
    number = closed.fileno()
    selector.add(closed, nothing)
    closed.close()
    os.dup2(first, number)
    selector.add(number, other)
    selector.remove(closed)
    os.write(writes, b"input")
    assert sorted(selector.select(0.0), key=str) == sorted([(first, nothing), (number, other)], key=str)
    peer.close()
    for one in (first, writes, number):
        os.close(one)


def test_a_source_that_the_kernel_does_not_take_is_not_watched(selector: Selector, tmp_path: Any) -> None:
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(OSError) as refusal:
            selector.add(file, nothing)
        assert refusal.value.errno == errno.EPERM
        assert file not in selector


def test_a_closed_selector_watches_nothing(selector: Selector, pair: Any) -> None:
    selector.close()
    selector.close()
    with pytest.raises(ValueError, match="closed epoll"):
        selector.add(pair[0], nothing)
    assert pair[0] not in selector


def test_a_signal_handler_may_add_the_source_that_is_being_added(selector: Selector, pair: Any) -> None:
    ours, theirs = pair
    theirs.send(b"input")
    moments = 0
    for _ in interrupted_at_each_line(lambda: lambda: selector.add(ours, nothing), lambda: selector.add(ours, nothing)):
        assert selector.select(0.0) == [(ours, nothing)]
        selector.remove(ours)
        moments += 1
    assert moments > 5


def test_a_signal_handler_may_raise_while_a_source_is_added(selector: Selector, pair: Any) -> None:
    ours, theirs = pair
    theirs.send(b"input")
    moments = 0
    for _ in interrupted_at_each_call(lambda: selector.add(ours, nothing)):
        assert selector.select(0.0) in ([], [(ours, nothing)])
        selector.add(ours, nothing)
        assert selector.select(0.0) == [(ours, nothing)]
        selector.remove(ours)
        assert selector.select(0.0) == []
        moments += 1
    assert moments

"""The descriptors that a program keeps for the start of its workers."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from suitkaise.platform.descriptors import DescriptorReserve, above_streams, receive_descriptors
from tests.support import descriptors_of


def test_the_kept_descriptors_are_freed_for_a_call_that_has_found_none_and_kept_again_afterwards() -> None:
    before = len(descriptors_of(os.getpid()))
    reserve = DescriptorReserve(3)
    seen = []

    def need_two() -> str:
        seen.append(len(descriptors_of(os.getpid())) - before)
        if len(seen) == 1:
            raise OSError(errno.EMFILE, "none is left")
        return "done"

    assert reserve.call(need_two) == "done"
    assert seen == [3, 0]
    reserve.refill()
    assert len(descriptors_of(os.getpid())) - before == 3
    reserve.close()
    assert len(descriptors_of(os.getpid())) == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_another_error_and_a_second_one_are_raised(number: int) -> None:
    reserve = DescriptorReserve(1)
    calls = []

    def fail() -> None:
        calls.append(number)
        raise OSError(number, "no")

    with pytest.raises(OSError, match="no"):
        reserve.call(fail)
    assert len(calls) == (2 if number == errno.EMFILE else 1)
    reserve.close()
    reserve.refill()
    assert reserve._kept == []


def test_a_descriptor_with_the_number_of_a_stream_is_moved() -> None:
    kept = os.dup(0)
    try:
        os.close(0)
        assert os.open(os.devnull, os.O_RDONLY) == 0
        moved = above_streams(0)
        assert moved > 2
        assert above_streams(moved) == moved
        os.close(moved)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_received_descriptors_are_not_inheritable_and_no_more_than_were_asked_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"three"], [0, 1, 2])
        data, descriptors = receive_descriptors(theirs, 100, 2)
        assert data == b"three"
        assert len(descriptors) == 2
        assert not any(map(os.get_inheritable, descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        ours.send(b"none")
        assert receive_descriptors(theirs, 100, 1) == (b"none", [])

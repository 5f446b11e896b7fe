"""Values with sockets and ends of pipes in them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import threading
from typing import Any

import pytest

from suitkaise.errors import NotSerializable
from suitkaise.messaging import codec
from suitkaise.messaging.descriptor_codec import dumps_with_descriptors, loads_with_descriptors


def test_sockets_are_returned_beside_the_bytes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        value = {"pair": (ours, [theirs]), "again": ours, "send": lambda data: ours.send(data)}
        data, owners = dumps_with_descriptors(value)
        assert owners == [ours, theirs]
        back = loads_with_descriptors(data, [os.dup(owner.fileno()) for owner in owners])
        with back["again"], back["pair"][1][0] as other:
            assert back["pair"][0] is back["again"]
            back["send"](b"x")
            assert other.recv(1) == b"x"


@pytest.mark.parametrize("duplex", [True, False])
def test_the_ends_of_a_pipe_are_returned_beside_the_bytes(duplex: bool) -> None:
    reading, writing = multiprocessing.Pipe(duplex)
    with reading, writing:
        data, owners = dumps_with_descriptors([writing, writing])
        assert owners == [writing]
        first, second = loads_with_descriptors(data, [os.dup(owner.fileno()) for owner in owners])
        with first:
            assert first is second
            assert (first.readable, first.writable) == (duplex, True)
            first.send(1)
            assert reading.recv() == 1


def test_without_sockets_there_is_nothing_beside_the_bytes() -> None:
    data, sockets = dumps_with_descriptors({"a": 1})
    assert sockets == []
    assert loads_with_descriptors(data, []) == {"a": 1}


def test_a_culprit_beside_a_socket_is_found() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(NotSerializable, match=r"^args\[1\]: cannot pickle '_thread.lock'"):
        dumps_with_descriptors([ours, threading.Lock()], root="args")


@pytest.mark.parametrize("pair", [socket.socketpair, multiprocessing.Pipe])
def test_a_socket_or_a_pipe_end_that_was_closed_is_refused(pair: Any) -> None:
    ours, theirs = pair()
    with ours:
        theirs.close()
        with pytest.raises(NotSerializable, match=r"^args\[1\]: .* was closed; an argument must stay open as long as"):
            dumps_with_descriptors([ours, theirs], root="args")


def test_a_missing_socket_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data, _ = dumps_with_descriptors([ours, theirs])
        with pytest.raises(pickle.UnpicklingError, match="descriptor 1, but 1 descriptors came"):
            loads_with_descriptors(data, [os.dup(ours.fileno())])


def test_descriptors_that_no_part_of_the_value_has_are_closed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loads_with_descriptors(codec.dumps([]), [os.dup(theirs.fileno())])
        theirs.close()
        assert ours.recv(1) == b""

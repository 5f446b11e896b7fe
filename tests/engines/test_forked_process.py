"""The hub's side of a forked process; the test plays the process and the keeper."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.protocol import Announce, PrepareSpare, SpareReady, StopWorker, decode_worker_order
from suitkaise.messaging import wire
from suitkaise.messaging.send_buffer import SendBuffer
from tests.engines.processes import SOON, NoKeeper, Owner
from tests.support import eventually, in_background


class Played:
    """A process that the test plays, with the pid of a real one that can be killed."""

    def __init__(self, context: EngineContext) -> None:
        self.keeper = NoKeeper(context)
        self.owner = Owner(context, self.keeper)
        self.process = self.owner.process
        self.program = subprocess.Popen(["sleep", "1000"])
        self._parser = wire.Parser(decode=decode_worker_order)

    @property
    def sock(self) -> socket.socket:
        return self.keeper.ends[-1]

    def announce(self) -> None:
        pidfd = os.pidfd_open(self.program.pid)
        socket.send_fds(self.sock, [wire.encode(Announce(self.program.pid))], [pidfd])
        os.close(pidfd)
        assert self.owner.next() == ("started", self.program.pid)

    def receive(self) -> list[Any]:
        self.sock.settimeout(SOON)
        return [header for header, _ in self._parser.receive(self.sock)]

    def close(self) -> None:
        self.process.kill_unwatched()
        for end in self.keeper.ends:
            end.close()
        self.program.kill()
        self.program.wait()


@pytest.fixture
def played(context: EngineContext) -> Iterator[Played]:
    played = Played(context)
    played.process.start()
    yield played
    context.reactor.close()
    played.close()


def test_frames_wait_until_the_process_has_announced_itself(played: Played) -> None:
    [first] = played.receive()
    assert isinstance(first, PrepareSpare)
    played.process.send(wire.encode(StopWorker()))
    assert select.select([played.sock], [], [], 0)[0] == []
    played.announce()
    assert played.receive() == [StopWorker()]


def test_frames_are_handed_to_the_owner(played: Played) -> None:
    played.announce()
    played.sock.send(wire.encode(SpareReady(), b"payload"))
    assert played.owner.next() == ("frame", SpareReady(), b"payload")


@pytest.mark.parametrize(
    "error, text",
    [(OSError("no file descriptor"), "no file descriptor"), (MemoryError("no room"), "MemoryError: no room")],
)
def test_a_process_that_gets_no_first_frame_ends_and_is_reported(
    context: EngineContext, error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = NoKeeper(context)
    owner = Owner(context, keeper)

    def first_frame() -> tuple[bytes, list[socket.socket]]:
        raise error

    monkeypatch.setattr(owner, "first_frame", first_frame)
    owner.process.start()
    assert owner.next() == ("spawn failed", text)
    [end] = keeper.ends
    with end:
        assert end.recv(1) == b""  # at the end of its connection the process ends
    assert not context.unannounced
    context.reactor.close()


@pytest.mark.parametrize("rubbish", [wire.encode(("no such frame",)), b"\xff" * 100], ids=["a header", "no frame"])
def test_a_process_that_sends_invalid_data_is_killed(played: Played, rubbish: bytes) -> None:
    played.announce()
    played.sock.send(rubbish)
    what, why = played.owner.next()
    assert (what, why.partition(": ")[0]) == ("kill", "invalid data from the worker's process")
    assert played.program.wait(SOON) == -signal.SIGKILL


def test_a_signal_handler_may_send_a_signal_while_one_is_sent(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    played.announce()
    send = signal.pidfd_send_signal

    def interrupted(pidfd: int, number: int) -> None:
        if number == signal.SIGCONT:
            played.process.signal(signal.SIGKILL)  # as the handler does
        send(pidfd, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", interrupted)
    in_background(lambda: played.process.signal(signal.SIGCONT)).result(SOON)
    assert played.program.wait(SOON) == -signal.SIGKILL


def test_an_exit_needs_both_the_death_and_the_exit_status(played: Played, context: EngineContext) -> None:
    played.announce()
    played.program.kill()
    eventually(lambda: played.process.dead)
    eventually(lambda: played.keeper.expected == 1)
    assert played.owner.happened.empty()
    context.reactor.call_soon_threadsafe(lambda: played.process.exit_status(-9))
    assert played.owner.next() == ("exit", -9)
    assert played.keeper.forgotten == [played.process]


def test_the_exit_code_is_unknown_if_the_keeper_is_gone(played: Played, context: EngineContext) -> None:
    played.announce()
    context.reactor.call_soon_threadsafe(played.process.exit_status_lost)
    played.program.kill()
    assert played.owner.next() == ("exit", None)


def test_the_last_frames_of_a_process_come_before_its_exit(played: Played, context: EngineContext) -> None:
    played.announce()
    context.reactor.call_soon_threadsafe(played.process.pause_reading)
    played.sock.send(wire.encode(SpareReady()))
    context.reactor.call_soon_threadsafe(lambda: played.process.exit_status(0))
    played.program.kill()
    assert [played.owner.next(), played.owner.next()] == [("frame", SpareReady(), b""), ("exit", 0)]


def test_a_request_is_cancelled_unless_the_process_has_announced_itself(played: Played) -> None:
    assert played.process.cancel_spawn()
    with pytest.raises(BrokenPipeError):
        wire.send(played.sock, Announce(played.program.pid))


def test_a_process_that_has_announced_itself_is_not_cancelled(played: Played, context: EngineContext) -> None:
    played.announce()
    context.reactor.close()
    assert not played.process.cancel_spawn()


def orders_of_the_next_process(played: Played, context: EngineContext) -> list[Any]:
    """Repeat the start, and return what the next process gets once it has announced itself."""
    context.reactor.call_soon_threadsafe(lambda: played.process.cancel_spawn() and played.process.start())
    eventually(lambda: len(played.keeper.ends) == 2)
    [first] = played.receive()
    assert isinstance(first, PrepareSpare)
    played.announce()
    return played.receive()


def test_frames_that_waited_go_to_the_next_process(played: Played, context: EngineContext) -> None:
    played.process.send(wire.encode(StopWorker()))
    assert orders_of_the_next_process(played, context) == [StopWorker()]


def test_a_frame_that_is_sent_while_a_start_is_repeated_is_not_lost(
    played: Played, context: EngineContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over = SendBuffer.take_over

    def take_over_late(newer: SendBuffer, older: SendBuffer) -> None:
        played.process.send(wire.encode(StopWorker()))  # as another thread does at this moment
        take_over(newer, older)

    monkeypatch.setattr(SendBuffer, "take_over", take_over_late)
    assert orders_of_the_next_process(played, context) == [StopWorker()]


def test_a_process_that_does_not_exist_cannot_be_handed_over(played: Played) -> None:
    assert not played.process.hand_over(played.owner)
    played.announce()
    assert played.process.hand_over(played.owner)
    played.program.kill()
    played.program.wait()
    assert not played.process.hand_over(played.owner)


def test_a_failed_request_is_reported_once(played: Played, context: EngineContext) -> None:
    context.reactor.call_soon_threadsafe(lambda: played.process.spawn_failed("no room"))
    context.reactor.call_soon_threadsafe(lambda: played.process.spawn_failed("no room"))
    assert played.owner.next() == ("spawn failed", "no room")
    context.reactor.close()
    assert played.owner.happened.empty()


def test_after_a_fork_the_descriptors_are_closed(played: Played, context: EngineContext) -> None:
    played.announce()
    pidfd = played.process.pidfd
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            played.process.close_after_fork()
            code = int(Path(f"/proc/self/fd/{pidfd}").exists())
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0

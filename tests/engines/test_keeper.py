"""The keeper as a real process, at the other end of its socket."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.engines import keeper_process
from suitkaise.engines.keeper_process import Launched, start_keeper
from suitkaise.engines.protocol import (
    AdoptProcesses,
    Announce,
    KeeperReady,
    KeeperWarning,
    PreloadModules,
    ProcessExited,
    QuitKeeper,
    SpawnFailed,
    SpawnProcess,
    decode_keeper_answer,
    decode_worker_report,
    encode,
)
from suitkaise.messaging import wire
from suitkaise.platform.board import Board
from suitkaise.platform.processes import GROUP_SIGNALS
from tests.support import wait_gone

SOON = 15.0


class Forked:
    """The hub's end of one process's control connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        data, descriptors, _, _ = socket.recv_fds(sock, 1000, 1)
        [self.pidfd] = descriptors
        [(announce, _)] = wire.Parser(decode=decode_worker_report).feed(data)
        assert isinstance(announce, Announce)
        self.pid = announce.pid

    def close(self) -> None:
        self.sock.close()
        os.close(self.pidfd)


class Hub:
    """The hub's end of the keeper's socket."""

    def __init__(self, directory: str, for_commands: bool) -> None:
        self.program: subprocess.Popen[bytes]
        board = Board.create(os.path.join(directory, f"board-{len(os.listdir(directory))}"))
        self.program, self.sock, _ = start_keeper(directory, board.descriptor, [], 1.0, for_commands=for_commands)
        board.close()
        self.sock.settimeout(SOON)
        self.children: list[Forked] = []

    def send(self, request: Any, *descriptors: int) -> None:
        socket.send_fds(self.sock, [encode(request)], descriptors)

    def receive(self) -> Any:
        return decode_keeper_answer(self.sock.recv(1 << 16))

    def spawn(self, number: int, grace: float = 5.0) -> Forked:
        """Have a process forked, and wait until it has announced itself."""
        ours, theirs = socket.socketpair()
        ours.settimeout(SOON)
        with theirs:
            self.send(SpawnProcess(number, grace, False, False), theirs.fileno())
        self.children.append(Forked(ours))
        return self.children[-1]

    def close(self) -> None:
        self.sock.close()
        for child in self.children:
            child.close()
        self.program.wait(SOON)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Start a keeper that is ready."""
    hubs: list[Hub] = []
    (tmp_path / "program").mkdir()

    def make(*, for_commands: bool = False) -> Hub:
        hubs.append(Hub(str(tmp_path / "program"), for_commands))
        assert hubs[-1].receive() == KeeperReady()
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def hub(start: Callable[..., Hub]) -> Hub:
    return start()


def test_a_process_is_forked_and_its_exit_code_is_reported(hub: Hub) -> None:
    child = hub.spawn(1)
    child.sock.shutdown(socket.SHUT_RDWR)  # a process that gets no recipe ends
    assert hub.receive() == ProcessExited(1, 0)
    wait_gone(child.pid)


def test_a_signal_is_reported_as_a_negative_exit_code(hub: Hub) -> None:
    first, second = hub.spawn(1), hub.spawn(2)
    os.kill(second.pid, signal.SIGKILL)
    assert hub.receive() == ProcessExited(2, -signal.SIGKILL)
    os.kill(first.pid, signal.SIGKILL)
    assert hub.receive() == ProcessExited(1, -signal.SIGKILL)


def test_a_process_can_be_forked_while_another_one_is_stopped(hub: Hub) -> None:
    os.kill(hub.spawn(1).pid, signal.SIGSTOP)
    os.kill(hub.spawn(2).pid, signal.SIGKILL)
    assert hub.receive() == ProcessExited(2, -signal.SIGKILL)


def test_a_request_whose_descriptor_was_dropped_fails(hub: Hub) -> None:
    hub.send(SpawnProcess(7, 5.0, False, False))
    assert hub.receive() == SpawnFailed(7, "the keeper has no file descriptor left")
    hub.spawn(8)


def test_a_module_that_cannot_be_imported_is_a_warning(hub: Hub) -> None:
    hub.send(PreloadModules([os.fsencode(Path(__file__).parent)], ["no_such_module"]))
    warning = hub.receive()
    assert isinstance(warning, KeeperWarning)
    assert warning.text.startswith("no_such_module cannot be imported before the workers are forked")
    assert hub.receive() == KeeperReady()


def test_a_module_that_starts_a_thread_is_a_warning(hub: Hub, tmp_path: Path) -> None:
    text = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "starts_a_thread.py").write_text(text)
    hub.send(PreloadModules([os.fsencode(tmp_path)], ["starts_a_thread"]))
    assert "starts threads when it is imported" in hub.receive().text
    assert hub.receive() == KeeperReady()


@pytest.mark.parametrize("number", GROUP_SIGNALS)
def test_a_signal_to_the_whole_group_does_not_end_it_even_while_it_starts(tmp_path: Path, number: int) -> None:
    (tmp_path / "program").mkdir()
    hub = Hub(str(tmp_path / "program"), for_commands=False)
    os.kill(hub.program.pid, number)
    assert hub.receive() == KeeperReady()
    os.kill(hub.program.pid, number)
    hub.send(QuitKeeper())
    assert hub.program.wait(SOON) == 0
    hub.close()
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_it_quits(hub: Hub) -> None:
    hub.send(QuitKeeper())
    assert hub.program.wait(SOON) == 0
    assert hub.sock.recv(10) == b""


def test_a_request_that_does_not_decode_ends_it(hub: Hub) -> None:
    hub.sock.send(b"rubbish")
    assert hub.program.wait(SOON) != 0


def test_when_the_hub_is_gone_all_are_killed_and_the_directory_is_removed(hub: Hub, tmp_path: Path) -> None:
    children = [hub.spawn(number, grace=0.0) for number in (1, 2)]
    os.kill(children[0].pid, signal.SIGSTOP)
    hub.sock.close()
    assert hub.program.wait(SOON) == 0
    for child in children:
        wait_gone(child.pid, 0.0)
    assert not (tmp_path / "program").exists()


def test_a_new_keeper_ends_those_that_it_has_adopted(start: Callable[..., Hub]) -> None:
    old = start()
    child = old.spawn(1, grace=0.0)
    old.program.kill()
    old.program.wait(SOON)
    new = start()
    new.send(AdoptProcesses([(0.0, False)]), child.pidfd)
    os.kill(new.spawn(1).pid, signal.SIGKILL)
    assert new.receive() == ProcessExited(1, -signal.SIGKILL)
    new.sock.close()
    new.program.wait(SOON)
    wait_gone(child.pid, 0.0)


def test_the_exit_of_an_adopted_process_is_not_reported(start: Callable[..., Hub]) -> None:
    old = start()
    child = old.spawn(1)
    old.program.kill()
    old.program.wait(SOON)
    new = start()
    new.send(AdoptProcesses([(5.0, False)]), child.pidfd)
    os.kill(child.pid, signal.SIGKILL)
    wait_gone(child.pid)
    os.kill(new.spawn(2).pid, signal.SIGKILL)
    assert new.receive() == ProcessExited(2, -signal.SIGKILL)


# --- a keeper that is launched before its settings are known ---


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    """Launch a keeper as the first start of a program does, for the block of the test."""
    monkeypatch.delitem(sys.modules, "suitkaise.runtime.runtime", raising=False)
    with keeper_process.launched_early(True):
        [launched] = keeper_process._early
        yield launched


def test_a_keeper_that_was_launched_early_is_the_one_that_serves(early: Launched, start: Callable[..., Hub]) -> None:
    hub = start()
    assert hub.program is early.program
    child = hub.spawn(1)
    child.sock.shutdown(socket.SHUT_RDWR)
    assert hub.receive() == ProcessExited(1, 0)


def test_a_keeper_for_commands_is_none_that_was_launched_early(early: Launched, start: Callable[..., Hub]) -> None:
    assert start(for_commands=True).program is not early.program


def test_a_keeper_that_was_launched_early_and_is_not_needed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "suitkaise.runtime.runtime", raising=False)
    with keeper_process.launched_early(True):
        [launched] = keeper_process._early
    assert launched.program.returncode is not None
    assert launched.sock.fileno() == -1


def test_a_keeper_ends_if_the_program_ends_before_the_settings_are_sent() -> None:
    launched = keeper_process._launch(for_commands=False)
    launched.sock.close()
    assert launched.program.wait(SOON) == 0


def test_a_keeper_ends_quietly_if_the_program_has_ended_and_removed_its_directory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = os.memfd_create("board")
    launched = start_keeper(str(tmp_path / "removed"), board, [], 1.0, for_commands=False)
    os.close(board)
    launched.sock.close()
    assert launched.program.wait(SOON) == 0
    assert capfd.readouterr().err == ""


def test_no_keeper_is_launched_early_where_the_runtime_is_loaded_already() -> None:
    importlib.import_module("suitkaise.runtime.runtime")
    with keeper_process.launched_early(True):
        assert not keeper_process._early

"""The hub's side of the keeper: whatever happens to the keeper, each start and each exit is reported once."""

from __future__ import annotations

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from suitkaise.engines import keeper_client, keeper_liveness
from suitkaise.engines.engine import EngineContext
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.protocol import SpareReady, decode_keeper_answer
from tests.engines.processes import SOON, Owner
from tests.support import eventually, in_background, send_signal, wait_gone


class Client(KeeperClient):
    """Records the deaths of keepers."""

    def __init__(self, context: EngineContext) -> None:
        self.losses: queue.Queue[int] = queue.Queue()
        super().__init__(context, lambda: self.losses.put(self.pid))

    def await_new_keeper(self) -> int:
        """The pid of the next keeper that replaces one."""
        return self.losses.get(timeout=SOON)


@pytest.fixture
def client(context: EngineContext) -> Iterator[Client]:
    client = Client(context)
    yield client
    for request in [*client._requests.values(), *client._adopted]:
        if request.pid is not None:
            os.kill(request.pid, signal.SIGKILL)
    eventually(lambda: not client._requests and not client._adopted)
    client.close()


def spawned(context: EngineContext, client: Client) -> Owner:
    """The owner of a process that stands by."""
    owner = Owner(context, client)
    owner.process.start()
    what, pid = owner.next()
    assert (what, pid) == ("started", owner.process.pid)
    assert owner.next() == ("frame", SpareReady(), b"")
    return owner


def check_now(context: EngineContext, client: Client) -> None:
    """Do not wait for the check that was set before the time-out was changed."""
    context.reactor.call_soon_threadsafe(lambda: client._liveness._check(time.monotonic()))


def test_a_process_is_started_and_its_exit_code_reported(context: EngineContext, client: Client) -> None:
    owner = spawned(context, client)
    send_signal(owner.process, signal.SIGKILL)
    assert owner.next() == ("exit", -signal.SIGKILL)


def test_a_killed_keeper_is_replaced_and_no_process_is_lost(context: EngineContext, client: Client) -> None:
    owner, old = spawned(context, client), client.pid
    os.kill(old, signal.SIGKILL)
    assert client.await_new_keeper() == client.pid != old
    assert spawned(context, client).process.pid
    send_signal(owner.process, signal.SIGKILL)
    assert owner.next() == ("exit", None)


def test_a_start_that_the_dead_keeper_did_not_answer_is_repeated(context: EngineContext, client: Client) -> None:
    spawned(context, client)
    old = client.pid
    os.kill(old, signal.SIGSTOP)
    owner = Owner(context, client)
    owner.process.start()
    os.kill(old, signal.SIGKILL)
    assert owner.next() == ("started", owner.process.pid)
    send_signal(owner.process, signal.SIGKILL)
    while (happened := owner.next())[0] != "exit":
        pass
    assert happened == ("exit", -signal.SIGKILL)


def test_a_process_can_be_killed_while_its_keeper_is_replaced(
    context: EngineContext, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, lock, killing = Owner(context, client), threading.Lock(), threading.Event()
    on_started, wait, order = owner.on_started, client._program.wait, client.signal

    def started() -> None:
        with lock:  # as the owner of a worker's process does, which holds it while it kills the process, too
            on_started()

    def kill() -> None:
        with lock:
            owner.process.signal(signal.SIGKILL)

    def begin_to_kill(*args: int) -> None:
        killing.set()
        order(*args)

    def wait_and_kill() -> None:
        in_background(kill)
        killing.wait(SOON)
        wait()

    monkeypatch.setattr(owner, "on_started", started)
    monkeypatch.setattr(client, "signal", begin_to_kill)
    monkeypatch.setattr(client._program, "wait", wait_and_kill)
    monkeypatch.setattr(owner.process, "resume_reading", lambda: None)
    owner.process.start()
    assert owner.process._buffer is not None
    assert select.select([owner.process._buffer], [], [], SOON)[0]  # it has announced itself, which nobody has read
    os.kill(client.pid, signal.SIGKILL)
    client.await_new_keeper()
    assert owner.next() == ("started", owner.process.pid)


def test_a_stopped_keeper_that_owes_a_process_is_replaced(
    context: EngineContext, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned(context, client)
    old = client.pid
    monkeypatch.setattr(keeper_liveness, "PATIENCE", 0.3)
    os.kill(old, signal.SIGSTOP)
    owner = Owner(context, client)
    owner.process.start()
    check_now(context, client)
    assert owner.next() == ("started", owner.process.pid)
    wait_gone(old)
    assert client.pid != old


def test_a_stopped_keeper_that_owes_nothing_is_left_alone(
    context: EngineContext, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned(context, client)
    old = client.pid
    monkeypatch.setattr(keeper_liveness, "PATIENCE", 0.01)
    os.kill(old, signal.SIGSTOP)
    check_now(context, client)
    eventually(lambda: not client._liveness._check_is_set)
    client.expect_reply()
    eventually(lambda: not client._liveness._check_is_set)
    assert client.pid == old
    os.kill(old, signal.SIGCONT)


def test_a_keeper_that_sends_invalid_data_is_replaced(
    context: EngineContext, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, old = spawned(context, client), client.pid
    with monkeypatch.context() as patched:
        patched.setattr(keeper_client, "decode_keeper_answer", lambda data: decode_keeper_answer(b"rubbish"))
        client._preload()
        assert client.await_new_keeper() != old
    assert f"invalid data from the keeper (pid {old}), which is replaced" in caplog.text
    wait_gone(old)
    send_signal(owner.process, signal.SIGKILL)
    assert owner.next() == ("exit", None)


def test_a_request_after_the_end_fails(context: EngineContext) -> None:
    client = Client(context)
    client.close()
    owner = Owner(context, client)
    owner.process.start()
    assert owner.next() == ("spawn failed", "the keeper is gone, and there will be no other")


def test_without_the_io_thread_all_processes_end_and_are_reported(context: EngineContext) -> None:
    client = Client(context)
    owner, stopped = spawned(context, client), spawned(context, client)
    send_signal(stopped.process, signal.SIGSTOP)
    context.reactor.close()
    client.kill_all()
    assert [owner.next(), stopped.next()] == [("exit", None)] * 2
    wait_gone(owner.process.pid or 0, 0.0)
    wait_gone(client.pid, 0.0)

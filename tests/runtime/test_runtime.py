"""What a program with trees has one of: it is there as a whole, or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from suitkaise import Child, DynamicSupervisor, Supervisor, Thread, sktree
from suitkaise.engines.processes import ProcessEngine
from suitkaise.errors import RuntimeGone
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.messaging.supervisor_ref import ChildLine
from suitkaise.platform import runtime_directory
from suitkaise.platform.runtime_directory import HUB_SOCKET
from suitkaise.runtime import runtime
from suitkaise.runtime.hub_server import HubServer
from suitkaise.supervision.interface import SupervisorInterface
from tests.support import run_program


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    def there() -> tuple[set[str], set[str], set[str]]:
        descriptors = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        threads = {thread.name for thread in threading.enumerate()}
        return (
            set(os.listdir(runtime_directory.base_directory())),
            threads,
            {one for one in descriptors if "suitkaise" in one},
        )

    before = there()
    yield
    assert runtime.current() is None
    assert there() == before


@pytest.mark.parametrize("where", [(ProcessEngine, "__init__"), (HubServer, "__init__"), (runtime_directory, "hold")])
def test_a_start_that_fails_on_the_way_leaves_nothing(
    where: tuple[object, str], monkeypatch: pytest.MonkeyPatch, leaves_nothing: None
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise BlockingIOError(11, "no more of it")

    monkeypatch.setattr(*where, fail)
    with pytest.raises(BlockingIOError, match="no more of it"):
        Supervisor("app").start()


def test_what_fails_at_the_end_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch, leaves_nothing: None) -> None:
    close = ProcessEngine.close

    def fail(self: ProcessEngine) -> None:
        close(self)
        raise ZeroDivisionError

    monkeypatch.setattr(ProcessEngine, "close", fail)
    sktree.connect()
    with pytest.raises(ZeroDivisionError):
        sktree.disconnect()


def test_a_storage_that_does_not_start_leaves_nothing_and_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, leaves_nothing: None
) -> None:
    def fail(self: SupervisorInterface) -> None:
        raise ZeroDivisionError

    with Supervisor("app").start(), monkeypatch.context() as broken:
        broken.setattr(SupervisorInterface, "begin", fail)
        with pytest.raises(ZeroDivisionError):
            sktree.connect()
    with Supervisor("app").start():
        sktree.connect().add("a", 1, path="p")
        sktree.disconnect()


def test_what_the_program_does_is_told_also_while_a_runtime_begins_or_ends() -> None:
    with Supervisor("app").start():
        client = HubClient(os.path.join(runtime.enter().directory, HUB_SOCKET))
        try:
            with runtime._guard:  # `leave` holds it, and waits for the I/O thread, which answers
                assert client.request(RequestKind.OVERVIEW, "").get(10.0)["pid"] == os.getpid()
        finally:
            client.close()
            runtime.leave()


def test_a_client_that_was_closed_makes_no_new_connection() -> None:
    with Supervisor("app").start():
        client = HubClient(os.path.join(runtime.enter().directory, HUB_SOCKET))
        try:
            client.request(RequestKind.OVERVIEW, "").get(10.0)
            client.close()
            with pytest.raises(RuntimeGone, match="is closed"):
                client.request(RequestKind.OVERVIEW, "")
        finally:
            runtime.leave()


def test_a_child_that_is_removed_during_a_look_spoils_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = SupervisorInterface.which_children

    def list_and_remove(supervisor: SupervisorInterface) -> list[ChildLine]:
        lines = listed(supervisor)
        if supervisor.path == "app/pool":
            running.terminate_child("pool/a")
        return lines

    with Supervisor("app", DynamicSupervisor("pool")).start() as running:
        running.start_child(Child(Thread, id="a"), under="pool")
        monkeypatch.setattr(SupervisorInterface, "which_children", list_and_remove)
        program = runtime.current()
        assert program is not None
        [tree] = program.overview()["trees"]
        [child] = tree["children"][0]["children"]
        assert (child["path"], "restart" in child) == ("app/pool/a", False)


STOPPED_BESIDE = """
import threading
from suitkaise import Supervisor, Thread
from suitkaise.runtime import runtime as runtimes

class Idle(Thread): ...

trees = [Supervisor(name, Idle).start() for name in ("first", "second")]
begin, end_logs = threading.Event(), runtimes.Runtime.end_logs

def stop(tree):
    begin.wait()
    tree.stop()

stops = [threading.Thread(target=stop, args=(tree,), daemon=True) for tree in trees]
for thread in stops:
    thread.start()

def end_slowly(runtime, name):
    if threading.current_thread() is threading.main_thread() and name == "first":
        begin.set()
        for thread in stops:
            thread.join()
    end_logs(runtime, name)

runtimes.Runtime.end_logs = end_slowly
"""


def test_a_program_may_end_while_its_daemon_threads_stop_its_trees() -> None:
    ended = run_program(STOPPED_BESIDE).check()
    assert ended.stderr == ""

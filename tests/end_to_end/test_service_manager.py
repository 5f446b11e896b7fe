"""A fake service manager: what systemd is told of a tree that runs in the foreground."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suitkaise import Child, Process, Supervisor, Thread, TreeFailed, whereis
from suitkaise.events import Event
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.service_manager import ServiceManager
from tests.support import eventually, in_background, start_program

APP = """
import os, sys
from pathlib import Path
from suitkaise import Child, Command, Process, Supervisor

class Slow(Process):
    def on_start(self):
        self.wait(0.2)
        Path("up").write_text(str(os.getpid()))
        print("variables of the worker:", *self.ours(), flush=True)

    def ours(self):
        return sorted(name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_")))

    def loop(self):
        self.wait(1000)

    def on_finish(self):
        while not Path("may finish").exists():
            __import__("time").sleep(0.01)

command = Command("sh", "-c", "echo $NOTIFY_SOCKET$WATCHDOG_USEC. >command.txt; exec sleep 1000")
tree = Supervisor("app", Child(command, id="command"), Slow)
if "by itself" in sys.argv:
    tree.run()
"""


class Manager:
    """A socket that takes what a service tells."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._sock.settimeout(20)

    def next(self) -> str:
        return self._sock.recv(4096).decode()

    def expect(self, text: str) -> str:
        """Return the next message that holds the text."""
        seen = []
        try:
            while text not in (message := self.next()):
                seen.append(message)
        except TimeoutError:
            raise AssertionError(f"{text!r} was not told, but {seen}") from None
        return message

    def drain(self) -> list[str]:
        """Return what was told so far."""
        self._sock.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self.next())
        except BlockingIOError:
            self._sock.settimeout(20)
            return messages

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@suitkaise-test-{uuid.uuid4().hex}")
    yield manager
    manager.close()


@pytest.fixture
def one_manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.mark.parametrize("command", [["-m", "suitkaise", "run", "app.py"], ["app.py", "by itself"]])
def test_a_service_tells_when_it_is_up_what_changes_and_when_it_stops(
    manager: Manager, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"}
    with start_program([sys.executable, *command], cwd=tmp_path, env=variables) as program:
        assert manager.next() == "STATUS=starting"
        assert manager.next() == "READY=1\nSTATUS=2 workers"
        worker = int((tmp_path / "up").read_text())
        assert manager.expect("WATCHDOG") == "WATCHDOG=1"
        assert program.expect("variables of the worker").strip() == "variables of the worker:"
        assert eventually((tmp_path / "command.txt").read_text) == ".\n"
        os.kill(worker, signal.SIGKILL)
        assert manager.expect("app/slow is back").startswith("STATUS=2 workers; last: ")
        program.send_signal(signal.SIGTERM)
        assert manager.expect("STOPPING") == "STOPPING=1\nSTATUS=stopping: shutdown (signal 15 (SIGTERM))"
        assert program.returncode is None
        (tmp_path / "may finish").touch()
        assert program.wait() == 0
    assert not any("STOPPING" in message for message in manager.drain())


class Idle(Thread):
    def on_receive(self, message: str) -> str:
        return message


class Never(Process):
    def on_start(self) -> None:
        raise ValueError("no")


@contextlib.contextmanager
def started(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a tree in a thread of this program, with a watchdog of 0.4 s."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    ended = in_background(Supervisor("app", Idle).run)
    try:
        manager.expect("READY=1")
        yield
    finally:
        if (tree := runtime.running_trees().get("app")) is not None:
            tree.stop()
        ended.result(20)


def test_the_watchdog_is_told_again_and_again(one_manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(one_manager, monkeypatch):
        for _ in range(5):
            one_manager.expect("WATCHDOG=1")


def test_the_watchdog_is_told_although_a_status_cannot_be_made(
    one_manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(manager: ServiceManager, running: RunningTree) -> str:
        raise ZeroDivisionError("no status")

    with started(one_manager, monkeypatch):
        one_manager.expect("WATCHDOG=1")
        monkeypatch.setattr(ServiceManager, "_status", fail)
        whereis("app/idle").kill()  # which is news
        eventually(lambda: "no status" in caplog.text)
        one_manager.drain()
        for _ in range(3):
            one_manager.expect("WATCHDOG=1")


def block_the_io_thread(gate: threading.Event) -> None:
    now = runtime.current()
    assert now is not None
    now.reactor.call_soon_threadsafe(gate.wait)


def block_the_root(gate: threading.Event) -> None:
    now = runtime.current()
    assert now is not None

    def wait(event: Event) -> None:
        gate.wait()

    now.bus.subscribe(wait)
    runtime.running_trees()["app"].handles["idle"].kill("a test")


@pytest.mark.parametrize("block", [block_the_io_thread, block_the_root])
def test_the_watchdog_is_not_told_while_the_supervision_does_not_answer(
    block: Callable[[threading.Event], None],
    one_manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with started(one_manager, monkeypatch):
        one_manager.expect("WATCHDOG=1")
        gate = threading.Event()
        block(gate)
        try:
            eventually(lambda: caplog.text.count("is not told that 'app' is alive") > 0)
            one_manager.drain()
            silent = caplog.text.count("is not told that 'app' is alive")
            eventually(lambda: caplog.text.count("is not told that 'app' is alive") > silent + 2)
            assert "WATCHDOG=1" not in one_manager.drain()
        finally:
            gate.set()
        one_manager.expect("WATCHDOG=1")


def test_a_tree_that_cannot_start_is_never_ready(one_manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", one_manager.address)
    with pytest.raises(Exception, match="no"):
        Supervisor("app", Child(Never)).run()
    assert one_manager.drain() == ["STATUS=starting", "STOPPING=1"]


class Injecting(Process):
    def loop(self) -> None:
        raise ValueError("cannot parse:\nMAINPID=1\n" + "x" * 100_000)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_error_that_ends_a_tree_is_one_short_line_of_the_status(
    one_manager: Manager, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if at_once:
        watch = ServiceManager.watch

        def watch_late(manager: ServiceManager, running: RunningTree) -> None:
            assert running._ended.wait(20)
            watch(manager, running)

        monkeypatch.setattr(ServiceManager, "watch", watch_late)
    monkeypatch.setenv("NOTIFY_SOCKET", one_manager.address)
    with pytest.raises(TreeFailed):
        Supervisor("app", Injecting, max_restarts=0).run()
    stopping, status = one_manager.expect("STOPPING=1").split("\n")
    assert stopping == "STOPPING=1"
    assert status.startswith("STATUS=stopping: shutdown (gave up")
    assert "cannot parse:\\nMAINPID=1" in status
    assert len(status) < 400


def test_a_service_runs_without_its_manager_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    ended = in_background(Supervisor("app", Idle).run)
    eventually(lambda: "app" in runtime.running_trees() and runtime.running_trees()["app"].ready.done())
    runtime.running_trees()["app"].stop()
    assert ended.result(20).clean
    assert caplog.text.count("the service manager cannot be told") == 1


@pytest.mark.parametrize(
    "usec, pid, seconds",
    [("2000000", "", 1.0), ("2000000", str(os.getpid()), 1.0), ("2000000", "999999999", None), ("", "", None),
     ("0", "", None), ("soon", "", None)],
    ids=["for any", "for this one", "for another one", "none", "zero", "no number"],
)  # fmt: skip
def test_a_watchdog_that_is_meant_for_this_process_is_told_at_half_its_time(
    usec: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.setenv(name, value)
    manager = ServiceManager.from_environment()
    assert manager is not None
    assert manager._interval == seconds
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


def test_an_address_of_another_kind_is_refused_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    assert ServiceManager.from_environment() is None
    eventually(lambda: "neither a path nor an abstract socket" in caplog.text)


UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="a namespace for pids is not allowed here",
)
def test_s77_as_pid_1_the_program_below_the_init_process_speaks_for_the_service(
    one_manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "may finish").touch()
    variables = {"NOTIFY_SOCKET": one_manager.address, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}
    command = [*UNSHARE, sys.executable, "-m", "suitkaise", "run", "app.py"]
    with start_program(command, cwd=tmp_path, env=variables) as program:
        assert one_manager.expect("READY=1") == "READY=1\nSTATUS=2 workers"  # no MAINPID: its pid here is none there
        one_manager.expect("WATCHDOG=1")
        [init] = [one for one in program.relatives() if one.ppid() == program.pid]
        init.send_signal(signal.SIGTERM)
        one_manager.expect("STOPPING=1")
        assert program.wait() == 0

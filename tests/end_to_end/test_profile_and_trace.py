"""`suitkaise profile` and `suitkaise trace` against a tree that runs in another program."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Supervisor, Thread, cli
from suitkaise.cli import profile as profiles
from suitkaise.cli import programs
from suitkaise.engines import inspection
from suitkaise.engines.inspection import send_to_worker
from suitkaise.engines.worker_signals import PROFILE
from suitkaise.errors import SuitkaiseError
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from tests.support import Finished, Program, children_named, eventually, in_background, start_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

APP = """
import time
from suitkaise import Child, Command, Process, Supervisor, Thread, whereis

def compute():
    return sum(range(2000))

class Endless(Process):
    shutdown = 0.2
    def loop(self):
        while True:
            compute()

class Server(Process):
    def on_receive(self, message):
        if message == "crash":
            raise ValueError("as it was told")
        return message
    def add(self, one, other):
        return one + other

class Local(Thread):
    def loop(self):
        self.wait(0.01)
    def on_receive(self, message):
        return [message]

class Client(Process):
    def loop(self):
        whereis("NAME/server").ask({"number": self.current_loop})
        whereis("NAME/server").proxy().add(1, other=2).get()
        whereis("NAME/local").tell("hello")
        self.wait(0.05)

tree = Supervisor(
    "NAME", Endless(), Server(), Local(), Client(), Child(Command("sleep", "600"), id="command"), max_restarts=100,
)
with tree.start() as running:
    print("up", flush=True)
    running.wait()
"""


@dataclass
class App:
    """A program that runs a tree, and commands that are given to it in this process."""

    name: str
    program: Program

    def __call__(self, command: str, path: str, *args: str) -> Finished:
        output, errors = io.StringIO(), io.StringIO()
        words = [command, f"{self.name}/{path}".rstrip("/"), *args]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(words)
        return Finished(code, output.getvalue(), errors.getvalue(), [])

    def profile(self, path: str, *args: str, seconds: float = 0.3) -> Finished:
        return self("profile", path, "--seconds", str(seconds), *args)

    def reports(self, path: str, number: int) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in self("trace", path, "--json", "-n", str(number)).check().stdout.splitlines()
        ]

    def facts(self, path: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self("status", path, "--json").stdout)
        return facts

    def pid(self, path: str) -> int:
        return int(self.facts(path)["pid"])

    def settle(self) -> None:
        """Wait until the server runs, and the next process stands by, so that none is taken for a leak."""
        pid = eventually(lambda: self.facts("server")["pid"])
        keeper = psutil.Process(pid).parent()
        eventually(lambda: keeper is not None and children_named("sk:reserve", keeper))

    @contextlib.contextmanager
    def connection(self) -> Iterator[programs.Program]:
        running, _ = programs.running_programs()
        try:
            yield next(one for one in running if one.facts["pid"] == self.program.pid)
        finally:
            for one in running:
                one.close()

    def directory(self) -> str:
        with self.connection() as program:
            return program.directory


_numbers = itertools.count(1)


@contextlib.contextmanager
def looked_at(folder: Path) -> Iterator[App]:
    name = f"looked-{os.getpid()}-{next(_numbers)}"
    (folder / "app.py").write_text(APP.replace("NAME", name))
    with start_program([sys.executable, "app.py"], cwd=folder) as program:
        program.expect("up")
        app = App(name, program)
        app.settle()
        yield app
        program.send_signal(signal.SIGKILL)  # its keepers end the rest and remove its directory
        program.wait()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A program that the tests look at which end none of its workers."""
    with looked_at(tmp_path_factory.mktemp("app")) as app:
        yield app


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[App]:
    """A program for a test that ends workers: those that are started again would be taken for a leak."""
    with looked_at(tmp_path) as app:
        yield app


@pytest.fixture(autouse=True)
def no_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles.shutil, "which", lambda *args, **named: None)


# ---------------------------------------------------------------- profile
def test_a_worker_that_never_leaves_its_loop_is_profiled(app: App) -> None:
    head, _, _, first, *lines = app.profile("endless").check().stdout.splitlines()
    assert "sampled by its own program" in head
    assert "compute" in first or "compute" in lines[0]
    assert any("Endless.loop (" in line and "100.0%" in line for line in [first, *lines])
    assert all("keeper.py" not in line for line in lines)  # the machinery is left out
    assert psutil.Process(app.pid("endless")).is_running()


def test_a_thread_worker_and_the_whole_program_are_profiled(app: App) -> None:
    assert "Local.loop (" in app.profile("local").check().stdout
    whole = app.profile("").check().stdout
    assert f"{app.name}/local#1" in whole
    assert "MainThread" in whole


def test_the_program_tells_the_stacks_of_its_thread_workers_and_supervisors(app: App) -> None:
    local = app("stack", "local").check().stdout
    assert local.startswith(f"Thread '{app.name}/local#1' (most recent call first):")
    assert "in loop" in local
    assert local.count("most recent call first") == 1
    whole = json.loads(app("stack", "", "--json").check().stdout)
    assert whole["pid"] == app.program.pid
    for name in ("MainThread", f"suitkaise-{app.name}", f"{app.name}/local#1"):
        assert f"Thread '{name}' (most recent call first):" in whole["stacks"]


def test_the_stack_of_an_async_worker_in_a_thread_has_its_tasks() -> None:
    class Waiting(Thread):
        async def loop(self) -> None:
            await asyncio.sleep(0.05)

    with Supervisor("tree", Waiting).start() as running:

        def told() -> list[str]:
            text: str = router().request(RequestKind.STACKS, "tree/waiting").get()
            return text.split("\n\n")

        thread, task = eventually(lambda: both if "in loop" in (both := told())[-1] else None)
        assert thread.startswith("Thread 'tree/waiting#1' ")
        assert task.startswith("Task 'tree/waiting' ")
        running.terminate_child("waiting")
        assert eventually(lambda: told() == [""], what="its thread has ended")


def test_folded_stacks_and_a_file_for_speedscope(app: App) -> None:
    folded = app.profile("endless", "--format", "folded").check().stdout
    assert all(line.startswith("MainThread;") and line.rpartition(" ")[2].isdecimal() for line in folded.splitlines())
    whole = json.loads(app.profile("endless", "--format", "speedscope").check().stdout)
    (thread,) = whole["profiles"]
    assert len(thread["samples"]) == len(thread["weights"])
    assert thread["endValue"] == sum(thread["weights"])
    names = [frame["name"] for frame in whole["shared"]["frames"]]
    assert "Endless.loop" in [names[one] for one in thread["samples"][0]]
    assert json.loads(app.profile("local", "--json").check().stdout)["samples"] > 0


def test_what_cannot_be_profiled_is_told(app: App) -> None:
    command = app.profile("command")
    assert (command.returncode, "pip install py-spy" in command.stderr) == (2, True)
    with pytest.raises(SystemExit):
        app.profile("endless", seconds=0.0)
    with pytest.raises(SystemExit):
        app.profile("endless", "--rate", "0")


def test_a_worker_that_is_stopped_is_told_after_a_while(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "PATIENCE", 0.2)
    pid = app.pid("server")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "has not begun" in app.profile("server").stderr
    finally:
        os.kill(pid, signal.SIGCONT)


def test_without_an_observer_the_signal_does_nothing(app: App) -> None:
    pid = app.pid("server")
    os.kill(pid, PROFILE)
    assert app.reports("server", 2)
    assert app.pid("server") == pid


def test_observers_at_once_get_a_profile_each(app: App) -> None:
    pid, place = app.pid("server"), app.directory()
    profiles_made = [
        in_background(lambda seconds=seconds: inspection.profile_of(place, pid, seconds, 50.0))
        for seconds in (1.0, 0.2, 0.5)
    ]
    assert all(one.result(60)["stacks"] for one in profiles_made)
    assert not Path(inspection.profile_socket(place, pid)).exists()


def test_a_profile_ends_with_the_worker_or_with_the_one_who_wanted_it(own_app: App) -> None:
    app = own_app
    pid = app.pid("server")
    place = Path(inspection.profile_socket(app.directory(), pid))
    with socket.socket(socket.AF_UNIX) as listener:
        inspection.bind_unix(listener, place)
        listener.listen(1)
        os.kill(pid, PROFILE)
        worker = listener.accept()[0]
        threads = psutil.Process(pid).num_threads()
        worker.sendall(b'{"seconds": 600, "rate": 100}\n')
        worker.close()
    place.unlink()
    eventually(lambda: psutil.Process(pid).num_threads() < threads)

    def kill(*args: Any) -> bool:
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        return real(*args)

    real = inspection._readable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "_readable", kill)
        assert "has ended meanwhile" in app.profile("server", seconds=600.0).stderr


def test_py_spy_is_used_where_it_works(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text("""#!/bin/sh
while [ "$1" != --output ]; do shift; done
echo 'thread (0x7): MainThread;loop (/app.py:3);compute (/app.py:9) 12' > "$2"
""")
    spy.chmod(0o700)
    monkeypatch.setattr(profiles.shutil, "which", lambda *args, **named: str(spy))
    assert "sampled by py-spy" in app.profile("endless").check().stdout
    spy.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    refused = app.profile("endless").check()
    assert "Permission Denied; the worker samples itself" in refused.stderr
    assert "sampled by its own program" in refused.stdout
    assert "Permission Denied" in app.profile("command").stderr
    spy.write_text("#!/nowhere/sh\n")
    assert f"{spy}: No such file or directory; the worker samples itself" in app.profile("endless").check().stderr


# ---------------------------------------------------------------- trace
def test_the_messages_of_a_process_are_traced_with_sender_and_answer(app: App) -> None:
    reports = app.reports("server", 4)
    asks = [one for one in reports if one["kind"] == "ask"]
    assert asks[0]["sender"] == f"{app.name}/client"
    assert asks[0]["answer"] == asks[0]["message"]
    assert 0 <= asks[-1]["waited"] < 60  # it has come over a connection between the two workers
    calls = [one for one in reports if one["kind"] == "call"]
    assert (calls[0]["message"], calls[0]["answer"]) == ("add(1, other=2)", "3")


def test_the_messages_of_a_thread_are_traced_as_lines(app: App) -> None:
    lines = app("trace", "local", "-n", "2").check().stdout.splitlines()
    assert all(f"tell from {app.name}/client: 'hello'" in line and "ran" in line for line in lines)


def test_a_trace_follows_the_worker_through_its_restarts_and_ends_when_nobody_looks(own_app: App) -> None:
    app = own_app
    pid = app.pid("server")
    with app.connection() as program:
        path = f"{app.name}/server"
        last = program.client.request(programs.RequestKind.TRACE, path).get()["last"]
        seen: list[Any] = []

        def news() -> list[Any]:
            nonlocal last
            told = program.client.request(programs.RequestKind.TRACE, path, last).get(30)
            last = told["last"]
            seen.extend(told["reports"])
            return seen

        eventually(lambda: news()[-1]["number"] > 2)
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        eventually(lambda: any(one["number"] > other["number"] for one, other in itertools.pairwise(news())))  # anew
        pid = app.pid("server")
        threads = psutil.Process(pid).num_threads()
    eventually(lambda: psutil.Process(pid).num_threads() < threads, timeout=30)


def test_what_cannot_be_traced_is_told(app: App) -> None:
    whole = app("trace", "")
    assert (whole.returncode, "is a supervisor" in whole.stderr) == (2, True)
    command = app("trace", "command", "-n", "1")
    assert (command.returncode, "which takes no messages" in command.stderr) == (2, True)
    assert app("trace", "nobody").returncode == 2


def test_a_process_that_does_not_handle_the_signal_is_not_sent_it() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:  # the signal would end it
        try:
            with pytest.raises(SuitkaiseError, match="no worker's"):
                send_to_worker(process.pid, PROFILE)
            assert process.poll() is None
        finally:
            process.kill()

"""`suitkaise logs`: the last lines of all kinds of workers, and the next ones, from another program; and log files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from suitkaise import cli
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.platform.runtime_directory import HUB_SOCKET
from tests.support import Program, eventually, start_program

APP = """
import sys
from suitkaise import Child, Command, Process, Supervisor, Thread
from suitkaise.runtime import runtime

class Talks(Process):
    def on_receive(self, message):
        if message == "crash":
            raise ValueError("as it was told")
        if isinstance(message, int):
            for number in range(message):
                print("line", number)
        else:
            print("printed", message)
            sys.stderr.write(f"complained {message}\\n")
            self.log.warning(f"logged {message}", key=1)

class Idle(Thread):
    def on_receive(self, message):
        self.log.warning(f"thought {message}")

tree = Supervisor(
    "logged",
    Supervisor("jobs", Talks, Idle, max_restarts=50),
    Child(Command("sh", "-c", "echo out; echo err >&2; exec sleep 600"), id="sleeper"),
    log_dir=sys.argv[1] if len(sys.argv) > 1 else None,
)
if __name__ == "__main__":
    with tree.start() as running:
        print(runtime.current().directory, flush=True)
        path = ""
        while path != "end":
            with open("orders") as orders:
                for order in orders:
                    path, message = order.split()
                    if path != "end":
                        running[path].tell(int(message) if message.isdigit() else message)
"""


@dataclass
class App:
    program: Program
    folder: Path
    directory: str

    def tell(self, path: str, message: object) -> None:
        (self.folder / "orders").write_text(f"{path} {message}\n")

    def logs(self, arguments: str) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert cli.main(["logs", "--pid", str(self.program.pid), *arguments.split()]) == 0
        return output.getvalue()

    def lines_of(self, path: str) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in self.logs(f"--json {path} -n 100000").splitlines()]
        return [(line["stream"], line["line"]) for line in lines if line["stream"] != "event"]


@contextlib.contextmanager
def run_app(folder: Path, *options: str) -> Iterator[App]:
    (folder / "app.py").write_text(APP)
    os.mkfifo(folder / "orders")
    with start_program([sys.executable, "app.py", *options], cwd=folder) as program:
        yield App(program, folder, program.expect("/").strip())
        program.send_signal(signal.SIGKILL)  # its keepers end the rest
        program.wait()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A program that configures no logging, for all tests of this module that do not end it."""
    with run_app(tmp_path_factory.mktemp("app")) as app:
        yield app


def test_the_lines_of_processes_threads_and_commands_are_kept_with_their_streams(app: App) -> None:
    app.tell("jobs/talks", "this")
    app.tell("jobs/idle", "that")
    said = {("stdout", "printed this"), ("stderr", "complained this"), ("warning", "logged this key=1")}
    eventually(lambda: said <= set(app.lines_of("jobs/talks")), what="what a process has said")
    eventually(lambda: app.lines_of("jobs/idle") == [("warning", "thought that")], what="what a thread has said")
    eventually(
        lambda: app.lines_of("sleeper") == [("stdout", "out"), ("stderr", "err")], what="what a command has said"
    )


def test_a_line_is_tagged_with_path_incarnation_stream_and_time(app: App) -> None:
    lines = [json.loads(line) for line in app.logs("--json sleeper").splitlines()]
    told = [(line["path"], line["incarnation"], line["stream"], line["line"]) for line in lines]
    assert ("logged/sleeper", 1, "stderr", "err") in told
    (printed,) = [line for line in app.logs("-t sleeper").splitlines() if line.endswith(" err")]
    assert printed.startswith("20")


def test_a_reader_that_is_slow_is_told_how_many_lines_it_has_missed(app: App) -> None:
    client = HubClient(os.path.join(app.directory, HUB_SOCKET))
    with contextlib.closing(client):
        seen = client.request(RequestKind.LOGS, "logged/jobs/talks", {"last": 0}).get()["seen"]
        request = {"seen": seen, "reader": "slow"}
        waiting = client.request(RequestKind.LOGS, "logged/jobs/talks", request)
        app.tell("jobs/talks", "first")
        waiting.get(20)  # from now on the worker sends each line, before it can be overwritten
        eventually(lambda: "logged first" in app.logs("jobs/talks -n 1"), what="all of it is printed")
        seen = client.request(RequestKind.LOGS, "logged/jobs/talks", {"last": 0}).get()["seen"]
        waiting = client.request(RequestKind.LOGS, "logged/jobs/talks", request | {"seen": seen})
        app.tell("jobs/talks", 5000)
        first = waiting.get(20)
        seen |= first["seen"]
        count, skipped = len(first["lines"]), 0
        eventually(lambda: "line 4999" in app.logs("jobs/talks -n 1"), what="all is printed")
        while count + skipped < 5000:
            answer = client.request(RequestKind.LOGS, "logged/jobs/talks", request | {"seen": seen}).get(20)
            seen |= answer["seen"]
            count += len(answer["lines"])
            skipped += sum(answer["skipped"].values())
    assert (count + skipped, skipped > 0) == (5000, True)


def test_logs_are_followed_below_a_path_through_a_crash_until_the_tree_ends_and_files_have_the_same(
    tmp_path: Path,
) -> None:
    with run_app(tmp_path, "logs") as app:
        command = [sys.executable, "-m", "suitkaise", "logs", "-f", "--pid", str(app.program.pid), "logged"]
        with start_program(command) as follower:
            follower.expect("logged/sleeper: err")
            app.tell("jobs/talks", "this")
            follower.expect("logged/jobs/talks: printed this")
            follower.expect("logged/jobs/talks: warning: logged this key=1")
            app.tell("jobs/talks", "crash")
            follower.expect("logged/jobs/talks: event: is back")
            app.tell("jobs/talks", "that")
            follower.expect("logged/jobs/talks: printed that")
            app.tell("end", "now")
            assert (follower.wait(), app.program.wait()) == (0, 0)
            assert "logged: event: supervisor stopped" in follower.stdout
    talked = (tmp_path / "logs/logged/jobs/talks.log").read_text()
    parts = ("stdout: printed this", "ValueError in on_receive: as it was told", "is back", "printed that", "stopped: ")
    assert [part for part in parts if part not in talked] == []
    assert sorted(talked.index(part) for part in parts) == [talked.index(part) for part in parts]
    command = (tmp_path / "logs/logged/sleeper.log").read_text()
    assert " stdout: out\n" in command
    assert " stderr: err\n" in command

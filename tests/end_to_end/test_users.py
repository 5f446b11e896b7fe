"""Workers that run as another user, and programs and workers that change their user. Root must run this."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Command, Process, SpecError, Supervisor, Thread
from suitkaise.errors import StorageError
from tests.end_to_end.kinds import next_exit
from tests.sample_workers import Echo
from tests.support import eventually, send_signal

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


class Reports(Process):
    """Answers what it is and what it can do."""

    def on_start(self) -> None:
        self.seen = self.who()

    def who(self) -> tuple[Any, ...]:
        return os.getresuid(), os.getresgid(), os.getgroups(), os.environ.get("HOME")

    def on_receive(self, message: str) -> Any:
        match message:
            case "who":
                return self.seen, self.who()
            case "storage":
                self.tree.add("by", self.pid, path="users")
                return self.tree.get("by", path="users") == self.pid
            case "ask":
                return self.whereis("app/echo").ask("hello", timeout=15.0)
            case "secret":
                try:
                    Path("/etc/shadow").read_text()
                except PermissionError:
                    return "refused"
                return "read"
        raise ValueError(message)


def test_a_child_runs_as_its_user_from_on_start_on() -> None:
    with Supervisor("app", Child(Echo), Child(Reports, user="nobody")).start() as running:
        ref = running["reports"]
        at_start, now = ref.ask("who", timeout=15.0)
        assert at_start == now
        users, groups, others, home = now
        assert users == (NOBODY,) * 3
        assert groups == (NOBODY,) * 3
        assert others == [NOBODY]
        assert home == "/nonexistent"
        assert ref.ask("secret", timeout=15.0) == "refused"


def test_it_reaches_other_workers_and_the_storage_and_so_does_its_next_incarnation() -> None:
    with Supervisor("app", Child(Echo), Child(Reports, user="nobody")).start() as running, running.events() as events:
        for _ in range(2):
            ref = running["reports"]
            assert ref.ask("ask", timeout=15.0) == "hello"
            assert ref.ask("storage", timeout=15.0) is True
            send_signal(ref, signal.SIGKILL)
            next_exit(events)


class ConnectsAnew(Process):
    """Does to the storage what needs a connection that was not made when the worker was still root."""

    def on_receive(self, message: str) -> None:
        if message == "watch":
            self.tree.watch("users")
        with ThreadPoolExecutor(1) as executor:
            executor.submit(self.tree.add, "by", self.pid, path="users").result()


@pytest.mark.parametrize("what", ["watch", "write in a thread"])
def test_what_its_user_may_not_reach_is_an_error_at_once(what: str) -> None:
    with Supervisor("app", Child(ConnectsAnew, user="nobody", restart="temporary")).start() as running:
        with pytest.raises(StorageError, match="cannot be reached: Permission denied; this process runs as user 65534"):
            running["connects_anew"].ask(what, timeout=15.0)


class CrashesAsNobody(Process):
    restart = "temporary"

    def loop(self) -> None:
        print("the last words", flush=True)
        raise ValueError("a fault")


def test_its_crash_report_has_the_last_lines_and_the_error() -> None:
    with Supervisor("app", Child(CrashesAsNobody, user="nobody")).start() as running:
        [report] = eventually(running.crashes)
        assert "a fault" in str(report.reason)
        assert "the last words" in report.lines
        assert "ValueError: a fault" in report.traceback


def test_a_spare_becomes_the_user_too() -> None:
    child = Child(Reports, user="nobody", spares=1)
    with Supervisor("app", Child(Echo), child).start() as running, running.events() as events:
        for _ in range(3):
            assert running["reports"].ask("who", timeout=15.0)[1][0] == (NOBODY,) * 3
            send_signal(running["reports"], signal.SIGKILL)
            next_exit(events)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Child(Reports, user="no-such-user"), "there is no user 'no-such-user'"),
        (lambda: Child(Reports, user=1.5), "user must be the name or the number"),
        (lambda: Child(Reports, group="nogroup"), "needs a user="),
        (lambda: Child(Reports, user="nobody", group="no-such-group"), "there is no group"),
        (lambda: Child(Thread.of(print), user="nobody"), "a thread runs as the program"),
        (lambda: Child(Command("true"), user="nobody"), "use Command"),
        (lambda: Child(Supervisor("s"), user="nobody"), "each child has its own"),
    ],
)
def test_a_wrong_user_is_refused_where_it_is_declared(make: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        make()


class Drops(Process):
    """Gives up root itself, after it has used its refs and the storage, or without that."""

    def __init__(self, *, prepared: bool) -> None:
        self.prepared = prepared

    def on_start(self) -> None:
        if self.prepared:
            self.tree.open()
            self.whereis("app/echo").ask("hello", timeout=15.0)
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    def on_receive(self, message: str) -> Any:
        try:
            if message == "ask":
                return self.whereis("app/echo").ask("hello", timeout=15.0)
            self.tree.add("by", 1, path="users")
            return self.tree.get("by", path="users")
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def test_a_worker_that_gives_up_root_keeps_the_connections_that_it_has_made() -> None:
    with Supervisor("app", Child(Echo), Drops(prepared=True)).start() as running:
        assert running["drops"].ask("ask", timeout=15.0) == "hello"
        assert running["drops"].ask("storage", timeout=15.0) == 1


def test_a_worker_that_gives_up_root_before_it_has_connected_is_told_what_to_do() -> None:
    with Supervisor("app", Child(Echo), Drops(prepared=False)).start() as running:
        for message in ("ask", "storage"):
            answer = running["drops"].ask(message, timeout=15.0)
            assert answer.startswith("RuntimeGone: "), answer
            assert f"this process runs as user {NOBODY}" in answer
            assert "Child(user=...)" in answer

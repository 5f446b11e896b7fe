"""The private directory of a program is removed while it runs, as cleaners of temporary files do."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from suitkaise import Child, ChildStartFailed, Process, Supervisor
from suitkaise.platform.runtime_directory import HUB_SOCKET
from suitkaise.runtime import hub_server, runtime
from tests.end_to_end.kinds import next_exit
from tests.sample_workers import Echo
from tests.support import eventually, send_signal


class Calls(Process):
    """Asks another worker through the hub."""

    def on_receive(self, message: str) -> object:
        return self.whereis("app/echo").ask(message)


def home() -> Path:
    current = runtime.current()
    assert current is not None
    return Path(current.directory)


def test_workers_start_and_reach_each_other_after_the_directory_was_removed(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Child(Echo), Child(Calls, id="before")).start() as running, running.events() as events:
        shutil.rmtree(home())
        with caplog.at_level(logging.WARNING, "suitkaise"):
            send_signal(running["echo"], signal.SIGKILL)
            next_exit(events)
            assert running["echo"].ask("hello", timeout=15.0) == "hello"
            after = running.start_child(Child(Calls, id="after"))
            assert after.ask("from the new", timeout=15.0) == "from the new"
        assert running["before"].ask("from the old", timeout=15.0) == "from the old"
        eventually(lambda: "was removed; it is made anew" in caplog.text)
        assert home().is_dir()
        place = home()
    assert not place.exists()


def test_a_worker_starts_at_a_later_attempt_if_the_directory_could_not_be_made_anew_at_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(path: str) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    with Supervisor("app", Child(Echo)).start() as running:
        shutil.rmtree(home())
        with monkeypatch.context() as patched:
            patched.setattr(hub_server, "listen_unix", fail)
            for id in ("first", "second"):
                with pytest.raises(ChildStartFailed, match="too many open files"):
                    running.start_child(Child(Calls, id=id))
        assert running.start_child(Child(Calls, id="third")).ask("hello", timeout=15.0) == "hello"


def test_after_that_hangs_are_noticed_and_states_are_read_as_before() -> None:
    with Supervisor("app", Child(Echo)).start() as running, running.events() as events:
        shutil.rmtree(home())
        send_signal(running["echo"], signal.SIGKILL)
        next_exit(events)
        assert running["echo"].ask("hello", timeout=15.0) == "hello"
        eventually(lambda: running["echo"].status == "running")  # its supervisor hears of the start after the worker
        assert running.recall("echo")
        assert running["echo"].ask("again", timeout=15.0) == "again"


def test_a_directory_that_another_one_has_replaced_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Child(Echo)).start() as running:
        place = home()
        shutil.rmtree(place)
        place.mkdir()
        with pytest.raises(ChildStartFailed, match="was removed, and it cannot be made anew"):
            running.start_child(Child(Echo, id="second"))
        assert os.listdir(place) == []
        assert running["echo"].ask("hello") == "hello"
    assert place.is_dir(), "it is not ours"
    place.rmdir()
    assert HUB_SOCKET not in os.listdir(place.parent)

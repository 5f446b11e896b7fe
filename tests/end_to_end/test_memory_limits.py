"""Rule 83: a worker above its `max_memory` is restarted when its loop is over; at twice the limit it is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Command, Killed, Process, Supervisor
from suitkaise.events import ChildExited, ChildOverMemory, ChildRestarting, ChildStarted, ChildStopped
from suitkaise.supervision import memory_limit
from tests.end_to_end.kinds import next_event
from tests.support import eventually

MIB = 1 << 20
LIMIT = "100 MiB"
MORE, MUCH_MORE = 130, 400


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "INTERVAL", 0.05)


class Grows(Process):
    """The first incarnation uses much memory, and goes on with its loop until the test lets it end."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        self.mebibytes = mebibytes

    def loop(self) -> None:
        if self.ref.incarnation == 1:
            eventually((self.folder / "begin").exists, timeout=60)
            self.more = bytearray(self.mebibytes * MIB)
            self.note("grown")
            self.wait(1000)
            (self.folder / "stopping").touch()
            eventually((self.folder / "go on").exists, timeout=60)
            self.note("loop ends")
        self.wait(1000)

    def note(self, text: str) -> None:
        with (self.folder / "notes").open("a") as file:
            print(text, file=file)

    def on_finish(self) -> None:
        self.note("on_finish")


def test_s83_above_the_limit_a_worker_is_restarted_at_the_end_of_its_loop_and_that_is_not_counted(
    tmp_path: Path,
) -> None:
    child = Child(Grows, args=(tmp_path, MORE), id="w", max_memory=LIMIT, shutdown=60.0)
    with Supervisor("tree", child, max_restarts=0).start() as running, running.events() as events:
        (tmp_path / "begin").touch()
        over = next_event(events, ChildOverMemory)
        assert over.memory > 100 * MIB == over.max_memory
        assert "more than its max_memory of 100 MiB: it is restarted" in str(over)
        eventually((tmp_path / "stopping").exists)
        assert running["w"].incarnation == 1
        (tmp_path / "go on").touch()
        stopped = next_event(events, ChildStopped)
        assert stopped.reason is not None
        assert stopped.reason.clean
        assert next_event(events, ChildStarted).restarts == 1
        assert (tmp_path / "notes").read_text().split("\n") == ["grown", "loop ends", "on_finish", ""]
        assert running["w"].incarnation == 2
        assert running.crashes() == []
    assert not [one for one in iter(lambda: events.get(0), None) if isinstance(one, ChildOverMemory)]


class Idle(Process):
    def loop(self) -> None:
        self.wait(1000)


@pytest.mark.one_machine("this program is to read numbers of the test instead of the memory")
def test_s83_at_twice_the_limit_a_worker_is_killed_and_that_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([50 * MIB, 201 * MIB])  # a worker that really grows is also seen in between
    child = Child(Idle, id="w", max_memory=LIMIT, shutdown=60.0)
    with Supervisor("tree", child, max_restarts=1).start() as running, running.events() as events:
        monkeypatch.setattr(memory_limit, "memory_of", lambda pid: next(readings, 0))
        exited = next_event(events, ChildExited)
        assert isinstance(exited.reason, Killed)
        assert exited.reason.why == "it used 201.0 MiB, more than twice its max_memory of 100 MiB"
        assert next_event(events, ChildRestarting).used == 1
        assert next_event(events, ChildStarted).restarts == 1
        [report] = running.crashes()
        assert report.reason == str(exited.reason)


class GrowsWhileItStarts(Process):
    def on_start(self) -> None:
        if self.ref.incarnation == 1:
            self.more = bytearray(MUCH_MORE * MIB)
            self.wait(1000)


def test_s83_a_worker_that_grows_while_it_starts_is_killed_too() -> None:
    child = Child(GrowsWhileItStarts, id="w", max_memory=LIMIT)
    with pytest.raises(Exception, match=r"more than twice its max_memory of 100 MiB"):
        Supervisor("tree", child).start()


class HasAProgram(Process):
    def on_start(self) -> None:
        if self.ref.incarnation == 1:
            self.program = subprocess.Popen([sys.executable, "-c", program(MORE)])


def program(mebibytes: int) -> str:
    return f"import time; more = bytearray({mebibytes} << 20); time.sleep(1000)"


def test_s83_what_a_worker_has_started_counts_with_it() -> None:
    with Supervisor("tree", Child(HasAProgram, id="w", max_memory=LIMIT)).start() as running:
        eventually(lambda: running["w"].incarnation == 2 and running["w"].is_alive())


def test_s83_a_command_above_the_limit_is_restarted(tmp_path: Path) -> None:
    grows_once = (
        f"import pathlib, time; seen = pathlib.Path({str(tmp_path / 'seen')!r})\n"
        "first = not seen.exists(); seen.touch()\n"
        "while not seen.with_name('begin').exists(): time.sleep(0.01)\n"
        f"more = bytearray(first and {MORE} << 20); time.sleep(1000)"
    )
    child: Any = Child(Command(sys.executable, "-c", grows_once), id="w", max_memory=LIMIT)
    with Supervisor("tree", child, max_restarts=0).start() as running, running.events() as events:
        (tmp_path / "begin").touch()
        assert next_event(events, ChildOverMemory).path == "tree/w"
        assert next_event(events, ChildStarted).restarts == 1

"""What a worker adds is there in every other process at its next read; if it is so marked, until the worker ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Process, RunningTree, Supervisor, Thread, sktree, whereis
from suitkaise.storage.tree import Tree
from tests.support import eventually, run_program, start_program, wait_gone


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield sktree.connect()
    sktree.disconnect()


class Peer(Process):
    """Adds and reads on request."""

    def on_receive(self, message: tuple[str, Any]) -> Any:
        match message:
            case "add", value:
                self.tree.add(f"of-{self.copy}", value, path="sync")
            case "read", name:
                return self.tree.get(name, path="sync", default=None)
            case _:
                return self.tree.get_all_from("sync")
        return None


def test_what_one_of_four_processes_adds_the_others_read_next(tree: Tree) -> None:
    with Supervisor("peers", Child(Peer, copies=4)).start() as running:
        peers = [running[f"peer-{copy}"] for copy in range(4)]
        assert len({peer.pid for peer in peers} | {os.getpid()}) == 5
        for number in range(40):
            writer = number % 4
            value = {"number": number} if number % 2 else number
            peers[writer].ask(("add", value))
            assert [peer.ask(("read", f"of-{writer}")) for peer in peers] == [value] * 4
            assert tree.get(f"of-{writer}", path="sync") == value
        assert [peer.ask(("all", None)) for peer in peers] == [tree.get_all_from("sync")] * 4


def test_reading_what_others_have_added_takes_no_message_to_the_storage(tree: Tree) -> None:
    with Supervisor("peers", Child(Peer, copies=4)).start() as running:
        peers = [running[f"peer-{copy}"] for copy in range(4)]
        for peer in peers:
            peer.ask(("add", peer.pid))
        storage = whereis("sktree/storage").pid
        assert storage is not None
        os.kill(storage, signal.SIGSTOP)
        try:
            expected = {f"of-{copy}": peer.pid for copy, peer in enumerate(peers)}
            assert [peer.ask(("all", None)) for peer in peers] == [expected] * 4
        finally:
            os.kill(storage, signal.SIGCONT)


class Marks(Process):
    restart = "temporary"
    loop_timeout = 1.0

    def on_start(self) -> None:
        self.tree.add("marked", self.pid, path="sync", metadata=self.metadata)
        self.tree.add("kept", self.pid, path="sync")
        self.order = ""

    def on_receive(self, order: str) -> None:
        self.order = order

    def loop(self) -> None:
        match self.order:
            case "":
                self.wait(0.05)
            case "rejoin":
                self.rejoin()
            case "force_finish":
                self.force_finish()
            case "crash":
                raise ZeroDivisionError
            case "os._exit":
                os._exit(3)
            case "hang":
                while True:
                    signal.pause()


class MarksInThread(Thread):
    restart = "temporary"

    def on_start(self) -> None:
        self.tree.add("marked", 1, path="sync", metadata=self.metadata)
        self.tree.add("kept", 1, path="sync")

    def on_receive(self, order: str) -> None:
        if order == "rejoin":
            self.rejoin()
        raise ZeroDivisionError


def end(running: RunningTree, how: str) -> None:
    ref = running["marks"]
    match how:
        case "SIGKILL" | "SIGTERM":
            assert ref.pid is not None
            os.kill(ref.pid, getattr(signal, how))
        case "kill":
            ref.kill()
        case "terminate_child":
            running.terminate_child("marks")
        case "stop":
            running.stop()
        case _:
            ref.tell(how)


@pytest.mark.parametrize(
    "how",
    ["rejoin", "force_finish", "crash", "os._exit", "hang", "SIGKILL", "SIGTERM", "kill", "terminate_child", "stop"],
)
def test_marked_entries_are_gone_whichever_way_their_process_has_ended(tree: Tree, how: str) -> None:
    with Supervisor("app", Child(Marks, id="marks")).start() as running:
        assert tree.get("marked", path="sync") == running["marks"].pid
        end(running, how)
        eventually(lambda: not tree.exists("marked", path="sync"))
    assert list(tree.get_all_from("sync")) == ["kept"]


@pytest.mark.parametrize("how", ["rejoin", "crash", "terminate_child", "stop"])
def test_marked_entries_are_gone_whichever_way_their_thread_has_ended(tree: Tree, how: str) -> None:
    with Supervisor("app", Child(MarksInThread, id="marks")).start() as running:
        assert tree.exists("marked", path="sync")
        end(running, how)
        eventually(lambda: not tree.exists("marked", path="sync"))
    assert list(tree.get_all_from("sync")) == ["kept"]


PROGRAM = """
import sys
from suitkaise import Process, Supervisor, sktree

class Marks(Process):
    def on_start(self):
        self.tree.add("marked", 1, path="sync", metadata=self.metadata)
        self.tree.add("kept", 1, path="sync")
        print("marked by", self.pid)
    def loop(self):
        self.wait(60)

tree = sktree.connect(sys.argv[1], durable=True)
print("there:", sorted(tree.get_all_from("sync")))
if sys.argv[2:]:
    Supervisor("app", Marks).run()
"""


def test_a_killed_program_leaves_no_marked_entries_to_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    app = [sys.executable, "app.py", "state"]
    with start_program([*app, "run"], cwd=tmp_path) as program:
        worker = int(program.expect("marked by").split()[-1])
        assert Tree(tmp_path / "state").exists("marked", path="sync")
        os.kill(worker, signal.SIGSTOP)  # it cannot end by itself
        program.send_signal(signal.SIGKILL)
        program.wait()
        wait_gone(worker)
    assert run_program(app, cwd=tmp_path).check().stdout == "there: ['kept']\n"

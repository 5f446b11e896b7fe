"""Workers that iterate over a watch of the storage: the loop ends when the worker is asked to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise import Child, Process, Shutdown, Supervisor, Thread, sktree, whereis
from suitkaise.events import ChildStopped
from suitkaise.storage.tree import Tree
from tests.end_to_end.kinds import next_event
from tests.support import eventually, in_background

FOR_LONG = 600.0
"""Seconds; a worker that is not woken takes so long to stop."""


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield sktree.connect()
    sktree.disconnect()


def follow() -> None:
    """Note each change below `from`, and then that the loop has ended."""
    tree = sktree.connect()
    with tree.watch("from") as changes:
        tree.add("ready", value=True, path="to")
        for change in changes:
            tree.add(change.name, change.kind, path="to")
    tree.add("ended", value=True, path="to")


class FollowsInLoop:
    def loop(self) -> None:
        follow()


class FollowsInThread(Process):
    """Has a thread of its own that iterates, and two supervised ones do, too."""

    background = (follow,)

    def on_start(self) -> None:
        self.thread = threading.Thread(target=follow)
        self.thread.start()

    def loop(self) -> None:
        self.wait(FOR_LONG)

    def on_finish(self) -> None:
        self.thread.join()


class FollowsAsync(Process):
    async def loop(self) -> None:
        tree = sktree.connect()
        with tree.watch("from") as changes:
            tree.add("ready", value=True, path="to")
            async for change in changes:
                tree.add(change.name, change.kind, path="to")

    async def on_finish(self) -> None:
        sktree.connect().add("ended", value=True, path="to")


WORKERS: dict[str, Callable[[], Any]] = {
    "function in a process": lambda: Process.of(follow),
    "function in a thread": lambda: Thread.of(follow),
    "loop of a process": lambda: type("InProcess", (FollowsInLoop, Process), {}),
    "loop of a thread": lambda: type("InThread", (FollowsInLoop, Thread), {}),
    "threads of a process": lambda: FollowsInThread,
    "async loop of a process": lambda: FollowsAsync,
}


@pytest.mark.parametrize("kind", WORKERS)
def test_a_loop_over_a_watch_ends_when_its_worker_is_asked_to_stop(kind: str, tree: Tree) -> None:
    child = Child(WORKERS[kind](), id="w", shutdown=FOR_LONG)
    with Supervisor("tree", child).start() as running, running.events() as events:
        eventually(lambda: tree.exists("ready", path="to"))
        tree.add("a change", 1, path="from")
        eventually(lambda: tree.exists("a change", path="to"))
        in_background(running.stop).result(30)
        assert next_event(events, ChildStopped).reason == Shutdown()
        assert tree.get("ended", path="to")
        assert running["w"].status == "stopped"


def test_a_loop_over_a_watch_goes_on_after_the_storage_was_killed_and_ends_at_the_stop(tree: Tree) -> None:
    with Supervisor("tree", Child(Process.of(follow), id="w", shutdown=FOR_LONG)).start() as running:
        eventually(lambda: tree.exists("ready", path="to"))
        pid = whereis("sktree/storage").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        tree.add("later", 1, path="from")
        eventually(lambda: tree.exists("later", path="to"))
        in_background(running.stop).result(30)
        assert tree.get("ended", path="to")


@pytest.mark.parametrize("kind", [kind for kind in WORKERS if kind != "threads of a process"])
def test_a_loop_over_a_watch_ends_when_the_time_of_its_worker_is_over(kind: str, tree: Tree) -> None:
    child = Child(WORKERS[kind](), id="w", join_in=0.3, restart="temporary")
    with Supervisor("tree", child).start() as running:
        assert running["w"].join(30).clean
        assert tree.get("ended", path="to")


class WatchesAtItsEnd(Process):
    def on_start(self) -> None:
        self.called = threading.Event()
        sktree.connect().watch("from", lambda change: self.called.set())

    def loop(self) -> None:
        self.wait(FOR_LONG)

    def on_finish(self) -> None:
        tree = sktree.connect()
        with tree.watch("from") as changes:
            tree.add("ready", value=True, path="to")
            tree.add("got", changes.get(timeout=30).name, path="to")
        tree.add("called", self.called.wait(30), path="to")


def test_get_and_a_callback_get_changes_also_while_the_worker_finishes(tree: Tree) -> None:
    with Supervisor("tree", Child(WatchesAtItsEnd, id="w", shutdown=FOR_LONG)).start() as running:
        stopping = in_background(running.stop)
        eventually(lambda: tree.exists("ready", path="to"))
        tree.add("at last", 1, path="from")
        stopping.result(30)
        assert tree.get("got", path="to") == "at last"
        assert tree.get("called", path="to")

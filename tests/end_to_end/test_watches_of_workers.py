"""Workers that iterate over a watch of the storage: the loop ends when the worker is asked to stop."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise import Child, Process, Shutdown, Supervisor, Thread, sktree, whereis
from suitkaise.events import ChildStopped
from suitkaise.messaging.mailbox import URGENT
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.route import _is_unread
from suitkaise.messaging.router import router
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


class FollowsInPlainLoopOfAsync(Process):
    async def on_start(self) -> None: ...

    def loop(self) -> None:
        follow()


async def follow_async() -> None:
    """Do the same in two tasks of an event loop; the second one notes no changes."""

    async def note_nothing() -> None:
        with sktree.connect().watch("from") as changes:
            async for _ in changes:
                pass

    tree = sktree.connect()
    with tree.watch("from") as changes:
        second = asyncio.create_task(note_nothing())
        tree.add("ready", value=True, path="to")
        async for change in changes:
            tree.add(change.name, change.kind, path="to")
    await second
    tree.add("ended", value=True, path="to")


class RunsAnEventLoop:
    def loop(self) -> None:
        asyncio.run(follow_async())


WORKERS: dict[str, Callable[[], Any]] = {
    "function in a process": lambda: Process.of(follow),
    "function in a thread": lambda: Thread.of(follow),
    "loop of a process": lambda: type("InProcess", (FollowsInLoop, Process), {}),
    "loop of a thread": lambda: type("InThread", (FollowsInLoop, Thread), {}),
    "threads of a process": lambda: FollowsInThread,
    "async loop of a process": lambda: FollowsAsync,
    "plain loop of an async worker": lambda: FollowsInPlainLoopOfAsync,
    "event loop in a process": lambda: type("RunsInProcess", (RunsAnEventLoop, Process), {}),
    "event loop in a thread": lambda: type("RunsInThread", (RunsAnEventLoop, Thread), {}),
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


class FollowsAlone(Process):
    """Has no handler for messages, and reads none while it follows."""

    def loop(self) -> None:
        follow()


@pytest.mark.parametrize("kind", [FollowsAlone, FollowsInPlainLoopOfAsync])
def test_a_message_that_comes_meanwhile_does_not_hide_the_stop(kind: Any, tree: Tree) -> None:
    with Supervisor("tree", Child(kind, id="w", shutdown=FOR_LONG)).start() as running:
        eventually(lambda: tree.exists("ready", path="to"))
        hub = router()
        assert isinstance(hub, Registry)
        handle: Any = hub.find("tree/w").receiver
        running["w"].tell("a message")
        eventually(lambda: not _is_unread(handle.process._buffer.sock), what="the worker was woken")
        in_background(running.stop).result(30)
        assert tree.get("ended", path="to")


GATE = "gate"


class FollowsSlowly(Process):
    """Waits, for each change but the first one, until the program has ordered the stop."""

    def loop(self) -> None:
        tree = sktree.connect()
        seen = 0
        with tree.watch("from") as changes:
            tree.add("ready", value=True, path="to")
            eventually(lambda: tree.exists(GATE, path="from"))
            for _ in changes:
                seen += 1
                tree.add("seen", seen, path="to")
                eventually(lambda: self._context.stop_reason is not None or self._mailbox_rings)

    @property
    def _mailbox_rings(self) -> bool:
        return bool(self._context._mailbox.bell[0] & 0xFF == URGENT)


def test_the_stop_comes_before_changes_that_are_known_already(tree: Tree) -> None:
    with Supervisor("tree", Child(FollowsSlowly, id="w", shutdown=FOR_LONG)).start() as running:
        eventually(lambda: tree.exists("ready", path="to"))
        for number in range(20):
            tree.add(str(number), number, path="from")
        tree.add(GATE, value=True, path="from")
        eventually(lambda: tree.exists("seen", path="to"))
        in_background(running.stop).result(30)
        assert tree.get("seen", path="to") == 1


class Forks(Process):
    def on_start(self) -> None:
        self.child = multiprocessing.get_context("fork").Process(target=self.follow_in_fork)
        self.child.start()

    def follow_in_fork(self) -> None:
        try:
            follow()
        except BaseException as error:
            sktree.connect().add("error", repr(error), path="to")

    def on_receive(self, message: Any) -> Any:
        return message

    def on_finish(self) -> None:
        self.child.kill()
        self.child.join()


class WaitsInFork(Forks):
    def follow_in_fork(self) -> None:
        tree = sktree.connect()
        tree.add("ready", value=True, path="to")
        try:
            while not tree.exists("a change", path="from"):
                self.wait(0.001)
            tree.add("a change", 1, path="to")
        except BaseException as error:
            tree.add("error", repr(error), path="to")


@pytest.mark.parametrize("kind", [Forks, WaitsInFork])
def test_a_forked_child_of_a_worker_waits_and_leaves_the_orders_to_its_parent(kind: Any, tree: Tree) -> None:
    with Supervisor("tree", Child(kind, id="w")).start() as running:
        eventually(lambda: tree.exists("ready", path="to"))
        for number in range(100):
            assert running["w"].ask(number, timeout=30) == number
        tree.add("a change", 1, path="from")
        eventually(lambda: tree.exists("a change", path="to") or tree.exists("error", path="to"))
        assert not tree.exists("error", path="to")


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

"""Rule 60: monitors and links between workers, across processes and threads."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    Crashed,
    Down,
    Killed,
    LinkedExit,
    Lost,
    Monitor,
    Normal,
    Process,
    Shutdown,
    Signaled,
    Supervisor,
    Thread,
    WorkerRef,
    whereis,
)
from suitkaise.events import ChildExited
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import next_event, wait_for_incarnation
from tests.end_to_end.scene import stop
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Linking(Worker):
    """Monitors, links, sends or ends as a message names; collects all other messages."""

    def on_start(self) -> None:
        self.received: list[Any] = []
        self.monitors: list[Monitor] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case ("monitor", path):
                self.monitors.append(self.monitor(whereis(path)))
            case ("monitor the ref", ref):
                self.monitors.append(self.monitor(ref))
            case "demonitor":
                self.demonitor(self.monitors[-1])
            case ("monitor, end and demonitor", path):
                monitor = self.monitor(whereis(path))
                ended = whereis(path).monitor()
                whereis(path).kill()
                ended.get(15)
                self.demonitor(monitor)
            case ("await", path):
                self.awaited = whereis(path).monitor()
            case "cancel":
                self.awaited.cancel()
            case ("link", path):
                self.link(whereis(path))
            case ("unlink", path):
                self.unlink(whereis(path))
            case "received":
                return self.received
            case "leave":
                self.rejoin()
            case "crash":
                raise ValueError("a crash on request")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case ("pass on", number):
                whereis("tree/a").tell(("passed on", number))
            case "send many and die":
                for number in range(100):
                    whereis("tree/a").tell(("from b", number))
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                self.received.append(message)
        return None


class InProcess(Linking, Process):
    pass


class InThread(Linking, Thread):
    pass


class TrapsInProcess(Linking, Process):
    trap_exits = True


class TrapsInThread(Linking, Thread):
    trap_exits = True


PAIRS = {
    "process, process": (InProcess, InProcess),
    "process, thread": (InProcess, InThread),
    "thread, process": (InThread, InProcess),
    "thread, thread": (InThread, InThread),
}
pairs = pytest.mark.parametrize("kinds", PAIRS.values(), ids=list(PAIRS))


def two(kinds: tuple[type, type], **options: Any) -> RunningTree:
    options = {"restart": "permanent"} | options
    children = [Child(kind, id=id, **options) for kind, id in zip(kinds, "ab", strict=True)]
    return Supervisor("tree", *children, max_restarts=99).start()


def received(running: RunningTree, id: str = "a", number: int = 1) -> list[Any]:
    eventually(lambda: len(running[id].ask("received")) >= number, what=f"{id} gets {number} messages")
    messages: list[Any] = running[id].ask("received")
    return messages


def watcher_entries() -> int:
    """Return how many entries the hub keeps for links and monitors."""
    now = runtime.current()
    return 0 if now is None else sum(len(address.watchers) for address in now.registry._addresses.values())


# ------------------------------------------------------------ monitors
class Deaf(Process):
    restart = "temporary"

    def on_start(self) -> None:
        self.monitor(self.ref)


def test_s60_a_worker_without_on_receive_cannot_monitor_as_nothing_would_get_the_message() -> None:
    with Supervisor("tree").start() as running:
        with pytest.raises(ChildStartFailed, match=r"Deaf.monitor\(\) needs an on_receive that gets the Down"):
            running.start_child(Deaf)


@pairs
def test_s60_a_monitor_reports_a_crash_once(kinds: tuple[type, type]) -> None:
    with two(kinds) as running:
        running["a"].ask(("monitor", "tree/b"))
        running["b"].tell("crash")
        (down,) = received(running)
        assert isinstance(down, Down)
        assert (down.ref, isinstance(down.reason, Crashed)) == (running["b"], True)
        wait_for_incarnation(running, "b")
        running["b"].tell("crash")  # the monitor belonged to the incarnation before
        wait_for_incarnation(running, "b", 3)
        assert len(received(running)) == 1
        assert watcher_entries() == 0


@pairs
def test_s60_a_monitor_reports_a_clean_end_and_a_requested_stop(kinds: tuple[type, type]) -> None:
    with two(kinds, restart="transient") as running:
        running["a"].ask(("monitor", "tree/b"))
        running["b"].tell("leave")
        assert [down.reason for down in received(running)] == [Normal()]
        running.restart_child("b")
        running["a"].ask(("monitor", "tree/b"))
        running.terminate_child("b")
        assert [down.reason for down in received(running, number=2)] == [Normal(), Shutdown()]


def test_s60_each_monitor_sends_a_message_of_its_own_with_its_reference() -> None:
    with two((InProcess, InProcess)) as running:
        for _ in range(3):
            running["a"].ask(("monitor", "tree/b"))
        running["b"].kill()
        downs = received(running, number=3)
        assert len({down.monitor for down in downs}) == 3
        assert [type(down.reason) for down in downs] == [Killed] * 3


def test_s60_a_monitor_of_an_ended_worker_reports_at_once() -> None:
    with two((InProcess, InProcess), restart="temporary") as running:
        ref = running["b"]
        running["b"].tell("die")
        ref.join(15)
        running["a"].ask(("monitor the ref", ref))
        (down,) = received(running)
        assert (down.ref, down.reason) == (ref, Lost("no incarnation was alive"))


def test_s60_a_monitor_of_a_stopped_child_reports_the_last_reason() -> None:
    with two((InThread, InProcess)) as running:
        running.terminate_child("b")
        running["a"].ask(("monitor", "tree/b"))
        assert [down.reason for down in received(running)] == [Shutdown()]


@pairs
def test_s60_after_demonitor_no_message_arrives(kinds: tuple[type, type]) -> None:
    with two(kinds) as running:
        running["a"].ask(("monitor", "tree/b"))
        running["a"].ask("demonitor")
        running["a"].ask("demonitor")
        assert watcher_entries() == 0
        running["b"].tell("crash")
        wait_for_incarnation(running, "b")
        assert running["a"].ask("received") == []


@pairs
def test_s60_demonitor_drops_a_message_that_is_on_its_way(kinds: tuple[type, type]) -> None:
    with two(kinds) as running:
        running["a"].ask(("monitor, end and demonitor", "tree/b"))
        wait_for_incarnation(running, "b")
        assert running["a"].ask("received") == []


def test_s60_the_monitors_of_a_watcher_end_with_it() -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("monitor", "tree/b"))
        assert watcher_entries() == 2
        running["a"].kill()
        wait_for_incarnation(running, "a")
        assert watcher_entries() == 0
        running["b"].kill()
        wait_for_incarnation(running, "b")
        assert running["a"].ask("received") == []


def test_s60_the_last_messages_of_a_worker_arrive_before_its_down_message() -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("monitor", "tree/b"))
        running["b"].tell("send many and die")
        messages = received(running, number=101)
        assert messages[:100] == [("from b", number) for number in range(100)]
        assert isinstance(messages[100], Down)


@pytest.mark.parametrize("before", [0, 3])
def test_s60_the_last_messages_arrive_first_also_at_a_watcher_that_reads_all_at_once(before: int) -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("monitor", "tree/b"))
        for number in range(before):  # so that b has a connection with a
            running["b"].tell(("pass on", number))
        received(running, number=before)
        pid = running["a"].pid
        assert pid is not None
        stop(pid)
        try:
            running["b"].tell("send many and die")
            wait_for_incarnation(running, "b")
        finally:
            os.kill(pid, signal.SIGCONT)
        messages = received(running, number=before + 101)
        assert messages[before : before + 100] == [("from b", number) for number in range(100)]
        assert isinstance(messages[-1], Down)


def test_s60_a_supervisor_can_be_monitored() -> None:
    inner = Supervisor("inner", Child(InProcess, id="b"), max_restarts=0)
    with Supervisor("tree", Child(InProcess, id="a"), inner).start() as running:
        running["a"].ask(("monitor", "tree/inner"))
        running["inner/b"].tell("die")
        (down,) = received(running)
        assert isinstance(down.reason, Shutdown)
        assert down.ref == whereis("tree/inner")


def test_s60_the_program_can_await_the_end_of_a_worker_by_its_ref() -> None:
    with two((InProcess, InProcess)) as running:
        answer = running["b"].monitor()
        assert not answer.done()
        running["b"].tell("die")
        assert answer.get(15) == Down(running["b"], Signaled(9))
        running.terminate_child("b")
        assert running["b"].monitor().get(1).reason == Shutdown()


@pytest.mark.parametrize("why", ["cancel", "die"])
def test_s60_nothing_is_kept_of_a_monitor_by_ref_that_is_cancelled_or_whose_worker_ends(why: str) -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("await", "tree/b"))
        eventually(lambda: watcher_entries() == 1)
        running["a"].tell(why)
        eventually(lambda: watcher_entries() == 0)


# ------------------------------------------------------------ links
@pairs
@pytest.mark.parametrize("ended", ["a", "b"])
@pytest.mark.may_leave("thread tree/*")
def test_s60_an_abnormal_end_of_a_worker_ends_the_linked_one(kinds: tuple[type, type], ended: str) -> None:
    with two(kinds) as running:
        running["a"].ask(("link", "tree/b"))
        running["a"].ask(("link", "tree/b"))
        running[ended].tell("crash")
        wait_for_incarnation(running, "a")
        wait_for_incarnation(running, "b")
        other = "b" if ended == "a" else "a"
        reason = {line.id: line.last_exit for line in running.which_children()}[other]
        assert isinstance(reason, Killed)
        assert str(reason).startswith(f"killed (linked to 'tree/{ended}', which ended: ValueError")
        assert watcher_entries() == 0


def test_s60_a_clean_end_does_not_end_the_linked_worker() -> None:
    with two((InProcess, InProcess), restart="transient") as running:
        running["a"].ask(("link", "tree/b"))
        running["b"].tell("leave")
        eventually(lambda: running["b"].status == "finished")
        assert running["a"].ask("received") == []
        running.restart_child("b")
        running["a"].ask(("link", "tree/b"))
        running.terminate_child("b")
        assert running["a"].ask("received") == []
        assert running["a"].incarnation == 1
        assert watcher_entries() == 0


@pytest.mark.parametrize("kind", [TrapsInProcess, TrapsInThread])
def test_s60_a_worker_that_traps_exits_gets_a_message_for_every_end_and_runs_on(kind: type) -> None:
    with two((kind, InProcess), restart="permanent") as running:
        for number, (end, expected) in enumerate((("die", Signaled(9)), ("leave", Normal())), 1):
            running["a"].ask(("link", "tree/b"))
            running["b"].tell(end)
            assert received(running, number=number)[-1] == LinkedExit(running["b"], expected)
            wait_for_incarnation(running, "b", number + 1)
        assert running["a"].incarnation == 1


def test_s60_linking_to_a_worker_that_does_not_exist_is_an_abnormal_end() -> None:
    with two((InProcess, InProcess)) as running:
        running.terminate_child("b")
        running["a"].tell(("link", "tree/b"))
        wait_for_incarnation(running, "a")
        assert "no incarnation was alive" in str(running.which_children()[0].last_exit)


class LinksItselfToNobody(Linking):
    def on_start(self) -> None:
        self.link(WorkerRef("tree/nobody"))


class LinksItselfToNobodyInProcess(LinksItselfToNobody, Process): ...


class LinksItselfToNobodyInThread(LinksItselfToNobody, Thread): ...


@pytest.mark.parametrize("worker", [LinksItselfToNobodyInProcess, LinksItselfToNobodyInThread])
def test_s60_s10_a_worker_that_a_link_ends_in_its_on_start_has_failed_to_start(worker: type[Linking]) -> None:
    with Supervisor("tree", max_restarts=0).start() as running:
        for _ in range(5):  # also where `on_start` has returned before the hub knows the thread
            with pytest.raises(ChildStartFailed, match="linked to 'tree/nobody'"):
                running.start_child(Child(worker, id="a"))
        assert running.which_children() == []


def test_s60_after_unlink_the_end_of_one_worker_does_not_end_the_other() -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("link", "tree/b"))
        running["b"].ask(("unlink", "tree/a"))  # either worker may remove the link
        assert watcher_entries() == 0
        running["b"].kill()
        wait_for_incarnation(running, "b")
        assert running["a"].incarnation == 1


def test_s60_a_worker_may_link_to_itself_which_changes_nothing() -> None:
    with two((InProcess, InProcess)) as running:
        running["a"].ask(("link", "tree/a"))
        assert watcher_entries() == 0


@pytest.mark.parametrize("ring", [False, True], ids=["chain", "ring"])
def test_s60_an_end_spreads_along_a_chain_and_around_a_ring_once(ring: bool) -> None:
    ids = [f"w{number}" for number in range(6)]
    tree = Supervisor("tree", *(Child(InProcess, id=id) for id in ids), max_restarts=20)
    with tree.start() as running:
        for one, next_one in itertools.pairwise(ids):
            running[one].ask(("link", f"tree/{next_one}"))
        if ring:
            running[ids[-1]].ask(("link", f"tree/{ids[0]}"))
        running["w2"].tell("die")
        for id in ids:
            wait_for_incarnation(running, id)
        assert [line.restarts for line in running.which_children()] == [1] * 6
        assert watcher_entries() == 0


@pytest.mark.parametrize("worker", [InProcess, InThread])
def test_s60_s33_the_supervisor_learns_of_an_end_before_those_that_links_make_of_it(worker: type[Linking]) -> None:
    children = [Child(worker, id=id) for id in "abc"]
    tree = Supervisor("tree", *children, strategy="rest_for_one", max_restarts=1)
    with tree.start() as running:
        running["b"].ask(("link", "tree/a"))
        running["c"].ask(("link", "tree/b"))
        with running.events() as happened:
            running["a"].tell("crash")
            assert next_event(happened, ChildExited).path == "tree/a"
            for id in "abc":
                wait_for_incarnation(running, id)
    assert running.wait(15) == Shutdown("stop")  # it did not give up: that was one restart


def test_s60_a_worker_that_does_not_run_can_neither_monitor_nor_link() -> None:
    calls: list[Callable[[Any], Any]] = [InProcess().monitor, InProcess().link, InProcess().unlink]
    for call in calls:
        with pytest.raises(RuntimeError, match="for a running worker"):
            call(None)


# ------------------------------------------------------------ who traps exits
class TrapsInConstructor(Linking, Process):
    def __init__(self) -> None:
        self.trap_exits = True


class TrapsInOnStart(Linking, Process):
    def on_start(self) -> None:
        super().on_start()
        self.trap_exits = True


class TrapsInOnStartOfAThread(Linking, Thread):
    def on_start(self) -> None:
        super().on_start()
        self.trap_exits = True


class TrapsForAWhile(Linking, Process):
    def on_receive(self, message: Any) -> Any:
        if isinstance(message, bool):
            self.trap_exits = message
            return self.trap_exits
        return super().on_receive(message)


class Trapping:
    trap_exits = True


class TrapsByAMixin(Trapping, Linking, Process):
    pass


class TrapsByAMixinInAThread(Trapping, Linking, Thread):
    pass


@pytest.mark.parametrize("kind", [TrapsByAMixin, TrapsByAMixinInAThread])
def test_s60_a_worker_traps_exits_by_a_mixin(kind: type) -> None:
    with two((kind, InProcess)) as running:
        running["a"].ask(("link", "tree/b"))
        running["b"].tell("die")
        assert received(running) == [LinkedExit(running["b"], Signaled(9))]
        assert running["a"].incarnation == 1


@pytest.mark.parametrize("kind", [TrapsInConstructor, TrapsInOnStart, TrapsInOnStartOfAThread])
def test_s60_a_worker_may_trap_exits_by_an_assignment(kind: type) -> None:
    with two((kind, InProcess)) as running:
        running["a"].ask(("link", "tree/b"))
        running["b"].tell("die")
        assert received(running) == [LinkedExit(running["b"], Signaled(9))]
        assert running["a"].incarnation == 1


def test_s60_a_worker_may_trap_exits_for_a_while() -> None:
    with two((TrapsForAWhile, InProcess)) as running:
        assert running["a"].ask(True) is True
        running["a"].ask(("link", "tree/b"))
        running["b"].tell("die")
        assert received(running) == [LinkedExit(running["b"], Signaled(9))]
        wait_for_incarnation(running, "b")
        assert running["a"].ask(False) is False
        running["a"].ask(("link", "tree/b"))
        running["b"].tell("die")
        wait_for_incarnation(running, "a")


@pytest.mark.parametrize("supervisor", ["tree", "tree/inner"])
def test_s60_a_supervisor_traps_exits(supervisor: str) -> None:
    inner = Supervisor("inner", Child(InProcess, id="x"))
    with Supervisor("tree", inner, Child(InProcess, id="a"), max_restarts=9).start() as running:
        pid = running["inner/x"].pid
        running["a"].ask(("link", supervisor))
        running["a"].tell("die")
        wait_for_incarnation(running, "a")
        assert running["inner/x"].pid == pid
        assert running.status().status == "running"

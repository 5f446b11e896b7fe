"""Trees whose workers or nodes end: exact reasons, lost nodes, places, and what cannot be started."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    Crashed,
    ExitCode,
    Hung,
    Lost,
    Place,
    Ray,
    Shutdown,
    Signaled,
    SpecError,
    SuitkaiseError,
    Supervisor,
    WorkerDead,
)
from suitkaise.cluster.protocol import Exited
from suitkaise.cluster.remote_node import RemoteNode
from suitkaise.events import ChildExited, ChildRestarting, NodeLost
from suitkaise.platform import death_lock
from tests.cluster.processes import NodeInProcess, ProcessCluster
from tests.cluster.workers import AsksAtItsStart, Member, ended, nodes
from tests.support import eventually, in_background, send_signal, wait_gone

MakeCluster = Callable[..., ProcessCluster]


def test_the_reason_of_an_end_is_exact_and_the_worker_is_recalled_on_its_node(cluster: MakeCluster) -> None:
    cluster("a")
    worker = Child(Member, id="one", receive_timeout=1.0)
    with Supervisor("app", worker, max_restarts=10, engine=Ray()).start() as running:
        ref = running["one"]
        ref.ask(("keep", {"so far": 3}), timeout=30.0)
        before = nodes(running)
        assert ended(running, lambda: send_signal(ref, signal.SIGKILL)) == Signaled(signal.SIGKILL)
        assert eventually(lambda: ref.is_alive())
        assert nodes(running) == before
        recalled = ref.ask("who", timeout=30.0)[2]
        assert (recalled.attempt, recalled.reason, recalled.checkpoint) == (1, Signaled(9), {"so far": 3})
        assert ended(running, lambda: ref.tell(("exit", 3))) == ExitCode(3)
        crashed = ended(running, lambda: ref.tell("raise"))
        assert isinstance(crashed, Crashed)
        assert repr(crashed.error) == "LookupError('on purpose')"
        assert "in on_receive" in crashed.traceback

        def ask_for_an_error() -> None:
            with pytest.raises(LookupError, match="on purpose"):
                ref.ask("raise", timeout=30.0)

        assert isinstance(ended(running, ask_for_an_error), Crashed)
        eventually(ref.is_alive)
        hung = ended(running, lambda: ref.tell("hang"))
        assert isinstance(hung, Hung)
        assert hung.phase == "on_receive"
        assert "in on_receive" in hung.stack
        reports = eventually(lambda: len(found := running.crashes()) == 5 and found)
        assert {report.node for report in reports} == {"a"}
        assert " on the node a, incarnation " in str(reports[0])
        assert ref.ask("still there", timeout=30.0) == "still there"


def test_a_stop_runs_on_finish_and_leaves_nothing(cluster: MakeCluster, tmp_path: Path) -> None:
    cluster("a")
    record = tmp_path / "record"
    tree = Supervisor("app", *(Child(Member(record), id=f"member-{n}") for n in range(3)), engine=Ray())
    with tree.start() as running:
        pids = [running[f"member-{n}"].pid or 0 for n in range(3)]
        running.terminate_child("member-1")
        assert record.read_text().count("finish") == 1
        running.restart_child("member-1")
    for pid in pids:
        wait_gone(pid)
    assert [line.split()[1] for line in record.read_text().splitlines()].count("finish") == 4
    assert running.wait() == Shutdown("stop")


def test_a_lost_node_counts_for_nothing_and_its_workers_start_elsewhere(cluster: MakeCluster) -> None:
    nodes_of = cluster("a", "b")
    tree = Supervisor("app", Child(Member, id="one"), Child(Member, id="two"), max_restarts=0, engine=Ray())
    with tree.start() as running, running.events() as events:
        at = nodes(running)["one"]
        first = running["one"].pid or 0
        del nodes_of.alive[at]  # the machine does not come back
        nodes_of.on(at).process.kill()
        lost = next(event for event in events if isinstance(event, NodeLost))
        assert (lost.node, lost.workers) == (at, 1)
        reason = next(event for event in events if isinstance(event, ChildExited)).reason
        assert isinstance(reason, Lost)
        assert reason.node == at
        assert not psutil.pid_exists(first)
        assert eventually(lambda: running["one"].is_alive())
        recalled = running["one"].ask("who", timeout=30.0)[2]
        assert isinstance(recalled.reason, Lost)
        assert at in str(recalled.reason)
        assert set(nodes(running).values()) == {"b" if at == "a" else "a"}


def test_a_lost_node_is_one_incident_for_a_group_and_messages_wait(cluster: MakeCluster, tmp_path: Path) -> None:
    nodes_of = cluster("a")
    record = tmp_path / "record"
    members = [Child(Member(record), id=f"member-{number}") for number in range(3)]
    tree = Supervisor("app", *members, strategy="rest_for_one", engine=Ray())
    with tree.start() as running:
        with running.events() as events:
            nodes_of.on("a").process.kill()
            next(event for event in events if isinstance(event, NodeLost))
            assert running["member-2"].ask("are you back?", timeout=30.0) == "are you back?"
            running.stop()
            assert [event.path for event in events if isinstance(event, ChildRestarting)] == ["app/member-0"]
    starts = [line.split()[0] for line in record.read_text().splitlines() if line.endswith("start")]
    assert starts == [f"member-{number}" for number in (0, 1, 2, 0, 1, 2)]


def test_a_worker_can_be_pinned_and_one_with_resources_has_a_node_of_its_own(cluster: MakeCluster) -> None:
    nodes_of = cluster("a", "b", GPU=1)
    tree = Supervisor(
        "app",
        Child(Member, id="pinned", place=Place(node="b")),
        Child(Member, id="trains", place=Place(resources={"GPU": 1})),
        Child(Member, id="any"),
        engine=Ray(place=Place(strategy="pack")),
    )
    with tree.start() as running:
        assert nodes(running)["pinned"] == "b"
        assert len(nodes_of.nodes) == 3 - (nodes(running)["any"] == "b")
        running.terminate_child("trains")
        running.delete_child("trains")
        eventually(lambda: sum(node.process.poll() is None for node in nodes_of.nodes) == len(nodes_of.nodes) - 1)


def test_children_can_have_a_process_of_the_cluster_each_and_lose_it_alone(cluster: MakeCluster) -> None:
    machines = cluster("a", "b")
    tree = Supervisor(
        "app",
        Child(Member, id="alone", copies=3),
        Child(Member, id="shared", copies=2, place=Place()),
        engine=Ray(place=Place(dedicated=True)),
    )
    with tree.start() as running:
        before = {id: running[id].ask("who") for id in nodes(running)}
        homes = {id: home for id, (_, home, _) in before.items()}
        assert len(set(homes.values())) == len(machines.nodes) == 5  # three of their own, and one on each machine
        assert sorted(Counter(nodes(running).values()).values()) == [2, 3]
        os.kill(before["alone-1"][0], signal.SIGKILL)
        eventually(lambda: running["alone-1"].incarnation == 2 and running["alone-1"].status == "running")
        assert running["alone-1"].ask("who")[1] == homes["alone-1"]
        assert isinstance(ended(running, lambda: os.kill(homes["alone-2"], signal.SIGKILL)), Lost)
        eventually(lambda: running["alone-2"].incarnation == 2 and running["alone-2"].status == "running")
        after = {id: running[id].ask("who") for id in nodes(running)}
        assert {id for id in after if after[id][0] != before[id][0]} == {"alone-1", "alone-2"}


def test_a_node_that_comes_for_a_child_that_is_forgotten_meanwhile_ends(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    machines = cluster("a")
    start = machines.start

    def start_late(*options: Any) -> NodeInProcess:
        begun.set()
        assert goes_on.wait(60.0)
        return start(*options)

    with Supervisor("app", Child(Member, id="first"), engine=Ray()).start() as running:
        monkeypatch.setattr(machines, "start", start_late)
        late = Child(Member, id="late", place=Place(dedicated=True))
        starting = in_background(lambda: running.start_child(late))
        assert begun.wait(60.0)
        eventually(lambda: "late" in [child.id for child in running.which_children()])
        running["late"].kill()
        with pytest.raises(ChildStartFailed):
            starting.result(30.0)
        goes_on.set()
        eventually(lambda: len(machines.nodes) == 2)
        assert machines.nodes[1].process.wait(30.0) is not None
        assert machines.nodes[0].process.poll() is None


def test_a_place_that_is_nowhere_is_an_error_of_the_start(
    cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster("a", "b")
    tree = Supervisor("app", Child(Member, place=Place(node="nowhere")), engine=Ray(start_timeout=0.5))
    why = (
        "no node of the cluster is fit for 'app/member': none has the name, address or id 'nowhere'; there are 'a', 'b'"
    )
    with pytest.raises(ChildStartFailed, match=f"{why}$"):
        tree.start()
    waits = f"{why}; the start waits for one, up to 0.5 s: Ray(start_timeout=)"
    eventually(lambda: [one.getMessage() for one in caplog.records if one.name == "suitkaise.cluster"] == [waits])


def test_a_node_of_another_version_is_an_error_that_names_both(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster("a")
    monkeypatch.setattr("suitkaise.cluster.engine.version", lambda: "9.9.9")
    with pytest.raises(ChildStartFailed, match=r"a of the cluster has Python 3.* and suitkaise 0.*suitkaise 9\.9\.9"):
        Supervisor("app", Member, engine=Ray()).start()


def test_an_address_that_this_machine_does_not_have_is_an_error_that_names_it(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = cluster("a")
    monkeypatch.setattr(machines, "host", "203.0.113.7")  # TEST-NET-3: no machine has it
    with pytest.raises(SuitkaiseError, match=r"cannot listen for its nodes at '203\.0\.113\.7', the address"):
        Supervisor("app", Member, engine=Ray()).start()
    assert machines.closed


def test_what_is_for_one_machine_alone_is_refused(cluster: MakeCluster) -> None:
    cluster("a")
    with pytest.raises(SpecError, match=r"needs a supervisor above with engine=Ray"):
        Supervisor("app", Child(Member, place=Place(node="a"))).start()


def test_a_start_on_a_node_that_asks_a_later_sibling_fails_at_once(cluster: MakeCluster) -> None:
    cluster("a")
    asks, late = Child(AsksAtItsStart, args=("app/late",), id="asks"), Child(Member, id="late")
    with Supervisor("keeps-the-node", Member, engine=Ray()).start():
        for _ in range(3):  # most starts are shorter than the time between two reports of a node
            with pytest.raises(ChildStartFailed, match="comes up only after the worker that asks it"):
                Supervisor("app", asks, late, engine=Ray()).start()


def test_an_ask_after_the_error_about_a_death_is_answered_by_the_next_incarnation(cluster: MakeCluster) -> None:
    cluster("a")
    with Supervisor("app", Child(Member, id="one"), max_restarts=1000, engine=Ray()).start() as running:
        one = running["one"]
        for _ in range(20):
            with pytest.raises(WorkerDead, match="died before it answered: exit code 3"):
                one.ask(("exit", 3), timeout=60.0)
            assert one.ask("hello", timeout=30.0) == "hello"


def test_messages_that_the_end_of_a_worker_on_a_node_crosses_are_counted_with_it(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossing, on_frame = [1, 2, 3], RemoteNode._on_frame

    def noted(self: RemoteNode, frame: Any, payload: bytes) -> None:
        if isinstance(frame, Exited):
            while crossing:  # the end is known there, and not here
                running["one"].tell(crossing.pop())
        on_frame(self, frame, payload)

    monkeypatch.setattr(RemoteNode, "_on_frame", noted)
    cluster("a")
    child = Child(Member, id="one", restart="temporary")
    with Supervisor("app", child, engine=Ray()).start() as running, running.events() as events:
        running["one"].tell(("exit", 3))
        exited = next(event for event in events if isinstance(event, ChildExited))
        assert (exited.reason, exited.unhandled) == (ExitCode(3), 3)


@pytest.mark.skipif(bool(death_lock.refusal()), reason=death_lock.refusal())
def test_the_end_of_a_worker_on_a_node_is_told_early_while_the_keeper_there_is_stopped(cluster: MakeCluster) -> None:
    cluster("a")
    child = Child(Member, id="one", spares=1, early_restart=True)
    with Supervisor("app", child, engine=Ray()).start() as running, running.events() as events:
        pid = running["one"].ask("who", timeout=30.0)[0]
        keeper = psutil.Process(psutil.Process(pid).ppid())
        keeper.suspend()
        eventually(lambda: keeper.status() == psutil.STATUS_STOPPED)
        try:
            os.kill(pid, signal.SIGKILL)
            next(event for event in events if isinstance(event, ChildExited))
            assert keeper.status() == psutil.STATUS_STOPPED
        finally:
            keeper.resume()

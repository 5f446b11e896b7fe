"""A tree whose workers run on nodes of a cluster: the rules of supervision, messages, logs, and what is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    Command,
    Crashed,
    ExitCode,
    Hung,
    Lost,
    Place,
    Process,
    Ray,
    RunningTree,
    Shutdown,
    Signaled,
    SpecError,
    Supervisor,
    Thread,
    WorkerDead,
    sktree,
    whereis,
)
from suitkaise.events import ChildExited, NodeLost
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from suitkaise.runtime.runtime import current
from tests.cluster.processes import ProcessCluster
from tests.support import eventually, wait_gone

MakeCluster = Callable[..., ProcessCluster]


class Member(Process):
    """Tells about itself, passes questions on, and ends in many ways."""

    def __init__(self, record: Path | None = None) -> None:
        self.record = record

    def on_start(self) -> None:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{self.name} start\n")

    def on_receive(self, message: Any) -> Any:
        match message:
            case "who":
                return os.getpid(), psutil.Process(os.getppid()).ppid(), self.recalled
            case "ask", path, question:
                return whereis(path).ask(question, timeout=30.0)
            case "raise":
                raise LookupError("on purpose")
            case "exit", code:
                os._exit(code)
            case "print", text:
                print(text, flush=True)
                self.log.warning("logged %s", text)
            case "keep", value:
                self.checkpoint(value)
            case "hang":
                time.sleep(600)
        return message

    def on_finish(self) -> None:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{self.name} finish\n")


class Here(Thread):
    def on_receive(self, message: Any) -> int:
        return os.getpid()


def nodes(running: RunningTree) -> dict[str, str]:
    """Return the node of each worker, by id."""
    runtime = current()
    assert runtime is not None
    (tree,) = runtime.overview()["trees"]
    return {child["id"]: child["node"] for child in tree["children"] if "node" in child}


def ended(running: RunningTree, act: Callable[[], Any]) -> Any:
    """Return the exit reason that follows `act`."""
    with running.events() as events:
        act()
        return next(event for event in events if isinstance(event, ChildExited)).reason


def test_workers_run_on_the_nodes_and_threads_in_the_program(cluster: MakeCluster) -> None:
    nodes_of = cluster("a", "b")
    tree = Supervisor("app", Child(Member, id="one"), Child(Member, id="two"), Here, engine=Ray())
    with tree.start() as running:
        assert sorted(nodes(running).values()) == ["a", "b"]
        pids = {node.process.pid for node in nodes_of.nodes}
        assert {running[id].ask("who", timeout=30.0)[1] for id in ("one", "two")} == pids
        assert running["here"].ask("who") == os.getpid()
        assert running["one"].ask(("ask", "app/two", "hello"), timeout=30.0) == "hello"
        assert running["two"].ask(("ask", "app/here", "hello"), timeout=30.0) == os.getpid()
    assert nodes_of.closed
    assert all(node.process.returncode == 0 for node in nodes_of.nodes)


def test_the_reason_of_an_end_is_exact_and_the_worker_is_recalled_on_its_node(cluster: MakeCluster) -> None:
    cluster("a", "b")
    worker = Child(Member, id="one", receive_timeout=1.0)
    with Supervisor("app", worker, max_restarts=10, engine=Ray()).start() as running:
        ref = running["one"]
        ref.ask(("keep", {"so far": 3}), timeout=30.0)
        before = nodes(running)
        assert ended(running, lambda: os.kill(ref.pid or 0, signal.SIGKILL)) == Signaled(signal.SIGKILL)
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
        assert ref.ask("still there", timeout=30.0) == "still there"


def test_a_stop_runs_on_finish_and_leaves_nothing(cluster: MakeCluster, tmp_path: Path) -> None:
    cluster("a", "b")
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


def test_commands_run_on_the_nodes_too(cluster: MakeCluster) -> None:
    nodes_of = cluster("a")
    command = Command("sh", "-c", "echo up; exec sleep 600", ready="up", name="sleeper")
    with Supervisor("app", command, engine=Ray()).start() as running:
        program = psutil.Process(running["sleeper"].pid)
        assert program.cmdline() == ["sleep", "600"]
        assert nodes_of.on("a").process.pid in [one.pid for one in program.parents()]
        assert ended(running, program.kill) == Signaled(signal.SIGKILL)


def test_lines_and_log_records_arrive_in_the_program(cluster: MakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster("a")
    with Supervisor("app", Child(Member, id="one"), engine=Ray()).start() as running:
        running["one"].ask(("print", "a line"), timeout=30.0)
        eventually(lambda: "app/one: logged a line" in caplog.text)
        answer = router().request(RequestKind.LOGS, "app/one", {"last": 10}).get(timeout=30.0)
        assert [(stream, text) for _, _, stream, _, text in answer["lines"] if stream != "event"] == [
            ("stdout", "a line"), ("warning", "app/one: logged a line"),
        ]  # fmt: skip


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


def test_a_lost_node_is_one_incident_for_a_group(cluster: MakeCluster, tmp_path: Path) -> None:
    nodes_of = cluster("a")
    record = tmp_path / "record"
    members = [Child(Member(record), id=f"member-{number}") for number in range(3)]
    tree = Supervisor("app", *members, strategy="rest_for_one", engine=Ray())
    with tree.start() as running:
        nodes_of.on("a").process.kill()
        eventually(lambda: [line.restarts for line in running.which_children()] == [1, 0, 0])
        eventually(lambda: all(running[f"member-{number}"].is_alive() for number in range(3)))
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


def test_a_place_that_is_nowhere_is_an_error_of_the_start(cluster: MakeCluster) -> None:
    cluster("a")
    tree = Supervisor("app", Child(Member, place=Place(node="nowhere")), engine=Ray(start_timeout=0.5))
    with pytest.raises(ChildStartFailed, match="no node of the cluster is fit for 'app/member'"):
        tree.start()


def test_a_node_of_another_version_is_an_error_that_names_both(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster("a")
    monkeypatch.setattr("suitkaise.cluster.engine.version", lambda: "9.9.9")
    with pytest.raises(ChildStartFailed, match=r"a of the cluster has Python 3.* and suitkaise 0.*suitkaise 9\.9\.9"):
        Supervisor("app", Member, engine=Ray()).start()


def test_what_is_for_one_machine_alone_is_refused(cluster: MakeCluster) -> None:
    cluster("a")
    with pytest.raises(SpecError, match=r"needs a supervisor above with engine=Ray"):
        Supervisor("app", Child(Member, place=Place(node="a"))).start()


def test_a_message_to_a_lost_worker_waits_for_the_next_one(cluster: MakeCluster) -> None:
    nodes_of = cluster("a")
    with Supervisor("app", Child(Member, id="one"), engine=Ray()).start() as running:
        with running.events() as events:
            nodes_of.on("a").process.kill()
            next(event for event in events if isinstance(event, NodeLost))
        assert running["one"].ask("are you back?", timeout=30.0) == "are you back?"
        with pytest.raises(WorkerDead):
            os.kill(running["one"].pid or 0, signal.SIGSTOP)
            answer = running["one"].ask_future("never answered")
            os.kill(running["one"].pid or 0, signal.SIGKILL)
            answer.get(timeout=30.0)


class Keeps(Process):
    """Uses the storage in all its ways."""

    def on_start(self) -> None:
        self.tree.add("mine", self.name, path="marked", metadata={"remove_on_process_join": True, "of": self.name})

    def on_receive(self, message: Any) -> Any:
        match message:
            case "count":
                for _ in range(100):
                    self.tree.increment("count", path="numbers")
                return self.tree.get("count", path="numbers")
            case "watch":
                with self.tree.watch("numbers") as changes:
                    self.tree.add("watched", 1, path="numbers", wait=False)
                    return next(change.name for change in changes)
            case "transaction":
                with self.tree.transaction():
                    self.tree.add("left", self.tree.get("count", path="numbers"), path="numbers")
                    self.tree.add("right", 0, path="numbers")
                return sorted(self.tree.get_all_from("numbers"))
            case "select":
                return [name for _, name in self.tree.select_all_with({"of": self.name})]
            case "large":
                self.tree.add("large", bytes(3_000_000), path="numbers")
                return len(self.tree.get("large", path="numbers"))
            case "draw":
                return str(self.tree)
            case "hand over":
                return self.tree
            case tree:
                return tree.get("from the program", path="")


def test_the_storage_of_the_program_is_that_of_its_workers_elsewhere(cluster: MakeCluster) -> None:
    cluster("a", "b")
    tree = Supervisor("app", Child(Keeps, id="one"), Child(Keeps, id="two"), engine=Ray())
    storage = sktree.connect()
    try:
        storage.add_to_root("from the program", 7)
        with tree.start() as running:
            one, two = running["one"], running["two"]
            answers = [ref.ask_future("count") for ref in (one, two)]
            assert max(answer.get(timeout=60.0) for answer in answers) == 200
            assert storage.get("count", path="numbers") == 200
            assert one.ask("watch", timeout=30.0) == "watched"
            assert two.ask("transaction", timeout=30.0) == ["count", "left", "right", "watched"]
            assert one.ask("large", timeout=30.0) == 3_000_000
            assert "numbers" in two.ask("draw", timeout=30.0)
            assert two.ask(storage, timeout=30.0) == 7
            assert one.ask("hand over", timeout=30.0).get("count", path="numbers") == 200
            assert storage.get_all_from("marked") == {"mine": "two"}
        assert storage.get_all_from("marked") == {}
    finally:
        sktree.disconnect()

"""One tree on two nodes: where its workers are, messages, logs and the storage."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from suitkaise import Child, Command, Ray, RunningTree, Supervisor, sktree
from suitkaise.cluster import ray_cluster
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from tests.cluster.processes import ProcessCluster
from tests.cluster.workers import Here, Keeps, Member, nodes
from tests.support import eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[RunningTree, ProcessCluster]]:
    """Run one tree on two nodes for the tests that end no worker."""
    machines = ProcessCluster({"a": {}, "b": {}})
    tree = Supervisor(
        "app",
        Child(Member, id="one"),
        Child(Member, id="two"),
        Here,
        Command("sh", "-c", "echo up; exec sleep 600", ready="up", name="sleeper"),
        Child(Keeps, id="left"),
        Child(Keeps, id="right"),
        engine=Ray(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "join", lambda spec: machines)
        storage = sktree.connect()
        storage.add_to_root("from the program", 7)
        with tree.start() as running:
            assert running["left"].ask(storage, timeout=60.0) == storage.get("from the program", path="")
            yield running, machines
        sktree.disconnect()
    assert machines.closed
    assert all(node.process.returncode == 0 for node in machines.nodes)


def test_workers_and_commands_run_on_the_nodes_and_threads_in_the_program(
    shared: tuple[RunningTree, ProcessCluster],
) -> None:
    running, machines = shared
    assert sorted(nodes(running).values()) == ["a", "a", "a", "b", "b"]
    pids = {node.process.pid for node in machines.nodes}
    assert {running[id].ask("who", timeout=30.0)[1] for id in ("one", "two")} == pids
    assert running["here"].ask("who") == os.getpid()
    program = psutil.Process(running["sleeper"].pid)
    assert program.cmdline() == ["sleep", "600"]
    assert pids & {one.pid for one in program.parents()}


def test_workers_on_two_nodes_talk_to_each_other_and_to_threads(shared: tuple[RunningTree, ProcessCluster]) -> None:
    running, _ = shared
    assert running["one"].ask(("ask", "app/two", "hello"), timeout=30.0) == "hello"
    assert running["two"].ask(("ask", "app/here", "hello"), timeout=30.0) == os.getpid()


def test_lines_and_log_records_arrive_in_the_program(
    shared: tuple[RunningTree, ProcessCluster], caplog: pytest.LogCaptureFixture
) -> None:
    running, _ = shared
    running["one"].ask(("print", "a line"), timeout=30.0)
    eventually(lambda: "app/one: logged a line" in caplog.text)
    answer = router().request(RequestKind.LOGS, "app/one", {"last": 10}).get(timeout=30.0)
    assert [(stream, text) for _, _, stream, _, text in answer["lines"] if stream != "event"] == [
        ("stdout", "a line"), ("warning", "app/one: logged a line"),
    ]  # fmt: skip


def test_the_storage_of_the_program_is_that_of_its_workers_elsewhere(
    shared: tuple[RunningTree, ProcessCluster],
) -> None:
    running, _ = shared
    left, right = running["left"], running["right"]
    storage = sktree.connect()
    answers = [ref.ask_future("count") for ref in (left, right)]
    assert max(answer.get(timeout=60.0) for answer in answers) == 200
    assert storage.get("count", path="numbers") == 200
    assert left.ask("watch", timeout=30.0) == "watched"
    assert right.ask("transaction", timeout=30.0) == ["count", "left", "right", "watched"]
    assert left.ask("large", timeout=30.0) == 3_000_000
    assert "numbers" in right.ask("draw", timeout=30.0)
    assert right.ask(storage, timeout=30.0) == 7
    assert left.ask("hand over", timeout=30.0).get("count", path="numbers") == 200
    assert storage.get("mine", path="marked") == "right"

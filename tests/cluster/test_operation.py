"""What an operator sees of workers on nodes, and can do with them: as with workers of one machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise import Child, Command, Place, Ray, RunningTree, Supervisor
from suitkaise.cli import main
from suitkaise.cluster import ray_cluster
from suitkaise.events import ChildExited
from suitkaise.exits import Signaled
from suitkaise.observer.model import Model
from suitkaise.runtime.runtime import current
from tests.cluster.processes import ProcessCluster
from tests.cluster.workers import Member, nodes
from tests.end_to_end.terminal import Terminal, in_terminal
from tests.support import eventually, in_background, send_signal, start_program

Run = Callable[..., tuple[int, str, str]]

TREE = f"operated-{os.getpid()}"
"""A name that no other program of this user has: the command line finds them all."""


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[RunningTree, ProcessCluster]]:
    """Run one tree on two nodes for all tests."""
    machines = ProcessCluster({"a": {}, "b": {}})
    tree = Supervisor(
        TREE,
        Child(Member, id="one"),
        Child(Member, id="two"),
        Command("sh", "-c", "echo up; exec sleep 600", ready="up", name="sleeper"),
        engine=Ray(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "join", lambda spec: machines)
        with tree.start() as running:
            for id in ("one", "two"):
                running[id].ask("who", timeout=60.0)
            yield running, machines


@pytest.fixture
def run(shared: object, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of the command line; return its exit code and what it has printed."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return call


def test_the_stacks_of_a_worker_on_a_node(run: Run) -> None:
    code, out, _ = run("stack", f"{TREE}/one")
    assert code == 0
    assert "worker_main.py" in out


def test_a_profile_of_a_worker_on_a_node(run: Run) -> None:
    code, out, _ = run("profile", f"{TREE}/one", "--seconds", "0.2", "--json")
    assert code == 0
    assert json.loads(out)["stacks"]


def test_what_cannot_be_done_on_a_node_is_told(run: Run) -> None:
    code, _, err = run("profile", f"{TREE}/sleeper", "--seconds", "0.1")
    assert code == 2
    assert f"'{TREE}/sleeper' is a program of its own on the node" in err


def test_a_signal_for_a_worker_on_a_node_ends_it_with_that_reason(
    run: Run, shared: tuple[RunningTree, ProcessCluster]
) -> None:
    running, _ = shared
    with running.events() as events:
        code, out, _ = run("signal", "USR2", f"{TREE}/two")
        assert code == 0
        assert " on the node " in out
        assert next(event for event in events if isinstance(event, ChildExited)).reason == Signaled(signal.SIGUSR2)
    eventually(lambda: running["two"].is_alive())
    code, out, _ = run("signal", "WINCH", f"{TREE}/sleeper")
    assert code == 0
    assert f"sent to pid {running['sleeper'].pid} on the node" in out


def test_cpu_and_memory_of_workers_and_nodes_are_told(shared: object) -> None:
    def facts() -> dict[str, Any]:
        runtime = current()
        assert runtime is not None
        return runtime.overview()

    def workers() -> list[dict[str, Any]]:
        return [child for child in facts()["trees"][0]["children"] if child.get("cpu") is not None]

    assert len(eventually(lambda: len(found := workers()) == 3 and found)) == 3
    assert all(child["memory"] > 100_000 for child in workers())
    nodes = facts()["nodes"]
    assert [(node["name"], node["status"], node["workers"]) for node in nodes] in (
        [("a", "running", 2), ("b", "running", 1)], [("a", "running", 1), ("b", "running", 2)],
    )  # fmt: skip
    for node in nodes:
        assert 0 < node["memory"] < node["memory_total"]
        assert node["cpu"] <= node["cpus"] == os.cpu_count()
        assert node["silent"] < 60


def test_nodes_on_the_machine_of_their_program_are_no_programs(run: Run) -> None:
    code, out, _ = run("ps", "--json")
    assert code == 0
    assert [program["pid"] for program in json.loads(out)].count(os.getpid()) == 1


def test_a_trace_of_a_worker_on_a_node(run: Run, shared: tuple[RunningTree, ProcessCluster]) -> None:
    running, _ = shared
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.02):
            running["one"].tell("traced")

    sent = in_background(send)
    code, out, _ = run("trace", f"{TREE}/one", "--lines", "1", "--json")
    over.set()
    sent.result(30.0)
    assert code == 0
    assert json.loads(out)["message"] == "'traced'"


def test_status_and_nodes_tell_where_a_worker_runs_and_what_it_uses(run: Run) -> None:
    def shown() -> str:
        _, out, _ = run("status", f"{TREE}/one")
        return out if " MiB, cpu " in out else ""

    assert " on the node " in eventually(shown)
    code, out, _ = run("nodes", "--json")
    mine = [node for node in json.loads(out) if node["program"] == os.getpid()]
    assert code == 0
    assert [node["name"] for node in mine] == ["a", "b"]
    code, out, _ = run("nodes")
    assert code == 0
    assert "running" in out
    code, out, _ = run("ps")
    assert "NODES" in out


def test_the_log_of_a_worker_on_a_node_has_what_it_has_printed_and_logged(
    run: Run, shared: tuple[RunningTree, ProcessCluster]
) -> None:
    def told(path: str) -> list[tuple[str, int, str, str]]:
        code, out, _ = run("logs", "--json", path)
        assert code == 0
        lines = [json.loads(line) for line in out.splitlines()]
        return [(line["path"], line["incarnation"], line["stream"], line["line"]) for line in lines]

    running, _ = shared
    running["one"].ask(("print", "this"))
    both = {(f"{TREE}/one", 1, "stdout", "this"), (f"{TREE}/one", 1, "warning", "logged this")}
    eventually(lambda: both <= set(told(f"{TREE}/one")), what="the log of a process")
    eventually(lambda: (f"{TREE}/sleeper", 1, "stdout", "up") in told(f"{TREE}/sleeper"), what="the log of a command")


def test_the_log_of_a_worker_on_a_node_is_followed_through_a_crash(shared: object) -> None:
    with Supervisor("followed", Child(Member, id="one"), engine=Ray()).start() as running:
        one = running["one"]
        one.ask(("print", "the first words"), timeout=60.0)
        command = [sys.executable, "-m", "suitkaise", "logs", "-f", "--pid", str(os.getpid()), "followed"]
        with start_program(command) as follower:
            follower.expect("followed/one: the first words")
            send_signal(one, signal.SIGKILL)
            follower.expect("followed/one: event: is back")
            one.ask(("print", "the words of the next one"), timeout=30.0)
            follower.expect("followed/one: the words of the next one")
            follower.expect("followed/one: warning: logged the words of the next one")


def test_the_crash_report_of_a_worker_on_a_node_names_the_node_and_has_its_last_lines(run: Run) -> None:
    with Supervisor("crashing", Child(Member, id="one", place=Place(node="b")), engine=Ray()).start() as running:
        running["one"].ask(("print", "the last words"), timeout=60.0)
        pid = running["one"].pid
        running["one"].tell("raise")
        eventually(lambda: "LookupError" in run("crashes", "--path", "crashing")[1], what="the report is on disk")
    code, out, _ = run("crashes", "last", "--path", "crashing")
    assert code == 0
    assert f"crashing/one (process, pid {pid} on the node b, incarnation 1)" in out
    lines = [line.strip() for line in out.partition("last lines")[2].splitlines()]
    assert "the last words" in lines
    assert "warning: crashing/one: logged the last words" in lines
    assert "in on_receive" in out


def test_top_shows_the_node_of_each_worker(shared: tuple[RunningTree, ProcessCluster]) -> None:
    pytest.importorskip("textual")
    running, _ = shared
    places = nodes(running)

    async def work(terminal: Terminal) -> None:
        for id in ("one", "two", "sleeper"):
            await terminal.until(lambda id=id: terminal.shows(f"{TREE}/{id}", "running"))
            assert terminal.line(f"{TREE}/{id}").doing.startswith(f"on {places[id]}")
        await terminal.until(lambda: terminal.has("2 nodes", "on a", "on b"))
        await terminal.choose(f"{TREE}/one")
        await terminal.press("enter")
        pid, node = running["one"].pid, places["one"]
        await terminal.until(lambda: terminal.has(f"{pid} on {node}, incarnation ", "MiB, CPU "))

    in_terminal(work, TREE)


def test_metrics_tell_the_node_and_an_observer_gets_the_figures(shared: object) -> None:
    pytest.importorskip("prometheus_client")
    from suitkaise.metrics import page

    text = eventually(lambda: 'suitkaise_memory_bytes{node="' in (found := page()[1].decode()) and found)
    assert 'suitkaise_node_up{node="a"} 1.0' in text
    assert 'suitkaise_node_workers{node="b"}' in text
    assert f'suitkaise_restarts_total{{path="{TREE}/one"}} 0.0' in text
    model = Model()
    runtime = current()
    assert runtime is not None

    def measured() -> set[str]:
        model.update(runtime.overview())
        return set(model.used)

    eventually(lambda: measured() == {f"{TREE}/one", f"{TREE}/two", f"{TREE}/sleeper"})  # each node tells its own
    assert len(model.nodes) == 2

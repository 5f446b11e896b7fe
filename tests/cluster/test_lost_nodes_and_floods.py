"""A node that is lost, and a flood of log records from a node, as an operator sees them."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, MailboxFull, Place, Ray, Supervisor, WorkerRef
from suitkaise.cli.health import readiness
from suitkaise.cluster import remote_node, remote_worker
from suitkaise.cluster.machines import Machine
from suitkaise.cluster.node import Settings
from suitkaise.cluster.node_logs import WINDOW
from suitkaise.events import DeadLetter
from suitkaise.runtime.runtime import Runtime, current
from tests.cluster.processes import NodeInProcess, ProcessCluster
from tests.cluster.workers import Counts, Member
from tests.support import eventually, in_background


def test_a_node_that_is_lost_is_told_until_another_comes(cluster: Callable[..., ProcessCluster]) -> None:
    machines = cluster("left", "right")
    with Supervisor("lost", Child(Member, copies=2, shutdown=0.5), engine=Ray()).start() as running:
        for copy in range(2):
            running[f"member-{copy}"].ask("who", timeout=60.0)
        del machines.alive["right"]
        machines.on("right").process.kill()

        def lost() -> Any:
            runtime = current()
            assert runtime is not None
            return [node for node in runtime.overview()["nodes"] if node["status"] == "lost"]

        (node,) = eventually(lost)
        assert node["name"] == "right"
        assert node["why"]
        eventually(lambda: not readiness(), timeout=30.0)
        assert [one["name"] for one in lost()] == ["right"]


def test_a_message_that_is_on_its_way_for_longer_than_the_lease_loses_no_node(
    cluster: Callable[..., ProcessCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = cluster("far")
    start = machines.start

    def start_far_away(settings: Settings, machine: Machine | None, place: Place) -> NodeInProcess:
        return start(replace(settings, address=slow_way_to(settings.address)), machine, place)

    monkeypatch.setattr(machines, "start", start_far_away)
    with Supervisor("slow", Child(Member, id="one"), engine=Ray(lease=2.0)).start() as running:
        pid = running["one"].ask("who", timeout=60.0)[0]
        began = time.monotonic()
        assert len(running["one"].ask(bytes(8_000_000), timeout=60.0)) == 8_000_000
        assert time.monotonic() - began > 2.0
        assert running["one"].ask("who", timeout=60.0)[0] == pid


def test_told_messages_that_a_process_of_a_node_does_not_read_are_handled_later_or_dead_letters(
    cluster: Callable[..., ProcessCluster], tmp_path: Path
) -> None:
    cluster("only")
    count = 6  # of which three have room
    child = Child(Counts, args=(tmp_path,), id="busy", receive_timeout=60.0)
    tree = Supervisor("narrow", child, Child(Member, id="calm"), engine=Ray())
    with tree.start() as running, running.events() as events:
        busy = running["busy"]
        waits = busy.ask_future("wait")
        eventually((tmp_path / "waiting").exists)
        for _ in range(count):
            busy.tell(bytes(20_000_000))
            running["calm"].ask("who", timeout=60.0)  # the answer comes when the node has read the message
        letter = next(event for event in events if isinstance(event, DeadLetter))
        assert letter.path == "narrow/busy"
        assert "already wait to be read" in letter.why
        (tmp_path / "go on").touch()
        waits.get(60.0)
        runtime = current()
        assert runtime is not None
        lost = runtime.registry.dead_letters
        eventually(lambda: busy.ask("how many", timeout=60.0) + lost.count("narrow/busy") == count)
        assert 0 < lost.count("narrow/busy") < count


@pytest.mark.parametrize("is_starting", [False, True], ids=["no node", "a node that starts"])
def test_messages_wait_within_limits_for_a_worker_whose_node_is_not_there_yet(
    is_starting: bool, cluster: Callable[..., ProcessCluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connects = threading.Event()
    machines = cluster()
    start = machines.start

    def start_slowly(settings: Settings, machine: Machine | None, place: Place) -> NodeInProcess:
        address = slow_way_to(settings.address, connects)
        return start(replace(settings, address=address), machine, place)

    if is_starting:
        machines.alive["only"] = {}
        monkeypatch.setattr(machines, "start", start_slowly)
    monkeypatch.setattr(remote_node, "BACKLOG", 10_000)
    monkeypatch.setattr(remote_worker, "BACKLOG", 10_000)
    starting = in_background(Supervisor("early", Child(Counts, args=(tmp_path,), id="one"), engine=Ray()).start)
    handle = eventually(lambda: (runtime := current()) and "early/one" in runtime.registry and handle_of(runtime))
    if is_starting:
        eventually(lambda: handle.node)
    one = WorkerRef("early/one")
    one.tell(bytes(20_000))  # a single one may have any size
    with pytest.raises(MailboxFull, match="already wait"):
        one.tell("one more")
    machines.alive["only"] = {}
    connects.set()
    with starting.result(60.0):
        assert one.ask("how many", timeout=60.0) == 1


def handle_of(runtime: Runtime) -> Any:
    return runtime.registry.find("early/one").receiver


def slow_way_to(address: tuple[str, int], connects: threading.Event | None = None) -> tuple[str, int]:
    """Return an address that leads there, for one connection, once it `connects`; 2 MB a second come from there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket, rate: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(len(data) / rate)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with listener:
            near, _ = listener.accept()
        assert connects is None or connects.wait(30.0)
        with near, socket.create_connection(address) as far:
            back = in_background(lambda: carry(far, near, 2e6))
            carry(near, far, 1e12)
            back.result(30.0)

    in_background(serve)
    return listener.getsockname()[:2]


def test_a_flood_of_records_on_a_node_delays_no_other_message_and_what_is_dropped_is_counted(
    cluster: Callable[..., ProcessCluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster("only")
    go_on, seen = threading.Event(), 0

    class Blocks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal seen
            if "flood" in record.getMessage():
                seen += 1
                go_on.wait(60.0)

    handler = Blocks()
    logging.getLogger("suitkaise.worker").addHandler(handler)
    try:
        with Supervisor("flooded", Child(Member, id="loud"), Child(Member, id="calm"), engine=Ray()).start() as running:
            running["calm"].ask("who", timeout=60.0)
            flood = running["loud"].ask_future(("flood", 30_000))
            assert running["calm"].ask("still there", timeout=30.0) == "still there"
            assert flood.get(60.0) == 30_000  # it is not held up for ever by a handler that blocks
            go_on.set()
            pattern = re.compile(r"(\d+) log records were dropped")
            eventually(
                lambda: seen + sum(int(found[1]) for found in pattern.finditer(caplog.text)) >= 30_000, timeout=30.0
            )
            assert seen + sum(int(found[1]) for found in pattern.finditer(caplog.text)) == 30_000
            assert seen <= 3 * WINDOW
    finally:
        go_on.set()
        logging.getLogger("suitkaise.worker").removeHandler(handler)

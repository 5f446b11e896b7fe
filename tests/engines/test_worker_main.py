"""What a worker's process sends to the program of its own accord."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from suitkaise.engines.protocol import MessageTraced, decode_worker_report
from suitkaise.engines.worker_main import WorkerProcess
from suitkaise.messaging import wire
from suitkaise.platform.board import Board
from tests.support import run_program


class Hub:
    """The program at the other end, which reads when a test wants that."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.parser = wire.Parser(max_header=wire.MAX_PAYLOAD, decode=decode_worker_report)

    def read(self) -> list[dict[str, Any]]:
        """Return the reports of messages that have come."""
        reports: list[Any] = []
        with suppress(BlockingIOError):
            while True:
                reports += [header for header, _ in self.parser.receive(self.sock, socket.MSG_DONTWAIT)]
        return [report.fields for report in reports if isinstance(report, MessageTraced)]


@pytest.fixture
def pair() -> Iterator[tuple[WorkerProcess, Hub]]:
    ours, theirs = socket.socketpair()
    board = Board.in_memory()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        process = WorkerProcess("", board, 0.0)
        process.connect(theirs)
        yield process, Hub(ours)
    board.close()


def test_a_trace_goes_on_after_the_program_has_read_slowly_and_tells_what_is_missing(
    pair: tuple[WorkerProcess, Hub],
) -> None:
    process, hub = pair
    for number in range(1, 101):
        process._send_trace({"number": number, "message": "x" * 300, "skipped": 0})
    shown = len(hub.read())
    assert shown < 99
    process._send_trace({"number": 101, "skipped": 0})
    process._send_trace({"number": 102, "skipped": 3})
    *_, before, last = hub.read()
    assert (before["number"], last) == (101, {"number": 102, "skipped": 3})
    assert before["skipped"] == 100 - (shown + 1)


def test_a_report_in_a_signal_handler_that_interrupts_another_frame_is_left_out(
    pair: tuple[WorkerProcess, Hub],
) -> None:
    process, hub = pair
    process._writer._writer = threading.get_ident()  # as inside of `write`
    process._send_trace({"number": 1, "skipped": 0})
    process._writer._writer = None
    process._send_trace({"number": 2, "skipped": 0})
    assert hub.read() == [{"number": 2, "skipped": 1}]


def test_a_worker_whose_start_is_given_up_before_its_announcement_is_read_ends_without_an_error(
    pair: tuple[WorkerProcess, Hub],
) -> None:
    process, hub = pair
    assert process.announce()
    hub.sock.close()
    assert process.receive_first() is None


def test_a_process_in_reserve_that_cannot_get_ready_ends_with_an_error() -> None:
    program = run_program("""
import socket
from suitkaise.engines import worker_main
from suitkaise.platform.board import Board

def refuse():
    raise RuntimeError("can't start new thread")

worker_main._HubWatch = refuse
keeper, reserve = socket.socketpair()
worker_main.run_standby(reserve, "/nowhere", Board.in_memory(), -1, 1.0)
""")
    assert program.returncode == os.EX_SOFTWARE
    assert "can't start new thread" in program.stderr


NOT_COMPILED = """
import sys

def not_compiled():
    from suitkaise.records import _Init
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("suitkaise.")]
    values = [value for module in modules for value in list(vars(module).values()) if isinstance(value, type)]
    return {f"{cls.__module__}.{cls.__qualname__}" for cls in values if isinstance(vars(cls).get("__init__"), _Init)}
"""


def test_the_constructors_that_each_worker_calls_are_compiled_before_it_is_forked() -> None:
    in_the_keeper = run_program(f"""{NOT_COMPILED}
import suitkaise.engines.keeper, suitkaise.engines.worker_main
print(*not_compiled())
""")
    in_a_worker = run_program(f"""{NOT_COMPILED}
from suitkaise import Child, Process, Supervisor

class Told(Process):
    def on_receive(self, message):
        return not_compiled()

with Supervisor("app", Child(Told, id="told")).start() as running:
    print(*running["told"].ask("which"))
""")
    before, after = (set(ended.check().stdout.split()) for ended in (in_the_keeper, in_a_worker))
    assert len(before) > 20
    of_the_keeper = {"suitkaise.engines.keeper", "suitkaise.engines.leftovers", "suitkaise.platform.marks"}
    assert {name for name in before if name.rpartition(".")[0] not in of_the_keeper} - after == set()


def test_the_warm_up_of_the_keeper_leaves_nothing_that_its_workers_would_inherit() -> None:
    ended = run_program("""
import gc, os, threading
from suitkaise.engines.worker_main import warm_up
from suitkaise.messaging.identity import current_path, worker_of_thread
from suitkaise.platform.board import Board
from suitkaise.workers.lifecycle import Lifecycle

def left():
    gc.collect()
    lives = [one for one in gc.get_objects() if isinstance(one, Lifecycle)]
    return sorted(os.listdir("/proc/self/fd")), threading.active_count(), current_path(), worker_of_thread(), lives

before = left()
warm_up(Board.in_memory())
assert left() == before, left()
""")
    ended.check()

"""Nothing of a supervisor waits for a logging handler (rule 76), and no handler keeps a program from its end."""

from __future__ import annotations

import logging
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import Child, Command, Process, Shutdown, Supervisor, Thread
from suitkaise.events import ChildStopped
from suitkaise.runtime import runtime
from tests.end_to_end.kinds import next_event
from tests.support import eventually, start_program


class Work(Process):
    def loop(self) -> None:
        self.log.info("working")
        self.wait(0.05)


class WorkInThread(Thread):
    def loop(self) -> None:
        self.log.info("working")
        self.wait(0.05)

    def on_receive(self, message: object) -> None:
        raise RuntimeError("a crash on request")


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """Block the first handler of a record of ours, until the end of the test; the event is set when it blocks."""
    blocks, release = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            blocks.set()
            release.wait(60)

    logger, handler = logging.getLogger("suitkaise"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield blocks
    release.set()
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_s76_a_handler_that_blocks_holds_up_neither_restarts_nor_the_end_of_a_tree(blocked: threading.Event) -> None:
    sleep = Child(Command("sleep", "1000", name="sleep"))
    tree = Supervisor("app", Child(Work, id="p"), Child(WorkInThread, id="t"), sleep, max_restarts=100)
    running = tree.start()
    assert blocked.wait(10)
    for round in range(1, 4):
        for name in ("p", "sleep"):
            running[name].kill()
        running["t"].tell("crash")
        eventually(lambda: [info.restarts for info in running.which_children()] == [round] * 3)  # noqa: B023
        eventually(lambda: all(ref.is_alive() for ref in running))
    running.terminate_child("p")
    running.restart_child("p")
    assert running["p"].is_alive()
    running.stop(timeout=30)


PROGRAM = textwrap.dedent("""
    import logging, os, select, signal, sys, threading, time
    from suitkaise import Child, Command, Process, Supervisor

    class Work(Process):
        def on_start(self):
            say(f"worker {os.getpid()}")

        def loop(self):
            self.log.info("working " + "x" * 1000)
            self.wait(0.002)

        def on_finish(self):
            open("finished", "w").close()

    tree = Supervisor("app", Child(Work, id="a"), Child(Work, id="b"), max_restarts=1000)

    def say(text):  # not through a stream of Python's, which may be blocked
        os.write(1, text.encode() + b"\\n")
""")


# Standard error is a pipe that nobody reads.
class Floods(Process):
    """Logs without a pause, and writes down that it was asked to finish."""

    def __init__(self, finished: Path) -> None:
        super().__init__()
        self.finished = finished

    def loop(self) -> None:
        self.log.info("x" * 100)

    def on_finish(self) -> None:
        self.finished.touch()


def test_s76_an_order_to_stop_overtakes_the_log_lines_of_a_worker_that_floods_a_slow_handler(tmp_path: Path) -> None:
    never = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            never.wait(0.02)

    logger, handler = logging.getLogger("suitkaise.worker"), Slow()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        tree = Supervisor("tree", Child(Floods(tmp_path / "finished"), id="floods", shutdown=30.0))
        with tree.start() as running, running.events() as events:
            program = runtime.current()
            assert program is not None
            logs = program.engine_context.logs
            eventually(lambda: logs.waiting > logs.room // 2, timeout=30)  # the worker waits for the handler
            running.terminate_child("floods")
            assert (tmp_path / "finished").exists()
            assert logs.waiting > logs.room // 4, "the lines that waited still do"
            assert next_event(events, ChildStopped).reason == Shutdown()
    finally:
        never.set()
        logger.removeHandler(handler)
        logger.setLevel(level)


UNREAD = PROGRAM + textwrap.dedent("""
    unread, stderr = os.pipe()
    os.dup2(stderr, 2)
    logging.basicConfig(level=logging.INFO)

    def watch():
        while select.select([], [2], [], 0)[1]:
            time.sleep(0.01)
        say("full")
        open("full", "w").close()

    threading.Thread(target=watch, daemon=True).start()
""")


def _workers(output: str) -> list[int]:
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("worker ")]


@pytest.mark.parametrize("end, code", [("tree.run()", 0), ("tree.run(); sys.exit(7)", 7), ("tree.run(); 1 / 0", 1)])
def test_s76_a_program_whose_standard_error_nobody_reads_restarts_its_workers_and_ends_by_a_signal(
    end: str, code: int
) -> None:
    quiet = "sys.excepthook = lambda *error: None\n"  # Python itself would wait for standard error
    with start_program(UNREAD + quiet + end, env={"PYTHONUNBUFFERED": None}) as program:
        eventually(lambda: "full" in program.stdout and len(_workers(program.stdout)) == 2)
        for pid in _workers(program.stdout):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(_workers(program.stdout)) == 4)
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == code
    assert not program.left_behind


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_s76_for_a_minute_all_workers_come_back_although_nobody_reads_standard_error() -> None:
    with start_program(UNREAD + "tree.run()", env={"PYTHONUNBUFFERED": None}) as program:
        eventually(lambda: "full" in program.stdout and len(_workers(program.stdout)) == 2)
        until, killed = time.monotonic() + 60.0, 0
        while time.monotonic() < until:
            for pid in _workers(program.stdout)[killed:]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            eventually(lambda: len(_workers(program.stdout)) == killed + 2)  # noqa: B023
        program.send_signal(signal.SIGTERM)
        assert program.wait(15) == 0  # two workers have 5 s each
    assert killed > 60
    assert not program.left_behind


def test_s76_suitkaise_run_whose_standard_error_nobody_reads_ends_with_its_exit_code() -> None:
    app = textwrap.dedent("""
        import os
        from suitkaise import Child, Process, Supervisor

        class Talk(Process):
            def loop(self):
                self.log.info("x" * 1000)
                self.wait(0.002)

        class Fail(Process):
            def loop(self):
                if os.path.exists("full"):
                    raise RuntimeError("enough")
                self.wait(0.01)

        tree = Supervisor("app", Talk, Fail, max_restarts=0)
    """)
    run = f"from suitkaise import cli; open('app.py', 'w').write({app!r}); sys.exit(cli.main(['run', 'app.py']))"
    with start_program(UNREAD + run, env={"PYTHONUNBUFFERED": None}) as program:
        assert program.wait(40) == 1
    assert "full" in program.stdout
    assert not program.left_behind


# A handler that blocks for ever, with its lock; the main thread logs, too.
STUCK = PROGRAM + textwrap.dedent("""
    class Stuck(logging.Handler):
        def emit(self, record):
            if record.name.startswith("suitkaise"):
                say("stuck")
                threading.Event().wait()

    logging.basicConfig(level=logging.INFO, handlers=[Stuck()])
""")


@pytest.mark.parametrize("first, second", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_s76_a_second_signal_ends_a_program_whose_main_thread_waits_for_a_handler(
    first: signal.Signals, second: signal.Signals
) -> None:
    end = textwrap.dedent("""
        class Slow(Work):
            def on_finish(self):
                say("finishing")
                time.sleep(1000)

        try:
            Supervisor("app", Child(Slow, id="a", shutdown="infinity")).run()
        finally:
            say("waits")
            logging.info("done")
    """)
    with start_program(STUCK + end) as program:
        eventually(lambda: "stuck" in program.stdout)
        program.send_signal(first)
        eventually(lambda: "finishing" in program.stdout)
        program.send_signal(second)
        eventually(lambda: "waits" in program.stdout)
        assert program.wait(30) == 128 + second
    assert not program.left_behind


def test_s76_a_blocked_handler_keeps_no_program_from_its_exit_code_and_costs_no_output() -> None:
    end = 'running = tree.start(); time.sleep(0.5); print("last words", end=""); sys.exit(5)'
    with start_program(STUCK + end, env={"PYTHONUNBUFFERED": None}) as program:
        assert program.wait(30) == 5
    assert program.stdout.endswith("last words")
    assert not program.left_behind

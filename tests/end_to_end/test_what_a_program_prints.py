"""What the terminal shows under `python app.py` with no logging configured, and what a configuration changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support import run_program

HEADER = """
import logging, logging.config, os, sys, threading, time
from suitkaise import *
"""

UNTIL_A_RESTART = """
def until(found):
    until = time.monotonic() + 20
    while not found():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)
"""


def test_without_a_configuration_warnings_and_crashes_are_printed() -> None:
    program = """
class A(Process):
    def loop(self):
        self.log.info("all is well")
        self.log.warning("disk nearly full")
        raise ValueError("bad row")

with Supervisor("app", A, max_restarts=100).start() as running:
    until(lambda: running.which_children()[0].restarts > 1)
"""
    text = run_program(HEADER + UNTIL_A_RESTART + program).check().stderr
    assert "app/a: disk nearly full\n" in text
    assert "all is well" not in text
    assert re.search(r"app/a ended \(pid \d+\): ValueError in loop: bad row \(at program.py:15\)", text)
    assert "\nValueError: bad row\napp/a restarts (1 of 100 in the window)\n" in text


def test_a_crash_line_names_the_path_the_place_and_the_report(tmp_path: Path) -> None:
    program = """
class Work(Process):
    def loop(self):
        self.wait(0.1)
        1 / 0

try:
    web = Supervisor("web", Child(Work, restart="temporary"))
    Supervisor("app", Supervisor("mail", Work), web, max_restarts=0).run()
except TreeFailed:
    pass
"""
    state = {"SUITKAISE_STATE": str(tmp_path)}
    text = run_program(HEADER + program, env=state).check().stderr
    found = re.search(
        r"^app/web/work ended \(pid \d+\): ZeroDivisionError in loop: division by zero \(at program.py:8\); "
        r"see `suitkaise crashes (\S+)`$",
        text,
        re.MULTILINE,
    )
    assert found is not None, text
    assert "app/mail/work ended (pid" in text
    shown = run_program([sys.executable, "-m", "suitkaise", "crashes", found[1]], env=state).check().stdout
    assert "  where    program.py:8\n" in shown


@pytest.mark.parametrize("fault, name", [("os.abort()", "SIGABRT"), ("ctypes.string_at(8)", "SIGSEGV")])
def test_the_report_of_a_fault_in_c_holds_the_python_stack(fault: str, name: str) -> None:
    program = f"""
import ctypes

class Native(Process):
    restart = "temporary"
    def loop(self):
        self.wait(0.1)  # Python 3.14 tells no stack while a thread is being started
        self.deeper()
    def deeper(self):
        {fault}

with Supervisor("app", Native).start() as running:
    running["native"].join()
    print(running.crashes()[0])
"""
    done = run_program(HEADER + program).check()
    assert "in deeper" in done.stdout
    assert f"({name}) (at program.py:13); see" in done.stderr


LEVELS = """
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
printed = []
logging.root.handlers[0].addFilter(lambda record: printed.append(record.getMessage()) or True)

class A(Process):
    def on_receive(self, message):
        logging.getLogger("noisy").warning("noisy %s", message)
        logging.getLogger("app.db").debug("db %s", message)
        return logging.getLogger("noisy").getEffectiveLevel(), logging.getLogger("app.db").getEffectiveLevel()
"""


def test_levels_below_the_root_count_in_workers_and_so_do_changes() -> None:
    program = """
logging.getLogger("noisy").setLevel(logging.ERROR)
logging.getLogger("app").setLevel(logging.DEBUG)
with Supervisor("app", A).start() as running:
    assert running["a"].ask("first") == (logging.ERROR, logging.DEBUG)
    until(lambda: "db first" in printed)
    logging.getLogger("noisy").setLevel(logging.NOTSET)
    logging.getLogger("app").setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.INFO)
    until(lambda: running["a"].ask("later") == (logging.INFO, logging.INFO))
    running["a"].ask("last")
"""
    text = run_program(HEADER + UNTIL_A_RESTART + LEVELS + program).check().stdout
    assert "app.db DEBUG db first" in text
    assert "noisy first" not in text
    assert "noisy WARNING noisy last" in text
    assert "db last" not in text


@pytest.mark.parametrize(
    "configure",
    [
        'logging.config.dictConfig({"version": 1})',
        'logging.config.dictConfig({"version": 1, "root": {"handlers": [], "level": "INFO"}})',
        "logging.basicConfig(force=True, handlers=[logging.NullHandler()])",
        "logging.getLogger().handlers.clear()",
        "logging.basicConfig()",
    ],
)
def test_a_configuration_in_a_worker_ends_no_forwarding(configure: str) -> None:
    program = f"""
class A(Process):
    def on_start(self):
        {configure}
        self.log.warning("by the worker")
        logging.getLogger("mine").warning("by its library")

logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
with Supervisor("app", A).start():
    pass
"""
    done = run_program(HEADER + program).check()
    assert done.stdout == "suitkaise.worker app/a: by the worker\nmine by its library\n"
    assert done.stderr == ""


def test_the_record_of_a_crash_is_an_error_with_the_exception() -> None:
    program = """
class Handler(logging.Handler):
    def emit(self, record):
        if record.exc_info:
            print(record.levelname, repr(record.exc_info[1]), record.exc_text.splitlines()[-1], flush=True)

class A(Process):
    def on_receive(self, message):
        raise LookupError(message)
class B(Thread):
    def on_receive(self, message):
        raise LookupError(message)

logging.getLogger().addHandler(Handler())
with Supervisor("app", A, B).start() as running:
    for name in "ab":
        running[name].tell(name)
        until(lambda: running[name].incarnation == 2)
"""
    lines = run_program(HEADER + UNTIL_A_RESTART + program).check().stdout.splitlines()
    assert lines == [f"ERROR LookupError('{name}') LookupError: {name}" for name in "ab"]


def test_the_exception_hooks_of_process_and_thread_see_a_crash_once() -> None:
    program = """
def seen(where, error):
    sys.stdout.write(f"{where} {error!r} {error.__traceback__ is not None}\\n")

class A(Process):
    restart = "temporary"
    def on_start(self):
        sys.excepthook = lambda kind, error, trace: seen("sys", error)
    def loop(self):
        raise LookupError("a")
    def on_failure(self, error):
        raise ValueError("again")
class B(Thread):
    restart = "temporary"
    def loop(self):
        raise LookupError("b")

threading.excepthook = lambda args: seen("threading", args.exc_value)
with Supervisor("app", A, B).start() as running:
    running["a"].join(), running["b"].join()
"""
    lines = run_program(HEADER + program).check().stdout.splitlines()
    assert sorted(lines) == ["sys LookupError('a') True", "threading LookupError('b') True"]


def test_an_exception_hook_that_fails_changes_no_outcome() -> None:
    program = """
class A(Process):
    restart = "temporary"
    def on_start(self):
        sys.excepthook = lambda kind, error, trace: sys.exit("in the hook")
    def loop(self):
        raise LookupError("a")

with Supervisor("app", A).start() as running:
    print(running["a"].join())
"""
    done = run_program(HEADER + program).check()
    assert done.stdout == "LookupError in loop: a\n"
    assert "'app/a': the exception hook has raised an exception" in done.stderr

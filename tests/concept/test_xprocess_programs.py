"""Programs that use `xprocess` and `skthreading` without a main guard, and how they end."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support import run_program, start_program, wait_gone

LOOPS = """
import os
from suitkaise import xprocess

xp = xprocess.CrossProcessing()

class Notes(xprocess.Process):
    def on_start(self):
        print("up", os.getpid())

    def on_finish(self):
        print("finished", os.getpid())

def loop():
    {loop}

xp.create_process("worker", loop, Notes)
print("main ends")
{end}
"""
POLITE = "__import__('threading').Event().wait(0.01)"
STUCK = "print('stuck'); __import__('threading').Event().wait()"


def pid_in(line: str) -> int:
    found = re.search(r"\d+", line)
    assert found
    return int(found[0])


def test_a_program_waits_for_its_processes_at_its_end() -> None:
    ended = run_program("""
import os, signal, sys
from suitkaise import xprocess

xp = xprocess.CrossProcessing()
main = os.getpid()

def work(folder):
    print("loop", xp.get_process_name(), xp.get_current_loop(), os.getpid() != main, "__main__" in sys.modules)
    if xp.get_current_loop() == 2 and not os.path.exists(folder + "/killed"):
        open(folder + "/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

xp.create_process(work, args=(os.path.dirname(__file__),), kwargs={"join_after": 3})
print("main ends")
""").check()
    assert "main ends" in ended.stdout
    lines = re.findall(
        "loop work .* True True", ended.stdout
    )  # one may stand behind another process's, without a break
    assert lines == [f"loop work {loop} True True" for loop in (1, 2, 1, 2, 3)]


def test_ctrl_c_ends_the_wait_and_lets_the_processes_finish() -> None:
    with start_program(LOOPS.format(loop=POLITE, end="")) as program:
        worker = pid_in(program.expect("up"))
        program.expect("main ends")
        program.send_signal(signal.SIGINT)
        assert program.wait() in (0, -signal.SIGINT)  # the main thread may still be on its way to its end
    assert f"finished {worker}\n" in program.stdout
    assert program.left_behind == []


INTERRUPTED_WHEN_THE_END_BEGINS = """
import signal, threading
threading._register_atexit(lambda: os.kill(os.getpid(), signal.SIGINT))
"""
INTERRUPTED_IN_THE_WAIT_FOR_A_THREAD = """
import signal, threading
def interrupt():
    threading.main_thread().join()
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(1.0)  # a signal that comes just before a wait is handled after it
threading.Thread(target=interrupt).start()
"""
INTERRUPTED_IN_ANOTHER_EXIT_HANDLER = """
import atexit, signal
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
"""


@pytest.mark.parametrize(
    "end",
    [INTERRUPTED_WHEN_THE_END_BEGINS, INTERRUPTED_IN_THE_WAIT_FOR_A_THREAD, INTERRUPTED_IN_ANOTHER_EXIT_HANDLER],
    ids=["when it begins", "in the wait", "in an exit handler"],
)
def test_ctrl_c_that_python_drops_as_the_program_ends_is_not_lost(end: str) -> None:
    with start_program(LOOPS.format(loop=POLITE, end=end)) as program:
        worker = pid_in(program.expect("up"))
        program.wait()
    assert "KeyboardInterrupt" in program.stderr
    assert f"finished {worker}\n" in program.stdout
    assert program.left_behind == []


def test_a_second_ctrl_c_kills() -> None:
    with start_program(LOOPS.format(loop=STUCK, end="")) as program:
        worker = pid_in(program.expect("up"))
        program.expect("main ends")
        program.expect("stuck")  # before that, it could still finish
        while program.returncode is None:
            program.send_signal(signal.SIGINT)
            try:
                wait_gone(worker, 0.5)
            except AssertionError:
                continue
            break
        program.wait()
        wait_gone(worker)
    assert "xprocess/worker did not stop cleanly: killed (a second Ctrl-C)" in program.stderr
    assert "finished" not in program.stdout
    assert program.left_behind == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_that_ends_the_main_program_lets_the_processes_finish(number: signal.Signals) -> None:
    end = "print('waits')\n__import__('threading').Event().wait()"
    with start_program(LOOPS.format(loop=POLITE, end=end)) as program:
        worker = pid_in(program.expect("up"))
        program.expect("waits")
        program.send_signal(number)
        assert program.wait() == -number
        wait_gone(worker)
    assert f"finished {worker}\n" in program.stdout
    assert program.left_behind == []


def test_the_blocks_of_a_setup_and_the_function_share_what_the_blocks_bind() -> None:
    ended = run_program("""
from suitkaise import xprocess, sktree

xp = xprocess.CrossProcessing()
tree = sktree.connect()

def ui_loop(process_name, loop_name, current_loop):
    print("ui", process_name, loop_name, current_loop)

with xp.ProcessSetup() as setup:
    with xp.OnStart() as start:
        process_name = xp.get_process_name()
        pid = xp.get_process_id()

    with xp.BeforeLoop() as before:
        current = xp.get_current_loop()
        loop_name = f"{process_name}-{current}"
        before.add_these({"current_loop": current})

    with xp.AfterLoop(add_for_next=False) as after:
        tree.add(loop_name, xp.get_last_loop_time(), path="times")

    with xp.OnFinish() as finish:
        tree.add_to_root("last", loop_name)

xp.create_process("UI_handler", ui_loop, setup.build(), kwargs={"join_after": 2})
print(xp.join_all(), sorted(tree.get_all_from("times")), tree.get("last", path=""))
""").check()
    assert ended.stdout.splitlines() == [
        "ui UI_handler UI_handler-1 1",
        "ui UI_handler UI_handler-2 2",
        "{'UI_handler': <Status.FINISHED: 'finished'>} ['UI_handler-1', 'UI_handler-2'] UI_handler-2",
    ]


@pytest.mark.parametrize(
    "call",
    [
        'xprocess.CrossProcessing().create_process(work, kwargs={"join_after": 1})',
        'print(suitkaise.Supervisor("app", work).start()["work"].result())',
    ],
    ids=["process", "tree"],
)
def test_a_module_that_makes_processes_when_it_is_imported_is_told_what_to_do(call: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(f"""
import suitkaise
from suitkaise import xprocess

def work():
    return 1

{call}
""")
    (tmp_path / "main.py").write_text("import jobs\n")
    ended = run_program(tmp_path / "main.py")
    assert ended.returncode == 1
    assert "into a function that the main program calls, or under `if __name__ == '__main__':`" in ended.stderr
    assert ended.left_behind == []


def test_a_program_waits_for_its_threads_and_their_recalls() -> None:
    ended = run_program("""
from suitkaise import skthreading
import threading

def work():
    threading.Event().wait(0.2)
    print("thread", skthreading.get_thread_name(), skthreading.get_current_loop())

skthreading.create_thread("worker", work, kwargs={"join_after": 2})
print("main ends")
""").check()
    assert ended.stdout.splitlines() == ["main ends", "thread worker 1", "thread worker 2"]


def test_a_process_that_multiprocessing_spawns_makes_processes_of_its_own() -> None:
    """The file of the program runs there as the module `__mp_main__`, which no worker can import."""
    ended = run_program("""
import multiprocessing
from dataclasses import dataclass
from suitkaise import xprocess

@dataclass
class Size:
    width: int

class Wide(xprocess.Process):
    num_loops = 1
    def loop(self):
        return Size(30)

def double(size, factor):
    return Size(size.width * factor)

def main():
    xp = xprocess.CrossProcessing()
    with xp.ProcessSetup() as setup:
        with xp.OnStart():
            factor = 2
    process = xp.create_process(double, setup.build(), args=(Size(10),), kwargs={"join_after": 1})
    print(process.result(20.0) == Size(20), xp.create_process(Wide).result(20.0) == Size(30))

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=main)
    process.start()
    process.join(25.0)
    print(process.exitcode)
""").check()
    assert ended.stdout.splitlines() == ["True True", "0"]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_that_multiprocessing_has_forked_waits_for_what_it_has_made(method: str) -> None:
    ended = run_program(
        """
import multiprocessing
import sys
from suitkaise import skthreading, xprocess

def note(what):
    print(f"{what}\\n", end="", flush=True)  # in one piece: two processes write at once

def main():
    xprocess.CrossProcessing().create_process(note, args=("process",), kwargs={"join_after": 3})
    skthreading.create_thread(note, args=("thread",), kwargs={"join_after": 3})

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=main)
    process.start()
    process.join(25.0)
    print(process.exitcode)
""",
        method,
    ).check()
    assert sorted(ended.stdout.split()) == ["0", *["process"] * 3, *["thread"] * 3]


def test_a_process_that_is_forked_during_a_shutdown_makes_threads_and_processes_of_its_own() -> None:
    ended = run_program("""
import os
import signal
import threading
from suitkaise import skthreading, xprocess

asked, done = threading.Event(), threading.Event()

class Slow(skthreading.SKThread):
    def loop(self):
        self.wait(20.0)  # until it is asked to finish
        asked.set()
        done.wait(20.0)

xp = xprocess.CrossProcessing()
xp.create_process(abs, args=(-5,), kwargs={"join_after": 1})
skthreading.create_thread("slow", Slow)
ending = threading.Thread(target=skthreading.shutdown)
ending.start()
asked.wait(20.0)
child = os.fork()
if not child:
    signal.alarm(20)
    print(skthreading.create_thread(abs, args=(-6,)).result(10.0), flush=True)
    skthreading.shutdown()
    print(xp.create_process(abs, args=(-7,), kwargs={"join_after": 1}).result(10.0), flush=True)
    xp.shutdown()
    os._exit(0)
print(os.waitpid(child, 0)[1])
done.set()
ending.join()
print(skthreading.get_status("slow"), xp.get_process_result("abs"))
""").check()
    assert ended.stdout.split() == ["6", "7", "0", "finished", "5"]

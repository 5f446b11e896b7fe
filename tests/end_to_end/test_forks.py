"""Forks by the user: of a program while its tree runs, and in a worker; multiprocessing in both."""

import contextlib
import multiprocessing
import os
import signal
import threading
from typing import Any

import pytest

from suitkaise import Child, Process, Supervisor, Thread
from tests.sample_workers import Echo
from tests.support import ROOT, run_program, start_program, wait_gone

BEGIN = """
import multiprocessing, os, signal, sys, time
from suitkaise import Child, Process, Reject, RuntimeGone, Supervisor, Thread

class Echo(Process):
    def on_start(self):
        os.write(1, f"up {os.getpid()} {os.getppid()}\\n".encode())
    def on_receive(self, message):
        return message

def double(n):
    return 2 * n

def use_multiprocessing(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(double, [1, 2, 3])

def main():
"""
END = "\nif __name__ == '__main__':\n    main()\n"


def program(body: str) -> str:
    lines = [f"    {line}" for line in body.strip().splitlines()]
    return BEGIN + "\n".join(lines) + END


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_program_may_use_multiprocessing_itself(method):
    source = program(f"""
with Supervisor("tree", Echo()).start() as running:
    print(use_multiprocessing({method!r}))
    print(running["echo"].ask("still well"))
print(use_multiprocessing({method!r}))
with Supervisor("tree", Echo()).start() as running:
    print(running["echo"].ask("again"))
""")
    out = run_program(source).check().stdout.splitlines()
    assert [line for line in out if not line.startswith("up")] == ["[2, 4, 6]", "still well", "[2, 4, 6]", "again"]


def test_the_workers_end_with_the_hub_while_a_forked_child_of_the_hub_still_runs():
    source = program("""
running = Supervisor("tree", Echo()).start()
child = os.fork()
if child == 0:
    time.sleep(3600)
print("forked", child)
while True:
    signal.pause()
""")
    with start_program(source) as it:
        worker, keeper = map(int, it.expect("up").split()[1:])
        child = int(it.expect("forked").split()[1])
        it.send_signal(signal.SIGKILL)
        wait_gone(worker, 3)
        wait_gone(keeper, 3)
        os.kill(child, signal.SIGKILL)
        wait_gone(child)


def test_the_tree_runs_on_however_a_forked_child_ends():
    source = program("""
with Supervisor("tree", Echo()).start() as running:
    for end in (lambda: os._exit(0), lambda: sys.exit(0), lambda: os.kill(os.getpid(), 9)):
        child = os.fork()
        if child == 0:
            end()
        os.waitpid(child, 0)
        print(running["echo"].ask("still well"))
""")
    assert run_program(source, timeout=15).check().stdout.count("still well") == 3


def test_a_forked_child_can_start_a_tree_of_its_own():
    source = program("""
with Supervisor("tree", Echo()).start() as running:
    child = os.fork()
    if child == 0:
        with Supervisor("tree", Echo()).start() as own:
            os.write(1, own["echo"].ask("the child's own").encode() + b"\\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(running["echo"].ask("the parent's"))
""")
    out = run_program(source, timeout=15).check().stdout
    assert "the child's own" in out
    assert "the parent's" in out


def test_a_forked_child_that_uses_the_tree_of_its_parent_gets_an_error():
    source = program("""
with Supervisor("tree", Echo()).start() as running:
    child = os.fork()
    if child == 0:
        for attempt in (running.stop, lambda: running["echo"].ask(1), lambda: running.terminate_child("echo")):
            try:
                attempt()
            except RuntimeGone:
                os.write(1, b"refused\\n")
        os._exit(0)
    os.waitpid(child, 0)
    print(running["echo"].ask("still well"))
""")
    out = run_program(source, timeout=15).check().stdout
    assert out.count("refused") == 3
    assert "still well" in out


def test_a_child_forked_while_another_thread_connects_to_the_storage_can_connect_itself():
    source = program("""
from suitkaise import sktree
from suitkaise.storage import connect
with sktree._lock:  # that of a thread that connects
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        sktree.connect().add("a", 1, path="p")
        sktree.disconnect()
        connect.detach("nowhere")
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")
    run_program(source, timeout=30).check()


def test_a_child_forked_while_another_thread_calls_the_hub_can_call_it_itself():
    source = program("""
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
client = HubClient("/nowhere")
with client._lock:  # a thread that connects holds it
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            client.request(RequestKind.STORAGE, "")
        except RuntimeGone:
            os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")
    run_program(source, timeout=30).check()


class UsesMultiprocessing(Process):
    def on_receive(self, method):
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(abs, [-1, -2])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_may_use_a_multiprocessing_pool(method):
    with Supervisor("tree", UsesMultiprocessing()).start() as running:
        assert running["uses_multiprocessing"].ask(method, timeout=15) == [1, 2]


class ForksAndTerminates:
    def on_receive(self, count):
        return [self.ended(self.forked()) for _ in range(count)]

    def forked(self):
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        os.kill(child, signal.SIGTERM)  # perhaps before the child has run its first line
        return child

    def ended(self, child):
        with contextlib.suppress(AssertionError):
            wait_gone(child, 5)
        os.kill(child, signal.SIGKILL)
        return -os.waitpid(child, 0)[1]


class ForksInAProcess(ForksAndTerminates, Process):
    pass


class ForksFromAThread(ForksAndTerminates, Thread):
    """Forks in the program itself, where `run()` handles the signals."""

    restart = "transient"
    significant = True

    def loop(self):
        print("ended by", sorted(set(self.on_receive(50))), flush=True)
        self.rejoin()


def test_a_process_that_a_thread_of_the_program_has_forked_this_moment_obeys_sigterm():
    source = (
        "from suitkaise import Supervisor\nfrom tests.end_to_end.test_forks import ForksFromAThread\n"
        "Supervisor('tree', ForksFromAThread(), auto_shutdown='any_significant').run()"
    )
    assert run_program(source, timeout=40, env={"PYTHONPATH": str(ROOT)}).check().stdout == "ended by [-15]\n"


def test_a_process_that_a_worker_has_forked_this_moment_obeys_sigterm():
    with Supervisor("tree", ForksInAProcess()).start() as running:
        assert set(running["forks_in_a_process"].ask(50, timeout=40)) == {-signal.SIGTERM}


class ForksAndLogs(Process):
    def on_receive(self, count):
        import logging

        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                for n in range(count):
                    logging.getLogger("forked").warning("a line of the child, number %d", n)
                os._exit(0)
            children.append(child)
        for n in range(count):
            logging.getLogger("forker").warning("a line of the worker, number %d", n)
        return [os.waitpid(child, 0)[1] for child in children]


def test_log_lines_of_a_forked_child_do_not_harm_the_connection_of_its_worker(caplog):
    with Supervisor("tree", Child(ForksAndLogs)).start() as running:
        assert running["forks_and_logs"].ask(200, timeout=15) == [0, 0]
        assert running["forks_and_logs"].ask(0) == [0, 0]
        assert running.which_children()[0].restarts == 0
    assert sum(record.name == "forker" for record in caplog.records) == 200


def reports_and_waits(pipe: Any) -> None:
    pipe.send("up")
    threading.Event().wait()


def exit_code_of_a_terminated_child() -> int | None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with ours, theirs:
        child = context.Process(target=reports_and_waits, args=(theirs,))
        child.start()
        ours.recv()
    child.terminate()
    child.join(3.0)
    code = child.exitcode
    child.kill()
    child.join()
    return code


class TerminatesAChild(Process):
    def on_receive(self, message: Any) -> int | None:
        return exit_code_of_a_terminated_child()


def test_processes_that_a_worker_forks_can_be_terminated() -> None:
    with Supervisor("app", Child(TerminatesAChild, id="worker")).start() as running:
        assert running["worker"].ask("terminate a child") == -15


def test_processes_that_a_program_forks_while_it_runs_a_tree_can_be_terminated() -> None:
    codes: list[int | None] = []

    class Forks(Thread):
        restart = "transient"
        significant = True

        def loop(self) -> None:
            codes.append(exit_code_of_a_terminated_child())
            self.rejoin()

    Supervisor("app", Forks, auto_shutdown="any_significant").run()
    assert codes == [-15]


def test_a_forked_child_that_leaves_the_with_block_of_a_tree_stops_nothing() -> None:
    with Supervisor("app", Echo).start() as running:
        child = multiprocessing.get_context("fork").Process(target=running.__exit__, args=(None, None, None))
        child.start()
        child.join(15)
        code = child.exitcode
        child.kill()
        child.join()
        assert code == 0
        assert running["echo"].ask(1) == 1


FORKING = """
import time

class Forking:
    runs = 0

    def ends(self, how):
        match how:
            case "exit": sys.exit(3)
            case "text": sys.exit("a text")
            case "raise": raise ValueError("the fork fails")
            case "reject": raise Reject("no")
            case "force": self.force_finish()
            case "rejoin": self.rejoin()

    def forked(self, how):
        child = os.fork()
        if child == 0:
            self.ends(how)
            return None
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def on_finish(self):
        os.write(1, b"on_finish\\n")

class P(Forking, Process):
    def on_receive(self, how): return self.forked(how)
class T(Forking, Thread):
    def on_receive(self, how): return self.forked(how)
class A(Forking, Process):
    async def on_receive(self, how): return self.forked(how)
"""


@pytest.mark.parametrize("kind", ["P", "T", "A"])
def test_a_fork_of_a_worker_ends_where_the_hook_ends_with_its_own_exit_code(kind):
    source = program(f"""{FORKING}
with Supervisor("tree", Child({kind}, id="w")).start() as running:
    for how in ("exit", "text", "raise", "reject", "force", "rejoin", "return"):
        print(how, running["w"].ask(how, timeout=30))
    print("incarnation", running["w"].incarnation, "crashes", running.crashes())
""")
    done = run_program(source, timeout=60).check()
    assert done.stdout.split("\n")[:-1] == [
        "exit 3", "text 1", "raise 1", "reject 1", "force 0", "rejoin 0", "return 0", "incarnation 1 crashes []",
        "on_finish",
    ]  # fmt: skip
    assert "ValueError: the fork fails" in done.stderr
    assert "a text" in done.stderr


def test_a_fork_in_any_hook_of_a_worker_runs_no_other_hook_and_reports_nothing():
    source = program("""
class Hooks(Process):
    restart = "transient"
    def fork(self):
        if (child := os.fork()) != 0:
            os.write(1, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])} ".encode())
    def on_start(self): self.fork()
    def before_loop(self): self.fork()
    def loop(self): self.fork()
    def after_loop(self): self.fork()
    def on_finish(self): self.fork()
    def result(self):
        self.fork()
        return self.current_loop
with Supervisor("tree", Child(Hooks, join_after=2)).start() as running:
    print("result", running["hooks"].result(30), running["hooks"].incarnation)
""")
    assert run_program(source, timeout=60).check().stdout == "0 " * 9 + "result 2 1\n"


def test_a_process_that_a_worker_has_forked_with_a_terminal_reads_it():
    source = program("""
import pty

class Asks(Process):
    def loop(self):
        child, terminal = pty.fork()
        if child == 0:
            print("hello", input())
            breakpoint()
            os._exit(0)
        os.write(terminal, b"world\\np 6 * 7\\nc\\n")
        read = b""
        try:
            while data := os.read(terminal, 1000):
                read += data
        except OSError:  # the child has ended
            os.waitpid(child, 0)
        self.rejoin()
        print(read.decode(), flush=True)

Supervisor("tree", Child(Asks, restart="temporary", significant=True), auto_shutdown="any_significant").run()
""")
    lines = run_program(source, env={"PYTHON_BASIC_REPL": "1"}).check().stdout.splitlines()
    assert "hello world" in lines
    assert "42" in lines  # the answer of pdb, which draws its lines itself from Python 3.15 on, unless told not to


def test_a_worker_reads_what_it_has_put_in_the_place_of_its_standard_input():
    source = program("""
class Reads(Process):
    def loop(self):
        reading, writing = os.pipe()
        os.write(writing, b"a line\\n")
        os.dup2(reading, 0)
        self.rejoin()
        print("read", input(), flush=True)

Supervisor("tree", Child(Reads, restart="temporary", significant=True), auto_shutdown="any_significant").run()
""")
    assert run_program(source).check().stdout == "read a line\n"


def test_a_program_that_a_process_of_the_tree_executes_inherits_no_descriptor_of_this_library():
    source = program("""
import contextlib, psutil
from suitkaise import Command, sktree

class Runs(Process):
    def on_receive(self, message):
        return self.tree.get("here", path="")

def inherited(pid):
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                flags = int(file.read().split("flags:")[1].split()[0], 8)
            if int(name) > 2 and not flags & os.O_CLOEXEC:
                yield os.readlink(f"/proc/{pid}/fd/{name}")

storage = sktree.connect()
storage.add_to_root("here", 1)
storage.get("here", path="")
with Supervisor("tree", Runs, Child(Runs, id="spared", spares=1), Command("sleep", "60")).start() as running:
    for name in ("runs", "spared"):
        running[name].kill()
        while running[name].incarnation < 2:
            time.sleep(0.01)
        running[name].ask("read", timeout=20)
    for one in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            print(one.name(), *inherited(one.pid))
""")
    lines = run_program(source).check().stdout.splitlines()
    assert {"sk:keeper", "sk:runs", "sk:spared", "sk:storage", "sk:sleep"} <= {line.split()[0] for line in lines}
    assert [line for line in lines if " " in line] == []


def test_a_worker_gets_a_keyboard_interrupt_only_with_the_usual_handler_and_its_forks_have_that_one():
    source = program("""
import _thread

def interrupted():
    try:
        _thread.interrupt_main()
        time.sleep(0)  # a signal's handler runs before the next line, at the latest
        return False
    except KeyboardInterrupt:
        return True

class Interrupts(Process):
    def loop(self):
        before = interrupted()
        if (child := os.fork()) == 0:
            os._exit(interrupted())
        forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(before, forked, interrupted(), flush=True)
        self.rejoin()

Supervisor("tree", Child(Interrupts, restart="temporary", significant=True), auto_shutdown="any_significant").run()
""")
    assert run_program(source).check().stdout == "False 1 True\n"

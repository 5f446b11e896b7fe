"""Programs from a file without main guard, `-c`, stdin, pytest or a notebook, and in unusual surroundings."""

import os
import signal
import socket
import sys
import textwrap

import pytest

from suitkaise import Child, Process, Supervisor
from tests.end_to_end.scene import PROGRAMS, directories_of, up
from tests.support import run_program, start_program, wait_gone

PROGRAM = """
import os
from suitkaise import Process, Supervisor

class Base:
    word = "hello"

class Echo(Process, Base):
    def on_receive(self, message):
        return f"{self.word} {message} {os.getpid() != hub}"

hub = os.getpid()
with Supervisor("tree", Echo()).start() as running:
    print(running["echo"].ask("world"))
"""


def test_a_class_in_main_needs_no_guard():
    assert run_program(PROGRAM).check().stdout == "hello world True\n"


def test_a_program_given_by_python_c_can_run_a_tree():
    assert run_program([sys.executable, "-c", PROGRAM]).check().stdout == "hello world True\n"


def test_a_program_may_have_a_module_named_resource(tmp_path):
    (tmp_path / "resource.py").write_text("word = 'mine'")
    (tmp_path / "app.py").write_text("import resource\n" + PROGRAM + "print(resource.word)\n")
    assert run_program(tmp_path / "app.py").check().stdout == "hello world True\nmine\n"


def test_a_program_read_from_standard_input_can_run_a_tree(tmp_path):
    file = tmp_path / "program"
    file.write_text(PROGRAM)
    assert run_program(["sh", "-c", f"{sys.executable} < {file}"]).check().stdout == "hello world True\n"


def test_workers_find_a_sibling_module_in_a_relative_working_folder(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "data").write_text("42")
    (tmp_path / "app" / "sibling.py").write_text(
        "from suitkaise import Process\n\nclass Reads(Process):\n"
        "    def on_receive(self, name):\n        return open(name).read()\n"
    )
    (tmp_path / "app" / "main.py").write_text(
        "from sibling import Reads\nfrom suitkaise import Supervisor\n"
        "with Supervisor('tree', Reads()).start() as running:\n    print(running['reads'].ask('data'))\n"
    )
    done = run_program([sys.executable, "app/main.py"], cwd=tmp_path).check()
    assert done.stdout == "42\n"


def test_modules_of_the_working_folder_do_not_hide_the_standard_library(tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')")
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    assert run_program([sys.executable, str(program)], cwd=tmp_path).check().stdout == "hello world True\n"


def test_a_program_whose_working_folder_was_removed_can_run_a_tree(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import os\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n{PROGRAM}"
    assert run_program(program, timeout=10).check().stdout == "hello world True\n"


def test_a_program_that_ignores_sigchld_and_blocks_sigterm_can_run_a_tree():
    program = (
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n"
        f"{PROGRAM}"
        "    with running.events() as events:\n"
        "        os.kill(running['echo'].pid, signal.SIGTERM)\n"
        "        print(events.get(15))\n"
    )
    out = run_program(program, timeout=10).check().stdout
    assert "echo ended" in out
    assert "signal 15 (SIGTERM)" in out


def test_a_program_in_which_all_warnings_are_errors_restarts_a_killed_worker_and_waits_for_a_socket(tmp_path):
    program = f"""
import os, signal, sys
from pathlib import Path
from suitkaise import Command, Process, Supervisor, WorkerDead

class Echo(Process):
    def on_receive(self, message):
        return os.getpid() if message == "pid" else message

listen = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); time.sleep(100)"
command = Command(sys.executable, "-c", listen, cwd={str(tmp_path)!r}, ready=Path({str(tmp_path / "s")!r}))
with Supervisor("tree", Echo, command).start() as running:
    os.kill(running["echo"].ask("pid"), signal.SIGKILL)
    for _ in range(2):  # the first one may be lost with the worker
        try:
            print(running["echo"].ask("hello"))
            break
        except WorkerDead:
            pass
"""
    file = tmp_path / "app.py"
    file.write_text(program)
    done = run_program([sys.executable, "-X", "warn_default_encoding", "-W", "error", file]).check()
    assert done.stdout == "hello\n"


def test_two_programs_at_once_share_nothing():
    with (
        start_program(PROGRAMS / "kinds.py", "run", "waits", "loops") as one,
        start_program(PROGRAMS / "kinds.py", "wait", "waits") as two,
    ):
        first, _ = up(one, "waits")
        second, _ = up(two, "waits")
        one.send_signal(signal.SIGINT)
        assert one.wait() == 0
        wait_gone(first)
        os.kill(second, 0)
        assert directories_of(one.pid) == []
        assert len(directories_of(two.pid)) == 1
        two.send_signal(signal.SIGTERM)
        two.wait()


def test_many_programs_can_begin_and_end_at_once():
    commands = " & ".join(
        [f"{sys.executable} -c 'from suitkaise import Supervisor; Supervisor(\"t\").start().stop()'"] * 6
    )
    done = run_program(["sh", "-c", f"{commands}; wait"], timeout=120).check()
    assert done.stderr == ""


class Accepts(Process):
    def __init__(self, listener):
        self.listener = listener

    def loop(self):
        connection, _ = self.listener.accept()
        with connection:
            connection.sendall(b"%d" % os.getpid())


def test_a_listening_socket_as_an_argument_survives_restarts():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = Child(Accepts, args=(listener,), shutdown="brutal_kill")
        with Supervisor("tree", child).start() as running:
            answers = []
            for _ in range(2):
                with socket.create_connection(listener.getsockname(), timeout=15) as connection:
                    connection.settimeout(5)
                    answers.append(int(connection.recv(99)))
                os.kill(answers[-1], signal.SIGKILL)
                wait_gone(answers[-1])
            assert answers[0] != answers[1]
            assert running["accepts"].path == "tree/accepts"


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_a_test_module_can_run_a_tree_of_its_own_classes(tmp_path, mode):
    (tmp_path / "test_it.py").write_text(
        "from suitkaise import Process, Supervisor\n\n"
        "class Double(Process):\n    def on_receive(self, n):\n        return 2 * n\n\n"
        "def test_double():\n    with Supervisor('tree', Double()).start() as running:\n"
        "        assert running['double'].ask(21) == 42\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", f"--import-mode={mode}", "-p", "no:cacheprovider", "test_it.py"]
    done = run_program(command, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    done.check()


def test_a_notebook_can_run_a_tree(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    script = textwrap.dedent(
        """
        import nbformat, nbclient
        cells = [
            "from suitkaise import Process, Supervisor",
            "class Double(Process):\\n    def on_receive(self, n):\\n        return 2 * n",
            "running = Supervisor('tree', Double()).start(); running['double'].ask(21)",
            "running = Supervisor('tree', Double()).start(); running['double'].ask(22)",
            "running",
            "running.stop()",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbclient.NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
        print(notebook.cells[2].outputs[0]["data"]["text/plain"])
        told, answer = notebook.cells[3].outputs
        print(told["text"], answer["data"]["text/plain"])
        print("<td>running</td>" in notebook.cells[4].outputs[0]["data"]["text/html"])
        """
    )
    env = {"IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    assert run_program(script, env=env, timeout=50).check().stdout.splitlines() == [
        "42",
        "a tree named 'tree' runs already in this session; it is stopped, and replaced by this one",
        " 44",
        "True",
    ]


SLOW = """
import time
from suitkaise import Child, Process, Supervisor

class Slow(Process):
    def on_start(self):
        print("starts", flush=True)
        time.sleep(3600)

print(Supervisor("tree", Child(Slow, shutdown=0.1)).run(), flush=True)
print("cleaned up")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_returns_the_reason_when_a_signal_arrives_during_the_start(number):
    with start_program(SLOW) as it:
        it.expect("starts")
        it.send_signal(number)
        assert it.wait() == 0
    assert it.stdout.endswith(f"shutdown (signal {number:d} ({number.name}))\ncleaned up\n")


def test_run_keeps_sigint_ignored_in_a_program_that_ignores_it():
    with start_program(f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{SLOW}") as it:
        it.expect("starts")
        it.send_signal(signal.SIGINT)
        it.send_signal(signal.SIGTERM)
        assert it.wait() == 0
    assert "shutdown (signal 15 (SIGTERM))\n" in it.stdout

"""Workers and commands inherit what the program has at the moment of their start."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import sys

import pytest

from suitkaise import Child, Command, Process, Supervisor
from tests.end_to_end.kinds import kill_the_keeper
from tests.support import eventually, run_program


class Teller(Process):
    """Tells what its process has."""

    def on_start(self) -> None:
        self.first = os.environ.get("SK_TEST")

    def on_receive(self, message):
        umask = os.umask(0)
        os.umask(umask)
        return self.first, oct(umask), resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(0)[0]


@pytest.fixture
def surroundings(monkeypatch):
    """Change the variable SK_TEST, the umask and a limit of this process; undo that at the end."""
    umask, limit = os.umask(0o022), resource.getrlimit(resource.RLIMIT_NOFILE)
    os.umask(umask)

    def change(value: str | None, mask: int, files: int) -> None:
        if value is None:
            monkeypatch.delenv("SK_TEST", raising=False)
        else:
            monkeypatch.setenv("SK_TEST", value)
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, limit[1]))

    yield change
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def restarted(running, id: str):
    ref = running[id]
    incarnation = ref.incarnation
    ref.kill()
    eventually(lambda: ref.incarnation > incarnation and ref.status == "running")
    return ref.ask("what?")


@pytest.mark.parametrize("spares", [0, 1])
def test_s75_a_restarted_worker_has_what_the_program_has_at_that_moment(surroundings, spares):
    surroundings("first", 0o022, 900)
    with Supervisor("tree", Child(Teller, spares=spares), max_restarts=9).start() as running:
        assert running["teller"].ask("what?")[:3] == ("first", "0o22", 900)
        surroundings("second", 0o077, 800)
        assert restarted(running, "teller")[:3] == ("second", "0o77", 800)
        surroundings(None, 0o027, 850)
        assert restarted(running, "teller")[:3] == (None, "0o27", 850)
        kill_the_keeper()
        surroundings("third", 0o022, 900)
        assert restarted(running, "teller")[:3] == ("third", "0o22", 900)


def test_s75_a_command_has_what_the_program_has_at_that_moment(surroundings, tmp_path):
    out = tmp_path / "out"
    show = Command("sh", "-c", f"echo $SK_TEST $(umask) $(ulimit -n) >> {out}", name="show")
    with Supervisor("first", Command("sleep", "600")).start():
        surroundings("changed", 0o077, 800)
        with Supervisor("second", Child(show, restart="temporary")).start():
            eventually(lambda: out.exists() and out.read_text())
    assert out.read_text() == "changed 0077 800\n"


def test_s75_a_child_has_variables_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "reads_env.py").write_text(
        "import os\nfrom suitkaise import Process\nAT_IMPORT = os.environ.get('SK_TEST')\n"
        "class Reader(Process):\n"
        "    def on_receive(self, message):\n        return AT_IMPORT, os.environ['SK_TEST'], os.environ['HOME']\n"
    )
    program = (
        "import os\nfrom suitkaise import Child, Supervisor\nfrom reads_env import Reader\n"
        "tree = Supervisor('tree', Child(Reader, id='a', env={'SK_TEST': 'own', 'HOME': '/x'}, spares=1),"
        " Child(Reader, id='b', env={'SK_TEST': 'other'}))\n"
        "with tree.start() as running:\n"
        "    print(running['a'].ask(1), running['b'].ask(1)[:2], os.environ.get('SK_TEST'))\n"
        "    running['a'].recall()\n    print(running['a'].ask(1))\n"
    )
    (tmp_path / "program.py").write_text(program)
    ended = run_program([sys.executable, "program.py"], cwd=tmp_path).check()
    assert ended.stdout == "('own', 'own', '/x') ('other', 'other') None\n('own', 'own', '/x')\n"


def test_s75_the_variables_of_a_command_go_before_those_of_its_child(tmp_path):
    out = tmp_path / "out"
    command = Command("sh", "-c", f"echo $SK_TEST $SK_OTHER >> {out}", name="show", env={"SK_TEST": "command"})
    child = Child(command, restart="temporary", env={"SK_TEST": "child", "SK_OTHER": "child"})
    with Supervisor("tree", child).start():
        eventually(lambda: out.exists() and out.read_text())
    assert out.read_text() == "command child\n"


CHANGES_ITS_GROUP = """
import os
from suitkaise import Child, Command, Process, Supervisor

class Who(Process):
    def on_receive(self, message):
        return os.getegid(), os.getgroups(), os.getppid()

with Supervisor("a", Child(Who, spares=1)).start() as a:
    before = a["who"].ask(1)
    os.setgroups([])
    os.setresgid(65534, 65534, 0)
    with Supervisor("b", Child(Who), Command("sleep", "600")).start() as b:
        after = b["who"].ask(1)
        print(after[:2], before[2] == after[2])
        print(a["who"].ask(1) == before)
        a["who"].recall()
        print(a["who"].ask(1)[:2])
        os.setresgid(0, 0, 0)
        b["who"].recall()
        print(b["who"].ask(1)[0])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up a group")
def test_s75_a_program_that_has_changed_its_groups_gets_a_new_keeper_for_later_starts():
    ended = run_program(CHANGES_ITS_GROUP).check()
    assert ended.stdout == "(65534, []) False\nTrue\n(65534, [])\n0\n"


GIVES_UP_ROOT = """
import os, signal, sys
from suitkaise import Child, Process, Supervisor, whereis

class Who(Process):
    def on_receive(self, message):
        return os.getuid(), whereis("a/hangs").status.value  # over a connection that is made only now

    def on_finish(self):
        if self.name == "hangs":
            signal.pause()

a = Supervisor("a", Who, Child(Who("hangs"), shutdown=0.5)).start()
os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
with Supervisor("b", Child(Who)).start() as b:
    print(a["who"].ask(1), b["who"].ask(1))
print(a.stop().clean)
"""


def _open_interpreter() -> str | None:
    """Return an interpreter of this version that any user may run."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return shutil.which(name, path="/usr/bin:/usr/local/bin")


@pytest.mark.skipif(os.getuid() != 0 or _open_interpreter() is None, reason="needs root, and an open interpreter")
def test_s75_a_program_that_has_given_up_root_starts_workers_and_ends_those_of_root(tmp_path):
    (tmp_path / "program.py").write_text(GIVES_UP_ROOT)
    program = [str(_open_interpreter()), str(tmp_path / "program.py")]
    path = os.pathsep.join(filter(None, sys.path))
    ended = run_program(program, env={"PYTHONPATH": path, "XDG_RUNTIME_DIR": None}).check()  # others may not enter ours
    assert ended.stdout == "(0, 'running') (65534, 'running')\nTrue\n"


class Collects(Process):
    def on_receive(self, message):
        return gc.isenabled(), gc.get_freeze_count() > 0


def test_the_garbage_collector_of_a_worker_runs_and_leaves_out_what_was_imported_before_it():
    with Supervisor("app", Collects).start() as running:
        assert running["collects"].ask("what?") == (True, True)

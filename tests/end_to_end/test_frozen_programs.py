"""Programs without an interpreter: frozen ones, whose `sys.executable` is the program itself, and embedded ones."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import run_program

FROZEN = f"""#!{sys.executable}
import os, sys
sys.frozen, sys.executable = True, os.path.abspath(__file__)  # as PyInstaller has it
sys.path.insert(0, os.path.dirname(sys.executable))
open("starts", "a").write("started\\n")
import app
app.main()
"""

APP = """
import os, threading
from suitkaise import Child, Command, Process, Supervisor
from app_worker import Echo


def imports_in_a_thread():
    import app, suitkaise
    return suitkaise.Process.__name__, app.__name__


class Importer(Process):
    def on_receive(self, message):
        found = []
        thread = threading.Thread(target=lambda: found.append(imports_in_a_thread()))
        thread.start()
        thread.join(10)
        return found


def main():
    with Supervisor("tree", Echo, Importer, Command("sleep", "600"), max_restarts=9).start() as running:
        print(running["echo"].ask("hello"), running["importer"].ask("?"))
        running["echo"].kill()
        print(running["echo"].ask("again"))
    print("done")
"""

WORKER = """
from suitkaise import Process


class Echo(Process):
    def on_receive(self, message):
        return message
"""


def test_a_frozen_program_runs_a_tree_and_starts_itself_only_as_a_keeper(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(FROZEN)
    program.chmod(0o755)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app_worker.py").write_text(WORKER)
    ended = run_program([str(program)], cwd=tmp_path).check()
    assert ended.stdout == "hello [('Process', 'app')]\nagain\ndone\n"
    assert "tree/echo ended" in ended.stderr  # and is restarted
    assert len(ended.stderr.splitlines()) == 2


WITHOUT = """
import sys
from suitkaise import Process, Supervisor, SuitkaiseError
sys.executable = ""
try:
    Supervisor("tree", Process).start()
except SuitkaiseError as error:
    print(error)
"""


def test_without_an_interpreter_a_start_is_an_error_that_tells_what_to_do() -> None:
    printed = run_program(WITHOUT).check().stdout
    assert "sys.executable is empty" in printed
    assert "set sys.executable to the path of an interpreter" in printed

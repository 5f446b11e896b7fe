"""Folders and files may have any bytes in their names, also such as are no UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import run_program

PROGRAM = """
import sys
from suitkaise import Process, Supervisor, sktree

class Work(Process):
    def on_receive(self, message):
        self.tree.add("entry", message, path="results")
        return sys.path[0]

tree = sktree.connect(engine=sys.argv[1])
with Supervisor("app", Work).start() as running:
    assert running["work"].ask("done") == sys.path[0]
tree.snapshot("copy-\\udce9")
tree.remove("entry", path="results")
print(tree.restore("copy-\\udce9"), tree.get("entry", path="results"))
sktree.disconnect()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / os.fsdecode(b"caf\xe9")
    made.mkdir(mode=0o700)
    (made / "app.py").write_text(PROGRAM, encoding="utf-8")
    return made


@pytest.mark.parametrize("engine", ["lmdb", "sqlite"])
def test_a_program_in_a_folder_whose_name_is_no_text_uses_the_storage(folder: Path, engine: str) -> None:
    program = run_program(folder / "app.py", engine, env={"XDG_RUNTIME_DIR": str(folder)}, cwd=folder)
    assert program.check().stdout == "1 done\n"

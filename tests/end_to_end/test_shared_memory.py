"""Shared memory of `multiprocessing`: a program and its workers have one resource tracker."""

from __future__ import annotations

import pytest

from tests.support import run_program

WORKERS = """
from suitkaise import Child, Process, Supervisor

class Holder(Process):
    restart = "temporary"

    def on_receive(self, message):
        from multiprocessing import shared_memory
        match message:
            case ["attach", name]:
                self.memory = shared_memory.SharedMemory(name=name)
                self.memory.buf[0] += 1
                return self.memory.buf[0]
            case "create":
                self.memory = shared_memory.SharedMemory(create=True, size=100)
                return self.memory.name
            case ["spawn", name]:
                import multiprocessing
                process = multiprocessing.get_context("spawn").Process(target=attach, args=(name,))
                process.start()
                process.join()
            case ["fork", name]:
                import os, warnings
                warnings.simplefilter("ignore", DeprecationWarning)  # a worker has several threads
                child = os.fork()
                if child == 0:
                    attach(name)
                    os._exit(0)
                os.waitpid(child, 0)
            case "unlink":
                self.memory.unlink()
"""

ATTACH = """
def attach(name):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(name=name)
    memory.buf[0] += 1
    memory.close()
"""

IMPORTED = "from multiprocessing import shared_memory\n"

OF_THE_PROGRAM = """
with Supervisor("tree", Child(Holder, copies=2)).start() as running:
    LATER
    memory = shared_memory.SharedMemory(create=True, size=100)
    for id in ("holder-0", "holder-1"):
        running[id].ask(["attach", memory.name], timeout=20)
        running[id].HOW()
        running[id].join()
again = shared_memory.SharedMemory(name=memory.name)
print(again.buf[0])
again.close()
memory.close()
memory.unlink()
"""


def without_log(stderr: str) -> str:
    """Return what a program has written besides the lines about its workers."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("tree/"))


@pytest.mark.parametrize("how", ["rejoin", "kill"])
@pytest.mark.parametrize("imported", ["before", "after"])
def test_shared_memory_of_the_program_outlives_the_workers_that_have_used_it(imported, how):
    before, later = (IMPORTED, "pass") if imported == "before" else ("", IMPORTED.strip())
    program = before + WORKERS + OF_THE_PROGRAM.replace("HOW", how).replace("LATER", later)
    ended = run_program(program).check()
    assert (ended.stdout, without_log(ended.stderr)) == ("2\n", "")


OF_A_WORKER = """
with Supervisor("tree", Child(Holder, copies=3)).start() as running:
    name = running["holder-0"].ask("create", timeout=20)
    running["holder-1"].ask(["attach", name], timeout=20)
    running["holder-1"].kill()
    running["holder-1"].join()
    print(running["holder-2"].ask(["attach", name], timeout=20))
    running["holder-2"].rejoin()
    running["holder-2"].join()
    running["holder-0"].ask("unlink")
"""


def test_shared_memory_of_a_worker_outlives_the_others_that_have_used_it():
    ended = run_program(WORKERS + OF_A_WORKER).check()
    assert (ended.stdout, without_log(ended.stderr)) == ("2\n", "")


OF_A_KILLED_WORKER = """
with Supervisor("tree", Child(Holder, copies=2)).start() as running:
    name = running["holder-0"].ask("create", timeout=20)
    running["holder-0"].kill()
    running["holder-0"].join()
    print(running["holder-1"].ask(["attach", name], timeout=20))
"""


def test_shared_memory_of_a_killed_worker_is_removed_at_the_end_of_the_program():
    ended = run_program(WORKERS + OF_A_KILLED_WORKER).check()
    assert ended.stdout == "1\n"
    assert "1 leaked shared_memory objects" in ended.stderr


BY_ITS_CHILDREN = """
import sys
sys.path.insert(0, sys.argv[1])
from attaching import attach
from multiprocessing import shared_memory

memory = shared_memory.SharedMemory(create=True, size=100)
with Supervisor("tree", Holder).start() as running:
    running["holder"].ask(["HOW", memory.name], timeout=20)
    running["holder"].rejoin()
    running["holder"].join()
print(memory.buf[0])
again = shared_memory.SharedMemory(name=memory.name)
again.close()
memory.close()
memory.unlink()
"""


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_the_processes_of_a_worker_have_the_same_tracker(tmp_path, how):
    (tmp_path / "attaching.py").write_text(ATTACH)
    ended = run_program(WORKERS + BY_ITS_CHILDREN.replace("HOW", how), str(tmp_path)).check()
    assert (ended.stdout, without_log(ended.stderr)) == ("1\n", "")


PRELOADED = """
from suitkaise import preload
preload("multiprocessing.shared_memory")
"""


def test_so_it_is_where_the_module_is_preloaded():
    program = PRELOADED + IMPORTED + WORKERS + OF_THE_PROGRAM.replace("HOW", "rejoin").replace("LATER", "pass")
    ended = run_program(program).check()
    assert (ended.stdout, without_log(ended.stderr)) == ("2\n", "")

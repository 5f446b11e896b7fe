"""A program that has threads alone starts no process; the first process worker starts the keeper then."""

from __future__ import annotations

import pytest

from tests.support import run_program

BEGIN = """
import psutil
from suitkaise import Child, Command, DynamicSupervisor, Process, Supervisor, Thread, sktree, skthreading
from suitkaise.pools import ThreadPool

class Work(Thread):
    def on_receive(self, message):
        return message

class Job(Process):
    def on_receive(self, message):
        return message

def processes():
    return sorted(one.name() for one in psutil.Process().children(recursive=True))

def count():
    return 1
"""


@pytest.mark.parametrize(
    "program",
    [
        "with Supervisor('app', Work).start() as running:\n    assert running['work'].ask(1) == 1; print(processes())",
        "with Supervisor('app', Work, Supervisor('rest', Child(Work, id='a'))).start() as running: print(processes())",
        "with ThreadPool(2) as pool:\n    assert pool.submit(pow, 2, 3).result() == 8; print(processes())",
        "skthreading.create_thread(count)\nprint(processes())",
    ],
)
def test_a_program_with_threads_alone_starts_no_process(program: str) -> None:
    assert run_program(BEGIN + program + "\n").check().stdout == "[]\n"


@pytest.mark.parametrize(
    "later",
    [
        "running.start_child(Child(Job, id='job')); assert running['job'].ask(1) == 1",
        "running['rest'].start_child(Child(Job, id='job')); assert running['rest/job'].ask(1) == 1",
        "assert running.task(pow, 2, 3).get(30) == 8",
        "tree = sktree.connect(); tree.add_to_root('a', 1); assert tree.get('a', path='') == 1",
        "other = Supervisor('other', Job).start(); assert other['job'].ask(1) == 1; other.stop()",
    ],
)
def test_a_process_that_is_wanted_later_has_its_keeper_then(later: str) -> None:
    ended = run_program(f"""{BEGIN}
with Supervisor("app", Work, Supervisor("rest", Child(Work, id="a"))).start() as running:
    assert processes() == []
    {later}
    assert "sk:keeper" in processes(), processes()
    running["work"].recall()
    assert running["work"].ask(2, timeout=30) == 2
""")
    ended.check()


def test_a_program_that_may_get_processes_starts_their_keeper_at_once() -> None:
    ended = run_program(f"""{BEGIN}
with Supervisor("app", Work, DynamicSupervisor("jobs")).start() as running:
    print(len(processes()) > 0)
""")
    assert ended.check().stdout == "True\n"

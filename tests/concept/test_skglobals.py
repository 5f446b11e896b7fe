"""`skglobals`: the storage without paths, with the names of the caller's variables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from suitkaise import Child, Process, Supervisor, Thread, skglobals, skthreading, sktree
from suitkaise.errors import EntryExists
from tests.support import run_program


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    sktree.disconnect()


class Writes(Process):
    restart = "transient"

    def loop(self) -> None:
        found = {self.copy: skglobals.get("shared")}
        skglobals.create(found, f"found-{self.copy}")
        skglobals.update("total", lambda old: old + 1)
        self.rejoin()


class WritesThread(Thread):
    restart = "transient"

    def loop(self) -> None:
        skglobals.update("total", lambda old: old + 1)
        self.rejoin()


def test_a_global_is_named_like_the_variable() -> None:
    colours = ["red"]
    skglobals.create(colours)
    assert skglobals.get("colours") == ["red"]
    assert skglobals.connect().get("colours", path="") == ["red"]


def test_the_name_is_found_in_each_way_to_write_a_call() -> None:
    class Holder:
        inner = 3

    first, second, fourth = 1, 2, 4
    skglobals.create(
        first,
    )
    skglobals.create(value=second)
    skglobals.create(Holder.inner)
    [skglobals.create(fourth, exist_ok=True)]
    skglobals.create(fifth := 5)
    create = skglobals.create
    sixth = 6; create(sixth); seventh = "é"; create(seventh)  # fmt: skip
    assert skglobals.get_all() == {
        "first": 1, "second": 2, "inner": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": "é",
    }  # fmt: skip
    assert fifth == 5


@pytest.mark.parametrize("text", ["42", "[x]", "x * 2", "f(x)", "x[0]"])
def test_a_value_without_a_name_needs_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "caller.py"
    file.write_text(f"from suitkaise import skglobals\n\nx = [1]\n\ndef f(x): return x\n\nskglobals.create({text})\n")
    ended = run_program([sys.executable, str(file)])
    wanted = f"create({text}) is no variable, so it needs a name: create({text}, name='colours')"
    assert wanted in ended.stderr
    assert ended.returncode == 1


def test_where_there_is_no_source_a_name_is_needed() -> None:
    scope = {"skglobals": skglobals}
    with pytest.raises(TypeError, match="cannot read its caller's source, so it needs a name"):
        exec("x = 1\nskglobals.create(x)", scope)
    exec("x = 1\nskglobals.create(x, 'x')", scope)
    assert skglobals.get("x") == 1


def test_the_text_of_python_c_is_a_source_and_another_text_is_not_taken_for_it() -> None:
    text = """
from suitkaise import skglobals, sktree

colours = ["red"]
def keep(taste: str):
    def inner(value: int) -> None: ...
    skglobals.create(taste)
skglobals.create(colours); keep("sweet")
print(skglobals.get_all())
try:
    exec(chr(10) * 6 + "skglobals.create(c0l0urs)", {"skglobals": skglobals, "c0l0urs": 1})
except TypeError as error:
    print(error)
"""
    shown = run_program([sys.executable, "-c", text]).check().stdout.splitlines()
    assert shown[0] == "{'colours': ['red'], 'taste': 'sweet'}"
    assert shown[1].startswith("create() cannot read its caller's source")


def test_globals_are_read_updated_and_deleted() -> None:
    with pytest.raises(KeyError, match="'missing'"):
        skglobals.get("missing")
    assert skglobals.get("missing", 3) == skglobals.get("missing", default=3) == 3
    skglobals.create(10, "limit")
    with pytest.raises(EntryExists):
        skglobals.create(11, "limit", exist_ok=False)
    assert skglobals.update("limit", 12) == 12
    assert skglobals.update("limit", lambda old: old + 1) == 13
    with pytest.raises(KeyError):
        skglobals.update("missing", 1)
    assert skglobals.exists("limit")
    skglobals.delete("limit")
    assert not skglobals.exists("limit")
    with pytest.raises(KeyError):
        skglobals.delete("limit")
    skglobals.delete("limit", missing_ok=True)


def test_processes_and_threads_share_them_with_the_program() -> None:
    shared, total = "for all", 0
    skglobals.create(shared)
    skglobals.create(total)
    with Supervisor("app", Child(Writes, copies=2), Child(WritesThread, copies=2)).start() as running:
        for ref in running:
            ref.join(30)
    assert skglobals.get_all() == {
        "shared": "for all", "total": 4, "found-0": {0: "for all"}, "found-1": {1: "for all"},
    }  # fmt: skip


def test_the_storage_that_the_program_has_connected_to_is_used(tmp_path: Path) -> None:
    kept = "kept"
    sktree.connect(tmp_path / "state", durable=True)
    skglobals.create(kept)
    sktree.disconnect()
    tree = sktree.connect(tmp_path / "state", durable=True)
    assert tree.get("kept", path="") == "kept"
    assert skglobals.connect() is tree


@pytest.mark.parametrize(
    "module, name, hint",
    [
        (skglobals, "set", r"; use skglobals.create\(value, name\)$"),
        (skglobals, "increment", r"; use skglobals.connect\(\).increment$"),
        (skglobals, "colours", r"; a global is read by skglobals.get\('colours'\)$"),
        (skglobals, "__wrapped__", r"has no attribute '__wrapped__'$"),
        (sktree, "add", r"; make tree = sktree.connect\(\) once, and use tree.add$"),
        (skthreading, "join", r"use skthreading\.join_all\(\), or skthreading\.get_thread_result\(thread\)$"),
        (skthreading, "kill", r"use skthreading\.rejoin\(thread\): a thread cannot be killed$"),
        (skthreading, "nothing", r"module 'suitkaise.skthreading' has no attribute 'nothing'$"),
        (sktree, "nothing", r"module 'suitkaise.sktree' has no attribute 'nothing'$"),
    ],
)
def test_a_module_that_is_asked_for_what_it_does_not_have_tells_where_that_is(
    module: ModuleType, name: str, hint: str
) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(module, name)


OF_MULTIPROCESSING = """
import multiprocessing
import sys

from suitkaise import skglobals, sktree


def look(tree, queue):
    try:
        queue.put(skglobals.get("total"))
    except KeyError as error:
        queue.put(str(error))
    try:
        tree.get("missing", path="")
    except KeyError as error:
        queue.put(str(error))
    queue.put(tree.increment("total", path=""))


if __name__ == "__main__":
    total = 7
    skglobals.create(total)
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=look, args=(sktree.connect(), queue))
    process.start()
    for _ in range(3):
        print(queue.get(timeout=20))
    process.join()
    print(skglobals.get("total"))
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_child_of_multiprocessing_is_told_that_its_globals_are_its_own_and_shares_a_tree_that_it_is_passed(
    method: str, tmp_path: Path
) -> None:
    file = tmp_path / "program.py"
    file.write_text(OF_MULTIPROCESSING)
    own, passed, *numbers = run_program([sys.executable, str(file), method]).check().stdout.splitlines()
    assert own.startswith("there is no 'total' in the root; the container is empty; multiprocessing has started this")
    assert own.endswith("has a storage of its own: for that of the program, pass it the program's tree, as an argument")
    assert passed == "there is no 'missing' in the root"
    assert numbers == ["8", "8"]

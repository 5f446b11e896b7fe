"""Classes, functions and other objects of `__main__` arrive as what they are, and change nothing where they arrive."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.scene import PROGRAMS
from tests.support import ROOT, run_program


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    program = run_program(PROGRAMS / "values.py", timeout=50).check()
    return dict(map(json.loads, program.stdout.splitlines()))


@pytest.mark.parametrize(
    "what, expected",
    {
        "cache": [832040, 28],
        "singledispatch": ["int of any", "any"],
        "singledispatchmethod": ["int", "any"],
        "cached_property": True,
        "NewType": 4,
        "ParamSpec": 6,
        "TypeVarTuple": [1, "a"],
        "TypeVar": 1,
        "Struct": "Record(record_id=1, more=[], total=1)",
        "Struct decoded": 2,
        "Struct encoded": '{"type":"Record","recordId":1,"more":[],"total":1}',
        "ContextVar": 7,
        "struct.Struct": "0100000002000000",
        "__init_subclass__": ["reader", ["Reader"], True],
        "metaclass": ["a", ["Registered"]],
        "slots": ["Point(x=1, y=2)", False],
        "enum": True,
    }.items(),
)
def test_what_the_main_module_defines_works_in_a_worker(results: dict[str, Any], what: str, expected: Any) -> None:
    assert results[what] == expected


@pytest.mark.parametrize(
    "what, expected",
    {
        "pickle": [True, True, True],
        "type hints": ["<class 'int'>", "list[__main__.Record]", "<class 'int'>"],
        "pool of forks": [True, 55, True, "odd", 34, 2],
        "pool of a forkserver": [True, 55, True, "odd", 34],
        "pool of spawned": [True, 55, True, "odd", 34],
        "single processes": [0, 0, 0],
        "mock": 0,
        "main": [True, "values.py"],
    }.items(),
)
def test_the_main_module_of_a_worker_holds_what_its_code_uses(
    results: dict[str, Any], what: str, expected: Any
) -> None:
    assert results[what] == expected


def test_closures_share_their_variables_in_a_worker(results: dict[str, Any]) -> None:
    assert results["nonlocal"] == [1, 2, 2]
    assert results["a closure"] == [3, 3, 4, 0]


def test_the_functions_of_the_random_module_draw_other_numbers_in_each_incarnation(results: dict[str, Any]) -> None:
    assert results["random"] != results["random again"]


def test_a_function_of_a_package_that_is_run_imports_its_neighbours_and_finds_its_text(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "prices.py").write_text("PRICE = 7\n", encoding="utf-8")
    (tmp_path / "shop" / "__main__.py").write_text(PACKAGE, encoding="utf-8")
    program = run_program([sys.executable, "-W", "error", "-m", "shop"], cwd=tmp_path).check()
    assert program.stdout == "(7, 'shop', 'A shop.')\n[7]\n"


PACKAGE = '''"""A shop."""
import multiprocessing
from suitkaise import Process, Supervisor

def price(number):
    from .prices import PRICE
    return PRICE * number

class Counter(Process):
    def on_receive(self, message):
        if message == "here":
            return price(1), __package__, __doc__
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(price, [1])

with Supervisor("app", Counter).start() as running:
    print(running["counter"].ask("here"))
    print(running["counter"].ask("in a child", timeout=20.0))
'''


NAMED = """
import functools
from suitkaise import Process, Supervisor, sktree

class Mark:
    def __reduce__(self):
        return "MISSING"

class Cached:  # as of cachetools
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.values = {}

    def __call__(self, number):
        if number not in self.values:
            self.values[number] = self.__wrapped__(number)
        return self.values[number]

    def __reduce__(self):
        return self.__qualname__

class Slotted:
    __slots__ = ("__weakref__", "limit")

    def __reduce__(self):
        return "LIMITS"

class Text(str):
    def __reduce__(self):
        return "NOTHING"

MISSING, LIMITS, NOTHING = Mark(), Slotted(), Text("nothing")
LIMITS.limit = [7, LIMITS]

@Cached
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

VALUES = MISSING, LIMITS, NOTHING, fibonacci

class Use(Process):
    def on_receive(self, number):
        if isinstance(number, int):
            return fibonacci(number), LIMITS.limit[0], LIMITS.limit[1] is LIMITS, NOTHING
        return [value for value in (MISSING, LIMITS, NOTHING, fibonacci) if value is number]

tree = sktree.connect()
with Supervisor("app", Use).start() as running:
    print(running["use"].ask(30))
    for value in VALUES:
        [back] = running["use"].ask(value)
        tree.add("value", value, path="x")
        print(back is value, tree.get("value", path="x") is value)
sktree.disconnect()
"""


def test_an_object_that_is_sent_by_its_global_name_is_one_object_in_each_process(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(NAMED, encoding="utf-8")
    program = run_program(tmp_path / "named.py").check()
    assert program.stdout.splitlines() == ["(832040, 7, True, 'nothing')", *["True True"] * 4]


PLUGIN = """
from dataclasses import dataclass
from suitkaise import Child, Process, Supervisor
from suitkaise.pools import ProcessPool

LIMIT = 3

@dataclass
class Order:
    number: int

def double(order):
    return Order(min(LIMIT, order.number * 2))

class Shop(Process):
    def on_receive(self, order):
        return double(order)

def test_shop():
    with Supervisor("app", Shop).start() as running:
        assert running["shop"].ask(Order(1)) == Order(2)
        running["shop"].kill()
        answer = running["shop"].ask(Order(2))
        assert answer == Order(3) and type(answer) is Order
        assert running.task(double, Order(1)).result(20) == Order(2)
    with ProcessPool(1) as pool:
        assert list(pool.map(double, [Order(1)])) == [Order(2)]
"""


def test_what_a_module_defines_that_was_loaded_by_hand_goes_by_value(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PLUGIN, encoding="utf-8")
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("plugins.shop", {str(tmp_path / "shop.py")!r})
sys.modules["plugins.shop"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.test_shop()
print("done")
"""
    assert run_program([sys.executable, "-c", program]).check().stdout == "done\n"


def test_what_a_file_defines_that_runpy_runs_under_a_name_of_its_own_goes_by_value(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"{PLUGIN}\ntest_shop()\n", encoding="utf-8")
    program = f"import runpy\nrunpy.run_path({str(tmp_path / 'shop.py')!r})\nprint('done')"
    assert run_program(program).check().stdout == "done\n"


@pytest.mark.parametrize("folder", ["tests", "test"])  # Python has a package `test`
def test_a_test_whose_module_pytest_has_loaded_by_hand_has_workers(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder / "shop").mkdir(parents=True)
    (tmp_path / folder / "shop" / "test_shop.py").write_text(PLUGIN, encoding="utf-8")
    pytest_alone = "import pytest, sys; sys.path.pop(0); sys.exit(pytest.main())"  # as the command `pytest`
    options = ["-p", "no:cacheprovider", "--import-mode=importlib", "-q"]
    run_program([sys.executable, "-c", pytest_alone, *options], cwd=tmp_path).check()


def test_the_functions_of_numpy_draw_other_numbers_in_each_copy_and_incarnation() -> None:
    pytest.importorskip("numpy")
    program = """
import numpy
from numpy.random import randint
from suitkaise import Child, Process, Supervisor, preload

preload("numpy")
numpy.random.seed(1)

class Draws(Process):
    def on_receive(self, message):
        return int(randint(1, 10**9)), float(numpy.random.random())

with Supervisor("tree", Child(Draws, copies=2, spares=1)).start() as running:
    print(*running["draws-0"].ask(""), *running["draws-1"].ask(""))
    running["draws-0"].kill()
    print(*running["draws-0"].ask("", timeout=20), int(randint(1, 10**9)), float(numpy.random.random()))
"""
    numbers = run_program(program).check().stdout.split()
    assert len(numbers) == len(set(numbers)) == 8


def test_the_table_of_values_and_ways_in_the_documentation_is_true() -> None:
    lines = (ROOT / "docs" / "reference" / "values.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| value | argument |"))
    _, *ways = cells(lines[first])
    promised = {kind: dict(zip(ways, told, strict=True)) for kind, *told in map(cells, table(lines[first + 2 :]))}
    program = run_program(PROGRAMS / "ways.py", timeout=50).check()
    assert dict(map(json.loads, program.stdout.splitlines())) == promised


def table(lines: list[str]) -> list[str]:
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_ends_of_pipes_travel_as_arguments_with_their_descriptors(results: dict[str, Any]) -> None:
    assert results["pipe"] == ["hello", {"a": 1}, "b"]
    assert "NotSerializable: message: cannot pickle 'Connection' object" in results["pipe in a message"]


def test_an_instance_that_arrives_does_not_change_the_state_of_its_class(results: dict[str, Any]) -> None:
    assert results["argument"] == [True, "connected", 3]
    assert results["instances"] == [[1, "connected", 0], [2, "connected", 3], [3, "connected", 6]]
    assert results["class attributes of the worker"] == [11, 4, 12]


def test_what_comes_back_does_not_change_the_classes_and_globals_of_the_program(results: dict[str, Any]) -> None:
    assert results["storage"] == [True, True]
    assert results["result"] is True
    assert results["the program's own class"] == [70, 99, 1, True, None]


@pytest.mark.parametrize("what", ["dataclass", "Struct", "enum", "inner", "class", "function"])
def test_a_value_that_comes_back_has_the_types_of_the_program(results: dict[str, Any], what: str) -> None:
    assert results[f"returned {what}"] is True


@pytest.mark.parametrize("kind, text", [("deny", "job 3 is denied"), ("odd", "odd")])
def test_an_error_of_the_main_module_keeps_its_remote_traceback(results: dict[str, Any], kind: str, text: str) -> None:
    assert results[f"error {kind}"] == [text, True]


def test_a_worker_that_starts_later_gets_the_globals_and_classes_of_that_moment() -> None:
    program = """
from suitkaise import Process, Supervisor

RATE = 1
TABLE = {"a": 1}

class Job:
    limit = 1

    def values(self):
        return RATE, TABLE["a"], self.limit

class Worker(Process):
    def on_receive(self, message):
        return message.values()

with Supervisor("first", Worker).start() as running:
    print(running["worker"].ask(Job()))
    RATE = Job.limit = TABLE["a"] = 2
    print(running["worker"].ask(Job()))
    with Supervisor("second", Worker).start() as later:
        print(later["worker"].ask(Job()))
"""
    assert run_program(program).check().stdout.splitlines() == ["(1, 1, 1)", "(1, 1, 1)", "(2, 2, 2)"]


def test_a_function_that_is_defined_again_replaces_the_older_one_in_a_worker() -> None:
    program = """
from suitkaise import Process, Supervisor

class Worker(Process):
    def on_receive(self, message):
        return message(5)

def helper(number):
    return number + 1

def task(number):
    return helper(number)

with Supervisor("tree", Worker).start() as running:
    print(running["worker"].ask(task))

    def helper(number):
        return number + 2

    def task(number):
        return 10 * helper(number)

    print(running["worker"].ask(task))
"""
    assert run_program(program).check().stdout.splitlines() == ["6", "70"]


def test_an_error_or_answer_of_a_module_that_only_the_worker_has_keeps_its_text(tmp_path: Path) -> None:
    (tmp_path / "plug.py").write_text("class PlugError(Exception): ...\nclass Thing: ...\n")
    program = f"""
import sys
from suitkaise import Process, Reject, Supervisor, WorkerFailed

class Worker(Process):
    def on_start(self):
        sys.path.insert(0, {str(tmp_path)!r})

    def on_receive(self, message):
        import plug
        if message == "thing":
            return plug.Thing()
        error = plug.PlugError("disk 7 is full")
        raise Reject(error) if message == "reject" else error

with Supervisor("tree", Worker).start() as running:
    for message in ("thing", "reject", "fail"):
        try:
            running["worker"].ask(message)
        except WorkerFailed as error:
            print(error, "in on_receive" in "".join(getattr(error, "__notes__", [])))
"""
    cannot = "cannot be decoded here: ModuleNotFoundError: No module named 'plug'"
    assert run_program(program).check().stdout.splitlines() == [
        f"the answer, which has the type plug.Thing, {cannot} False",
        f"plug.PlugError: disk 7 is full (the error {cannot}) False",
        f"plug.PlugError: disk 7 is full (the error {cannot}) True",
    ]


def test_a_message_that_a_worker_cannot_decode_is_reported_to_its_asker_or_to_the_log() -> None:
    program = """
import logging, sys, types
from suitkaise import Process, SuitkaiseError, Supervisor, WorkerFailed

here = sys.modules["here"] = types.ModuleType("here")
exec("class Thing: ...", vars(here))

class Worker(Process):
    def on_receive(self, message):
        return message

class Silent(Process): ...

logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)
with Supervisor("tree", Worker, Silent).start() as running:
    try:
        running["worker"].ask(here.Thing())
    except WorkerFailed as error:
        print(error, flush=True)
    for name in ("worker", "silent"):
        running[name].tell(here.Thing() if name == "worker" else "hello")
        try:
            running[name].ask("the message before this one was handled")
        except SuitkaiseError:
            pass
"""
    cannot = "the message, which has the type here.Thing, cannot be decoded here: ModuleNotFoundError: No module named"
    asked, *logged = run_program(program).check().stdout.splitlines()
    assert asked == f"in 'tree/worker', {cannot} 'here'"
    assert sorted(logged) == [
        "'tree/silent' does not handle a message: 'tree/silent' has no on_receive, so it takes no messages",
        f"'tree/worker' does not handle a message: {asked}",
    ]


def test_what_holds_descriptors_or_locks_is_refused_as_an_argument_but_the_proxies_of_a_manager_work() -> None:
    program = """
import mmap
import multiprocessing
import os
import select
import selectors
import subprocess
from multiprocessing.connection import Listener
from suitkaise import NotSerializable, Process, Supervisor

class Worker(Process):
    def __init__(self, what):
        self.what = what

    def on_receive(self, message):
        self.what["worker"] = message
        return sorted(self.what.keys())

for make in (multiprocessing.Queue, multiprocessing.SimpleQueue, multiprocessing.Lock, multiprocessing.Event,
             lambda: multiprocessing.Value("i"), lambda: multiprocessing.Array("i", 2), multiprocessing.RLock,
             multiprocessing.Condition, multiprocessing.Semaphore, lambda: multiprocessing.Barrier(2),
             multiprocessing.JoinableQueue, Listener, select.epoll, selectors.DefaultSelector,
             lambda: mmap.mmap(-1, 10), lambda: os.scandir("."), lambda: open(os.devnull),
             lambda: subprocess.Popen(["true"])):
    what = make()
    try:
        Supervisor("tree", Worker(what)).start()
    except NotSerializable as error:
        print(error.path)
    if isinstance(what, subprocess.Popen):
        what.wait()

with multiprocessing.get_context("fork").Manager() as manager:
    shared = manager.dict(program=1)
    with Supervisor("tree", Worker(shared)).start() as running:
        print(running["worker"].ask(2), shared["worker"])
"""
    lines = run_program(program).check().stdout.splitlines()
    assert lines[-1] == "['program', 'worker'] 2"
    assert len(lines) == 19
    assert all(line.startswith("tree/worker: worker") for line in lines[:-1])

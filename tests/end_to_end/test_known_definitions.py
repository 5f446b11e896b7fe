"""A class of `__main__` is sent once over a connection, and is known wherever a message goes without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import run_program

KINDS = """
import os, threading, time
from suitkaise import Process, Supervisor, Thread, events, whereis

class Prices:
    def __getstate__(self):  # each time that the class of the jobs is encoded, or looked at for changes
        os.encoded = getattr(os, "encoded", 0) + 1
        return {"of": {"apple": 3}, "padding": "x" * 50_000}

PRICES = Prices()

class Job:
    def __init__(self, fruit):
        self.fruit = fruit

    def cost(self):
        return PRICES.of[self.fruit] if hasattr(PRICES, "of") else 3
"""

ENDS = """
def await_file(name):
    while not os.path.exists(name):
        time.sleep(0.001)

class Worker(Process):
    restart = "permanent"

    def on_start(self):
        self.total = 0

    def on_receive(self, message):
        if isinstance(message, Job):
            self.total += message.cost()
        elif message == "renew":
            open("busy", "w").close()
            await_file("sent")
            self.rejoin()  # what waits is for the next incarnation
        return self.total

def send(ref, end):
    for _ in range(3):
        ref.ask(Job("apple"))  # the first goes through the hub, and the second makes a connection
    if end == "renews":
        ref.tell("renew")
        await_file("busy")
    else:
        ref.kill()
    for _ in range(5):
        ref.tell(Job("apple"))
    answer = ref.ask_future(Job("apple"))
    open("sent", "w").close()
    return answer.get(20)

class Sender(Process):
    def on_receive(self, end):
        return send(self.whereis("tree/worker"), end)

with Supervisor("tree", Worker, Sender).start() as running:
    print(SEND)
"""


def test_a_class_is_encoded_once_for_a_connection_whatever_goes_over_it() -> None:
    program = (
        KINDS
        + """
import json
from suitkaise import flush

class Echo(Process):
    def on_receive(self, message):
        if message == "make":
            return Job("apple")
        return getattr(os, "encoded", 0) if message == "encoded" else message

class Count(Thread):
    def on_receive(self, message):
        return message.cost()

class Asker(Process):
    def on_receive(self, message):
        way, path = message
        ref = self.whereis(path)
        for _ in range(20):
            self.send(way, ref)
        before = os.encoded
        for _ in range(20):
            self.send(way, ref)
        return os.encoded - before

    def send(self, way, ref):
        if way == "ask":
            ref.ask(Job("apple"))
        elif way == "tell":
            ref.tell(Job("apple"))
        else:
            ref.ask_future(Job("apple")).get(20)

def encoded(send):
    for _ in range(20):
        send()
    before = os.encoded
    for _ in range(20):
        send()
    return os.encoded - before

os.encoded = 0
with Supervisor("tree", Echo, Supervisor("more", Echo), Supervisor("makes", Echo), Count, Asker).start() as running:
    echo, fresh, maker = running["echo"], running["more/echo"], running["makes/echo"]
    found = {
        "tell": encoded(lambda: echo.tell(Job("apple"))),
        "ask": encoded(lambda: echo.ask(Job("apple"))),
        "future": encoded(lambda: fresh.ask_future(Job("apple")).get(20)),
    }
    for name, ref, message in (("answer", echo, Job("apple")), ("answer of its own", maker, "make")):
        for _ in range(20):
            ref.ask(message)
        before = ref.ask("encoded")
        for _ in range(20):
            assert ref.ask(message).cost() == 3
        found[name] = ref.ask("encoded") - before
    for way in ("ask", "tell", "future"):
        for path in ("tree/echo", "tree/count"):
            found[f"{way} {path}"] = running["asker"].ask((way, path), timeout=20)
print(json.dumps(found))
"""
    )
    found: dict[str, Any] = json.loads(run_program(program).check().stdout)
    assert found == dict.fromkeys(found, 0)


@pytest.mark.parametrize("end", ["is killed", "renews"])
@pytest.mark.parametrize(
    "send",
    [
        pytest.param('send(running["worker"], END)', id="program"),
        pytest.param('running["sender"].ask(END, timeout=20)', id="worker"),
    ],
)
def test_messages_without_the_class_are_understood_by_the_next_incarnation(send: str, end: str, tmp_path: Path) -> None:
    program = KINDS + ENDS.replace("SEND", send).replace("END", repr(end))
    assert run_program(program, cwd=tmp_path).check().stdout.split() == ["18"]


DEFINED_AGAIN = """
from suitkaise import Process, Supervisor
from suitkaise.pools import ProcessPool

class Runs(Process):
    def on_receive(self, message):
        return message.run() if isinstance(message, Job) else message()

class Early(Process):
    def on_start(self):
        late()

    def on_receive(self, message):
        return message()

def late():
    return helper()

class Job:
    def run(self):
        return helper()

def helper():
    return "first"

def work():
    return helper()

def results():
    return {pool.submit(work).result(), *(ref.ask(message) for ref in refs for message in (Job(), work, Job()))}

with ProcessPool(1) as pool, Supervisor("tree", Runs, Supervisor("more", Runs), Early).start() as running:
    early = running["early"]
    refs = [running["runs"]]
    print(results())

    def helper():
        return part()

    def part():
        return "second"

    print(results() | {early.ask(late)})  # it had the first one from its start

    def part():
        return "third"

    refs.append(running["more/runs"])
    print(results())

    class Job:
        def run(self):
            return work()

    def part():
        return "fourth"

    print(results())
    print(results())
"""


def test_what_a_known_function_or_class_uses_and_was_defined_again_arrives_with_the_next_message() -> None:
    told = run_program(DEFINED_AGAIN).check().stdout.splitlines()
    assert told == ["{'first'}", "{'second'}", "{'third'}", "{'fourth'}", "{'fourth'}"]


DEFINED_LATE = """
from suitkaise import Process, Supervisor
from suitkaise.pools import ProcessPool

class Runs(Process):
    def on_receive(self, message):
        return message()

class Job:
    def run(self):
        return helper()

    __call__ = run

def work():
    return Missing.text()

def outcome(call):
    try:
        return call()
    except NameError as error:
        return str(error)

def results():
    return {outcome(lambda: run(message)) for run in (running["runs"].ask, in_pool) for message in (Job(), work)}

def in_pool(message):
    return pool.submit(message).result()

with ProcessPool(1) as pool, Supervisor("tree", Runs).start() as running:
    print(sorted(results()))

    def helper():
        return "found"

    class Missing:
        @staticmethod
        def text():
            return helper()

    print(sorted(results()))

    def helper():
        return "defined again"

    print(sorted(results()))
"""


def test_what_a_known_function_or_class_uses_and_was_defined_only_later_arrives_with_the_next_message() -> None:
    told = run_program(DEFINED_LATE).check().stdout.splitlines()
    missing = ["name 'Missing' is not defined", "name 'helper' is not defined"]
    assert told == [str(missing), "['found']", "['defined again']"]


CHANGED = """
from suitkaise.pools import ProcessPool

RATE = 10
OPTIONS = {"step": 1}
CACHE = {}
OWN = "of the program"
LARGE = {"a", "set"}

def rate():
    return RATE

def step():
    return OPTIONS["step"]

def late():
    return LATE

def cached(key):
    CACHE[key] = True
    return len(CACHE), RATE

def own(value=None):
    global OWN
    OWN = value or OWN
    return OWN

def drop():
    global LARGE
    LARGE = None

class Job:
    def __call__(self):
        return RATE

def outcome(function, *args):
    try:
        return pool.submit(function, *args).result()
    except NameError as error:
        return str(error)

def told():
    return [outcome(one) for one in (rate, lambda: RATE, Job(), step, lambda: OPTIONS["step"], late, lambda: LATE)]

with ProcessPool(1) as pool:
    print(*told(), outcome(cached, "a"), outcome(own, "of the worker"), outcome(drop))
    RATE = 20
    OPTIONS["step"] = 2
    LATE = 3
    OWN = "changed by the program"
    LARGE = {"another"}
    print(*told(), outcome(cached, "b"), outcome(own), outcome(lambda: LARGE))
    RATE = 10
    OPTIONS = {"step": 5}
    LATE = None

    def rate():
        return RATE, "in a new function"

    print(*told(), outcome(cached, "c"), outcome(own))
"""


def test_a_changed_global_arrives_with_the_next_task_and_what_a_worker_has_set_is_its_own() -> None:
    told = run_program(CHANGED).check().stdout.splitlines()
    missing = "name 'LATE' is not defined"
    assert told == [
        f"10 10 10 1 1 {missing} {missing} (1, 10) of the worker None",
        "20 20 20 2 2 3 3 (2, 20) of the worker None",
        "(10, 'in a new function') 10 10 5 5 None None (3, 10) of the worker",
    ]


OLDER = """
from suitkaise import sktree
from suitkaise.pools import ProcessPool

RATE = 10

class Job:
    def __call__(self):
        return RATE

def run(path):
    return tree.get(path, path="")(), RATE

tree = sktree.connect()
with ProcessPool(1) as pool:
    pool.submit(Job()).result()
    for RATE in (20, 30):
        tree.add_to_root(f"job-{RATE}", Job())
        print(pool.submit(run, f"job-{RATE}").result())
    print(pool.submit(run, "job-20").result())
"""


def test_a_stored_value_brings_no_older_global_back() -> None:
    assert run_program(OLDER).check().stdout.splitlines() == ["(20, 20)", "(30, 30)", "(30, 30)"]


KINDS_OF_CHANGES = """
import cmath
import math
from suitkaise.pools import ProcessPool

def one():
    return "one"

def two():
    return "two"

FUNCTION = one
LAMBDA = lambda: "one"
KIND = "a value"
ZERO = 0.0
PAIR = (1, 2)
MODULE = math
OPTIONS = {"module": math, "step": 1}
CLASS = int
DELETED = "to be deleted"
sum = "hides the builtin"

def uses():
    return [
        lambda: FUNCTION(), lambda: LAMBDA(), lambda: KIND() if callable(KIND) else KIND, lambda: ZERO, lambda: PAIR,
        lambda: MODULE.__name__, lambda: OPTIONS["step"], lambda: CLASS.__name__, lambda: DELETED, lambda: sum,
    ]

def told():
    return list(map(outcome, uses()))

def outcome(use):
    try:
        return repr(use())
    except NameError as error:
        return str(error)

with ProcessPool(1) as pool:
    print(pool.submit(told).result() == told())
    FUNCTION = two
    LAMBDA = lambda: "two"
    def KIND():
        return "a function"
    ZERO = -0.0
    PAIR = (True, 2.0)
    MODULE = cmath
    OPTIONS["step"] = 2
    CLASS = float
    del DELETED, sum
    print(*pool.submit(told).result(), sep="\\n")
    FUNCTION, KIND, DELETED, sum = one, 7, "back", "hides it again"
    print(pool.submit(told).result() == told())
"""


def test_each_kind_of_change_to_a_global_arrives_with_the_next_task() -> None:
    first, *changed, last = run_program(KINDS_OF_CHANGES).check().stdout.splitlines()
    assert (first, last) == ("True", "True")
    assert changed == [
        "'two'",
        "'two'",
        "'a function'",
        "-0.0",
        "(True, 2.0)",
        "'cmath'",
        "2",
        "'float'",
        "name 'DELETED' is not defined",
        "<built-in function sum>",
    ]


EARLIER = """
import sys
from suitkaise import sktree
from suitkaise.pools import ProcessPool

RATE = 10

class Job:
    def __call__(self):
        return RATE

def run():
    return tree.get("job", path="")()

tree = sktree.connect(sys.argv[1], durable=True)
with ProcessPool(1) as pool:
    first = pool.submit(Job()).result()
    if sys.argv[2] == "first":
        RATE = 99
        tree.add_to_root("job", Job())
    print(first, pool.submit(run).result(), pool.submit(Job()).result())
"""


def test_a_stored_value_brings_no_global_of_an_earlier_run(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(EARLIER, encoding="utf-8")
    first, second = (
        run_program(program, str(tmp_path / "tree"), which).check().stdout.strip() for which in ("first", "second")
    )
    assert (first, second) == ("10 99 99", "10 10 10")


RENAMED = """
import sys
from suitkaise import sktree

if sys.argv[2] == "first":
    class Job:
        pass
else:
    class Work:
        pass

    Job = Work

tree = sktree.connect(sys.argv[1], durable=True)
if sys.argv[2] == "first":
    tree.add_to_root("job", Job())
print(type(tree.get("job", path="")) is Job)
"""


def test_a_stored_value_of_a_class_that_was_renamed_is_of_the_class_that_has_the_old_name(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RENAMED, encoding="utf-8")
    for which in ("first", "second"):
        assert run_program(program, str(tmp_path / "tree"), which).check().stdout.strip() == "True"

"""Values with classes, functions and other objects of `__main__`, sent in every way; each check prints its result."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import json
import multiprocessing
import os
import pickle
import struct
import sys
import threading
import typing
from concurrent.futures import ProcessPoolExecutor
from random import randint, random
from unittest import mock

import msgspec

from suitkaise import Child, Process, Supervisor, sktree

# ---------------------------------------------------------------- what the program defines
RATE = 3
CONNECTION = None
LOCK: threading.Lock | None = None


class Job:
    made: list[Job] = []
    limit = 10

    def __init__(self, number: int) -> None:
        self.number = number

    def cost(self) -> int:
        return self.number * RATE

    def connection(self) -> str | None:
        return CONNECTION


@dataclasses.dataclass(slots=True, frozen=True)
class Point:
    x: int
    y: int = 2


class Record(msgspec.Struct, kw_only=True, rename="camel", tag=True):
    record_id: int
    more: list[Record] = []
    total: int = 0

    def __post_init__(self) -> None:
        self.total = self.record_id + len(self.more)


class Color(enum.Enum):
    RED = 1


class Denied(Exception):
    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.number} is denied")
        self.job = job


class Odd(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self):
        return Odd, (self.code, str(self))


class Plugin:
    known: list[type] = []

    def __init_subclass__(cls, *, kind: str) -> None:
        cls.kind = kind
        Plugin.known.append(cls)


class Reader(Plugin, kind="reader"): ...


class Registering(type):
    made: list[str] = []

    def __new__(meta, name, bases, body, tag):
        cls = super().__new__(meta, name, bases, body)
        cls.tag = tag
        meta.made.append(name)
        return cls

    def __init__(cls, name, bases, body, tag):
        super().__init__(name, bases, body)


class Registered(metaclass=Registering, tag="a"): ...


class Outer:
    class Inner: ...

    @functools.cached_property
    def once(self) -> int:
        return os.getpid()


@functools.cache
def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


@functools.singledispatch
def kind_of(value: object) -> str:
    return "any"


@kind_of.register
def _(value: int) -> str:
    return "int of " + kind_of("x")


class Dispatching:
    @functools.singledispatchmethod
    def kind(self, value: object) -> str:
        return "any"

    @kind.register
    def _(self, value: int) -> str:
        return "int"


UserId = typing.NewType("UserId", int)
Parameters = typing.ParamSpec("Parameters")
Types = typing.TypeVarTuple("Types")
Value = typing.TypeVar("Value")
LEVEL = contextvars.ContextVar("level", default=7)
PAIR = struct.Struct("<ii")


def double(function: typing.Callable[Parameters, int]) -> typing.Callable[Parameters, int]:
    def doubled(*args: Parameters.args, **options: Parameters.kwargs) -> int:
        return 2 * function(*args, **options)

    return doubled


@double
def doubled_id(value: UserId) -> int:
    return value


class Boxes(typing.Generic[*Types]):
    def __init__(self, *values: *Types) -> None:
        self.values = values


class Box(typing.Generic[Value]):
    def __init__(self, value: Value) -> None:
        self.value = value


def helper(number: int) -> int:
    return number + 1


def counter() -> tuple[typing.Callable[[], int], typing.Callable[[], int]]:
    count = 0

    def up() -> int:
        nonlocal count
        count += 1
        return count

    def value() -> int:
        return count

    return up, value


up, value_of = counter()
here, there = multiprocessing.Pipe()
reading, writing = multiprocessing.Pipe(duplex=False)


# ---------------------------------------------------------------- what the worker does
def renumbered(job: Job, number: int) -> Job:
    if number < 0:
        raise Odd(4, "odd")
    return Job(fibonacci(number))


def locked(number: int) -> int:
    """Uses a global that cannot be sent, once `on_start` has set it."""
    with LOCK:
        return number + 1


def pool_of_forks() -> list[object]:
    """A fork has what the worker has, also what cannot be sent."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return [*pooled("fork"), pool.submit(locked, 1).result(20)]


def started(method: str) -> int | None:
    process = multiprocessing.get_context(method).Process(target=renumbered, args=(Job(7), 10))
    process.start()
    process.join(20)
    return process.exitcode


def pooled(method: str) -> list[object]:
    """What a pool of multiprocessing does with a function and a class of `__main__`, and with an error of it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        job = pool.submit(renumbered, Job(7), 10).result(20)
        error = pool.submit(renumbered, Job(7), -1).exception(20)
        return [type(job) is Job, job.number, type(error) is Odd, str(error), pool.submit(fibonacci, 9).result(20)]


def pickled(value: object) -> bool:
    return type(pickle.loads(pickle.dumps(value))) is type(value)


def patched() -> int:
    with mock.patch("__main__.helper", return_value=0):
        return helper(1)


IN_WORKER: dict[str, typing.Callable[[], object]] = {
    "cache": lambda: (fibonacci(30), fibonacci.cache_info().hits),
    "singledispatch": lambda: (kind_of(1), kind_of("x")),
    "singledispatchmethod": lambda: (Dispatching().kind(1), Dispatching().kind("x")),
    "cached_property": lambda: Outer().once == os.getpid(),
    "NewType": lambda: UserId(3) + UserId.__supertype__(1),
    "ParamSpec": lambda: doubled_id(UserId(3)),
    "TypeVarTuple": lambda: Boxes[int, str](1, "a").values,
    "TypeVar": lambda: Box[int](1).value,
    "Struct": lambda: str(Record(record_id=1)),
    "Struct decoded": lambda: (
        msgspec.json.decode(
            b'{"type": "Record", "recordId": 1, "more": [{"type": "Record", "recordId": 2}]}', type=Record
        ).total
    ),
    "Struct encoded": lambda: msgspec.json.encode(Record(record_id=1)).decode(),
    "ContextVar": LEVEL.get,
    "struct.Struct": lambda: PAIR.pack(1, 2).hex(),
    "__init_subclass__": lambda: (Reader.kind, [cls.__name__ for cls in Plugin.known], Plugin.known[0] is Reader),
    "metaclass": lambda: (Registered.tag, Registering.made),
    "slots": lambda: (str(Point(1)), hasattr(Point(1), "__dict__")),
    "enum": lambda: Color(1) is Color.RED,
    "nonlocal": lambda: (up(), up(), value_of()),
    "random": lambda: (random(), randint(1, 10**9)),
    "pickle": lambda: [
        type(pickle.loads(pickle.dumps(made))) is type(made) for made in (Job(1), Outer.Inner(), Point(1))
    ],
    "type hints": lambda: [str(hint) for hint in typing.get_type_hints(Record).values()],
    "pool of forks": pool_of_forks,
    "single processes": lambda: [started(method) for method in ("fork", "forkserver", "spawn")],
    "pool of a forkserver": lambda: pooled("forkserver"),
    "pool of spawned": lambda: pooled("spawn"),
    "mock": patched,
    "main": lambda: (sys.modules["__main__"].helper is helper, os.path.basename(__file__)),
}


class Worker(Process):
    def __init__(self, job: Job, pipe: object, write: object) -> None:
        super().__init__()
        self.job, self.pipe, self.write = job, pipe, write

    def on_start(self) -> None:
        global CONNECTION, LOCK
        CONNECTION = "connected"
        LOCK = threading.Lock()
        self.tree.add("job", Job(5), path="x")
        self.tree.add("color", Color.RED, path="x")

    def on_receive(self, message: object) -> object:
        match message:
            case str(name) if name in IN_WORKER:
                return IN_WORKER[name]()
            case "pipe":
                self.pipe.send({"a": 1})
                self.write.send_bytes(b"b")
                return self.pipe.recv()
            case "argument":
                return type(self.job) is Job, self.job.connection(), self.job.cost()
            case "limit":
                Job.limit += 1
                return Job.limit
            case "deny":
                raise Denied(Job(3))
            case "odd":
                raise Odd(4, "odd")
            case Job():
                Job.made.append(message)
                return len(Job.made), message.connection(), message.cost()
            case function if callable(function) and not isinstance(function, type):
                return function()
        return message

    def result(self) -> Job:
        return Job(6)


def told(name: str, make: typing.Callable[[], object]) -> None:
    try:
        print(json.dumps([name, make()]), flush=True)
    except Exception as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)


# ---------------------------------------------------------------- the program
with Supervisor("app", Child(Worker(Job(1), there, writing), restart="transient"), max_restarts=100).start() as running:
    worker = running["worker"]
    for name in IN_WORKER:
        told(name, lambda name=name: worker.ask(name, timeout=20))
    here.send("hello")
    told("pipe", lambda: (worker.ask("pipe"), here.recv(), reading.recv_bytes().decode()))
    told("argument", lambda: worker.ask("argument"))

    mine = Job(7)
    Job.made.append(mine)
    Job.limit = 99
    method = Job.cost
    told("instances", lambda: [worker.ask(Job(number)) for number in range(3)])
    told("class attributes of the worker", lambda: (worker.ask("limit"), worker.ask(Job(1))[0], worker.ask("limit")))
    told("a closure", lambda: (worker.ask(up), worker.ask(value_of), worker.ask(up), value_of()))

    values: dict[str, object] = {
        "dataclass": Point(3), "Struct": Record(record_id=4), "enum": Color.RED, "inner": [Point(1), {"a": UserId(3)}],
        "class": (Job, Reader, Outer.Inner), "function": (helper, fibonacci, kind_of, up),
    }  # fmt: skip
    for name, value in values.items():
        told(f"returned {name}", lambda value=value: worker.ask([value]) == [value])
    tree = sktree.connect()
    told("storage", lambda: (type(tree.get("job", path="x")) is Job, tree.get("color", path="x") is Color.RED))
    for kind in ("deny", "odd"):
        try:
            worker.ask(kind)
        except (Denied, Odd) as error:
            told(f"error {kind}", lambda error=error: (str(error), "in on_receive" in error.__notes__[0]))
    told("pipe in a message", lambda: worker.ask(here))
    told("random again", lambda: worker.ask("random"))
    worker.rejoin()
    told("result", lambda: type(worker.result(20)) is Job)
    RATE = 10
    told("the program's own class", lambda: (mine.cost(), Job.limit, len(Job.made), Job.cost is method, CONNECTION))
sktree.disconnect()

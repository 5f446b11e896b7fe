"""Sends a value of each kind in each way, to a worker and back; prints what becomes of it as JSON, a line a kind."""

import contextvars
import dataclasses
import functools
import json
import multiprocessing
import random
import threading
from collections.abc import Callable
from random import randint
from typing import Any

import msgspec

from suitkaise import Child, NotSerializable, Process, RunningTree, Supervisor, WorkerFailed, sktree


class Basket:
    def __init__(self) -> None:
        self.items = ["apple"]

    def count(self) -> int:
        return len(self.items)


@functools.cache
def squared(number: int) -> int:
    return number * number


@functools.lru_cache(maxsize=10)
def doubled(number: int) -> int:
    return number + number


@dataclasses.dataclass
class Point:
    x: int


class Record(msgspec.Struct):
    x: int


class Odd(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> Any:
        return Odd, (self.args[0], self.code)


verbose = contextvars.ContextVar("verbose", default=3)


def closure() -> Callable[[], int]:
    seven = 7
    return lambda: seven


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
    "an object of a class of `__main__`": (Basket, lambda value: type(value) is Basket and value.count() == 1),
    "a dataclass of `__main__`": (lambda: Point(1), lambda value: value == Point(1)),
    "a `msgspec.Struct` of `__main__`": (lambda: Record(x=1), lambda value: value == Record(x=1)),
    "a cached function": (lambda: squared, lambda value: value is squared and value(3) == 9),
    "a function with an `lru_cache`": (lambda: doubled, lambda value: value is doubled and value(3) == 6),
    "a closure": (closure, lambda value: value() == 7),
    "`random.randint`": (lambda: randint, lambda value: value == random.randint and 1 <= value(1, 2) <= 2),
    "a `ContextVar`": (lambda: verbose, lambda value: value is verbose and value.get() == 3),
    "an exception with a `__reduce__`": (
        lambda: Odd("a", 2),
        lambda value: type(value) is Odd and (*value.args, value.code) == ("a", 2),
    ),
    "an end of a `Pipe`": (lambda: multiprocessing.Pipe()[0], lambda value: value.fileno() >= 0 and not value.closed),
    "a lock": (threading.Lock, lambda value: value.acquire(blocking=False)),
}  # fmt: skip


class Taker(Process):
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def on_receive(self, message: tuple[Any, ...]) -> Any:
        match message:
            case "works", kind, value:
                return KINDS[kind][1](value)
            case "keep", value:
                self.value = value
            case "kept", kind:
                return KINDS[kind][1](self.value)
            case "stored", kind:
                return KINDS[kind][1](self.tree.get(kind))
            case "store", kind:
                self.tree.add(kind, KINDS[kind][0]())
            case "make", kind:
                return KINDS[kind][0]()
            case "raise", kind:
                raise ValueError(KINDS[kind][0]())
        return None


class Maker(Process):
    restart = "temporary"

    def __init__(self, kind: str) -> None:
        self.kind_of_value = kind

    def loop(self) -> None:
        self.rejoin()

    def result(self) -> Any:
        return KINDS[self.kind_of_value][0]()


def outcome(works: Callable[[], bool]) -> str:
    try:
        return "yes" if works() else "WRONG"
    except NotSerializable:
        return "refused"
    except WorkerFailed as failed:
        return "as text" if "ValueError" in str(failed) else "refused" if "NotSerializable" in str(failed) else "LOST"


def ways_of(kind: str, running: RunningTree, tree: sktree.Tree) -> dict[str, str]:
    make, check = KINDS[kind]
    ref = running["taker"]

    def argument() -> bool:
        running.start_child(Child(Taker, args=(make(),), id="argument", restart="temporary"))
        try:
            return running["argument"].ask(("kept", kind), timeout=20)
        finally:
            running.terminate_child("argument")

    def told() -> bool:
        ref.tell(("keep", make()))
        return ref.ask(("kept", kind), timeout=20)

    def result() -> bool:
        return check(running.start_child(Child(Maker, args=(kind,), id=f"maker of {kind}")).result(20))

    def stored() -> bool:
        tree.add(kind, make())
        return ref.ask(("stored", kind), timeout=20)

    def read() -> bool:
        ref.ask(("store", kind), timeout=20)
        return check(tree.get(kind))

    def raised() -> bool:
        try:
            ref.ask(("raise", kind), timeout=20)
        except ValueError as error:
            return check(error.args[0])
        return False

    ways = {
        "argument": argument,
        "`ask`": lambda: ref.ask(("works", kind, make()), timeout=20),
        "`tell`": told,
        "answer": lambda: check(ref.ask(("make", kind), timeout=20)),
        "`result()`": result,
        "storage, to a worker": stored,
        "storage, from a worker": read,
        "raised": raised,
    }
    return {way: outcome(works) for way, works in ways.items()}


def main() -> None:
    tree = sktree.connect()
    with Supervisor("app", Taker, max_restarts=100).start() as running:
        for kind in KINDS:
            print(json.dumps([kind, ways_of(kind, running, tree)]), flush=True)


if __name__ == "__main__":
    main()

"""The checker under fire: writers and readers in processes of their own, while the server is SIGKILLed again and again.

Each writer notes on a shared board what it is about to write and what was acknowledged. So at any time, and for
every reader: acknowledged <= stored <= sent. A lost write breaks the left side, one applied twice the right
one, and a torn value does not match its checksum. `python -m tests.storage.fire ROLE ...` is one process of it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suitkaise.storage.tree import Tree
from tests.storage.support import Storage
from tests.support import ROOT, eventually

WRITERS, READERS, KEYS = 3, 2, 12
PATH = "fire"
SIZES = (0, 20, 300, 3000, 9000, 60000)


class Board:
    """Counters that all processes share. Each has one writer, so a kill cannot tear them."""

    def __init__(self, directory: Path) -> None:
        path = directory / "board"
        size = 8 * (WRITERS * (KEYS + 1) * 2 + READERS + WRITERS)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), size)
        self.words = memoryview(self._page).cast("Q")

    def at(self, writer: int, key: int) -> int:
        """Return the index of `sent` of a key; `acknowledged` is next. Key `KEYS` is the writer's counter."""
        return (writer * (KEYS + 1) + key) * 2

    def reads(self, reader: int) -> int:
        return WRITERS * (KEYS + 1) * 2 + reader

    def turns(self, writer: int) -> int:
        return WRITERS * (KEYS + 1) * 2 + READERS + writer

    def close(self) -> None:
        self.words.release()
        self._page.close()


def write(directory: Path, writer: int) -> None:
    """Write numbered values and count, with and without waiting for each; never return."""
    board, tree = Board(directory), Tree(directory)
    words = board.words
    following = [words[board.at(writer, key)] for key in range(KEYS + 1)]
    # The last increments of an earlier incarnation may or may not be part of the counter.
    posted: dict[int, int] = {}

    def acknowledge(key: int, number: int) -> None:
        at = board.at(writer, key) + 1
        words[at] = number if key < KEYS else words[at] + number

    while True:
        for _ in range(random.choice((1, 5, 50))):
            key, wait = random.randrange(KEYS + 1), random.random() < 0.5
            following[key] += 1
            words[board.at(writer, key)] = following[key]
            if key == KEYS:
                tree.increment(f"count{writer}", path=PATH, wait=wait)
            else:
                tree.add(f"w{writer}k{key}", made(following[key]), path=PATH, wait=wait)
            if wait:
                acknowledge(key, following[key] if key < KEYS else 1)
            elif key < KEYS:
                posted[key] = following[key]
            else:
                posted[key] = posted.get(key, 0) + 1
        tree.flush()
        for key, number in posted.items():
            acknowledge(key, max(number, words[board.at(writer, key) + 1]) if key < KEYS else number)
        posted.clear()
        words[board.turns(writer)] += 1


def made(number: int) -> tuple[int, int, bytes]:
    blob = os.urandom(random.choice(SIZES))
    return number, zlib.crc32(blob), blob


def read(directory: Path, reader: int) -> None:
    """Read at random and record complaints; never return."""
    board, tree = Board(directory), Tree(directory)
    last: dict[tuple[int, int], int] = {}
    while True:
        writer, key = random.randrange(WRITERS), random.randrange(KEYS + 1)
        for complaint in complaints(board, tree, writer, key, last):
            with (directory / "complaints").open("a") as file:
                file.write(f"reader {reader}: {complaint}\n")
        board.words[board.reads(reader)] += 1


def complaints(
    board: Board, tree: Tree, writer: int, key: int, last: dict[tuple[int, int], int] | None = None
) -> Iterator[str]:
    words, at = board.words, board.at(writer, key)
    acknowledged = words[at + 1]
    name = f"count{writer}" if key == KEYS else f"w{writer}k{key}"
    try:
        value: Any = tree.get(name, PATH, 0 if key == KEYS else (0, 0, b""))
    except Exception as error:
        yield f"{name}: {error!r}"
        return
    number = value
    if key < KEYS:
        number, checksum, blob = value
        if zlib.crc32(blob) != checksum:
            yield f"{name} is torn"
    if number < acknowledged:
        yield f"{name} is {number}, though {acknowledged} was acknowledged"
    if number > words[at]:
        yield f"{name} is {number}, though only {words[at]} was sent"
    if last is not None:
        if number < last.get((writer, key), 0):
            yield f"{name} went back from {last[writer, key]} to {number}"
        last[writer, key] = number


def run(kills: int, *, also_kill_workers: bool = False, **options: object) -> list[str]:
    """Kill the server `kills` times under load, and a worker each time; return the complaints of the checker."""
    with Storage(**options) as storage, contextlib.ExitStack() as stack:
        board = stack.enter_context(contextlib.closing(Board(storage.directory)))
        words = board.words
        roles = [("write", number) for number in range(WRITERS)] + [("read", n) for n in range(READERS)]
        processes = {role: start(storage.directory, *role) for role in roles}
        stack.callback(end, processes)
        complained = storage.directory / "complaints"

        def total() -> int:
            return sum(words[board.turns(writer)] for writer in range(WRITERS))

        slowest = 0.0
        for _ in range(kills):
            before = total()
            began = time.monotonic()
            goal = before + random.choice((1, 2, 5, 10))
            eventually(
                lambda goal=goal: total() >= goal or complained.exists(),  # type: ignore[misc]
                timeout=20,
                what="writers go on after a kill",
            )
            slowest = max(slowest, time.monotonic() - began)
            if complained.exists():
                break
            storage.restart()
            if also_kill_workers:
                role = random.choice(roles)
                processes[role].kill()
                processes[role].wait()
                processes[role] = start(storage.directory, *role)
            for role, process in processes.items():
                if process.poll() is not None:
                    return [f"{role} ended by itself with {process.returncode}"]
        eventually(
            lambda: complained.exists() or all(words[board.reads(reader)] for reader in range(READERS)),
            timeout=30,
            what="each reader has read",
        )
        end(processes)
        storage.restart()
        found = complained.read_text().splitlines() if complained.exists() else []
        for writer in range(WRITERS):
            for key in range(KEYS + 1):
                found += complaints(board, storage.tree, writer, key)
        return found


def start(directory: Path, role: str, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.storage.fire", role, str(directory), str(number)], cwd=ROOT)


def end(processes: dict[tuple[str, int], subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        process.kill()
        process.wait()


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))

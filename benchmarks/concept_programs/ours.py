"""What `benchmarks/concept.py` measures, written with the concept's own names: `ours.py MEASURE`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from suitkaise import Process, sktree, xprocess

START, LOOPS, OPERATIONS, TASKS = 9, 200_000, 20_000, 20_000


class Starter(Process):
    def __init__(self, path: str) -> None:
        super().__init__(num_loops=1)
        self.fifo = path

    def __loop__(self) -> None:
        now = time.monotonic_ns()
        descriptor = os.open(self.fifo, os.O_WRONLY)
        os.write(descriptor, now.to_bytes(8, "little"))
        os.close(descriptor)


class Looper(Process):
    def __init__(self, loops: int) -> None:
        super().__init__(num_loops=loops)
        self.began = 0
        self.ended = 0

    def __beforeloop__(self) -> None:
        self.began = self.began or time.monotonic_ns()

    def __loop__(self) -> None:
        pass

    def __afterloop__(self) -> None:
        self.ended = time.monotonic_ns()

    def __result__(self) -> float:
        return (self.ended - self.began) / 1e9


class Shared(Process):
    """Reads or writes a shared number from a process of its own."""

    def __init__(self, what: str) -> None:
        super().__init__(num_loops=1)
        self.what = what
        self.took = 0.0

    def __loop__(self) -> None:
        tree, began = self.tree, time.perf_counter()
        if self.what == "read":
            for _ in range(OPERATIONS):
                int(tree.get("number", path="shared"))
        else:
            for number in range(OPERATIONS):
                tree.add("number", number, path="shared")
        self.took = time.perf_counter() - began

    def __result__(self) -> float:
        return self.took


def square(number: int) -> int:
    return number * number


def main(measure: str) -> float:
    with xprocess.CrossProcessing() as xp:
        if measure == "start":
            path = sys.argv[2]
            pipe = os.open(path, os.O_RDWR)
            taken = []
            for number in range(START):
                began = time.monotonic_ns()
                process: Any = xp.create_process(f"starter-{number}", Starter(path))
                taken.append(int.from_bytes(os.read(pipe, 8), "little") - began)
                process.join()
            return sorted(taken)[START // 2] / 1e9
        if measure == "loops":
            process = xp.create_process("looper", Looper(LOOPS))
            return float(LOOPS / process.result(timeout=60.0))
        if measure in ("read", "write"):
            sktree.connect().add("number", 0, path="shared")
            process = xp.create_process("shared", Shared(measure))
            return float(process.result(timeout=60.0) / OPERATIONS)
        pool = xp.create_pool(square, 2)
        list(pool.map(range(10)))
        began_at = time.perf_counter()
        assert list(pool.map(range(TASKS))) == [number * number for number in range(TASKS)]
        return TASKS / (time.perf_counter() - began_at)


if __name__ == "__main__":
    print(main(sys.argv[1]))
    sys.stdout.flush()

"""What `benchmarks/concept.py` measures, written for the predecessor (suitkaise 0.4.14): `predecessor.py MEASURE`."""

from __future__ import annotations

import os
import sys
import time

from suitkaise.processing import Pool, Share, Skprocess

START, LOOPS, OPERATIONS, TASKS = 9, 2_000, 1_000, 2_000


class Starter(Skprocess):
    def __init__(self, descriptor: str) -> None:
        self.path = descriptor
        self.process_config.runs = 1

    def __run__(self) -> None:
        now = time.monotonic_ns()
        descriptor = os.open(self.path, os.O_WRONLY)
        os.write(descriptor, now.to_bytes(8, "little"))
        os.close(descriptor)


class Looper(Skprocess):
    def __init__(self, loops: int) -> None:
        self.process_config.runs = loops
        self.began = 0
        self.ended = 0

    def __prerun__(self) -> None:
        self.began = self.began or time.monotonic_ns()

    def __run__(self) -> None:
        pass

    def __postrun__(self) -> None:
        self.ended = time.monotonic_ns()

    def __result__(self) -> float:
        return (self.ended - self.began) / 1e9


class Shared(Skprocess):
    """Reads or writes a shared number from a process of its own."""

    def __init__(self, share: Share, what: str) -> None:
        self.share = share
        self.what = what
        self.process_config.runs = 1
        self.took = 0.0

    def __run__(self) -> None:
        share, began = self.share, time.perf_counter()
        if self.what == "read":
            for _ in range(OPERATIONS):
                int(share.number)
        else:
            for number in range(OPERATIONS):
                share.number = number
        self.took = time.perf_counter() - began

    def __result__(self) -> float:
        return self.took


def square(number: int) -> int:
    return number * number


def main(measure: str) -> float:
    if measure == "start":
        path = sys.argv[2]
        pipe = os.open(path, os.O_RDWR)
        taken = []
        for _ in range(START):
            process = Starter(path)
            began = time.monotonic_ns()
            process.start()
            taken.append(int.from_bytes(os.read(pipe, 8), "little") - began)
            process.wait()
        return sorted(taken)[START // 2] / 1e9
    if measure == "loops":
        looper = Looper(LOOPS)
        looper.start()
        looper.wait()
        return LOOPS / looper.result()
    if measure in ("read", "write"):
        share = Share()
        share.start()
        share.number = 0
        process = Shared(share, measure)
        process.start()
        process.wait()
        took = process.result()
        share.exit()
        return took / OPERATIONS
    with Pool(workers=2) as pool:
        pool.map(square, range(10))
        began = time.perf_counter()
        assert pool.map(square, range(TASKS)) == [number * number for number in range(TASKS)]
        return TASKS / (time.perf_counter() - began)


if __name__ == "__main__":
    print(main(sys.argv[1]))
    sys.stdout.flush()

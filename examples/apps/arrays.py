"""Hands arrays of 40 MB from stage to stage: each one goes through once, whichever process is killed.

    python examples/apps/arrays.py [--arrays 6]

The arrays lie in the shared storage, beside the number of arrays that each stage has handed on. In a single transaction
a stage stores its array, removes the one that it was made of, and counts on. So a stage that is killed has either done
all of that or nothing, and its next incarnation continues with the right array. A stage waits while two of its arrays
have not been taken, so the storage stays small.
"""

import argparse
from typing import Any

import numpy as np

from suitkaise import Process, Supervisor, preload, sktree

SIZE = 5_000_000  # numbers of 8 bytes
WAITING = 2  # arrays between two stages, at most
ORDER = ["measure", "smooth", "summarize"]


class Stage(Process):
    """Takes the arrays that the stage before has made, and hands on its own."""

    restart = "transient"

    def __init__(self, arrays: int) -> None:
        self.arrays = arrays

    def on_start(self) -> None:
        place = ORDER.index(self.name)
        self.before, self.after = [None, *ORDER][place], [*ORDER, None][place + 1]

    def loop(self) -> None:
        handed_on = dict.fromkeys(ORDER, 0) | self.tree.get_all_from("handed on")
        number = handed_on[self.name]
        if number == self.arrays:
            self.rejoin()
        elif self.before and number == handed_on[self.before]:
            self.wait(0.01)  # for an array
        elif self.after and number - handed_on[self.after] == WAITING:
            self.wait(0.01)  # until the next stage has taken one
        else:
            self.hand_on(str(number))

    def hand_on(self, name: str) -> None:
        print(f"{self.name} makes array {name} in process {self.pid}", flush=True)
        array = self.work(self.tree.get(name, path=self.before) if self.before else int(name))
        with self.tree.transaction():
            self.tree.add(name, array, path=self.name)
            self.tree.add(self.name, int(name) + 1, path="handed on")
            if self.before:
                self.tree.remove(name, path=self.before)

    def work(self, taken: Any) -> Any:
        raise NotImplementedError


class Measure(Stage):
    """Stands for a device: the array is made of its number."""

    def work(self, number: int) -> np.ndarray:
        return np.random.default_rng(number).random(SIZE)


class Smooth(Stage):
    """Replaces each number by the mean of itself and the next one. `array` is this process's own, so it may change."""

    def work(self, array: np.ndarray) -> np.ndarray:
        array += np.roll(array, -1)
        array /= 2
        return array


class Summarize(Stage):
    """Reduces each array to its standard deviation. When it has summarized all arrays, the tree ends."""

    significant = True

    def work(self, array: np.ndarray) -> float:
        return float(array.std())


parser = argparse.ArgumentParser(description="Send arrays through three stages.")
parser.add_argument("--arrays", type=int, default=6, help="how many (default 6)")
options = parser.parse_args()

preload("numpy")  # once, for all starts and restarts
tree = sktree.connect()
Supervisor(
    "arrays",
    *(stage(options.arrays) for stage in (Measure, Smooth, Summarize)),
    max_restarts=20,
    auto_shutdown="any_significant",
).run()
for number, deviation in sorted(tree.get_all_from("summarize").items(), key=lambda item: int(item[0])):
    print(f"array {number}: standard deviation {deviation}")

"""Where workers go: the node of each path, and the choice of a machine, at one look at the cluster for many workers."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from suitkaise.cluster.machines import Machine
from suitkaise.platform.locks import RLock
from suitkaise.specs.cluster import Place

if TYPE_CHECKING:
    from suitkaise.cluster.remote_node import RemoteNode

__all__ = ["Look", "Places"]

_SHOWN = 20
"""How many machines an error names."""


class Places:
    """The node of each path. Any thread may call the methods; none of them looks at all paths."""

    def __init__(self) -> None:
        self._nodes: dict[str, RemoteNode] = {}
        self._paths: dict[RemoteNode, set[str]] = {}
        self._lock = RLock()

    def node_of(self, path: str) -> RemoteNode | None:
        """Return the node of a path; None if it has none."""
        return self._nodes.get(path)

    def put(self, path: str, node: RemoteNode) -> None:
        """Set the node of a path."""
        with self._lock:
            self._take(path)
            self._nodes[path] = node
            self._paths.setdefault(node, set()).add(path)

    def take(self, path: str) -> RemoteNode | None:
        """Forget the node of a path; return it, if there was one."""
        with self._lock:
            return self._take(path)

    def _take(self, path: str) -> RemoteNode | None:
        node = self._nodes.pop(path, None)
        if node is not None:
            self._paths[node].discard(path)
        return node

    def paths_on(self, node: RemoteNode) -> list[str]:
        """Return the paths that have this node."""
        with self._lock:
            return list(self._paths.get(node, ()))

    def leave(self, node: RemoteNode) -> None:
        """Forget the node, and that paths have it."""
        with self._lock:
            for path in self._paths.pop(node, ()):
                del self._nodes[path]

    def counts(self) -> Counter[str | None]:
        """Return how many paths each machine has, by its id."""
        counts: Counter[str | None] = Counter()
        with self._lock:
            for node, paths in self._paths.items():
                counts[node.machine_id] += len(paths)
        return counts


class Look:
    """The machines that are alive, and how many workers of the program each of them has; one that is chosen has more.

    A choice takes no look at all machines, so that many workers may start at the same time on many machines.

    Args:
        machines: that are alive.
        counts: the workers of the program on each, by its id.
        silent: the ids of those from which nothing was heard any more; they are chosen only if there is no other.
    """

    def __init__(self, machines: Iterable[Machine], counts: Counter[str | None], silent: Collection[str]) -> None:
        self.at: float = time.monotonic()
        self._machines = list(machines)
        self._counts = counts
        self._silent = set(silent)
        self._emptiest: list[tuple[bool, int, int]] = []  # a heap; workers that came since may make an entry wrong
        self._called: dict[str, list[Machine]] = {}
        for index, machine in enumerate(self._machines):
            self._emptiest.append((machine.id in self._silent, counts[machine.id], index))
            for name in {machine.id, machine.name, machine.address}:
                self._called.setdefault(name, []).append(machine)
        heapq.heapify(self._emptiest)

    def machines(self, place: Place) -> list[Machine]:
        """Return the machines that the place allows."""
        return self._machines if place.node is None else self._called.get(place.node, [])

    def missing(self, place: Place) -> str:
        """Return why the place allows no machine, and which ones there are."""
        if not self._machines or place.node is None:
            return "there is none"
        names = sorted({repr(one.name) for one in self._machines})
        others = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else "")
        return f"none has the name, address or id {place.node!r}; there are {others}"

    def choose(self, place: Place) -> Machine:
        """Return the machine that the place means, with one worker more; it must allow one."""
        if place.node is None and place.strategy == "spread":
            machine = self._take_emptiest()
        else:
            machine = min(self.machines(place), key=self._order(place))
        self._counts[machine.id] += 1
        return machine

    def _take_emptiest(self) -> Machine:
        while True:
            silent, count, index = self._emptiest[0]
            machine = self._machines[index]
            now = self._counts[machine.id]
            if count == now:
                return machine
            heapq.heapreplace(self._emptiest, (silent, now, index))

    def _order(self, place: Place) -> Callable[[Machine], tuple[bool, int]]:
        sign = 1 if place.strategy == "spread" else -1
        return lambda one: (one.id in self._silent, sign * self._counts[one.id])

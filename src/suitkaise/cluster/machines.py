"""What a cluster offers to the engine: its machines, and processes on them that run nodes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from suitkaise.cluster.node import Settings
from suitkaise.records import dataclass
from suitkaise.specs.cluster import Place

__all__ = ["Cluster", "Ended", "Machine", "NodeProcess"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the cluster that is alive: its id, its name and its address."""

    id: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What a cluster tells of the end of a process.

    Args:
        why: the reason.
        certain: whether the process is gone for certain; if not, its machine may just be out of reach.
    """

    why: str
    certain: bool


class NodeProcess(Protocol):
    """A process on a machine that runs a node, or will run one."""

    ended: Future[Ended]
    """Resolves when the process has ended, or is taken for ended, or is known never to start."""

    def kill(self) -> None:
        """Have the process killed; never blocks."""
        ...


class Cluster(Protocol):
    """The machines. The methods may block, for a second or so; one thread calls them."""

    host: str
    """The address at which the machines reach this program."""

    def machines(self) -> list[Machine]:
        """Return the machines that are alive."""
        ...

    def start(self, settings: Settings, machine: Machine | None, place: Place) -> NodeProcess:
        """Start a process with a node, on a machine, or on any that has the resources of the place."""
        ...

    def close(self) -> None:
        """Leave the cluster, and end it if this program has started it."""
        ...

"""What a cluster offers to the engine: its machines, and processes on them that run nodes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol

from suitkaise.cluster.node import Settings
from suitkaise.records import dataclass
from suitkaise.specs.cluster import Place

__all__ = ["Cluster", "Machine", "NodeProcess"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the cluster that is alive: its id, its name and address, and all resources that it has."""

    id: str
    name: str
    address: str
    resources: Mapping[str, float]

    def is_called(self, name: str) -> bool:
        """Return whether this is the machine that a `Place(node=name)` means."""
        return name in (self.id, self.name, self.address)


class NodeProcess(Protocol):
    """A process on a machine that runs a node, or will run one."""

    ended: Future[str]
    """Resolves with the reason when the process has ended, or is known never to start."""

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

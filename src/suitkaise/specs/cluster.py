"""The declaration of a cluster as an engine, and of the place of a worker in it."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Literal, TypeAlias

from suitkaise.errors import SpecError
from suitkaise.records import dataclass, field
from suitkaise.specs.options import checked_flag, is_number, is_whole

__all__ = ["SPREADS", "Place", "Ray", "Spread"]

Spread: TypeAlias = Literal["spread", "pack"]

SPREADS = ("spread", "pack")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs on a cluster: an option of a `Child`, or the default of a `Ray(place=...)`.

    A worker comes back to its node at each restart; once that is gone, it is placed anew, among those that are there.

    Args:
        node: the name, the address or the id of the node that it must run on, as `ray.nodes()` lists them (default
            None: any node).
        resources: what it needs, by Ray's names: `{"CPU": 2}`, `{"GPU": 1}`, `{"memory": 2**30}`, or a resource of the
            cluster's own (default None: nothing). It gets a process of Ray of its own then, which has reserved them.
            Without, nothing is reserved for it.
        strategy: `"spread"` (default): on the node that runs the fewest workers of this program; `"pack"`: on the one
            that runs the most.
        dedicated: whether it gets a process of Ray (an actor) of its own though it needs no resources (default False:
            all workers of a node that need none share one). That costs some 50 MiB of memory and a second or two at
            its first start; a restart is as quick as elsewhere. What happens to an actor, by Ray's hand or an
            operator's, happens to one worker alone then, and Ray's own tools list it.

    Raises:
        SpecError: a value is wrong.

    >>> from suitkaise import Child
    >>> def train() -> None: ...
    >>> Child(train, place=Place(resources={"GPU": 1})).place.resources
    {'GPU': 1}
    """

    node: str | None = None
    resources: Mapping[str, float] | None = None
    strategy: Spread = "spread"
    dedicated: bool = False

    def __post_init__(self) -> None:
        if self.node is not None and (not isinstance(self.node, str) or not self.node):
            raise SpecError(f"Place: node must be the name, address or id of a node, or None, not {self.node!r}")
        if self.strategy not in SPREADS:
            raise SpecError(f"Place: strategy must be 'spread' or 'pack', not {self.strategy!r}")
        checked_flag("Place", "dedicated", self.dedicated)
        if self.resources is None:
            return
        if not isinstance(self.resources, Mapping) or not self.resources:
            raise SpecError(f"Place: resources must be a dict such as {{'GPU': 1}}, or None, not {self.resources!r}")
        for name, amount in self.resources.items():
            if not isinstance(name, str) or not name or not is_number(amount) or not 0 < amount < inf:
                raise SpecError(f"Place: resources must map names to numbers > 0, not {name!r} to {amount!r}")


@dataclass(frozen=True, slots=True)
class Ray:
    """An engine: processes and commands run on the nodes of a Ray cluster; threads and supervisors in the program.

    Needs the extra `ray`: `pip install "suitkaise-xprocess[ray]"`, in the same version on each node.

    Args:
        address: of the cluster to join: `"auto"` for the one that runs on this machine, or `"host:port"` (default
            None: the one that the program has joined by `ray.init`; else one is started here, and ends with the tree).
        nodes: start a cluster that pretends to have so many nodes, all on this machine, to try things out (default
            None: no). Not with an `address`.
        lease: seconds without a sign of life after which both sides of a connection to a node give it up (default
            10.0): the node asks its workers to finish, and the program starts them elsewhere once they must be gone.
        start_timeout: seconds that the start of a worker waits for a node to be ready (default 60.0). It limits neither
            how long it takes to join the cluster, which is Ray's, nor the worker: see `Child(start_timeout=)`.
        runtime_env: the environment of the workers' programs on the nodes, as Ray takes it: `{"working_dir": "."}`,
            `{"pip": [...]}` (default None).
        place: where the workers run whose `Child` has no place of its own.

    Raises:
        SpecError: a value is wrong.

    >>> from suitkaise import Supervisor
    >>> def work() -> None: ...
    >>> Supervisor("app", work, engine=Ray(address="auto")).engine.address
    'auto'
    """

    address: str | None = None
    nodes: int | None = None
    lease: float = 10.0
    start_timeout: float = 60.0
    runtime_env: Mapping[str, Any] | None = None
    place: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        if self.address is not None and (not isinstance(self.address, str) or not self.address):
            raise SpecError(f"Ray: address must be 'auto', 'host:port' or None, not {self.address!r}")
        if self.address is not None and "://" in self.address:
            raise SpecError(
                f"Ray: {self.address!r} is for programs outside of the cluster (Ray Client); the program that owns the "
                "tree must run on a node of it: use 'auto' there"
            )
        if self.nodes is not None:
            if not is_whole(self.nodes, 1):
                raise SpecError(f"Ray: nodes must be a whole number >= 1, or None, not {self.nodes!r}")
            if self.address is not None:
                raise SpecError("Ray: nodes= starts a cluster on this machine, address= joins one; give one of them")
        for name in ("lease", "start_timeout"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < inf:
                raise SpecError(f"Ray: {name} must be seconds > 0, not {value!r}")
        if self.runtime_env is not None and not isinstance(self.runtime_env, Mapping):
            raise SpecError(f"Ray: runtime_env must be a dict, or None, not {self.runtime_env!r}")
        if not isinstance(self.place, Place):
            raise SpecError(f"Ray: place must be a Place(...), not {self.place!r}")

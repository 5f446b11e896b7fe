"""The engine for workers on a cluster: places each of them on a node, and starts nodes where there are none yet.

A restarted worker goes back to its node as long as the node is there, so a restart needs no answer from the cluster.
Everything that may wait for the cluster happens in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

from suitkaise.cluster.link import NAME_BYTES, Listener
from suitkaise.cluster.machines import Cluster, Machine
from suitkaise.cluster.node import Settings, version
from suitkaise.cluster.placement import Look, Places
from suitkaise.cluster.protocol import Bury, Forget, LogLevels
from suitkaise.cluster.remote_node import RemoteNode, Serve
from suitkaise.cluster.remote_worker import RemoteWorker
from suitkaise.engines.engine import EngineContext, Launch
from suitkaise.engines.spares import surroundings_here
from suitkaise.errors import NotSerializable, SuitkaiseError
from suitkaise.exits import Crashed
from suitkaise.messaging import wire
from suitkaise.messaging.descriptor_codec import dumps_with_descriptors
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.reactor import SerialExecutor
from suitkaise.specs import Child
from suitkaise.specs.cluster import Place, Ray

__all__ = ["ClusterEngine"]

logger: QueuedLogger = QueuedLogger("suitkaise.cluster")

LOOK_AGAIN = 1.0
"""Seconds after which the machines are looked at again, while none is fit for a worker."""

LOOK_TIME = 0.2
"""Seconds for which a look at the machines is good for other workers, unless a node is lost."""

FORMER = 100
"""How many nodes that were lost are remembered, for those who look."""

QUIT_TIME = 5.0
"""Seconds that nodes get to end before they are killed."""


class ClusterEngine:
    """Runs the processes and commands of the trees that have this engine.

    Args:
        context: the program.
        spec: the declaration.
        cluster: the machines.
        serve: carries out what workers request of the program.
        storage: returns the directory of the program's storage; None while it does not run.

    Raises:
        SuitkaiseError: this machine does not have the address that it has in the cluster.
    """

    def __init__(
        self,
        context: EngineContext,
        spec: Ray,
        cluster: Cluster,
        serve: Serve,
        storage: Callable[[], str | None],
    ) -> None:
        self.spec = spec
        self._context = context
        self._cluster = cluster
        self._serve = serve
        self._storage = storage
        self._lock = RLock()
        self._recipes: dict[str, tuple[Child, bytes]] = {}
        self._places = Places()
        self._look: Look | None = None  # the last one at the machines
        self._shared: dict[str, RemoteNode] = {}  # by the id of the machine
        self._nodes: dict[bytes, RemoteNode] = {}  # all that are not over, by their names
        self._former: dict[str, dict[str, Any]] = {}  # by name: those that were lost, and no other has come since
        self._silent: set[str] = set()  # the machines from which nothing was heard any more
        self._closed = False
        self._surroundings = surroundings_here()
        self._thread = SerialExecutor("suitkaise-cluster")
        try:
            self._listener = Listener(context.reactor, cluster.host, self._connected)
        except OSError as error:
            raise SuitkaiseError(
                f"the program cannot listen for its nodes at {cluster.host!r}, "
                f"the address that the cluster has for this machine: {error}"
            ) from error

    # ------------------------------------------------------------ the engine, for supervisors
    def prepare(self, path: str, child: Child) -> None:
        """Encode the recipe of a child, so that an argument that cannot be sent is reported before anything starts.

        Raises:
            NotSerializable: names the path to the culprit.
        """
        self._recipe(path, child)
        self._submit(lambda: self._prepare_node(path, child))

    def _prepare_node(self, path: str, child: Child) -> None:
        """Start the node of the child, so that all nodes start while the first workers do."""
        with contextlib.suppress(Exception):  # the start of the worker tells it
            if path in self._recipes:
                self._place(path, child)

    def _recipe(self, path: str, child: Child) -> bytes:
        kept = self._recipes.get(path)
        if kept is not None and kept[0] is child:
            return kept[1]
        data, owners = dumps_with_descriptors(child.what, root=f"{path}: worker")
        if owners:
            raise NotSerializable(f"{path}: a socket or pipe among its arguments cannot be sent to another machine")
        wire.check_length(f"{path}: worker", len(data))
        self._recipes[path] = child, data
        return data

    def forget(self, path: str) -> None:
        """Discard what was kept for the child at `path`, which will not be started again."""
        self._recipes.pop(path, None)
        self._leave(path)

    def _leave(self, path: str) -> None:
        node = self._places.take(path)
        if node is None:
            return
        node.send(Forget(path))
        if node.is_dedicated:
            node.quit()

    def spawn(self, launch: Launch) -> RemoteWorker:
        """Start the worker on the node on which it was, or else on one that is chosen in another thread."""
        worker = RemoteWorker(self._context, launch, self._recipe(launch.path, launch.child))
        node = self._places.node_of(launch.path)
        if node is None or not node.add(worker):
            until = time.monotonic() + self.spec.start_timeout
            self._submit(lambda: self._start_on_a_node(worker, until, told=False))
        return worker

    def nodes(self) -> list[dict[str, Any]]:
        """Return what the nodes are and do, also those that were lost a while ago, and whose machine has none since."""
        with self._lock:
            now, former = list(self._nodes.values()), list(self._former.values())
        facts = [*(node.facts for node in now), *former]
        return sorted((one for one in facts if one is not None), key=lambda one: (one["name"], one["pid"] or 0))

    def set_log_levels(self, levels: dict[str, int]) -> None:
        """Have the workers' loggers use these levels, those of the program's loggers."""
        for node in self._all():
            node.send(LogLevels(levels))

    def abandoned(self) -> list[str]:
        """Return nothing: processes can be killed."""
        return []

    def close(self) -> None:
        """End all nodes, and leave the cluster."""
        with self._lock:
            self._closed = True
        nodes = self._all()
        for node in nodes:
            node.quit()
        wait([node.gone for node in nodes], QUIT_TIME)
        for node in nodes:
            if not node.gone.done():
                node.kill()
        self._listener.close()
        self._thread.close()
        self._cluster.close()

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the descriptors, which are the parent's."""
        self._listener.close_after_fork()
        for node in self._nodes.values():
            node.close_after_fork()

    def _all(self) -> list[RemoteNode]:
        with self._lock:
            return list(self._nodes.values())

    # ------------------------------------------------------------ places (the engine's own thread)
    def _submit(self, call: Callable[[], object]) -> None:
        self._context.reactor.call_soon_threadsafe(lambda: self._thread.submit(call))

    def _looked(self) -> Look:
        """Return the machines as they are now, or were a moment ago."""
        look = self._look
        if look is None or time.monotonic() > look.at + LOOK_TIME:
            look = self._look = Look(self._cluster.machines(), self._places.counts(), self._silent)
        return look

    def _start_on_a_node(self, worker: RemoteWorker, until: float, *, told: bool) -> None:
        """Start the worker on the node of its path; if there is no machine for it, look again later, until then."""
        if worker.exited.done():
            return
        path, child = worker.launch.path, worker.launch.child
        try:
            node = self._place(path, child)
            if node is not None and node.add(worker):
                return
            reason = f"{node.name} is lost" if node is not None else self._looked().missing(self._place_of(child))
        except Exception as error:
            worker.lose(Crashed("start", error))
            return
        why = f"no node of the cluster is fit for {path!r}: {reason}"
        now = time.monotonic()
        if now >= until or self._closed:
            worker.lose(Crashed("start", SuitkaiseError(why, path=path)))
            return
        if not told and node is None:
            logger.warning("%s; the start waits for one, up to %g s: Ray(start_timeout=)", why, self.spec.start_timeout)
        self._context.reactor.call_at(
            min(now + LOOK_AGAIN, until),
            lambda: self._thread.submit(lambda: self._start_on_a_node(worker, until, told=True)),
        )

    def _place(self, path: str, child: Child) -> RemoteNode | None:
        """Return the node of a path, which is started if there is none; None if there is no machine for it now."""
        node = self._places.node_of(path)
        if node is not None and node.is_open:
            return node
        place = self._place_of(child)
        look = self._looked()
        if not look.machines(place):
            return None
        if place.resources and place.node is None:
            node = self._start(None, place)  # where the cluster has them
        elif place.resources or place.dedicated:
            node = self._start(look.choose(place), place)
        else:
            node = self._node_on(look.choose(place))
        self._places.put(path, node)
        if path not in self._recipes:  # it was forgotten while the node was started
            self._leave(path)
        return node

    def _place_of(self, child: Child) -> Place:
        return self.spec.place if child.place is None else child.place

    def _node_on(self, machine: Machine) -> RemoteNode:
        with self._lock:
            node = self._shared.get(machine.id)
        if node is None or not node.is_open:
            node = self._start(machine, Place())
            with self._lock:
                self._shared[machine.id] = node
        return node

    def _start(self, machine: Machine | None, place: Place) -> RemoteNode:
        """Start a node, on that machine or where the cluster has what the place needs."""
        name = os.urandom(NAME_BYTES)
        settings = Settings(
            self._listener.address, self._listener.key, name, version(), self.spec.lease,
            self._context.orphan_timeout, self._surroundings,
        )  # fmt: skip
        node = RemoteNode(
            self._context, settings, machine, self, self._serve, self._storage, self.spec.start_timeout,
            is_dedicated=place.dedicated or bool(place.resources),
        )  # fmt: skip
        with self._lock:
            if self._closed:
                raise SuitkaiseError("the program ends")
            self._nodes[name] = node
        try:
            node.runs_in(self._cluster.start(settings, machine, place))
        except Exception as error:
            failure = error
            self._context.reactor.call_soon_threadsafe(lambda: node.fail(failure))
        return node

    # ------------------------------------------------------------ news of nodes (reactor's thread)
    def _connected(self, name: bytes, sock: socket.socket) -> None:
        with self._lock:
            node = self._nodes.get(name)
        if node is None:  # it was given up
            sock.close()
        else:
            node.connected(sock)

    def trees_of(self, node: RemoteNode) -> set[str]:
        """Return the names of the trees that have workers there."""
        return {path.partition("/")[0] for path in self._places.paths_on(node)}

    def on_ready(self, node: RemoteNode) -> None:
        """Have the node look what is left of others that were lost on its machine."""
        self._silent.discard(node.machine_id or "")
        with self._lock:
            self._former.pop(node.name, None)
        for lost in self._all():
            if lost.directory is not None and not lost.is_open and lost.home == node.home:
                node.send(Bury(lost.directory))

    def on_lost(self, node: RemoteNode) -> None:
        """Start no worker there; have another node on its machine look what is left of it, if the machine is there."""
        self._look = None
        if node.is_silent:
            self._silent.add(node.machine_id or "")
        elif node.workers:
            self._submit(lambda: self._look_after(node))

    def _look_after(self, lost: RemoteNode) -> None:
        machines = {machine.id: machine for machine in self._cluster.machines()}
        machine = machines.get(lost.machine_id or "")
        if machine is None or lost.directory is None or self._closed:
            return
        node = self._node_on(machine)
        if node.is_ready and node.home == lost.home:  # else `on_ready` follows
            node.send(Bury(lost.directory))

    def on_over(self, node: RemoteNode) -> None:
        """Forget the node, but that it was lost."""
        facts = node.facts
        with self._lock:
            if facts is not None and facts["why"]:
                self._former.pop(node.name, None)
                self._former[node.name] = facts | {"workers": 0, "silent": None}
                if len(self._former) > FORMER:
                    del self._former[next(iter(self._former))]
            self._nodes.pop(node.settings.name, None)
            if self._shared.get(node.machine_id or "") is node:
                del self._shared[node.machine_id or ""]
        self._places.leave(node)

    def on_buried(self, directory: str) -> None:
        """Tell the end of the workers of the node that had this directory."""
        for node in self._all():
            if node.directory == directory:
                node.bury()

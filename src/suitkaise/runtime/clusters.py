"""The clusters that the trees of a program use: each is joined at its first use, and left at the program's end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from suitkaise.engines.engine import Engine, EngineContext
from suitkaise.platform.locks import RLock
from suitkaise.specs.cluster import Ray

if TYPE_CHECKING:
    from suitkaise.cluster.engine import ClusterEngine
    from suitkaise.cluster.remote_node import Serve

__all__ = ["Clusters"]


class Clusters:
    """All clusters of a program.

    Args:
        context: the program.
        engines: the program's own engines, by the kind of child.
        serve: carries out what workers on a cluster request of the program.
        storage: returns the directory of the program's storage; None while it does not run.
        on_joined: called when a cluster was joined.
    """

    def __init__(
        self,
        context: EngineContext,
        engines: Mapping[str, Engine],
        serve: Serve,
        storage: Callable[[], str | None],
        on_joined: Callable[[], None],
    ) -> None:
        self._context = context
        self._engines = engines
        self._serve = serve
        self._storage = storage
        self._on_joined = on_joined
        self._lock = RLock()
        self._joined: list[tuple[Ray, ClusterEngine]] = []

    def engines_of(self, spec: Ray) -> Mapping[str, Engine]:
        """Return the engines of the trees that have this declaration; the first call joins the cluster.

        Raises:
            SuitkaiseError: it cannot be joined or started.
        """
        with self._lock:
            engine = next((engine for joined, engine in self._joined if joined == spec), None)
            if engine is None:
                engine = self._join(spec)
                self._joined.append((spec, engine))
        return {**self._engines, "process": engine, "command": engine}

    def _join(self, spec: Ray) -> ClusterEngine:
        from suitkaise.cluster import ray_cluster  # few programs have a cluster
        from suitkaise.cluster.engine import ClusterEngine

        cluster = ray_cluster.join(spec)
        self._on_joined()
        try:
            return ClusterEngine(self._context, spec, cluster, self._serve, self._storage)
        except BaseException:
            cluster.close()
            raise

    def nodes(self) -> list[dict[str, Any]]:
        """Return what the nodes of all clusters are and do, as plain values."""
        return [facts for _, engine in list(self._joined) for facts in engine.nodes()]

    def set_log_levels(self, levels: dict[str, int]) -> None:
        """Have the loggers of all workers use these levels."""
        for _, engine in list(self._joined):
            engine.set_log_levels(levels)

    def close(self) -> None:
        """End all nodes, and leave the clusters."""
        for _, engine in self._joined:
            engine.close()
        self._joined.clear()

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the descriptors, which are the parent's."""
        for _, engine in self._joined:
            engine.close_after_fork()

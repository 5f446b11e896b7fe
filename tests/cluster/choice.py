"""Trees that declare no engine run on a cluster: so do those of the tests of rules, which know nothing of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from suitkaise import Child, Process, Ray, Supervisor
from suitkaise.cluster import ray_cluster
from suitkaise.runtime import choices
from suitkaise.runtime.runtime import current
from tests.cluster.processes import ProcessCluster
from tests.support import start_threads_of_the_runtime

__all__ = ["all_trees_on_a_cluster"]


class Here(Process):
    def on_receive(self, message: object) -> object:
        return message


@contextmanager
def all_trees_on_a_cluster(which: str) -> Iterator[Callable[[], None]]:
    """Keep a runtime whose trees run on two nodes that are plain `processes`, or on a cluster of `ray` with three.

    Yield a function that forgets what the trees before it have left in the runtime.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(choices, "engine", Ray())
        if which == "ray":
            patch.setenv("RAY_worker_niceness", "0")  # not 15: three nodes share the processors
            stack.callback(ray_cluster.join(Ray(nodes=3)).close)  # `Ray()` is the cluster that the program has joined
        else:
            machines = ProcessCluster({"left": {}, "right": {}})
            patch.setattr(ray_cluster, "join", lambda spec: machines)
        stack.enter_context(Supervisor("keeps-the-nodes", Child(Here, copies=3)).start())
        start_threads_of_the_runtime()
        runtime = current()
        assert runtime is not None
        yield runtime.crashes._reports.clear

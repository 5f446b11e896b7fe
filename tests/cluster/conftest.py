from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from suitkaise.cluster import ray_cluster
from tests.cluster.processes import ProcessCluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ProcessCluster]]:
    """Make the cluster that `engine=Ray(...)` joins, with machines of these names and no resources."""
    made: list[ProcessCluster] = []

    def make(*machines: str, **resources: float) -> ProcessCluster:
        made.append(ProcessCluster(dict.fromkeys(machines, resources)))
        monkeypatch.setattr(ray_cluster, "join", lambda spec: made[-1])
        return made[-1]

    yield make
    for one in made:
        for node in one.nodes:
            node.kill()

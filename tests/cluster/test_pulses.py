"""What a node tells all the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Child, Ray, Supervisor
from suitkaise.cluster.protocol import Pulse
from suitkaise.cluster.remote_node import RemoteNode
from suitkaise.runtime.runtime import current
from tests.cluster.processes import ProcessCluster
from tests.cluster.workers import Member
from tests.support import eventually


def test_a_node_tells_only_the_slots_that_have_changed(
    cluster: Callable[..., ProcessCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulses: list[list[int]] = []  # of each, how many messages the workers that it tells of have handled
    on_frame = RemoteNode._on_frame

    def noted(self: RemoteNode, frame: Any, payload: bytes) -> None:
        if isinstance(frame, Pulse):
            pulses.append([view.messages for view in frame.views])
        on_frame(self, frame, payload)

    monkeypatch.setattr(RemoteNode, "_on_frame", noted)
    cluster("only")
    with Supervisor("quiet", Child(Member), Child(Member, id="other"), engine=Ray(lease=2.0)).start() as running:
        running["member"].ask("who", timeout=60.0)
        eventually(lambda: pulses[-2:] == [[], []])
        running["member"].ask("who", timeout=60.0)
        eventually(lambda: pulses[-2:] == [[2], []])
        runtime = current()
        assert runtime is not None
        (tree,) = runtime.overview()["trees"]
        assert [worker["messages"] for worker in tree["children"]] == [2, 0]

"""The strategy decides which siblings are restarted together with a child that dies."""

import os
import signal
from typing import Any

from suitkaise import Process, Supervisor


class Worker(Process):
    def loop(self) -> None:
        self.wait(60.0)


def restarted_with_b(strategy: Any) -> list[str]:
    tree = Supervisor("tree", Worker("a"), Worker("b"), Worker("c"), strategy=strategy)
    with tree.start() as running, running.events() as events:
        before = {ref.name: ref.pid for ref in running}
        os.kill(before["b"], signal.SIGKILL)
        expected = {"one_for_one": 1, "rest_for_one": 2, "one_for_all": 3}[strategy]
        started = 0
        while started < expected:
            event = events.get(timeout=10.0)
            started += event is not None and event.kind == "child_started"
        return [ref.name for ref in running if ref.pid != before[ref.name]]


for strategy in ("one_for_one", "rest_for_one", "one_for_all"):
    print(f"{strategy}: new are {', '.join(restarted_with_b(strategy))}")

# prints: one_for_one: new are b
# prints: rest_for_one: new are b, c
# prints: one_for_all: new are a, b, c

"""The same tree on a cluster: three nodes on this machine; each worker has one of its own.

    python examples/cluster.py         (needs the extra: pip install "suitkaise-xprocess[ray]")

Without Ray the tree runs on this machine alone, which changes nothing but the engine.
"""

import importlib.util
import os

from suitkaise import Child, Process, Ray, Supervisor

HAS_RAY = importlib.util.find_spec("ray") is not None


class Count(Process):
    def on_receive(self, text: str) -> tuple[int, int]:
        return len(text.split()), os.getppid()  # the process that has forked this one is the keeper of its node


tree = Supervisor("app", Child(Count, copies=3), engine=Ray(nodes=3) if HAS_RAY else None)

if __name__ == "__main__":
    with tree.start() as running:
        answers = [running[f"count-{number}"].ask("to be or not to be", timeout=30.0) for number in range(3)]
    print("each has counted", {words for words, _ in answers})
    print("on as many nodes as there should be:", len({node for _, node in answers}) == (3 if HAS_RAY else 1))

# prints: each has counted {6}
# prints: on as many nodes as there should be: True

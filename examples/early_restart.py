"""A worker with much memory is killed, and back in a spare before the kernel has freed the memory of the dead one."""

import os
import signal
from typing import Any

from suitkaise import Child, Process, Supervisor
from suitkaise.events import ChildExited, ChildStarted


class Model(Process):
    def on_start(self) -> None:
        self.weights = bytearray(32 << 20)

    def on_receive(self, message: Any) -> str:
        return f"{len(self.weights) >> 20} MiB"


with Supervisor("desk", Child(Model, spares=1, early_restart=True)).start() as running, running.events() as events:
    pid = running["model"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for event in events:
        if isinstance(event, ChildExited):
            print("it has ended:", event.reason)
        if isinstance(event, ChildStarted) and event.restarts:
            break
    print("it is back, with", running["model"].ask("size"))

# prints: it has ended: signal 9 (SIGKILL)
# prints: it is back, with 32 MiB

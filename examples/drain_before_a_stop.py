"""Messages that wait when a worker stops: they are dropped and counted, unless `drain` lets the worker handle them."""

import time

from suitkaise import Child, Process, Supervisor
from suitkaise.events import ChildStopped


class Save(Process):
    def on_start(self) -> None:
        self.saved = 0

    def on_receive(self, line: str) -> None:
        time.sleep(0.001)  # it is slower than those who send to it
        self.saved += 1

    def result(self) -> int:
        return self.saved


with Supervisor("app", Child(Save, id="drops"), Child(Save, id="drains", drain=4.5)).start() as running:
    for name in ("drops", "drains"):
        events = running.events()
        for number in range(200):
            running[name].tell(f"line {number}")
        running.terminate_child(name)
        stopped = next(event for event in events if isinstance(event, ChildStopped))
        saved = running[name].result()
        print(f"{name}: each line is saved or counted: {saved + stopped.unhandled == 200}")
        if name == "drains":
            print(f"saved: {saved}")
        events.close()

# prints: drops: each line is saved or counted: True
# prints: drains: each line is saved or counted: True
# prints: saved: 200

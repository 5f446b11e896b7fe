"""A tree on a cluster of Ray that is started here; the program ends in one of several ways."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from suitkaise import Child, Process, Ray, Supervisor, whereis
from suitkaise.errors import SuitkaiseError


class Member(Process):
    shutdown = 3.0

    def __init__(self, record: str) -> None:
        self.record = record

    def on_receive(self, message: object) -> int:
        return self.pid

    def on_finish(self) -> None:
        with Path(self.record).open("a") as file:
            file.write(f"{self.name}\n")


def tell_when_up() -> None:
    while True:
        try:
            pids = [whereis(f"app/member-{number}").ask("who") for number in range(2)]
            break
        except SuitkaiseError:
            time.sleep(0.05)
    print("up", *pids, flush=True)


how, record = sys.argv[1:]
members = (Child(Member, args=(record,), id=f"member-{number}") for number in range(2))
tree = Supervisor("app", *members, engine=Ray(nodes=2))
threading.Thread(target=tell_when_up, daemon=True).start()
match how:
    case "run":
        tree.run()
    case "leave":
        running = tree.start()
        tell_when_up()
    case "stay":
        running = tree.start()
        time.sleep(100)

"""`socket.setdefaulttimeout` is for the sockets of the program and its workers, and for none of ours."""

from __future__ import annotations

from tests.support import run_program

PROGRAM = """
import socket
socket.setdefaulttimeout(0.2)  # of the program, and, since workers import it, of theirs

import time
from suitkaise import Process, Supervisor, WorkerRef, sktree
from suitkaise.pools import ProcessPool

class Slow(Process):
    def on_start(self):
        self.told = 0

    def on_receive(self, message):
        if message == "block":
            socket.setdefaulttimeout(0.2)
            time.sleep(0.7)
        self.told += message == bytes(50_000)
        return self.told

class Sends(Process):
    def on_start(self):
        socket.setdefaulttimeout(0.2)

    def on_receive(self, message):
        return talk()

def talk():
    slow = WorkerRef("app/slow")
    slow.ask(0), slow.ask(0)
    before = slow.ask(0)
    slow.tell("block")
    for _ in range(60):  # more than any socket takes
        slow.tell(bytes(50_000))
    return slow.ask(0, timeout=30.0) - before

def wait_long(number):
    time.sleep(0.5)
    return number

if __name__ == "__main__":
    with Supervisor("app", Slow, Sends).start() as running:
        print(talk(), running["sends"].ask(0, timeout=30.0))
        tree = sktree.connect()
        tree.add("key", bytes(3_000_000))
        with ProcessPool(1) as pool:
            print(len(tree.get("key")), pool.submit(wait_long, 7).result(30.0))
        time.sleep(0.5)
        print(running["slow"].incarnation, running["sends"].incarnation, socket.getdefaulttimeout())
"""


def test_a_default_timeout_of_sockets_holds_for_none_of_ours() -> None:
    ended = run_program(PROGRAM).check()
    assert ended.stdout == "60 60\n3000000 7\n1 1 0.2\n"
    assert ended.stderr == ""

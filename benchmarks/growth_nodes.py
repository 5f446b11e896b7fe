"""Plays many nodes of a cluster in one process: they speak the protocol over TCP, and their workers are numbers.

`Machines` is the cluster for the program that is measured. The other process gets one order a line on its standard
input: a node to start, nodes and workers to lose, and what the nodes report all the time.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import support  # noqa: F401  (it finds the package)

from suitkaise.cluster.link import connect
from suitkaise.cluster.machines import Ended, Machine
from suitkaise.cluster.meter import EVERY
from suitkaise.cluster.node import Settings, pulse_of
from suitkaise.cluster.protocol import (
    Buried,
    Bury,
    Exited,
    Figures,
    Finish,
    Kill,
    Pulse,
    Quit,
    Ready,
    Spawn,
    View,
    Welcome,
    decode_hub_frame,
)
from suitkaise.engines.engine import Exit
from suitkaise.exits import Killed, Shutdown, Signaled
from suitkaise.messaging import codec, wire
from suitkaise.platform.board import Phase
from suitkaise.specs.cluster import Place


class Machines:
    """The cluster: so many machines, and one process that plays the nodes on all of them."""

    host = "127.0.0.1"

    def __init__(self, count: int) -> None:
        self.alive = {f"machine-{number}": None for number in range(count)}
        self.nodes: dict[str, NodeOfMachine] = {}  # the newest of each machine
        self._player = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, text=True)

    def order(self, what: str, *arguments: object) -> None:
        assert self._player.stdin is not None
        self._player.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._player.stdin.flush()

    def machines(self) -> list[Machine]:
        return [Machine(name, name, self.host, {}) for name in self.alive]

    def start(self, settings: Settings, machine: Machine | None, place: Place) -> NodeOfMachine:
        assert machine is not None
        self.order("start", base64.b64encode(codec.dumps(settings)).decode(), machine.id)
        node = self.nodes[machine.id] = NodeOfMachine(self, settings.name.hex())
        return node

    def lose(self, name: str, *, machine: bool = False) -> None:
        """End the node on a machine at once; with `machine`, no other node can be started there."""
        if machine:
            del self.alive[name]
        self.nodes[name].kill()

    def close(self) -> None:
        assert self._player.stdin is not None
        self._player.stdin.close()
        self._player.wait(60)


class NodeOfMachine:
    def __init__(self, machines: Machines, name: str) -> None:
        self.ended: Future[Ended] = Future()
        self._machines = machines
        self._name = name

    def kill(self) -> None:
        if not self.ended.done():
            self._machines.order("kill node", self._name)
            self.ended.set_result(Ended("it was killed", certain=True))


class Player:
    """The nodes, in one thread."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.nodes: dict[str, Node] = {}
        self.busy = False  # whether the slots of all workers change all the time
        self.figures = True
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._orders = b""
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, self._on_order)

    def at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, next(self._numbers), callback))

    def run(self) -> None:
        while True:
            timeout = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, _ in self.selector.select(timeout):
                key.data()
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()

    def _on_order(self) -> None:
        data = os.read(0, 1 << 20)
        if not data:
            sys.exit()
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case ["start", settings, machine]:
                    Node(self, codec.loads(base64.b64decode(settings)), machine)
                case ["kill node", name]:
                    if name in self.nodes:
                        self.nodes[name].end()
                case ["kill workers", count]:
                    self._kill(count)
                case ["busy", on]:
                    self.busy = on
                case ["figures", on]:
                    self.figures = on

    def _kill(self, count: int) -> None:
        """End so many workers by a signal, on one node after the other."""
        ends = [(node, worker) for node in self.nodes.values() for worker in node.workers]
        for node, worker in ends[:: max(1, len(ends) // count)][:count]:
            node.report_exit(worker, Exit(Signaled(9)))


class Node:
    def __init__(self, player: Player, settings: Settings, machine: str) -> None:
        self.workers: dict[int, bool] = {}  # by number: whether the slot was shown
        self._player = player
        self._name = settings.name.hex()
        self._machine = machine
        self._pulse_time = pulse_of(settings.lease)
        self._quits = self._over = False
        self._parser = wire.Parser(max_header=wire.MAX_PAYLOAD, decode=decode_hub_frame)
        self._unsent = bytearray()
        self._loops = 0
        self._sock = connect(settings.address, settings.key, settings.name)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        player.nodes[self._name] = self
        player.selector.register(self._sock, selectors.EVENT_READ, self._on_event)
        home, python = f"of {machine}", ".".join(map(str, sys.version_info[:3]))
        self._send(Welcome(machine, machine, os.getpid(), f"/nowhere/{self._name}", home, settings.version, python))
        begin = time.monotonic() + self._pulse_time * (len(player.nodes) % 97) / 97  # not all at the same moment
        player.at(begin, lambda: self._pulse(begin))
        player.at(begin, lambda: self._measure(begin))

    # ------------------------------------------------------------ what it tells all the time
    def _pulse(self, when: float) -> None:
        if self._over:
            return
        self._loops += 1
        views = []
        for worker, shown in self.workers.items():
            if self._player.busy or not shown:
                self.workers[worker] = True
                views.append(
                    View(
                        worker, 4711, Phase.WAITING, 0.01, self._loops, 1e-5, 1e-3, self._loops, 0, True, 60.0, 0, None
                    )
                )
        self._send(Pulse(views, 0))
        following = max(when + self._pulse_time, time.monotonic())
        self._player.at(following, lambda: self._pulse(following))

    def _measure(self, when: float) -> None:
        if self._over:
            return
        if self._player.figures:
            self._send(Figures(2.0, 64, 1 << 35, 1 << 36, [(worker, 0.01, 1 << 24) for worker in self.workers]))
        following = max(when + EVERY, time.monotonic())
        self._player.at(following, lambda: self._measure(following))

    # ------------------------------------------------------------ orders of the program
    def _on_event(self) -> None:
        if self._unsent:
            self._flush()
        try:
            frames = self._parser.receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, wire.WireError):
            self.end()
            return
        for frame, _ in frames:
            match frame:
                case Spawn(number):
                    self.workers[number] = False
                    self._send(Ready(number, 4711))
                case Finish(number):
                    self.report_exit(number, Exit(Shutdown()))
                case Kill(number, why):
                    self.report_exit(number, Exit(Killed(why)))
                case Bury(directory):
                    self._send(Buried(directory))
                case Quit():
                    self._quits = True
                    for worker in list(self.workers):
                        self.report_exit(worker, Exit(Shutdown()))
            if self._quits and not self.workers and not self._unsent:
                self.end()
                return

    def report_exit(self, worker: int, exit: Exit) -> None:
        if self.workers.pop(worker, None) is not None:
            self._send(Exited(worker, codec.dumps(exit), False, None))

    def end(self) -> None:
        """End without a word, as a process that is killed."""
        if not self._over:
            self._over = True
            self._player.selector.unregister(self._sock)
            self._sock.close()
            del self._player.nodes[self._name]

    def _send(self, frame: Any) -> None:
        self._unsent += wire.encode(frame, long_header=True)
        self._flush()

    def _flush(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent, wire.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
        if not self._over:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            if self._player.selector.get_key(self._sock).events != wanted:
                self._player.selector.modify(self._sock, wanted, self._on_event)


if __name__ == "__main__":
    Player().run()

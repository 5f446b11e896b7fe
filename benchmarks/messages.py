"""Ask and tell: from the program to process workers (waiting, looping, busy) and threads, and from worker to worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import socket
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy
import pykka
from support import heading, measure, options, show
from workers import Asker, BusyLoop, Echo, EchoThread, EmptyLoop, Teller

from suitkaise import Supervisor, WorkerRef

TEXT = b"x" * 100
SILENT = b"."


class Peer(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message


def echo(pipe: Connection) -> None:
    while (message := pipe.recv()) is not None:
        if not isinstance(message, bytes) or message[:1] != SILENT:
            pipe.send(message)


def ask(ask_once: Callable[[bytes], Any], count: int) -> float:
    """Return the seconds a round trip."""
    began = time.perf_counter()
    for _ in range(count):
        ask_once(TEXT)
    return (time.perf_counter() - began) / count


def tell(tell_once: Callable[[bytes], Any], ask_once: Callable[[bytes], Any], count: int) -> float:
    """Return the messages a second that the worker gets and handles."""
    began = time.perf_counter()
    for _ in range(count):
        tell_once(TEXT)
    ask_once(TEXT)
    return count / (time.perf_counter() - began)


def send_apart(sock: socket.socket, array: numpy.ndarray) -> None:
    """Send an array as little as possible does: the pickle, and the buffer beside it from where it is."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array, 5, buffer_callback=buffers.append)
    raw = buffers[0].raw()
    sock.sendall(struct.pack("<QQ", len(data), len(raw)) + data)
    sock.sendall(raw)


def receive_apart(sock: socket.socket) -> numpy.ndarray:
    lengths = struct.unpack("<QQ", fill(sock, bytearray(16)))
    data, buffer = (fill(sock, bytearray(length)) for length in lengths)
    return pickle.loads(data, buffers=[buffer])


def fill(sock: socket.socket, buffer: bytearray) -> bytearray:
    done = 0
    while done < len(buffer):
        count = sock.recv_into(memoryview(buffer)[done:])
        if not count:
            raise EOFError
        done += count
    return buffer


def echo_apart(sock: socket.socket) -> None:
    with contextlib.suppress(EOFError):
        while True:
            send_apart(sock, receive_apart(sock))


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("messages")
    rounds, asks, tells = (3, 50, 500) if quick else (15, 1000, 20_000)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=echo, args=(theirs,), daemon=True)
    process.start()
    peer = Peer.start()
    mine, other = socket.socketpair()
    arrays = multiprocessing.get_context("fork").Process(target=echo_apart, args=(other,), daemon=True)
    arrays.start()
    children = (Echo(), EmptyLoop(), BusyLoop(), EchoThread(), Asker(), Teller())
    with Supervisor("benchmark", *children, max_restarts=0).start() as running:
        refs: dict[str, WorkerRef] = {
            "process, only waiting": running["echo"],
            "process, empty loop": running["empty_loop"],
            "process, busy loop of 20 us": running["busy_loop"],
        }

        def pipe_ask(message: bytes) -> Any:
            ours.send(message)
            return ours.recv()

        group: dict[str, Callable[[], float]] = {"multiprocessing.Pipe": lambda: ask(pipe_ask, asks)}
        for name, ref in refs.items():
            group[name] = lambda ref=ref: ask(ref.ask, asks)
        asker = running["asker"]
        group["worker to worker"] = lambda: asker.ask(("benchmark/echo", asks), timeout=60)
        rows = measure(rounds, group, {"worker to worker": 1.3})
        show("ask a process, 100 bytes", "us a round trip", rows, scale=1e6)

        array = numpy.ones(1 << 20, dtype=numpy.uint8)
        count = 5 if quick else 100

        def bare_ask(question: Any) -> Any:
            send_apart(mine, question)
            return receive_apart(mine)

        def mean(ask_once: Callable[[Any], Any]) -> float:
            began = time.perf_counter()
            for _ in range(count):
                ask_once(array)
            return (time.perf_counter() - began) / count

        group = {
            "bare socket, out of band": lambda: mean(bare_ask),
            "multiprocessing.Pipe": lambda: mean(pipe_ask),
            "worker to worker": lambda: asker.ask(("benchmark/echo", count, 1 << 20), timeout=60),
            "program to worker": lambda: mean(refs["process, only waiting"].ask),
        }
        rows = measure(rounds, group, {"worker to worker": 2.0})
        show("ask a process, an array of 1 MiB", "us a round trip", rows, scale=1e6)

        def pipe_tells(count: int) -> float:
            began = time.perf_counter()
            for _ in range(count):
                ours.send(SILENT * 100)
            pipe_ask(TEXT)
            return count / (time.perf_counter() - began)

        teller = running["teller"]
        group = {"multiprocessing.Pipe": lambda: pipe_tells(tells)}
        group |= {name: lambda ref=ref: tell(ref.tell, ref.ask, tells) for name, ref in refs.items()}
        group["worker to worker"] = lambda: 1 / teller.ask(("benchmark/echo", tells), timeout=60)
        show("tell a process, 100 bytes", "messages/ms", measure(rounds, group), scale=1e-3, more_is_better=True)

        thread = running["echo_thread"]
        group = {"Pykka": lambda: ask(peer.ask, asks), "thread worker": lambda: ask(thread.ask, asks)}
        show("ask a thread", "us a round trip", measure(rounds, group, {"thread worker": 1.0}), scale=1e6)

        group = {
            "Pykka": lambda: tell(peer.tell, peer.ask, tells),
            "thread worker": lambda: tell(thread.tell, thread.ask, tells),
        }
        rows = measure(rounds, group, {"thread worker": 1.0})
        show("tell a thread", "messages/ms", rows, scale=1e-3, more_is_better=True)
    peer.stop()
    ours.send(None)
    process.join()
    mine.close()
    arrays.terminate()
    arrays.join()


if __name__ == "__main__":
    main()

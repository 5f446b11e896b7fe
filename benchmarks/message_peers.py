"""What carries messages between two processes elsewhere: each peer asks an echo in another process, and tells it.

`peers()` starts those that can run here: pyzmq, xoscar and Ray if they are installed, Erlang if there is `erl`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from erlang_nodes import erlang_nodes

__all__ = ["Callables", "Peer", "fork", "peers"]

END = None
SILENT = b"."
"""With what a message begins that is not answered."""

Carry = tuple[Callable[[Any], object], Callable[[], Any]]
"""How one side sends a message, and how it gets one."""


class Peer(Protocol):
    def asks(self, message: Any, count: int) -> list[float]:
        """Return the seconds of each of so many round trips."""
        ...

    def tells(self, size: int, count: int) -> float:
        """Return the messages a second that the other side gets and handles."""
        ...


class Callables:
    """A peer, or ours, by two functions: `ask(message)` returns the answer, `tell(message)` gets none."""

    def __init__(self, ask: Callable[[Any], Any], tell: Callable[[Any], object]) -> None:
        self._ask = ask
        self._tell = tell

    def asks(self, message: Any, count: int) -> list[float]:
        ask, clock, taken = self._ask, time.perf_counter, []
        for _ in range(count):
            began = clock()
            ask(message)
            taken.append(clock() - began)
        return taken

    def tells(self, size: int, count: int) -> float:
        message, tell = SILENT * size, self._tell
        began = time.perf_counter()
        for _ in range(count):
            tell(message)
        self._ask(b"x" * size)
        return count / (time.perf_counter() - began)


def serve(carry: Carry) -> None:
    """Answer each message with itself, unless it begins as one that wants no answer."""
    send, get = carry
    while (message := get()) is not END:
        if not isinstance(message, bytes) or message[:1] != SILENT:
            send(message)


@contextlib.contextmanager
def fork(here: Carry, there: Carry) -> Iterator[Callables]:
    """Serve in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=serve, args=(there,), daemon=True)
    process.start()
    send, get = here

    def ask(message: Any) -> Any:
        send(message)
        return get()

    try:
        yield Callables(ask, send)
    finally:
        send(END)
        process.join(5)
        process.kill()
        process.join()


@contextlib.contextmanager
def pipe() -> Iterator[Peer]:
    here, there = multiprocessing.Pipe()
    with fork((here.send, here.recv), (there.send, there.recv)) as peer:
        yield peer


@contextlib.contextmanager
def queues() -> Iterator[Peer]:
    context = multiprocessing.get_context("fork")
    out, back = context.Queue(), context.Queue()
    with fork((out.put, back.get), (back.put, out.get)) as peer:
        yield peer


class BareSocket:
    """As little as possible: a length, a pickle, and large buffers beside it from where they are."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, 5, buffer_callback=buffers.append)
        raw = buffers[0].raw() if buffers else b""
        self._sock.sendall(struct.pack("<QQ", len(data), len(raw)) + data)
        if raw:
            self._sock.sendall(raw)

    def get(self) -> Any:
        lengths = struct.unpack("<QQ", self._fill(bytearray(16)))
        data, buffer = (self._fill(bytearray(length)) for length in lengths)
        return pickle.loads(data, buffers=[buffer] if buffer else None)

    def _fill(self, buffer: bytearray) -> bytearray:
        done = 0
        while done < len(buffer):
            count = self._sock.recv_into(memoryview(buffer)[done:])
            if not count:
                raise EOFError
            done += count
        return buffer


@contextlib.contextmanager
def bare_socket() -> Iterator[Peer]:
    here, there = (BareSocket(end) for end in socket.socketpair())
    with fork((here.send, here.get), (there.send, there.get)) as peer:
        yield peer


@contextlib.contextmanager
def zmq_pair() -> Iterator[Peer]:
    import zmq

    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/socket"
        made: list[Any] = []

        def end(*, bind: bool) -> Any:
            if not made:  # in the process that uses it, since a context does not survive a fork
                made.append(zmq.Context().socket(zmq.PAIR))
                (made[0].bind if bind else made[0].connect)(address)
            return made[0]

        here = (lambda message: end(bind=True).send_pyobj(message), lambda: end(bind=True).recv_pyobj())
        there = (lambda message: end(bind=False).send_pyobj(message), lambda: end(bind=False).recv_pyobj())
        with fork(here, there) as peer:
            yield peer
        for sock in made:
            sock.close(linger=0)


class XoscarPeer:
    def __init__(self, loop: asyncio.AbstractEventLoop, ref: Any) -> None:
        self._loop = loop
        self._ref = ref

    def asks(self, message: Any, count: int) -> list[float]:
        async def ask() -> list[float]:
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                await self._ref.echo(message)
                taken.append(time.perf_counter() - began)
            return taken

        return self._loop.run_until_complete(ask())

    def tells(self, size: int, count: int) -> float:
        async def tell() -> float:
            began = time.perf_counter()
            for _ in range(count):
                await self._ref.echo.tell(b"x" * size)
            await self._ref.echo(b"")
            return count / (time.perf_counter() - began)

        return self._loop.run_until_complete(tell())


@contextlib.contextmanager
def xoscar_actors() -> Iterator[Peer]:
    import xoscar
    from xoscar_echo import Echo

    async def start() -> tuple[Any, Any]:
        pool = await xoscar.create_actor_pool("127.0.0.1:0", n_process=1)
        where = pool.sub_processes and next(iter(pool.sub_processes))
        return pool, await xoscar.create_actor(Echo, address=where)

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of xoscar's processes
    loop = asyncio.new_event_loop()
    pool, ref = loop.run_until_complete(start())
    try:
        yield XoscarPeer(loop, ref)
    finally:
        loop.run_until_complete(pool.stop())
        loop.close()


@contextlib.contextmanager
def ray_actors() -> Iterator[Peer]:
    import ray

    class Echo:
        def echo(self, message: Any) -> Any:
            return message

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    actor = ray.remote(Echo).remote()
    try:
        yield Callables(lambda message: ray.get(actor.echo.remote(message)), actor.echo.remote)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def peers() -> Iterator[dict[str, Peer]]:
    """Start all peers that can run here."""
    made: dict[str, Callable[[], contextlib.AbstractContextManager[Peer]]] = {
        "multiprocessing.Pipe": pipe,
        "bare Unix socket, pickle": bare_socket,
        "multiprocessing.Queue": queues,
    }
    for package, start in (("zmq", zmq_pair), ("xoscar", xoscar_actors), ("ray", ray_actors)):
        if importlib.util.find_spec(package) is not None:
            made[package] = start
    with contextlib.ExitStack() as opened:
        found = {name: opened.enter_context(start()) for name, start in made.items()}
        nodes = opened.enter_context(erlang_nodes())
        if nodes is not None:
            found["Erlang, node to node"] = nodes
        yield found

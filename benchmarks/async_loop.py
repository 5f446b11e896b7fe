"""One loop of a worker with async hooks against the same coroutine in a bare event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

from loop import by_actor
from support import heading, measure, options, show
from workers import Awaits

from suitkaise.platform.board import Board


async def nothing() -> None: ...


async def turn() -> None:
    await asyncio.sleep(0)


class Echo:
    """Sends a byte through a pair of sockets and waits for it: one wake-up by the selector."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)

    async def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        receiving = loop.create_task(loop.sock_recv(self._ours, 1))
        await asyncio.sleep(0)
        self._theirs.send(b"x")
        await receiving

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def bare(body: Callable[[], Any], count: int) -> float:
    async def main() -> float:
        began = time.perf_counter()
        for _ in range(count):
            await body()
        return (time.perf_counter() - began) / count

    return asyncio.run(main())


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("async_loop")
    rounds, count = (3, 1_000) if quick else (31, 10_000)
    echo = Echo()
    with tempfile.TemporaryDirectory() as folder:
        board = Board.create(os.path.join(folder, "board"))
        for title, body in (
            ("a loop that awaits nothing", nothing),
            ("a loop that yields to other tasks: sleep(0)", turn),
            ("a loop that waits for a byte in a socket", echo),
        ):
            group: dict[str, Callable[[], float]] = {
                "asyncio alone": lambda body=body: bare(body, count),
                "suitkaise": lambda body=body: by_actor(board, Awaits(body), count),
            }
            show(title, "us a loop", measure(rounds, group), scale=1e6)
        board.close()
    echo.close()


if __name__ == "__main__":
    main()

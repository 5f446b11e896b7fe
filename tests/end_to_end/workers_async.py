"""Workers with async hooks. Every worker's process imports this module anew, so it imports nothing that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from suitkaise import Process, Thread, WorkerRef
from suitkaise.workers.worker import Worker

LONG = 600


class Ticks(Worker):
    """Counts in a task of its own, does what a message names, and notes how it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def on_start(self) -> None:
        self.ticks = 0
        self.ticking = asyncio.create_task(self.tick())

    async def tick(self) -> None:
        try:
            while True:
                await asyncio.sleep(0.001)
                self.ticks += 1
        finally:
            self.note("cancelled")

    async def on_receive(self, message: Any) -> Any:
        match message:
            case "ticks":
                return self.ticks
            case "ticks a little later":
                before = self.ticks
                await asyncio.sleep(0.02)
                return self.ticks > before
            case "await something for ever":
                self.note("awaits")
                await self.something()
            case "pause":
                self.note("awaits")
                return await self.wait_async(LONG)
            case ("ask", WorkerRef() as other, question):
                return await asyncio.wait_for(other.ask_future(question), 5)
            case ("keep", value):
                self.checkpoint(value)
            case "recalled":
                return self.recalled and (self.recalled.attempt, self.recalled.checkpoint)
            case "run a program":
                program = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
                return (await program.communicate())[0]
            case "wait for a file in a task":
                self.waiting = asyncio.create_task(self.wait_for_file())
            case "fail in a task":
                asyncio.create_task(self.fail(), name="failing")  # noqa: RUF006
            case "leave":
                self.rejoin()
            case "crash":
                await self.fail()
            case ("monitor", WorkerRef() as other):
                self.monitor(other)
            case _:
                self.note(repr(message))
        return None

    async def something(self) -> None:
        await asyncio.sleep(LONG)

    async def wait_for_file(self) -> None:
        while not (self.folder / "go").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        (self.folder / "went").touch()

    async def fail(self) -> None:
        raise LookupError("of its own")

    async def numbers(self, upto: int) -> list[int]:
        return [number async for number in count(upto)]

    async def on_finish(self) -> None:
        before = self.ticks
        await asyncio.sleep(0.01)
        self.note("finished, ticking" if self.ticks > before else "finished")

    def note(self, text: str) -> None:
        with (self.folder / "notes").open("a") as file:
            file.write(f"{text}\n")


class TicksInAProcess(Ticks, Process):
    pass


class TicksInAThread(Ticks, Thread):
    pass


async def count(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        await asyncio.sleep(0)
        yield number


class Stubborn(Process):
    """Has a task that swallows its cancellation."""

    async def on_start(self) -> None:
        self.task = asyncio.create_task(self.go_on())

    async def go_on(self) -> None:
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                continue

    async def on_receive(self, message: Any) -> None:
        raise LookupError("of its own")


class Loops(Worker):
    """Has async hooks, except for `after_loop`."""

    async def before_loop(self) -> None:
        await asyncio.sleep(0)

    async def loop(self) -> int:
        await self.wait_async(0.001)
        return self.current_loop

    def after_loop(self) -> None: ...

    async def result(self) -> tuple[str, Any]:
        return "loops", self.last_result

    async def on_receive(self, message: Any) -> Any:
        return message


class LoopsInAProcess(Loops, Process):
    pass


class LoopsInAThread(Loops, Thread):
    pass


class Waits(Worker):
    """Makes the file `waits`, then waits for ever in its loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def loop(self) -> None:
        (self.folder / "waits").touch()
        assert await self.wait_async(LONG)

    async def on_finish(self) -> None:
        (self.folder / "finished").touch()


class WaitsInAProcess(Waits, Process):
    pass


class WaitsInAThread(Waits, Thread):
    pass


async def sleeps_and_returns(what: Any) -> Any:
    await asyncio.sleep(0.001)
    return what

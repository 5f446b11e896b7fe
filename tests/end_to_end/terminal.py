"""`suitkaise top` in a terminal that textual's pilot works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from suitkaise.cli import top as command
from suitkaise.cli.parser import make_parser

WIDE = (140, 40)
"""Columns and lines of the terminal, unless a test wants others."""


class Terminal:
    """The application in a terminal that the pilot works."""

    def __init__(self, top: Any, pilot: Any) -> None:
        self.top = top
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def until(self, what: Callable[[], Any]) -> Any:
        for _ in range(600):
            if value := what():
                return value
            await self.pilot.pause(0.05)
        raise AssertionError(f"not within 30 seconds; the screen is\n{self.screen()}")

    async def choose(self, path: str) -> None:
        await self.until(lambda: path in [line.path for line in self.table.lines])
        self.table.go_to([line.path for line in self.table.lines].index(path))
        await self.pilot.pause()

    @property
    def table(self) -> Any:
        return self.top._table

    def line(self, path: str) -> Any:
        return next((line for line in self.table.lines if line.path == path), None)

    def shows(self, path: str, state: str) -> bool:
        line = self.line(path)
        return line is not None and line.state == state

    def screen(self) -> str:
        width, height = self.top.size
        lines = self.top.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in line)[:width] for line in lines[:height])

    def has(self, *texts: str) -> bool:
        screen = self.screen()
        return all(text in screen for text in texts)


def in_terminal(work: Callable[[Terminal], Awaitable[None]], path: str = "", size: tuple[int, int] = WIDE) -> None:
    """Run the application as the command does, and work with it."""
    options = make_parser().parse_args(["top", *([path] if path else [])])

    async def run() -> None:
        with contextlib.ExitStack() as options.opened:
            top = command.application(options)
            async with top.run_test(size=size, notifications=True) as pilot:
                await work(Terminal(top, pilot))

    asyncio.run(run())

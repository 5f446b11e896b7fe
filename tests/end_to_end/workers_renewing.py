"""Workers that renew themselves, for `test_messages_at_an_end`; each incarnation imports this, so it imports little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from suitkaise import Process, Thread


def await_file(file: Path) -> None:
    from tests.support import eventually

    eventually(file.exists, timeout=30)


class Renewing:
    """Ends itself after each message `renew`, once the file `gate` exists; notes the messages that it handles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self) -> None:
        if (self.folder / "fail").exists():
            os.unlink(self.folder / "fail")
            raise ConnectionError("not yet")

    def on_receive(self, message: Any) -> Any:
        match message:
            case "renew":
                self.rejoin()  # type: ignore[attr-defined]
            case "renew, and say why":
                self.rejoin("it is time")  # type: ignore[attr-defined]
            case "again":
                self.ref.tell("again")  # type: ignore[attr-defined]
            case "crash":
                raise ValueError("crash")
            case "block":
                (self.folder / "blocked").touch()
                await_file(self.folder / "gate")
            case "hold":
                (self.folder / "blocked").touch()
                self.wait(30)  # type: ignore[attr-defined]
            case _:
                with (self.folder / "handled").open("a") as file:
                    file.write(f"{message}\n")
        return message, self.ref.path, self.recalled is not None  # type: ignore[attr-defined]

    def on_finish(self) -> None:
        (self.folder / "finishing").touch()
        if (self.folder / "slow").exists():
            await_file(self.folder / "gate")


class RenewingProcess(Renewing, Process): ...


class RenewingThread(Renewing, Thread): ...


class RenewingAsync(Renewing, Process):
    async def on_receive(self, message: Any) -> Any:
        if message == "hold":
            (self.folder / "blocked").touch()
            return await self.wait_async(30)
        return super().on_receive(message)

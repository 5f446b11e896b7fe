"""An async worker handles four messages at once: they wait for each other, which one at a time never could."""

import asyncio

from suitkaise import Process, Supervisor


class Table(Process):
    concurrency = 4

    def on_start(self) -> None:
        self.guests: list[str] = []
        self.complete = asyncio.Event()

    async def on_receive(self, guest: str) -> str:
        self.guests.append(guest)
        if len(self.guests) == 4:
            self.complete.set()
        await self.complete.wait()  # the others can sit down meanwhile
        return f"{guest} eats with {len(self.guests) - 1} others"


with Supervisor("inn", Table).start() as running:
    answers = [running["table"].ask_future(guest) for guest in ("Ann", "Bob", "Cid", "Dee")]
    for answer in answers:
        print(answer.get())

# prints: Ann eats with 3 others
# prints: Dee eats with 3 others

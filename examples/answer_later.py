"""A worker answers after its handler has returned: by a thread of a pool, and when another message has come."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from suitkaise import Process, Supervisor


class Bakery(Process):
    def on_start(self) -> None:
        self.oven = ThreadPoolExecutor(2)
        self.queue: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if message == "bread":
            self.queue.append(self.reply_to())  # answered below
            return None
        for customer in self.queue:
            customer.reply(f"fresh bread, {message}")
        return self.oven.submit(len, self.queue)  # the asker gets the result of that call


with Supervisor("town", Bakery).start() as running:
    bakery = running["bakery"]
    customers = [bakery.ask_future("bread") for _ in range(3)]
    print("served:", bakery.ask("still warm"))
    print(*{customer.get() for customer in customers})

# prints: served: 3
# prints: fresh bread, still warm

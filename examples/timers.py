"""A worker that ticks, does something later, and ends when nobody has asked for a while."""

from typing import Any

from suitkaise import Process, Supervisor


class Kitchen(Process):
    restart = "temporary"
    idle_timeout = 0.3  # seconds

    def on_start(self) -> None:
        self.clock = self.every(0.02, "tick")
        self.ticks = 0

    def on_receive(self, message: Any) -> str:
        match message:
            case "tick":
                self.ticks += 1
                if self.ticks == 3:
                    self.clock.cancel()
                    self.send_after(0.05, "ring")
            case "ring":
                print("the egg is done after", self.ticks, "ticks", flush=True)
        return f"{self.ticks} ticks"

    def handle_timeout(self) -> None:
        self.rejoin("nobody is hungry")


with Supervisor("house", Kitchen, Supervisor("garden")).start() as running:
    print("the end:", running["kitchen"].join(10.0))

# prints: the egg is done after 3 ticks
# prints: the end: shutdown (nobody is hungry)

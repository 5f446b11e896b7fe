"""A fast producer and a slow consumer: the bounded mailbox makes the producer wait, so nothing piles up."""

import time

from suitkaise import Bounded, Child, Process, Supervisor


class Consume(Process):
    def on_start(self) -> None:
        self.total = 0

    def on_receive(self, number: int) -> int:
        time.sleep(0.01)
        self.total += number
        return self.total


class Produce(Process):
    restart = "transient"

    def loop(self) -> None:
        consume = self.whereis("app/consume")
        for number in range(50):
            consume.tell(number)  # waits while ten messages wait
        self.rejoin()


with Supervisor("app", Child(Consume, mailbox=Bounded(10, on_full="block")), Produce).start() as running:
    running["produce"].join()
    print(running["consume"].ask(0))

# prints: 1225

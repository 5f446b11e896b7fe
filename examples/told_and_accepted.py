"""Tell many messages without waiting for each, and wait once until all of them have left this process."""

import suitkaise
from suitkaise import Process, Supervisor


class Count(Process):
    def on_start(self) -> None:
        self.total = 0

    def on_receive(self, number: int) -> int:
        self.total += number
        return self.total


class Send(Process):
    restart = "transient"

    def loop(self) -> None:
        count = self.whereis("app/count")
        for number in range(1000):
            count.tell(number)  # on its way
        suitkaise.flush()  # all of them are accepted
        count.tell(1, confirm=True)  # on its way, and accepted
        self.rejoin()


with Supervisor("app", Count, Send).start() as running:
    running["send"].join()
    print(running["count"].ask(0))

# prints: 499501

"""More messages than the socket takes, for a worker that looks at its bell only."""

from __future__ import annotations

from typing import Any

from suitkaise import Process, Supervisor


class Tally(Process):
    """Counts its messages; its loop is slower than the sender."""

    def on_start(self) -> None:
        self.count = 0

    def loop(self) -> None:
        sum(range(50_000))

    def on_receive(self, message: Any) -> int:
        self.count += 1
        return self.count


def test_a_looping_worker_notices_messages_that_the_socket_took_late() -> None:
    with Supervisor("tree", Tally(), max_restarts=0).start() as running:
        tally = running["tally"]
        for _ in range(3):
            for _ in range(1000):
                tally.tell(b"x" * 500)
            answer = tally.ask_future("how many?")
            answer.get(timeout=20)
        assert answer.get(timeout=20) == 3003

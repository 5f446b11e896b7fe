"""A worker with two background threads, one declared and one started; a thread that fails is restarted."""

import time

from suitkaise import Process, Supervisor, Thread


class Heartbeat(Thread):
    """Declared on the worker's class: it runs from the worker's start to its end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def loop(self) -> None:
        self.wait(self.seconds)

    def on_finish(self) -> None:
        print(f"{self.name} ends", flush=True)


class Feed(Process):
    restart = "transient"
    background = (Heartbeat(0.01),)

    def on_start(self) -> None:
        self.quotes: list[float] = []
        self.failures = 0
        self.reader = self.start_thread(self.read, 0.002)

    def read(self, seconds: float) -> None:  # called again and again, in a thread of its own
        if len(self.quotes) == 5 and not self.failures:
            self.failures += 1
            raise ConnectionError("the connection is lost")
        self.quotes.append(time.time())
        self.wait(seconds)

    def loop(self) -> None:
        if len(self.quotes) >= 10:
            self.rejoin()
        self.wait(0.01)

    def result(self) -> str:
        return f"{self.reader.name}: at least 10 quotes, {self.failures} failure"


with Supervisor("app", Feed).start() as running:
    print(running["feed"].result(timeout=20.0))
    for report in running.crashes():
        print(report.path, report.verdict)

# prints: heartbeat ends
# prints: read: at least 10 quotes, 1 failure
# prints: app/feed/read restarts

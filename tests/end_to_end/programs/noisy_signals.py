"""Logs in a signal handler, while the worker logs all the time: nobody waits for itself."""

import logging
import signal

from suitkaise import Process, Supervisor

LOOPS = 2000
LOG = logging.getLogger("noisy")


class Noisy(Process):
    restart = "temporary"

    def on_start(self):
        self.heard = 0
        signal.signal(signal.SIGALRM, self.hear)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    def hear(self, number, frame):
        self.heard += 1
        LOG.info("heard")

    def loop(self):
        LOG.info("x" * 5000)
        if self.current_loop == LOOPS:
            self.rejoin()

    def on_finish(self):
        signal.setitimer(signal.ITIMER_REAL, 0)

    def result(self):
        return self.heard


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    with Supervisor("app", Noisy).start() as running:
        print("heard", running["noisy"].result(timeout=30))

"""A worker logs in its loop and in a signal handler that interrupts the loop: this must not deadlock."""

import logging
import signal

from suitkaise import Process, Supervisor

LOOPS = 2000
LOG = logging.getLogger("noisy")


class Noisy(Process):
    restart = "temporary"

    def on_start(self):
        self.signals = 0
        signal.signal(signal.SIGALRM, self.on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    def on_alarm(self, number, frame):
        self.signals += 1
        LOG.info("signal")

    def loop(self):
        LOG.info("x" * 5000)
        if self.current_loop == LOOPS:
            self.rejoin()

    def on_finish(self):
        signal.setitimer(signal.ITIMER_REAL, 0)

    def result(self):
        return self.signals


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    with Supervisor("app", Noisy).start() as running:
        print("signals", running["noisy"].result(timeout=30))

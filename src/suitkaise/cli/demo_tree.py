"""The tree of `suitkaise demo`: three levels, and a worker that crashes every five seconds."""

from __future__ import annotations

import random
import time

from suitkaise import Child, Process, Supervisor, Thread, sktree

__all__ = ["TO_TRY", "Clock", "Crasher", "Page", "Worker", "tree"]

CRASH_AFTER = 5.0


class Clock(Thread):
    """Writes the time into the storage once a second; a thread of the program."""

    def loop(self) -> None:
        sktree.connect().add("time", time.strftime("%H:%M:%S"), path="demo")
        self.wait(1.0)


class Page(Process):
    """Serves requests: it answers messages, and does nothing else."""

    def on_receive(self, message: object) -> str:
        return f"{self.path} got {message!r}"


class Worker(Process):
    """Does some work in every loop."""

    def loop(self) -> None:
        done = self.tree.increment("done", path="demo")
        if done % 100 == 0:
            self.log.info("work goes on", done=done)
        self.wait(random.uniform(0.02, 0.08))


class Crasher(Process):
    """Works for five seconds, and crashes."""

    def on_start(self) -> None:
        self.began: float = time.monotonic()
        print(f"incarnation {self.ref.incarnation} starts", flush=True)

    def loop(self) -> None:
        if time.monotonic() - self.began > CRASH_AFTER:
            raise RuntimeError("this worker crashes every five seconds, and its supervisor starts it again")
        self.wait(0.1)


tree: Supervisor = Supervisor(
    "demo",
    Clock(),
    Supervisor("web", Child(Page, copies=2)),
    Supervisor(
        "jobs",
        Child(Worker, copies=2),
        Supervisor("shaky", Crasher(), max_restarts=3, max_seconds=5.0),
        strategy="rest_for_one",
    ),
)

TO_TRY = """A tree with a worker that crashes every five seconds runs until you press Ctrl-C. In another terminal, try:

  suitkaise tree                            the tree, with what each worker is doing
  suitkaise status jobs/shaky/crasher       one worker, its last exit, its crash reports
  suitkaise crashes last                    the newest crash report
  suitkaise logs -f                         what the workers print
  kill -9 <pid of a worker>                 it is back at once: suitkaise tree
  suitkaise stop jobs/worker-1; suitkaise start jobs/worker-1
  suitkaise stop                            end it all
"""

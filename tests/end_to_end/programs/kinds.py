"""A worker of each kind, and a program that runs them: `kinds.py HOW KIND... [--shutdown SECONDS]`.

Each worker prints `up KIND PID PARENT` in `on_start` and `finished KIND PID` in `on_finish`. HOW:

run         `tree.run()`
with        `with tree.start(): pass`
wait        `tree.start()`, then wait for ever
leave       `tree.start()`, then the main program ends without `stop()`
raise       `tree.start()`, then the main program ends with an exception

"Then" means: when the program gets SIGUSR1.
"""

import argparse
import ctypes
import os
import signal
import time

from suitkaise import Child, Process, Supervisor


def write_line(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write, so that lines of several processes do not mix


def wait_for_sigusr1() -> None:
    """Return when the program has got SIGUSR1, even if that was before the call."""
    os.read(_woken[0], 1)


_woken = os.pipe()


class Kind(Process):
    def on_start(self) -> None:
        write_line(f"up {self.name} {os.getpid()} {os.getppid()}")

    def on_finish(self) -> None:
        write_line(f"finished {self.name} {os.getpid()}")


class Loops(Kind):
    def loop(self) -> None:
        time.sleep(0.001)


class Waits(Kind):
    def on_receive(self, message: object) -> object:
        return message


class Awaits(Kind):
    async def loop(self) -> None:
        await self.wait_async(3600)


class Stopped(Waits):
    """The test sends it SIGSTOP."""


class Sleeps(Kind):
    def loop(self) -> None:
        time.sleep(3600)


class Computes(Kind):
    def loop(self) -> None:
        while True:
            pass


class Swallows(Kind):
    def loop(self) -> None:
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass


class HoldsTheGil(Kind):
    seconds = 3600

    def loop(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # they would end the sleep
        ctypes.PyDLL(None).sleep(self.seconds)


class HoldsTheGilFor1s(HoldsTheGil):
    seconds = 1


class Lingers(Kind):
    def on_finish(self) -> None:
        super().on_finish()
        time.sleep(3600)


KINDS: dict[str, type[Kind]] = {
    "loops": Loops,
    "waits": Waits,
    "awaits": Awaits,
    "sleeps": Sleeps,
    "computes": Computes,
    "swallows": Swallows,
    "holds_the_gil": HoldsTheGil,
    "holds_the_gil_for_1s": HoldsTheGilFor1s,
    "stopped": Stopped,
    "lingers": Lingers,
}


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda number, frame: os.write(_woken[1], b"!"))
    parser = argparse.ArgumentParser()
    parser.add_argument("how")
    parser.add_argument("kinds", nargs="+")
    parser.add_argument("--shutdown", default=0.3)
    options = parser.parse_args()
    shutdown = options.shutdown
    try:
        shutdown = float(shutdown)
    except ValueError:
        pass
    tree = Supervisor("tree", *(Child(KINDS[kind], id=kind, shutdown=shutdown) for kind in options.kinds))
    if options.how == "run":
        tree.run()
        write_line("end of main")
        return
    if options.how == "with":
        with tree.start():
            write_line("started")
            wait_for_sigusr1()
        write_line("end of main")
        return
    running = tree.start()
    write_line("started")
    if options.how == "wait":
        while True:
            signal.pause()
    wait_for_sigusr1()
    if options.how == "raise":
        raise RuntimeError("the main program's own trouble")
    write_line(f"end of main: {running!r}")


if __name__ == "__main__":
    main()

"""Workers of every temper, and a program that runs them: `kinds.py HOW KIND... [--shutdown SECONDS]`.

Each worker says `up PID PARENT` when it is up and `finished PID` in `on_finish`. HOW:

run         `tree.run()`
with        `with tree.start(): pass`
wait        `tree.start()`, then wait for ever
leave       `tree.start()`, then the main program ends without a word
raise       `tree.start()`, then the main program ends with an exception

"Then" is when the program gets SIGUSR1.
"""

import argparse
import ctypes
import os
import signal
import time

from suitkaise import Child, Process, Supervisor


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write, so lines of several processes do not mix


def when_told() -> None:
    """Return when SIGUSR1 has come, even if that was before the call."""
    os.read(_told[0], 1)


_told = os.pipe()


class Temper(Process):
    def on_start(self) -> None:
        say(f"up {self.name} {os.getpid()} {os.getppid()}")

    def on_finish(self) -> None:
        say(f"finished {self.name} {os.getpid()}")


class Loops(Temper):
    def loop(self) -> None:
        time.sleep(0.001)


class Waits(Temper):
    def on_receive(self, message: object) -> object:
        return message


class Awaits(Temper):
    async def loop(self) -> None:
        await self.wait_async(3600)


class Stopped(Waits):
    """The test sends it SIGSTOP."""


class Sleeps(Temper):
    def loop(self) -> None:
        time.sleep(3600)


class Computes(Temper):
    def loop(self) -> None:
        while True:
            pass


class Swallows(Temper):
    def loop(self) -> None:
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass


class HoldsTheGil(Temper):
    seconds = 3600

    def loop(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # they would end the sleep
        ctypes.PyDLL(None).sleep(self.seconds)


class HoldsTheGilFor1s(HoldsTheGil):
    seconds = 1


class Lingers(Temper):
    def on_finish(self) -> None:
        super().on_finish()
        time.sleep(3600)


KINDS: dict[str, type[Temper]] = {
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
    signal.signal(signal.SIGUSR1, lambda number, frame: os.write(_told[1], b"!"))
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
        say("end of main")
        return
    if options.how == "with":
        with tree.start():
            say("started")
            when_told()
        say("end of main")
        return
    running = tree.start()
    say("started")
    if options.how == "wait":
        while True:
            signal.pause()
    when_told()
    if options.how == "raise":
        raise RuntimeError("the main program's own trouble")
    say(f"end of main: {running!r}")


if __name__ == "__main__":
    main()

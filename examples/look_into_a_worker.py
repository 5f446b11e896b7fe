"""Look into a running worker from another shell: its messages, and where it spends its time."""

import json
import os
import subprocess
import sys
import time

from suitkaise import Process, Supervisor


class Adder(Process):
    def on_receive(self, numbers: list[int]) -> int:
        return sum(numbers)


class Busy(Process):
    def loop(self) -> None:
        self.compute()

    def compute(self) -> int:
        return sum(number * number for number in range(1000))


def command(*words: str) -> "subprocess.Popen[str]":
    words = (*words, "--pid", str(os.getpid()))  # of all programs that run a tree of this name
    return subprocess.Popen([sys.executable, "-m", "suitkaise", *words], stdout=subprocess.PIPE, text=True)


with Supervisor("app", Adder, Busy).start() as running:
    trace = command("trace", "app/adder", "--json", "-n", "1")
    while trace.poll() is None:  # until it has seen a message
        running["adder"].ask([1, 2])
        time.sleep(0.01)
    (line,) = trace.communicate()[0].splitlines()
    report = json.loads(line)
    print(report["kind"], report["message"], "->", report["answer"])

    profile, _ = command("profile", "app/busy", "--seconds", "0.5").communicate()
    print("compute is in the profile:", "Busy.compute" in profile)

# prints: ask [1, 2] -> 3
# prints: compute is in the profile: True

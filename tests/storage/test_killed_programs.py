"""Programs that are killed, with everything they have started, in the midst of durable transactions."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from suitkaise import sktree
from tests.support import eventually, start_program, wait_gone

ENGINES = ("lmdb", "sqlite")

PROGRAM = """
import sys
from suitkaise import sktree, whereis
tree = sktree.connect(sys.argv[1], durable=True, engine=sys.argv[2])
print("storage", whereis("sktree/storage").pid, flush=True)
done = tree.get("done", path="bank", default=0)
while True:
    done += 1
    with tree.transaction():
        tree.add("left", tree.get("left", path="bank", default=0) - done, path="bank")
        tree.add("right", tree.get("right", path="bank", default=0) + done, path="bank")
        tree.add("done", done, path="bank")
    print(done, flush=True)
"""


def kill_once(place: Path, engine: str, after: int) -> int:
    """Run the program until it has told `after` transactions, kill it and its storage; return how many it has told."""
    with start_program(PROGRAM, str(place), engine) as program:
        eventually(lambda: len(program.stdout.split("\n")) > after + 2, timeout=30.0)
        storage = int(program.stdout.split()[1])
        os.kill(storage, signal.SIGKILL)
        os.kill(program.pid, signal.SIGKILL)
        program.wait(15.0)
        wait_gone(storage, 15.0)
    told = [int(line) for line in program.stdout.split("\n")[1:-1] if line]
    return told[-1]


def check(place: Path, told: int) -> None:
    """Check that each transaction that was acknowledged is there, whole, and at most one more."""
    tree = sktree.connect(place, durable=True)
    try:
        left, right, done = (tree.get(name, path="bank") for name in ("left", "right", "done"))
        assert left + right == 0, "torn"
        assert right == done * (done + 1) // 2, "lost or repeated"
        assert told <= done <= told + 1, "lost"
    finally:
        sktree.disconnect()


@pytest.mark.parametrize("engine", ENGINES)
def test_no_transaction_is_lost_or_torn_when_program_and_storage_are_killed(tmp_path: Path, engine: str) -> None:
    for after in (1, 7, 20):
        check(tmp_path / "state", kill_once(tmp_path / "state", engine, after))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_no_transaction_is_lost_or_torn_in_two_hundred_kills(tmp_path: Path, engine: str) -> None:
    chance = random.Random(engine)
    for _ in range(200):
        check(tmp_path / "state", kill_once(tmp_path / "state", engine, chance.randrange(1, 40)))

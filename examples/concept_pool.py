"""A pool that no task can break: one task kills its first worker, another one every worker, and the rest is done."""

import os
import tempfile
from pathlib import Path

from suitkaise.pools import ProcessPool, TaskFailed

folder = tempfile.mkdtemp()
mark = Path(folder, "was here")


def work(number: int) -> int:
    if number == 4 and not mark.exists():
        mark.touch()
        os._exit(1)  # this task is tried again
    if number == 7:
        os._exit(2)  # this one is given up after its third worker
    return number * number


with ProcessPool(3, timeout=30.0, retries=2) as pool:
    futures = {number: pool.submit(work, number) for number in range(10)}
    for number, future in futures.items():
        try:
            print(number, "->", future.result())
        except TaskFailed as error:
            print(number, "->", error)

mark.unlink()
os.rmdir(folder)

# prints: 4 -> 16
# prints: 7 -> work ended its worker at each of 3 attempts: exit code 2
# prints: 8 -> 64

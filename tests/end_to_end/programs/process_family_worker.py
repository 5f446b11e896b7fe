"""A program whose only child is a family of processes: `process_family_worker.py FILE WAYS SHUTDOWN [--stubborn]`."""

import os
import signal
import sys
from pathlib import Path

from suitkaise import Child, Command, Supervisor
from suitkaise.runtime import runtime

family = Command(sys.executable, str(Path(__file__).with_name("process_family.py")), *sys.argv[1:3], *sys.argv[4:],
                ready="is there", name="family")  # fmt: skip
with Supervisor("tree", Child(family, shutdown=float(sys.argv[3]))).start() as running:
    print("keeper", runtime.current().commands.keeper.pid, flush=True)
    print("up", os.getpid(), running["family"].pid, flush=True)
    while True:
        signal.pause()

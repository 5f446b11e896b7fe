"""A program whose only child is a brood, and which waits for ever: `brooding.py FILE WAYS SHUTDOWN [--stubborn]`."""

import os
import signal
import sys
from pathlib import Path

from suitkaise import Child, Command, Supervisor
from suitkaise.supervision import runtime

brood = Command(sys.executable, str(Path(__file__).with_name("brood.py")), *sys.argv[1:3], *sys.argv[4:],
                ready="is there", name="brood")  # fmt: skip
with Supervisor("tree", Child(brood, shutdown=float(sys.argv[3]))).start() as running:
    print("keeper", runtime.current().commands.link.pid, flush=True)
    print("up", os.getpid(), running["brood"].pid, flush=True)
    while True:
        signal.pause()

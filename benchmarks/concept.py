"""The concept's own programs, with suitkaise 0.4.14 (its predecessor) beside them in the same run.

The predecessor has the same import name, so each measurement is a program of its own. `SUITKAISE_PREDECESSOR` names the
folder of the predecessor: `pip install --target FOLDER suitkaise==0.4.14`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from support import ROOT, heading, measure, options, show

PROGRAMS = Path(__file__).parent / "concept_programs"
MEASURES = {  # title, unit, scale, whether more is better, the wanted ratio to the predecessor
    "start": ("from the creation of a process to its first loop", "ms", 1e3, False, 1 / 3),
    "loops": ("loops with three hooks", "loops/s", 1.0, True, 50.0),
    "read": ("read a shared number", "us", 1e6, False, 1 / 30),
    "write": ("write a shared number", "us", 1e6, False, 1 / 2),
    "pool": ("map a tiny function with two workers", "tasks/s", 1.0, True, 10.0),
}


def taken_by(program: str, packages: str, name: str) -> Callable[[], float]:
    """Return a function that runs one measurement in a program of its own."""

    def run() -> float:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            pipe = os.path.join(folder, "starts")
            os.mkfifo(pipe)
            finished = subprocess.run(
                [sys.executable, str(PROGRAMS / program), name, pipe],
                env={**os.environ, "PYTHONPATH": packages},
                stdout=subprocess.PIPE,
                check=True,
                timeout=120,
            )
        return float(finished.stdout.split()[-1])

    return run


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("concept")
    predecessor = os.environ.get("SUITKAISE_PREDECESSOR")
    if predecessor is None:
        print("  SUITKAISE_PREDECESSOR is not set: the predecessor is not measured")
    for name, (title, unit, scale, more_is_better, goal) in MEASURES.items():
        group = {}
        if predecessor is not None:
            group["predecessor"] = taken_by("predecessor.py", predecessor, name)
        group["suitkaise"] = taken_by("ours.py", str(ROOT / "src"), name)
        goals = {"suitkaise": goal} if predecessor is not None else {}
        show(title, unit, measure(1 if quick else 9, group, goals), scale=scale, more_is_better=more_is_better)


if __name__ == "__main__":
    main()

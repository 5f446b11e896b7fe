"""Small faults put into the pure policy, one at a time: the pure tests must notice every one.

`make mutants`, or `python -m tests.mutants [NAME ...]`. Each fault on the list in `mutants.toml` replaces a piece of
source that must be there exactly once; otherwise the list is out of date, and that is an error, too. It is put into a
copy; the checkout is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

SCHEDULES = "1200"
"""How many random schedules are played against a fault that no other test has noticed."""

COPIED = ("src", "tests", "supervisors", "benchmarks", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """`old` in `file` (below the package's folder) becomes `new`."""

    name: str
    file: str
    old: str
    new: str

    def spoil(self, root: Path) -> None:
        """Put the fault into the copy at `root`.

        Raises:
            ValueError: the piece is not there exactly once.
        """
        path = root / "src" / "suitkaise" / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} is {text.count(self.old)} times in {self.file}, not once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def mutants() -> list[Mutant]:
    """All faults on the list."""
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return [Mutant(**fields) for fields in listed["mutant"]]


MUTANTS = mutants()


def verdict(mutant: Mutant) -> str:
    """The first test that fails with this fault; an empty text if none does."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = copy(Path(folder))
        mutant.spoil(root)
        return first_failure(root, mutant)


def copy(folder: Path) -> Path:
    """A copy of what the tests need."""
    for name in COPIED:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def first_failure(root: Path, mutant: Mutant) -> str:
    """The first of the pure tests that fails in the copy at `root`, which has this fault; an empty text if none does.

    The tests of the policy come first for a fault of the policy, and last for any other, which they may not reach;
    those that search come after those that name a rule.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SUITKAISE_SHORT_SCHEDULES": SCHEDULES,
    }
    folders = ["supervision", "testing"]
    folders.insert(0 if mutant.file.startswith("policy/") else len(folders), "policy")
    order = [path for folder in folders for path in sorted(root.glob(f"tests/{folder}/test_*.py"))]
    order.sort(key=_searches)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "120",
        *map(str, order),
    ]
    command += ["--basetemp", str(root / "basetemp"), "--deselect", "tests/test_mutants.py"]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return ""
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        raise RuntimeError(f"the tests did not run:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    return failed[0].partition(" ")[2].partition(" - ")[0]


def _searches(tests: Path) -> bool:
    text = tests.read_text(encoding="utf-8")
    return "search(" in text or "random_schedule(" in text


def main(names: list[str]) -> int:
    """Try those whose names hold one of `names`, or all; 1 if one of them survives."""
    chosen = [one for one in MUTANTS if not names or any(name in one.name for name in names)]
    began, survivors = time.monotonic(), []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, noticed in zip(chosen, pool.map(verdict, chosen), strict=True):
            print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutant.name}  {noticed}", flush=True)
            if not noticed:
                survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} noticed, {time.monotonic() - began:.0f} s")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`suitkaise profile PATH`: where a worker spends its time.

py-spy looks, where it is installed and allowed; else the worker samples itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from suitkaise.cli.command import CLEAN, CommandError, UsageError, tell
from suitkaise.cli.profile_formats import FORMATS, Frame, Profile, as_json
from suitkaise.cli.programs import Target
from suitkaise.cli.show import target_of
from suitkaise.engines.inspection import PATIENCE
from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.escapes import escaped
from suitkaise.messaging.protocol import RequestKind

__all__ = ["profile"]


def profile(options: argparse.Namespace) -> int:
    """Sample a worker for some seconds, and print where it was."""
    if options.json and options.format != "text":
        raise UsageError(f"--json is a format of its own; leave it out, or --format {options.format}")
    target = target_of(options)
    if not options.json:
        tell(f"{target.path}: sampling for {options.seconds:g} s")
    found = _measure(target, options.seconds, options.rate)
    if not found.stacks:
        raise CommandError(f"{target.path!r}: no stack was seen; has it ended?")
    print(json.dumps(as_json(found)) if options.json else escaped(FORMATS[options.format](found)))
    return CLEAN


def _measure(target: Target, seconds: float, rate: float) -> Profile:
    kind = target.facts["kind"]
    if kind not in ("process", "command") or target.facts["pid"] == target.program.facts["pid"]:
        return _of_program(target, seconds, rate)
    if target.node:  # py-spy looks into processes of its own machine
        if kind == "command":
            raise UsageError(
                f"{target.path!r} is a program of its own on the node {target.node}; only py-spy there can look into it"
            )
        return _from_sampler(target.path, target.inspect("profile", seconds, rate, takes=seconds))
    pid = target.pid
    why = "it is not installed (pip install py-spy)"
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=os.path.dirname(sys.executable))
    if spy is not None:
        found, why = _by_py_spy(spy, target.path, pid, seconds, rate)
        if found is not None:
            return found
    if kind == "command":
        raise UsageError(f"{target.path!r} is a program of its own; py-spy can look into it if it is Python, but {why}")
    if spy is not None:
        tell(f"py-spy cannot be used: {why}; the worker samples itself")
    return _from_sampler(target.path, target.inspect("profile", seconds, rate, takes=seconds))


# ---------------------------------------------------------------- the ways to measure
def _of_program(target: Target, seconds: float, rate: float) -> Profile:
    """Have the program sample its own threads: thread workers, supervisors, the program itself."""
    answer = target.program.client.request(RequestKind.PROFILE, target.path, (seconds, rate))
    try:
        return _from_sampler(target.path, answer.get(seconds + PATIENCE))
    except AskTimeout:
        raise CommandError(f"{target.path!r}: the program does not answer") from None
    except RuntimeGone:
        raise CommandError(f"{target.path!r}: the program has ended meanwhile") from None


def _from_sampler(path: str, told: dict[str, Any]) -> Profile:
    frames: list[Frame] = [(name, file, line) for name, file, line in told["frames"]]
    stacks = [(thread, tuple(frames[one] for one in stack), count) for thread, stack, count in told["stacks"]]
    return Profile(path, "its own program", told["seconds"], stacks, told["on_cpu"])


def _by_py_spy(spy: str, path: str, pid: int, seconds: float, rate: float) -> tuple[Profile | None, str]:
    """Return what py-spy has found, or None and why it has found nothing. It does not stop the process."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "profile")
        began = time.monotonic()
        command = [
            spy, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))), "--rate", str(round(rate)),
            "--format", "raw", "--output", file, "--nonblocking", "--idle", "--function", "--threads",
            "--full-filenames",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            return None, f"{spy}: {error.strerror}"
        try:
            with open(file, encoding="utf-8", errors="replace") as raw:
                lines = raw.read().splitlines()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            told = done.stderr.decode(errors="replace").strip().splitlines() if missing else []
            return None, next((one for one in told if one.startswith("Error")), str(error))
    stacks = [stack for line in lines if (stack := _parsed(line)) is not None and not _is_ours(*stack)]
    found = Profile(path, "py-spy", time.monotonic() - began, stacks)
    return (found, "") if stacks else (None, "it has found nothing")


def _is_ours(thread: str, stack: tuple[Frame, ...], count: int) -> bool:
    """Return whether this is a thread that each worker's process has, which does not belong to the worker."""
    return thread.startswith("suitkaise-") or stack[0][0].endswith("_HubWatch._run")


def _parsed(line: str) -> tuple[str, tuple[Frame, ...], int] | None:
    """Return one line of py-spy's raw format.

    >>> _parsed("thread (7): MainThread;loop (/app.py:3);sleep (/app.py:9) 12")
    ('MainThread', (('loop', '/app.py', 3), ('sleep', '/app.py', 9)), 12)
    """
    stack, _, count = line.rpartition(" ")
    thread, *names = stack.split(";")
    if not count.isdecimal() or not names:
        return None
    frames: list[Frame] = []
    for name in names:
        match = re.fullmatch(r"(.*) \((.*?)(?::(\d+))?\)", name)
        frames.append((match[1], match[2], int(match[3] or 0)) if match else (name, "", 0))
    return thread.partition(": ")[2].strip('"') or thread, tuple(frames), int(count)

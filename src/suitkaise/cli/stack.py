"""`suitkaise stack PATH`: where every thread of a worker is, also while the worker hangs."""

from __future__ import annotations

import argparse
import json
import os
import time

from suitkaise.cli.command import CLEAN, CommandError, UsageError
from suitkaise.cli.display import print_stacks
from suitkaise.cli.show import target_of
from suitkaise.engines.worker_signals import DUMP
from suitkaise.platform.processes import has_default_action
from suitkaise.platform.runtime_directory import stack_file

__all__ = ["send_to_worker", "stack"]

PATIENCE = 2.0
"""Seconds within which a process has to begin to write its stacks; one that is stopped or swapped out does not."""

QUIET = 0.05
"""Seconds without another byte after which the stacks are complete."""


def stack(options: argparse.Namespace) -> int:
    """Have a worker's process write the stacks of its threads, and print them; the worker goes on."""
    target = target_of(options)
    match target.facts["kind"]:
        case "thread" | "supervisor" as kind:
            raise UsageError(
                f"{target.path!r} is a {kind} of the program; kill -USR1 {target.program.facts['pid']} has the program "
                "print the stacks of all its threads, if it was started by `run`"
            )
        case "command":
            raise UsageError(f"{target.path!r} is a program of its own, which has no Python stack")
    pid = target.pid
    text = stacks_of(stack_file(target.program.directory, pid), pid)
    if options.json:
        print(json.dumps({"path": target.path, "pid": pid, "stacks": text}))
    else:
        print_stacks(text.rstrip())
    return CLEAN


def stacks_of(file: str, pid: int) -> str:
    """Return what process `pid` writes to the file when it is asked for its stacks.

    Raises:
        CommandError: it writes nothing in time.
    """
    try:
        before = os.path.getsize(file)
    except OSError as error:
        raise CommandError(f"process {pid} cannot be asked for its stacks: {error.strerror}") from None
    send_to_worker(pid, DUMP)
    try:
        return _written(file, pid, before)
    except FileNotFoundError:
        raise CommandError(f"process {pid} has ended meanwhile") from None


def _written(file: str, pid: int, before: int) -> str:
    """Return what is written to the file behind its first bytes, as soon as nothing more comes."""
    deadline = time.monotonic() + PATIENCE
    size, changed = before, 0.0
    while size == before or time.monotonic() - changed < QUIET:
        if time.monotonic() >= deadline:
            if size > before:
                break
            raise CommandError(f"process {pid} has not written its stacks within {PATIENCE:g} s: is it stopped?")
        time.sleep(0.005)
        now = os.path.getsize(file)
        if now != size:
            size, changed = now, time.monotonic()
    with open(file, errors="replace") as stacks:
        stacks.seek(before)
        return stacks.read()


def send_to_worker(pid: int, number: int) -> None:
    """Send a signal that a worker's process handles.

    Raises:
        CommandError: the process does not handle it, and would be ended by it; or the system refuses it.
    """
    if has_default_action(number, pid):
        raise CommandError(f"process {pid} cannot be asked: it is no worker's, or it begins or ends just now")
    try:
        os.kill(pid, number)
    except OSError as error:
        raise CommandError(f"process {pid} cannot be asked: {error.strerror}") from None

"""`suitkaise stack PATH`: where every thread of a worker is, also while the worker hangs."""

from __future__ import annotations

import argparse
import json

from suitkaise.cli.command import CLEAN, UsageError
from suitkaise.cli.display import print_stacks
from suitkaise.cli.show import target_of

__all__ = ["stack"]


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
    text = target.inspect("stack")
    if options.json:
        print(json.dumps({"path": target.path, "pid": target.facts["pid"], "stacks": text}))
    else:
        print_stacks(text.rstrip())
    return CLEAN

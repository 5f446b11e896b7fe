"""`suitkaise stack PATH`: where every thread of a worker, or of a part of a tree, is, also while it hangs."""

from __future__ import annotations

import argparse
import json

from suitkaise.cli.command import CLEAN, CommandError, UsageError
from suitkaise.cli.display import print_stacks
from suitkaise.cli.programs import PATIENCE, Target
from suitkaise.cli.show import target_of
from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.messaging.protocol import RequestKind

__all__ = ["stack"]


def stack(options: argparse.Namespace) -> int:
    """Print the stacks of a worker's process, which writes them itself, or of threads of the program; they go on."""
    target = target_of(options)
    match target.facts["kind"]:
        case "thread" | "supervisor":
            text = _of_program(target)
        case "command":
            raise UsageError(f"{target.path!r} is a program of its own, which has no Python stack")
        case _:
            text = target.inspect("stack")
    if options.json:
        print(json.dumps({"path": target.path, "pid": target.facts["pid"], "stacks": text}))
    else:
        print_stacks(text.rstrip())
    return CLEAN


def _of_program(target: Target) -> str:
    """Ask the program for the stacks of its own threads: thread workers, supervisors, the program itself."""
    try:
        text: str = target.program.client.request(RequestKind.STACKS, target.path).get(PATIENCE)
    except AskTimeout:
        raise CommandError(
            f"{target.path!r}: the program does not answer; kill -USR1 {target.program.facts['pid']} has it print the "
            "stacks of all its threads, if it was started by `run`"
        ) from None
    except RuntimeGone:
        raise CommandError(f"{target.path!r}: the program has ended meanwhile") from None
    if not text:
        raise CommandError(f"{target.path!r} is {target.facts['status']}; it has no thread")
    return text

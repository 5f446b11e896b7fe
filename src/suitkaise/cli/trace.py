"""`suitkaise trace PATH`: the messages that a worker handles, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Any

from suitkaise.cli.command import CLEAN, CommandError, UsageError, tell
from suitkaise.cli.show import target_of
from suitkaise.errors import AskTimeout, ChildNotFound, RuntimeGone
from suitkaise.escapes import one_line
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.observer.words import duration

__all__ = ["trace"]

PATIENCE = 2.0
"""Seconds after which the program is asked anew, which also finds out that the worker is gone."""


def trace(options: argparse.Namespace) -> int:
    """Print each message that a worker handles from now on, until Ctrl-C or so many messages."""
    target = target_of(options)
    if target.facts["kind"] == "supervisor":
        raise UsageError(f"{target.path!r} is a supervisor, which takes no messages; name a worker")
    if target.facts["kind"] == "command":
        raise UsageError(f"{target.path!r} is a program of its own, which takes no messages; see `suitkaise logs`")
    client = target.program.client
    last, printed = None, 0
    with contextlib.suppress(KeyboardInterrupt):
        while options.lines is None or printed < options.lines:
            news = _next(client, target.path, last)
            if news is None:
                continue
            if last is None:
                tell(f"{target.path}: its messages from now on; Ctrl-C ends this")
            last = news["last"]
            if news["resumed"]:
                tell("messages were not shown: nothing has asked for them for a while")
            if news["missed"]:
                tell(f"{news['missed']} messages were not shown: too many came")
            for report in news["reports"]:
                _print(report, as_json=options.json)
                printed += 1
                if printed == options.lines:
                    break
            sys.stdout.flush()
    return CLEAN


def _next(client: HubClient, path: str, last: int | None) -> dict[str, Any] | None:
    """Return the messages after number `last`; None if none has come for a while. Without a number, begin the trace."""
    answer = client.request(RequestKind.TRACE, path, last)
    try:
        news: dict[str, Any] = answer.get(PATIENCE)
    except AskTimeout:
        answer.cancel()
        return None
    except ChildNotFound:
        raise CommandError(f"{path!r} is gone") from None
    except RuntimeGone:
        raise CommandError("the program has ended") from None
    return news


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    if report["skipped"]:
        tell(f"{report['skipped']} messages were not shown: too many came")
    at = report["at"]
    clock = f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03d}"
    sender = f" from {report['sender']}" if report["sender"] else ""
    outcome = ""
    if report.get("later"):
        outcome = "  answers later"
    elif "error" in report:
        outcome = f"  error: {report['error']}"
    elif "answer" in report:
        outcome = f"  -> {report['answer']}"
    waited = "" if report["waited"] is None else f"waited {_span(report['waited'])}, "
    print(
        f"{clock}  #{report['number']} {report['kind']}{one_line(sender)}: {one_line(report['message'])}"
        f"{one_line(outcome)}  ({waited}ran {_span(report['ran'])})"
    )


def _span(seconds: float) -> str:
    return duration(seconds) if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"

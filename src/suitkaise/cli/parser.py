"""The commands and their options."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

import suitkaise
from suitkaise.cli.completion import SHELLS

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["PROFILE_FORMATS", "make_parser"]

PROFILE_FORMATS = ("text", "folded", "speedscope")
"""The names of `profile_formats.FORMATS`, which the parser does not load."""


class _Parser(argparse.ArgumentParser):
    """A parser whose help and errors may be lost where they cannot be written; the exit code tells enough."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        with contextlib.suppress(OSError):  # as in later versions of Python
            super()._print_message(message, file)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="suitkaise", description="Run supervision trees, look at them, and steer them.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"suitkaise {suitkaise.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    for name, text in _LOOKS.items():
        command = _add(commands, name, text)
        command.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
        if name not in ("ps", "nodes"):
            command.add_argument("path", nargs="?", metavar="PATH", type=_given, help=_PATH)
        if name == "tree":
            command.add_argument("--paths", action="store_true", help=argparse.SUPPRESS)  # for `completion`
    logs = _add(commands, "logs", "print what workers have printed and logged last")
    logs.add_argument("path", nargs="?", metavar="PATH", type=_given, help=_PATH)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what they print from now on")
    logs.add_argument("-t", "--timestamps", action="store_true", help="print the time of each line")
    logs.add_argument("-n", "--lines", type=_count, default=20, metavar="N", help="lines of each worker (default 20)")
    logs.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
    observe = _add(commands, "observe", "serve a web page that shows the trees of a program that runs already")
    observe.add_argument("address", nargs="?", default="", metavar="HOST:PORT",
                         help="where (default: a free port of 127.0.0.1)")  # fmt: skip
    observe.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
    observe.add_argument("--actions", action="store_true", help="the page may restart, stop and start workers")
    observe.add_argument("--hide-values", action="store_true", help="the page shows no values of the storage")
    top = _add(commands, "top", "show trees as a live table in the terminal, to look closer and to steer")
    top.add_argument("path", nargs="?", metavar="TREE", type=_given, help=_PATH)
    top.add_argument("--once", action="store_true", help="print the table once, as without a terminal")
    top.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
    trace = _add(commands, "trace", "print the messages that a worker handles, live")
    trace.add_argument("path", metavar="PATH", type=_given, help=_PATH)
    trace.add_argument("-n", "--lines", type=_count, metavar="N", help="end after N messages")
    trace.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
    profile = _add(commands, "profile", "sample where a worker spends its time")
    profile.add_argument(
        "path", metavar="PATH", type=_given, help=f"{_PATH}; a tree's name is for all threads of its program"
    )
    profile.add_argument("--seconds", type=_positive, default=10.0, metavar="N", help="for how long (default 10)")
    profile.add_argument("--rate", type=_rate, default=100.0, metavar="N", help="looks a second (default 100)")
    profile.add_argument(
        "--format", choices=PROFILE_FORMATS, default="text", help="folded: for flame graphs (default: text)"
    )
    profile.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
    for name, text in _CHANGES.items():
        command = _add(commands, name, text)
        if name == "signal":
            command.add_argument("signal", metavar="SIGNAL", help="a name such as TERM, or a number")
        command.add_argument("path", nargs="?" if name in ("stop", "suspend", "resume") else None, metavar="PATH",
                             type=_given, help=_PATH)  # fmt: skip
        command.add_argument("--pid", type=int, metavar="PID", help="the program, if there are several")
        if name not in ("signal", "stack"):
            waiting = command.add_mutually_exclusive_group()
            waiting.add_argument(
                "--timeout", type=_seconds, metavar="SECONDS", help="wait no longer (default: no limit)"
            )
            waiting.add_argument("--no-wait", action="store_true", help="return as soon as it is requested")
    reports = _add(
        commands,
        "crashes",
        "list the crash reports of this user's programs, or show one",
        "Every abnormal exit of a worker leaves a report, which outlives the program. The newest is last.",
    )
    reports.add_argument(
        "id", nargs="?", metavar="ID", type=_given, help="the report to show: the beginning of its id, or `last`"
    )
    reports.add_argument(
        "--path", metavar="PATH", type=_given, help="only those of the worker or supervisor at PATH, and below it"
    )
    reports.add_argument("--pid", type=int, metavar="PID", help="only those of this process")
    _add_store(commands)
    _add(commands, "doctor", "look whether this machine has what trees need")
    _add_observe(_add(commands, "demo", "run a small tree with a worker that crashes every five seconds"))
    completion = commands.add_parser("completion", help="print the completion script of a shell",
                                     description='Use it with: eval "$(suitkaise completion bash)"')  # fmt: skip
    completion.add_argument("shell", choices=SHELLS)
    return parser


_PATH = "the worker or supervisor, such as app/jobs/worker-1; the tree's name may be left out where one tree has it"
_DIRECTORY = "that of sktree.connect(DIRECTORY, durable=True)"
_EPILOG = """exit codes: 0 clean, 1 failed, 2 wrong usage or declaration, 3 no running tree was reached,
4 it runs already, 128+n ended by signal n"""
_LOOKS = {
    "ps": "list the programs of this user that run trees",
    "nodes": "list the nodes of the clusters that programs of this user use",
    "tree": "print trees with the state of each worker",
    "status": "print what is known of one worker or supervisor",
}
_CHANGES = {
    "restart": "stop a worker by its shutdown and start it again; the restart window does not count it",
    "stop": "stop a worker, a part of a tree, or a whole tree",
    "start": "start a worker that is stopped",
    "suspend": "let a worker, or all workers of a part, do nothing for a while",
    "resume": "let suspended workers go on",
    "signal": "send a signal to the process of a worker",
    "stack": "print where all threads of a worker are, also while it hangs",
}


def _add(commands: Any, name: str, text: str, description: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=description or f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _given(text: str) -> str:
    if not text:  # of a variable of the shell that is not set, say
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds


def _positive(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        raise ValueError
    return seconds


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate <= 1000:
        raise ValueError
    return rate


for _type, _name in (
    (_count, "number of lines"), (_seconds, "number of seconds"), (_positive, "number of seconds above 0"),
    (_rate, "rate from 1 to 1000"),
):  # fmt: skip
    _type.__name__ = _name  # argparse names it in its errors


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run the tree that a file or module declares",
        description="Run a tree until it ends. SIGINT, SIGTERM and SIGHUP stop it gracefully. A second signal kills "
        "it, unless it is the same one within a second.",
        epilog="Without :NAME, the only Supervisor at the top level is run. Further arguments are the program's own. "
        "Options may also come from SUITKAISE_JSON, SUITKAISE_DEBUG, SUITKAISE_HEALTH and SUITKAISE_WATCH, and from "
        "[tool.suitkaise] in pyproject.toml.",
    )
    run.add_argument("target", metavar="MODULE_OR_FILE[:NAME]", help="app.py, app.py:tree, package.module:tree")
    run.add_argument("--json", action=argparse.BooleanOptionalAction, help="log as JSON lines")
    run.add_argument(
        "--debug",
        action=argparse.BooleanOptionalAction,
        help="run process workers as threads of this program, without time limits: for breakpoint() and input()",
    )
    run.add_argument(
        "--health",
        metavar="[HOST:]PORT",
        help="serve /healthz, /readyz and (with the extra `metrics`) /metrics there; HOST is this machine by default",
    )
    run.add_argument(
        "--watch", metavar="[DIR]",
        help="start the program anew when a .py file below DIR changes (default: the folder of the file); with the "
        "extra `dev`",
    )  # fmt: skip
    run.add_argument("--run-by", type=int, help=argparse.SUPPRESS)
    run.add_argument(
        "--engine", metavar="local|ray",
        help="ray: run the processes on a Ray cluster, as with engine=Ray(...) (with the extra `ray`); local: run all "
        "on this machine, whatever the tree declares",
    )  # fmt: skip
    run.add_argument("--address", metavar="ADDRESS", help="with --engine ray: the cluster to join, `auto` or HOST:PORT")
    run.add_argument("--nodes", metavar="N", help="with --engine ray: start a cluster here, as if of N machines")
    _add_observe(run)
    run.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS).required = False


def _add_observe(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--observe", nargs="?", const="", metavar="HOST:PORT",
        help="serve a web page that shows the tree, and print its URL (default: a free port of 127.0.0.1)",
    )  # fmt: skip
    command.add_argument("--observe-actions", action="store_true", help="the page may restart, stop and start workers")
    command.add_argument("--observe-hide-values", action="store_true", help="the page shows no values of the storage")


def _add_store(commands: Any) -> None:
    store = commands.add_parser(
        "store",
        help="look into a storage on disk",
        description="Look into a storage on disk. Reading works whether a program uses it or not.",
    )
    actions = store.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in (
        ("ls", "list the entries at and below a path"),
        ("get", "print the value of an entry"),
        ("rm", "remove an entry"),
        ("watch", "print the changes at and below a path while a program makes them"),
    ):
        parser = actions.add_parser(action, help=text, description=text[0].upper() + text[1:] + ".")
        parser.add_argument("directory", metavar="DIRECTORY", type=_given, help=_DIRECTORY)
        if action in ("get", "rm"):
            parser.add_argument("name", metavar="NAME")
        parser.add_argument("--path", default="", help="the container; default: the root")
        parser.add_argument("--json", action="store_true", help="print JSON")

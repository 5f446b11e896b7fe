"""The commands and their options. Only the command line configures logging, and maps outcomes to exit codes.

Exit codes: 0 clean, 1 the root gave up, was killed or could not start, or a significant child has failed, 2 usage or a
wrong declaration, 128+n forced by signal n.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import suitkaise
from suitkaise.cli import crashes
from suitkaise.cli.command import CLEAN, FAILED, USAGE, UsageError, to_reader
from suitkaise.cli.load import find_tree, load, split_target
from suitkaise.cli.output import configure_logging
from suitkaise.errors import NotSerializable, SpecError, SuitkaiseError
from suitkaise.escapes import indented
from suitkaise.platform.blocked_streams import returns_within, shield_streams
from suitkaise.platform.init_process import run_below_init
from suitkaise.platform.log_queue import PATIENCE
from suitkaise.runtime import foreground, runtime

__all__ = ["main"]

_LATER = ("ps", "status", "tree", "top", "logs", "restart", "stop", "start", "suspend", "resume",
          "demo", "doctor")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; return the exit code."""
    _open_streams()
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    ours, theirs = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    options, rest = parser.parse_known_args(ours)
    if options.command in _LATER:
        print(f"suitkaise {options.command}: not built yet; this version has: run, crashes, store", file=sys.stderr)
        return USAGE
    unknown = rest if options.command == "run" else [*rest, *theirs]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command == "store":
        from suitkaise.cli import store  # loads what the storage needs

        return to_reader(lambda: store.run(options))
    if options.command == "crashes":
        return to_reader(lambda: crashes.run(options.id, as_json=options.json))
    arguments = [*_without_own(options, options.arguments), *theirs]
    for option, value in (("--engine", options.engine), ("--observe", options.observe)):
        if value not in (None, "local"):
            print(f"suitkaise run: {option} {value} is not built yet; leave it out", file=sys.stderr)
            return USAGE
    if os.getpid() == 1:
        run_below_init()
    configure_logging(as_json=options.json)
    runtime.debug = options.debug
    try:
        return _run(options.target, arguments)
    except UsageError as error:
        print(f"suitkaise run: {error}", file=sys.stderr)
        return USAGE
    except (SpecError, NotSerializable) as error:
        _print_error(error)
        return USAGE
    except SuitkaiseError as error:
        _print_error(error)
        return FAILED


def _open_streams() -> None:
    """Open `/dev/null` in place of each standard stream that the caller has closed (`2>&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is the stream's
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="suitkaise", description="Run supervision trees.")
    parser.add_argument("--version", action="version", version=f"suitkaise {suitkaise.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the tree that a file or module declares",
        description="Run a tree until it ends. SIGINT, SIGTERM and SIGHUP stop it gracefully. A second signal kills "
        "it, unless it is the same one within a second.",
        epilog="Without :NAME, the only Supervisor at the top level is run. Further arguments are the program's own.",
    )
    run.add_argument("target", metavar="MODULE_OR_FILE[:NAME]", help="app.py, app.py:tree, package.module:tree")
    run.add_argument("--json", action="store_true", help="log as JSON lines")
    run.add_argument(
        "--debug",
        action="store_true",
        help="run process workers as threads of this program, without time limits: for breakpoint() and input()",
    )
    run.add_argument("--engine", choices=("local", "ray"), help=argparse.SUPPRESS)
    run.add_argument("--observe", nargs="?", const="", help=argparse.SUPPRESS)
    run.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    reports = commands.add_parser(
        "crashes",
        help="list the crash reports of this user's programs, or show one",
        description="Every abnormal exit of a worker leaves a report, which outlives the program. The newest is last.",
    )
    reports.add_argument("id", nargs="?", metavar="ID", help="the report to show: the beginning of its id, or `last`")
    reports.add_argument("--json", action="store_true", help="print JSON")
    _add_store(commands)
    for name in _LATER:
        commands.add_parser(name, add_help=False).set_defaults(json=False)
    return parser


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
        parser.add_argument("directory", metavar="DIRECTORY", help="that of sktree.connect(DIRECTORY, durable=True)")
        if action in ("get", "rm"):
            parser.add_argument("name", metavar="NAME")
        parser.add_argument("--path", default="", help="the container; default: the root")
        if action != "rm":
            parser.add_argument("--json", action="store_true", help="print JSON")


def _without_own(options: argparse.Namespace, arguments: list[str]) -> list[str]:
    """Take our own options behind the target; the first other argument begins the program's arguments."""
    while True:
        match arguments:
            case ["--json", *arguments]:
                options.json = True
            case ["--debug", *arguments]:
                options.debug = True
            case ["--engine", engine, *arguments]:
                options.engine = engine
            case ["--observe", *arguments]:
                options.observe = ""
            case [first, *others] if first.startswith(("--engine=", "--observe=")):
                name, _, value = first.partition("=")
                setattr(options, name.removeprefix("--"), value)
                arguments = others
            case _:
                return arguments


def _run(target: str, arguments: list[str]) -> int:
    where, name = split_target(target)
    before = foreground.runs
    namespace = load(where, arguments)
    if name is None and foreground.runs != before:
        return CLEAN  # the file has run its tree itself
    tree = find_tree(namespace, where, name)
    tree.run()
    return CLEAN


def _print_error(error: BaseException) -> None:
    text = "\n".join([f"suitkaise: {type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    if not returns_within(PATIENCE, lambda: print(indented(text), file=sys.stderr)):  # nobody reads it
        shield_streams()

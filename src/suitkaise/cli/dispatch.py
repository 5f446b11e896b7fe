"""The commands and their options. Only the command line configures logging, and maps outcomes to exit codes.

Exit codes: 0 clean, 1 the root gave up, was killed or could not start, or a significant child has failed, or the
command has failed, 2 usage or a wrong declaration, 3 no running tree was reached, 4 it runs already, 128+n forced by
signal n.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from suitkaise.cli.command import (
    CLEAN,
    FAILED,
    NO_PROGRAM,
    USAGE,
    CommandError,
    tell,
    to_reader,
    with_own_code,
    working_folder,
)
from suitkaise.cli.completion import commands_of, print_completion
from suitkaise.cli.load import find_tree, load, roots, split_target
from suitkaise.cli.observe import first_option, observed, with_address
from suitkaise.cli.output import configure_logging
from suitkaise.cli.parser import make_parser
from suitkaise.cli.settings import fill_in
from suitkaise.errors import ChildStartFailed, NotSerializable, RuntimeGone, SpecError, SuitkaiseError, TreeFailed
from suitkaise.escapes import indented
from suitkaise.platform.blocked_streams import returns_within, shield_streams
from suitkaise.platform.init_process import run_below_init
from suitkaise.platform.log_queue import PATIENCE
from suitkaise.platform.processes import die_with_parent
from suitkaise.runtime import choices

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; return the exit code."""
    _open_streams()
    return with_own_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    parser = make_parser()
    if not argv:
        parser.print_help(sys.stderr)
        return USAGE
    argv = [*argv[:1], *with_address(argv[1:])]
    ours, theirs = argv, []
    if argv[0] == "run" and "--" in argv:
        ours, theirs = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    options, rest = parser.parse_known_args(ours)
    if unknown := [word for word in rest if word != "--"]:
        import shlex

        parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
    try:
        match options.command:
            case "run":
                programs = _without_own(options, options.arguments)
                if options.run_by is None:
                    _tell_near_miss(programs)
                return _run_file(options, [*programs, *theirs])
            case "demo":
                return _run_demo(options)
            case "completion":
                return to_reader(lambda: print_completion(parser, options.shell))
            case command:
                with contextlib.ExitStack() as options.opened:
                    return to_reader(lambda: _function_of(command)(options))
    except CommandError as error:
        tell(f"suitkaise {options.command}: {error}")
        return error.code
    except RuntimeGone:
        tell(f"suitkaise {options.command}: the program has ended")
        return NO_PROGRAM


def _run_file(options: argparse.Namespace, arguments: list[str]) -> int:
    split_target(options.target)  # first: no change of a file could make it right
    given = argparse.Namespace(**vars(options))
    fill_in(options, Path(working_folder()), os.environ)
    if options.watch is not None and options.run_by is None:
        from suitkaise.cli.watch import watched

        given.watch = options.watch
        return watched(given, arguments)  # the program takes its other options anew at each start
    if options.run_by is not None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != options.run_by:  # it has ended already
            return CLEAN
    choices.debug = options.debug
    from suitkaise.cli.engine import engine_of  # loads declarations, as the tree will

    choices.engine = engine_of(options)

    def run() -> int:
        if options.health is None:
            return _run(options.target, arguments)
        from suitkaise.cli.health import serving  # loads a web server

        with serving(options.health):
            return _run(options.target, arguments)

    return _in_foreground(options, run)


def _run_demo(options: argparse.Namespace) -> int:
    from suitkaise.cli.demo_tree import TO_TRY, tree  # imports what users import

    def run() -> int:
        if not options.json:
            tell(TO_TRY)
        tree.run()
        return CLEAN

    return _in_foreground(options, run)


def _in_foreground(options: argparse.Namespace, run: Callable[[], int]) -> int:
    if os.getpid() == 1:
        run_below_init()
    configure_logging(as_json=options.json)
    try:
        with observed(options):
            return run()
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


def _without_own(options: argparse.Namespace, arguments: list[str]) -> list[str]:
    """Take our own options behind the target; the first other argument begins the program's arguments."""
    while True:
        option, others = first_option(arguments, is_target_left=False)
        arguments = [*option, *others]
        match arguments:
            case ["--json" | "--no-json" as flag, *arguments]:
                options.json = flag == "--json"
            case ["--debug" | "--no-debug" as flag, *arguments]:
                options.debug = flag == "--debug"
            case ["--engine", engine, *arguments]:
                options.engine = engine
            case ["--address" | "--nodes" as flag, value, *others] if options.engine == "ray":
                setattr(options, flag.removeprefix("--"), value)
                arguments = others  # only here: a guard comes too late for what its pattern binds
            case ["--health", health, *arguments]:
                options.health = health
            case ["--observe-actions", *arguments]:
                options.observe_actions = True
            case ["--observe-hide-values", *arguments]:
                options.observe_hide_values = True
            case [first, *others] if first.startswith(("--engine=", "--health=", "--observe=", "--watch=")) or (
                options.engine == "ray" and first.startswith(("--address=", "--nodes="))
            ):
                name, _, value = first.partition("=")
                setattr(options, name.removeprefix("--"), value)
                arguments = others
            case _:
                return arguments


def _tell_near_miss(arguments: list[str]) -> None:
    """Tell of an option that goes to the program, and is nearly one of our own."""
    option = arguments[0].partition("=")[0] if arguments else ""
    if not option.startswith("--"):
        return
    import difflib

    _, own = commands_of(make_parser())["run"]
    near = difflib.get_close_matches(option, own, n=1, cutoff=0.85)
    if near and option not in own:
        tell(f"suitkaise run: {option} goes to the program; did you mean {near[0]}? If not, write `-- {option}`")


_COMMANDS = {
    "ps": "show:ps",
    "nodes": "nodes:nodes",
    "tree": "show:tree",
    "status": "show:status",
    "logs": "logs:logs",
    "top": "top:top",
    "profile": "profile:profile",
    "trace": "trace:trace",
    "observe": "observe:observe",
    "restart": "change:change",
    "stop": "change:change",
    "start": "change:change",
    "suspend": "change:change",
    "resume": "change:change",
    "signal": "change:send_signal",
    "stack": "stack:stack",
    "crashes": "crashes:run",
    "store": "store:run",
    "doctor": "doctor:doctor",
}
"""Module and function of each command: the command line loads what the command needs, and nothing else."""


def _function_of(command: str) -> Callable[[argparse.Namespace], int]:
    module, _, name = _COMMANDS[command].partition(":")
    function: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"suitkaise.cli.{module}"), name)
    return function


def _run(target: str, arguments: list[str]) -> int:
    where, name = split_target(target)
    before = choices.runs
    choices.started.clear()
    namespace = load(where, arguments)
    if name is None and (choices.runs != before or _has_started(namespace)):
        return CLEAN  # the file has run its tree itself, or has made processes by calls
    tree = find_tree(namespace, where, name)
    tree.run()
    return CLEAN


def _has_started(namespace: dict[str, object]) -> bool:
    """Return whether the file has started trees while it was loaded, and has none that it has not started."""
    return bool(choices.started) and all(tree.name in choices.started for tree in roots(namespace).values())


def _print_error(error: BaseException) -> None:
    logged = isinstance(error, (ChildStartFailed, TreeFailed))  # with the traceback of the worker
    notes = () if logged else getattr(error, "__notes__", ())
    text = "\n".join([f"suitkaise: {type(error).__name__}: {error}{_place(error)}", *notes])
    if not returns_within(PATIENCE, lambda: tell(indented(text))):  # nobody reads it
        shield_streams()


def _place(error: BaseException) -> str:
    """Return ` (at app.py:4)`: the line of the program that has raised a wrong declaration; empty if none has."""
    if not isinstance(error, SpecError):
        return ""
    import traceback

    from suitkaise.crashes import OURS, where_of

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    place = where_of("".join(traceback.format_list(frames)))
    return f" (at {place})" if place else ""

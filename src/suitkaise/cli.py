"""The command line: `suitkaise run FILE`. Only this module configures logging, and maps outcomes to exit codes.

Exit codes: 0 clean, 1 the root gave up, was killed or could not start, or a significant child has failed, 2 usage or a
wrong declaration, 128+n forced by signal n.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import suitkaise
from suitkaise import events
from suitkaise.crashes import crash_directory, read_reports
from suitkaise.errors import NotSerializable, SpecError, SuitkaiseError
from suitkaise.escapes import escaped, indented
from suitkaise.platform.blocked_streams import returns_within, shield_streams
from suitkaise.platform.init_process import run_below_init
from suitkaise.platform.log_queue import PATIENCE
from suitkaise.runtime import foreground, runtime
from suitkaise.supervisor import Supervisor

__all__ = ["main"]

CLEAN, FAILED, USAGE = 0, 1, 2

_RED, _GREEN, _YELLOW = 31, 32, 33

_LATER = ("ps", "status", "tree", "top", "logs", "restart", "stop", "start", "suspend", "resume",
          "demo", "doctor")  # fmt: skip


class _Usage(Exception):
    """The command cannot be carried out as given; the text holds the right form."""


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
        from suitkaise import store_command  # loads what the storage needs

        return _to_reader(lambda: store_command.run(options))
    if options.command == "crashes":
        return _to_reader(lambda: _crashes(options.id, as_json=options.json))
    arguments = [*_without_own(options, options.arguments), *theirs]
    for option, value in (("--engine", options.engine), ("--observe", options.observe)):
        if value not in (None, "local"):
            print(f"suitkaise run: {option} {value} is not built yet; leave it out", file=sys.stderr)
            return USAGE
    if os.getpid() == 1:
        run_below_init()
    _configure_logging(as_json=options.json)
    runtime.debug = options.debug
    try:
        return _run(options.target, arguments)
    except _Usage as error:
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
    crashes = commands.add_parser(
        "crashes",
        help="list the crash reports of this user's programs, or show one",
        description="Every abnormal exit of a worker leaves a report, which outlives the program. The newest is last.",
    )
    crashes.add_argument("id", nargs="?", metavar="ID", help="the report to show: the beginning of its id, or `last`")
    crashes.add_argument("--json", action="store_true", help="print JSON")
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
    where, name = _split(target)
    before = foreground.runs
    namespace = _load(where, arguments)
    if name is None and foreground.runs != before:
        return CLEAN  # the file has run its tree itself
    tree = _find(namespace, where, name)
    tree.run()
    return CLEAN


def _to_reader(command: Callable[[], int]) -> int:
    """Carry out a command whose output may be cut off by its reader (`| head`)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a report may hold characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return CLEAN
    return code


def _crashes(id: str | None, *, as_json: bool) -> int:
    try:
        reports, others = read_reports()
    except OSError as error:
        print(f"suitkaise crashes: {error}", file=sys.stderr)
        return USAGE
    if others:
        files = "1 file is" if others == 1 else f"{others} files are"
        print(f"suitkaise crashes: {files} no crash report, in {crash_directory()}", file=sys.stderr)
    if id is None:
        if as_json:
            print(json.dumps([report.to_dict() for report in reports]))
        elif not reports:
            print(f"no crash reports in {crash_directory()}")
        for report in () if as_json else reports:
            print(report.line())
        return CLEAN
    fitting = reports[-1:] if id == "last" else [report for report in reports if report.id.startswith(id)]
    if len(fitting) != 1:
        trouble = f"{len(fitting)} reports begin with {id!r}" if fitting else f"there is no report {id!r}"
        print(f"suitkaise crashes: {trouble}; `suitkaise crashes` lists them", file=sys.stderr)
        return USAGE
    print(json.dumps(fitting[0].to_dict()) if as_json else fitting[0])
    return CLEAN


def _split(target: str) -> tuple[str, str | None]:
    where, colon, name = target.rpartition(":")
    if not colon or os.sep in name:
        return target, None
    if not name.isidentifier():
        raise _Usage(f"{target!r}: the part behind ':' must be the name of a tree, not {name!r}")
    return where, name


def _load(where: str, arguments: list[str]) -> dict[str, Any]:
    """Execute the file as `python FILE` would, or import the module; errors in it are shown as Python shows them."""
    is_file = where.endswith(".py") or os.sep in where or os.path.isfile(where)
    if is_file and not os.path.isfile(where):
        raise _Usage(f"there is no file {where!r}")
    try:
        if not is_file:
            sys.path.insert(0, os.getcwd())
            sys.argv = [where, *arguments]
            return vars(importlib.import_module(where))
        main_module = types.ModuleType("__main__")
        main_module.__file__ = os.path.abspath(where)
        sys.modules["__main__"] = main_module
        sys.argv = [where, *arguments]
        sys.path.insert(0, os.path.dirname(os.path.realpath(where)))
        with open(where, "rb") as source:
            code = compile(source.read(), os.path.abspath(where), "exec", dont_inherit=True)
        exec(code, vars(main_module))  # noqa: S102  (running the user's program is what this is for)
        return vars(main_module)
    except ModuleNotFoundError as error:
        if not is_file and error.name is not None and (where == error.name or where.startswith(error.name + ".")):
            raise _Usage(f"there is no module {where!r}; for a file, use {where}.py") from None
        raise _broken(where, error) from error
    except (SuitkaiseError, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _broken(where, error) from error


def _broken(where: str, error: BaseException) -> _Usage:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    return _Usage(f"{where!r} cannot be loaded:\n{text.rstrip()}")


def _find(namespace: dict[str, Any], where: str, name: str | None) -> Supervisor:
    trees = {key: value for key, value in namespace.items() if isinstance(value, Supervisor)}
    if name is not None:
        found = namespace.get(name)
        if isinstance(found, Supervisor):
            return found
        got = f"{name!r} is {type(found).__name__}" if name in namespace else f"there is no {name!r}"
        raise _Usage(f"{where!r}: {got}; it has {_listed(trees)}")
    distinct = {id(value): key for key, value in trees.items()}
    if len(distinct) == 1:
        return next(iter(trees.values()))
    held = {id(below) for tree in trees.values() for below in _below(tree)}
    roots = {key: value for key, value in trees.items() if id(value) not in held}
    if len({id(value) for value in roots.values()}) == 1:
        return next(iter(roots.values()))
    if not trees:
        raise _Usage(f"{where!r} has no Supervisor at its top level; declare one: tree = Supervisor('name', ...)")
    raise _Usage(f"{where!r} has several trees, name one: {', '.join(f'{where}:{key}' for key in roots or trees)}")


def _below(tree: Supervisor) -> Iterator[Supervisor]:
    for child in tree.children:
        if isinstance(child.what, Supervisor):
            yield child.what
            yield from _below(child.what)


def _listed(trees: dict[str, Supervisor]) -> str:
    return ", ".join(trees) if trees else "no Supervisor"


def _print_error(error: BaseException) -> None:
    text = "\n".join([f"suitkaise: {type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    if not returns_within(PATIENCE, lambda: print(indented(text), file=sys.stderr)):  # nobody reads it
        shield_streams()


# ---------------------------------------------------------------- output
class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None)
        fields: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields |= event.to_dict() if event is not None else {"event": record.getMessage(), "pid": record.process}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields.pop("at", None)
        return json.dumps(fields, default=str)


class _Human(logging.Formatter):
    """One line for each record; on a terminal (unless NO_COLOR is set) exits are red and starts are green."""

    def __init__(self, *, terminal: bool) -> None:
        clear = "\r\x1b[K" if terminal else ""  # the program may show its progress in this line
        self._coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        time = "\x1b[2m%(asctime)s.%(msecs)03d\x1b[0m" if self._coloured else "%(asctime)s.%(msecs)03d"
        super().__init__(f"{clear}{time} %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as lines of text; those that follow the first are indented, so that none is forged."""
        return super().format(record).replace("\n", "\n    ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that `logging` calls
        """Return the line, coloured."""
        record.message = escaped(record.message, colours=self._coloured)
        colour = self._colour(record) if self._coloured else None
        if colour is not None:
            record.message = f"\x1b[{colour}m{record.message}\x1b[0m"
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that `logging` calls
        """Return the traceback."""
        return escaped(super().formatException(ei))

    @staticmethod
    def _colour(record: logging.LogRecord) -> int | None:
        event = getattr(record, "event", None)
        if isinstance(event, events.ChildExited):
            return _RED if event.reason is None or not event.reason.clean else None
        if record.levelno >= logging.ERROR:
            return _RED
        if record.levelno >= logging.WARNING:
            return _YELLOW
        return _GREEN if isinstance(event, events.ChildStarted) else None


def _configure_logging(*, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(_Json())
    else:
        handler.setFormatter(_Human(terminal=sys.stderr.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

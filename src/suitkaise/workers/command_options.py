"""The options of a command, and their checks: what it runs, as which user, within which limits, with which streams."""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from suitkaise.errors import SpecError
from suitkaise.platform.limits import resource
from suitkaise.records import dataclass, field
from suitkaise.specs.options import checked_flag, is_encodable, is_whole, path_text
from suitkaise.specs.users import User, checked_group, checked_user

__all__ = [
    "Input",
    "KillMode",
    "Limit",
    "Output",
    "ProcessOptions",
    "checked_argv",
    "checked_folder",
    "checked_kill_mode",
    "checked_signal",
    "process_options",
]

KillMode: TypeAlias = Literal["group", "mixed"]
"""Which processes of a command get its stop signal: all of them, or its main process alone."""

Limit: TypeAlias = int | Literal["infinity"]
"""One value of a resource limit."""

Input: TypeAlias = Path | bytes | str | None
"""A command's standard input: nothing, a file, the content itself, or `"inherit"`."""

Output: TypeAlias = Path | str
"""Where standard output or error goes: `"log"`, `"null"`, `"inherit"`, or a file."""

_ENDS_NOTHING = {
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG,
}  # fmt: skip
"""The signals that suspend, resume or tell something. Not SIGWINCH, which Apache's httpd takes as a request to end."""

_STREAM_WORDS = ("log", "null", "inherit")
_OUTPUT_WORDS = ("log", "null")


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What a command's process gets between its fork and its `exec`; None leaves a property as it is."""

    user: User | None = None
    gid: int | None = None
    umask: int | None = None
    nice: int | None = None
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    stdin: Input = None
    stdout: Output = "log"
    stderr: Output = "log"
    tty: bool = False


def checked_argv(argv: tuple[Any, ...]) -> str:
    """Return how errors name the command; raise SpecError unless `argv` is a program and its arguments."""
    if not argv or argv[0] == "":
        raise SpecError("Command: a program is needed, and its arguments one by one: Command('sleep', '5')")
    for argument in argv:
        if not isinstance(argument, str):
            hint = (
                "give them one by one: Command('sleep', '5')" if isinstance(argument, list | tuple) else "use str(...)"
            )
            raise SpecError(f"Command: the program and its arguments must be texts, not {argument!r}; {hint}")
        if "\0" in argument:
            raise SpecError(f"Command: an argument may not hold a null character: {argument!r}")
        if not is_encodable(argument):
            raise SpecError(f"Command: no program can get this argument, which cannot be encoded: {argument!r}")
    if argv[0].endswith("/"):
        raise SpecError(f"Command: {argv[0]!r} ends with '/', and is no program; name the program's file")
    return f"Command {argv[0]!r}"


def checked_signal(title: str, number: Any) -> int:
    if isinstance(number, int) and not isinstance(number, bool) and number in signal.valid_signals() - _ENDS_NOTHING:
        return int(number)
    raise SpecError(f"{title}: stop_signal must be a signal that ends a process, like signal.SIGTERM, not {number!r}")


def checked_kill_mode(title: str, mode: Any) -> KillMode:
    if isinstance(mode, str) and mode in ("group", "mixed"):
        return mode  # type: ignore[return-value]
    raise SpecError(f"{title}: kill_mode must be 'group' or 'mixed', not {mode!r}")


def checked_folder(title: str, cwd: Any) -> str | None:
    if cwd is None:
        return None
    folder = path_text(cwd)
    if folder is None:
        raise SpecError(f"{title}: cwd must be a folder, as text or a Path, not {cwd!r}")
    return folder


def process_options(
    title: str, *, user: Any, group: Any, umask: Any, nice: Any, limits: Any, stdin: Any, stdout: Any, stderr: Any,
    tty: Any,
) -> ProcessOptions:  # fmt: skip
    """Check the options of a command that errors name `title`; raise SpecError about the first one that is wrong."""
    gid = checked_group(title, group)
    if umask is not None and not is_whole(umask, 0, 0o777):
        raise SpecError(f"{title}: umask must be a number from 0 to 0o777, or None, not {umask!r}")
    if nice is not None and not is_whole(nice, -20, 19):
        raise SpecError(f"{title}: nice must be a number from -20 (first) to 19 (last), or None, not {nice!r}")
    checked_flag(title, "tty", tty)
    outputs = {name: _output(title, name, value) for name, value in (("stdout", stdout), ("stderr", stderr))}
    for name, value in outputs.items():
        if tty and value != "log":
            raise SpecError(
                f"{title}: {name}={value!r} and tty=True exclude each other: the output to a terminal goes to the log"
            )
    return ProcessOptions(
        user=None if user is None else checked_user(title, user, gid),
        gid=gid,
        umask=umask,
        nice=nice,
        limits=_limits(title, limits),
        stdin=_input(title, stdin),
        tty=tty,
        **outputs,
    )


def _limits(title: str, limits: Any) -> dict[str, tuple[int, int]]:
    if limits is None:
        return {}
    if not isinstance(limits, Mapping):
        raise SpecError(f"{title}: limits must be a dict like {{'nofile': 4096}}, or None, not {limits!r}")
    names = [name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")]
    checked = {}
    for name, value in limits.items():
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise SpecError(f"{title}: limits has no name {name!r}; {hint}")
        pair = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
        if not all(one == "infinity" or is_whole(one, 0, (1 << 63) - 1) for one in pair):
            takes = "a number >= 0, 'infinity', or (soft, hard) of these"
            raise SpecError(f"{title}: limits[{name!r}] must be {takes}, not {value!r}")
        soft, hard = (resource.RLIM_INFINITY if one == "infinity" else int(one) for one in pair)
        if hard != resource.RLIM_INFINITY and not 0 <= soft <= hard:
            raise SpecError(
                f"{title}: limits[{name!r}]: the soft limit {pair[0]!r} is above the hard limit {pair[1]!r}"
            )
        checked[name] = soft, hard
    return checked


def _input(title: str, stdin: Any) -> Input:
    if isinstance(stdin, str) and stdin.startswith(("/", "./", "../")) and "\n" not in stdin:
        raise SpecError(f"{title}: stdin={stdin!r} looks like a file: use Path({stdin!r}), or bytes if it is the input")
    if isinstance(stdin, str) and stdin in _OUTPUT_WORDS:
        raise SpecError(
            f"{title}: stdin={stdin!r}: {stdin!r} is a word of the output streams; leave stdin out for no input, or "
            f"use bytes if it is the input"
        )
    if isinstance(stdin, str) and not is_encodable(stdin):
        raise SpecError(f"{title}: stdin is a text that cannot be encoded: {stdin!r}; use bytes")
    if isinstance(stdin, Path):
        _check_file(title, "stdin", stdin)
    if stdin is None or isinstance(stdin, (Path, bytes, str)):
        return stdin
    takes = "the Path of a file, the input itself as bytes or text, 'inherit', or None"
    raise SpecError(f"{title}: stdin must be {takes}, not {stdin!r}")


def _output(title: str, name: str, value: Any) -> Output:
    is_file = isinstance(value, Path) or (isinstance(value, str) and os.sep in value)
    if is_file:
        _check_file(title, name, value)
    if is_file or (isinstance(value, str) and value in _STREAM_WORDS):
        return value  # type: ignore[no-any-return]
    takes = "'log', 'null', 'inherit', or a file, as Path or as text with a '/'"
    raise SpecError(f"{title}: {name} must be {takes}, not {value!r}")


def _check_file(title: str, name: str, file: Path | str) -> None:
    path = str(file)
    if "\0" in path or not is_encodable(path):
        raise SpecError(f"{title}: {name}: no file can have this name: {path!r}")

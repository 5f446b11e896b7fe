"""The start of a command's process: its standard streams, and what it does between its fork and its `exec`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import subprocess
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from suitkaise.platform.limits import resource
from suitkaise.platform.processes import die_with_parent
from suitkaise.workers.command_options import ProcessOptions
from suitkaise.workers.output import OutputPipes

__all__ = ["OpenFile", "leave_input", "start"]

OpenFile: TypeAlias = Callable[[str, int, int], int]
"""Opens a file, as `os.open` does."""

_ROWS_AND_COLUMNS = 24, 80
_ALIASES = 5  # the major number of terminals that are others when they are opened again: /dev/tty, /dev/ptmx
_ELF = b"\x7fELF"  # the first bytes of a program


def start(
    argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None, options: ProcessOptions, output: OutputPipes,
    open_file: OpenFile = os.open,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start the program in a session of its own; what is to be read of its output goes to `output`.

    Raises:
        OSError: it cannot be started: no such program, folder or file, or the rights are missing for an option. The
            text names what is wrong.
    """
    with contextlib.ExitStack() as ours:
        streams = _Streams(ours, options, cwd, output, open_file)
        groups = _groups_of(options)
        report, told = os.pipe2(os.O_CLOEXEC)
        for descriptor in (report, told):
            ours.callback(os.close, descriptor)
        try:
            return subprocess.Popen(
                argv, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr, bufsize=0,
                env=env, cwd=cwd, start_new_session=True,
                preexec_fn=lambda: _prepare(options, groups, told),  # noqa: PLW1509  (the guard's other thread only waits)
            )  # fmt: skip
        except OSError as error:
            raise _explained(error, argv, env, cwd) from None
        except subprocess.SubprocessError:  # `_prepare` has failed
            number, _, what = os.read(report, 4096).decode("utf-8", "replace").partition(" ")
            raise OSError(int(number), f"{os.strerror(int(number))}: {what}", argv[0]) from None


def leave_input() -> None:
    """Leave the program's standard input to the command: what a `ready` function starts does not read it."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)


class _Streams:
    """The arguments of `Popen` for the standard streams. What is opened for the process is closed with `ours`."""

    def __init__(
        self, ours: contextlib.ExitStack, options: ProcessOptions, cwd: str | None, pipes: OutputPipes,
        open_file: OpenFile,
    ) -> None:  # fmt: skip
        self._ours = ours
        self._pipes = pipes
        self._open_file = open_file
        self._folder = cwd or os.curdir
        terminal: int | None = None
        if options.tty:
            controller, terminal = os.openpty()
            ours.callback(os.close, terminal)
            pipes.add_terminal("stdout", controller)
            termios.tcsetwinsize(terminal, _ROWS_AND_COLUMNS)
        self.stdin: int | None = self._input(options, terminal)
        self.stdout: int | None = terminal if options.tty else self._output("stdout", options.stdout)
        self.stderr: int | None = terminal if options.tty else self._output("stderr", options.stderr)

    def _input(self, options: ProcessOptions, terminal: int | None) -> int | None:
        match options.stdin:
            case "inherit":
                return self._inherited(0)
            case None:
                return subprocess.DEVNULL if terminal is None else terminal
            case Path() as file:
                return self._opened("stdin", file, os.O_RDONLY)
            case content:
                # A file in memory, not a pipe: it takes any size at once, so that nobody has to feed the process.
                descriptor = os.memfd_create("stdin")
                self._ours.callback(os.close, descriptor)
                with open(descriptor, "wb", closefd=False) as memory:
                    memory.write(os.fsencode(content))
                os.lseek(descriptor, 0, os.SEEK_SET)
                return descriptor

    def _output(self, name: str, where: Path | str) -> int | None:
        match where:
            case "log":
                return self._pipes.open(name)
            case "null":
                return subprocess.DEVNULL
            case "inherit":
                return self._inherited(1 if name == "stdout" else 2)
        return self._opened(name, where, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _inherited(self, descriptor: int) -> int | None:
        """Open the program's pipe or terminal once more; None where that cannot be done, so that the stream is shared.

        A command that makes a stream non-blocking, as `node` and `ssh` do, makes it so for all that share it: the
        program would lose lines of its log.
        """
        with contextlib.suppress(OSError):  # it has no reader, is another user's, or is closed
            about = os.fstat(descriptor)
            if not stat.S_ISFIFO(about.st_mode) and (not os.isatty(descriptor) or os.major(about.st_rdev) == _ALIASES):
                return None
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
            own = os.open(f"/proc/self/fd/{descriptor}", mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            self._ours.callback(os.close, own)
            os.set_blocking(own, True)
            return own
        return None

    def _opened(self, name: str, file: Path | str, flags: int) -> int:
        path = os.path.join(self._folder, file)
        try:
            descriptor = self._open_file(path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
        except OSError as error:
            raise type(error)(error.errno, f"{name}: {error.strerror}", path) from None
        self._ours.callback(os.close, descriptor)
        return descriptor


def _groups_of(options: ProcessOptions) -> list[int]:
    """Return all groups of the user to run as."""
    user = options.user
    if user is None:
        return []
    return [user.gid] if user.name is None else os.getgrouplist(user.name, user.gid)


def _as_given(limit: tuple[int, int]) -> object:
    """Return a resource limit as the user may have written it."""
    soft, hard = ("infinity" if one == resource.RLIM_INFINITY else one for one in limit)
    return soft if soft == hard else (soft, hard)


def _prepare(options: ProcessOptions, groups: list[int], told: int) -> None:
    """In the forked process: apply the options; write the option that failed to `told`."""
    doing = ""
    try:
        if options.tty:
            doing = "tty=True"
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)
        for name, limit in options.limits.items():
            doing = f"limits: {name}={_as_given(limit)}"
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), limit)
        if options.nice is not None:
            doing = f"nice={options.nice}"
            os.setpriority(os.PRIO_PROCESS, 0, options.nice)
        if options.umask is not None:
            os.umask(options.umask)
        user, gid = options.user, options.gid
        if user is not None and (user.uid, user.gid) == (os.getuid(), os.getgid()):
            user = gid = None  # it is this user already, who needs no rights for that
        if user is not None:
            doing = f"user={user.name or user.uid!r}: only root may start a command as another user"
            for descriptor, where in ((1, options.stdout), (2, options.stderr)):
                if where == "log":  # the command's own pipe or terminal, which it may open again, as /dev/stdout
                    os.fchown(descriptor, user.uid, -1)
            os.setgroups(groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        elif gid is not None and gid != os.getgid():
            doing = f"group={gid}: only root may start a command in another group"
            os.setresgid(gid, gid, gid)
        die_with_parent()  # last: the kernel forgets that when the user changes
    except Exception as error:
        number = getattr(error, "errno", None) or errno.EPERM  # `resource` raises ValueError where it is not permitted
        os.write(told, f"{number} {doing}".encode())
        raise


def _file_of(program: str, env: Mapping[str, str], cwd: str | None) -> str:
    """Return the file that was to be executed, or else one of that name in the PATH; empty if there is none."""
    if "/" in program:
        return os.path.join(cwd or "", program)
    path = env.get("PATH", os.defpath)
    return shutil.which(program, path=path) or shutil.which(program, os.F_OK, path) or ""


def _flaw_of(file: str, number: int | None) -> str | None:
    """Return why the kernel has refused to execute the file, with this error; None if the error tells it all."""
    first = b""
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        first = opened.readline(1000)
    interpreter = None
    if first.startswith(b"#!"):
        interpreter = os.fsdecode(first[2:].strip(b" \t\n").partition(b" ")[0])
    match number:
        case errno.ENOENT if interpreter and not os.path.exists(interpreter):
            return f"its first line names {interpreter!r} as its interpreter, and there is no such file"
        case errno.ENOENT if interpreter:
            return f"its first line names {interpreter!r} as its interpreter, and what that needs is missing"
        case errno.ENOENT if first.startswith(_ELF):
            return "the loader that it needs is missing: it was built for another system"
        case errno.EACCES if os.path.isdir(file):
            return "it is a folder"
        case errno.EACCES if _is_not_executable(file):
            return "the file is not executable"
        case errno.EACCES if interpreter and _is_not_executable(interpreter):
            return f"its first line names {interpreter!r} as its interpreter, which is not executable"
        case errno.ENOEXEC if first.startswith(_ELF):
            return "it is a program for another kind of machine"
        case errno.ENOEXEC if interpreter is not None:
            return "its first line names no interpreter"
        case errno.ENOEXEC:
            return "it is no program, and no script: its first line does not begin with '#!'"
    return None


def _is_not_executable(file: str) -> bool:
    try:
        return os.path.isdir(file) or not os.stat(file).st_mode & 0o111
    except OSError:
        return False


def _explained(error: OSError, argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> OSError:
    """Return the error with a text that names the program or the folder, and the path that was searched."""
    if cwd is not None and error.filename == cwd:
        return type(error)(error.errno, f"cwd: {error.strerror}", cwd)
    text, program = error.strerror or "it cannot be started", argv[0]
    file = _file_of(program, env, cwd)
    flaw = _flaw_of(file, error.errno)
    if flaw is not None:
        text = flaw if isinstance(error, FileNotFoundError) else f"{flaw} ({text})"
        program = program if "/" in program else file
    elif isinstance(error, FileNotFoundError) and "/" not in program and not file:
        text = f"no such program in PATH ({env.get('PATH', os.defpath)})"
        if len(argv) == 1 and " " in program:
            text += "; a command's arguments are given one by one: Command('sleep', '5')"
    return type(error)(error.errno, text, program)

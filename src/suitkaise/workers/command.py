"""External programs as children of a supervisor.

A command runs below a small worker process, its guard, which has the life cycle, the mailbox and the limits of any
worker. The guard adopts the processes that the command leaves behind, and kills them before the guard ends. If the
guard is killed, the keeper that has forked the guard kills those processes before it reports the guard's exit.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Never

from suitkaise.errors import SpecError
from suitkaise.exits import ExitCode, ExitReason, Normal, Signaled
from suitkaise.messaging.logs import OUTPUT
from suitkaise.platform.processes import MARK, become_subreaper
from suitkaise.specs.options import checked_env, refuse_unknown
from suitkaise.workers.command_process import Program
from suitkaise.workers.incarnation import ExitWith
from suitkaise.workers.readiness import Probing, Readiness, check_ready, pattern_of, probe_of
from suitkaise.workers.worker import Worker

__all__ = ["Command"]

_logger = logging.getLogger("suitkaise.worker")


class Command(Worker):
    """An external program as a child: `Supervisor("app", Command("redis-server", "--port", "6379", ready=6379))`.

    The command gets a session of its own, and no input. Its output goes line by line to the logger `suitkaise.worker`
    (level INFO; the records have `path` and `stream`), and a crash report shows the last lines. A line of more than
    16,384 bytes is split. A command that writes faster than the guard reads is blocked by its full pipe.

    The exit reason is `Normal` (exit code 0), `ExitCode(n)` or `Signaled(n)`; the result is the exit code. A command
    should stay in the foreground: when it has ended, all processes that it has started and left behind are killed, in
    whatever session they are, and the next incarnation starts after that. `suspend` stops the command's process group
    (SIGSTOP), `resume` continues it. A command takes no messages.

    A stop sends `stop_signal` to the process group. A command that has not ended `shutdown` seconds later is killed
    (`Child`'s option, default 5.0; rule 42). An exit by that signal, or with code 0 or 128 + its number, is then a
    clean end.

    Args:
        argv: the program and its arguments, one text each; no shell is involved. A program without a `/` is looked up
            in the `PATH` of the command's environment.
        ready: the sign that the command is up, which ends the start (`on_start`, rule 1): a line of output that matches
            a regular expression (text or `re.Pattern`, searched in stdout and stderr), an answer on a TCP port of
            127.0.0.1 (a number; `(host, port)` for another host), an answer on a Unix socket (a `pathlib.Path`,
            relative to `cwd`), or a true value of a function (called again and again in a thread of the guard process;
            an `OSError` means not yet, any other exception is a failed start). Default: the command has been started.
            A command that ends before it is ready has failed to start; `Child(..., start_timeout=)` limits the wait.
        stop_signal: the number of a signal; default: SIGTERM.
        env: variables to add to the environment.
        cwd: the command's working folder; default: that of the program.
        name: the child's id; default: the name of the program's file.

    Raises:
        SpecError: an argument is wrong (rule 5). A program that does not exist is found at the start, which then fails
            with `Crashed("on_start", FileNotFoundError(...))`.

    >>> from suitkaise import Supervisor
    >>> print(Supervisor("app", Command("/usr/bin/redis-server", "--port", "6379", ready=6379)))
    app  supervisor, one_for_one, 3 restarts in 5 s
    └─ redis-server  command, permanent: /usr/bin/redis-server --port 6379
    """

    _worker_kind: ClassVar[Literal["command"]] = "command"

    def __init__(
        self,
        *argv: str,
        ready: Readiness = None,
        stop_signal: int = signal.SIGTERM,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        title = _checked_argv(argv)
        refuse_unknown(title, unknown, ("ready", "stop_signal", "env", "cwd", "name"))
        check_ready(title, ready)
        super().__init__(argv[0].rpartition("/")[2] if name is None else name)
        self._argv = argv
        self._ready = ready
        self._stop_signal = _checked_signal(title, stop_signal)
        self._env = checked_env(title, env)
        self._cwd = _checked_folder(title, cwd)

    def __init_subclass__(cls, **options: Any) -> None:
        raise SpecError(f"{cls.__name__}: Command cannot be derived from; make an instance: Command('sleep', '5')")

    def __repr__(self) -> str:
        return f"Command({', '.join(map(repr, self._argv))})"

    # ------------------------------------------------------------ hooks, in the guard process
    def on_start(self) -> None:
        """Start the command and wait until it is ready."""
        context = self._context = self._require_context("on_start")
        become_subreaper()
        context.handle_suspension()
        self._paused = False
        self._awaited = pattern_of(self._ready)
        environment = {**os.environ, **self._env, MARK: f"{os.environ[MARK]}:{context.owner}"}
        self._program = Program(self._argv, environment, self._cwd, self._handle_line)
        context.report_pid(self._program.pid)
        probe = probe_of(self._ready, self._cwd or os.curdir)
        if probe is not None:
            self._await_probe(Probing(probe))
        while self._awaited is not None:
            self._wait()
            self._exit_if_over()

    def _await_probe(self, probing: Probing) -> None:
        try:
            while not probing.ready:
                self._wait(probing.descriptor)
                self._exit_if_over()
                if probing.error is not None:
                    raise probing.error
        finally:
            probing.stop()

    def loop(self) -> None:
        """Wait for output, for the exit of the command, or for a request."""
        self._wait()
        self._exit_if_over()

    def on_finish(self) -> None:
        """Stop the command."""
        self._program.stop(self._stop_signal)
        code = self._program.clean_up()
        self._code = code
        if code not in (0, -self._stop_signal, 128 + self._stop_signal):
            raise ExitWith(_reason_of(code))

    def result(self) -> int:
        """Return the exit code; -n after the signal n."""
        return self._code

    def _wait(self, *others: int) -> None:
        """Wait until there is something to do, and handle the output that the command writes meanwhile."""
        context = self._context

        def wait(*wake: int) -> None:
            if context.suspended is not self._paused:
                self._paused = context.suspended
                self._program.signal(signal.SIGSTOP if self._paused else signal.SIGCONT)
            self._program.wait(context.seconds_left, *wake, *others)

        context.wait_in(wait, for_messages=not context.starting)

    def _exit_if_over(self) -> None:
        """End this worker if the command has ended, or if a stop was requested before the command is ready."""
        program, context = self._program, self._context
        if program.code is not None:
            code = program.clean_up()
            raise ExitWith(_reason_of(code), code)
        if context.starting and context.stop_reason is not None:
            program.stop(self._stop_signal)
            raise ExitWith(context.stop_reason, program.clean_up())

    def _handle_line(self, stream: str, line: str) -> None:
        if self._awaited is not None and self._awaited.search(line):
            self._awaited = None
        self._context.append_output(f"{stream}: {line}\n")
        if _logger.isEnabledFor(logging.INFO):
            path = self._context.path
            record = _logger.makeRecord(
                _logger.name, logging.INFO, self._argv[0], 0, "%s %s: %s", (path, stream, line), None,
                extra={OUTPUT: {"path": path, "stream": stream}},
            )  # fmt: skip
            record.process = self._context.pid
            _logger.handle(record)


def _reason_of(code: int) -> ExitReason:
    return Normal() if code == 0 else Signaled(-code) if code < 0 else ExitCode(code)


def _checked_argv(argv: tuple[Any, ...]) -> str:
    """Return how errors name the command; raise SpecError unless `argv` is a program and its arguments."""
    if not argv or argv[0] == "":
        raise SpecError("Command: a program is needed, and its arguments one by one: Command('sleep', '5')")
    for argument in argv:
        if not isinstance(argument, str):
            raise SpecError(f"Command: the program and its arguments must be texts, not {argument!r}; use str(...)")
        if "\0" in argument:
            raise SpecError(f"Command: an argument may not hold a null character: {argument!r}")
    return f"Command {argv[0]!r}"


def _checked_signal(title: str, number: Any) -> int:
    ending = signal.valid_signals() - {signal.SIGSTOP, signal.SIGCONT}
    if isinstance(number, int) and not isinstance(number, bool) and number in ending:
        return int(number)
    raise SpecError(f"{title}: stop_signal must be a signal that ends a process, like signal.SIGTERM, not {number!r}")


def _checked_folder(title: str, cwd: Any) -> str | None:
    if cwd is None:
        return None
    folder = os.fspath(cwd) if isinstance(cwd, (str, os.PathLike)) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise SpecError(f"{title}: cwd must be a folder, as text or a Path, not {cwd!r}")
    return folder

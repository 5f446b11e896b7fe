"""Any program as a child of a supervisor.

It runs below a small worker process of ours, its guard, which has the life, the mailbox and the limits of any
worker. The guard adopts whatever the command leaves behind, and ends it before it ends itself. If the guard is
killed, the keeper that it was forked by does the same before it tells of that end.
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
from suitkaise.specs.options import refuse_unknown
from suitkaise.workers.command_process import Program
from suitkaise.workers.incarnation import ExitWith
from suitkaise.workers.readiness import Probing, Ready, check_ready, pattern_of, probe_of
from suitkaise.workers.worker import Worker

__all__ = ["Command"]

_logger = logging.getLogger("suitkaise.worker")


class Command(Worker):
    """An external program as a child: `Supervisor("app", Command("redis-server", "--port", "6379", ready=6379))`.

    It gets a session of its own, and no input. What it writes goes line by line to the logger `suitkaise.worker`
    (level INFO; the records have `path` and `stream`), and a crash report shows the last lines. A line of more than
    16,384 bytes comes in pieces, and a command that writes faster than it is read has to wait.

    It ends with `Normal` (exit code 0), `ExitCode(n)` or `Signaled(n)`; its result is its exit code. It should stay in
    the foreground: when it has ended, whatever it has started and left behind is killed, in whatever session that is,
    and the next incarnation starts after that. `suspend` stops its process group (SIGSTOP), `resume` lets it go on. It
    takes no messages.

    To stop it, its process group is sent `stop_signal`. Who has not ended `shutdown` seconds later is killed (`Child`'s
    option, default 5.0; rule 42). An exit by that signal, or with code 0 or 128 + its number, is a clean end then.

    Args:
        argv: the program and its arguments, each by itself; there is no shell. A program without a `/` is looked
            for in the `PATH` that the command will have.
        ready: how to know that it is up; its start is over (`on_start`, rule 1) when a line of its output matches a
            regular expression (text or `re.Pattern`, searched in stdout and stderr), 127.0.0.1 answers on a TCP port
            (a number; `(host, port)` for another host), a Unix socket answers (a `pathlib.Path`, relative to `cwd`), or
            a function returns something true (called again and again in a thread of the guard process; an `OSError`
            means not yet, any other exception is a failed start). Default: when it is there. A command that ends
            before it is ready has failed to start; `Child(..., start_timeout=)` limits the wait.
        stop_signal: default SIGTERM.
        env: variables to be added to the environment.
        cwd: the folder it runs in; default: the program's.
        name: the child's id; default: the name of the program's file.

    Raises:
        SpecError: an argument is wrong (rule 5). That the program exists is found out when it is started: if it
            does not, the start fails with `Crashed("on_start", FileNotFoundError(...))`.

    >>> from suitkaise import Supervisor
    >>> print(Supervisor("app", Command("/usr/bin/redis-server", "--port", "6379", ready=6379)))
    app  supervisor, one_for_one, 3 restarts in 5 s
    └─ redis-server  command, permanent: /usr/bin/redis-server --port 6379
    """

    _worker_kind: ClassVar[Literal["command"]] = "command"

    def __init__(
        self,
        *argv: str,
        ready: Ready = None,
        stop_signal: int = signal.SIGTERM,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        who = _checked_argv(argv)
        refuse_unknown(who, unknown, ("ready", "stop_signal", "env", "cwd", "name"))
        check_ready(who, ready)
        super().__init__(argv[0].rpartition("/")[2] if name is None else name)
        self._argv = argv
        self._ready = ready
        self._stop_signal = _checked_signal(who, stop_signal)
        self._env = _checked_env(who, env)
        self._cwd = _checked_folder(who, cwd)

    def __init_subclass__(cls, **options: Any) -> None:
        raise SpecError(f"{cls.__name__}: Command is not to be derived from; build one: Command('sleep', '5')")

    def __repr__(self) -> str:
        return f"Command({', '.join(map(repr, self._argv))})"

    # ------------------------------------------------------------ hooks (they run in the guard)
    def on_start(self) -> None:
        """Start the program, and wait until it is ready."""
        context = self._guard = self._require_context("on_start")
        become_subreaper()
        context.handle_suspension()
        self._paused = False
        self._awaited = pattern_of(self._ready)
        environment = {**os.environ, **self._env, MARK: f"{os.environ[MARK]}:{context.owner}"}
        self._program = Program(self._argv, environment, self._cwd, self._hear)
        context.report_pid(self._program.pid)
        probe = probe_of(self._ready, self._cwd or os.curdir)
        if probe is not None:
            self._await_probe(Probing(probe))
        while self._awaited is not None:
            self._turn()
            self._end_if_over()

    def _await_probe(self, probing: Probing) -> None:
        try:
            while not probing.ready:
                self._turn(probing.descriptor)
                self._end_if_over()
                if probing.error is not None:
                    raise probing.error
        finally:
            probing.stop()

    def loop(self) -> None:
        """Wait for output, the command's end, or an order."""
        self._turn()
        self._end_if_over()

    def on_finish(self) -> None:
        """Stop the command."""
        self._program.stop(self._stop_signal)
        code = self._program.end()
        self._code = code
        if code not in (0, -self._stop_signal, 128 + self._stop_signal):
            raise ExitWith(_reason_of(code))

    def result(self) -> int:
        """The exit code; -n if signal n has ended it."""
        return self._code

    def _turn(self, *others: int) -> None:
        """Wait until there is something to do, and take in what the command writes meanwhile."""
        guard = self._guard

        def wait(*wake: int) -> None:
            if guard.suspended is not self._paused:
                self._paused = guard.suspended
                self._program.signal(signal.SIGSTOP if self._paused else signal.SIGCONT)
            self._program.turn(guard.seconds_left, *wake, *others)

        guard.wait_in(wait, for_messages=not guard.starting)

    def _end_if_over(self) -> None:
        """End together with the command; and at once where it is to be stopped before it is ready."""
        program, guard = self._program, self._guard
        if program.code is not None:
            code = program.end()
            raise ExitWith(_reason_of(code), code)
        if guard.starting and guard.stop_reason is not None:
            program.stop(self._stop_signal)
            raise ExitWith(guard.stop_reason, program.end())

    def _hear(self, stream: str, line: str) -> None:
        if self._awaited is not None and self._awaited.search(line):
            self._awaited = None
        self._guard.append_output(f"{stream}: {line}\n")
        if _logger.isEnabledFor(logging.INFO):
            path = self._guard.path
            record = _logger.makeRecord(
                _logger.name, logging.INFO, self._argv[0], 0, "%s %s: %s", (path, stream, line), None,
                extra={OUTPUT: {"path": path, "stream": stream}},
            )  # fmt: skip
            record.process = self._guard.pid
            _logger.handle(record)


def _reason_of(code: int) -> ExitReason:
    return Normal() if code == 0 else Signaled(-code) if code < 0 else ExitCode(code)


def _checked_argv(argv: tuple[Any, ...]) -> str:
    """Who it is, for the errors; raises SpecError unless it is a program and its arguments."""
    if not argv or argv[0] == "":
        raise SpecError("Command: a program is needed, and its arguments one by one: Command('sleep', '5')")
    for argument in argv:
        if not isinstance(argument, str):
            raise SpecError(f"Command: the program and its arguments must be texts, not {argument!r}; say str(...)")
        if "\0" in argument:
            raise SpecError(f"Command: an argument may not hold a null character: {argument!r}")
    return f"Command {argv[0]!r}"


def _checked_signal(who: str, number: Any) -> int:
    ending = signal.valid_signals() - {signal.SIGSTOP, signal.SIGCONT}
    if isinstance(number, int) and not isinstance(number, bool) and number in ending:
        return int(number)
    raise SpecError(f"{who}: stop_signal must be a signal that ends a process, like signal.SIGTERM, not {number!r}")


def _checked_env(who: str, env: Any) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise SpecError(f"{who}: env must be a dict of texts, or None, not {env!r}")
    for name, value in env.items():
        fine = isinstance(name, str) and isinstance(value, str) and name and "=" not in name
        if not fine or "\0" in name + value:
            raise SpecError(f"{who}: env must map names to texts, not {name!r} to {value!r}")
    return dict(env)


def _checked_folder(who: str, cwd: Any) -> str | None:
    if cwd is None:
        return None
    folder = os.fspath(cwd) if isinstance(cwd, (str, os.PathLike)) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise SpecError(f"{who}: cwd must be a folder, as text or a Path, not {cwd!r}")
    return folder

"""External programs as children of a supervisor.

A command runs below a small worker process, its guard, which has the life cycle, the mailbox and the limits of any
worker. The guard adopts the processes that the command leaves behind, and kills them before the guard ends. If the
guard is killed, the keeper that has forked the guard kills those processes before it reports the guard's exit.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar, Literal, Never

from suitkaise.errors import SpecError
from suitkaise.exits import ExitCode, ExitReason, Normal, Signaled
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.descriptors import await_readable
from suitkaise.platform.listeners import name_of
from suitkaise.platform.processes import MARK, become_subreaper
from suitkaise.platform.tail import OF_COMMAND, RECORDED
from suitkaise.specs.child import OPTIONS_OF_CHILD
from suitkaise.specs.options import checked_env, refuse_unknown
from suitkaise.workers.command_options import (
    Input,
    KillMode,
    Limit,
    Output,
    checked_argv,
    checked_folder,
    checked_kill_mode,
    checked_signal,
    process_options,
)
from suitkaise.workers.command_process import Program
from suitkaise.workers.command_start import leave_input
from suitkaise.workers.incarnation import ExitWith
from suitkaise.workers.output import Runs
from suitkaise.workers.readiness import Probing, Readiness, check_ready, described, pattern_of, probe_of
from suitkaise.workers.worker import Worker

__all__ = ["Command"]

_OPTIONS = ("ready", "stop_signal", "kill_mode", "env", "cwd", "user", "group", "umask", "nice", "limits", "stdin",
            "stdout", "stderr", "tty", "name")  # fmt: skip

STILL_WAITS = 10.0
"""Seconds after which a command that is not ready tells what it waits for."""

_NAMED = 3
"""How many of the processes that a daemon leaves behind are named."""

_logger = logging.getLogger("suitkaise.worker")


class Command(Worker):
    """An external program as a child: `Supervisor("app", Command("redis-server", "--port", "6379", ready=6379))`.

    The command gets a session of its own. Its output goes line by line to the logger `suitkaise.worker` (level INFO;
    the records have `path` and `stream`), and a crash report shows the last lines. A line of more than 16,384 bytes is
    split. A command that writes faster than the guard reads is blocked by its full pipe.

    The exit reason is `Normal` (exit code 0), `ExitCode(n)` or `Signaled(n)`; the result is the exit code. A command
    should stay in the foreground: when it has ended, all processes that it has started and left behind are killed, in
    whatever session they are, and the next incarnation starts after that. Those that end meanwhile are reaped (rule
    77). `suspend` stops all processes of the command (SIGSTOP), `resume` continues them. A command takes no messages.

    A stop sends `stop_signal` to all processes of the command, in whatever group or session they are (rule 74). Those
    that have not ended `shutdown` seconds later are killed (`Child`'s option, default 5.0; rule 42). An exit by that
    signal, or with code 0 or 128 + its number, is then a clean end.

    Args:
        argv: the program and its arguments, one text each; no shell is involved. A program without a `/` is looked up
            in the `PATH` of the command's environment.
        ready: the sign that the command is up, which ends the start (`on_start`, rule 1):

            - a text: a line of output holds it, or it is a regular expression that matches (`re.Pattern`: matches);
            - a number: an answer on this TCP port of 127.0.0.1; `(host, port)` for another address;
            - a `pathlib.Path`, relative to `cwd`: an answer on this Unix socket;
            - a function: a true value. It is called again and again in a thread of the guard process; an `OSError`
              means not yet, any other exception is a failed start.

            A port or socket of this machine counts only if a process of the command listens there. Default: the command
            has been started. A command that ends before it is ready has failed to start. `Child(..., start_timeout=)`
            limits the wait; after 10 s the log tells what the command waits for.
        stop_signal: the number of a signal that asks a process to end; default: SIGTERM.
        kill_mode: `"group"` (default): all processes of the command get the stop signal, and the `shutdown` time.
            `"mixed"`: only the main process gets the signal; when it has ended, what is left is killed. For a program
            that stops its own workers.
        env: variables to add to the program's environment.
        cwd: the command's working folder; default: that of the program.
        user: the name or number of the user to run as, with all groups of that user, and USER, LOGNAME, HOME and SHELL
            unless `env` has them. Needs root.
        group: the name or number of the group to run in, instead of the user's main group. Needs root.
        umask: the file mode creation mask, as `0o027`.
        nice: the priority, from -20 (needs root) to 19.
        limits: resource limits by their names in `resource`, as `{"nofile": 4096}`: a number or `"infinity"` for both
            limits, or `(soft, hard)`. Raising a hard limit needs root.
        stdin: None (default: no input), a `Path` to read from, the input itself as bytes or text, or `"inherit"`: the
            program's standard input. The words `"log"` and `"null"` are refused, which only output streams know.
        stdout, stderr: `"log"` (default), `"null"`, `"inherit"`: the program's own, or a file to append to, as `Path`
            or as text with a `/`, relative to `cwd`. What goes elsewhere than to the log costs the program nothing, and
            no crash report shows it.
        tty: whether the command gets a terminal (80 x 24) as its standard streams: programs then write each line at
            once, and stdout and stderr are one stream in the order of writing. Its input stays open and silent.
        name: the child's id; default: the name of the program's file.

    Raises:
        SpecError: an argument is wrong (rule 5). A program that does not exist, or a right that is missing, is found at
            the start, which then fails with `Crashed("on_start", FileNotFoundError(...))`.

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
        kill_mode: KillMode = "group",
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        umask: int | None = None,
        nice: int | None = None,
        limits: Mapping[str, Limit | tuple[Limit, Limit]] | None = None,
        stdin: Input = None,
        stdout: Output = "log",
        stderr: Output = "log",
        tty: bool = False,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        title = checked_argv(argv)
        refuse_unknown(title, unknown, _OPTIONS, OPTIONS_OF_CHILD)
        check_ready(title, ready)
        super().__init__(argv[0].rpartition("/")[2] if name is None else name)
        self._argv = argv
        self._ready = ready
        self._stop_signal = checked_signal(title, stop_signal)
        self._kill_mode = checked_kill_mode(title, kill_mode)
        self._env = checked_env(title, env)
        self._cwd = checked_folder(title, cwd)
        self._options = process_options(
            title, user=user, group=group, umask=umask, nice=nice, limits=limits, stdin=stdin, stdout=stdout,
            stderr=stderr, tty=tty,
        )  # fmt: skip
        if pattern_of(ready) is not None and "log" not in (stdout, stderr):
            raise SpecError(f"{title}: ready={ready!r} waits for a line of output, but stdout and stderr are not 'log'")

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
        self._warn_at: float | None = None
        self._probing: Probing | None = None
        self._awaited = pattern_of(self._ready)
        self._last_line: str | None = None  # before the awaited one
        own = {} if self._options.user is None else self._options.user.environment
        environment = {**os.environ, **own, **self._env, MARK: f"{os.environ[MARK]}:{context.owner}"}
        self._program = Program(
            self._argv, environment, self._cwd, self._handle_line, self._handle_output, context.output, self._options,
            self._open,
        )  # fmt: skip
        leave_input()
        context.report_pid(self._program.pid)
        if self._ready is not None:
            self._await_readiness()

    def _open(self, path: str, flags: int, mode: int) -> int:
        """Open the file of a standard stream, or end this worker if a stop was requested before a FIFO is open."""
        opened: Future[int] = OwnFuture()

        def open_file() -> bool:
            try:
                opened.set_result(os.open(path, flags, mode))
            except OSError as error:
                opened.set_exception(error)
            return True

        opening = Probing(open_file)  # in a thread: a FIFO is open only when its other end is
        while not opened.done():
            self._context.wait_in(partial(await_readable, opening.descriptor), for_messages=False)
            if self._context.stop_reason is not None:
                raise ExitWith(self._context.stop_reason)
        return opened.result()

    def _await_readiness(self) -> None:
        self._warn_at = time.monotonic() + STILL_WAITS
        probe = probe_of(self._ready, self._cwd or os.curdir)
        self._probing = None if probe is None else Probing(probe)
        context = self._context
        context.add_to_stacks(lambda: f"The command is not ready: {self._missing()}\n" if context.starting else "")
        if self._probing is not None:
            self._await_probe(self._probing)
        while self._awaited is not None:
            self._wait()
            self._exit_if_over()
            self._warn_if_late()
        self._warn_at = None

    def _await_probe(self, probing: Probing) -> None:
        told = False
        try:
            while not probing.ready:
                self._wait(probing.descriptor)
                probing.acknowledge()
                self._exit_if_over()
                if probing.error is not None:
                    raise probing.error
                if probing.held and not told:
                    told = True
                    self._warn(f"{probing.held}, which the command has not started; waiting for the command's own")
                self._warn_if_late()
        finally:
            probing.stop()

    def _warn_if_late(self) -> None:
        if self._warn_at is not None and time.monotonic() >= self._warn_at:
            self._warn_at = None
            self._warn(
                f"not ready after {STILL_WAITS:.3g} s: {self._missing()}; Child(..., start_timeout=) limits the wait"
            )

    def _missing(self) -> str:
        """Tell what the command waits for, and the last reason why that is not there."""
        refusal: object
        if self._probing is not None:
            refusal = self._probing.refusal
        else:
            refusal = "it has written none" if self._last_line is None else f"its last line is {self._last_line!r}"
        return f"it waits for {described(self._ready)}" + (f" ({refusal})" if refusal else "")

    def _warn(self, text: str) -> None:
        path = self._context.path
        _logger.warning("%s: %s", path, text, extra={"path": path})

    def loop(self) -> None:
        """Wait for output, for the exit of the command, or for a request."""
        self._wait()
        self._exit_if_over()

    def on_finish(self) -> None:
        """Stop the command."""
        self._stop()
        code = self._program.clean_up()
        self._code = code
        if not self._is_answer(code):
            raise ExitWith(_reason_of(code))

    def result(self) -> int:
        """Return the exit code; -n after the signal n."""
        return self._code

    def _stop(self) -> None:
        self._program.stop(self._stop_signal, main_only=self._kill_mode == "mixed")

    def _wait(self, *others: int) -> None:
        """Wait until there is something to do, and handle the output that the command writes meanwhile."""
        context = self._context

        def wait(*wake: int) -> None:
            if context.suspended is not self._paused:
                self._paused = context.suspended
                self._program.signal(signal.SIGSTOP if self._paused else signal.SIGCONT)
            limits = [context.seconds_left]
            if self._warn_at is not None:
                limits.append(self._warn_at - time.monotonic())
            self._program.wait(min((one for one in limits if one is not None), default=None), *wake, *others)

        context.wait_in(wait, for_messages=not context.starting)

    def _exit_if_over(self) -> None:
        """End this worker if the command has ended, or if a stop was requested before the command is ready.

        Both the command and this process may have got SIGTERM, and the command may have ended first.
        """
        program, context = self._program, self._context
        if program.code is not None:
            asked = context.stop_reason
            if program.code == 0 and asked is None:
                self._warn_if_daemon(program.left_behind())
            code = program.clean_up()
            raise ExitWith(asked if asked is not None and self._is_answer(code) else _reason_of(code), code)
        if context.starting and context.stop_reason is not None:
            self._stop()
            raise ExitWith(context.stop_reason, program.clean_up())

    def _warn_if_daemon(self, left: list[int]) -> None:
        if left:
            many = f"{len(left)} processes" if len(left) > 1 else "a process"
            names = ", ".join(map(name_of, left[:_NAMED])) + (", ..." if len(left) > _NAMED else "")
            self._warn(
                f"the command has ended and has left {many} behind, now killed: {names}; let it stay in the foreground"
            )

    def _is_answer(self, code: int) -> bool:
        """Return whether the command ends so when it is asked to stop."""
        return code in (0, -self._stop_signal, 128 + self._stop_signal)

    def _handle_line(self, stream: str, line: str) -> None:
        if self._awaited is not None:
            self._last_line = line
            if self._awaited.search(line):
                self._awaited = None

    def _handle_output(self, runs: Runs) -> None:
        context = self._context
        output = context.output
        send = output is not None and (output.wanted or _logger.isEnabledFor(logging.INFO))
        text = "".join(f"{stream}: {line}\n" for stream, _, lines, _ in runs for line in lines)
        context.append_output(text, RECORDED if send else OF_COMMAND)
        if output is not None and send:
            output.send(context.pid, self._argv[0], runs)


def _reason_of(code: int) -> ExitReason:
    return Normal() if code == 0 else Signaled(-code) if code < 0 else ExitCode(code)

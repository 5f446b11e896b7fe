"""`suitkaise run --watch`: runs the program in a process of its own, and starts it anew when its code changes.

A program cannot replace its own code: its modules are imported already, and its processes are forked from them. So a
small parent stops the whole program gracefully and starts it anew, as `uvicorn --reload` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from suitkaise.cli.command import CLEAN, UsageError, tell
from suitkaise.cli.load import check_target, split_target
from suitkaise.escapes import indented
from suitkaise.platform.flag import Flag
from suitkaise.platform.threads import OwnThread

__all__ = ["watched"]

_News: TypeAlias = "set[Path] | subprocess.Popen[bytes] | int"
"""Files that have changed, the program that has ended, or a signal."""


def watched(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run the program until a signal comes; start it anew when a file of Python code below the folder changes.

    Raises:
        UsageError: the extra is not installed, or there is no such folder, or nothing to run.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise UsageError("--watch needs the extra `dev`: pip install 'suitkaise-xprocess[dev]'") from None
    where, _ = split_target(options.target)
    folder = Path(options.watch or (os.path.dirname(where) if os.path.isfile(where) else "") or ".").absolute()
    if not folder.is_dir():
        raise UsageError(f"--watch {options.watch}: there is no such folder")
    try:
        check_target(where)
    except UsageError:
        if options.watch or not arguments:
            raise
        raise UsageError(f"--watch {where}: there is no such folder, nor such a file or module to run") from None
    return _Watched(_command(options, arguments), folder).run()


def _command(options: argparse.Namespace, arguments: list[str]) -> list[str]:
    """Return the command that runs the program once."""
    command = [sys.executable, "-m", "suitkaise", "run", f"--run-by={os.getpid()}"]
    switches = [name for name in ("json", "debug") if getattr(options, name) is not None]
    command += [f"--{name}" if getattr(options, name) else f"--no-{name}" for name in switches]
    values = [
        name for name in ("engine", "address", "nodes", "health", "observe") if getattr(options, name) is not None
    ]
    command += [f"--{name}={getattr(options, name)}" for name in values]
    flags = [name for name in ("observe_actions", "observe_hide_values") if getattr(options, name)]
    command += [f"--{name.replace('_', '-')}" for name in flags]
    return [*command, options.target, "--", *arguments]


class _Watched:
    """A program that is started anew when files below a folder change."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()  # a signal handler may put into it
        self._program: subprocess.Popen[bytes] | None = None
        self._code = CLEAN

    def run(self) -> int:
        """Run the program until a signal comes; return its exit code."""
        with self._signals(), self._changes():
            self._start()
            again = False  # whether the program is being stopped for a change
            while True:
                news = self._news.get()
                match news:
                    case int():
                        if self._program is not None:
                            self._program.send_signal(news)
                            return self._wait()
                        return CLEAN
                    case set():
                        if again or not self._compiles(news):
                            continue
                        _tell(f"{self._listed(news)} changed; the program is started anew")
                        if self._program is None:
                            self._start()
                        else:
                            again = True
                            self._program.send_signal(signal.SIGTERM)
                    case _:
                        self._program = None
                        self._code = _exit_code(news)
                        if again:
                            again = False
                            self._start()
                        else:
                            _tell(f"the program has ended with exit code {self._code}; waiting for a change")

    def _start(self) -> None:
        program = self._program = subprocess.Popen(self._command)

        def wait() -> None:
            program.wait()
            self._news.put(program)

        OwnThread(wait, "suitkaise-watch-program").start()

    def _wait(self) -> int:
        """Wait for the end of the program, which a signal stops; hand further signals on to it."""
        assert self._program is not None
        while True:
            match self._news.get():
                case int(number):
                    self._program.send_signal(number)
                case subprocess.Popen() as program:
                    return _exit_code(program)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Put signals that end programs into the queue.

        A terminal sends a SIGINT to the program, too, which takes the one that is handed on for the same request.
        """
        former: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(number, lambda received, frame: self._news.put(received))
        try:
            yield
        finally:
            for known, handler in former.items():
                signal.signal(known, handler)

    @contextlib.contextmanager
    def _changes(self) -> Iterator[None]:
        """Put changes of files into the queue."""
        import watchfiles

        end = Flag()

        def watch() -> None:
            for changes in watchfiles.watch(
                self._folder, watch_filter=watchfiles.PythonFilter(), stop_event=end, raise_interrupt=False
            ):
                self._news.put({Path(file) for _, file in changes})

        thread = OwnThread(watch, "suitkaise-watch")
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join(5)

    def _compiles(self, files: set[Path]) -> bool:
        """Return whether the files are Python; show the error of one that is not. A file that was removed is fine."""
        for file in sorted(files):
            try:
                compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
            except OSError:
                continue
            except (SyntaxError, ValueError) as error:
                goes_on = "" if self._program is None else "; the program goes on with its former code"
                text = "".join(traceback.format_exception_only(error)).rstrip()
                _tell(f"{file.name} cannot be compiled{goes_on}:\n{text}")
                return False
        return True

    def _listed(self, files: set[Path]) -> str:
        names = sorted(str(file.relative_to(self._folder)) for file in files)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _exit_code(program: subprocess.Popen[bytes]) -> int:
    code = program.returncode
    return 128 - code if code < 0 else code


def _tell(text: str) -> None:
    tell(indented(f"suitkaise run: {text}"))

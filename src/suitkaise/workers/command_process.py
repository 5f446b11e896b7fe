"""A program that runs as a child of this process: in a session of its own, its output cut into lines of text."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping

from suitkaise.platform.processes import children, die_with_parent, kill_children

__all__ = ["LONGEST", "Lines", "Program"]

LONGEST = 16_384
"""Bytes: a longer line comes in pieces."""


class Lines:
    r"""One stream of output. What is no UTF-8 is shown as `\xff`.

    >>> lines = Lines()
    >>> lines.feed(b"one\r\ntwo\nthr")
    ['one', 'two']
    >>> lines.feed(b"ee \xff\n"), lines.rest()
    (['three \\xff'], [])
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Take in what has come; returns the lines that are complete now."""
        self._begun += data
        *complete, begun = self._begun.split(b"\n")
        lines = [_text(piece) for line in complete for piece in self._pieces(line)]
        while len(begun) > self._longest:
            cut = self._cut(begun)
            lines.append(_text(begun[:cut]))
            begun = begun[cut:]
        self._begun = begun
        return lines

    def rest(self) -> list[str]:
        """The stream has ended: its last line, if that lacks its end."""
        begun, self._begun = self._begun, bytearray()
        return [_text(begun)] if begun else []

    def _pieces(self, line: bytearray) -> list[bytearray]:
        pieces = []
        line = line.removesuffix(b"\r")
        while len(line) > self._longest:
            cut = self._cut(line)
            pieces.append(line[:cut])
            line = line[cut:]
        return [*pieces, line]

    def _cut(self, line: bytearray) -> int:
        """Where to cut a long line: not inside of a character."""
        for cut in range(self._longest, max(self._longest - 3, 1), -1):
            if line[cut] & 0xC0 != 0x80:
                return cut
        return self._longest


def _text(line: bytes | bytearray) -> str:
    return line.decode("utf-8", "backslashreplace")


_STEP = 1 << 12
"""Bytes that are read from a stream at once, so that an order is heard in between; what is not read yet waits in the
pipe, and then its writer waits."""

_PIPE = 1 << 14
"""Bytes that may wait in a pipe: a flood must not hold up its own end for long."""

_LAST_WORDS = 1 << 20
"""Bytes that are read at most when the program has ended: no pipe can hold more."""


_LONGEST = 1e6
"""Seconds: longer waits are made in parts, since `poll` counts milliseconds in 32 bits."""


class Program:
    """Starts it; `hear(stream, line)` is called with each line that it writes.

    Raises:
        OSError: it cannot be started: no such program, no such folder, not executable.
    """

    def __init__(
        self, argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None, hear: Callable[[str, str], None]
    ) -> None:
        try:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                pipesize=_PIPE, env=env, cwd=cwd, start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (the guard's other thread just waits for the hub's end)
            )  # fmt: skip
        except OSError as error:
            raise _explained(error, argv, env, cwd) from None
        self.pid: int = self._popen.pid
        self._hear = hear
        self._pidfd = os.pidfd_open(self.pid)
        self._streams: dict[int, tuple[str, Lines]] = {}
        for name, stream in (("stdout", self._popen.stdout), ("stderr", self._popen.stderr)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._streams[stream.fileno()] = name, Lines()

    @property
    def code(self) -> int | None:
        """None until a turn has noticed its end; then its exit code, or -n where signal n has ended it."""
        return self._popen.returncode

    def turn(self, seconds: float | None, *others: int) -> None:
        """Wait until it writes or ends, one of the other descriptors is readable, or the time is over; or less."""
        poll = select.poll()
        for descriptor in (*self._streams, *others, *([] if self.code is not None else [self._pidfd])):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(None if seconds is None else min(max(0.0, seconds), _LONGEST) * 1000):
            if descriptor in self._streams:
                self._read(descriptor)
            elif descriptor == self._pidfd:
                self._popen.poll()

    def signal(self, number: int) -> None:
        """Send a signal to its process group, if it runs."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stop(self, number: int) -> None:
        """Send that signal to its process group, also where it is suspended, and wait until none of it is left."""
        self.signal(number)
        self.signal(signal.SIGCONT)
        while self.code is None:
            self.turn(None)
        while members := self._members():
            self.turn(None, *members)
            for pidfd in members:
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
                os.close(pidfd)

    def _members(self) -> list[int]:
        """What its end has made children of ours, and still belongs to its group: it has had the signal, too."""
        return [os.pidfd_open(pid) for pid in children() if os.getpgid(pid) == self.pid]

    def end(self) -> int:
        """Kill what is left of it, read its last words, and return its code."""
        self.signal(signal.SIGKILL)
        code = self._popen.wait()
        kill_children()
        for descriptor in list(self._streams):
            for _ in range(_LAST_WORDS // _STEP):
                if descriptor not in self._streams or not self._read(descriptor):
                    break
        for name, lines in self._streams.values():  # somebody else holds it open
            self._say(name, lines.rest())
        self._streams.clear()
        return code

    def _read(self, descriptor: int) -> bool:
        """Read what there is; False if there is nothing now."""
        name, lines = self._streams[descriptor]
        try:
            data = os.read(descriptor, _STEP)
        except BlockingIOError:
            return False
        if not data:
            del self._streams[descriptor]
        self._say(name, lines.feed(data) if data else lines.rest())
        return bool(data)

    def _say(self, name: str, lines: list[str]) -> None:
        for line in lines:
            self._hear(name, line)


def _explained(error: OSError, argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> OSError:
    """The same error, saying whether it is about the program or its folder, and where it was looked for."""
    if cwd is not None and error.filename == cwd:
        return type(error)(error.errno, f"cwd: {error.strerror}", cwd)
    text = error.strerror or "it cannot be started"
    if isinstance(error, FileNotFoundError) and "/" not in argv[0]:
        text = f"no such program in PATH ({env.get('PATH', os.defpath)})"
        if len(argv) == 1 and " " in argv[0]:
            text += "; a command's arguments are given one by one: Command('sleep', '5')"
    return type(error)(error.errno, text, argv[0])

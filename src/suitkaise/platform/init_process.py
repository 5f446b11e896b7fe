"""A small init process in front of a program that is PID 1 of a container.

PID 1 becomes the parent of every orphan in the container and has to reap it, or a zombie stays. A program cannot do
that itself: `waitpid(-1)` would take the exit statuses that its own `subprocess` waits for. So PID 1 forks, as tini and
dumb-init do: the child is the program, and PID 1 only forwards signals to the program and reaps. It is forked before
the program has started a thread or imported a module of the user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import NoReturn

__all__ = ["run_below_init"]

_CLEAN_UP = 10.0
"""Seconds, at most, that the workers of a program that was killed have for their end; PID 1 takes all with it."""

_FAULTS = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
_FROM_TERMINAL = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH}
_BY_KERNEL = 0x80  # SI_KERNEL: the terminal's driver has sent it to the whole group, so the program has it already


def run_below_init() -> None:
    """Return in a child of this process, which forwards signals to the child and ends with the child's exit code.

    A child that ends by signal n gives 128 + n. Call it once, in a process without other threads.
    """
    forwarded = signal.valid_signals() - _FAULTS
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)  # blocked, they wait; PID 1 would lose them else
    # Where it was ignored, the kernel would reap all children itself, and tell nothing.
    handling = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = os.fork()
    if program == 0:
        signal.signal(signal.SIGCHLD, handling)
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        return
    _serve(program, forwarded)


def _serve(program: int, forwarded: set[signal.Signals]) -> NoReturn:
    code = None
    while code is None:
        received = signal.sigwaitinfo(forwarded)
        number = received.si_signo
        if number == signal.SIGCHLD:
            code = _reap(program)
        elif not (number in _FROM_TERMINAL and received.si_code == _BY_KERNEL):
            os.kill(program, number)  # not reaped yet
    deadline = time.monotonic() + _CLEAN_UP
    while code > 128 and _has_children() and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)  # the program was killed: its keeper ends its workers now
        _reap(program)
    os._exit(code)


def _reap(program: int) -> int | None:
    """Reap all that have ended; return the exit code of the program if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):  # none is left
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == program:
                code = os.waitstatus_to_exitcode(reaped[1])
    return 128 - code if code is not None and code < 0 else code


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True

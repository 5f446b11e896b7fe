"""Find processes, threads, open files, sockets and runtime directories that a test leaves behind.

`Footprint.take()` before, `leaks_since(before)` after. The conftest does both around every test.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

from suitkaise.platform.runtime_directory import PREFIX
from tests.support import describe, eventually, kill_and_wait, processes_with_variable, started_programs

__all__ = ["MARK", "Footprint", "Leak", "clean_up", "leaks_since", "private_base", "wait_for_leaks_to_go"]

# Every process that a test starts inherits this variable, so it is found even as an orphan in a session of
# its own. A pytest that runs inside another one appends a part to the value, and values are compared by their
# beginning: so the outer pytest also finds the processes that the inner one has left.
MARK = "SUITKAISE_TEST_RUN"

BENIGN_THREADS = ("pytest_timeout ", "execnet")  # by the beginning of the name
BENIGN_FILES = ("/dev/null", "/dev/urandom", "/dev/random")

MOMENT = 0.2
"""Seconds that what has just ended gets before the garbage is collected, which takes long."""

_private_base: Path | None = None


@dataclass(frozen=True)
class Leak:
    """One thing that a test has left behind; `str()` describes it."""

    kind: str  # "process", "thread", "file", "directory"
    what: str
    process: psutil.Process | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


@dataclass(frozen=True)
class Footprint:
    """All processes, threads, open files and runtime directories at one moment."""

    pids: frozenset[int]  # of all processes of the machine
    threads: frozenset[threading.Thread]
    files: Counter[str]
    directories: frozenset[Path]

    @classmethod
    def take(cls) -> Footprint:
        return cls(
            frozenset(psutil.pids()),
            frozenset(threading.enumerate()),
            open_files(),
            frozenset(runtime_directories()),
        )


def leaks_since(before: Footprint) -> list[Leak]:
    """Return what belongs to the tests and has appeared since `before`."""
    return [
        *_processes_since(before),
        *_threads_since(before),
        *_files_since(before),
        *_directories_since(before),
    ]


def wait_for_leaks_to_go(before: Footprint, grace: float) -> list[Leak]:
    """Wait up to `grace` seconds until there is no leak; return the leaks that are left."""
    if not leaks_since(before):
        return []
    with suppress(AssertionError):
        eventually(lambda: not leaks_since(before), timeout=min(MOMENT, grace))
        return []
    gc.collect()  # objects in a reference cycle are garbage, not a leak
    with suppress(AssertionError):
        eventually(lambda: not leaks_since(before), timeout=grace)
    return leaks_since(before)


def clean_up(leaks: list[Leak]) -> None:
    """Kill leaked processes and remove leaked directories, so that the next test starts without them."""
    kill_and_wait([leak.process for leak in leaks if leak.process is not None])
    for leak in leaks:
        if leak.path is not None:
            shutil.rmtree(leak.path, ignore_errors=True)


def private_base() -> Path:
    """Return the folder for the runtime directories of this process and the programs of its tests alone.

    It lies in memory where that is possible, and its path is short enough for sockets.
    """
    global _private_base
    if _private_base is None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _private_base = Path(tempfile.mkdtemp(prefix=f"sk-test-{os.getpid()}-", dir=memory))
    return _private_base


def shared_bases() -> list[Path]:
    """Return the folders for runtime directories without `XDG_RUNTIME_DIR`; other programs use them too."""
    return list(dict.fromkeys([Path("/dev/shm"), Path(tempfile.gettempdir())]))


def runtime_directories() -> set[Path]:
    found = set()
    for base in (private_base(), *shared_bases()):
        with suppress(OSError):
            found |= {base / name for name in os.listdir(base) if name.startswith(PREFIX)}
    return found


def open_files() -> Counter[str]:
    """Count the targets of this process's file descriptors."""
    here = "/proc/self/fd"
    found: Counter[str] = Counter()
    try:
        numbers = os.listdir(here)
    except OSError:  # without /proc only their number is known
        return Counter({"descriptors": psutil.Process().num_fds()}) if psutil.POSIX else found
    for number in numbers:
        with suppress(OSError):  # the descriptor that listed the folder is closed by now
            found[os.readlink(f"{here}/{number}")] += 1
    return found


def _processes_since(before: Footprint) -> list[Leak]:
    fresh = set(psutil.pids()) - before.pids
    if not fresh:
        return []
    found = []
    for process in sorted(own_processes(fresh), key=lambda p: p.pid):
        description = describe(process.pid)
        if process.pid == resource_tracker._resource_tracker._pid:  # multiprocessing keeps it until the program ends
            continue
        if _is_in_reserve(process, before) or _is_of_older_program(process, before):
            continue  # its runtime is older than the test
        if process.is_running():
            found.append(Leak("process", description, process=process))
    return found


def _is_in_reserve(process: psutil.Process, before: Footprint) -> bool:
    with suppress(psutil.Error):
        return process.name() == "sk:reserve" and process.ppid() in before.pids
    return False


def _is_of_older_program(process: psutil.Process, before: Footprint) -> bool:
    """Return whether it belongs to a program that a fixture had started before: it restarts its workers by itself."""
    with suppress(psutil.Error):
        return any(parent.pid in started_programs & before.pids for parent in process.parents())
    return False


def _threads_since(before: Footprint) -> list[Leak]:
    return [
        Leak("thread", f"{thread.name} ({type(thread).__name__}{', daemon' if thread.daemon else ''})")
        for thread in threading.enumerate()
        if thread not in before.threads and thread.is_alive() and not thread.name.startswith(BENIGN_THREADS)
    ]


def _files_since(before: Footprint) -> list[Leak]:
    found = []
    benign = _tracker_pipe()
    for target, count in sorted((open_files() - before.files).items()):
        if target not in BENIGN_FILES and target != benign:
            times = f" ({count} times)" if count > 1 else ""
            found.append(Leak("file", f"{target}{times}{_peer(target)}"))
    return found


def _directories_since(before: Footprint) -> list[Leak]:
    fresh = sorted(runtime_directories() - before.directories)
    return [
        Leak("directory", str(path), path=path)
        for path in fresh
        if path.parent == private_base() or _is_own(_pid_in_name(path))
    ]


def own_processes(among: Iterable[int]) -> list[psutil.Process]:
    """Return those of the processes that this process or one of its tests has started, orphans included."""
    pids = set(among) - {os.getpid()}
    ours = processes_with_variable(MARK, os.environ.get(MARK, "-"), pids)
    for pid in pids.difference(process.pid for process in ours):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if any(parent.pid == os.getpid() for parent in process.parents()):
                ours.append(process)
    return ours


def _is_own(pid: int) -> bool:
    """Return whether it is this process, one that it has started, or a program that its tests have started."""
    return pid in (os.getpid(), *started_programs) or bool(own_processes([pid]))


def _pid_in_name(directory: Path) -> int:
    """Return the pid of the program that made a runtime directory `suitkaise-<pid>-<random>`; -1 for another name."""
    number = directory.name.removeprefix(PREFIX).partition("-")[0]
    return int(number) if number.isdecimal() else -1


def _tracker_pipe() -> str | None:
    """Return the pipe from multiprocessing to its resource tracker, if there is one."""
    number = resource_tracker._resource_tracker._fd
    if number is None:
        return None
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{number}")
    return None


def _peer(target: str) -> str:
    """Return the addresses of a socket, since `socket:[4711]` alone has no meaning; else an empty string."""
    if not target.startswith("socket:"):
        return ""
    with suppress(OSError, psutil.Error):
        for connection in psutil.Process().net_connections(kind="all"):
            if connection.fd < 0:
                continue
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{connection.fd}") == target:
                    where = [str(address) for address in (connection.laddr, connection.raddr) if address]
                    return f" [fd {connection.fd} {' -> '.join(where) or 'unbound'}]"
    return ""

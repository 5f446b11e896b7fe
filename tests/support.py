"""Helpers of all tests: wait with a deadline, run programs, look at processes.

A test never sleeps for a fixed time. It waits for what it expects, here, and fails at a deadline.
"""

from __future__ import annotations

import codecs
import encodings.idna  # noqa: F401  (another user may be unable to read the standard library)
import gc
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

import psutil
import pytest

from suitkaise.platform.processes import environment_of
from suitkaise.runtime.runtime import current

__all__ = [
    "ROOT",
    "STRANGER",
    "Finished",
    "Program",
    "alarms",
    "children_named",
    "collected_at_each_allocation",
    "descriptors_of",
    "eventually",
    "in_background",
    "interrupted_at_each_line",
    "is_alive",
    "kill_and_wait",
    "lines_run",
    "mypy_errors",
    "only_root",
    "processes_with_variable",
    "pyright_errors",
    "run_program",
    "send_signal",
    "small_file_system",
    "start_program",
    "started_programs",
    "stranger",
    "wait_gone",
]

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
started_programs: set[int] = set()  # the pid of every program that was started with the functions below
STRANGER = 65534  # the id of another user
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run code as another user")
GRACE = 10.0  # seconds that a program's relatives get to end by themselves: orphaned workers get 5 of their keeper


def eventually(predicate: Callable[[], T], *, timeout: float = 15.0, what: str = "") -> T:
    """Return the first true value of `predicate()`; raise AssertionError with the last value after `timeout` seconds.

    The pauses between two calls grow from 1 to 50 ms. An event, a join or `wait_gone` is better where there is one.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    never = threading.Event()
    while not (value := predicate()):
        left = deadline - time.monotonic()
        if left <= 0:
            wanted = what or getattr(predicate, "__name__", repr(predicate))
            raise AssertionError(f"not within {timeout} seconds: {wanted} (the last value was {value!r})")
        never.wait(min(pause, left))
        pause = min(pause * 2, 0.05)
    return value


def lines_run(call: Callable[[], object]) -> int:
    """Return how many lines of Python run in a call; a line counts each time, in a loop as well."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@contextmanager
def alarms(handler: Callable[..., object], every: float, first: float | None = None) -> Iterator[None]:
    """Have the signal handler run `every` so many seconds in the block."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, first or every, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted_at_each_line(prepare: Callable[[], Callable[[], T]], handler: Callable[[], object]) -> Iterator[T]:
    """Call what `prepare` returns again and again, each time with a signal at the next line of Python that runs in it.

    `handler` handles the signal. Yields what each call returns, but for the last one, which is not interrupted.
    """
    place = count = 0  # the number of a line, in the order in which lines run

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        if event == "line" and count == place:
            signal.raise_signal(signal.SIGUSR2)
        return trace

    tracing = sys.gettrace()
    before = signal.signal(signal.SIGUSR2, lambda *_: handler())
    try:
        while True:
            call = prepare()
            count, place = 0, place + 1
            sys.settrace(trace)
            try:
                result = call()
            finally:
                sys.settrace(tracing)
            if count < place:
                return
            yield result
    finally:
        signal.signal(signal.SIGUSR2, before)


def collected_at_each_allocation(prepare: Callable[[], Callable[[], T]], destroy: Callable[[], object]) -> Iterator[T]:
    """Call what `prepare` returns again and again, each time with garbage that is collected at its next allocation.

    `destroy` is what the `__del__` of the garbage does. Yields what each call returns in which it has run.
    """

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            ran.append(waits and destroy())

    thresholds = gc.get_threshold()
    for place in itertools.count(1):
        ran: list[object] = []
        waits = True
        call = prepare()
        gc.collect()
        Garbage()
        gc.set_threshold(gc.get_count()[0] + place, 1_000, 1_000)
        try:
            result = call()
            has_run = bool(ran)
        finally:
            waits = False
            gc.set_threshold(*thresholds)
        if not has_run:
            return
        yield result


class Interrupted(BaseException):
    """What the signal handler of `interrupted_at_each_call` raises, as Ctrl-C raises KeyboardInterrupt."""


def interrupted_at_each_call(
    call: Callable[[], object], error: Callable[[], BaseException] = Interrupted
) -> Iterator[bool]:
    """Call `call` again and again; each time a signal handler raises at the next call of a function of Python in it.

    Yields after each whether `call` has raised what the handler has raised, but for the last, which is not interrupted.
    What is raised where an object is destroyed, or a generator closed, Python reports in its place: that counts, too.
    """

    def interrupt(*_: object) -> None:
        raise raised

    def report(unraisable: Any) -> None:
        nonlocal is_raised
        if unraisable.exc_value is raised:
            is_raised = True
        else:
            reporting(unraisable)

    place = count = 0  # the number of a call

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += 1
        if count == place:
            signal.raise_signal(signal.SIGUSR2)

    tracing, before = sys.gettrace(), signal.signal(signal.SIGUSR2, interrupt)
    reporting, sys.unraisablehook = sys.unraisablehook, report
    try:
        while count >= place:
            count, place, raised, is_raised = 0, place + 1, error(), False
            sys.settrace(trace)
            try:
                call()
            except BaseException as caught:
                if caught is not raised:
                    raise
                is_raised = True
            finally:
                sys.settrace(tracing)
            if count >= place:
                yield is_raised
    finally:
        sys.unraisablehook = reporting
        signal.signal(signal.SIGUSR2, before)


def _waits_of(pid: int) -> str:
    """Tell of each thread of a process its name, and the call of the system that it waits in."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with suppress(OSError):  # it has just ended
            facts = [(task / name).read_text().strip() for name in ("comm", "wchan", "syscall")]
            lines.append(f"{task.name}: {', '.join(facts)}")
    return "\n".join(lines)


def mypy_errors(program: str, folder: Path) -> list[str]:
    """Return the errors that `mypy --strict` finds in a program, which is written into the folder."""
    from mypy import api  # 0.2 s

    file = folder / "typed_program.py"
    file.write_text(program)
    options = ["--strict", "--config-file=", "--no-error-summary", f"--cache-dir={ROOT / '.mypy_cache'}"]
    limit = sys.getrecursionlimit()
    try:
        output, problems, _ = api.run([*options, str(file)])
    finally:
        sys.setrecursionlimit(limit)  # mypy raises it, so far that an endless recursion ends the process
    assert problems == ""
    return [line.partition("error: ")[2] for line in output.splitlines() if "error: " in line]


def pyright_errors(program: str, folder: Path) -> list[str]:
    """Return the errors that pyright, as strict as it can be, finds in a program, which is written into the folder."""
    pytest.importorskip("pyright")
    file = folder / "typed_program.py"
    file.write_text(program)
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
    return [found["message"].splitlines()[0] for found in json.loads(output)["generalDiagnostics"]]


def in_background(what: Callable[[], Any]) -> Future[Any]:
    """Call `what` in a thread of its own; the future gets its value or its exception."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(what())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def small_file_system(size: int) -> Iterator[Path]:
    """Yield a folder with room for `size` bytes; skip the test where mounting is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="small-"))
    try:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a file system is not allowed here")
        yield folder
    finally:
        if folder.is_mount():
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def start_threads_of_the_runtime() -> None:
    """Start the threads that the first late answer over a direct connection, and the first request, would start."""
    runtime = current()
    assert runtime is not None
    started = threading.Event()
    server = runtime._hub_server
    server.reactor.call_soon_threadsafe(lambda: server.administration.submit(started.set))
    assert started.wait(15)
    assert runtime.registry._routes is not None
    assert runtime.registry._routes._routes.reactor is not None


def send_signal(one: Any, number: int) -> None:
    """Send a signal to a worker or process when it has a pid: to send it to 0 would mean the test's whole group."""
    os.kill(eventually(lambda: one.pid), number)


def wait_gone(pid: int, timeout: float = 15.0) -> None:
    """Return when process `pid` has ended (any process, not only a child; a zombie has ended).

    Raises AssertionError after `timeout` seconds.
    """
    if hasattr(os, "pidfd_open"):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            gone = bool(poll.poll(max(0.0, timeout) * 1000))
        finally:
            os.close(pidfd)
    else:
        with suppress(AssertionError):
            eventually(lambda: not is_alive(pid), timeout=timeout)
        gone = not is_alive(pid)
    if not gone:
        raise AssertionError(f"process {pid} is still there after {timeout} seconds: {describe(pid)}")


def processes_with_variable(variable: str, prefix: str, among: Iterable[int] | None = None) -> list[psutil.Process]:
    """Return the living processes whose environment has `variable` with a value that starts with `prefix`.

    The environment is the one that a process was started with, so a forked process or an orphan still has the
    variables of its ancestors. This process itself is left out; zombies have no environment. Only the pids `among`
    are looked at, if they are given.
    """
    wanted = f"{variable}={prefix}".encode()
    found = []
    for process in map(_process, psutil.pids() if among is None else among):
        if process is None or process.pid == os.getpid():
            continue
        with suppress(OSError):
            if any(entry.startswith(wanted) for entry in environment_of(process.pid).split(b"\0")):
                found.append(process)
    return found


def children_named(name: str, process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
    """Return the children of a process with this name; leave out those that end meanwhile."""
    return _named(name, process.children(recursive=recursive))


def _named(name: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process)
    return found


def descriptors_of(pid: int) -> list[str]:
    """Return the targets of the open file descriptors of a process; leave out those that it closes meanwhile."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def kill_and_wait(processes: list[psutil.Process], timeout: float = 15.0) -> None:
    """Kill the processes with SIGKILL (never a later process with the same pid) and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for process in processes:
        wait_gone(process.pid, timeout)


def describe(pid: int) -> str:
    """Describe a process in a few words, for error texts."""
    try:
        process = psutil.Process(pid)
        command = process.name()
        with suppress(psutil.ZombieProcess, psutil.AccessDenied):
            command = " ".join(process.cmdline()) or command
        return f"pid {pid}, {process.status()}, child of {process.ppid()}: {command[:160]}"
    except psutil.Error:
        return f"pid {pid}, gone by now"


@dataclass
class Finished:
    """A program that has ended."""

    returncode: int  # -n: ended by signal n
    stdout: str
    stderr: str
    left_behind: list[str] = field(default_factory=list)  # relatives that had to be killed, described

    def check(self) -> Finished:
        """Return this object if the program ended with 0 and left no process behind; else raise AssertionError."""
        if self.returncode != 0 or self.left_behind:
            raise AssertionError(
                f"exit code {self.returncode}, left behind: {self.left_behind or 'nothing'}\n"
                f"--- stdout ---\n{self.stdout}\n--- stderr ---\n{self.stderr}"
            )
        return self


class _Output:
    """The output of a program through a pipe; `read_available` reads all that the pipe holds at that moment."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.text = ""
        self.ended = False
        self._pipe = pipe
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.set_blocking(pipe.fileno(), False)

    def read_available(self) -> None:
        while not self.ended:
            try:
                data = os.read(self._pipe.fileno(), 1 << 16)
            except BlockingIOError:
                return
            self.text += self._decoder.decode(data, final=not data)
            self.ended = not data

    def wait(self) -> None:
        poll = select.poll()
        poll.register(self._pipe.fileno(), select.POLLIN)
        poll.poll()

    def close(self) -> None:
        self.ended = True
        self._pipe.close()


class Program:
    """A running program; `start_program` makes it."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str) -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._popen = popen
        self._mark = mark
        self.left_behind: list[str] = []  # filled at the end of the `with` block
        self._changed = threading.Condition()
        self._stdout, self._stderr = _Output(popen.stdout), _Output(popen.stderr)
        self._readers = [
            threading.Thread(target=self._read, args=(output,), name=f"{name} of {popen.pid}", daemon=True)
            for output, name in ((self._stdout, "stdout"), (self._stderr, "stderr"))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    @property
    def stdout(self) -> str:
        """All output of the program and its relatives so far."""
        return self._text(self._stdout)

    @property
    def stderr(self) -> str:
        return self._text(self._stderr)

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def expect(self, text: str, timeout: float = 20.0) -> str:
        """Wait for a line of stdout that holds `text`, and return the first one."""

        def line() -> str | None:
            *lines, last = self._stdout.text.split("\n")
            return next((f"{x}\n" for x in lines if text in x), last if self._stdout.ended and text in last else None)

        with self._changed:
            self._changed.wait_for(lambda: line() or self._stdout.ended, timeout)
            found = line()
        if found is None:
            raise AssertionError(
                f"{text!r} not printed within {timeout} seconds (exit code so far: {self.returncode})\n"
                f"--- stdout ---\n{self.stdout}\n--- stderr ---\n{self.stderr}"
            )
        return found

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end of the program, and return its exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {timeout} seconds: {self._popen.args!r}\n"
                f"--- stdout ---\n{self.stdout}\n--- stderr ---\n{self.stderr}\n"
                f"--- threads, and where they wait in the system ---\n{_waits_of(self._popen.pid)}"
            ) from None

    def relatives(self, name: str = "") -> list[psutil.Process]:
        """Return the living processes that the program has started (of that name); orphans are among them."""
        marked = processes_with_variable("SUITKAISE_TEST_PROGRAM", self._mark)
        found = [process for process in marked if process.pid != self.pid]
        return _named(name, found) if name else found

    def _text(self, output: _Output) -> str:
        with self._changed:
            output.read_available()
            self._changed.notify_all()
            return output.text

    def _read(self, output: _Output) -> None:
        while not output.ended:
            output.wait()
            self._text(output)

    def _close(self, grace: float) -> None:
        """Kill all that is left; `left_behind` lists the relatives that did not end within `grace` seconds."""
        try:
            if self._popen.poll() is None:
                grace = 0.0
                self._popen.kill()
                self._popen.wait(10)
            with suppress(AssertionError):
                eventually(lambda: not self.relatives(), timeout=grace)
        finally:
            while left := self.relatives():  # again: one of them may have forked meanwhile
                self.left_behind += [describe(process.pid) for process in left]
                kill_and_wait(left)
            for reader in self._readers:
                reader.join(5)
            with self._changed:
                self._stdout.close()
                self._stderr.close()


@contextmanager
def start_program(
    what: str | Path | Sequence[str],
    *args: str,
    env: Mapping[str, str | None] | None = None,
    cwd: str | Path | None = None,
    grace: float = GRACE,
) -> Iterator[Program]:
    """Run a Python file or Python source with this interpreter, or a command, in a session of its own.

    Source (any text with a newline) is written to `program.py` in a fresh folder. The working folder is that
    of the file, unless `cwd` names another. A command is a list. A None in `env` removes that variable. At the
    end of the block the program and its living relatives are killed; `left_behind` lists those relatives.
    """
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        if isinstance(what, str) and "\n" in what:
            file = Path(folder, "program.py")
            file.write_text(what, encoding="utf-8")
            command, home = [sys.executable, str(file)], file.parent
        elif isinstance(what, (str, Path)):
            file = Path(what).resolve()
            command, home = [sys.executable, str(file)], file.parent
        else:
            command, home = list(what), Path(folder)
        with _running([*command, *args], env, Path(cwd or home), grace) as program:
            yield program


def no_thread_is_left(self: threading.Thread) -> None:
    """Fail as `Thread.start` does where the system has no thread left; put into its place by a test."""
    raise RuntimeError("can't start new thread")


def run_program(
    what: str | Path | Sequence[str],
    *args: str,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 30.0,
    cwd: str | Path | None = None,
    grace: float = GRACE,
) -> Finished:
    """Start a program as `start_program` does and wait for its end, for at most `timeout` seconds.

    Once the program has ended its relatives have `grace` seconds to end too; `left_behind` lists those that
    did not.
    """
    with start_program(what, *args, env=env, cwd=cwd, grace=grace) as program:
        code = program.wait(timeout)
    return Finished(code, program.stdout, program.stderr, program.left_behind)


@contextmanager
def _running(command: list[str], env: Mapping[str, str | None] | None, cwd: Path, grace: float) -> Iterator[Program]:
    # A program that is started by a program under test has both marks, so its relatives belong to both.
    mark = "/".join(filter(None, [os.environ.get("SUITKAISE_TEST_PROGRAM"), uuid.uuid4().hex]))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    for name, value in (env or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    environment["SUITKAISE_TEST_PROGRAM"] = mark
    popen = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )
    started_programs.add(popen.pid)
    program = Program(popen, mark)
    try:
        yield program
    finally:
        program._close(grace)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def stranger(act: Callable[[int], None]) -> Iterator[int]:
    """Run `act` as another user in a process of its own; it writes to the descriptor that it gets."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            act(writes)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writes)
    try:
        yield reads
    finally:
        os.close(reads)
        os.kill(pid, 9)
        os.waitpid(pid, 0)

"""The leak check catches every kind of leak, names it, cleans up after it, and lets pass what is none."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests import leaks
from tests.leaks import Footprint, clean_up, leaks_since, wait_for_leaks_to_go
from tests.support import ROOT, eventually, run_program, start_program, wait_gone

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
# A child in a session of its own whose parent is gone at once: nobody's descendant any more.
ORPHAN = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)"


@pytest.fixture
def before() -> Footprint:
    return Footprint.take()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as process:
        yield process
        process.kill()


@contextmanager
def started_by_another_program(code: str, *args: str) -> Iterator[int]:
    """The pid of a program that prints `up` and that neither this process nor a test run has started."""
    start = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', *sys.argv[1:]]\n"
        "program = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)\n"
        "print(program.pid if program.stdout.readline() == b'up\\n' else 'failed')"
    )
    environment = {name: value for name, value in os.environ.items() if name != leaks.MARK}
    command = [sys.executable, "-c", start, code, *args]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        number = starter.stdout.readline()
    try:
        yield int(number)
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)
        wait_gone(int(number))


def names(before: Footprint) -> list[str]:
    return [str(leak) for leak in leaks_since(before)]


def test_nothing_done_is_no_leak(before: Footprint) -> None:
    assert leaks_since(before) == []


def test_a_child_process_is_a_leak(before: Footprint, sleeper: subprocess.Popen[bytes]) -> None:
    (leak,) = leaks_since(before)
    assert leak.kind == "process"
    assert f"pid {sleeper.pid}" in str(leak)
    assert "signal.pause" in str(leak)


def test_a_zombie_child_is_a_leak(before: Footprint) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert "zombie" in names(before)[0]
    child.wait()
    assert leaks_since(before) == []


def test_an_orphan_in_a_session_of_its_own_is_a_leak(before: Footprint) -> None:
    subprocess.run([sys.executable, "-c", ORPHAN], check=True)
    (leak,) = leaks_since(before)
    assert leak.kind == "process"
    assert leak.process is not None
    assert leak.process.ppid() != os.getpid()
    clean_up([leak])
    assert leaks_since(before) == []


def test_a_thread_is_a_leak(before: Footprint) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten", daemon=True)
    thread.start()
    assert names(before) == ["thread forgotten (Thread, daemon)"]
    end.set()
    thread.join()
    assert leaks_since(before) == []


def test_a_thread_that_is_about_to_end_gets_the_time(before: Footprint) -> None:
    thread = threading.Timer(0.1, lambda: None)
    thread.start()
    assert wait_for_leaks_to_go(before, 5.0) == []


def test_an_open_file_is_a_leak(before: Footprint, tmp_path: Path) -> None:
    path = tmp_path / "forgotten"
    with path.open("w"):
        assert names(before) == [f"file {path}"]
    assert leaks_since(before) == []


def test_a_socket_is_a_leak_and_its_address_is_shown(before: Footprint) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        (name,) = names(before)
        assert name.startswith("file socket:")
        assert str(listener.getsockname()[1]) in name
    assert leaks_since(before) == []


def test_a_pipe_is_a_leak_at_both_its_ends(before: Footprint) -> None:
    ends = os.pipe()
    (name,) = names(before)
    assert name.startswith("file pipe:")
    assert name.endswith("(2 times)")
    for end in ends:
        os.close(end)


def test_garbage_in_a_cycle_is_no_leak(before: Footprint) -> None:
    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.end = os.open(os.devnull.replace("null", "zero"), os.O_RDONLY)

        def __del__(self) -> None:
            os.close(self.end)

    Holder()
    assert wait_for_leaks_to_go(before, 0.0) == []


@pytest.fixture
def shared_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which other programs make their runtime directories too, as they do in /dev/shm."""
    monkeypatch.setattr(leaks, "shared_bases", lambda: [tmp_path])
    return tmp_path


def test_the_runtime_directory_base_of_a_test_run_is_its_own() -> None:
    base = leaks.private_base()
    assert os.environ["XDG_RUNTIME_DIR"] == str(base)
    assert str(os.getpid()) in base.name
    assert stat.S_IMODE(base.stat().st_mode) == 0o700


def test_a_runtime_directory_in_the_base_of_the_test_run_is_a_leak(before: Footprint) -> None:
    path = leaks.private_base() / "suitkaise-lost"
    path.mkdir()
    assert names(before) == [f"directory {path}"]
    clean_up(leaks_since(before))
    assert not path.exists()


def test_a_runtime_directory_of_this_process_is_a_leak_in_every_base(before: Footprint, shared_base: Path) -> None:
    path = shared_base / f"suitkaise-{os.getpid()}-lost"
    path.mkdir()
    assert names(before) == [f"directory {path}"]


def test_a_runtime_directory_of_a_living_child_is_a_leak_in_every_base(
    before: Footprint, shared_base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    path = shared_base / f"suitkaise-{sleeper.pid}-lost"
    path.mkdir()
    assert f"directory {path}" in names(before)


def test_a_runtime_directory_of_a_program_that_the_test_ran_is_a_leak_in_every_base(
    before: Footprint, shared_base: Path
) -> None:
    code = "import os, sys\nos.mkdir(f'{sys.argv[1]}/suitkaise-{os.getpid()}-lost')\n"
    run_program(code, str(shared_base)).check()
    (path,) = shared_base.iterdir()
    assert names(before) == [f"directory {path}"]


def test_a_runtime_directory_of_another_program_is_neither_reported_nor_removed(
    before: Footprint, shared_base: Path
) -> None:
    code = f"import os, sys; os.mkdir(f'{{sys.argv[1]}}/suitkaise-{{os.getpid()}}-x'); {SLEEPER}"
    with started_by_another_program(code, str(shared_base)) as pid:
        path = shared_base / f"suitkaise-{pid}-x"
        assert names(before) == []
        clean_up(wait_for_leaks_to_go(before, 0.0))
        assert path.exists()
    assert names(before) == []  # nor once that program has ended and has left its directory behind
    assert path.exists()


def test_a_runtime_directory_of_another_program_may_disappear_during_a_test(shared_base: Path) -> None:
    path = shared_base / "suitkaise-1-x"
    path.mkdir()
    before = Footprint.take()
    path.rmdir()
    assert names(before) == []


def test_a_process_of_another_program_is_no_leak(before: Footprint) -> None:
    with started_by_another_program(SLEEPER) as pid:
        assert pid in psutil.pids()
        assert names(before) == []


def test_a_leaking_test_fails_and_the_next_one_does_not_suffer(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text())
    pytester.makepyprojecttoml(
        """
        [tool.pytest]
        markers = ["fast", "may_leave"]
        """
    )
    pytester.makepyfile(
        f"""
        import os, subprocess, sys, threading
        import pytest

        def test_process():
            subprocess.run([sys.executable, "-c", {ORPHAN!r}], check=True)

        def test_thread():
            threading.Thread(target=threading.Event().wait, name="lost", daemon=True).start()

        def test_file():
            os.open(".", os.O_RDONLY)

        def test_directory():
            os.mkdir(os.environ["XDG_RUNTIME_DIR"] + "/suitkaise-lost")

        @pytest.mark.may_leave("thread abandoned-*")
        def test_allowed():
            threading.Thread(target=threading.Event().wait, name="abandoned-1", daemon=True).start()

        def test_clean():
            assert not os.path.exists(os.environ["XDG_RUNTIME_DIR"] + "/suitkaise-lost")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=6, errors=4)
    result.stdout.fnmatch_lines(
        [
            "*process pid *signal.pause*",
            "*thread lost (Thread, daemon)",
            f"*file {pytester.path}",
            "*directory *lost",
        ]
    )


@pytest.fixture(autouse=True)
def short_grace_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITKAISE_TEST_GRACE", "0.2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# --- the helpers that the check and the other tests stand on -------------------------------------------


def test_eventually_returns_the_first_true_value() -> None:
    answers = iter([0, "", "yes"])
    assert eventually(lambda: next(answers)) == "yes"


def test_eventually_fails_at_its_deadline_and_shows_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 seconds: rain \(the last value was 0\)"):
        eventually(lambda: 0, timeout=0.01, what="rain")


def test_wait_gone_returns_for_a_pid_that_never_existed() -> None:
    wait_gone(2**22 + 1, timeout=0)


def test_wait_gone_counts_a_zombie_as_gone(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    wait_gone(sleeper.pid)


def test_wait_gone_fails_for_a_process_that_stays(sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(AssertionError, match=rf"process {sleeper.pid} is still there after 0\.01 seconds: .*pause"):
        wait_gone(sleeper.pid, timeout=0.01)


def test_wait_gone_waits_for_a_process_that_is_not_a_child() -> None:
    with start_program(ORPHAN + "\n") as program:
        program.expect("up")
        (orphan,) = program.relatives()
        assert orphan.ppid() != os.getpid()
        orphan.kill()
        wait_gone(orphan.pid)


def test_run_program_returns_code_and_output_and_passes_arguments_and_environment() -> None:
    code = "import os, sys\nprint(sys.argv[1], os.environ['COLOUR'], 'PATH' in os.environ)\nsys.exit('over')\n"
    finished = run_program(code, "one", env={"COLOUR": "red", "PATH": None})
    assert (finished.returncode, finished.stdout, finished.stderr) == (1, "one red False\n", "over\n")
    with pytest.raises(AssertionError, match="exit code 1"):
        finished.check()


def test_run_program_kills_and_names_what_a_program_leaves_behind() -> None:
    finished = run_program(ORPHAN + "\n", grace=0.0)
    assert finished.returncode == 0
    (description,) = finished.left_behind
    assert "signal.pause" in description
    pid = int(description.removeprefix("pid ").partition(",")[0])
    wait_gone(pid, timeout=0)


def test_run_program_kills_a_program_that_takes_too_long_and_its_relatives() -> None:
    code = f"{ORPHAN}\nimport signal; signal.pause()\n"
    started = time.monotonic()
    with pytest.raises(AssertionError, match="still running after"):
        run_program(code, timeout=0.3)
    assert time.monotonic() - started < 5.0


def test_a_started_program_gets_signals_and_its_output_can_be_awaited() -> None:
    code = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up")
signal.sigwait([signal.SIGTERM])
print("asked")
"""
    with start_program(code) as program:
        assert program.expect("up") == "up\n"
        program.send_signal(signal.SIGTERM)
        program.expect("asked")
        assert program.wait() == 0
    assert program.left_behind == []


def test_expect_fails_as_soon_as_the_program_can_print_no_more() -> None:
    with (
        start_program("print('this')\n\n") as program,
        pytest.raises(AssertionError, match="'that' not printed"),
    ):
        program.expect("that", timeout=30.0)

"""Commands as children: exit reasons, readiness, output, and the end of all processes of a command."""

import logging
import os
import re
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    Command,
    Crashed,
    DynamicSupervisor,
    ExitCode,
    Hung,
    Killed,
    Lost,
    Normal,
    Process,
    Shutdown,
    Signaled,
    SuitkaiseError,
    Supervisor,
)
from suitkaise.events import ChildStartFailure, ChildStopError, ChildStopped
from suitkaise.runtime import runtime
from suitkaise.status import Status
from tests.end_to_end.kinds import kill_the_keeper, next_event, next_exit
from tests.sample_workers import Echo
from tests.support import eventually, is_alive, start_program, wait_gone

PROGRAMS = Path(__file__).with_name("programs")
WAYS = ("plain", "session", "daemon", "bare")
MARKED = WAYS[:3]  # these still have the environment that they were given


def python(source, *args, **options):
    return Command(sys.executable, "-u", "-c", source, *args, **{"name": "it", **options})


def sh(script, **options):
    return Command("sh", "-c", script, **{"name": "it", **options})


# ---------------------------------------------------------------- exit reasons
@pytest.mark.parametrize(
    "script, reason",
    [
        ("exit 0", Normal()),
        ("exit 3", ExitCode(3)),
        ("kill -KILL $$", Signaled(9)),
        ("kill -TERM $$", Signaled(15)),
        ("kill -SEGV $$", Signaled(11)),
        ("exit 143", ExitCode(143)),
    ],
)
def test_a_command_ends_with_its_own_exit_code_or_signal(script, reason):
    with Supervisor("tree", Child(sh(script), restart="temporary")).start() as running:
        assert running["it"].join(10) == reason


def test_the_result_of_a_command_is_its_exit_code():
    tree = Supervisor("tree", Child(sh("exit 0"), restart="transient"), Child(sh("cat"), id="eof", restart="transient"))
    with tree.start() as running:
        assert running["it"].result(10) == 0
        assert running["eof"].result(10) == 0  # its standard input is empty


def test_s25_a_command_is_restarted_by_the_rules_of_any_child(tmp_path):
    once = f"test -e {tmp_path}/second && exit 0; touch {tmp_path}/second; exit 7"
    with Supervisor("tree", Child(sh(once), restart="transient")).start() as running:
        assert running["it"].join(10) == Normal()
        assert running.which_children()[0].restarts == 1


def test_a_command_that_is_killed_by_a_signal_from_outside_is_restarted():
    with Supervisor("tree", sh("exec sleep 1000")).start() as running, running.events() as events:
        pid = running["it"].pid
        eventually(lambda: psutil.Process(pid).cmdline() == ["sleep", "1000"], what="the shell has become sleep")
        os.kill(pid, signal.SIGKILL)
        assert next_exit(events) == Signaled(9)
        again = eventually(lambda: running["it"].pid != pid and running["it"].pid)
        eventually(lambda: psutil.Process(again).cmdline() == ["sleep", "1000"], what="the shell has become sleep")


def test_sigterm_to_the_guard_of_a_command_ends_the_command():
    with Supervisor("tree", Child(sh("exec sleep 1000"), restart="temporary")).start() as running:
        ref = running["it"]
        pid = ref.pid
        psutil.Process(psutil.Process(pid).ppid()).terminate()
        assert ref.join(10) == Signaled(15)
        assert not is_alive(pid)


# ---------------------------------------------------------------- stopping
def test_s42_a_command_gets_its_stop_signal_and_its_shutdown_time():
    polite = """
import signal, sys
def end(number, frame):
    print("ends by", number)
    sys.exit(0)
signal.signal(signal.SIGINT, end)
print("up")
while True: signal.pause()
"""
    with Supervisor("tree", python(polite, ready="up", stop_signal=signal.SIGINT)).start() as running:
        with running.events() as events:
            running.terminate_child("it")
            assert next_event(events, ChildStopped).reason == Shutdown()


@pytest.mark.parametrize("script", ["exec sleep 1000", "trap 'exit 143' TERM; echo up; while :; do sleep 0.01; done"])
def test_an_end_by_the_stop_signal_is_clean(script):
    with Supervisor("tree", sh(script)).start() as running, running.events() as events:
        running.terminate_child("it")
        assert next_event(events, (ChildStopped, ChildStopError)).reason == Shutdown()


def test_s43_an_odd_exit_while_a_command_is_stopped_is_reported_and_restarts_nothing():
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"
    with Supervisor("tree", sh(script, ready="up")).start() as running, running.events() as events:
        running.terminate_child("it")
        assert next_event(events, ChildStopError).reason == ExitCode(5)
        line = running.which_children()[0]
        assert (line.status, line.restarts, line.last_exit) == (Status.STOPPED, 0, ExitCode(5))


def test_the_process_group_has_the_shutdown_time_when_the_command_ends_at_once(tmp_path):
    slow = f"""
import os, pathlib, signal, sys
if os.fork() == 0:
    def end(number, frame):
        signal.sigtimedwait([signal.SIGUSR1], 0.2)
        pathlib.Path({str(tmp_path / "saved")!r}).touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    print("up")
while True: signal.pause()
"""
    with Supervisor("tree", python(slow, ready="up")).start() as running:
        running.terminate_child("it")
        assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("shutdown, why", [(0.2, "shutdown timeout"), ("brutal_kill", "brutal_kill")])
def test_s42_a_command_that_ignores_the_signal_is_killed_with_its_group(shutdown, why):
    deaf = "trap '' TERM; echo up; while :; do sleep 1000; done"
    with Supervisor("tree", Child(sh(deaf, ready="up"), shutdown=shutdown)).start() as running:
        pid = running["it"].pid
        with running.events() as events:
            running.terminate_child("it")
            reason = next_event(events, (ChildStopped, ChildStopError)).reason
        assert reason == Killed(why)
        assert not is_alive(pid)


def test_s55_finish_timeout_limits_the_stop_of_a_command():
    deaf = Child(sh("trap '' TERM; echo up; while :; do sleep 1000; done", ready="up"), finish_timeout=0.2)
    with Supervisor("tree", deaf).start() as running, running.events() as events:
        pid = running["it"].pid
        running.terminate_child("it")
        assert isinstance(next_event(events, (ChildStopped, ChildStopError)).reason, Hung)
        assert not is_alive(pid)


def test_s39_a_command_that_is_not_ready_yet_is_stopped_promptly(tmp_path):
    file = tmp_path / "pid"
    tree = Supervisor("tree", sh(f"echo $$ > {file}; exec sleep 1000", ready="never"))
    failed = []

    def start():
        try:
            tree.start()
        except SuitkaiseError as error:
            failed.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    pid = int(eventually(lambda: file.exists() and file.read_text(), timeout=10))
    runtime.running_trees()["tree"].stop()
    starter.join(10)
    assert failed
    assert not is_alive(pid)


def test_join_in_ends_a_command():
    with Supervisor("tree", Child(sh("exec sleep 1000"), restart="transient", join_in=0.1)).start() as running:
        assert running["it"].join(10) == Normal()


# ---------------------------------------------------------------- starting
LISTEN = """
import socket, sys
sock = socket.socket(socket.AF_UNIX if sys.argv[1] == "unix" else socket.AF_INET)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(sys.argv[2] if sys.argv[1] == "unix" else ("127.0.0.1", int(sys.argv[2])))
sock.listen()
while True: sock.accept()[0].close()
"""


@pytest.fixture
def port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("ready", [r"listening on \d+", re.compile(r"LISTENING", re.IGNORECASE)])
def test_s01_a_command_is_ready_when_it_prints_a_matching_line(ready, stream, tmp_path):
    script = f"""
import pathlib, sys
print("not yet", file=sys.{stream})
pathlib.Path({str(tmp_path / "there")!r}).touch()
print("now listening on 80", file=sys.{stream})
sys.stdin = None
import signal
signal.pause()
"""
    with Supervisor("tree", python(script, ready=ready), Echo()).start():
        assert (tmp_path / "there").exists()


def test_s01_a_command_is_ready_when_its_port_accepts_connections(port):
    for ready in (port, ("127.0.0.1", port)):
        with Supervisor("tree", python(LISTEN, "tcp", str(port), ready=ready)).start():
            socket.create_connection(("127.0.0.1", port), 1.0).close()


def test_s01_a_command_is_ready_when_its_unix_socket_accepts_connections(tmp_path):
    for ready in (tmp_path / "a", Path("b")):
        with Supervisor("tree", python(LISTEN, "unix", str(ready), ready=ready, cwd=tmp_path)).start():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / ready))


def test_s01_the_path_of_a_unix_socket_for_readiness_may_be_longer_than_an_address(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    it = python(LISTEN, "unix", "s", ready=Path("s"), cwd=folder)
    with Supervisor("tree", Child(it, start_timeout=10.0)).start() as running:
        assert running["it"].status == "running"


def test_s01_an_oserror_of_the_ready_function_means_not_ready(tmp_path):
    file = tmp_path / "there"

    def is_there():
        return "yes" in file.read_text()

    script = f"echo no > {file}; printf y >> {file}; printf es >> {file}; exec sleep 1000"
    with Supervisor("tree", sh(script, ready=is_there)).start():
        assert "yes" in file.read_text()


def test_the_output_of_a_command_is_read_while_its_ready_function_is_called(tmp_path):
    """The command writes more than a pipe holds before it makes the file."""
    script = f"""
import pathlib, signal
print("x" * 1_000_000)
pathlib.Path({str(tmp_path / "there")!r}).touch()
signal.pause()
"""
    with Supervisor("tree", Child(python(script, ready=(tmp_path / "there").exists), restart="temporary")).start():
        pass


def failure(command, **options):
    """Start a tree whose command fails to start; return the reason."""
    with pytest.raises(ChildStartFailed) as caught:
        Supervisor("tree", Child(command, **options)).start()
    return caught.value.reason


@pytest.mark.parametrize(
    "script, reason", [("exit 3", ExitCode(3)), ("kill -KILL $$", Signaled(9)), ("exit 0", Normal())]
)
@pytest.mark.parametrize("ready", ["never", 1, lambda: False])
def test_s02_a_command_that_ends_before_it_is_ready_has_failed_to_start(script, reason, ready):
    assert failure(sh(script, ready=ready)) == reason


def test_s02_a_command_that_cannot_be_started_is_a_start_failure(tmp_path):
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("no program")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for command, kind, text in (
        (Command("no-such-program"), FileNotFoundError, "no such program in PATH"),
        (Command("sleep 1000"), FileNotFoundError, r"one by one: Command\('sleep', '5'\)"),
        (Command("sh", "-c", "exit", env={"PATH": str(tmp_path)}), FileNotFoundError, str(tmp_path)),
        (Command(str(plain)), PermissionError, "Permission denied.*plain"),
        (Command(str(script)), FileNotFoundError, "script"),
        (Command(str(tmp_path)), PermissionError, "Permission denied"),
        (Command("true", cwd=tmp_path / "nowhere"), FileNotFoundError, "cwd: No such file or directory.*nowhere"),
    ):
        reason = failure(command)
        assert isinstance(reason, Crashed)
        assert type(reason.error) is kind
        assert re.search(text, str(reason)), str(reason)


def test_s55_start_timeout_limits_the_wait_for_readiness():
    assert isinstance(failure(sh("exec sleep 1000", ready="never"), start_timeout=0.5), Hung)


def test_an_exception_of_the_ready_function_fails_the_start():
    reason = failure(sh("exec sleep 1000", ready=lambda: 1 / 0))
    assert isinstance(reason, Crashed)
    assert isinstance(reason.error, ZeroDivisionError)


def test_s35_a_failed_restart_of_a_command_is_tried_again(tmp_path):
    script = f"test -e {tmp_path}/broken && exit 1; echo up; exec sleep 1000"
    tree = Supervisor("tree", sh(script, ready="up"), max_restarts=1000)
    with tree.start() as running, running.events() as events:
        (tmp_path / "broken").touch()
        os.kill(running["it"].pid, signal.SIGKILL)
        assert next_event(events, ChildStartFailure).reason == ExitCode(1)
        (tmp_path / "broken").unlink()
        eventually(lambda: running["it"].status is Status.RUNNING)


def test_a_command_has_its_environment_its_folder_and_an_empty_standard_input(tmp_path):
    script = "import os, sys; print(os.environ['ONE'], 'PATH' in os.environ, os.getcwd(), sys.stdin.read() == '')"
    command = python(script, env={"ONE": "1"}, cwd=tmp_path)
    with CapturedOutput() as output:
        with Supervisor("tree", Child(command, restart="transient")).start() as running:
            assert running["it"].join(10) == Normal()
            output.wait_for(f"1 True {tmp_path} True")


# ---------------------------------------------------------------- output
class CapturedOutput(logging.Handler):
    """The output of commands: records of `suitkaise.worker`."""

    def __enter__(self):
        self.records = []
        self._changed = threading.Condition()
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("suitkaise.worker").addHandler(self)
        return self

    def __exit__(self, *error):
        logging.getLogger().setLevel(self._level)
        logging.getLogger("suitkaise.worker").removeHandler(self)

    def emit(self, record):
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()

    def lines(self, stream=None):
        marks = {f"{record.path} {record.stream}: ": record for record in self.records}
        assert all(record.getMessage().startswith(mark) for mark, record in marks.items())
        return [
            record.getMessage().partition(f"{record.stream}: ")[2]
            for record in self.records
            if stream in (None, record.stream)
        ]

    def wait_for(self, line, timeout=10.0):
        with self._changed:
            assert self._changed.wait_for(lambda: line in self.lines(), timeout), self.lines()


def written(script):
    """Run a program as a command; return the lines of its (stdout, stderr) in the log."""
    with CapturedOutput() as output:
        with Supervisor("tree", Child(python(script), restart="temporary")).start() as running:
            assert running["it"].join(20) == Normal()
        return output.lines("stdout"), output.lines("stderr")


def test_output_goes_line_by_line_to_the_programs_logging():
    with CapturedOutput() as output:
        with Supervisor("tree", sh("echo one; echo two >&2; exec sleep 1000")).start() as running:
            output.wait_for("one")
            output.wait_for("two")
            for record in output.records:
                assert record.path == "tree/it"
                assert record.levelno == logging.INFO
                assert record.process == running["it"].pid
                assert record.name == "suitkaise.worker"
    assert (output.lines("stdout"), output.lines("stderr")) == (["one"], ["two"])


def test_a_last_line_without_an_end_is_a_line():
    assert written("print('one\\n\\ntwo', end='')") == (["one", "", "two"], [])


def test_a_very_long_line_is_logged_in_pieces():
    out, _ = written("print('x' * 100_000)")
    assert "".join(out) == "x" * 100_000
    assert max(map(len, out)) == 16_384


def test_output_that_is_not_text_is_shown_with_escapes():
    out, _ = written(r"import os; os.write(1, bytes(range(256)) + b'\nend\n')")
    assert out[-1] == "end"
    assert r"\x80\x81" in "".join(out)


def test_a_flood_of_output_is_read_completely():
    out, _ = written("for n in range(50_000): print(n)")
    assert out == [str(n) for n in range(50_000)]


def test_a_command_that_floods_its_output_can_be_stopped():
    with CapturedOutput():
        with Supervisor("tree", sh("yes")).start() as running:
            assert running["it"].status is Status.RUNNING
            with running.events() as events:
                running.terminate_child("it")
                assert next_event(events, ChildStopped).reason == Shutdown()


def test_a_process_that_holds_the_output_open_does_not_delay_the_end_of_the_command():
    out, _ = written(
        "import os, signal\nprint('parent')\ntold, written = os.pipe()\n"
        "if os.fork() == 0:\n os.setsid(); print('child'); os.write(written, b'.'); signal.pause()\n"
        "os.read(told, 1)"
    )
    assert sorted(out) == ["child", "parent"]


@pytest.mark.parametrize("end", ["exit 3", "kill -KILL $$"])
def test_s58_the_crash_report_of_a_command_shows_its_last_lines(end):
    with Supervisor("tree", Child(sh(f"echo one; echo two >&2; {end}"), restart="temporary")).start() as running:
        assert not running["it"].join(10).clean
        report = running.crashes()[-1]
    assert report.kind == "command"
    assert sorted(report.lines) == ["stderr: two", "stdout: one"]


@pytest.mark.parametrize("end, ready", [("exit 3", None), ("exec sleep 1000", r"\d")])
def test_s58_the_crash_report_of_a_command_has_the_pid_of_the_command_not_of_its_guard(end, ready):
    with Supervisor("tree", Child(sh(f"echo $$; {end}", ready=ready), restart="temporary")).start() as running:
        if ready is not None:
            psutil.Process(running["it"].pid).parent().kill()
        assert not running["it"].join(10).clean
        report = running.crashes()[-1]
    assert report.lines == (f"stdout: {report.pid}",)


def test_s58_the_crash_report_of_a_failed_start_has_the_pid_of_the_command():
    with Supervisor("tree").start() as running:
        with pytest.raises(ChildStartFailed):
            running.start_child(sh("echo $$; exit 3", ready="never"))
        report = running.crashes()[-1]
    assert report.lines == (f"stdout: {report.pid}",)


def test_s58_the_crash_report_of_a_command_killed_by_its_ref_shows_its_last_lines():
    tree = Supervisor("tree", Child(sh("echo one; echo two; exec sleep 1000", ready="two"), restart="temporary"))
    with tree.start() as running:
        ref = running["it"]
        ref.kill()
        assert ref.join(10) == Killed("ref.kill()")
        assert running.crashes()[-1].lines == ("stdout: one", "stdout: two")


# ---------------------------------------------------------------- suspension, lists, copies
def test_suspend_stops_the_process_group_and_resume_continues_it(tmp_path):
    with Supervisor("tree", sh("sleep 1000 & echo up; wait", ready="up")).start() as running:
        shell = psutil.Process(running["it"].pid)
        group = eventually(lambda: len(shell.children()) == 1 and [shell, *shell.children()])
        running.suspend("it")
        eventually(lambda: all(one.status() == psutil.STATUS_STOPPED for one in group))
        assert running["it"].status is Status.SUSPENDED
        running.resume("it")
        eventually(lambda: all(one.status() != psutil.STATUS_STOPPED for one in group))
        running.suspend("it")
        eventually(lambda: all(one.status() == psutil.STATUS_STOPPED for one in group))
        with running.events() as events:
            running.terminate_child("it")  # a stopped command is continued, so it gets SIGTERM
            assert next_event(events, ChildStopped).reason == Shutdown()


def test_the_end_of_a_suspended_command_is_noticed():
    with Supervisor("tree", Child(sh("exec sleep 1000"), restart="temporary")).start() as running:
        ref = running["it"]
        running.suspend("it")
        eventually(lambda: psutil.Process(ref.pid).status() == psutil.STATUS_STOPPED)
        os.kill(ref.pid, signal.SIGKILL)
        assert ref.join(10) == Signaled(9)


def test_a_message_to_a_command_is_refused_and_the_command_runs_on():
    with Supervisor("tree", sh("exec sleep 1000")).start() as running:
        with pytest.raises(SuitkaiseError, match="takes no messages"):
            running["it"].ask("what?")
        assert running["it"].is_alive()


def test_s20_a_command_is_listed_as_a_command():
    tree = Supervisor("tree", sh("exec sleep 1000"))
    assert str(tree).endswith("└─ it  command, permanent: sh -c 'exec sleep 1000'")
    with tree.start() as running:
        line = running.which_children()[0]
        assert (line.id, line.kind, line.status) == ("it", "command", Status.RUNNING)
        assert running.count_children().workers == 1
        assert f"pid {running['it'].pid}" in str(running.status())
        assert running.get_child_spec("it").kind == "command"


def test_each_copy_and_each_added_command_has_a_process_of_its_own():
    with Supervisor("tree", Child(sh("exec sleep 1000"), copies=2)).start() as running:
        running.start_child(sh("exec sleep 1000", name="later"))
        assert len({running[id].pid for id in ("it-0", "it-1", "later")}) == 3


def test_s53_commands_of_a_dynamic_supervisor_end_with_it():
    with DynamicSupervisor("tree").start() as running:
        pids = [running.start_child(sh("exec sleep 1000", name=f"it-{number}")).pid for number in range(5)]
        assert all(map(is_alive, pids))
    assert all_dead(pids)


# ---------------------------------------------------------------- all processes of a command
def family(file, *options, ways=WAYS):
    return Command(
        sys.executable,
        str(PROGRAMS / "process_family.py"),
        str(file),
        ",".join(ways),
        *options,
        ready="is there",
        name="family",
    )


def pids_of_family(file, incarnation=0):
    """Return the pids of one incarnation of the command and of its children (the first one is 0)."""
    lines = [line.split() for line in file.read_text().splitlines()]
    assert not [line for line in lines if line[0] == "overlap"]
    starts = [index for index, line in enumerate(lines) if line[0] == "self"]
    ends = [*starts[1:], len(lines)]
    pids = [int(pid) for _, pid in lines[starts[incarnation] : ends[incarnation]]]
    assert pids
    return pids


def all_dead(pids):
    return not [pid for pid in pids if is_alive(pid)]


def kill_it(running):
    running["family"].kill()


def kill_its_guard(running):
    os.kill(psutil.Process(running["family"].pid).ppid(), signal.SIGKILL)


def kill_the_command(running):
    os.kill(running["family"].pid, signal.SIGKILL)


@pytest.mark.parametrize("shutdown, options", [(0.3, ["--stubborn"]), (5.0, []), ("brutal_kill", [])])
def test_s46_nothing_of_a_command_outlives_its_stop(shutdown, options, tmp_path):
    file = tmp_path / "pids"
    with Supervisor("tree", Child(family(file, *options, ways=WAYS[1:]), shutdown=shutdown)).start() as running:
        pids = pids_of_family(file)
        assert len(pids) == 4
        assert all(map(is_alive, pids))
        running.terminate_child("family")
        assert all_dead(pids)


def test_s46_nothing_of_a_command_outlives_the_tree(tmp_path):
    with Supervisor("tree", Child(family(tmp_path / "pids"), shutdown=0.3)).start():
        pids = pids_of_family(tmp_path / "pids")
    assert len(pids) == 5
    assert all_dead(pids)


@pytest.mark.parametrize("kill, reason", [
    (kill_it, Killed("ref.kill()")), (kill_its_guard, Signaled(9)), (kill_the_command, Signaled(9)),
])  # fmt: skip
def test_s31_all_processes_of_a_command_are_gone_before_its_next_incarnation_starts(kill, reason, tmp_path):
    file = tmp_path / "pids"
    with Supervisor("tree", Child(family(file), shutdown="brutal_kill"), max_restarts=100).start() as running:
        for number in range(3):
            pids = pids_of_family(file, number)
            assert len(pids) == 5
            incarnation = running["family"].incarnation
            with running.events() as events:
                kill(running)
                assert next_exit(events) == reason
            assert all_dead(pids)
            eventually(lambda: running["family"].incarnation > incarnation and running["family"].pid)  # noqa: B023
            eventually(lambda: running["family"].status is Status.RUNNING)


def test_a_hung_start_leaves_nothing(tmp_path):
    command = Command(sys.executable, str(PROGRAMS / "process_family.py"), str(tmp_path / "pids"), ",".join(WAYS),
                      ready="never", name="family")  # fmt: skip
    assert isinstance(failure(command, start_timeout=2.0), Hung)
    pids = pids_of_family(tmp_path / "pids")
    assert len(pids) == 5
    assert all_dead(pids)


def test_a_command_outlives_the_keeper_and_its_stop_ends_all_its_processes(tmp_path):
    with Supervisor("tree", Child(family(tmp_path / "pids", ways=WAYS[1:]))).start() as running:
        pids = pids_of_family(tmp_path / "pids")
        kill_the_keeper(for_commands=True)
        assert all(map(is_alive, pids))
        running.terminate_child("family")
        assert all_dead(pids)


@pytest.mark.parametrize("kill, reason", [
    (kill_it, Killed("ref.kill()")), (kill_its_guard, Lost("its exit status: the keeper was killed")),
    (kill_the_command, Signaled(9)),
])  # fmt: skip
def test_s31_all_processes_are_gone_before_the_next_incarnation_also_when_the_keeper_was_killed(kill, reason, tmp_path):
    file = tmp_path / "pids"
    tree = Supervisor("tree", Child(family(file, ways=MARKED), shutdown="brutal_kill"), max_restarts=100)
    with tree.start() as running, running.events() as events:
        pids = pids_of_family(file)
        kill_the_keeper(for_commands=True)
        kill(running)
        assert next_exit(events) == reason
        assert all_dead(pids)
        eventually(lambda: len(pids_of_family(file, -1)) == 4 and pids_of_family(file, -1) != pids)
        eventually(lambda: running["family"].status is Status.RUNNING)


def test_the_daemon_of_a_worker_is_not_killed_with_a_command(tmp_path):
    with Supervisor("tree", Child(Daemonizes, args=(tmp_path / "pid",)), sh("exec sleep 1000")).start() as running:
        pid = int((tmp_path / "pid").read_text())
        running["daemonizes"].kill()
        running["it"].kill()
        eventually(lambda: running.which_children()[1].restarts == 1)
        assert is_alive(pid)
    assert is_alive(pid)
    for number in map(int, (tmp_path / "pid").read_text().split()):
        os.kill(number, signal.SIGKILL)
        wait_gone(number)


class Daemonizes(Process):
    """Starts a daemon that outlives it."""

    keep_children = True

    def __init__(self, file):
        self.file = file

    def on_start(self):
        if os.fork() == 0:
            os.setsid()
            pid = os.fork()
            if pid == 0:
                os.execvp("sleep", ["sleep", "1000"])
            with self.file.open("a") as file:
                file.write(f"{pid}\n")
            os._exit(0)
        os.wait()


# ---------------------------------------------------------------- the end of the program
def family_of(file, *options, ways=WAYS, shutdown=0.3):
    return start_program(PROGRAMS / "process_family_worker.py", str(file), ",".join(ways), str(shutdown), *options)


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_the_killed_program(options, tmp_path):
    with family_of(tmp_path / "pids", *options) as program:
        program.expect("up")
        pids = pids_of_family(tmp_path / "pids")
        program.send_signal(signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


def test_nothing_of_a_command_outlives_the_kill_of_the_programs_whole_group(tmp_path):
    with family_of(tmp_path / "pids", "--stubborn") as program:
        program.expect("up")
        pids = pids_of_family(tmp_path / "pids")
        os.killpg(program.pid, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_hub_and_keeper_killed_together(options, tmp_path):
    with family_of(tmp_path / "pids", *options) as program:
        program.expect("up")
        keeper = int(program.expect("keeper").split()[1])
        pids = pids_of_family(tmp_path / "pids")
        os.kill(keeper, signal.SIGSTOP)  # a stopped keeper is not replaced before the hub is gone
        program.send_signal(signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_a_hub_killed_after_its_keeper(options, tmp_path):
    with family_of(tmp_path / "pids", *options, ways=MARKED) as program:
        program.expect("up")
        old = int(program.expect("keeper").split()[1])
        pids = pids_of_family(tmp_path / "pids")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: [p for p in psutil.Process(program.pid).children() if _is_new_keeper(p)], timeout=10)
        program.send_signal(signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


def _is_new_keeper(process):
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == process.pid
    return False


@pytest.mark.may_leave("directory */suitkaise-*")  # hub and keeper were killed; the next program removes it
def test_a_command_ends_when_hub_keeper_and_guard_are_killed_together(tmp_path):
    with family_of(tmp_path / "pids", ways=WAYS[:1]) as program:
        pid = int(program.expect("up").split()[2])
        keeper = int(program.expect("keeper").split()[1])
        guard = psutil.Process(pid).ppid()
        for one in (keeper, guard):
            os.kill(one, signal.SIGSTOP)
        for one in (program.pid, keeper, guard):
            os.kill(one, signal.SIGKILL)
        wait_gone(pid)
        for one in pids_of_family(tmp_path / "pids"):  # no process is left that could kill them
            if is_alive(one):
                os.kill(one, signal.SIGKILL)

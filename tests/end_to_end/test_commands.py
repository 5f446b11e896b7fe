"""Commands as children: exit reasons, stops, readiness and output."""

import grp
import logging
import os
import pwd
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
    Normal,
    Shutdown,
    Signaled,
    SuitkaiseError,
    Supervisor,
)
from suitkaise.events import ChildStartFailure, ChildStopError, ChildStopped
from suitkaise.platform import log_queue
from suitkaise.runtime import runtime
from suitkaise.status import Status
from suitkaise.workers import readiness
from tests.end_to_end.kinds import next_event, next_exit
from tests.sample_workers import Echo
from tests.support import GRACE, eventually, in_background, is_alive, run_program, wait_gone


def python(source, *args, **options):
    return Command(sys.executable, "-u", "-c", source, *args, **{"name": "it", **options})


def sh(script, **options):
    return Command("sh", "-c", script, **{"name": "it", **options})


def all_dead(pids):
    return not [pid for pid in pids if is_alive(pid)]


@pytest.fixture(scope="module", autouse=True)
def one_keeper_of_commands(one_runtime_for_all):
    """Have the keeper that the first command starts outlive it, for all tests of this module."""
    assert lines_of(sh("echo up")) == ["up"]


def test_a_command_may_have_a_file_whose_name_is_no_utf_8(tmp_path):
    file = os.path.join(os.fsencode(tmp_path), b"say-\xff")
    os.symlink("/bin/echo", file)
    assert lines_of(Command(os.fsdecode(file), "hello", name="it")) == ["hello"]


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


def test_s69_a_command_that_ends_with_0_when_it_and_its_guard_get_sigterm_was_asked_to_end():
    polite = sh("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", ready="up")
    with Supervisor("tree", Child(polite, restart="temporary")).start() as running:
        ref = running["it"]
        pid = ref.pid
        guard = psutil.Process(psutil.Process(pid).ppid())
        guard.suspend()
        psutil.Process(pid).terminate()
        wait_gone(pid)
        guard.terminate()
        guard.resume()
        assert ref.join(10) == Signaled(15)


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


HELPER = "trap 'sleep 0.2; touch $SAVED; exit 0' TERM; echo helper-up; while :; do sleep 0.01; done"


@pytest.mark.parametrize("script", [
    "setsid sh -c \"$HELPER\" & trap 'exit 0' TERM; wait",
    "bash -m -c 'sh -c \"$HELPER\" & trap \"exit 0\" TERM; wait'",
    "setsid -f sh -c \"$HELPER\"; exec sleep 1000",
], ids=["session", "group", "daemon"])  # fmt: skip
def test_s74_a_process_of_a_command_in_its_own_session_or_group_gets_the_stop_signal_and_the_grace(script, tmp_path):
    saved = tmp_path / "saved"
    it = Command("bash", "-c", script, name="it", env={"HELPER": HELPER, "SAVED": str(saved)}, ready="helper-up")
    with Supervisor("tree", Child(it, shutdown=20.0)).start() as running, running.events() as events:
        running.terminate_child("it")
        assert next_event(events, (ChildStopped, ChildStopError)).reason == Shutdown()
    assert saved.exists()


def test_s74_a_stop_gets_every_process_of_a_command_out_of_its_suspension(tmp_path):
    saved = tmp_path / "saved"
    helper = "trap 'touch $SAVED; exit 0' TERM; sleep 1000 & echo helper-up; wait"
    script = "setsid sh -c \"$HELPER\" & trap 'exit 0' TERM; wait"
    it = Command("bash", "-c", script, name="it", env={"HELPER": helper, "SAVED": str(saved)}, ready="helper-up")
    with Supervisor("tree", Child(it, shutdown=20.0)).start() as running:
        shell = psutil.Process(running["it"].pid)
        running.suspend("it")
        everything = [shell, *shell.children()]
        eventually(lambda: all(one.status() == psutil.STATUS_STOPPED for one in everything))
        running.terminate_child("it")
    assert saved.exists()


MASTER = """
import pathlib, signal, subprocess, sys
worker = subprocess.Popen(["sh", "-c", "read line; echo served"], stdin=subprocess.PIPE)
def drain(number, frame):
    worker.communicate(b"finish\\n")
    pathlib.Path(sys.argv[1]).write_text(str(worker.returncode))
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print("up")
while True: signal.pause()
"""


@pytest.mark.parametrize("kill_mode, code", [("mixed", "0"), ("group", "-15")])
def test_s74_in_mixed_mode_only_the_main_process_gets_the_stop_signal(kill_mode, code, tmp_path):
    master = python(MASTER, str(tmp_path / "code"), ready="up", kill_mode=kill_mode)
    with Supervisor("tree", Child(master, shutdown=20.0)).start() as running, running.events() as events:
        running.terminate_child("it")
        assert next_event(events, (ChildStopped, ChildStopError)).reason == Shutdown()
    assert (tmp_path / "code").read_text() == code


def test_s74_in_mixed_mode_what_is_left_when_the_main_process_has_ended_is_killed():
    script = "(trap '' TERM; echo $BASHPID up; while :; do sleep 1000; done) & trap 'exit 0' TERM; wait"
    it = Command("bash", "-c", script, name="it", ready="up", kill_mode="mixed")
    with CapturedOutput() as output, Supervisor("tree", Child(it, shutdown="infinity")).start() as running:
        [line] = eventually(lambda: output.lines("stdout"))
        running.terminate_child("it")
        assert not is_alive(int(line.split()[0]))


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


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_s39_a_command_whose_fifo_nobody_opens_is_stopped_promptly(stream, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    tree = Supervisor("tree", Child(sh("exit", **{stream: tmp_path / "fifo"}), shutdown=3 * GRACE))
    starting = in_background(tree.start)
    begun = eventually(lambda: runtime.running_trees().get("tree"))
    eventually(lambda: begun.which_children()[0].status == "starting")
    begun.stop()
    with pytest.raises(SuitkaiseError):
        starting.result(GRACE)


def test_join_in_ends_a_command():
    with Supervisor("tree", Child(sh("exec sleep 1000"), restart="transient", join_in=0.1)).start() as running:
        assert running["it"].join(10) == Normal()


# ---------------------------------------------------------------- starting
LISTEN = """
import os, socket, sys
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


@pytest.mark.parametrize("line, ready", [
    ("Uvicorn running on http://[::1]:80 (Press CTRL+C to quit)", "(Press CTRL+C"),
    ("listening on [::]:80", "on [::]:80"),
    ("is it up?", "up?"),
])  # fmt: skip
def test_s01_a_text_for_readiness_is_found_as_it_is_also_where_it_is_a_pattern_or_a_wrong_one(line, ready):
    with Supervisor("tree", Child(sh(f"echo '{line}'; exec sleep 1000", ready=ready), start_timeout=20.0)).start():
        pass


TAKES_OVER = """
import socket, sys
from pathlib import Path
family, address = sys.argv[1:3]
sys.stdin.readline()  # the stranger has closed its socket
sock = socket.socket(getattr(socket, family))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(address if family == "AF_UNIX" else (address, int(sys.argv[3])))
Path(sys.argv[4]).touch()
sock.listen()
while True: sock.accept()[0].close()
"""


@pytest.mark.parametrize("family, address", [
    ("AF_INET", "127.0.0.1"), ("AF_INET", "0.0.0.0"), ("AF_INET6", "::1"), ("AF_INET6", "::"), ("AF_UNIX", "sock"),
])  # fmt: skip
def test_s01_an_answer_of_a_process_that_the_command_has_not_started_does_not_count(family, address, tmp_path):
    os.mkfifo(tmp_path / "gate")
    stranger = socket.socket(getattr(socket, family))
    with stranger:
        stranger.bind(str(tmp_path / "sock") if family == "AF_UNIX" else (address, 0))
        stranger.listen()
        port = 0 if family == "AF_UNIX" else stranger.getsockname()[1]
        ready = tmp_path / "sock" if family == "AF_UNIX" else ("::1", port) if family == "AF_INET6" else port
        it = Command("sh", "-c", f"exec {sys.executable} -c \"$SOURCE\" {family} {address} {port} bound < gate",
                     name="it", env={"SOURCE": TAKES_OVER}, ready=ready, cwd=tmp_path)  # fmt: skip
        with CapturedOutput() as output:
            starting = in_background(Supervisor("tree", it).start)
            output.wait_for_message(rf"is held by \S+ \(pid {os.getpid()}\), which the command has not started")
            assert not starting.done()
            (tmp_path / "sock").unlink(missing_ok=True)
            stranger.close()
            (tmp_path / "gate").write_text("go\n")
            with starting.result(20):
                assert (tmp_path / "bound").exists()
            assert len([one for one in output.records if "is held by" in one.getMessage()]) == 1


def test_s01_a_socket_of_a_process_that_the_command_has_left_behind_counts(port, tmp_path):
    daemon = f'setsid -f {sys.executable} -c "$LISTEN" tcp {port}; exec sleep 1000'
    Supervisor("tree", sh(daemon, ready=port, env={"LISTEN": LISTEN})).start().stop()
    forks = "import os\nif os.fork(): import signal; signal.pause()\n"
    source = LISTEN.replace("sock.listen()\n", "sock.listen()\nif os.fork(): os._exit(0)\n")
    unix = python(forks + source, "unix", "s", ready=Path("s"), cwd=tmp_path)  # the one that called `listen` has ended
    Supervisor("tree", unix).start().stop()


def test_s01_a_connection_of_a_port_with_itself_is_no_answer(port, monkeypatch):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        sock.connect(("127.0.0.1", port))
        monkeypatch.setattr(socket, "create_connection", lambda *args: sock)
        assert not readiness.probe_of(port, ".")()


def test_s58_a_start_that_timed_out_tells_what_it_waited_for_and_the_crash_report_names_the_stranger():
    with socket.create_server(("127.0.0.1", 0)) as stranger, Supervisor("tree").start() as running:
        it = sh("exec sleep 1000", ready=stranger.getsockname()[1])
        with pytest.raises(ChildStartFailed) as caught:
            running.start_child(Child(it, start_timeout=1.0))
        assert re.search(r"not ready: it waits for an answer on port \d+ \(.* is held by", caught.value.traceback)
        [line] = running.crashes()[-1].lines
        assert re.search(rf"port \d+ .* is held by .*pid {os.getpid()}", line)


NEVER_READY = """
import logging, sys
from suitkaise import Command, Supervisor
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
ready = {"text": "never", "port": 1, "function": lambda: False}[sys.argv[1]]
Supervisor("tree", Command("sh", "-c", f"{sys.argv[2]}; sleep 2", name="it", ready=ready)).start()
"""


@pytest.mark.parametrize("ready, wanted", [
    ("text", r"a line of output with 'never' \(it has written none\); Child"),
    ("function", "a true value of <lambda>; Child"),
    ("port", r"an answer on port 1 \(\[Errno 111\] Connection refused\); Child"),
])  # fmt: skip
def test_s01_a_command_that_is_not_ready_for_long_tells_once_what_it_waits_for(ready, wanted, tmp_path):
    impatient = "from suitkaise.workers import command\ncommand.STILL_WAITS = 1.0\n"  # a busy machine looks late
    (tmp_path / "sitecustomize.py").write_text(impatient)  # imported by every Python process at its start
    out = run_program(NEVER_READY, ready, ":", env={"PYTHONPATH": str(tmp_path)}).stdout
    assert len(re.findall(rf"WARNING tree/it: not ready after 1 s: it waits for {wanted}", out)) == 1


def test_a_command_whose_line_does_not_come_tells_its_last_line(tmp_path):
    impatient = "from suitkaise.workers import command\ncommand.STILL_WAITS = 0.5\n"
    (tmp_path / "sitecustomize.py").write_text(impatient)
    out = run_program(NEVER_READY, "text", "echo starting; echo Ready.", env={"PYTHONPATH": str(tmp_path)}).stdout
    assert "it waits for a line of output with 'never' (its last line is 'Ready.'); Child" in out


@pytest.mark.parametrize("ready", [None, "never"])
def test_a_command_that_goes_into_the_background_is_told_to_stay_in_the_foreground(ready):
    """A daemon: its first process ends at once, and what it leaves behind is killed."""
    tree = Supervisor("tree", Child(sh("sleep 1000 & setsid sleep 1000 & exit 0", ready=ready), restart="temporary"))
    with CapturedOutput() as output:
        with suppress(ChildStartFailed), tree.start() as running:
            running["it"].join(10)
        told = r"tree/it: .* left 2 processes behind, now killed: \S+ \(pid \d+\), \S+ \(pid \d+\); .* foreground"
        output.wait_for_message(told)
        assert {record.path for record in output.records} == {"tree/it"}


@pytest.mark.parametrize("kill_mode", ["group", "mixed"])
def test_a_command_that_fails_or_is_stopped_is_not_taken_for_a_daemon(kill_mode):
    """What it leaves behind is killed without a word."""
    script = "sleep 1000 & trap 'exit 0' TERM; echo up; "
    commands = (
        sh(f"{script} exit 3", kill_mode=kill_mode),
        sh(f"{script} wait", ready="up", kill_mode=kill_mode, name="stopped"),
    )
    with CapturedOutput() as output:
        with Supervisor("tree", *(Child(one, restart="temporary") for one in commands)).start() as running:
            running["it"].join(10)
        assert [record.getMessage() for record in output.records if record.levelno >= logging.WARNING] == []


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
    plain, script, from_elsewhere = tmp_path / "plain", tmp_path / "script", tmp_path / "from-elsewhere"
    plain.write_text("no program")
    no_format = tmp_path / "no-format"
    no_format.write_text("echo hello\n")
    no_format.chmod(0o755)
    script.write_text("#!/no/such/interpreter -u\n")
    from_elsewhere.write_bytes(b"#!/bin/sh\r\n")
    no_loader, other_machine = tmp_path / "no-loader", tmp_path / "other-machine"
    program = Path(sys.executable).resolve().read_bytes()
    loader = re.search(rb"/lib[^\0]*/ld-[^\0]+", program)
    assert loader is not None, "this Python has no loader"
    no_loader.write_bytes(program.replace(loader[0], b"/no".ljust(len(loader[0]), b"o")))
    other_machine.write_bytes(program[:18] + b"\xff\xff" + program[20:])
    below_plain, no_interpreter = tmp_path / "below-plain", tmp_path / "no-interpreter"
    below_plain.write_text(f"#! {plain}\n")
    no_interpreter.write_text("#!\n")
    below_script = tmp_path / "below-script"
    below_script.write_text(f"#!{script}\n")
    for file in script, from_elsewhere, no_loader, other_machine, below_plain, no_interpreter, below_script:
        file.chmod(0o755)
    for command, kind, text in (
        (Command("no-such-program"), FileNotFoundError, "no such program in PATH"),
        (Command("sleep 1000"), FileNotFoundError, r"one by one: Command\('sleep', '5'\)"),
        (Command("sh", "-c", "exit", env={"PATH": str(tmp_path)}), FileNotFoundError, str(tmp_path)),
        (Command(str(plain)), PermissionError, "the file is not executable .Permission denied.*plain"),
        (Command(str(no_format)), OSError, "no program, and no script: its first line does not begin with '#!'.*no-f"),
        (Command(str(script)), FileNotFoundError, "names '/no/such/interpreter' as its interpreter.*script"),
        (Command("script", env={"PATH": str(tmp_path)}), FileNotFoundError, "'/no/such/interpreter'"),
        (Command("./script", cwd=tmp_path), FileNotFoundError, "'/no/such/interpreter'"),
        (Command(str(from_elsewhere)), FileNotFoundError, r"'/bin/sh\\r'"),
        (Command(str(below_script)), FileNotFoundError, f"names '{script}' as its interpreter, and what that needs is"),
        (Command(str(tmp_path)), PermissionError, "it is a folder .Permission denied"),
        (Command(str(no_loader)), FileNotFoundError, "the loader that it needs is missing.*/no-loader"),
        (Command(str(other_machine)), OSError, "a program for another kind of machine .Exec format error.*/other-mach"),
        (Command(str(below_plain)), PermissionError, f"names '{plain}' as its interpreter, which is not executable"),
        (Command(str(no_interpreter)), OSError, "its first line names no interpreter .Exec format error"),
        (Command("plain", env={"PATH": str(tmp_path)}), PermissionError, f"the file is not executable.*'{plain}'"),
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


# ---------------------------------------------------------------- the process of a command
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")


def lines_of(command):
    """Run a command to its clean end; return what it has written to the log."""
    with CapturedOutput() as output:
        with Supervisor("tree", Child(command, restart="transient")).start() as running:
            assert running["it"].join(20) == Normal()
        return output.lines()


def test_a_command_adds_its_variables_to_the_programs(monkeypatch):
    monkeypatch.setenv("SK_ONE", "1")
    assert lines_of(sh("echo $SK_ONE $SK_TWO", env={"SK_TWO": "2"})) == ["1 2"]


def test_a_command_has_its_umask_its_priority_and_its_limits():
    show = "umask; nice; ulimit -Sn; ulimit -Hn; ulimit -Sc"
    it = Command(
        "bash",
        "-c",
        show,
        name="it",
        umask=0o027,
        nice=7,
        limits={"nofile": (64, 128), "core": 0, "as": (1 << 26, 1 << 27)},
    )
    assert lines_of(it) == ["0027", "7", "64", "128", "0"]


@needs_root
@pytest.mark.parametrize("user, group, shown", [
    ("nobody", None, "{nobody.pw_uid} {nobody.pw_gid} {nobody.pw_gid}"),
    ("nobody", "daemon", "{nobody.pw_uid} {daemon.gr_gid} {daemon.gr_gid}"),
    (4_000_000, 12, "4000000 12 12"),
    (None, "daemon", "0 {daemon.gr_gid}"),
])  # fmt: skip
def test_a_command_runs_as_its_user_with_the_groups_of_that_user_alone(user, group, shown):
    [line] = lines_of(sh("echo $(id -u) $(id -g) $(id -G)", user=user, group=group, cwd="/"))
    shown = shown.format(nobody=pwd.getpwnam("nobody"), daemon=grp.getgrnam("daemon"))
    assert line.startswith(shown)
    assert user is None or line == shown


@needs_root
def test_the_environment_of_a_command_names_its_user_unless_env_does(tmp_path):
    show = "echo $USER $LOGNAME $HOME"
    assert lines_of(sh(show, user="daemon")) == [f"daemon daemon {pwd.getpwnam('daemon').pw_dir}"]
    assert lines_of(sh(show, user="daemon", env={"HOME": "/srv"})) == ["daemon daemon /srv"]


@needs_root
def test_a_command_of_another_user_may_open_its_terminal():
    assert lines_of(sh("tty > $(tty) && echo yes", user="nobody", tty=True, cwd="/"))[1:] == ["yes"]


@needs_root
def test_a_command_of_another_user_may_open_its_standard_streams():
    """Web servers have /dev/stdout and /dev/stderr as the files of their logs."""
    script = "cat /dev/stdin > /dev/stdout && echo err > /dev/stderr"
    assert sorted(lines_of(sh(script, stdin="in\n", user="nobody", cwd="/"))) == ["err", "in"]


@needs_root
def test_a_command_of_another_user_is_stopped_with_all_its_processes():
    script = "setsid sleep 1000 & sleep 1000 & echo up; wait"
    with Supervisor("tree", sh(script, user="nobody", ready="up", cwd="/")).start() as running:
        shell = psutil.Process(running["it"].pid)
        everything = eventually(lambda: len(shell.children()) == 2 and [shell, *shell.children()])
        running.terminate_child("it")
        assert all_dead([one.pid for one in everything])


UNPRIVILEGED = """
import os, resource
from suitkaise.platform.processes import become_subreaper
from suitkaise.workers.command_options import process_options
from suitkaise.workers.command_start import start
from suitkaise.workers.output import OutputPipes

become_subreaper()
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
plain = dict.fromkeys(("user", "group", "umask", "nice", "limits", "stdin"), None)
plain.update(stdout="null", stderr="null", tty=False)
for options in ({"user": os.getuid()}, {"user": "root"}, {"group": 0}, {"nice": -5}, {"limits": {"core": "infinity"}}):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pipes = OutputPipes(lambda stream, line: None, lambda runs: None)
        popen = start(("true",), os.environ, "/", process_options("it", **{**plain, **options}), pipes)
        print("code", popen.wait())
    except PermissionError as error:
        print(error)
"""


def test_a_right_that_is_missing_is_named_by_the_failed_start():
    own, user, group, nice, limits = run_program(UNPRIVILEGED).check().stdout.splitlines()
    assert own == "code 0"
    assert "Operation not permitted: user='root': only root may start a command as another user: 'true'" in user
    assert "group=0: only root may start a command in another group" in group
    assert "Permission denied: nice=-5" in nice
    assert "Operation not permitted: limits: core=infinity" in limits


def test_an_option_that_cannot_be_applied_fails_the_start(tmp_path):
    reason = failure(sh("exit", stdout=tmp_path / "no" / "file"))
    assert isinstance(reason.error, FileNotFoundError)
    assert "stdout: No such file or directory" in str(reason)
    assert "stdin: No such file or directory" in str(failure(sh("exit", stdin=Path("no-file"), cwd=tmp_path)))


def test_the_standard_input_of_a_command_may_be_a_file_or_given(tmp_path):
    (tmp_path / "file").write_text("from the file\n")
    assert lines_of(sh("cat", stdin=Path("file"), cwd=tmp_path)) == ["from the file"]
    assert lines_of(sh("cat", stdin="a text: \u00e9\n")) == ["a text: \u00e9"]
    assert lines_of(sh("wc -c", stdin=b"x" * 5_000_000)) == ["5000000"]  # more than a pipe holds


def test_a_command_starts_when_the_other_end_of_a_fifo_of_its_streams_is_open(tmp_path):
    os.mkfifo(tmp_path / "in")
    os.mkfifo(tmp_path / "out")
    it = Child(sh("cat", stdin=tmp_path / "in", stdout=tmp_path / "out"), restart="temporary")
    starting = in_background(Supervisor("tree", it).start)
    (tmp_path / "in").write_text("from the fifo\n")
    assert (tmp_path / "out").read_text() == "from the fifo\n"
    starting.result(GRACE).stop()


INHERITS = """
import os, subprocess
from suitkaise import Command, Supervisor
def has_read():
    return subprocess.run(["cat"], stdout=subprocess.PIPE).stdout == b"" and os.path.exists("there")
script = "sleep 0.2; read line; echo got $line; echo wrong >&2; touch there; exec sleep 1000"
it = Command("sh", "-c", script, stdin="inherit", stdout="inherit", stderr="null", ready=has_read)
with Supervisor("tree", it).start():
    print("up", flush=True)
"""


def test_a_command_may_share_the_standard_streams_of_the_program_which_its_ready_function_leaves_alone(tmp_path):
    (tmp_path / "program.py").write_text(INHERITS)
    (tmp_path / "input").write_text("a line\n")
    out = run_program(["sh", "-c", f"exec {sys.executable} program.py < input"], cwd=tmp_path).check()
    assert (out.stdout, out.stderr) == ("got a line\nup\n", "")


NON_BLOCKING = """
import os, sys
from suitkaise import Child, Command, Supervisor
change = "import os; os.set_blocking(0, False); os.set_blocking(1, False); os.set_blocking(2, False); print('changed')"
it = Command(sys.executable, "-c", change, stdin="inherit", stdout="inherit", stderr="inherit", name="it")
with Supervisor("tree", Child(it, restart="temporary")).start() as running:
    running["it"].join()
print(*map(os.get_blocking, range(3)))
"""
IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize("start", ["echo | {0}", "{1} -c '" + IN_A_TERMINAL + "' {0}"], ids=["pipes", "terminal"])
def test_a_command_that_makes_its_streams_non_blocking_leaves_those_of_the_program_as_they_are(start, tmp_path):
    """Programs for Node.js and ssh do. The program would lose lines of its log then."""
    (tmp_path / "program.py").write_text(NON_BLOCKING)
    shell = start.format(f"{sys.executable} program.py", sys.executable)
    out = run_program(["sh", "-c", shell], cwd=tmp_path).check().stdout
    assert out.split() == ["changed", "True", "True", "True"]


def test_a_file_for_the_output_of_a_command_is_appended_to(tmp_path):
    file = tmp_path / "out"
    file.write_text("before\n")
    assert lines_of(sh("echo one; echo two >&2; echo three", stdout=file, stderr=str(file))) == []
    assert file.read_text() == "before\none\ntwo\nthree\n"
    assert lines_of(sh("echo one; echo two >&2", stdout=Path("out"), cwd=tmp_path)) == ["two"]
    assert file.read_text().endswith("three\none\n")


def test_a_command_with_a_terminal_writes_one_stream_to_it():
    show = "import os, sys; print(*map(os.isatty, (0, 1, 2)), os.get_terminal_size().columns, flush=True);"
    show += "[print(n, file=(sys.stdout, sys.stderr)[n % 2], flush=True) for n in range(9)]; open('/dev/tty').close()"
    assert lines_of(python(show, tty=True)) == ["True True True 80", *map(str, range(9))]
    assert lines_of(python("print('the end', end='')", tty=True)) == ["the end"]
    assert lines_of(sh("cat; test -t 1", tty=True, stdin="given\n")) == ["given"]


def test_a_command_with_a_terminal_is_stopped_as_any_other():
    with Supervisor("tree", sh("sleep 1000 & echo up; wait", tty=True, ready="up")).start() as running:
        shell = psutil.Process(running["it"].pid)
        everything = eventually(lambda: len(shell.children()) == 1 and [shell, *shell.children()])
        with running.events() as events:
            running.terminate_child("it")
            assert next_event(events, (ChildStopped, ChildStopError)).reason == Shutdown()
        assert all_dead([one.pid for one in everything])


def test_a_command_that_closes_its_terminal_runs_on_and_may_open_it_again(tmp_path):
    go = f"until test -e {tmp_path}/go; do sleep 0.02; done"
    leaves = sh(f"echo up; exec </dev/null >/dev/null 2>&1; {go}; echo again >/dev/tty; exit 7", tty=True, ready="up")
    with CapturedOutput() as output:
        with Supervisor("tree", Child(leaves, restart="temporary")).start() as running:
            shell = psutil.Process(running["it"].pid)
            guard = shell.parent()
            eventually(lambda: shell.terminal() and "pts" not in str(descriptors_of(shell.pid)), what="it is closed")
            eventually(lambda: guard.status() == psutil.STATUS_SLEEPING, what="the guard has noticed that")
            (tmp_path / "go").touch()
            assert running["it"].join(10) == ExitCode(7)
        assert output.lines() == ["up", "again"]


def descriptors_of(pid):
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)]


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
        if log_queue._open is not None:
            log_queue._open.flush()  # or the next test gets what is left
        logging.getLogger().setLevel(self._level)
        logging.getLogger("suitkaise.worker").removeHandler(self)

    def emit(self, record):
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()

    def lines(self, stream=None):
        written = [record for record in self.records if hasattr(record, "stream")]  # not what is logged about it
        marks = {f"{record.path} {record.stream}: ": record for record in written}
        assert all(record.getMessage().startswith(mark) for mark, record in marks.items())
        return [
            record.getMessage().partition(f"{record.stream}: ")[2]
            for record in written
            if stream in (None, record.stream)
        ]

    def wait_for_message(self, pattern, timeout=10.0):
        with self._changed:
            messages = lambda: [record.getMessage() for record in self.records]  # noqa: E731
            assert self._changed.wait_for(lambda: re.search(pattern, "\n".join(messages())), timeout), messages()

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
    child = Child(python("for n in range(50_000): print(n)"), restart="temporary")
    with CapturedOutput() as output:
        with Supervisor("tree", child).start() as running:
            assert running["it"].join(50) == Normal()
            eventually(lambda: len(output.records) >= 50_000, timeout=50)
    assert output.lines("stdout") == [str(n) for n in range(50_000)]


def test_stdout_and_stderr_keep_their_order():
    script = "import os\nfor n in range(1000): os.write(1 + n % 2, b'%d\\n' % n)"
    with CapturedOutput() as output:
        with Supervisor("tree", Child(python(script), restart="temporary")).start() as running:
            assert running["it"].join(50) == Normal()
    assert output.lines() == [str(n) for n in range(1000)]


def test_a_prompt_without_a_line_end_is_logged_and_counts_as_ready():
    script = "import signal; print('Password: ', end='', flush=True); signal.pause()"
    with CapturedOutput() as output, Supervisor("tree", python(script, ready="Password: $")).start():
        eventually(lambda: output.lines("stdout") == ["Password: "])
        assert [record.partial for record in output.records] == [True]


def test_the_rest_of_a_line_that_was_logged_as_a_prompt_follows_and_the_whole_line_counts_as_ready(tmp_path):
    script = (
        "import os, signal, time; print('Starting ... ', end='', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "print('done', flush=True); signal.pause()"
    )
    with CapturedOutput() as output:
        child = python(script, ready="^Starting ... done$", cwd=tmp_path)
        starting = in_background(lambda: Supervisor("tree", child).start())
        output.wait_for("Starting ... ")
        assert not starting.done()
        Path(tmp_path, "go").touch()
        starting.result(20).stop()
    assert output.lines("stdout") == ["Starting ... ", "done"]


class Sluggish(logging.Handler):
    """Takes 20 ms for each record of a command's output."""

    def __init__(self):
        super().__init__()
        self.never = threading.Event()

    def emit(self, record):
        self.never.wait(0.02)


def test_s76_an_order_to_stop_overtakes_the_log_lines_of_a_command_that_floods_a_slow_handler(tmp_path):
    script = (
        "import signal, sys\ndef end(*_): open('ended', 'w').close(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nwhile True: print('x' * 100)"
    )
    handler = Sluggish()
    with CapturedOutput():
        logging.getLogger("suitkaise.worker").addHandler(handler)
        try:
            with Supervisor("tree", python(script, cwd=tmp_path)).start() as running, running.events() as events:
                records = runtime.current().engine_context.logs
                eventually(lambda: records._too_slow, timeout=30)
                running.terminate_child("it")
                assert next_event(events, ChildStopped).reason == Shutdown()
        finally:
            handler.never.set()
            logging.getLogger("suitkaise.worker").removeHandler(handler)
    assert Path(tmp_path, "ended").exists()


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

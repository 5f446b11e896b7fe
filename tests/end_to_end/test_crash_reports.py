"""Rule 58: every abnormal end of a worker leaves a report in memory and on disk, which survives any kill."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Backoff, Child, ChildStartFailed, CrashReport, Process, Supervisor, Thread
from suitkaise.crashes import read_reports
from suitkaise.engines import process_handle
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import wait_for_incarnation
from tests.end_to_end.workers_hanging import HangingProcess
from tests.support import GRACE, eventually, in_background, run_program, start_program

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Talks(Process):
    """Prints and logs in its loops; the first incarnation ends in its fifth loop."""

    def __init__(self, end: str = "kill") -> None:
        self.end = end

    def loop(self) -> None:
        print(f"process {self.pid}, loop {self.current_loop}")
        self.log.warning("logging", loop=self.current_loop)
        if self.current_loop == 5 and self.recalled is None:
            match self.end:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(3)
                case "sys.exit":
                    sys.exit(4)
                case "raise":
                    raise LookupError("in the fifth loop")
        self.wait(0.001)


class TalksInAThread(Thread):
    def loop(self) -> None:
        self.log.warning("logging", loop=self.current_loop)
        if self.current_loop == 5 and self.recalled is None:
            raise LookupError("in the fifth loop")
        self.wait(0.001)


class Prints(Process):
    """At a message, prints a thousand long lines and some odd ones, then kills itself."""

    def on_receive(self, message: Any) -> None:
        for number in range(1000):
            print(f"{number}: " + "long " * 20, flush=True)
        print("é" * 3, "☃", file=sys.stderr)
        sys.stdout.write("no end of line")
        os.kill(os.getpid(), signal.SIGKILL)


class Exits(Process):
    def loop(self) -> None:
        sys.exit("there is no configuration")


def first(running: RunningTree) -> CrashReport:
    reports = eventually(running.crashes, what="a report")
    return reports[0]


def on_disk(id: str) -> CrashReport:
    return eventually(
        lambda: next((one for one in read_reports()[0] if one.id == id), None), what="the report is on disk"
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    "end, reason, kind",
    [
        ("kill", "signal 9 (SIGKILL)", "Signaled"),
        ("exit", "exit code 3", "ExitCode"),
        ("sys.exit", "exit code 4", "ExitCode"),
        ("raise", "LookupError in loop: in the fifth loop", "Crashed"),
    ],
)
def test_s58_a_crash_report_shows_phase_loop_and_last_lines_of_each_end(end: str, reason: str, kind: str) -> None:
    with Supervisor("tree", Child(Talks, args=(end,), id="w")).start() as running:
        report = first(running)
        assert (report.path, report.kind, report.incarnation) == ("tree/w", "process", 1)
        assert (report.reason, report.reason_kind) == (reason, kind)
        assert (report.phase, report.loop) == ("loop", 5)
        assert (report.verdict, report.used, report.allowed, report.seconds) == ("restarts", 1, 3, 5.0)
        assert 0 < report.uptime < 60
        assert report.lines[-2:] == (f"process {report.pid}, loop 5", "warning: tree/w: logging loop=5")
        assert ("in loop" in report.traceback) == (end == "raise")
        assert on_disk(report.id) == report


def test_s58_the_message_of_sys_exit_is_among_the_last_lines() -> None:
    with Supervisor("tree", Child(Exits, restart="temporary")).start() as running:
        report = first(running)
    assert (report.reason, report.lines) == ("exit code 1", ("there is no configuration",))


def test_s58_the_report_of_a_thread_shows_its_log_lines() -> None:
    with Supervisor("tree", Child(TalksInAThread, id="w")).start() as running:
        report = first(running)
    assert (report.kind, report.phase, report.loop, report.reason_kind) == ("thread", "loop", 5, "Crashed")
    assert report.lines[-1] == "warning: tree/w: logging loop=5"
    assert "in the fifth loop" in report.traceback


def test_s58_the_report_of_a_hung_worker_shows_its_phase_and_its_stack(tmp_path: Path) -> None:
    child = Child(HangingProcess, args=(tmp_path, "loop"), id="w", loop_timeout=0.2)
    (tmp_path / "hang").touch()
    with Supervisor("tree", child).start() as running:
        report = first(running)
    assert (report.phase, report.reason_kind) == ("loop", "Hung")
    assert report.in_phase is not None
    assert report.in_phase >= 0.2
    assert "in sleeps" in report.traceback


class FailsToStart(Process):
    def on_start(self) -> None:
        print("I try")
        raise OSError("no disk")


def test_s58_a_failed_start_has_a_report() -> None:
    with pytest.raises(ChildStartFailed):
        Supervisor("unlucky", FailsToStart).start()
    [report] = eventually(lambda: [one for one in read_reports()[0] if one.path.startswith("unlucky/")])
    assert (report.path, report.phase, report.verdict) == ("unlucky/fails_to_start", "on_start", "stays down")
    assert report.lines == ("I try",)
    assert "OSError: no disk" in report.traceback


class Dies(Process):
    def on_receive(self, message: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_s58_a_report_names_the_siblings_that_are_restarted_in_the_group() -> None:
    children = [Child(Dies, id=id) for id in "abc"]
    for strategy, together in (("one_for_one", ()), ("rest_for_one", ("c",)), ("one_for_all", ("a", "c"))):
        with Supervisor(strategy, *children, strategy=strategy).start() as running:  # type: ignore[arg-type]
            running["b"].tell("die")
            assert first(running).together == together


def test_s27_s58_a_report_does_not_name_temporary_siblings_among_the_restarted() -> None:
    kept = ("transient", "permanent", "temporary", "permanent")
    children = [Child(Dies, id=id, restart=restart) for id, restart in zip("abcd", kept, strict=True)]  # type: ignore[arg-type]
    with Supervisor("tree", *children, strategy="one_for_all").start() as running:
        running["b"].tell("die")
        assert first(running).together == ("a", "d")


def test_s58_the_verdicts_of_reports_show_the_last_allowed_restart_and_giving_up() -> None:
    running = Supervisor("tree", Child(Dies, id="w"), max_restarts=1).start()
    running["w"].tell("die")
    wait_for_incarnation(running, "w", 2)
    running["w"].tell("die")
    running.wait(10)
    assert [(one.verdict, one.used, one.restarts, one.incarnation) for one in running.crashes()] == [
        ("restarts", 1, 0, 1),
        ("gives up", 2, 1, 2),
    ]


def test_s58_a_tree_has_the_reports_of_its_own_run_and_not_those_of_another_one_of_its_name() -> None:
    def crashed() -> RunningTree:
        running = Supervisor("tree", Child(Dies, id="w", restart="temporary")).start()
        running["w"].tell("die")
        eventually(lambda: len(running.crashes()) == 1, what="the report")
        return running

    with Supervisor("other", Dies).start():
        with crashed() as former:
            ours = former.crashes()
        with crashed() as later:
            assert later.crashes() != ours
        assert former.crashes() == ours


def test_s58_a_crashed_temporary_child_stays_down_and_terminate_child_leaves_no_report() -> None:
    children = (
        Child(Dies, id="t", restart="temporary"),
        Child(Dies, id="o"),
        Child(Dies, id="b", shutdown="brutal_kill"),
    )
    with Supervisor("tree", *children).start() as running:
        running["t"].tell("die")
        assert first(running).verdict == "stays down"
        running.terminate_child("o")
        running.terminate_child("b")
        assert len(running.crashes()) == 1


def test_s58_a_report_shows_a_restart_that_waits_for_its_backoff() -> None:
    child = Child(Dies, id="w", backoff=Backoff(initial=60.0))
    with Supervisor("tree", child).start() as running:
        running["w"].tell("die")
        assert first(running).verdict == "restarts"


def test_s42_s58_a_child_that_had_to_be_killed_has_a_report_with_its_stacks(tmp_path: Path) -> None:
    child = Child(HangingProcess, args=(tmp_path, "loop"), id="w", shutdown=0.1)
    running = Supervisor("tree", child).start()
    (tmp_path / "hang").touch()
    eventually(lambda: not (tmp_path / "hang").exists(), what="the worker hangs")
    running.stop()
    [report] = running.crashes()
    assert (report.verdict, report.reason, report.phase) == ("is being stopped", "killed (shutdown timeout)", "loop")
    assert "in hang_if_ordered" in report.traceback
    assert "workers_hanging.py:" in report.where


def test_s42_a_kill_does_not_wait_for_the_stacks_of_a_worker_that_has_not_stopped_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_handle, "DUMP_TIME", 3600.0)
    child = Child(HangingProcess, args=(tmp_path, "loop"), id="w", shutdown=0.1)
    running = Supervisor("tree", child).start()
    (tmp_path / "hang").touch()
    eventually(lambda: not (tmp_path / "hang").exists(), what="the worker hangs")
    handle: Any = running._root.handles["w"]
    stopping = in_background(running.stop)
    eventually(lambda: handle._kill_reason is not None, what="its time to stop is over")
    running._root.kill("a second Ctrl-C")
    stopping.result(GRACE)
    assert [one.reason for one in running.crashes() if one.path == "tree/w"] == ["killed (shutdown timeout)"]


def test_s58_a_report_keeps_the_last_lines_only_and_survives_odd_bytes() -> None:
    with Supervisor("tree", Child(Prints, id="w")).start() as running:
        running["w"].tell("print")
        lines = first(running).lines
    assert len(lines) == 20
    assert lines[-2:] == ("ééé ☃", "no end of line")
    assert lines[-3].startswith("999: long")


# ------------------------------------------------------------ reports of a killed program
PROGRAM = """
import os, signal
from suitkaise import Process, Supervisor


class Dies(Process):
    def loop(self):
        print("last words of", self.pid, flush=True)
        if self.recalled is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait(60)


if __name__ == "__main__":
    with Supervisor("app", Dies).start() as running:
        running.wait()
"""


def test_s58_the_reports_survive_the_sigkill_of_the_program_and_the_command_line_shows_them(tmp_path: Path) -> None:
    state = {"SUITKAISE_STATE": str(tmp_path / "state")}
    with start_program(PROGRAM, env=state) as program:
        eventually(lambda: program.stdout.count("last words") == 2, timeout=15, what=program.stderr)
        eventually(lambda: list((tmp_path / "state" / "crashes").glob("2*.json")), what="the report is written")
        program.send_signal(signal.SIGKILL)
        program.wait()
    command = [sys.executable, "-m", "suitkaise", "crashes"]
    listed = run_program(command, env=state).check().stdout
    assert listed.count("\n") == 1
    assert "app/dies  signal 9 (SIGKILL)" in listed
    id = listed.split()[0]
    shown = run_program([*command, id[:15]], env=state).check().stdout
    assert "worker   app/dies (process, pid" in shown
    assert "phase    loop for" in shown
    assert "last words of" in shown
    assert json.loads(run_program([*command, "last", "--json"], env=state).check().stdout)["loop"] == 1
    assert [one["id"] for one in json.loads(run_program([*command, "--json"], env=state).check().stdout)] == [id]


def test_the_command_line_names_a_report_that_does_not_exist(tmp_path: Path) -> None:
    state = {"SUITKAISE_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "suitkaise", "crashes"]
    assert f"no crash reports in {tmp_path}" in run_program(command, env=state).check().stdout
    for id in ("last", "2026"):
        finished = run_program([*command, id], env=state)
        assert finished.returncode == 2
        assert f"there is no report '{id}'" in finished.stderr
    finished = run_program([*command, "app/worker"], env=state)
    assert "`suitkaise crashes --path app/worker` those of one part" in finished.stderr


def test_a_report_that_the_encoding_of_the_output_cannot_show_is_shown_with_escapes(tmp_path: Path) -> None:
    report = CrashReport(
        id="20260101-000000-000000-00", path="tree/w", kind="process", pid=1, incarnation=1, wall=0.0,
        reason="ValueError in loop: \udcff", reason_kind="Crashed", phase="loop", in_phase=None, loop=1, uptime=1.0,
        restarts=0, verdict="restarts", used=1, allowed=3, seconds=5.0, lines=("\u2603",),
    )  # fmt: skip
    (tmp_path / "crashes").mkdir()
    (tmp_path / "crashes" / f"{report.id}.json").write_text(json.dumps(report.to_dict()))
    command = [sys.executable, "-m", "suitkaise", "crashes"]
    for encoding in ("utf-8:strict", "ascii:strict"):
        state = {"SUITKAISE_STATE": str(tmp_path), "PYTHONIOENCODING": encoding}
        assert r"ValueError in loop: \udcff" in run_program(command, env=state).check().stdout
        assert r"ValueError in loop: \udcff" in run_program([*command, "last"], env=state).check().stdout
    assert r"\u2603" in run_program([*command, "last"], env=state).check().stdout


def test_s58_a_disk_that_cannot_be_written_is_logged_once_and_harms_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    monkeypatch.setenv("SUITKAISE_STATE", str(tmp_path / "state"))
    with Supervisor("tree", Child(Dies, id="w"), max_restarts=9).start() as running:
        for number in (1, 2):
            running["w"].tell("die")
            wait_for_incarnation(running, "w", number + 1)
        assert len(running.crashes()) == 2
        program = runtime.current()
        assert program is not None
        eventually(lambda: not program.crashes._unwritten and program.crashes._writer is None)
    eventually(lambda: "crash reports cannot be written to disk" in caplog.text)
    assert caplog.text.count("crash reports cannot be written to disk") == 1

"""The ledger of crash reports: bounded in memory and on disk, and silent about what it cannot do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import suitkaise
from suitkaise import cli
from suitkaise.crashes import (
    KEPT_IN_MEMORY,
    KEPT_ON_DISK,
    LARGEST,
    PER_SECOND,
    CrashLog,
    CrashReport,
    crash_directory,
    read_reports,
    where_of,
)
from suitkaise.escapes import has_control
from tests.support import eventually, no_thread_is_left

REPORT = CrashReport(
    id="20260101-000000-000000-00", path="a/b", kind="process", pid=1, incarnation=1, wall=0.0, reason="exit code 3",
    reason_kind="ExitCode", phase="loop", in_phase=1.0, loop=7, uptime=1.0, restarts=0, verdict="restarts", used=1,
    allowed=float("inf"), seconds=5.0, together=("c", "d"), lines=("one", "two"), traceback="Trace\n  back",
)  # fmt: skip


def some(number: int, path: str = "a/b") -> CrashReport:
    return replace(REPORT, id=f"20260101-000000-{number:06}-00", path=path)


def test_the_place_of_a_crash_is_in_the_program_and_not_in_a_library_of_its_virtual_environment() -> None:
    library = "/home/me/.venv/lib/python3.11/site-packages/requests/api.py"
    frames = f'''File "/home/me/app.py", line 31, in loop\n    get()\n  File "{library}", line 59, in get\n    1 / 0'''
    assert where_of(f"Traceback (most recent call last):\n  {frames}") == "app.py:31"
    only = f'Traceback (most recent call last):\n  File "{library}", line 59, in get'
    assert where_of(only) == "api.py:59"


def test_the_place_of_a_hang_is_not_the_command_line_of_the_keeper() -> None:
    ours = os.path.dirname(cli.__file__)
    stack = (
        f'Current thread 0x1 (most recent call first):\n  File "{ours}/a.py", line 7 in wait\n  File "<string>", line 1'
    )
    assert where_of(f"{stack} in <module>") == "a.py:7"
    own = stack.replace(f"{ours}/a.py", "/home/me/app.py")
    assert where_of(f"{own} in <module>") == "app.py:7"
    assert where_of('Current thread 0x1 (most recent call first):\n  File "<string>", line 3 in loop') == "<string>:3"


def test_s58_a_report_read_from_disk_equals_the_one_written() -> None:
    assert CrashReport.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


def test_s58_a_printed_report_shows_all_its_fields() -> None:
    text = str(replace(REPORT, skipped=4))
    for part in (
        "crash 20260101-000000-000000-00", "a/b (process, pid 1, incarnation 1)", "exit code 3", "loop for 1 s, loop 7",
        "uptime   1 s, after 0 restarts", "restarts; 1 of any number restarts used in 5 s", "together c, d",
        "4 earlier reports, not written to disk", "    one\n    two", "    Trace\n      back",
    ):  # fmt: skip
        assert part in text, text


def test_s58_a_report_of_a_worker_that_has_run_for_long_shows_its_times_in_seconds_and_not_as_powers_of_ten() -> None:
    text = str(replace(REPORT, in_phase=1800.0, uptime=18_034.2, allowed=10**6))
    for part in ("loop for 1800 s", "uptime   18034 s", "1 of 1000000 restarts"):
        assert part in text, text


def test_s58_memory_keeps_the_newest_reports(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path / "crashes")
    for number in range(KEPT_IN_MEMORY + 30):
        ledger.add(some(number))
    assert [one.id for one in ledger.reports("a")] == [some(n).id for n in range(30, KEPT_IN_MEMORY + 30)]
    ledger.close()


def test_s58_the_writing_thread_lives_only_while_it_writes(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path / "crashes")
    for number in range(3):
        ledger.add(some(number))
        eventually(lambda: "suitkaise-crashes" not in [thread.name for thread in threading.enumerate()])
        assert read_reports(tmp_path / "crashes")[0][-1] == some(number)
    ledger.close()


def test_s58_a_report_for_which_there_is_no_memory_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_dict = CrashReport.to_dict

    def refuse_first(report: CrashReport) -> dict[str, Any]:
        if report == some(1):
            raise MemoryError
        return to_dict(report)

    monkeypatch.setattr(CrashReport, "to_dict", refuse_first)
    ledger = CrashLog(tmp_path / "crashes")
    ledger.add(some(1))
    eventually(lambda: "suitkaise-crashes" not in [thread.name for thread in threading.enumerate()])
    ledger.add(some(2))
    eventually(lambda: read_reports(tmp_path / "crashes")[0] == [some(2)])
    ledger.close()


def test_s58_a_restart_does_not_wait_for_the_disk_but_the_end_of_the_program_does(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    ledger = CrashLog(tmp_path / "crashes", call_later=later.append)
    ledger.add(some(1))
    assert ledger.reports("a") == [some(1)]
    assert read_reports(tmp_path / "crashes")[0] == []
    assert len(later) == 1
    ledger.close()
    assert read_reports(tmp_path / "crashes")[0] == [some(1)]


def test_s58_where_no_thread_can_be_started_the_end_of_the_program_writes_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = CrashLog(tmp_path / "crashes")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread_is_left)
        ledger.add(some(1))
        assert read_reports(tmp_path / "crashes")[0] == []
        ledger.close()
    assert read_reports(tmp_path / "crashes")[0] == [some(1)]


def test_s58_the_reports_of_a_supervisor_include_those_of_its_children(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path / "crashes")
    for path in ("a", "a/b", "ab/c", "a/b/c"):
        ledger.add(some(1, path))
    assert [one.path for one in ledger.reports("a")] == ["a", "a/b", "a/b/c"]
    assert [one.path for one in ledger.reports("a/b")] == ["a/b", "a/b/c"]
    ledger.close()


def test_s58_a_storm_is_counted_and_not_written(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path)
    now = [100.0]
    ledger._clock = lambda: now[0]
    for number in range(50):
        ledger.add(some(number))
    ledger.add(some(50, "a/other"))
    ledger.close()
    assert [one.path for one in read_reports(tmp_path)[0]] == ["a/b"] * PER_SECOND + ["a/other"]
    now[0] = 102.0
    ledger.add(some(99))
    ledger.close()
    assert read_reports(tmp_path)[0][-1].skipped == 50 - PER_SECOND


def test_s58_the_reports_of_a_user_are_private_and_bounded(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path / "crashes")
    for number in range(KEPT_ON_DISK + 10):
        ledger.add(some(number, f"a/b{number}"))
    ledger.close()
    kept = read_reports(tmp_path / "crashes")[0]
    assert [one.id for one in kept] == [some(number).id for number in range(10, KEPT_ON_DISK + 10)]
    assert (tmp_path / "crashes").stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in (tmp_path / "crashes").iterdir())


def test_s58_files_that_are_no_reports_are_skipped(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path)
    ledger.add(some(5))
    ledger.close()
    (tmp_path / "20260101-000000-000001-00.json").write_text("{")
    (tmp_path / "20260101-000000-000002-00.json").write_text("{}")
    (tmp_path / "notes.json").write_text("{}")
    assert [one.id for one in read_reports(tmp_path)[0]] == [some(5).id]
    assert read_reports(tmp_path / "nowhere")[0] == []


def test_the_folder_of_reports_follows_the_environment(monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SUITKAISE_STATE", "/own")
    assert crash_directory() == Path("/own/crashes")
    monkeypatch.delenv("SUITKAISE_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert crash_directory() == Path("/state/suitkaise/crashes")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert crash_directory() == Path("/home/me/.local/state/suitkaise/crashes")


def test_s58_only_reports_are_removed_to_make_room(tmp_path: Path) -> None:
    for name in ("0-notes.txt", ".tmp-of-somebody", "20200101-000000-000000-00.json.bak"):
        (tmp_path / name).write_text("not ours")
    (tmp_path / ".20991231-000000-000000-00.json").write_text("{")  # which another program writes this moment
    (tmp_path / ".20200101-000000-000000-00.json").write_text("{")  # whose program was killed long ago
    ledger = CrashLog(tmp_path)
    for number in range(KEPT_ON_DISK + 10):
        ledger.add(some(number, f"a/b{number}"))
    ledger.close()
    others = {file.name for file in tmp_path.iterdir()} - {f"{one.id}.json" for one in read_reports(tmp_path)[0]}
    assert others == {
        "0-notes.txt", ".tmp-of-somebody", "20200101-000000-000000-00.json.bak", ".20991231-000000-000000-00.json",
    }  # fmt: skip


def test_s58_the_memory_for_counting_storms_is_bounded(tmp_path: Path) -> None:
    ledger = CrashLog(tmp_path)
    now = [100.0]
    ledger._clock = lambda: now[0]
    for number in range(1000):
        now[0] += 0.5
        for _ in range(PER_SECOND + 1):
            ledger._is_too_much(f"pool/job-{number}")
    assert len(ledger._written) <= 2 * PER_SECOND
    assert len(ledger._skipped) <= KEPT_ON_DISK
    assert ledger._skipped["pool/job-999"] == 1


def test_s58_without_a_home_directory_reports_are_kept_in_memory_and_this_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SUITKAISE_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    ledger = CrashLog()
    for number in range(3):
        ledger.add(some(number))
        eventually(lambda: ledger._writer is None)
    ledger.close()
    assert len(ledger.reports("a")) == 3
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "crash reports cannot be written to disk: there is no home directory for crash reports; set "
    )


# --------------------------------------------------------------- files that are no reports
def content(**changed: object) -> bytes:
    return json.dumps({**REPORT.to_dict(), **changed}).encode()


ODD_FILES = {
    "empty": b"",
    "binary": bytes(range(256)),
    "cut off": content()[:100],
    "nested too deep": b"[" * 100_000,
    "no object": b"[1]",
    "a number of 5000 digits": b'{"wall": ' + b"9" * 5000 + b"}",
    "a time that no calendar has": content(wall=1e300),
    "a time that is no number": content(wall="x"),
    "NaN": content(wall=float("nan")),
    "text for a number": content(uptime="x"),
    "text for the allowed restarts": content(allowed="x"),
    "numbers for lines": content(lines=[1, 2]),
    "a number for a traceback": content(traceback=5),
    "a field is missing": json.dumps({"id": "0-1"}).encode(),
    "larger than any report": content(traceback="x" * (LARGEST + 1)),
}


@pytest.mark.parametrize("odd", ODD_FILES.values(), ids=list(ODD_FILES))
def test_s58_a_file_that_is_no_report_is_counted_and_hides_no_report(odd: bytes, tmp_path: Path) -> None:
    (tmp_path / "0-1.json").write_bytes(odd)
    (tmp_path / "0-2.json").write_bytes(content())
    assert read_reports(tmp_path) == ([REPORT], 1)


def test_s58_what_is_no_regular_file_is_counted_and_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0-1.json")
    (tmp_path / "0-2.json").mkdir()
    (tmp_path / "0-3.json").symlink_to("/dev/zero")
    (tmp_path / "0-4.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "0-5.json").write_bytes(content())
    assert read_reports(tmp_path) == ([REPORT], 4)


def test_s58_unknown_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "0-1.json").write_bytes(content(colour="red"))
    assert read_reports(tmp_path) == ([REPORT], 0)


def test_s58_a_report_neither_steers_a_terminal_nor_forges_a_line() -> None:
    evil = "\x1b[2J\x1b]0;title\x07\r\x9b2J\u202e\ud800\nforged line"
    report = replace(REPORT, path=f"app/{evil}", reason=evil, lines=(evil,), traceback=evil, phase=evil)
    for text in (str(report), report.line()):
        assert not [character for character in text if has_control(character) and character != "\n"]
    assert "\n" not in report.line()
    assert not [line for line in str(report).splitlines()[1:] if not line.startswith("  ")]


def test_s58_no_text_of_a_report_is_longer_than_64_kib_and_a_report_no_longer_than_256_kib() -> None:
    long = "\N{SNOWMAN}" * 1_000_000
    report = replace(REPORT, reason=long, traceback=long, lines=(long,) * 20, together=(long,) * 20)
    fields = {name: str(value) for name, value in report.to_dict().items()}
    assert max(len(text.encode()) for text in fields.values()) < 66_000
    assert sum(len(text.encode()) for text in fields.values()) < 256 << 10
    assert "2995904 bytes are left out" in report.reason
    assert "2934464 bytes are left out" in report.traceback
    assert report.lines[0] == "[... 17 earlier ones are left out ...]"


def test_s58_a_reason_without_a_traceback_has_64_kib() -> None:
    assert 65_000 < len(replace(REPORT, reason="x" * 1_000_000, traceback="").reason) < 66_000


def test_the_path_of_the_root_is_for_the_reports_of_all_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITKAISE_STATE", str(tmp_path))
    ledger = CrashLog(tmp_path / "crashes")
    ledger.add(some(5))
    ledger.close()
    assert cli.main(["crashes", "--path", "/"]) == 0
    assert some(5).id in capsys.readouterr().out


def test_a_folder_whose_name_begins_as_that_of_the_package_is_the_programs() -> None:
    package = os.path.dirname(suitkaise.__file__)
    frames = [
        f'  File "{package}_app/main.py", line 31, in loop',
        f'  File "{package}/workers/worker.py", line 1, in wait',
    ]
    assert where_of("Traceback (most recent call last):\n" + "\n".join(frames)) == "main.py:31"

"""A file for each worker: rotated by size, written by a thread of its own; a fault of the disk harms nothing else."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from suitkaise.events import SupervisorStarted
from suitkaise.messaging.log_rings import EVENT, Run
from suitkaise.runtime import log_files
from suitkaise.runtime.log_files import LogFiles, log_file
from tests.support import interrupted_at_each_line

LINES = [f"line {number} {'x' * 80}" for number in range(1_000)]


def write(files: LogFiles, *texts: str, path: str = "app/work") -> None:
    files.write(path, Run(1, "stdout", 1.0, texts))


def test_each_line_has_its_time_and_stream_and_a_record_of_several_lines_is_indented(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path / "logs"), None, 0)
    write(files, "one", "two")
    files.write("app/work", Run(1, "error", 2.5, ("app/work: failed\nTraceback",)))
    files.write("app", Run(0, EVENT, 3.0, (SupervisorStarted("app", 3.0),)))
    files.close()
    lines = (tmp_path / "logs/app/work.log").read_text().splitlines()
    assert [line.partition(".")[2] for line in lines[:3]] == ["000 stdout: one", "000 stdout: two", "500 error: failed"]
    assert lines[3] == "    Traceback"
    assert (tmp_path / "logs/app.log").read_text().endswith(" event: supervisor started\n")


def test_what_workers_print_or_log_neither_steers_a_terminal_nor_forges_a_line(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path / "logs"), None, 0)
    write(files, "\x1b[2Jgone\r", "one\n2030-01-01 stdout: forged")
    files.write("app/work", Run(1, "error", 2.5, ("app/work: \x1b]0;title\x07\nsecond",)))
    files.close()
    lines = (tmp_path / "logs/app/work.log").read_bytes().decode().split("\n")
    assert [line.partition(" stdout: ")[2] for line in lines[:2]] == [
        "\\x1b[2Jgone\\r", "one\\n2030-01-01 stdout: forged"
    ]  # fmt: skip
    assert lines[2].endswith(" error: \\x1b]0;title\\x07")
    assert lines[3:] == ["    second", ""]


def test_a_file_that_is_full_is_rotated_and_so_many_earlier_ones_are_kept(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), 10_000, 2)
    for start in range(0, 1_000, 20):
        write(files, *LINES[start : start + 20])
        assert files.flush()
    files.close()
    names = sorted(path.name for path in (tmp_path / "app").iterdir())
    assert names == ["work.log", "work.log.1", "work.log.2"]
    text = "".join((tmp_path / "app" / name).read_text() for name in reversed(names))
    kept = [line.partition("stdout: ")[2] for line in text.splitlines()]
    assert kept == LINES[-len(kept) :]
    assert all((tmp_path / "app" / name).stat().st_size <= 10_000 for name in names)


def test_one_long_piece_is_spread_over_files_at_the_ends_of_lines(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), 10_000, 100)
    write(files, *LINES, "x" * 30_000, "the last")
    files.close()
    sizes = sorted(path.stat().st_size for path in (tmp_path / "app").iterdir())
    assert [size for size in sizes if size > 10_000] == [sizes[-1]]  # the line that is longer than a file
    assert all(path.read_text().endswith("\n") for path in (tmp_path / "app").iterdir())


def test_without_backups_a_full_file_begins_anew(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), 10_000, 0)
    for start in range(0, 1_000, 20):
        write(files, *LINES[start : start + 20])
        assert files.flush()
    files.close()
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["work.log"]


def test_a_file_is_appended_to_and_made_anew_if_it_was_removed(tmp_path: Path) -> None:
    file = tmp_path / "app/work.log"
    for text in ("one", "two"):
        files = LogFiles(str(tmp_path), None, 0)
        write(files, text)
        files.close()
    files = LogFiles(str(tmp_path), None, 0)
    write(files, "three")
    assert files.flush()
    assert file.read_text().count("\n") == 3
    file.unlink()
    write(files, "four")
    files.close()
    assert file.read_text().endswith("stdout: four\n")
    assert file.read_text().count("\n") == 1


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_file_that_another_program_has_moved_is_made_anew(tmp_path: Path, made_anew: bool) -> None:
    files = LogFiles(str(tmp_path), None, 0)
    write(files, "before")
    assert files.flush()
    file = tmp_path / "app" / "work.log"
    file.rename(tmp_path / "moved")
    if made_anew:
        file.touch()
    write(files, "after")
    files.close()
    assert file.read_text().endswith("stdout: after\n")
    assert (tmp_path / "moved").read_text().endswith("stdout: before\n")


def test_two_programs_that_write_the_same_files_lose_no_line_in_their_rotations(tmp_path: Path) -> None:
    first, second = (LogFiles(str(tmp_path), 10_000, 100) for _ in range(2))
    for start in range(0, 1_000, 40):
        write(first, *LINES[start : start + 20])
        write(second, *LINES[start + 20 : start + 40])
    first.close()
    second.close()
    files = list((tmp_path / "app").iterdir())
    sizes = [file.stat().st_size for file in files if file.name != "work.log"]
    assert all(9_000 < size <= 20_000 for size in sizes), sizes  # each may fill the room that both have seen
    text = "".join(file.read_text() for file in files)
    assert sorted(line.partition("stdout: ")[2] for line in text.splitlines()) == sorted(LINES)


def test_more_workers_than_may_have_an_open_file_have_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "MOST_OPEN", 3)
    files = LogFiles(str(tmp_path), None, 0)
    for _ in range(2):
        for number in range(10):
            write(files, "here", path=f"app/work-{number}")
    files.close()
    assert all((tmp_path / f"app/work-{number}.log").read_text().count("here") == 2 for number in range(10))


def test_a_disk_that_is_full_is_told_once_and_so_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, written = [True], os.write

    def write_or_fail(descriptor: int, data: bytes) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return written(descriptor, data)

    caplog.set_level(logging.INFO, "suitkaise.logs")
    files = LogFiles(str(tmp_path), None, 0)
    monkeypatch.setattr(log_files.os, "write", write_or_fail)
    for number in range(5):
        write(files, "lost", path=f"app/work-{number}")
        assert files.flush()
    (told,) = caplog.messages
    assert "work-0.log cannot be written: No space left on device" in told
    full[0] = False
    for number in range(5):
        write(files, "kept", path=f"app/work-{number}")
    files.close()
    assert caplog.messages[1:] == [f"the log files in {tmp_path} are written again; 5 lines were dropped"]
    assert "kept" in (tmp_path / "app/work-4.log").read_text()


def test_lines_that_wait_for_a_disk_are_bounded_and_those_dropped_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_files, "MOST_WAITING", 1_000)
    files = LogFiles(str(tmp_path), None, 0)
    with files._changed:  # the thread cannot take them
        for _ in range(100):
            write(files, "x" * 100)
    files.close()
    assert (tmp_path / "app/work.log").read_text().count("\n") == 10
    (told,) = caplog.messages
    assert told == f"90 lines for the log files in {tmp_path} were dropped: the disk is too slow"


def test_the_name_of_a_worker_never_leads_out_of_the_directory(tmp_path: Path) -> None:
    assert log_file("/logs", "app/../..") == "/logs/app/%2E%2E/%2E%2E.log"
    names = {log_file("/logs", f"app/{'é' * 300}{number}") for number in range(2)}
    assert len(names) == 2
    assert all(len(os.fsencode(os.path.basename(name))) < 255 for name in names)


def test_a_name_that_no_file_can_have_is_written_with_escapes_and_harms_no_other_file(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), None, 0)
    for path in ("app/\ud800", "app/\ud800 part/a", "app/n\udcff", "app/work"):
        write(files, "a line", path=path)
    files.close()
    for file in ("\\ud800.log", "\\ud800 part/a.log", "n\udcff.log", "work.log"):
        assert (tmp_path / "app" / file).read_text().endswith("stdout: a line\n")


def test_a_supervisor_that_is_named_as_a_file_of_a_worker_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert log_file("/logs", "app/work.log/a") == "/logs/app/work%2Elog/a.log"
    assert log_file("/logs", "app/work.log.1/a") == "/logs/app/work%2Elog.1/a.log"
    for path in ("app/work", "app/work.log", "app.log/catalog.d", "app/log.10"):
        parts = log_file("/logs", path).removeprefix("/logs/").split("/")
        assert not any(re.search(r"\.log(\.\d+)?$", part) for part in parts[:-1])
    files = LogFiles(str(tmp_path), None, 0)
    for path in ("app/work.log/a", "app/work", "app/work.log"):
        write(files, "a line", path=path)
    files.close()
    for file in ("app/work%2Elog/a.log", "app/work.log", "app/work.log.log"):
        assert (tmp_path / file).read_text().count("\n") == 1


@pytest.mark.parametrize("again", [True, False])
def test_lines_that_come_while_no_thread_can_be_started_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    files = LogFiles(str(tmp_path), None, 0)
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", fail)
        write(files, "one")
        if not again:
            files.close()
    if again:
        write(files, "two")
        files.close()
    lines = (tmp_path / "app/work.log").read_text().splitlines()
    assert [line.partition("stdout: ")[2] for line in lines] == ["one", "two"][: 1 + again]


def test_an_entry_that_cannot_be_written_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = LogFiles(str(tmp_path), None, 0)
    files.write("app/work", Run(1, "stdout", float("nan"), ("lost",)))
    write(files, "kept")
    files.close()
    assert (tmp_path / "app/work.log").read_text().endswith(" stdout: kept\n")
    assert "'app/work'" in caplog.text


def test_a_line_that_a_full_disk_has_cut_is_ended_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LogFiles(str(tmp_path), None, 0)
    written = os.write

    def cut(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(log_files.os, "write", full)
        return written(descriptor, data[:30])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_files.os, "write", cut)
    write(files, "first")
    assert files.flush()
    write(files, "second")
    assert files.flush()
    monkeypatch.undo()
    write(files, "third")
    files.close()
    lines = (tmp_path / "app/work.log").read_text().splitlines()
    assert [line[24:] for line in lines] == ["stdout", "stdout: third"]


def test_a_signal_handler_may_log_at_any_moment_while_its_thread_does(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), None, 0)

    def prepare() -> Callable[[], None]:
        assert files.flush(5.0)
        return partial(write, files, "of the thread")

    moments = len(list(interrupted_at_each_line(prepare, partial(write, files, "of the handler"))))
    assert files.flush(5.0)
    files.close()
    lines = (tmp_path / "app/work.log").read_text().splitlines()
    assert len(lines) == 1 + 2 * moments

"""The ring of last lines."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from suitkaise.platform.tail import LINES, OF_COMMAND, SIZE, Printed, Tail, TailReader, last_lines
from tests.support import eventually


def test_s58_the_last_lines_can_be_read_while_the_writer_runs(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))
    assert last_lines(str(tmp_path / "tail")) == ()
    tail.write("one\n")
    tail.write("two\nthr")
    tail.write("ee")
    assert last_lines(str(tmp_path / "tail")) == ("one", "two", "three")
    assert last_lines(str(tmp_path / "tail"), 2) == ("two", "three")


@pytest.mark.parametrize("width", [1, 7, 80, 800])
def test_s58_a_full_ring_drops_the_oldest_lines(tmp_path: Path, width: int) -> None:
    tail = Tail(str(tmp_path / "tail"))
    written = [f"{number}:{'x' * width}" for number in range(5000)]
    for line in written:
        tail.write(f"{line}\n")
    kept = last_lines(str(tmp_path / "tail"))
    assert kept == tuple(written[-len(kept) :])
    assert len(kept) == min(LINES, (SIZE - 8) // (width + 6))


def test_s58_a_text_that_is_longer_than_the_ring_leaves_its_end(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))
    tail.write("x" * (3 * SIZE) + "\nlast\n")
    assert last_lines(str(tmp_path / "tail"))[-1] == "last"


def test_s58_the_ring_keeps_the_end_of_a_line_that_is_longer_than_the_ring(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))
    tail.write("x" * SIZE + "the end")
    tail.write("\n")
    (line,) = last_lines(str(tmp_path / "tail"))
    assert line.endswith("xxxthe end")


def test_s58_a_signal_handler_may_print_while_its_thread_prints(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))

    def interrupted() -> None:
        with tail._lock:
            tail.write("from the handler\n")

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert last_lines(str(tmp_path / "tail")) == ("from the handler",)


def test_s58_a_forked_process_prints_for_itself_also_if_a_thread_was_printing(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))
    tail.write("of the worker\n")
    printing, over = threading.Event(), threading.Event()

    def print_slowly() -> None:
        with tail._lock:
            printing.set()
            over.wait(30)

    thread = threading.Thread(target=print_slowly)
    thread.start()
    assert printing.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test needs the threads
        pid = os.fork()
    if pid == 0:
        tail.detach()
        tail.write("of the child\n")
        os._exit(0)
    try:
        eventually(lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0), timeout=10, what="the child has printed")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        over.set()
        thread.join()
    assert last_lines(str(tmp_path / "tail")) == ("of the worker",)


def test_s58_printing_works_after_the_directory_is_removed(tmp_path: Path) -> None:
    Tail(str(tmp_path / "nowhere" / "tail")).write("nobody reads this\n")


class Writes(io.RawIOBase):
    """The raw file below an unbuffered stream."""

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.all.append(bytes(data))
        return len(self.all[-1])


def test_a_line_is_one_write_also_without_buffering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(cast(BinaryIO, writes), write_through=True))
    monkeypatch.setattr(sys, "stderr", None)
    Tail(str(tmp_path / "tail")).record_output()
    print("done so far:", 1)
    print("no", "line", end="", flush=True)
    assert writes.all == [b"done so far: 1\n", b"no line"]


def plain(lines: list[Printed]) -> list[tuple[str, str]]:
    return [(stream, text) for stream, _, text in lines]


def test_a_reader_tells_the_stream_and_the_time_of_lines_and_leaves_out_what_is_recorded_elsewhere(
    tmp_path: Path,
) -> None:
    tail, reader = Tail(str(tmp_path / "tail")), TailReader(str(tmp_path / "tail"))
    before = time.time()
    for text, letter in (("one", "o"), (" two\n", "o"), ("info: logged\n", "r"), ("bad\nworse\n", "e"), ("thr", "o")):
        tail.write(text, letter)
    lines = reader.read()
    assert plain(lines) == [("stdout", "one two"), ("stderr", "bad"), ("stderr", "worse")]
    assert all(before - 0.001 <= when <= time.time() for _, when, _ in lines)
    tail.write("in between\n", "e")
    tail.write("ee\nfour", "o")
    assert plain(reader.read()) == [("stderr", "in between"), ("stdout", "three")]
    assert plain(reader.read(all=True)) == [("stdout", "four")]
    assert last_lines(str(tmp_path / "tail"))[:2] == ("one two", "info: logged")


def test_the_lines_of_a_command_name_their_stream_themselves(tmp_path: Path) -> None:
    tail, reader = Tail(str(tmp_path / "tail")), TailReader(str(tmp_path / "tail"))
    tail.write("stdout: hello\nstderr: oh: no\n", OF_COMMAND)
    assert plain(reader.read()) == [("stdout", "hello"), ("stderr", "oh: no")]


@pytest.mark.parametrize("width", [1, 79, 3_000, 60_000])
def test_a_program_that_listens_gets_every_line(tmp_path: Path, width: int) -> None:
    tail, reader = Tail(str(tmp_path / "tail")), TailReader(str(tmp_path / "tail"))
    got: list[Printed] = []
    tail.write("before\n", "o")
    tail.listening = bytearray(b"\1")
    tail.send = lambda position, data: got.extend(reader.take(position, data))
    written = [f"{number}:{'é' * width}\n" for number in range(300 if width < 60_000 else 3)]
    for line in written:
        tail.write(line[:2], "o")
        tail.write(line[2:], "o")
    tail.listening[0] = 0
    tail.write("after\n", "e")
    got += reader.read()
    assert "\n".join(text for _, _, text in got).replace("\n", "") == f"before{''.join(written)}after".replace("\n", "")
    assert len(got) == len(written) + 2 or width >= 60_000  # longer lines come in pieces


def test_a_mark_in_what_is_printed_is_no_mark(tmp_path: Path) -> None:
    tail, reader = Tail(str(tmp_path / "tail")), TailReader(str(tmp_path / "tail"))
    tail.write("\0e1.0\0 forged\n", "o")
    assert plain(reader.read()) == [("stdout", r"\0e1.0\0 forged")]


def test_the_end_of_a_write_that_is_longer_than_the_ring_has_its_stream(tmp_path: Path) -> None:
    tail, reader = Tail(str(tmp_path / "tail")), TailReader(str(tmp_path / "tail"))
    tail.write("".join(f"line {number}\n" for number in range(10_000)), "e")
    lines = plain(reader.read())
    assert lines[-1] == ("stderr", "line 9999")
    assert len(lines) > 1_000
    assert {stream for stream, _ in lines} == {"stderr"}

"""The ring of last lines."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from suitkaise.platform.tail import LINES, SIZE, Tail, last_lines
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

"""The order of a command's two streams, and lines that are not complete."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from suitkaise.workers import output
from suitkaise.workers.output import OutputPipes, Runs


class Reader:
    """Reads two pipes, as a guard does, and keeps what it gets."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.shown: list[tuple[str, str, bool]] = []
        self.pipes = OutputPipes(lambda stream, line: self.lines.append((stream, line)), self._take)
        self.out, self.err = os.dup(self.pipes.open("stdout")), os.dup(self.pipes.open("stderr"))
        self.pipes.close_writers()

    def _take(self, runs: Runs) -> None:
        self.shown += [(stream, line, partial) for stream, _, lines, partial in runs for line in lines]

    def close(self) -> None:
        if self.out >= 0:
            os.close(self.out)
            os.close(self.err)
            self.out = -1
            self.pipes.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def test_the_first_write_is_read_first_whichever_stream_it_was(reader: Reader) -> None:
    for first, second in ((reader.out, reader.err), (reader.err, reader.out), (reader.out, reader.err)):
        os.write(first, b"1\n")
        os.write(second, b"2\n")
        reader.pipes.read()
    names = ["stdout", "stderr", "stderr", "stdout", "stdout", "stderr"]
    assert [(stream, line) for stream, line, _ in reader.shown] == list(zip(names, "121212", strict=True))


def test_all_writes_of_a_program_to_both_streams_are_read_in_order(reader: Reader) -> None:
    def write() -> None:
        for number in range(500):
            os.write(reader.err if number % 3 else reader.out, b"%d\n" % number)

    writing = threading.Thread(target=write)
    writing.start()
    while len(reader.lines) < 500:
        reader.pipes.read()
    writing.join()
    assert [line for _, line in reader.lines] == [str(number) for number in range(500)]


def test_the_pipe_of_a_stream_that_is_alone_holds_many_writes_until_the_other_one_is_written_to(reader: Reader) -> None:
    for number in range(output._ALONE):
        os.write(reader.out, b"%d\n" % number)
        reader.pipes.read()
    os.set_blocking(reader.out, False)
    for number in range(output._WIDE):
        os.write(reader.out, b"more %d\n" % number)
    with pytest.raises(BlockingIOError):
        os.write(reader.out, b"too much\n")
    reader.pipes.read()
    os.write(reader.err, b"other\n")
    reader.pipes.read()
    os.write(reader.out, b"one\n")
    with pytest.raises(BlockingIOError):
        os.write(reader.out, b"two\n")
    reader.pipes.read()
    assert len(reader.lines) == output._ALONE + output._WIDE + 2
    assert reader.lines[-2:] == [("stderr", "other"), ("stdout", "one")]


def test_what_a_wide_pipe_holds_is_read_completely(reader: Reader) -> None:
    def write() -> None:
        for number in range(5000):
            os.write(reader.out, b"%d\n" % number)

    writing = threading.Thread(target=write)
    writing.start()
    while len(reader.lines) < 5000:
        reader.pipes.read()
    writing.join()
    assert [line for _, line in reader.lines] == [str(number) for number in range(5000)]


def test_a_line_that_is_not_complete_is_shown_when_its_stream_is_quiet(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_QUIET", 0.0)
    os.write(reader.out, "Paßwort: ä".encode()[:-1])
    reader.pipes.read()
    assert reader.shown == []
    assert reader.pipes.seconds_until_quiet == 0.0
    reader.pipes.show_partial_lines()
    assert reader.pipes.seconds_until_quiet is None
    os.write(reader.out, "ä".encode()[-1:] + b" secret\nnext\n")
    reader.pipes.read()
    assert reader.shown == [("stdout", "Paßwort: ", True), ("stdout", "ä secret", False), ("stdout", "next", False)]
    assert reader.lines == [("stdout", "Paßwort: "), ("stdout", "Paßwort: ä secret"), ("stdout", "next")]


def test_the_end_of_a_line_that_was_shown_is_no_line_of_its_own(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_QUIET", 0.0)
    os.write(reader.err, b"Go on? ")
    reader.pipes.read()
    reader.pipes.show_partial_lines()
    os.write(reader.err, b"\n")
    reader.pipes.read()
    assert reader.shown == [("stderr", "Go on? ", True)]
    assert reader.lines == [("stderr", "Go on? ")] * 2


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
def test_a_progress_bar_that_returns_after_each_state_is_not_shown_again_when_its_line_ends(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(output, "_QUIET", 0.0)
    for part in (b"50%\r", b"100%\r", end + b"next\n"):
        os.write(reader.out, part)
        reader.pipes.read()
        reader.pipes.show_partial_lines()
    assert reader.shown == [("stdout", "50%", True), ("stdout", "100%", True), ("stdout", "next", False)]


def test_of_a_progress_bar_the_last_state_is_shown_although_it_is_never_quiet(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_QUIET", 1000.0)
    monkeypatch.setattr(output, "_LONGEST_HIDDEN", 0.0)
    for part in (b"\r10%\r20%", b"\r30%\r40%\r", b"\r50%\n"):
        os.write(reader.out, part)
        reader.pipes.read()
        reader.pipes.show_partial_lines()
    assert reader.shown == [("stdout", "20%", True), ("stdout", "40%", True), ("stdout", "50%", False)]


def test_at_the_end_the_rest_of_both_streams_is_read(reader: Reader) -> None:
    os.write(reader.err, b"one\ntwo")
    os.write(reader.out, b"three")
    reader.close()
    assert [line for _, line in reader.lines] == ["one", "two", "three"]
    assert len(reader.shown) == 3


def test_without_packet_mode_all_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe2 = os.pipe2

    def refuse(flags: int) -> tuple[int, int]:
        if flags & os.O_DIRECT:
            raise OSError("no packet mode")
        return pipe2(flags)

    monkeypatch.setattr(os, "pipe2", refuse)
    reader = Reader()
    for number in range(1000):
        os.write(reader.out, b"%d\n" % number)
        os.write(reader.out, b"%d\n" % number)
        reader.pipes.read()
    reader.close()
    assert len(reader.lines) == 2000

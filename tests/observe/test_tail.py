"""The ring of last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.observe.tail import LINES, SIZE, Tail, last_lines


def test_s58_what_was_written_last_is_there_while_the_writer_lives(tmp_path: Path) -> None:
    tail = Tail(str(tmp_path / "tail"))
    assert last_lines(str(tmp_path / "tail")) == ()
    tail.write("one\n")
    tail.write("two\nthr")
    tail.write("ee")
    assert last_lines(str(tmp_path / "tail")) == ("one", "two", "three")
    assert last_lines(str(tmp_path / "tail"), 2) == ("two", "three")


@pytest.mark.parametrize("width", [1, 7, 80, 800])
def test_s58_the_oldest_goes_when_the_ring_is_full(tmp_path: Path, width: int) -> None:
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


def test_s58_a_directory_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    Tail(str(tmp_path / "nowhere" / "tail")).write("nobody reads this\n")

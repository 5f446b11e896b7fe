"""Memory-mapped files on a full file system, where a store would raise SIGBUS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import run_program, small_file_system


@pytest.fixture
def full(request: pytest.FixtureRequest) -> Iterator[Path]:
    with small_file_system(256 << 10) as folder:
        (folder / "ballast").write_bytes(bytes((256 << 10) - 4096))
        (folder / "crumb").write_bytes(bytes(4096))
        yield folder


def run(code: str, **environment: str) -> str:
    return run_program([sys.executable, "-c", code], env=environment).check().stdout


def test_s58_without_room_a_worker_that_prints_runs_on_and_its_last_lines_are_lost(full: Path) -> None:
    code = f"""
from suitkaise.platform.tail import Tail, last_lines
tail = Tail({str(full / "tail")!r})
tail.write("nobody reads this\\n")
print(last_lines({str(full / "tail")!r}), "lives on")
"""
    assert run(code) == "() lives on\n"


def test_a_worker_for_which_the_board_has_no_room_is_refused_until_there_is_some(full: Path) -> None:
    code = f"""
import os
from suitkaise.errors import SuitkaiseError
from suitkaise.platform.board import Board
board = Board.create({str(full / "board")!r})
try:
    board.take("tree/one")
except SuitkaiseError as error:
    print(error)
os.unlink({str(full / "crumb")!r})
print([board.take(name).index for name in ("a", "b")])
"""
    assert run(code) == (
        "'tree/one': no room is left for its slot of the status board: No space left on device\n[0, 1]\n"
    )


def test_a_worker_for_whose_direct_connections_the_board_has_no_room_has_none_until_there_is_some(full: Path) -> None:
    (full / "crumb").unlink()
    code = f"""
import os
from suitkaise.platform.board import Board
board = Board.create({str(full / "board")!r})
slot = board.take("tree/one")
try:
    board.new_counts(slot.index)
except OSError as error:
    print(error.strerror)
os.unlink({str(full / "ballast")!r})
print(board.new_counts(slot.index).add())
"""
    assert run(code) == "No space left on device\n0\n"


def test_s10_a_tree_whose_directory_is_full_refuses_new_workers_and_goes_on(full: Path) -> None:
    (full / "ballast").unlink()
    code = f"""
from pathlib import Path
from suitkaise import Child, ChildStartFailed, Process, Supervisor

class Talks(Process):
    def on_receive(self, text):
        print(text, flush=True)
        return "said"

with Supervisor("app", Child(Talks, id="first")).start() as running:
    try:
        with Path({str(full / "ballast")!r}).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    refused = None
    for number in range(20):
        try:
            running.start_child(Child(Talks, id=f"more-{{number}}"))
        except ChildStartFailed as error:
            refused = error
            break
    print(type(refused).__name__, "no room is left for its slot" in str(refused))
    print(running["first"].ask("hello"))
    print(running["first"].ask("hello again"))
"""
    expected = ["ChildStartFailed True", "hello", "said", "hello again", "said"]
    assert run(code, XDG_RUNTIME_DIR=str(full)).splitlines() == expected

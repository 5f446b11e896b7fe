"""Rule 82: the copies of one child start and stop at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, ChildStartFailed, Process, Supervisor, Thread
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

COPIES = 6


class MeetsTheOthers:
    """Its `on_start` and `on_finish` wait for those of all other copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self) -> None:
        self.meet("start")

    def on_finish(self) -> None:
        self.meet("finish")

    def meet(self, where: str) -> None:
        (self.folder / f"{where}-{self.copy}").touch()  # type: ignore[attr-defined]
        eventually(lambda: len(list(self.folder.glob(f"{where}-*"))) >= COPIES, timeout=60)


class MeetingProcess(MeetsTheOthers, Process): ...


class MeetingThread(MeetsTheOthers, Thread): ...


class FailsAsOne(Process):
    """Copy 1 fails; the start of the others never ends by itself."""

    def on_start(self) -> None:
        if self.copy == 1:
            raise OSError("no such port")
        eventually(lambda: False, timeout=600)


@pytest.mark.parametrize("worker", [MeetingProcess, MeetingThread])
def test_s82_copies_start_and_stop_at_the_same_time(worker: Any, tmp_path: Path) -> None:
    with Supervisor("tree", Child(worker, args=(tmp_path,), id="c", copies=COPIES, shutdown=60.0)).start() as running:
        assert {line.status for line in running.which_children()} == {"running"}
    assert len(list(tmp_path.glob("finish-*"))) == COPIES


def test_s82_a_copy_whose_start_fails_ends_the_start_of_the_others() -> None:
    with pytest.raises(ChildStartFailed, match="no such port"):
        Supervisor("tree", Child(FailsAsOne, id="c", copies=3, shutdown="brutal_kill")).start()

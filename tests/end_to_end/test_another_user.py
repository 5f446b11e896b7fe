"""Another user tries everything against a running program, its storage and its crash reports, and gets nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suitkaise import Child, Process, Supervisor, sktree
from suitkaise.crashes import crash_directory
from suitkaise.runtime import runtime
from tests.end_to_end.kinds import keeper_pid, next_exit
from tests.support import eventually, only_root, stranger

pytestmark = only_root


class Works(Process):
    def on_receive(self, message: str) -> str:
        print("a line for the tail", flush=True)
        self.tree.add("secret", message, path="")
        if message == "crash":
            raise ValueError("secret in a report")
        return message


def attempts(places: list[Path], pids: list[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what the stranger tries, and how."""
    for place in places:
        yield f"list {place}", lambda place=place: os.listdir(place)
        yield f"enter {place}", lambda place=place: os.chdir(place)
        yield f"make a file in {place}", lambda place=place: (place / "intruder").touch()
        yield f"make a link in {place}", lambda place=place: (place / "link").symlink_to("/etc/hostname")
        yield f"move {place}", lambda place=place: place.rename(f"{place}-moved")
        yield f"open {place} to all", lambda place=place: place.chmod(0o777)
    for file in [file for place in places for file in place.rglob("*")]:
        yield f"read {file}", lambda file=file: os.open(file, os.O_RDONLY)
        yield f"write {file}", lambda file=file: os.open(file, os.O_WRONLY)
        yield f"remove {file}", lambda file=file: file.unlink()
        yield f"replace {file}", lambda file=file: os.rename("/tmp", file)
        yield f"connect to {file}", lambda file=file: socket.socket(socket.AF_UNIX).connect(str(file))
    for pid in pids:
        yield f"stop {pid}", lambda pid=pid: os.kill(pid, signal.SIGTERM)
        yield f"kill {pid}", lambda pid=pid: os.kill(pid, signal.SIGKILL)
        for name in ("mem", "environ", "maps", "stack"):
            yield f"read {name} of {pid}", lambda pid=pid, name=name: Path(f"/proc/{pid}/{name}").read_bytes()
        yield f"list the descriptors of {pid}", lambda pid=pid: os.listdir(f"/proc/{pid}/fd")
        yield f"open a descriptor of {pid}", lambda pid=pid: os.open(f"/proc/{pid}/fd/3", os.O_RDWR)


def as_stranger(tries: list[tuple[str, Callable[[], object]]]) -> tuple[int, list[str]]:
    """Try everything as another user; return how much was refused, and what was not."""

    def act(out: int) -> None:
        refused, succeeded = 0, []
        for what, attempt in tries:
            try:
                attempt()
                succeeded.append(what)
            except OSError:
                refused += 1
        os.write(out, json.dumps([refused, succeeded]).encode())

    with stranger(act) as told, open(told, "rb", closefd=False) as pipe:
        refused, succeeded = json.loads(pipe.read())
    return refused, succeeded


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody can enter, where the storage and the crash reports lie."""
    with tempfile.TemporaryDirectory(prefix="reachable-") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("SUITKAISE_STATE", f"{folder}/crashes-of-this-user")
        yield Path(folder)


def test_another_user_is_refused_everything(reachable: Path) -> None:
    durable = reachable / "state"
    with Supervisor("app", Child(Works)).start() as running, running.events() as events:
        tree = sktree.connect(durable, durable=True)
        try:
            assert running["works"].ask("hello", timeout=15.0) == "hello"
            with pytest.raises(ValueError, match="secret"):
                running["works"].ask("crash", timeout=15.0)
            next_exit(events)
            assert running["works"].ask("again", timeout=15.0) == "again"
            eventually(lambda: crash_directory().is_dir() and any(crash_directory().iterdir()))
            program = runtime.current()
            assert program is not None
            places = [Path(program.directory), durable, crash_directory()]
            pids = [os.getpid(), keeper_pid(), running["works"].pid or 0]
            tries = list(attempts(places, pids))
            refused, succeeded = as_stranger(tries)
            print(f"{refused} of {len(tries)} attempts were refused")
            assert succeeded == []
            assert refused == len(tries) >= 90
            assert running["works"].ask("still here", timeout=15.0) == "still here"
            assert tree.get("secret", path="") == "still here"
        finally:
            sktree.disconnect()

"""What becomes of the messages that wait for a worker at its end, in real processes and threads (rule 72)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Normal, Shutdown, SpecError, Supervisor, WorkerDead, whereis
from suitkaise.events import ChildExited, ChildStopped
from tests.end_to_end.kinds import next_event
from tests.end_to_end.workers_renewing import RenewingAsync, RenewingProcess, RenewingThread
from tests.support import eventually, in_background

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


kinds = pytest.mark.parametrize("worker", [RenewingProcess, RenewingThread, RenewingAsync])


def child(worker: Any, folder: Path, **options: Any) -> Child:
    return Child(worker, args=(folder,), id="w", shutdown=30.0, **options)


def handled(folder: Path) -> list[str]:
    file = folder / "handled"
    return file.read_text().split() if file.exists() else []


@kinds
def test_s72_no_ask_is_lost_between_two_incarnations_of_a_worker_that_renews_itself(
    worker: Any, tmp_path: Path
) -> None:
    with Supervisor("tree", child(worker, tmp_path), max_restarts=1000).start() as running:
        answers = [running["w"].ask("renew", timeout=30)[0] for _ in range(20)]
        assert answers == ["renew"] * 20
        assert running["w"].incarnation > 10


@kinds
@pytest.mark.parametrize("renew, reason", [("renew", Normal()), ("renew, and say why", Shutdown("it is time"))])
def test_s72_messages_to_a_worker_that_finishes_wait_for_its_next_incarnation_in_order(
    renew: str, reason: Any, worker: Any, tmp_path: Path
) -> None:
    (tmp_path / "slow").touch()
    with Supervisor("tree", child(worker, tmp_path)).start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell(renew)
        ref.tell(0)
        eventually(lambda: (tmp_path / "finishing").exists())
        for number in range(1, 100):
            ref.tell(number)
        answer = ref.ask_future("last")
        (tmp_path / "gate").touch()
        assert answer.get(30) == ("last", "tree/w", True)
        assert handled(tmp_path) == [*map(str, range(100)), "last"]
        exited = next_event(happened, ChildExited)
        assert (exited.reason, exited.unhandled) == (reason, 101)


@kinds
def test_s72_nothing_is_lost_or_overtaken_while_several_threads_send_to_a_worker_that_renews_itself(
    worker: Any, tmp_path: Path
) -> None:
    with Supervisor("tree", child(worker, tmp_path), max_restarts=1000).start() as running:
        ref = running["w"]

        def send(name: str) -> None:
            for number in range(200):
                if number % 20 == 10:
                    ref.tell("renew")
                ref.tell(f"{name}{number}")

        for sender in [in_background(lambda name=name: send(name)) for name in "abc"]:  # type: ignore[misc]
            sender.result(60)
        ref.ask("last", timeout=60)
        assert ref.incarnation > 20
        for name in "abc":
            assert [one for one in handled(tmp_path) if one[0] == name] == [f"{name}{number}" for number in range(200)]


@kinds
def test_s72_messages_wait_for_the_next_incarnation_if_on_start_fails(worker: Any, tmp_path: Path) -> None:
    with Supervisor("tree", child(worker, tmp_path)).start() as running:
        (tmp_path / "fail").touch()
        running["w"].tell("renew")
        for number in range(10):
            running["w"].tell(number)
        assert running["w"].ask("last", timeout=30) == ("last", "tree/w", True)
        assert handled(tmp_path) == [*map(str, range(10)), "last"]
        assert not (tmp_path / "fail").exists()


@kinds
def test_s72_messages_for_a_worker_that_does_not_come_back_fail_at_its_end(
    worker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Supervisor("tree", child(worker, tmp_path, restart="transient"))
    with tree.start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell("block")
        ref.tell("renew")
        ref.tell("dropped")
        waiting = ref.ask_future("waits")
        (tmp_path / "gate").touch()
        with pytest.raises(WorkerDead, match="'tree/w' is over: normal"):
            waiting.get(30)
        event = next_event(happened, ChildExited)
        assert (event.reason, event.unhandled) == (Normal(), 2)
        assert "2 messages were not handled" in str(event)
        assert handled(tmp_path) == []
    assert "tree/w 1 message was not delivered; the last one: it is over (normal)" in caplog.text


@kinds
def test_s72_a_crash_drops_the_messages_that_wait_and_counts_them(worker: Any, tmp_path: Path) -> None:
    with Supervisor("tree", child(worker, tmp_path)).start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell("block")
        ref.tell("crash")
        ref.tell("dropped")
        waiting = ref.ask_future("waits")
        (tmp_path / "gate").touch()
        with pytest.raises(WorkerDead, match=r"'tree/w' (ended before it handled the message|died before it answered)"):
            waiting.get(30)
        assert next_event(happened, ChildExited).unhandled == 2
        assert ref.ask("works", timeout=30)[0] == "works"
        assert handled(tmp_path) == ["works"]


def test_s72_a_kill_drops_the_messages_that_wait_and_counts_them(tmp_path: Path) -> None:
    with Supervisor("tree", child(RenewingProcess, tmp_path)).start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell("block")
        eventually(lambda: (tmp_path / "blocked").exists())
        for number in range(7):
            ref.tell(number)
        ref.kill()
        (tmp_path / "gate").touch()
        assert next_event(happened, ChildExited).unhandled == 7


@kinds
def test_s72_a_stop_drops_the_messages_that_wait_and_counts_them(worker: Any, tmp_path: Path) -> None:
    with Supervisor("tree", child(worker, tmp_path)).start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell("hold")
        eventually(lambda: (tmp_path / "blocked").exists())
        for number in range(7):
            ref.tell(number)
        waiting = ref.ask_future("waits")
        ref.rejoin()
        with pytest.raises(WorkerDead, match=r"'tree/w' (ended before it handled the message|died before it answered)"):
            waiting.get(30)
        event = next_event(happened, ChildStopped)
        assert (event.reason, event.unhandled) == (Shutdown(), 8)
        assert str(event).endswith("stopped: shutdown; 8 messages were not handled")
        assert handled(tmp_path) == []


# ------------------------------------------------------------ drain
STOPS: dict[str, Any] = {
    "Child(drain=)": lambda running: running.terminate_child("below/w"),
    "terminate_child(drain=)": lambda running: running.terminate_child("below/w", drain=20.0),
    "terminate_child of a supervisor": lambda running: running.terminate_child("below", drain=20.0),
    "rejoin(drain=)": lambda running: running["below/w"].rejoin(drain=20.0),
    "stop(drain=)": lambda running: running.stop(drain=20.0),
    "whereis(...).terminate_child": lambda running: whereis("tree/below").terminate_child("w", drain=20.0),
    "rejoin(drain=) of the root": lambda running: whereis("tree").rejoin(drain=20.0),
}


@kinds
@pytest.mark.parametrize("how", STOPS)
def test_s72_a_stop_with_drain_handles_the_messages_first(worker: Any, how: str, tmp_path: Path) -> None:
    option = {"drain": 20.0} if how == "Child(drain=)" else {}
    tree = Supervisor("tree", Supervisor("below", child(worker, tmp_path, **option)))
    with tree.start() as running, running.events() as happened:
        ref = running["below/w"]
        ref.tell("hold")
        eventually(lambda: (tmp_path / "blocked").exists())
        for number in range(50):
            ref.tell(number)
        answer = ref.ask_future("last")
        STOPS[how](running)
        assert answer.get(30) == ("last", "tree/below/w", False)
        stopped = next_event(happened, ChildStopped)
        assert (stopped.reason, stopped.unhandled) == (Shutdown(), 0)
    assert handled(tmp_path) == [*map(str, range(50)), "last"]


@kinds
def test_s72_an_order_can_do_without_the_drain_of_the_child(worker: Any, tmp_path: Path) -> None:
    with Supervisor("tree", child(worker, tmp_path, drain=20.0)).start() as running, running.events() as happened:
        ref = running["w"]
        ref.tell("hold")
        eventually(lambda: (tmp_path / "blocked").exists())
        ref.tell(1)
        running.terminate_child("w", drain=0)
        assert next_event(happened, ChildStopped).unhandled == 1
    assert handled(tmp_path) == []


@kinds
def test_s72_a_drain_leaves_time_for_on_finish(worker: Any, tmp_path: Path) -> None:
    options = {"args": (tmp_path,), "id": "w", "shutdown": 3.0}
    with Supervisor("tree", Child(worker, **options)).start() as running, running.events() as happened:
        running["w"].tell("again")  # tells itself `again`, and so on
        running.terminate_child("w", drain=3600.0)
        assert next_event(happened, ChildStopped).reason == Shutdown()
    assert (tmp_path / "finishing").exists()


@pytest.mark.parametrize("drain", [-1.0, "2", float("inf")])
def test_s72_a_drain_that_is_no_time_is_refused_and_nothing_is_stopped(drain: Any, tmp_path: Path) -> None:
    with Supervisor("tree", child(RenewingThread, tmp_path)).start() as running:
        for attempt in (
            lambda: running.stop(drain=drain),
            lambda: running.terminate_child("w", drain=drain),
            lambda: running["w"].rejoin(drain=drain),
        ):
            with pytest.raises(SpecError, match="drain must be seconds >= 0"):
                attempt()
        assert running["w"].ask(1)[0] == 1

"""The parts of Pykka that our actors rely on, and their differences from Pykka's."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope

from suitkaise.messaging.actor import Actor, envelope

SOON = 10.0


class Probe(Actor):
    """Calls, raises or keeps its messages; sets an event when it ends."""

    def __init__(self, made: list[Probe]) -> None:
        super().__init__()
        made.append(self)
        self.got: list[Any] = []
        self.thread: threading.Thread | None = None
        self.over = threading.Event()

    def on_start(self) -> None:
        self.thread = threading.current_thread()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            return message()
        self.got.append(message)
        return len(self.got)

    def _actor_loop_teardown(self) -> None:
        super()._actor_loop_teardown()
        self.over.set()


@pytest.fixture
def probe() -> Iterator[Probe]:
    made: list[Probe] = []
    ref = Probe.launch(made, thread_name="probe")
    [actor] = made
    yield actor
    if ref.is_alive():
        ref.stop(timeout=SOON)
    assert actor.over.wait(SOON)
    assert actor.thread is not None
    actor.thread.join(SOON)


# ---------------------------------------------------------------- the seams
def test_pykka_still_has_the_seams_that_we_use() -> None:
    """Fail when a new Pykka changes a part that `messaging.actor` and `workers.actor` override or call."""
    parameters = {
        name: list(inspect.signature(getattr(pykka.ThreadingActor, name)).parameters)
        for name in ("_create_actor_inbox", "_start_actor_loop", "_actor_loop", "_actor_loop_setup",
                     "_actor_loop_running", "_actor_loop_teardown", "_handle_receive", "_stop", "_handle_failure",
                     "on_start", "on_stop", "on_failure", "on_receive")
    }  # fmt: skip
    assert parameters == {
        "_create_actor_inbox": [],
        "_start_actor_loop": ["self"],
        "_actor_loop": ["self"],
        "_actor_loop_setup": ["self"],
        "_actor_loop_running": ["self"],
        "_actor_loop_teardown": ["self"],
        "_handle_receive": ["self", "message"],
        "_stop": ["self"],
        "_handle_failure": ["self", "exception_type", "exception_value", "traceback"],
        "on_start": ["self"],
        "on_stop": ["self"],
        "on_failure": ["self", "exception_type", "exception_value", "traceback"],
        "on_receive": ["self", "message"],
    }


def test_pykkas_loop_still_calls_the_hooks_in_the_order_that_we_rely_on() -> None:
    calls: list[str] = []

    class Inbox:
        def __init__(self) -> None:
            self.things = ["first", "last"]

        def get(self) -> Any:
            calls.append("get")
            return envelope(self.things.pop(0))

        def put(self, envelope: Any) -> None: ...

        def empty(self) -> bool:
            calls.append("empty")
            return True

    class Traced(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.actor_inbox = Inbox()  # type: ignore[assignment]

        def on_start(self) -> None:
            calls.append("on_start")

        def _handle_receive(self, message: Any) -> Any:
            calls.append(f"receive {message}")
            if message == "last":
                self.end()

    Traced().run_here()
    assert calls == ["on_start", "get", "receive first", "get", "receive last", "empty"]


def test_an_envelope_holds_a_message_and_the_future_of_its_answer() -> None:
    assert list(inspect.signature(Envelope).parameters) == ["message", "reply_to"]
    one = envelope("x")
    assert isinstance(one, Envelope)
    assert (one.message, one.reply_to) == ("x", None)


def test_an_actor_has_the_attributes_that_we_replace() -> None:
    actor = Probe([])
    assert isinstance(actor.actor_stopped, threading.Event)
    assert actor.actor_ref.actor_inbox is actor.actor_inbox
    assert actor.actor_ref is actor._actor_ref


# ---------------------------------------------------------------- the differences
def test_our_actors_run_in_named_daemon_threads_and_outside_of_the_registry(probe: Probe) -> None:
    assert probe.actor_ref.ask("x", timeout=SOON) == 1
    thread = probe.thread
    assert thread is not None
    assert (thread.name, thread.daemon) == ("probe", True)
    assert probe.actor_ref not in pykka.ActorRegistry.get_all()


def test_our_actors_survive_stop_all(probe: Probe) -> None:
    class Other(pykka.ThreadingActor):
        use_daemon_thread = True

    Other.start()
    assert pykka.ActorRegistry.stop_all(timeout=SOON)
    assert probe.actor_ref.ask("still there", timeout=SOON) == 1


def test_our_actors_survive_a_system_exit_in_another_actor(probe: Probe) -> None:
    class Exiting(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message: Any) -> Any:
            raise SystemExit

    other = Exiting.start()
    other.tell("x")
    assert other.actor_stopped.wait(SOON)
    assert probe.actor_ref.ask("still there", timeout=SOON) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_an_exception_that_would_stop_all_actors_stops_only_its_own(
    probe: Probe, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = type("Theirs", (pykka.ThreadingActor,), {"use_daemon_thread": True}).start()
    with caplog.at_level(logging.ERROR, "suitkaise.actors"):
        probe.actor_ref.tell(error)
        assert probe.over.wait(SOON)
    assert theirs.is_alive()
    theirs.stop(timeout=SOON)
    assert [type(error).__name__ in caplog.text, "internal error" in caplog.text] == [True, True]


def test_an_exception_is_logged_and_ends_the_actor(probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "suitkaise.actors"):
        probe.actor_ref.tell(ValueError("oh"))
        assert probe.over.wait(SOON)
    assert "oh" in caplog.text
    assert not probe.actor_ref.is_alive()

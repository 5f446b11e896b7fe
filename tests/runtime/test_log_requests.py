"""Readers of log lines: answered when there are lines, told the end of a tree, and forgotten when they are gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_rings import LogRings, Run
from suitkaise.platform.reactor import Reactor
from suitkaise.runtime import log_requests
from suitkaise.runtime.log_requests import LogRequests
from tests.support import eventually


class Scene:
    def __init__(self, reactor: Reactor) -> None:
        self.rings = LogRings()
        self.reactor = reactor
        self.requests = LogRequests(self.rings, reactor)

    def put(self, path: str, text: str) -> None:
        self.rings.put(path, Run(1, "stdout", 1.0, (text,)))

    def follow(self, path: str, seen: dict[str, int] | None = None, reader: str = "one") -> Answer[Any]:
        """Ask for the next lines, in the reactor's thread, as the server of the hub does."""
        made: list[Answer[Any]] = []
        done = threading.Event()

        def serve() -> None:
            made.append(self.requests.serve(path, {"seen": seen or {}, "reader": reader}))
            done.set()

        self.reactor.call_soon_threadsafe(serve)
        assert done.wait(10)
        return made[0]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with contextlib.closing(Reactor()) as reactor:
        yield Scene(reactor)


def texts(answer: Answer[Any]) -> list[str]:
    return [line[4] for line in answer.get(10)["lines"]]


def test_a_reader_is_answered_when_there_are_lines_at_its_path_or_below(scene: Scene) -> None:
    answer = scene.follow("app/jobs")
    scene.put("app/other", "of another worker")
    scene.put("app/jobs/a", "this")
    assert texts(answer) == ["this"]
    again = scene.follow("app/jobs", answer.get()["seen"])
    assert not again.done()
    scene.put("app/jobs/b", "that")
    assert texts(again) == ["that"]


def test_a_reader_of_a_tree_that_ends_gets_the_last_lines_and_then_the_end(scene: Scene) -> None:
    answer = scene.follow("app/a")
    scene.put("app/a", "last words")
    ending = threading.Thread(target=scene.requests.end, args=("app",))
    ending.start()
    assert (texts(answer), answer.get()["ended"]) == (["last words"], False)
    end = scene.follow("app/a", answer.get()["seen"])
    assert (texts(end), end.get()["ended"]) == ([], True)
    ending.join(10)
    assert scene.rings.last("app", 10) == ([], {})


def test_the_end_of_a_tree_waits_for_no_reader_that_asks_for_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_requests, "LAST_LINES", 0.01)
    answer = scene.follow("app")
    scene.put("app/a", "this")
    assert texts(answer) == ["this"]
    scene.requests.end("app")
    scene.requests.begin("app")  # a tree of the same name
    again = scene.follow("app")
    scene.put("app/a", "new")
    assert texts(again) == ["new"]


@pytest.mark.parametrize("asks_no_more", [False, True])
def test_a_reader_that_is_gone_is_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch, asks_no_more: bool) -> None:
    monkeypatch.setattr(log_requests, "READER_IS_GONE", 0.0)
    answer = scene.follow("app")
    assert scene.rings._listened == ("app",)
    if asks_no_more:
        scene.put("app", "this")
    else:
        answer.cancel()  # as the server does when the connection is closed
    eventually(lambda: scene.rings._listened == () and scene.rings.on_lines is None, what="it is forgotten")


def test_one_answer_has_so_many_lines_at_most(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_requests, "MOST", 2)
    for number in range(5):
        scene.put("app/a", str(number))
    seen: dict[str, int] = {}
    got = []
    while len(got) < 5:
        answer = scene.follow("app", seen)
        seen |= answer.get(10)["seen"]
        assert len(texts(answer)) <= 2
        got += texts(answer)
    assert got == ["0", "1", "2", "3", "4"]

"""The feed: what a page gets, when the program is looked at, and the bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_reader import LogReader
from suitkaise.observer import feed as feeds
from suitkaise.observer import log_feed
from suitkaise.observer.feed import BACKLOG, Feed, Page
from tests.observer.told import Story, overview, supervisor, worker


class Told:
    """A program that tells what the test has put here."""

    def __init__(self) -> None:
        self.story = Story()
        self.overview: Any = lambda: overview(supervisor("app", worker("app/a", pid=None)))
        self.looks = 0

    def events_after(self, number: int) -> dict[str, Any]:
        self.looks += 1
        return {"last": len(self.story.events), "events": self.story.events[number:], "reports": self.story.reports}


async def messages_of(page: Page) -> list[str]:
    return [json.loads(message[6:])["type"] async for message in page.messages()]


def test_a_page_gets_the_state_then_changes_then_the_end() -> None:
    async def run() -> list[str]:
        told = Told()
        feed = Feed(told, {"csrf": "c"})  # type: ignore[arg-type]
        page = await feed.open()
        assert page is not None
        told.story.tell("child_exited", "app/a", verdict="restarts", reason="x", where="")
        await feed.end()
        feed.close()
        return await messages_of(page)

    assert asyncio.run(run()) == ["state", "changes", "ended"]


def test_a_page_that_is_opened_after_the_end_is_told_it() -> None:
    async def run() -> list[str]:
        feed = Feed(Told(), {})  # type: ignore[arg-type]
        await feed.end()
        page = await feed.open()
        assert page is not None
        feed.close()
        return await messages_of(page)

    assert asyncio.run(run()) == ["state"]


def test_nothing_is_asked_while_no_page_is_open() -> None:
    async def run() -> None:
        told = Told()
        feed = Feed(told, {})  # type: ignore[arg-type]
        looking = asyncio.ensure_future(feed.run())
        await asyncio.wait([looking], timeout=3 * feeds.TICK)
        assert told.looks == 0
        page = await feed.open()
        assert page is not None
        assert told.looks == 1
        feed.forget(page)
        await feed.all_closed()
        looking.cancel()
        feed.close()

    asyncio.run(run())


def test_a_page_that_does_not_read_is_dropped_with_all_that_waits_for_it() -> None:
    async def run() -> None:
        page, other = Page(), Page()
        for _ in range(BACKLOG):
            page.put(b"x")
        assert not page.dropped
        page.put(b"x")
        assert page.dropped
        page.put(b"x")
        assert [message async for message in page.messages()] == []
        other.put(b"y")
        other.close()
        assert [message async for message in other.messages()] == [b"y"]

    asyncio.run(run())


def test_there_is_a_limit_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_PAGES", 2)

    async def run() -> None:
        feed = Feed(Told(), {})  # type: ignore[arg-type]
        pages = [await feed.open() for _ in range(3)]
        assert pages[2] is None
        assert pages[0] is not None
        feed.forget(pages[0])
        assert await feed.open() is not None
        feed.close()

    asyncio.run(run())


def test_a_program_that_does_not_answer_is_told_and_that_it_answers_again() -> None:
    def silent() -> Any:
        raise AskTimeout("no answer", path="")

    async def run() -> list[Any]:
        told = Told()
        feed = Feed(told, {})  # type: ignore[arg-type]
        page = await feed.open()
        assert page is not None
        answers, told.overview = told.overview, silent
        await feed._look(everything=True)
        await feed._look(everything=True)
        told.overview = answers
        await feed._look(everything=True)
        page.close()
        feed.close()
        return [json.loads(message[6:]).get("silent") async for message in page.messages()]

    assert asyncio.run(run()) == [False, True, False, None]


def test_trees_that_have_ended_in_a_program_that_goes_on_stay_to_be_seen() -> None:
    async def run() -> list[Any]:
        told = Told()
        feed = Feed(told, {})  # type: ignore[arg-type]
        page = await feed.open()
        assert page is not None
        told.overview = lambda: overview()
        await feed._look(everything=True)
        assert "app/a" in feed._observation.rows
        page.close()
        feed.close()
        return [json.loads(message[6:])["idle"] async for message in page.messages()]

    assert asyncio.run(run()) == [False, True]


@pytest.mark.parametrize("error", [RuntimeGone("gone"), RuntimeError("dictionary changed size during iteration")])
def test_a_look_that_fails_ends_nothing(error: Exception) -> None:
    def gone() -> Any:
        raise error

    async def run() -> list[str]:
        told = Told()
        told.overview = gone
        feed = Feed(told, {})  # type: ignore[arg-type]
        page = await feed.open()
        assert page is not None
        await feed.end()
        feed.close()
        return await messages_of(page)

    assert asyncio.run(run())[-1] == "ended"


async def until(what: Callable[[], Any]) -> None:
    """Let the other tasks run until it is so."""
    for _ in range(10_000):
        if what():
            return
        await asyncio.sleep(0)
    raise AssertionError("it is not so")


class ToldLog:
    """A connection to a program whose log grows by what the test tells."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer[Any] = Answer()

    def request(self, kind: str, path: str, argument: dict[str, Any]) -> Answer[Any]:
        self.asked.append(argument)
        self.answer = Answer()
        return self.answer

    async def tell(self, *texts: str, skipped: int = 0) -> None:
        """Answer the next request."""
        await until(lambda: self.asked and not self.answer.done())
        lines = [("app/a", 1, "stdout", 100.0, text) for text in texts]
        missed = {"app/a": skipped} if skipped else {}
        self.answer.set_result({"lines": lines, "seen": {"app/a": len(texts)}, "skipped": missed, "ended": False})


async def logs_of(page: Page, number: int) -> list[Any]:
    """Return path, whether it is the first, skipped lines and texts of the next messages with lines of a log."""
    found = []
    async for data in page.messages():
        message = json.loads(data[6:])
        if message["type"] == "log":
            texts = [line[4] for line in message["lines"]]
            found.append([message["path"], message["first"], message["skipped"], texts])
            if len(found) == number:
                break
    return found


def test_a_log_is_read_once_for_all_pages_that_follow_it_and_no_longer_than_they_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_feed, "BETWEEN", 0.0)

    async def run() -> None:
        told, log = Told(), ToldLog()
        told.log = lambda path, last: LogReader(log, path, last=last)  # type: ignore[attr-defined, arg-type]
        feed = Feed(told, {})  # type: ignore[arg-type]
        first, second = await feed.open("first"), await feed.open("second")
        assert first is not None
        assert second is not None
        assert not feed.follow("third", "app")
        assert feed.follow("first", "app")
        await log.tell("one")
        assert await logs_of(first, 1) == [["app", True, 0, ["one"]]]
        assert feed.follow("second", "app")
        await log.tell("two", "three", skipped=7)
        assert await logs_of(first, 1) == [["app", False, 7, ["two", "three"]]]
        assert await logs_of(second, 2) == [["app", True, 0, ["one"]], ["app", False, 7, ["two", "three"]]]
        await log.tell(*["x"] * (log_feed.LINES + 1))  # more than a page shows
        assert await logs_of(first, 1) == [["app", False, 1, ["x"] * log_feed.LINES]]
        await until(lambda: len(log.asked) == 4)
        assert ["last" in one for one in log.asked] == [True, False, False, False]
        assert feed.follow("first", "")
        feed.forget(second)
        await until(lambda: log.answer.cancelled())
        feed.close()

    asyncio.run(run())


def test_a_page_that_has_connected_anew_gets_the_log_although_its_former_stream_is_not_closed_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_feed, "BETWEEN", 0.0)

    async def run() -> None:
        for _ in range(16):  # which of the two a set would yield first depends on their addresses
            told, log = Told(), ToldLog()
            told.log = lambda path, last, log=log: LogReader(log, path, last=last)  # type: ignore[attr-defined, arg-type]
            feed = Feed(told, {})  # type: ignore[arg-type]
            former, page = await feed.open("page"), await feed.open("page")
            assert former is not None
            assert page is not None
            assert feed.follow("page", "app")
            await log.tell("one")
            async with asyncio.timeout(10):
                assert await logs_of(page, 1) == [["app", True, 0, ["one"]]]
            feed.close()

    asyncio.run(run())


@pytest.mark.parametrize("error", [AskTimeout("too busy", path="app"), KeyError("an internal error")])
def test_a_log_goes_on_after_a_read_that_has_failed(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_feed, "BETWEEN", 0.0)

    async def run() -> None:
        told, log = Told(), ToldLog()
        told.log = lambda path, last: LogReader(log, path, last=last)  # type: ignore[attr-defined, arg-type]
        feed = Feed(told, {})  # type: ignore[arg-type]
        page = await feed.open("page")
        assert page is not None
        assert feed.follow("page", "app")
        await log.tell("one")
        await until(lambda: len(log.asked) == 2)
        log.answer.set_exception(error)
        await log.tell("two")
        async with asyncio.timeout(10):
            assert await logs_of(page, 2) == [["app", True, 0, ["one"]], ["app", False, 0, ["two"]]]
        feed.close()

    asyncio.run(run())

"""The event bus and its subscriptions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from suitkaise.events import Event
from suitkaise.messaging import event_bus as module
from suitkaise.messaging.event_bus import Bus, Subscription
from tests.support import interrupted_at_each_line


def happened(path: str) -> Event:
    return Event(path, 0.0)


def test_a_subscription_gets_its_part_of_the_tree_only() -> None:
    bus = Bus()
    with bus.events("app/one") as events:
        for path in ("app", "app/one", "app/one/deep/er", "app/one-more", "other/app/one"):
            bus.publish(happened(path))
    assert [event.path for event in events] == ["app/one", "app/one/deep/er"]


def test_a_subscription_begins_when_it_is_made_and_ends_when_it_is_closed() -> None:
    bus = Bus()
    bus.publish(happened("app"))
    events = bus.events("app")
    bus.publish(happened("app/1"))
    events.close()
    bus.publish(happened("app/2"))
    assert [event.path for event in events] == ["app/1"]
    assert events.get() is None


def test_a_subscription_is_bounded_and_counts_what_it_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 3)
    bus = Bus()
    with bus.events("app") as events:
        for number in range(5):
            bus.publish(happened(f"app/{number}"))
    assert ([event.path for event in events], events.dropped) == (["app/2", "app/3", "app/4"], 2)


def test_a_subscription_is_an_iterator() -> None:
    bus = Bus()
    with bus.events("app") as events:
        bus.publish(happened("app/1"))
        bus.publish(happened("app/2"))
        assert next(events).path == "app/1"
        assert next(events).path == "app/2"
    with pytest.raises(StopIteration):
        next(events)


def test_get_waits_for_an_event_up_to_its_timeout() -> None:
    bus = Bus()
    with bus.events("app") as events:
        assert events.get(timeout=0.01) is None
        timer = threading.Timer(0.02, bus.publish, [happened("app")])
        timer.start()
        event = events.get(timeout=10)
        timer.join()
        assert event is not None


def test_close_ends_an_iteration_that_waits() -> None:
    bus = Bus()
    events = bus.events("app")
    timer = threading.Timer(0.02, events.close)
    timer.start()
    assert list(events) == []
    timer.join()


@pytest.mark.parametrize("act", ["close", "publish"])
def test_a_signal_handler_ends_a_wait_for_an_event_at_any_moment_of_it(act: str) -> None:
    bus = Bus()
    events = bus.events("app")
    began = handled = 0.0

    def prepare() -> Callable[[], Event | None]:
        nonlocal events, began
        events.close()
        events, began = bus.events("app"), time.monotonic()
        return partial(events.get, 2.0)

    def handle() -> None:
        nonlocal handled
        handled = time.monotonic()
        if act == "close":
            events.close()
        else:
            bus.publish(happened("app"))

    moments = 0
    for event in interrupted_at_each_line(prepare, handle):
        if handled - began >= 2.0:
            break  # from here on the wait is over before the signal comes
        moments += 1
        assert time.monotonic() - handled < 2.0, f"after line {moments}"
        assert (event is None) == (act == "close")
    assert moments > 5


def test_async_for_waits_without_blocking_the_event_loop_and_ends_when_the_subscription_is_closed() -> None:
    bus = Bus()

    async def main() -> list[str]:
        with bus.events("app") as events:
            bus.publish(happened("app/1"))
            reading = asyncio.create_task(read(events))
            await asyncio.sleep(0)
            other = asyncio.create_task(read(events))  # an event is for one of the two
            timer = threading.Timer(0.02, bus.publish, [happened("app/2")])
            timer.start()
            await asyncio.to_thread(timer.join)
            events.close()
            return sorted(await reading + await other)

    async def read(events: Subscription) -> list[str]:
        return [event.path async for event in events]

    assert asyncio.run(asyncio.wait_for(main(), 10)) == ["app/1", "app/2"]


def test_an_async_wait_for_an_event_that_is_cancelled_loses_nothing() -> None:
    bus = Bus()

    async def main() -> str:
        with bus.events("app") as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            bus.publish(happened("app/1"))
            waiting.cancel()
            await asyncio.wait([waiting])
            return (await anext(events)).path

    assert asyncio.run(asyncio.wait_for(main(), 10)) == "app/1"


def test_an_event_loop_that_has_ended_harms_no_publisher() -> None:
    bus = Bus()
    loop = asyncio.new_event_loop()
    with bus.events("app") as events:
        waiting = loop.create_task(events.__anext__())
        loop.run_until_complete(asyncio.sleep(0))
        waiting.cancel()
        loop.close()
        bus.publish(happened("app"))
        assert events.get(10) is not None


def test_a_listener_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    seen: list[Event] = []

    def fail(event: Event) -> None:
        raise ValueError("no")

    bus.subscribe(fail)
    bus.subscribe(seen.append)
    with caplog.at_level(logging.ERROR, "suitkaise.events"):
        bus.publish(happened("app"))
    assert len(seen) == 1
    assert [record.message for record in caplog.records] == ["a listener raised an exception"]


def test_a_listener_may_unsubscribe_while_it_is_called() -> None:
    bus = Bus()
    seen: list[str] = []

    def once(event: Event) -> None:
        seen.append(event.path)
        bus.unsubscribe(once)

    bus.subscribe(once)
    bus.publish(happened("app/1"))
    bus.publish(happened("app/2"))
    assert seen == ["app/1"]


def test_many_threads_may_publish_and_subscribe() -> None:
    bus = Bus()
    with bus.events("app") as events:

        def publish(thread: int) -> None:
            for number in range(200):
                with bus.events("other"):
                    bus.publish(happened(f"app/{thread}/{number}"))

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(list(events)) == 800
    assert not bus._listeners

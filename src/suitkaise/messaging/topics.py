"""Topics (`Phoenix.PubSub`, Redis's `PUBLISH` and `PSUBSCRIBE`): messages for all workers that have subscribed.

The hub keeps the subscriptions; one belongs to one incarnation. A subscriber that does not keep up loses messages, and
slows nobody down. `memberships` has the hub's side.
"""

from __future__ import annotations

from typing import Any

from suitkaise.errors import MailboxFull
from suitkaise.messaging.direct import sends
from suitkaise.messaging.identity import split_owner
from suitkaise.messaging.messages import Message, payload_of
from suitkaise.messaging.patterns import checked_name
from suitkaise.messaging.protocol import RequestKind, TopicAction
from suitkaise.messaging.router import router, shared_payload
from suitkaise.records import dataclass
from suitkaise.specs.options import is_whole

__all__ = ["Published", "publish", "subscribe", "unsubscribe"]


@dataclass(frozen=True, slots=True)
class Published:
    """The message that a subscriber gets: what was published, and under which topic."""

    topic: str
    message: Any


@sends
def publish(topic: str, message: Any) -> int:
    """Send a `Published(topic, message)` to all workers that have subscribed to the topic; return to how many.

    It can be called from any process of the program. A worker whose subscriptions match the topic more than once gets
    the message once. A worker that has too many messages waiting does not get it, and is not counted.

    >>> from suitkaise import Published, Supervisor, Thread, publish
    >>> class Watch(Thread):
    ...     def on_start(self) -> None:
    ...         self.subscribe("orders/*")
    ...
    ...     def on_receive(self, message: Published | str) -> str:
    ...         if isinstance(message, Published):
    ...             self.last = f"{message.topic} {message.message}"
    ...         return self.last
    >>> with Supervisor("shop", Watch).start() as running:
    ...     publish("orders/new", 17), publish("stock/low", 3)
    ...     running["watch"].ask("the last?")
    (1, 0)
    'orders/new 17'

    Raises:
        ValueError: the topic is no text, or has wildcards.
        NotSerializable: the message cannot be sent to another process.
    """
    payload = shared_payload(Published(checked_name("a topic", topic), message))
    way = router()
    reached: int
    reached, left = way.request(RequestKind.TOPIC, topic, (TopicAction.PUBLISH, (payload, way.in_use()))).get()
    for owner, most in left:
        try:
            reached += (
                way.send_to(owner, Message("signal", payload_of(payload)), most)
                or way.request(RequestKind.TOPIC, topic, (TopicAction.OFFER, (payload, owner, most))).get()
            )
        except MailboxFull as error:
            way.request(RequestKind.DEAD_LETTER, split_owner(owner)[0], (f"published as {topic!r}: {error}", 1))
    return reached


def subscribe(pattern: str, owner: str, most: int) -> None:
    """Subscribe the incarnation `owner` to the topics that the pattern names."""
    if not is_whole(most, 1):
        raise ValueError(f"most must be a number of messages >= 1, not {most!r}")
    checked_name("a pattern of topics", pattern, wildcards=True)
    router().request(RequestKind.TOPIC, pattern, (TopicAction.SUBSCRIBE, (owner, most))).get()


def unsubscribe(pattern: str, owner: str) -> None:
    """Remove the subscription of the incarnation `owner` with this pattern."""
    checked_name("a pattern of topics", pattern, wildcards=True)
    router().request(RequestKind.TOPIC, pattern, (TopicAction.UNSUBSCRIBE, owner)).get()

"""The bundles in front of a message: once for a connection, and all of them where a message leaves it."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.messaging import codec, definitions
from suitkaise.messaging.bundle_tables import NOTHING, Known, behind_table, has_table, keys_in
from suitkaise.messaging.bundles import bundle_of, bundle_with, definition_known, keep
from suitkaise.messaging.messages import Payload, undecodable
from suitkaise.messaging.pieces import Pieces, is_in_pieces

pytestmark = pytest.mark.usefixtures("by_value")

numpy = pytest.importorskip("numpy")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def moved(point: Point) -> Point:
    return Point(point.x + 1)


def bundle(definition: Any) -> bytes:
    found = bundle_of(definition)
    assert found is not None
    return found[1]


def sent(known: Known, value: Any) -> bytes:
    """Send a value over the connection, and return what was sent."""
    data = Payload(value).parts_for(known)
    known.note_sent(data)
    return bytes(data)


@pytest.mark.parametrize(
    "value, definition",
    [
        (Point(1), Point),
        (moved, moved),
        (Point, Point),
        ([Point(1), Point(2)], Point),
        ({"call": (moved, Point(3))}, moved),
        ({"call": (moved, Point(3))}, Point),
    ],
)
def test_a_definition_is_sent_once_over_a_connection(value: Any, definition: Any) -> None:
    known = Known()
    first, second = sent(known, value), sent(known, value)
    assert first.count(bundle(definition)) == 1
    assert bundle(definition) not in second
    assert codec.loads(first) == codec.loads(second) == value


class Taken:
    """Only for the next test."""


def takes() -> type[Taken]:
    return Taken


def test_a_bundle_is_the_same_after_pickle_has_taken_the_first_instance_apart() -> None:
    first = sent(Known(), [takes, Taken()])  # pickle keeps the names of the slots in the class
    assert first.count(bundle(takes)) == 1


def test_another_connection_gets_what_it_lacks_and_no_more() -> None:
    known, other = Known(), Known()
    sent(known, Point(1))
    sent(other, moved)
    payload = Payload([Point(2), moved])
    assert bundle(moved) in bytes(payload.parts_for(known))
    assert bundle(Point) not in bytes(payload.parts_for(known))
    assert bundle(Point) in bytes(payload.parts_for(other))
    assert bundle(moved) not in bytes(payload.parts_for(other)).replace(bundle(Point), b"")


def test_what_was_encoded_for_one_connection_is_completed_for_all_others() -> None:
    known = Known()
    sent(known, Point(1))
    payload = Payload(Point(2))
    assert bundle(Point) not in bytes(payload.parts_for(known))
    assert bundle(Point) in payload.data
    assert payload.data == payload.data
    assert bundle(Point) not in bytes(payload.parts_for(known))
    assert codec.loads(payload.data) == Point(2)


def test_the_receiver_completes_what_it_passes_on() -> None:
    here, there = Known(), Known()
    there.note_arrived(sent(here, Point(1)))
    arrived = Payload(data=sent(here, Point(2)))
    assert bundle(Point) not in bytes(arrived.parts_for(there))
    assert bundle(Point) in arrived.data


def test_what_has_arrived_need_not_be_sent_back() -> None:
    here, there = Known(), Known()
    there.note_arrived(sent(here, Point(1)))
    assert bundle(Point) not in sent(there, Point(2))


def test_a_definition_is_decoded_from_its_bundle_when_the_process_does_not_know_it() -> None:
    class Later: ...

    key = f"another program\n{__name__}\nLater"
    data = codec.dumps(Later)
    keep(key, data)
    assert bundle_with(key) == data
    assert definition_known(key) is Later
    with pytest.raises(Exception, match=f"no definition of {__name__}.Missing"):
        definition_known(f"another program\n{__name__}\nMissing")


def test_large_buffers_stay_beside_the_pickle_and_aligned() -> None:
    known = Known()
    array = numpy.arange(100_000)
    for _ in range(2):
        parts = Payload((Point(1), array)).parts_for(known)
        assert isinstance(parts, Pieces)
        known.note_sent(parts)
        data = bytearray(bytes(parts))
        assert has_table(data)
        behind = behind_table(data)
        assert is_in_pieces(behind)
        assert (len(data) - len(behind)) % 16 == 0
        point, arrived = codec.loads(data)
        assert point == Point(1)
        assert (arrived == array).all()
        assert arrived.flags.writeable
        whole = NOTHING.for_peer(data)
        assert isinstance(whole, bytearray)
        assert codec.loads(whole)[0] == Point(1)


def test_a_value_without_definitions_has_no_table() -> None:
    for value in (None, 1, "text", [1, {"a": (2.5, b"bytes")}], numpy.arange(100_000)):
        assert not has_table(Payload(value).parts_for(Known()))
        assert keys_in(Payload(value).data) == []


@pytest.mark.parametrize("damage", [slice(0, 1), slice(0, 4), slice(0, 7), slice(0, 20)])
def test_a_damaged_table_is_an_error(damage: slice) -> None:
    data = sent(Known(), Point(1))[damage]
    with pytest.raises(ValueError, match="damaged data"):
        codec.loads(data)
    known = Known()
    known.note_arrived(data)
    known.note_sent(data)
    assert (known, known.for_peer(data)) == (set(), data)


def test_the_error_for_what_cannot_be_decoded_names_the_class() -> None:
    data = sent(Known(), Point(1))
    error = undecodable("the answer", Payload(data=data), KeyError("what"))
    assert f"{__name__}.Point" in str(error)
    assert definitions.text_of(keys_in(data)[0]) == f"{__name__}.Point"

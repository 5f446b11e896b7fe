from __future__ import annotations

from suitkaise.storage.keys import MAX_KEY, entry_key
from suitkaise.storage.records import Encoding, encode_value


def test_keys_are_bounded_and_distinct() -> None:
    long = "x" * 1000
    keys = {
        entry_key(path, name)[0]
        for path in ("", "a", long, long + "y", "é" * 400)
        for name in ("n", long, long + "z", "é" * 400)
    }
    assert len(keys) == 20
    assert max(map(len, keys)) <= MAX_KEY


def test_numbers_and_lists_have_encodings_of_their_own() -> None:
    kinds = [encode_value(value)[0] for value in (True, 1, 1.0, [], (), "x", None)]
    assert kinds == [
        Encoding.PICKLE,
        Encoding.INTEGER,
        Encoding.REAL,
        Encoding.LIST,
        Encoding.PICKLE,
        Encoding.PICKLE,
        Encoding.PICKLE,
    ]

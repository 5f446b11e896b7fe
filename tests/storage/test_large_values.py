from __future__ import annotations

import pickle
import re
import tracemalloc
from typing import Any

import pytest

from suitkaise.messaging import codec
from suitkaise.storage.records import Encoding, decode_value, encode_value
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage

MEGABYTE = 1 << 20


class Picture:
    """A value with a large buffer, as arrays are: it offers the buffer to pickle."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Picture, (pickle.PickleBuffer(self.pixels),)


@pytest.mark.parametrize("size", [0, 256, 10_000, 3 * MEGABYTE])
def test_values_with_buffers_come_back_as_copies_that_can_be_changed(tree: Tree, size: int) -> None:
    pixels = bytearray(range(256)) * (size // 256)
    tree.add("picture", {"left": Picture(pixels), "right": Picture(pixels), "n": 1}, "big")
    first, second = tree.get("picture", "big"), tree.get("picture", "big")
    assert bytes(first["left"].pixels) == bytes(first["right"].pixels) == pixels
    if size:
        first["left"].pixels[0] = 77
        assert first["right"].pixels[0] == second["left"].pixels[0] == pixels[0] == 0
        pixels[0] = 99
        assert tree.get("picture", "big")["left"].pixels[0] == 0


def test_only_large_buffers_are_kept_apart() -> None:
    assert encode_value({"picture": Picture(bytearray(100))})[0] == Encoding.PICKLE
    encoding, data = encode_value({"picture": Picture(bytearray(10_000))})
    assert encoding == Encoding.APART
    assert decode_value(encoding, data)["picture"].pixels == bytearray(10_000)


@pytest.mark.parametrize("value", [b"x" * 5 * MEGABYTE, bytearray(5 * MEGABYTE), "x" * 5 * MEGABYTE])
def test_plain_large_values_are_shared(tree: Tree, value: Any) -> None:
    tree.add("large", value, "big", wait=False)
    tree.add("small", 1, "big", wait=False)
    tree.flush()
    assert tree.get("large", "big") == value
    assert tree.get("small", "big") == 1


def test_a_picture_of_the_tree_tells_the_size_of_a_large_value(tree: Tree) -> None:
    tree.add("large", bytes(8 * MEGABYTE), "kept")  # its `repr` is four times as long
    tree.add("small", b"x", "kept")
    tracemalloc.start()
    try:
        text = str(tree)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search(r"large = <8,388,\d\d\d bytes>\n +small = b'x'$", text)
    assert most < 30 * MEGABYTE


def test_large_values_in_transactions_and_updates_and_appends(tree: Tree) -> None:
    with tree.transaction():
        tree.add("picture", Picture(bytearray(MEGABYTE)), "big")
        tree.add("n", 1, "big")
        assert len(tree.get("picture", "big").pixels) == MEGABYTE
    updated = tree.update("picture", lambda picture: Picture(picture.pixels * 2), "big")
    assert len(updated.pixels) == len(tree.get("picture", "big").pixels) == 2 * MEGABYTE
    tree.add("list", [Picture(bytearray(MEGABYTE))], "big")
    tree.append("list", Picture(bytearray(b"end")), "big")
    assert [len(picture.pixels) for picture in tree.get("list", "big")] == [MEGABYTE, 3]


def test_a_write_copies_the_buffers_once(storage: Storage) -> None:
    picture = Picture(bytearray(8 * MEGABYTE))
    storage.tree.add("picture", picture, "big")
    tracemalloc.start()
    try:
        storage.tree.add("picture", picture, "big")
        assert tracemalloc.get_traced_memory()[1] < 9 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_read_that_is_repeated_copies_the_buffers_once(tree: Tree) -> None:
    tree.add("picture", Picture(bytearray(b"12345678") * MEGABYTE), "big")
    tree.get("picture", "big")
    tracemalloc.start()
    try:
        picture = tree.get("picture", "big")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert bytes(picture.pixels[:8]) == b"12345678"
    if "store" in {path.name for path in tree.directory.iterdir()}:  # SQLite copies once more
        assert most < 9 * MEGABYTE
    picture.pixels[:4] = b"mine"
    assert bytes(tree.get("picture", "big").pixels[:8]) == b"12345678"
    tree.add("picture", "small", "big")
    assert [tree.get("picture", "big") for _ in range(2)] == ["small", "small"]
    tree.remove("picture", "big")
    assert tree.get("picture", "big", default="gone") == "gone"
    with pytest.raises(KeyError):
        tree.get("picture", "big")


def test_large_posted_writes_arrive_after_a_kill_of_the_server(storage: Storage) -> None:
    for number in range(6):
        storage.tree.add(f"n{number}", bytes([number]) * MEGABYTE, "big", wait=False)
        if number == 3:
            storage.restart()
    storage.tree.flush()
    for number in range(6):
        assert storage.tree.get(f"n{number}", "big") == bytes([number]) * MEGABYTE


def test_a_value_by_value_with_a_buffer_is_sent_in_one_piece() -> None:
    local = type("Local", (), {"__module__": "__main__"})
    value = {"kind": local, "picture": Picture(bytearray(10_000))}
    data, buffers = codec.dumps_apart(value)
    assert buffers == []
    assert codec.loads(data)["picture"].pixels == bytearray(10_000)


def test_arrays_of_numpy_come_back_as_their_own_copies(tree: Tree) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000, dtype=numpy.float64).reshape(100, 1000)
    transposed = numpy.asfortranarray(array)
    tree.add("arrays", {"a": array, "t": transposed, "part": array[::2, ::3], "small": numpy.arange(3)}, "big")
    tree.add("alone", array, "big")
    got = tree.get("arrays", "big")
    for name, expected in (("a", array), ("t", transposed), ("part", array[::2, ::3]), ("small", numpy.arange(3))):
        assert (got[name] == expected).all()
        assert got[name].dtype == expected.dtype
        got[name][...] = 0
        assert got[name].flags.writeable
    alone = tree.get("alone", "big")
    alone += 1
    assert (tree.get("alone", "big") == array).all()
    assert encode_value(array)[0] == Encoding.APART


@pytest.mark.parametrize("look", ["exists", "revision", "walk"])
def test_a_look_at_an_entry_copies_no_large_value(tree: Tree, engine: str, look: str) -> None:
    if engine != "lmdb":
        pytest.skip("SQLite hands out values as copies only")
    tree.add("large", b"x" * 8 * MEGABYTE, "big")
    looks: dict[str, Any] = {
        "exists": lambda: tree.exists("large", "big"),
        "revision": lambda: tree.revision("large", "big") > 0,
        "walk": lambda: list(tree.walk("big")) == [("big", ["large"])],
    }
    assert looks[look]()  # opens the store
    tracemalloc.start()
    try:
        assert looks[look]()
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()

"""What a page sees of the storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from suitkaise import sktree
from suitkaise.observer.storage import LONG, MOST, SHORT, StorageView
from suitkaise.storage.listing import LARGEST_SHOWN
from suitkaise.storage.tree import Tree


class Odd:
    """A value whose text cannot be made."""

    def __repr__(self) -> str:
        raise LookupError("no text")


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield sktree.connect()
    sktree.disconnect()


def test_a_program_without_a_storage_has_nothing_to_show() -> None:
    told = StorageView().container(None, "")
    assert (told["used"], told["entries"]) == (False, [])
    assert StorageView().entry(None, "", "a") is None


def test_one_container_is_told_with_the_names_below_it(tree: Tree) -> None:
    for path in ("", "jobs", "jobs/open", "jobs/done/old", "jobsite"):
        tree.add("a", path, path=path)
    view, place = StorageView(), str(tree.directory)
    told = view.container(place, "jobs")
    assert (told["containers"], told["count"], told["more"]) == (["done", "open"], 5, 0)
    assert [(entry["name"], entry["value"]) for entry in told["entries"]] == [("a", "'jobs'")]
    assert view.container(place, "")["containers"] == ["jobs", "jobsite"]
    assert view.container(place, "none")["entries"] == []
    assert view.container(place, "jobs", told["revision"]) == {"revision": told["revision"]}
    tree.add("b", 1, path="elsewhere")
    assert view.container(place, "jobs", told["revision"])["entries"] == told["entries"]


def test_a_container_and_its_entries_are_found_however_the_path_is_written(tree: Tree) -> None:
    tree.add("a", 1, path="jobs/open")
    view, place = StorageView(), str(tree.directory)
    for path in ("jobs/open", "/jobs/open", "jobs/open/"):
        assert [entry["name"] for entry in view.container(place, path)["entries"]] == ["a"]
        entry = view.entry(place, path, "a")
        assert entry is not None
        assert (entry["path"], entry["value"]) == ("jobs/open", "1")


def test_a_value_is_shown_short_in_the_list_and_longer_alone(tree: Tree) -> None:
    tree.add("long", "x" * LONG, path="a")
    view, place = StorageView(), str(tree.directory)
    [listed] = view.container(place, "a")["entries"]
    alone = view.entry(place, "a", "long")
    assert alone is not None
    assert (len(listed["value"]), len(alone["value"])) == (SHORT + 1, LONG + 1)


@pytest.mark.parametrize(
    "value, shown",
    [
        (bytes(LARGEST_SHOWN), "<SIZE bytes>"),
        (Odd(), "<cannot be shown: LookupError: no text>"),
        ("\x1b[2J", "'\\x1b[2J'"),
    ],
    ids=["large", "odd", "control"],
)
def test_a_value_that_is_large_or_odd_harms_nothing(tree: Tree, value: object, shown: str) -> None:
    tree.add("value", value, path="a")
    [entry] = StorageView().container(str(tree.directory), "a")["entries"]
    assert entry["value"] == shown.replace("SIZE", f"{entry['size']:,}")


def test_hidden_values_are_not_even_decoded(tree: Tree) -> None:
    tree.add("odd", Odd(), path="a")
    view, place = StorageView(hide_values=True), str(tree.directory)
    told = view.container(place, "a")
    alone = view.entry(place, "a", "odd")
    assert told["hidden"]
    assert alone is not None
    assert (told["entries"][0]["value"], alone["value"]) == (None, None)


def test_a_container_of_any_size_is_told_in_part(tree: Tree) -> None:
    with tree.transaction():
        for number in range(MOST + 5):
            tree.add(f"{number:04}", number, path="many")
    told = StorageView().container(str(tree.directory), "many")
    assert (len(told["entries"]), told["more"]) == (MOST, 5)

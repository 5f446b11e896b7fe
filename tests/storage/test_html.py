from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from suitkaise.storage.tree import Tree

HOSTILE = "<script>alert(1)</script>&\"'"


class Checker(HTMLParser):
    """Collects the tags, which must be balanced, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def checked(markup: str) -> Checker:
    checker = Checker()
    checker.feed(markup)
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags
    return checker


def test_a_notebook_shows_tree_selection_and_entry_with_all_text_escaped(tree: Tree) -> None:
    tree.add(HOSTILE, HOSTILE, f"a/{HOSTILE[:-20]}", {"pid": 1, HOSTILE: HOSTILE})
    tree.add("in the root", [1], "", {"pid": 1})
    shown = checked(tree._repr_html_())
    assert repr(HOSTILE) in shown.text
    assert f"storage in {tree.directory} : 2 entries" in shown.text
    assert "in the root [1]" in shown.text
    selection = tree.select_all_with({"pid": 1}, "")
    shown = checked(selection._repr_html_())
    assert HOSTILE in shown.text
    assert "Selection of 2 entries with {'pid': 1} below the root" in shown.text
    entry = next(entry for entry in selection if entry.path)
    assert f"pid=1, {HOSTILE}={HOSTILE!r}" in checked(entry._repr_html_()).text


def test_a_notebook_shows_the_first_entries_of_many(tree: Tree) -> None:
    for number in range(250):
        tree.add(f"n{number:03}", number, "p", {"pid": 1}, wait=False)
    tree.flush()
    assert "and 50 more" in checked(tree._repr_html_()).text
    assert "and 150 more" in checked(tree.select_all_with({"pid": 1}, "p")._repr_html_()).text


def test_a_storage_that_is_not_there_is_shown_as_such(tmp_path: Path) -> None:
    assert "not there yet" in checked(Tree(tmp_path / "<none>")._repr_html_()).text

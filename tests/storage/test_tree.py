from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from suitkaise.errors import (
    EntryExists,
    EntryNotFound,
    NotSerializable,
    OwnerDead,
    StorageError,
    SuitkaiseError,
)
from suitkaise.messaging.identity import set_owner
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage
from tests.support import ROOT, run_program

HERE = "tests/storage/test_tree"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Size(enum.IntEnum):
    BIG = 3


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**200,
        -(2**64),
        1.5,
        math.inf,
        "text",
        "",
        b"bytes",
        (1, (2,)),
        [],
        [1, [2]],
        {"a": {1: None}},
        {1, 2},
        Point(1, 2),
        Size.BIG,
        print,
    ],
    ids=repr,
)
def test_get_returns_an_equal_value_of_the_same_type(tree: Tree, value: Any) -> None:
    tree.add("value", value)
    back = tree.get("value")
    assert back == value
    assert type(back) is type(value)


def test_each_get_returns_a_copy_of_its_own(tree: Tree) -> None:
    tree.add("list", [1])
    tree.get("list").append(2)
    assert tree.get("list") == [1]


def test_the_path_defaults_to_the_callers_file(tree: Tree) -> None:
    tree.add("limit", 10)
    tree.append("log", 1)
    tree.increment("hits")
    tree.setdefault("kept", 1)
    tree.compare_and_set("compared", 0, 1)
    tree.update("limit", 11)
    assert tree.containers() == [HERE]
    assert tree.get_all_from() == {"limit": 11, "log": [1], "hits": 1, "kept": 1, "compared": 1}
    assert tree.exists("limit")
    assert tree.entry("limit").path == HERE
    assert tree.revision("limit") > 0
    for name in tree.get_all_from():
        tree.remove(name)
    assert tree.containers() == []


def test_the_root_has_the_empty_path(tree: Tree) -> None:
    tree.add_to_root("report", {"a": 1})
    assert tree.get("report", path="") == tree.get("report", path="/") == {"a": 1}
    assert tree.get_all_from("") == {"report": {"a": 1}}
    assert tree.containers() == [""]


def test_paths_are_the_same_with_and_without_slashes_around_them(tree: Tree) -> None:
    tree.add("a", 1, path="/ui/settings/")
    assert tree.get("a", path="ui/settings") == 1


def test_get_of_a_missing_name_raises_an_error_with_the_nearest_names(tree: Tree) -> None:
    tree.add("limit", 1, path="ui")
    tree.add("limits", 1, path="ui")
    tree.add("else", 1, path="ui")
    with pytest.raises(KeyError) as caught:
        tree.get("limit2", path="ui")
    text = str(caught.value)
    assert text == "there is no 'limit2' in 'ui'; did you mean 'limit' or 'limits'?"
    assert isinstance(caught.value, EntryNotFound)
    with pytest.raises(EntryNotFound, match="'limit' in 'elsewhere'; the container is empty"):
        tree.get("limit", path="elsewhere")


def test_a_miss_in_a_container_of_many_entries_does_not_read_them_all(tree: Tree) -> None:
    for index in range(1001):
        tree.add(f"n{index}", 1, path="wide", wait=False)
    tree.flush()
    assert len(tree._reader.heads("wide", 7)) == 7
    for count, hint in ((1001, ""), (1000, "; did you mean 'n101' or 'n100' or 'n1000'?")):
        assert len(tree._reader.heads("wide")) == count
        with pytest.raises(EntryNotFound) as caught:
            tree.get("n1001", path="wide")
        assert str(caught.value) == f"there is no 'n1001' in 'wide'{hint}"
        tree.remove("n999", path="wide", missing_ok=True)


@pytest.mark.parametrize("name, hint", [
    ("ui/limit", "; there is 'limit' in 'ui'"), ("/ui/limit", "; there is 'limit' in 'ui'"),
    ("ui/else", "; the container is empty"), ("ui/../limit", "; the container is empty"),
])  # fmt: skip
def test_who_takes_a_whole_path_for_a_name_is_told_the_path_and_the_name(name: str, hint: str, tree: Tree) -> None:
    tree.add("limit", 1, path="ui")
    with pytest.raises(EntryNotFound) as caught:
        tree.get(name, path="")
    assert str(caught.value) == f"there is no {name!r} in the root{hint}"


def test_get_of_a_missing_name_returns_the_default(tree: Tree) -> None:
    assert tree.get("nothing", default=None) is None
    assert tree.get("nothing", "some/path", 5) == 5


def test_add_replaces_value_and_metadata(tree: Tree) -> None:
    tree.add("a", 1, metadata={"pid": 1})
    tree.add("a", "two")
    assert tree.get("a") == "two"
    assert tree.entry("a").metadata == {}


def test_add_with_exist_ok_false_refuses_a_name_that_exists(tree: Tree) -> None:
    tree.add("a", 1, exist_ok=False)
    with pytest.raises(EntryExists, match=r"'a' in 'tests/storage/test_tree' exists already"):
        tree.add("a", 2, exist_ok=False)
    assert tree.get("a") == 1


def test_update_keeps_the_metadata_unless_new_metadata_are_given(tree: Tree) -> None:
    tree.add("a", 1, metadata={"pid": 1})
    assert tree.update("a", 2) == 2
    assert tree.update("a", lambda old: old + 1) == 3
    assert tree.entry("a").metadata == {"pid": 1}
    tree.update("a", 4, metadata={"pid": 2})
    assert tree.entry("a").metadata == {"pid": 2}
    tree.update("a", lambda old: old, metadata={})
    assert tree.entry("a").metadata == {}


def test_update_of_a_missing_name_is_a_key_error(tree: Tree) -> None:
    tree.add("limit", 1)
    for value in (1, lambda old: old):
        with pytest.raises(KeyError, match=r"there is no 'limt' in .*did you mean 'limit'\?"):
            tree.update("limt", value)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_update_by_a_function_without_a_wait_is_refused_and_the_function_not_called(
    tree: Tree, in_transaction: bool
) -> None:
    tree.add("limit", 1)
    called: list[int] = []
    with tree.transaction() if in_transaction else contextlib.nullcontext():
        with pytest.raises(ValueError, match="wait=False needs a plain value"):
            tree.update("limit", called.append, wait=False)
    assert (called, tree.get("limit")) == ([], 1)


def test_update_by_a_function_loses_nothing_among_threads(tree: Tree) -> None:
    tree.add("count", 0, path="shared")

    def work() -> None:
        for _ in range(50):
            tree.update("count", lambda old: old + 1, path="shared")

    run_in_threads(work, 4)
    assert tree.get("count", path="shared") == 200


def test_increment_makes_the_entry_and_returns_the_sum(tree: Tree) -> None:
    assert tree.increment("n") == 1
    assert tree.increment("n", 2**70) == 1 + 2**70
    assert tree.increment("n", -(2**70)) == 1
    assert tree.increment("n", 0.5) == 1.5
    assert tree.increment("m", 2, start=10) == 12
    assert tree.increment("flag", True) == 1
    assert tree.get_all_from() == {"n": 1.5, "m": 12, "flag": 1}
    tree.add("hits", 5, metadata={"pid": 3})
    tree.increment("hits")
    assert (tree.get("hits"), tree.entry("hits").metadata) == (6, {"pid": 3})


def test_increment_refuses_values_that_are_not_numbers(tree: Tree) -> None:
    tree.add("text", "a")
    tree.add("flag", True)
    tree.add("huge", 10**400)
    for name, amount in (("text", 1), ("flag", 1), ("huge", 0.5)):
        with pytest.raises(StorageError, match=f"'{name}' in .* is not an int or float"):
            tree.increment(name, amount)
    with pytest.raises(TypeError, match="amount must be an int or a float, not '1'"):
        tree.increment("n", "1")
    assert tree.get("text") == "a"
    assert not tree.exists("n")


def test_increments_of_threads_all_count(tree: Tree) -> None:
    def work() -> None:
        for _ in range(100):
            tree.increment("count", path="shared", wait=False)
        tree.increment("count", path="shared")

    run_in_threads(work, 4)
    tree.flush()
    assert tree.get("count", path="shared") == 404


def test_append_makes_lists_and_extends_them(tree: Tree) -> None:
    for item in ("a", ["b"], None, Point(1, 2)):
        tree.append("log", item)
    assert tree.get("log") == ["a", ["b"], None, Point(1, 2)]
    tree.add("log", [1], metadata={"pid": 1})
    tree.append("log", 2)
    assert (tree.get("log"), tree.entry("log").metadata) == ([1, 2], {"pid": 1})
    tree.update("log", lambda items: items[:1])
    tree.append("log", 3)
    assert tree.get("log") == [1, 3]
    tree.add("tuple", (1,))
    with pytest.raises(StorageError, match=r"'tuple' in .* is not a list"):
        tree.append("tuple", 2)


def test_setdefault_keeps_an_existing_value(tree: Tree) -> None:
    assert tree.setdefault("a", [1], metadata={"pid": 1}) == [1]
    assert tree.setdefault("a", [2]) == [1]
    assert tree.entry("a").metadata == {"pid": 1}


def test_compare_and_set_stores_only_if_the_revision_is_the_expected_one(tree: Tree) -> None:
    assert tree.revision("a") == 0
    assert tree.compare_and_set("a", 0, 1, metadata={"pid": 1})
    assert not tree.compare_and_set("a", 0, 2)
    seen = tree.revision("a")
    assert tree.compare_and_set("a", seen, 2)
    assert not tree.compare_and_set("a", seen, 3)
    assert (tree.get("a"), tree.entry("a").metadata) == (2, {"pid": 1})
    tree.remove("a")
    tree.add("a", 2)
    assert tree.revision("a") > seen + 1
    for wrong in (-1, True, 1.0):
        with pytest.raises(ValueError, match="a revision is an int >= 0"):
            tree.compare_and_set("a", wrong, 2)  # type: ignore[arg-type]


def test_remove_of_a_missing_name_is_a_key_error_without_missing_ok(tree: Tree) -> None:
    tree.add("a", 1)
    tree.remove("a")
    assert not tree.exists("a")
    with pytest.raises(KeyError, match="there is no 'a' in"):
        tree.remove("a")
    tree.remove("a", missing_ok=True)
    tree.remove("a", missing_ok=True, wait=False)
    tree.flush()


def test_missing_ok_may_be_any_value_that_is_true_or_false(tree: Tree) -> None:
    tree.remove("a", missing_ok=1)  # type: ignore[arg-type]
    with pytest.raises(EntryNotFound):
        tree.remove("a", missing_ok=None)  # type: ignore[arg-type]


def test_entry_returns_revision_time_size_and_metadata(tree: Tree) -> None:
    before = time.time()
    tree.add("a", "x" * 1000, metadata={"pid": 7, "share": 0.5, "name": "n", "on": True, "no": None})
    entry = tree.entry("a")
    assert (entry.path, entry.name, entry.owner) == (HERE, "a", None)
    assert before - 0.001 <= entry.time <= time.time()
    assert 1000 <= entry.size <= 1100
    assert entry.metadata == {"pid": 7, "share": 0.5, "name": "n", "on": True, "no": None}
    first = entry.revision
    tree.add("b", 1)
    tree.update("a", "y")
    assert tree.entry("a").revision > tree.entry("b").revision > first
    with pytest.raises(KeyError, match="'c'"):
        tree.entry("c")


def test_metadata_must_be_scalars(tree: Tree) -> None:
    with pytest.raises(TypeError, match=r"metadata\['a'\] must be a str, int, float, bool or None, not list"):
        tree.add("x", 1, metadata={"a": []})
    with pytest.raises(TypeError, match="a key must be a str, not int: 1"):
        tree.add("x", 1, metadata={1: "a"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="metadata must be a dict of scalars, not list"):
        tree.add("x", 1, metadata=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must fit into 64 bits"):
        tree.update("x", 1, metadata={"a": 2**70})
    for mark in (1, "yes", None):
        with pytest.raises(
            TypeError, match=rf"metadata\['remove_on_process_join'\] must be True or False, not {mark!r}"
        ):
            tree.add("x", 1, metadata={"remove_on_process_join": mark})
    tree.add("x", 1, metadata={"size": Size.BIG, "loops": math.inf})
    assert tree.entry("x").metadata == {"size": 3, "loops": math.inf}


def test_text_that_cannot_be_stored_is_refused_with_what_it_was_for(tree: Tree) -> None:
    name = os.fsdecode(b"caf\xe9.txt")  # of a file, as `os.listdir` returns it
    shown = r"'caf\\udce9.txt' has a lone surrogate"
    for use in (
        lambda metadata: tree.add("x", 1, metadata=metadata),
        lambda metadata: tree.update("x", 1, metadata=metadata),
        lambda metadata: tree.select_all_with(metadata),
    ):
        with pytest.raises(ValueError, match=rf"a str in metadata\['file'\] must be valid text; {shown}"):
            use({"file": name})
        with pytest.raises(ValueError, match=f"a key of metadata must be valid text; {shown}"):
            use({name: 1})
    with pytest.raises(ValueError, match=f"a key of metadata must be valid text; {shown}"):
        tree.declare_index([name])
    for look in (tree.watch, tree.containers, tree.walk, tree.get_all_from):
        with pytest.raises(ValueError, match=f"a path must be valid text; {shown}"):
            look(name)
    with tree.transaction():
        with pytest.raises(ValueError, match="must be valid text"):
            tree.add("x", 1, metadata={"file": name})
        tree.add("y", 1)
    assert tree.get("y") == 1


@pytest.mark.parametrize("wrong", ["", 0, (), False])
def test_empty_metadata_of_a_wrong_type_are_refused_and_nothing_is_written(tree: Tree, wrong: Any) -> None:
    for write in (
        lambda: tree.add("x", 1, metadata=wrong), lambda: tree.update("x", 1, metadata=wrong),
        lambda: tree.setdefault("x", 1, metadata=wrong), lambda: tree.compare_and_set("x", 0, 1, metadata=wrong),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="metadata must be a dict of scalars, not "):
            write()
    assert tree.get("x", default=None) is None
    assert tree.setdefault("x", 2, metadata={}) == tree.setdefault("x", 3, metadata=None) == 2


@pytest.mark.parametrize(
    "name, path, error, text",
    [
        ("", "a", ValueError, "a name must not be empty"),
        ("a\0b", "a", ValueError, "must not contain NUL"),
        (5, "a", TypeError, "a name must be a str, not int: 5"),
        ([], "a", TypeError, "a name must be a str, not list"),
        ("\ud800", "a", ValueError, "lone surrogate"),
        ("a", 5, TypeError, "a path must be a str such as 'ui/settings', not int"),
        ("a", [], TypeError, "a path must be a str"),
        ("a", "a//b", ValueError, "a path is parts divided by '/'"),
        ("a", "a/../b", ValueError, "a path is parts divided by '/'"),
        ("a", "a\0b", ValueError, "a path is parts divided by '/', without NUL"),
        ("a", "\udc80", ValueError, "lone surrogate"),
    ],
)
def test_invalid_names_and_paths_raise_clear_errors(
    tree: Tree, name: Any, path: Any, error: type[Exception], text: str
) -> None:
    for call in (
        lambda: tree.get(name, path),
        lambda: tree.get(name, path, default=1),
        lambda: tree.add(name, 1, path),
        lambda: tree.remove(name, path, missing_ok=True),
        lambda: tree.increment(name, 1, path),
        lambda: tree.entry(name, path),
    ):
        with pytest.raises(error, match=text):
            call()


def test_names_and_paths_may_be_long_and_in_any_script(tree: Tree) -> None:
    long = "długa nazwa 名前 " * 100
    tree.add(long, 1, path="short")
    tree.add(long + "!", 2, path="short")
    tree.add("short", 3, path="a/" + long.strip().replace(" ", "/"))
    tree.add("other", 4, path="a/" + long.strip().replace(" ", "/"))
    tree.add(long, 5, path=long)
    tree.add("名前", 6, path="ui/設定")
    assert tree.get(long, path="short") == 1
    assert tree.get_all_from("short") == {long: 1, long + "!": 2}
    assert tree.get_all_from("a/" + long.strip().replace(" ", "/")) == {"short": 3, "other": 4}
    assert tree.get(long, path=long) == 5
    assert tree.get("名前", path="ui/設定") == 6
    assert len(tree.containers()) == 4
    assert sum(len(names) for _, names in tree.walk()) == 6
    assert tree.entry(long, path=long).name == long
    tree.remove(long, path=long)
    assert not tree.exists(long, path=long)
    with pytest.raises(KeyError, match="did you mean"):
        tree.get(long + "?", path="short")


def test_containers_and_walk_list_everything_below_a_path(tree: Tree) -> None:
    for path in ("", "ui", "ui/settings", "ui/settings/deep", "uid", "net"):
        tree.add("b", 1, path=path)
        tree.add("a", 1, path=path)
    assert tree.containers() == ["", "net", "ui", "ui/settings", "ui/settings/deep", "uid"]
    assert tree.containers("ui") == ["ui", "ui/settings", "ui/settings/deep"]
    assert list(tree.walk("ui/settings")) == [("ui/settings", ["a", "b"]), ("ui/settings/deep", ["a", "b"])]
    assert list(tree.walk("nowhere")) == []
    with pytest.raises(TypeError, match="a path must be a str"):
        tree.walk(5)  # type: ignore[arg-type]
    assert tree.get_all_from("ui") == {"a": 1, "b": 1}


def test_walk_goes_through_many_entries_in_portions(tree: Tree) -> None:
    for index in range(3000):
        tree.add(f"n{index:04}", index, path=f"p{index % 7}", wait=False)
    tree.flush()
    assert sum(len(names) for _, names in tree.walk()) == 3000
    assert len(list(tree._reader.walk())) == tree._reader.count() == 3000


def test_str_shows_a_value_of_several_lines_in_one(tree: Tree) -> None:
    tree.add("rows", Rows(), path="odd")
    assert str(tree).splitlines()[2:] == ["    rows = [[1]\\n [2]]"]
    assert "<td>[[1]\\n [2]]</td>" in tree._repr_html_()


def test_str_shows_a_name_and_a_path_as_one_line_that_steers_no_terminal(tree: Tree) -> None:
    tree.add("limit = 1\n  \x1b[2Jlimits", 2, path="ui\nlog/\u202edeep")
    assert str(tree).splitlines()[1:] == [
        "  ui\\nlog/",
        "    \\u202edeep/",
        "      limit = 1\\n  \\x1b[2Jlimits = 2",
    ]


def test_str_draws_the_tree(tree: Tree) -> None:
    tree.add("limit", 10, path="ui/settings")
    tree.add("text", "x" * 100, path="ui")
    tree.add_to_root("report", {"a": 1})
    assert str(tree).splitlines() == [
        f"storage in {tree.directory}: 3 entries",
        "  report = {'a': 1}",
        "  ui/",
        "    text = '" + "x" * 56 + "...",
        "    settings/",
        "      limit = 10",
    ]
    assert repr(tree) == f"Tree('{tree.directory}')"


def test_str_shows_values_that_cannot_be_shown_and_is_bounded(tree: Tree) -> None:
    tree.add("odd", Undecodable())
    tree.add("huge", 10**5000)  # `repr` refuses it
    for index in range(300):
        tree.add(f"n{index}", index, wait=False)
    tree.flush()
    text = str(tree)
    assert "and 102 more" in text
    assert "huge = <cannot be shown here: Exceeds the limit" in text
    assert len(text.splitlines()) < 210
    with pytest.raises(RuntimeError, match="cannot be made here") as caught:
        tree.get("odd")
    assert caught.value.__notes__ == [f"while decoding the value of 'odd' in '{HERE}'"]


def explode() -> None:
    raise RuntimeError("cannot be made here")


class Rows:
    """A value that shows itself in several lines, as an array of NumPy."""

    def __repr__(self) -> str:
        return "[[1]\n [2]]"


class Undecodable:
    def __reduce__(self) -> Any:
        return explode, ()


def test_an_unpicklable_value_is_refused_with_the_path_to_the_culprit(tree: Tree) -> None:
    lock = threading.Lock()
    with pytest.raises(NotSerializable, match=r"value\['a'\]\[0\]: cannot pickle"):
        tree.add("x", {"a": [lock]})
    with pytest.raises(NotSerializable, match=r"item\[1\]: "):
        tree.append("x", [1, lock])
    assert not tree.exists("x")


def test_a_handle_can_be_pickled(tree: Tree) -> None:
    tree.add("a", 1)
    other = pickle.loads(pickle.dumps(tree))
    assert type(other) is Tree
    assert (other.directory, other.timeout) == (tree.directory, tree.timeout)
    assert other.get("a") == 1
    tree.add("handle", tree)
    assert tree.get("handle").get("a") == 1


def test_a_write_that_returned_is_seen_by_another_process(tree: Tree) -> None:
    program = """
import sys
from suitkaise.storage.tree import Tree
tree = Tree(sys.argv[1])
for line in sys.stdin:
    tree.add("answer", int(line) + 1, path="talk")
    print(tree.get("question", path="talk"), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tree.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(50):
            tree.add("question", number, path="talk")
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) == number
            assert tree.get("answer", path="talk") == number + 1
        process.stdin.close()


def test_threads_share_a_handle(tree: Tree) -> None:
    def work() -> None:
        me = threading.current_thread().name  # identifiers of threads are reused
        for number in range(100):
            tree.add(me, number, path="threads")
            assert tree.get(me, path="threads") == number

    run_in_threads(work, 6)
    assert len(tree.get_all_from("threads")) == 6


def test_a_forked_child_uses_the_handle_of_its_parent(tree: Tree) -> None:
    tree.add("a", 1)
    tree.add("posted", 1, wait=False)
    assert tree.get("a") == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tree.add("b", tree.get("a") + 1)
            tree.add("c", 3, wait=False)
            tree.flush()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    tree.flush()
    assert (tree.get("a"), tree.get("b"), tree.get("c"), tree.get("posted")) == (1, 2, 3, 1)
    tree.add("a", 4)
    assert tree.get("a") == 4


def test_forks_while_other_threads_read_and_write(tree: Tree) -> None:
    tree.add("a", list(range(1000)))
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                if tree.get("a", HERE) != list(range(1000)):
                    wrong.append("torn")
            except Exception as error:
                wrong.append(error)

    def write() -> None:
        while not stop.is_set():
            tree.add("b", 1, HERE, wait=False)
            tree.add("a", list(range(1000)), HERE)

    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    tree.add("c", len(tree.get("a", HERE)))
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_writes_with_wait_false_arrive_without_a_flush(tree: Tree) -> None:
    other = Tree(tree.directory)
    tree.add("a", 1, wait=False)
    deadline = time.monotonic() + 5
    while not other.exists("a"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_flush_raises_the_first_error_with_the_others_as_notes(tree: Tree) -> None:
    tree.add("a", 1, wait=False)
    tree.add("a", 2, exist_ok=False, wait=False)
    tree.update("missing", 1, wait=False)
    tree.increment("a", wait=False)
    with pytest.raises(EntryExists, match="'a' in") as caught:
        tree.flush()
    assert caught.value.__notes__ == [f"also refused: there is no 'missing' in '{HERE}'"]
    assert tree.get("a") == 2
    tree.flush()


def test_flush_waits_for_the_writes_of_all_threads(tree: Tree) -> None:
    run_in_threads(lambda: tree.increment("n", path="all", wait=False), 5)
    tree.flush()
    assert tree.get("n", path="all") == 5


def test_writes_with_and_without_wait_keep_their_order(tree: Tree) -> None:
    for number in range(200):
        tree.add("n", number, wait=number % 7 == 0)
        if number % 7 == 0:
            assert tree.get("n") == number
    tree.flush()
    assert tree.get("n") == 199


def test_writes_under_way_at_the_end_of_a_program_arrive(tree: Tree) -> None:
    program = "import sys; from suitkaise.storage.tree import Tree; t = Tree(sys.argv[1])\n"
    program += "for n in range(300): t.increment('n', path='exit', wait=False)"
    subprocess.run([sys.executable, "-c", program, str(tree.directory)], check=True, cwd=ROOT)
    assert tree.get("n", path="exit") == 300


IN_A_CHILD = """
import multiprocessing
import sys
from suitkaise.storage.tree import Tree

def write(tree):
    for n in range(300):
        tree.increment("n", path="exit", wait=False)

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[2]).Process(target=write, args=(Tree(sys.argv[1]),))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_writes_under_way_at_the_end_of_a_process_of_multiprocessing_arrive(tree: Tree, method: str) -> None:
    run_program(IN_A_CHILD, str(tree.directory), method).check()
    assert tree.get("n", path="exit") == 300


def test_marked_entries_of_a_dead_owner_are_removed_and_its_late_writes_refused(tree: Tree) -> None:
    marked = {"remove_on_process_join": True}
    as_owner(tree, "pipe/count#3", lambda: tree.add("mine", 1, path="o", metadata=marked))
    as_owner(tree, "pipe/count#3", lambda: tree.add("kept", 1, path="o", metadata={"pid": 1}))
    as_owner(tree, "pipe/count#4", lambda: tree.add("next", 1, path="o", metadata=marked))
    as_owner(tree, "pipe/other#3", lambda: tree.add("other", 1, path="o", metadata=marked))
    assert tree.entry("mine", path="o").owner == "pipe/count#3"
    tree.forget_owner("pipe/count#3")
    assert set(tree.get_all_from("o")) == {"kept", "next", "other"}
    for number in (1, 2, 3):
        with pytest.raises(OwnerDead, match=rf"pipe/count#{number} has ended"):
            as_owner(tree, f"pipe/count#{number}", lambda: tree.add("late", 1, path="o"))
    as_owner(tree, "pipe/count#4", lambda: tree.add("late", 1, path="o"))
    tree.forget_owner("pipe/count#3")
    assert set(tree.get_all_from("o")) == {"kept", "next", "other", "late"}


@pytest.mark.parametrize("wrong", [5, ("pipe/count", 3), b"pipe/count#3"])
def test_what_is_no_owner_is_told(tree: Tree, wrong: Any) -> None:
    calls: list[Any] = [tree.forget_owner, tree.remove_owned]
    for call in calls:
        with pytest.raises(TypeError, match=r"an owner is a worker's path and incarnation, such as .*, not "):
            call(wrong)


def test_more_entries_than_fit_in_one_transaction_are_reaped(tree: Tree) -> None:
    def fill() -> None:
        for number in range(1234):
            tree.add(f"n{number}", number, path="o", metadata={"remove_on_process_join": True}, wait=False)
        tree.flush()

    as_owner(tree, "many#1", fill)
    tree.forget_owner("many#1")
    assert tree.get_all_from("o") == {}


def test_the_mark_belongs_to_the_worker_that_added_the_entry_and_is_removed_with_its_metadata(tree: Tree) -> None:
    marked = {"remove_on_process_join": True}
    as_owner(tree, "a/worker#1", lambda: tree.add("x", 1, path="m", metadata=marked))
    as_owner(tree, "b/worker#1", lambda: tree.update("x", 2, path="m"))
    as_owner(tree, "b/worker#1", lambda: tree.increment("x", path="m"))
    assert tree.entry("x", path="m").owner == "a/worker#1"
    tree.forget_owner("b/worker#1")
    assert tree.get("x", path="m") == 3
    as_owner(tree, "c/worker#1", lambda: tree.update("x", 4, path="m", metadata={}))
    tree.forget_owner("a/worker#1")
    tree.forget_owner("c/worker#1")
    assert tree.get("x", path="m") == 4


def test_a_worker_may_remove_its_marked_entries_and_go_on_writing(tree: Tree) -> None:
    marked = {"remove_on_process_join": True}
    as_owner(tree, "w/one#1", lambda: tree.add("x", 1, path="r", metadata=marked))
    as_owner(tree, "w/one#2", lambda: tree.add("y", 1, path="r", metadata=marked))
    as_owner(tree, "w/one#2", tree.remove_owned)
    assert set(tree.get_all_from("r")) == {"x"}
    as_owner(tree, "w/one#2", lambda: tree.add("y", 1, path="r"))
    with pytest.raises(StorageError, match="the caller is not a worker"):
        tree.remove_owned()
    with pytest.raises(ValueError, match="an owner is a worker's path and incarnation"):
        tree.forget_owner("w/one")


def test_repeated_gets_of_immutable_values_see_every_write(tree: Tree) -> None:
    other = Tree(tree.directory)
    for number in range(100):
        tree.add("n", number)
        assert tree.get("n") == tree.get("n") == other.get("n") == other.get("n") == number
    tree.remove("n")
    assert other.get("n", default="gone") == "gone"


def test_a_handle_keeps_few_and_small_values(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suitkaise.storage.tree._MAX_CACHED", 10)
    large, array = "x" * 100_000, pickle.PickleBuffer(bytearray(100_000))
    for name, value in [("text", large), ("bytes", large.encode()), ("int", 1 << 100_000)]:
        tree.add(name, value, path="p")
        assert tree.get(name, path="p") == value
    assert not tree._cache
    for number in range(20):
        tree.add("array", _WithBuffer(array), path=f"p{number}")
        assert bytes(tree.get("array", path=f"p{number}").buffer) == bytes(array)
        assert len(tree._cache) <= 10


class _WithBuffer:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _WithBuffer, (pickle.PickleBuffer(self.buffer),)


@pytest.mark.parametrize("keys", ["kind", [5], None, 5])
def test_an_index_of_what_are_no_metadata_keys_is_refused_at_once(tree: Tree, keys: Any) -> None:
    with pytest.raises(TypeError, match=r"declare_index: keys must be a list of metadata keys such as \['pid'\], not"):
        tree.declare_index(keys)


def test_the_first_read_waits_for_the_server(storage: Storage) -> None:
    assert storage.tree.get("a", default="none") == "none"
    assert storage.tree.get_all_from("a") == {}
    assert str(storage.tree).endswith(": 0 entries")


def test_without_a_listener_every_call_raises_that_the_storage_is_gone(tmp_path: Any) -> None:
    tree = Tree(tmp_path)
    for call in (lambda: tree.add("a", 1), lambda: tree.get("a"), lambda: tree.get_all_from("a")):
        with pytest.raises(SuitkaiseError, match=r"the storage in .* is gone"):
            call()
    assert str(tree).endswith("not there yet")


def test_a_write_to_a_storage_that_does_not_answer_raises_after_the_timeout(storage: Storage) -> None:
    storage.tree.add("a", 1)
    storage.kill()
    tree = Tree(storage.directory, timeout=0.05)
    with pytest.raises(StorageError, match=r"did not answer within 0.05 seconds; .* may or may not be stored"):
        tree.add("a", 2)
    tree.add("b", 2, wait=False)
    with pytest.raises(StorageError, match="did not answer"):
        tree.flush()
    assert tree.get("a") == 1
    storage.start()
    storage.tree.add("c", 3)
    tree = Tree(storage.directory)
    tree.add("a", 3)
    assert tree.get("a") == 3


@pytest.mark.parametrize("timeout", [0, -1, -math.inf, math.nan, True, "1", None])
def test_a_timeout_must_be_greater_than_zero(tmp_path: Any, timeout: Any) -> None:
    with pytest.raises(ValueError, match=rf"must be seconds > 0 \(math\.inf: no limit\), not {timeout!r}"):
        Tree(tmp_path, timeout=timeout)


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_a_timeout_may_be_infinite(storage: Storage, timeout: float) -> None:
    tree = Tree(storage.directory, timeout=timeout)
    tree.add("a", 1)
    tree.add("b", 2, wait=False)
    tree.flush()
    tree.add("b", 3, wait=False)
    tree.flush(math.inf)
    storage.restart()
    tree.add("a", 2)
    assert (tree.get("a"), tree.get("b")) == (2, 3)


def test_a_durable_storage_is_there_at_the_next_run(tmp_path: Any) -> None:
    for run in range(3):
        with Storage(tmp_path, durable="yes") as storage:
            assert storage.tree.increment("runs", path="p") == run + 1
            storage.tree.append("log", run, path="p")
    with Storage(tmp_path, durable="yes") as storage:
        assert storage.tree.get_all_from("p") == {"runs": 3, "log": [0, 1, 2]}


def as_owner(tree: Tree, owner: str, call: Any) -> None:
    set_owner(owner)
    try:
        call()
    finally:
        set_owner(None)


def run_in_threads(work: Any, count: int) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_tree_names_what_dicts_and_other_stores_call_by_another_name(tree: Tree) -> None:
    with pytest.raises(AttributeError, match=r"'Tree' object has no attribute 'set'; use tree.add\(name, value\)"):
        tree.set("a", 1)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        tree.nothing()  # type: ignore[attr-defined]

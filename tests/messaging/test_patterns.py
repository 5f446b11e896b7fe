"""Patterns of paths and topics."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.messaging.patterns import checked_name, is_pattern, matches


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        ("app/count", "app/count", True),
        ("app/count", "app/counts", False),
        ("app/*", "app/count", True),
        ("app/*", "app", False),
        ("app/*", "app/team/count", False),
        ("app/*/count-*", "app/team/count-a", True),
        ("app/*/count-*", "app/team/sum-a", False),
        ("app/c?unt", "app/count", True),
        ("app/c?unt", "app/c/unt", False),
        ("**", "app", True),
        ("**", "app/team/count", True),
        ("app/**", "app/team/count", True),
        ("app/**", "app", False),
        ("**/count", "count", True),
        ("**/count", "app/team/count", True),
        ("**/count", "app/discount", False),
        ("app/**/count", "app/count", True),
        ("app/**/count", "app/a/b/count", True),
        ("a.c", "abc", False),
        ("a[b]", "a[b]", True),
        ("a*", "a\nb", True),
    ],
)
def test_a_pattern_names_these_paths(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_a_text_without_wildcards_is_no_pattern() -> None:
    assert not is_pattern("app/count-a [x]")
    assert is_pattern("app/count-?")


@pytest.mark.parametrize("name", ["", None, 3, b"x"])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(ValueError, match="a topic must be a text that is not empty, not"):
        checked_name("a topic", name)


@pytest.mark.parametrize("wildcards", [True, False])
def test_a_name_that_utf_8_cannot_encode_is_refused_in_every_worker_alike(wildcards: bool) -> None:
    with pytest.raises(ValueError, match=r"a topic must be a text that UTF-8 can encode, unlike 'files/\\udcff'"):
        checked_name("a topic", "files/\udcff", wildcards=wildcards)


def test_a_name_has_no_wildcards_where_it_may_have_none() -> None:
    with pytest.raises(ValueError, match=r"a topic must have no wildcards \(\* and \?\), unlike 'a/\*'"):
        checked_name("a topic", "a/*")
    assert checked_name("a pattern", "a/*", wildcards=True) == "a/*"

"""Patterns of paths and topics: `*` and `?` match within one part, `**` matches any number of whole parts.

A `**` at the end matches at least one.
"""

from __future__ import annotations

import functools
import re

__all__ = ["checked_name", "is_pattern", "matches"]


def is_pattern(text: str) -> bool:
    """Return whether the text has wildcards.

    >>> is_pattern("app/count-*"), is_pattern("app/count-a")
    (True, False)
    """
    return "*" in text or "?" in text


def matches(pattern: str, path: str) -> bool:
    """Return whether the path, or topic, is one that the pattern names.

    >>> matches("app/*/count-?", "app/team/count-a"), matches("app/*", "app/team/count-a")
    (True, False)
    >>> matches("app/**", "app/team/count-a"), matches("**/count-a", "count-a"), matches("app/**", "app")
    (True, True, False)
    """
    return _compiled(pattern).fullmatch(path) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    *parts, last = pattern.split("/")
    text = "".join("(?:[^/]+/)*" if part == "**" else f"{_one_part(part)}/" for part in parts)
    return re.compile(text + (".+" if last == "**" else _one_part(last)), re.DOTALL)


def _one_part(part: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter)) for letter in part)


def checked_name(what: str, name: object, *, wildcards: bool = False) -> str:
    """Return the name of a group or topic; raise ValueError if it cannot be one."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} must be a text that is not empty, not {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be a text that UTF-8 can encode, unlike {name!r}") from None
    if not wildcards and is_pattern(name):
        raise ValueError(f"{what} must have no wildcards (* and ?), unlike {name!r}")
    return name

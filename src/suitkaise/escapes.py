"""Text that workers and commands have written, made safe to show: it steers no terminal and forges no line.

A terminal obeys what is printed on it: some sequences change its title, its screen or the clipboard. And a newline in
an error would make the rest of the error look like a line of ours.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "has_control", "indented", "one_line"]

# C0 and C1 controls, DEL, the marks that change the direction of text, line separators, halves of surrogate pairs.
_CONTROL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ANY = re.compile(f"[{_CONTROL}]")
_SHOWN_ESCAPED = re.compile(f"(?![\t\n])[{_CONTROL}]")
_SHOWN_ESCAPED_BUT_COLOURS = re.compile(f"\x1b(?!\\[[0-9;:]*m)|(?![\t\n\x1b])[{_CONTROL}]")


def has_control(text: str) -> bool:
    """Return whether the text holds a character that a terminal would obey, or that cannot be encoded."""
    return _ANY.search(text) is not None


def escaped(text: str, *, colours: bool = False) -> str:
    r"""Return the text with its control characters as escapes; tabs and newlines stay, and, if wanted, colours.

    >>> escaped("\x1b[31mred\x1b[0m \x1b[2J\r")
    '\\x1b[31mred\\x1b[0m \\x1b[2J\\r'
    >>> escaped("\x1b[31mred\x1b[0m \x1b[2J\r", colours=True)
    '\x1b[31mred\x1b[0m \\x1b[2J\\r'
    """
    return (_SHOWN_ESCAPED_BUT_COLOURS if colours else _SHOWN_ESCAPED).sub(_escape, text)


def one_line(text: str, *, colours: bool = False) -> str:
    r"""Return the text as one line: as `escaped` does, and newlines become `\n`.

    >>> one_line("bad input:\n12:00 all is well")
    'bad input:\\n12:00 all is well'
    """
    return escaped(text, colours=colours).replace("\n", "\\n")


def indented(text: str, by: str = "    ", *, colours: bool = False) -> str:
    r"""Return the text as `escaped` does, with `by` in front of each line but the first.

    >>> print(indented("first\nsecond"))
    first
        second
    """
    return escaped(text, colours=colours).replace("\n", f"\n{by}")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")

"""Text that workers and commands have written, made safe to show and to keep: it steers no terminal and forges no line.

A terminal obeys what is printed on it: some sequences change its title, its screen or the clipboard. And a newline in
an error would make the rest of the error look like a line of ours. The text of an error has any length; what is kept of
it and shown is `shortened`. A number of any size is shown as a `figure`.
"""

from __future__ import annotations

import re

__all__ = [
    "LONGEST_LINE",
    "LONGEST_TEXT",
    "encodable",
    "escaped",
    "figure",
    "has_control",
    "indented",
    "one_line",
    "shortened",
]

LONGEST_TEXT = 64 << 10
"""Bytes that are kept of a text of a program's: of an error, of a traceback, of an exit reason."""

LONGEST_LINE = 4 << 10
"""Bytes that are shown of such a text in a line of the log."""

# C0 and C1 controls, DEL, the marks that change the direction of text, line separators, halves of surrogate pairs.
_CONTROL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
# Patterns that are compiled, and kept, when they are first used: each takes a third of a millisecond.
_ANY = f"[{_CONTROL}]"
_SHOWN_ESCAPED = f"(?![\t\n])[{_CONTROL}]"
_SHOWN_ESCAPED_BUT_COLOURS = f"\x1b(?!\\[[0-9;:]*m)|(?![\t\n\x1b])[{_CONTROL}]"


def has_control(text: str) -> bool:
    """Return whether the text holds a character that a terminal would obey, or that cannot be encoded."""
    return re.search(_ANY, text) is not None


def escaped(text: str, *, colours: bool = False) -> str:
    r"""Return the text with its control characters as escapes; tabs and newlines stay, and, if wanted, colours.

    >>> escaped("\x1b[31mred\x1b[0m \x1b[2J\r")
    '\\x1b[31mred\\x1b[0m \\x1b[2J\\r'
    >>> escaped("\x1b[31mred\x1b[0m \x1b[2J\r", colours=True)
    '\x1b[31mred\x1b[0m \\x1b[2J\\r'
    """
    if text.isprintable():  # no control character is; most lines are, and this takes a tenth of the time
        return text
    return re.sub(_SHOWN_ESCAPED_BUT_COLOURS if colours else _SHOWN_ESCAPED, _escape, text)


def one_line(text: str, *, colours: bool = False) -> str:
    r"""Return the text as one line: as `escaped` does, and newlines become `\n`.

    >>> one_line("bad input:\n12:00 all is well")
    'bad input:\\n12:00 all is well'
    """
    return escaped(text, colours=colours).replace("\n", "\\n")


def indented(text: str, by: str = "    ") -> str:
    r"""Return the text as `escaped` does, with `by` in front of each line but the first.

    >>> print(indented("first\nsecond"))
    first
        second
    """
    return escaped(text).replace("\n", f"\n{by}")


def encodable(text: str) -> str:
    r"""Return the text in a form that can be sent: a byte of a file name that is no UTF-8 becomes `\udcff`.

    >>> encodable("n\udcff.txt")
    'n\\udcff.txt'
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def figure(number: float, digits: int = 3) -> str:
    """Return the number with so many digits that count, and more if it is large: never as a power of ten.

    >>> figure(0.25), figure(3.0), figure(1.2345), figure(18_034.2)
    ('0.25', '3', '1.23', '18034')
    """
    text = f"{number:.{digits}g}"
    return f"{number:.0f}" if "e+" in text else text


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """Return the text if it has at most `most` bytes, else its beginning and its end, and how many bytes are left out.

    >>> shortened("x" * 100 + "the end", 40)
    'xxxxxxxxxxxxxxxxxxxx [... 67 bytes are left out ...] xxxxxxxxxxxxxthe end'
    """
    if len(text) <= most // 4:  # no character has more bytes
        return text
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    end, begin = most - most // 2, len(data) - most // 2
    while _is_inside_a_character(data, end):
        end -= 1
    while _is_inside_a_character(data, begin):
        begin += 1
    first, last = (part.decode("utf-8", "surrogatepass") for part in (data[:end], data[begin:]))
    return f"{first} [... {len(data) - most} bytes are left out ...] {last}"


def _is_inside_a_character(data: bytes, place: int) -> bool:
    """Return whether the byte at that place of UTF-8 continues a character."""
    return place < len(data) and data[place] & 0xC0 == 0x80


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")

"""Cuts a program's output into lines of text, whatever comes."""

from __future__ import annotations

__all__ = ["LONGEST", "Lines"]

LONGEST = 16_384
"""Bytes: a longer line comes in pieces."""


class Lines:
    r"""One stream of output. What is no UTF-8 is shown as `\xff`.

    >>> lines = Lines()
    >>> lines.feed(b"one\r\ntwo\nthr")
    ['one', 'two']
    >>> lines.feed(b"ee \xff\n"), lines.rest()
    (['three \\xff'], [])
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Take in what has come; returns the lines that are complete now."""
        self._begun += data
        *complete, begun = self._begun.split(b"\n")
        lines = [_text(piece) for line in complete for piece in self._pieces(line)]
        while len(begun) > self._longest:
            cut = self._cut(begun)
            lines.append(_text(begun[:cut]))
            begun = begun[cut:]
        self._begun = begun
        return lines

    def rest(self) -> list[str]:
        """The stream has ended: its last line, if that lacks its end."""
        begun, self._begun = self._begun, bytearray()
        return [_text(begun)] if begun else []

    def _pieces(self, line: bytearray) -> list[bytearray]:
        pieces = []
        line = line.removesuffix(b"\r")
        while len(line) > self._longest:
            cut = self._cut(line)
            pieces.append(line[:cut])
            line = line[cut:]
        return [*pieces, line]

    def _cut(self, line: bytearray) -> int:
        """Where to cut a long line: not inside of a character."""
        for cut in range(self._longest, max(self._longest - 3, 1), -1):
            if line[cut] & 0xC0 != 0x80:
                return cut
        return self._longest


def _text(line: bytes | bytearray) -> str:
    return line.decode("utf-8", "backslashreplace")

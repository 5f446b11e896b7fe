"""How the caller has written a call: the argument's own text, which the concept's calls take a name or a hint from.

The call that a frame is making is found from the positions that the compiler has left in the code (no tracing, no
parsing of whole files): the span of the call in its line or lines, which is then parsed alone.
"""

from __future__ import annotations

import ast
import itertools
import linecache
import re
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FrameType

from suitkaise.storage.caller_path import path_of_file

__all__ = ["all_codes", "call_in", "caller", "text_of_command"]


def caller() -> FrameType | None:
    """Return the first frame outside of this package; called by a function of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and path_of_file(frame.f_code.co_filename) is None:
        frame = frame.f_back
    return frame


def call_in(frame: FrameType | None) -> ast.Call | None:
    """Return the call that the frame is making, as its source has it; None where there is no source.

    >>> import sys
    >>> def look(*arguments):
    ...     call = call_in(sys._getframe(1))
    ...     return ast.unparse(call) if call else "no source"
    >>> look(1 + 1, "two")
    "look(1 + 1, 'two')"
    """
    if frame is None or frame.f_lasti < 0:
        return None
    span = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if span is None or None in span:
        return None
    first, last, begin, end = (number for number in span if number is not None)
    lines = [line.encode() for line in _lines_of(frame)[first - 1 : last]]
    if len(lines) != last - first + 1:
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        found = ast.parse(f"({textwrap.dedent(b''.join(lines).decode())})", mode="eval").body
    except (SyntaxError, UnicodeDecodeError):  # the file was edited since
        return None
    return found if isinstance(found, ast.Call) else None


def text_of_command() -> str | None:
    """Return the text that was given to `python -c`; None in another program. Its file name is `<string>`."""
    options = (place for place, one in enumerate(sys.orig_argv) if re.fullmatch(r"-[a-zA-Z]*c", one))
    place = next(options, None)
    return None if place is None else "".join(sys.orig_argv[place + 1 : place + 2])


def _lines_of(frame: FrameType) -> list[str]:
    if frame.f_code.co_filename == "<string>":  # `python -c`, or the text of an exec()
        text = text_of_command()
        return [f"{line}\n" for line in text.split("\n")] if text and _is_of(text, frame.f_code) else []
    linecache.checkcache(frame.f_code.co_filename)
    return linecache.getlines(frame.f_code.co_filename, frame.f_globals)


def _is_of(text: str, code: CodeType) -> bool:
    try:
        top = compile(text, code.co_filename, "exec", dont_inherit=True)
        return any(_what(one) == _what(code) for one in all_codes(top))
    except (SyntaxError, ValueError):  # the program's text is another one: that of `python -m pdb -c c`, for example
        return False


def _what(code: CodeType) -> tuple[object, ...]:
    return code.co_qualname, code.co_code, code.co_names, code.co_varnames, tuple(code.co_positions())


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code and all that is compiled in it: of functions, classes and comprehensions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from all_codes(constant)

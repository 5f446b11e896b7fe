"""The page of the documentation that lists all frames, made from the protocol modules: `python -m tests.frames`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

__all__ = ["PAGE", "page"]

PAGE: Path = ROOT / "docs" / "explanation" / "frames.md"

PROTOCOLS = {
    "messaging/protocol.py": "Between a worker's process and the hub: `hub.sock`",
    "engines/protocol.py": "Between hub, keeper and workers: the keeper's socket and the control connections",
    "storage/protocol.py": "Between a client and the storage actor: `store.sock`",
    "cluster/protocol.py": "Between a program and its node on another machine: a TCP connection",
}

INTRODUCTION = """\
# The frames

Everything that goes over a socket is a typed struct in one of four modules, and nothing else defines it. A frame is
`u32 header length | u32 payload length | msgpack header | payload` (`messaging/wire.py`): the struct is the header, and
only the receiver looks into the payload. The keeper takes and sends single datagrams instead.

A message or an answer that holds objects of `__main__` begins with the bundles of their classes and functions
(`messaging/bundle_tables.py`): each of them comes over a connection once, and both ends keep it.

Hub, keeper, storage and workers are of one program and one version, so nothing is negotiated. A frame that does not
decode ends its connection; a worker that sends one is killed, a keeper that sends one is replaced.

This page is written by `python -m tests.frames` from the code; a test fails when it is out of date.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([INTRODUCTION, *(line for file, title in PROTOCOLS.items() for line in _section(file, title))])


def _section(file: str, title: str) -> Iterator[str]:
    source = (ROOT / "src" / "suitkaise" / file).read_text(encoding="utf-8")
    lines = source.splitlines()
    yield f"## {title}\n"
    yield f"`{file}`\n"
    headings = {number: match[1] for number, line in enumerate(lines, 1) if (match := re.match(r"# -{5,} (.*)", line))}
    table_is_open = False
    last = 0
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for number in [number for number in headings if last < number < node.lineno]:
            yield ("\n" if table_is_open else "") + f"### {headings[number].capitalize()}\n"
            table_is_open = False
        last = node.lineno
        bases = ast.unparse(ast.Tuple(elts=node.bases, ctx=ast.Load()))
        if "Struct" in bases:
            if not table_is_open:
                yield "| frame | fields | meaning |\n| --- | --- | --- |"
                table_is_open = True
            yield f"| `{node.name}` | {_fields(node, lines)} | {_text(node)} |"
        elif "Enum" in bases:
            yield ("\n" if table_is_open else "") + f"**{node.name}.** {_text(node)}\n\n| value | |\n| --- | --- |"
            table_is_open = False
            yield from (f"| `{name}` | {comment} |" for name, comment in _members(node, lines))
            yield ""
    yield ""


def _fields(node: ast.ClassDef, lines: list[str]) -> str:
    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
    return "<br>".join(
        f"`{ast.unparse(field.target)}`" + (f": {comment}" if (comment := _comment(lines[field.lineno - 1])) else "")
        for field in fields
    )


def _members(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str]]:
    for member in node.body:
        if isinstance(member, ast.Assign):
            yield ast.unparse(member.targets[0]), _comment(lines[member.lineno - 1])


def _comment(line: str) -> str:
    return _escaped(line.partition("  # ")[2])


def _text(node: ast.ClassDef) -> str:
    return _escaped(" ".join(inspect.cleandoc(ast.get_docstring(node) or "").split()))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

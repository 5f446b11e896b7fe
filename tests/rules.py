"""The rules of supervision and the tests that carry their numbers; `python -m tests.rules` puts them into the docs."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tests.support import ROOT

__all__ = ["TABLE", "filled", "is_end_to_end", "names_by_rule"]

TABLE: Path = ROOT / "docs" / "reference" / "supervision.md"

_TEST = re.compile(r"^ *def (test_((?:s\d\d_)+)\w*)", re.MULTILINE)
_ROW = re.compile(r"^\| (\d+) \|(.*)\|[^|]*\|$", re.MULTILINE)


def names_by_rule() -> dict[int, list[str]]:
    """For each rule the tests whose names carry its number: `folder/test_file.py::test_name`, sorted."""
    found: dict[int, list[str]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, numbers in _TEST.findall(file.read_text(encoding="utf-8")):
            for number in re.findall(r"\d\d", numbers):
                found[int(number)].append(f"{file.relative_to(ROOT / 'tests')}::{name}")
    return found


def is_end_to_end(test: str) -> bool:
    """Whether that test uses real processes and threads."""
    return test.startswith(("end_to_end/", "chaos/"))


def filled(text: str) -> str:
    """The text of the table with its last column as the tests are now."""
    tests = names_by_rule()

    def row(match: re.Match[str]) -> str:
        names = [test.rpartition("::")[2] for test in sorted(tests[int(match[1])], key=is_end_to_end)]
        return f"| {match[1]} |{match[2]}| {'<br>'.join(f'`{name}`' for name in names)} |"

    return _ROW.sub(row, text)


if __name__ == "__main__":
    TABLE.write_text(filled(TABLE.read_text(encoding="utf-8")), encoding="utf-8")

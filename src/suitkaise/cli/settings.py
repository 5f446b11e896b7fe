"""The options of `suitkaise run`: from the command line, else the environment, else pyproject.toml, else the default.

`--health 8080`, `SUITKAISE_HEALTH=8080`, and in the table `[tool.suitkaise]` the line `health = 8080` are the same.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from suitkaise.cli.command import UsageError

__all__ = ["FILE", "OPTIONS", "PREFIX", "fill_in"]

OPTIONS: dict[str, type[bool] | type[str]] = {"json": bool, "debug": bool, "health": str}
"""The options that may come from other places than the command line. A text may be a number in the file."""

PREFIX = "SUITKAISE_"

FILE = "pyproject.toml"

_OTHERS = ("SUITKAISE_STATE", "SUITKAISE_COMMAND", "SUITKAISE_KEEPER")  # variables that are no option of `run`
_OF_TESTS = "SUITKAISE_TEST_"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def fill_in(options: argparse.Namespace, folder: Path, environ: Mapping[str, str]) -> None:
    """Set each option that the command line leaves open (None).

    Args:
        options: what the command line says.
        folder: where the search for the file begins: the nearest pyproject.toml in it or above it is read.
        environ: the environment.

    Raises:
        UsageError: a name is unknown, or a value is not possible; whether or not it would be used.
    """
    found = {**_from_file(folder), **_from_environment(environ)}
    for name, kind in OPTIONS.items():
        if getattr(options, name) is None:
            setattr(options, name, found.get(name, False if kind is bool else None))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {f"{PREFIX}{name.upper()}": name for name in OPTIONS}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _OTHERS or variable.startswith(_OF_TESTS):
            continue
        if variable not in known:
            raise _unknown("environment variable", variable, [*known, *_OTHERS[:1]])
        if not text:  # as if it were not set
            continue
        name = known[variable]
        if OPTIONS[name] is bool and text.lower() not in _WORDS:
            raise UsageError(f"{variable} must be one of {', '.join(_WORDS)}, not {text!r}")
        found[name] = _WORDS[text.lower()] if OPTIONS[name] is bool else text
    return found


def _from_file(folder: Path) -> dict[str, Any]:
    file = next((place / FILE for place in (folder, *folder.parents) if (place / FILE).is_file()), None)
    table = None if file is None else _table(file)
    if table is None:
        return {}
    found = {}
    for name, value in table.items():
        title = f"{file}: [tool.suitkaise]"
        if name not in OPTIONS:
            raise _unknown(f"{title}: option", name, OPTIONS)
        if OPTIONS[name] is bool and not isinstance(value, bool):
            raise UsageError(f"{title}: {name} must be true or false, not {value!r}")
        if OPTIONS[name] is str and (not isinstance(value, (str, int)) or isinstance(value, bool)):
            raise UsageError(f"{title}: {name} must be a text or a number, not {value!r}")
        found[name] = str(value) if OPTIONS[name] is str else value
    return found


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        data = file.read_bytes()
        if b"suitkaise" not in data:
            return None
        import tomllib  # 4 ms

        table = tomllib.loads(data.decode()).get("tool", {}).get("suitkaise")
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: tool.suitkaise must be a table, not {table!r}")
    return table


def _unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return UsageError(f"unknown {what} {name}; {hint}")

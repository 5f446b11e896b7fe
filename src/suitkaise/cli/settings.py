"""The options of `suitkaise run`: from the command line, else the environment, else pyproject.toml, else the default.

`--health 8080`, `SUITKAISE_HEALTH=8080`, and in the table `[tool.suitkaise]` the line `health = 8080` are the same.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suitkaise.cli.command import UsageError

__all__ = ["FILE", "OPTIONS", "PREFIX", "fill_in"]

OPTIONS: dict[str, type[bool] | type[str] | type[Path]] = {"json": bool, "debug": bool, "health": str, "watch": Path}
"""The options that may come from other places than the command line.

A text may be a number in the file. A folder may be a flag, too: yes is the option without a value, `--watch`.
"""

PREFIX = "SUITKAISE_"

FILE = "pyproject.toml"

_OTHERS = ("STATE", "COMMAND", "KEEPER")  # variables with that prefix that are no option of `run`
_ALIKE = 0.75  # a variable that is that much like one of ours is taken for a misspelt one; others are of the program
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
    known = [*map(str.upper, OPTIONS), *_OTHERS]
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        own = variable.removeprefix(PREFIX)
        if own == variable:
            continue
        if own not in known and (near := difflib.get_close_matches(own, known, 1, _ALIKE)):
            raise UsageError(f"unknown environment variable {variable}; did you mean {PREFIX}{near[0]}?")
        name = own.lower()
        if name not in OPTIONS or own != name.upper() or not text:  # an empty one is as good as none
            continue
        if OPTIONS[name] is bool and text.lower() not in _WORDS:
            raise UsageError(f"{variable} must be one of {', '.join(_WORDS)}, not {text!r}")
        word = None if OPTIONS[name] is str else _WORDS.get(text.lower())
        found[name] = text if word is None else _flag(word, OPTIONS[name])
    return found


def _flag(value: bool, kind: type) -> bool | str | None:
    """Return what an option is that is on or off: of a folder, the default one or none."""
    return value if kind is bool else "" if value else None


def _from_file(folder: Path) -> dict[str, Any]:
    files = (place / FILE for place in (folder, *folder.parents))
    file = next((file for file in files if os.path.isfile(file)), None)  # which raises no error, unlike `Path.is_file`
    if file is None or (table := _table(file)) is None:
        return {}
    found: dict[str, Any] = {}
    for name, value in table.items():
        title = f"{file}: [tool.suitkaise]"
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, list(OPTIONS), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
            raise UsageError(f"{title}: unknown option {name}; {hint}")
        kind = OPTIONS[name]
        if kind is bool and not isinstance(value, bool):
            raise UsageError(f"{title}: {name} must be true or false, not {value!r}")
        if kind is str and (not isinstance(value, (str, int)) or isinstance(value, bool)):
            raise UsageError(f"{title}: {name} must be a text or a number, not {value!r}")
        if kind is Path and not isinstance(value, (str, bool)):
            raise UsageError(f"{title}: {name} must be true, false or a folder, not {value!r}")
        if isinstance(value, bool):
            found[name] = _flag(value, kind)
        else:
            found[name] = str(file.parent / value) if kind is Path else str(value)
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

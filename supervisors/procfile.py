"""Run a Procfile under supervision: each line is a command that is restarted when it dies.

    suitkaise run supervisors/procfile.py [--file Procfile] [--env .env] [--scale web=2,worker=3] [--port 5000]

A line is `name: command`; the command is run by `sh`, with PORT in its environment as other runners of Procfiles have
it: for the first name the PORT of the environment file, or of the environment, or 5000; 100 more for each next one, and
1 more for each copy. `#` begins a comment. What a command writes is logged with its name. A command that ends, with
whatever code, is started again, after a pause that grows; the others go on. Nothing that a command has started survives
it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from suitkaise import Backoff, Child, Command, Supervisor

LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(.+)$")
SETTING = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=
        (?: [ \t]*(?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)")[ \t]*(?:\#[^\n]*)?
        |   (?P<plain>[ \t]*+(?!['"])[^\n]*) )
        (?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
"""One variable of an environment file: its name, and its value; the plain one perhaps with a comment."""

REFERENCE = re.compile(r"\\(?P<escaped>.)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}", re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

SHELLS_OWN = re.compile(
    r"([!.:{]|\[\[|alias|bg|break|builtin|case|cd|command|continue|declare|eval|exec|exit|export|fg|for|function|getopts"
    r"|hash|if|jobs|let|local|read|readonly|return|select|set|shift|shopt|source|times?|trap|type|ulimit|umask|unalias"
    r"|unset|until|wait|while)(\s|$)"
)
"""Commands of the shell itself: there is no such program (or it would have no effect), so `exec` cannot run them."""


def entries(text: str) -> dict[str, str]:
    """Read the commands of a Procfile by name, in its order.

    Raises:
        ValueError: a line is no `name: command`, or a name occurs twice; the message has the number of the line.
    """
    found: dict[str, str] = {}
    for number, line in _lines(text):
        match = LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is no `name: command`: {line!r}")
        if match[1] in found:
            raise ValueError(f"line {number}: there are two commands named {match[1]!r}")
        found[match[1]] = match[2]
    return found


def settings(text: str, outside: Mapping[str, str] | None = None) -> dict[str, str]:
    r"""Read the variables of an environment file.

    A line is `NAME=value`, perhaps with `export` before it and spaces around the `=`. A `#` at the beginning of a
    line, or after a space, begins a comment. A value may be quoted, and then hold `#`, spaces at its ends and several
    lines. In double quotes `\n`, `\r` and `\t` are a new line, a carriage return and a tab, and any other `\x` is x.
    `${NAME}` is the value of an earlier line, or else of `outside`, or else empty, or with `${NAME:-value}` that value;
    it stays as it is in single quotes, and in double quotes after a backslash.

    Raises:
        ValueError: a line is no `NAME=value`; the message has the number of the line.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    known = dict(outside or {})
    position = 0
    while position < len(text):
        end = text.find("\n", position) + 1 or len(text)
        line = text[position:end].strip()
        if not line or line.startswith("#"):
            position = end
            continue
        match = SETTING.match(text, position)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, position) + 1} is no `NAME=value`: {line!r}")
        single, double, plain = match["single"], match["double"], match["plain"]
        if plain is not None:
            value = _expanded(re.sub(r"\s#.*", "", plain).strip(), known, escapes=False)
        else:
            value = single if double is None else _expanded(double, known)
        found[match["name"]] = known[match["name"]] = value
        position = match.end()
    return found


def _expanded(text: str, known: Mapping[str, str], *, escapes: bool = True) -> str:
    def value(match: re.Match[str]) -> str:
        escaped = match["escaped"]
        if escaped is not None:
            return ESCAPES.get(escaped, escaped) if escapes else match[0]
        return known.get(match["name"]) or match["default"] or ""

    return REFERENCE.sub(value, text)


def _lines(text: str) -> list[tuple[int, str]]:
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def scales(text: str, names: Mapping[str, str]) -> dict[str, int]:
    """Read the number of copies of each command: `web=2,worker=0`; the default is one.

    Raises:
        ValueError: a name is unknown, or a number is wrong.
    """
    found = dict.fromkeys(names, 1)
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        if name not in found:
            raise ValueError(f"--scale: there is no {name!r}; the file has {', '.join(names)}")
        if not number.isdecimal():
            raise ValueError(f"--scale: {part!r} is no name=number")
        found[name] = int(number)
    return found


def procfile(
    commands: Mapping[str, str], *, env: Mapping[str, str], scale: Mapping[str, int], port: int, cwd: str
) -> Supervisor:
    """Declare the tree: one child for each copy of each command."""
    children = []
    for index, (name, command) in enumerate(commands.items()):
        for copy in range(scale[name]):
            numbered = f"{name}-{copy + 1}" if scale[name] > 1 else name
            ports = {"PORT": str(port + 100 * index + copy)}
            child = Command("sh", "-c", f"exec {command}" if _is_simple(command) else command,
                            env={**env, **ports}, cwd=cwd, name=numbered)  # fmt: skip
            children.append(Child(child, backoff=Backoff(initial=0.1, maximum=10.0, reset_after=10.0)))
    return Supervisor("procfile", *children, max_restarts=float("inf"))


def _first_port(env: Mapping[str, str]) -> int:
    port = env.get("PORT") or "5000"
    if not port.isdecimal():
        raise ValueError(f"PORT is no number: {port!r}")
    return _checked_port(int(port))


def _checked_port(port: int) -> int:
    if not 0 < port < 1 << 16:
        raise ValueError(f"a port is a number from 1 to 65535, not {port}")
    return port


def _is_simple(command: str) -> bool:
    """Whether the shell can replace itself by the command (`exec`), so that the command gets the signals itself."""
    return SHELLS_OWN.match(command) is None and re.search(r"[;&|<>()`$]|^\w+=", command) is None


def main(arguments: list[str]) -> Supervisor:
    """Declare the tree for these command line arguments."""
    parser = argparse.ArgumentParser(
        prog="procfile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--file", default="Procfile", help="the Procfile (default ./Procfile); commands run in its folder"
    )
    parser.add_argument("--env", help="a file of NAME=value (default: .env beside the Procfile, if it is there)")
    parser.add_argument("--scale", default="", metavar="NAME=N,...", help="how many of each (default: one)")
    parser.add_argument("--port", type=int, help="the first PORT (default: see above)")
    options = parser.parse_args(arguments)
    file = Path(options.file)
    variables = Path(options.env) if options.env else file.parent / ".env"
    try:
        commands = entries(file.read_text(encoding="utf-8-sig"))
        scale = scales(options.scale, commands)
        given = options.env or variables.exists()
        env = settings(variables.read_text(encoding="utf-8"), os.environ) if given else {}
        port = _first_port({**os.environ, **env}) if options.port is None else _checked_port(options.port)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not any(scale.values()):
        parser.error(f"{file}: there is nothing to run")
    return procfile(commands, env=env, scale=scale, port=port, cwd=str(file.resolve().parent))


if __name__ == "__main__":
    tree = main(sys.argv[1:])

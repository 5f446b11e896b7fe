"""Run a Procfile under supervision: each line is a command that is restarted when it dies.

    suitkaise run supervisors/procfile.py [--file Procfile] [--env .env] [--scale web=2,worker=3] [--port 5000]

A line is `name: command`; the command is run by `sh`, with PORT in its environment as other runners of Procfiles have
it: 5000 (or the PORT of the environment file) for the first name, 100 more for each next one, and 1 more for each copy.
`#` begins a comment. What a command writes is logged with its name. A command that ends, with whatever code, is started
again, after a pause that grows; the others go on. Nothing that a command has started survives it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from suitkaise import Backoff, Child, Command, Supervisor

LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(.+)$")
SETTING = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$")

SHELLS_OWN = re.compile(
    r"([!.:{]|\[\[|alias|bg|break|builtin|case|cd|command|continue|declare|eval|exec|exit|export|fg|for|function|getopts"
    r"|hash|if|jobs|let|local|read|readonly|return|select|set|shift|shopt|source|times|trap|type|ulimit|umask|unalias"
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


def settings(text: str) -> dict[str, str]:
    r"""Read the variables of an environment file.

    A line is `NAME=value`; the value may be quoted. In double quotes `\n` is a new line, and any other `\x` is x.

    Raises:
        ValueError: a line is no `NAME=value`; the message has the number of the line.
    """
    found = {}
    for number, line in _lines(text):
        match = SETTING.match(line)
        if match is None:
            raise ValueError(f"line {number} is no `NAME=value`: {line!r}")
        value = match[2].strip()
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1]
        elif len(value) > 1 and value[0] == value[-1] == '"':
            value = re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], value[1:-1])
        found[match[1]] = value
    return found


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
    parser.add_argument("--port", type=int, help="the first PORT (default: that of the environment file, or 5000)")
    options = parser.parse_args(arguments)
    file = Path(options.file)
    variables = Path(options.env) if options.env else file.with_name(".env")
    try:
        commands = entries(file.read_text(encoding="utf-8"))
        scale = scales(options.scale, commands)
        env = settings(variables.read_text(encoding="utf-8")) if options.env or variables.exists() else {}
        port = int(env.get("PORT", "5000")) if options.port is None else options.port
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not any(scale.values()):
        parser.error(f"{file}: there is nothing to run")
    return procfile(commands, env=env, scale=scale, port=port, cwd=str(file.resolve().parent))


if __name__ == "__main__":
    tree = main(sys.argv[1:])

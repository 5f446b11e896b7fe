"""The programs of this user that run trees, and the worker or supervisor that a command names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any

from suitkaise.cli.command import NO_PROGRAM, USAGE, CommandError
from suitkaise.engines.inspection import Inspection, inspect
from suitkaise.errors import AskTimeout, RuntimeGone, SuitkaiseError
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.platform.runtime_directory import HUB_SOCKET, directories_in_use

__all__ = ["PATIENCE", "NotRunning", "Program", "Target", "but_silent", "find", "running_programs", "walk"]

PATIENCE = 5.0
"""Seconds within which a program has to answer what it is doing."""


class NotRunning(CommandError):
    """There is no such tree, worker or supervisor now; it may come."""


class Program:
    """A program that runs trees: a connection to it, and what it was doing when it was found."""

    def __init__(self, directory: str) -> None:
        self.directory: str = directory
        self.client: HubClient = HubClient(os.path.join(directory, HUB_SOCKET))
        self.facts: dict[str, Any] = {}

    def ask(self) -> Answer[Any]:
        """Ask what the program is doing. Raises RuntimeGone."""
        return self.client.request(RequestKind.OVERVIEW, "")

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The trees of the program, as `runtime.overview` tells them."""
        trees: list[dict[str, Any]] = self.facts["trees"]
        return trees

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of the clusters that the program uses."""
        nodes: list[dict[str, Any]] = self.facts.get("nodes", [])
        return nodes

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine; if not, a node of it does, which passes on what it is asked."""
        return bool(self.directory == self.facts["directory"])

    @property
    def title(self) -> str:
        """The names of its trees, and its pid."""
        return f"{', '.join(tree['path'] for tree in self.trees) or 'no tree'} (pid {self.facts['pid']})"


class Target:
    """The worker or supervisor that a command is for."""

    def __init__(self, program: Program, facts: dict[str, Any]) -> None:
        self.program: Program = program
        self.facts: dict[str, Any] = facts
        self.path: str = facts["path"]

    @property
    def is_root(self) -> bool:
        """Whether it is a whole tree."""
        return "/" not in self.path

    @property
    def pid(self) -> int:
        """Its process. Raises CommandError if there is none."""
        pid: int | None = self.facts["pid"]
        if pid is None:
            raise CommandError(f"{self.path!r} is {self.facts['status']}; there is no process")
        return pid

    @property
    def node(self) -> str:
        """The node of the cluster that has its process; empty if it runs on this machine."""
        return str(self.facts.get("node", ""))

    def inspect(self, what: Inspection, *arguments: float, takes: float = 0.0) -> Any:
        """Ask its process for something, see `engines.inspection`: here, or by way of the program and its node.

        Args:
            what: the question.
            arguments: its arguments.
            takes: seconds that the answer takes in any case.

        Raises:
            CommandError: there is no process, or it does not answer.
        """
        pid = self.pid
        if not self.node and not self.program.is_here:
            raise CommandError(f"{self.path!r} runs on the machine of its program, where this has to be called")
        try:
            if not self.node:
                return inspect(self.program.directory, pid, what, arguments)
            answer = self.program.client.request(RequestKind.INSPECT, self.path, (what, arguments))
            return answer.get(takes + 3 * PATIENCE)
        except RuntimeGone:
            raise CommandError(f"{self.path!r}: the program has ended meanwhile") from None
        except AskTimeout:
            raise CommandError(f"{self.path!r}: its node {self.node} does not answer") from None
        except SuitkaiseError as error:
            raise CommandError(str(error)) from None


def running_programs() -> tuple[list[Program], list[str]]:
    """Return the programs of this user, and the directories of those that do not answer."""
    asked, silent = [], []
    for directory in directories_in_use():
        program = Program(directory)
        try:
            asked.append((program, program.ask()))
        except RuntimeGone:  # its last workers are about to end
            continue
    programs = []
    for program, answer in asked:
        try:
            program.facts = answer.get(PATIENCE)
        except AskTimeout:
            silent.append(program.directory)
        except SuitkaiseError:  # it is about to end, or of a version that cannot be asked
            pass
        else:
            programs.append(program)
            continue
        program.close()
    return sorted(_once(programs), key=lambda program: float(program.facts["started"])), silent


def _once(programs: list[Program]) -> list[Program]:
    """Leave out a program that was found more than once: nodes of it on this machine pass on what they are asked."""
    found: dict[tuple[int, str, float], Program] = {}
    for program in sorted(programs, key=lambda program: not program.is_here):
        key = program.facts["pid"], program.facts["directory"], program.facts["started"]
        if found.setdefault(key, program) is not program:
            program.close()
    return list(found.values())


def walk(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a worker or supervisor and all below it, in start order."""
    yield facts
    for child in facts.get("children", ()):
        yield from walk(child)


def find(path: str | None, programs: list[Program], silent: list[str]) -> Target:
    """Return what is at `path`; None or an empty path is for the only tree that runs.

    The path begins with the name of a tree. That name may be left out where one tree alone has such a worker.

    Raises:
        NotRunning: nothing is there.
        CommandError: several trees are there.
    """
    roots = [(program, tree) for program in programs for tree in program.trees]
    if not roots:
        raise NotRunning(f"no tree of this user is running{but_silent(silent)}", NO_PROGRAM)
    path = (path or "").strip("/")
    fitting = [(program, tree) for program, tree in roots if path.partition("/")[0] == tree["path"]]
    if not fitting and (len(roots) > 1 and not path):
        names = ", ".join(f"{tree['path']} (pid {program.facts['pid']})" for program, tree in roots)
        raise CommandError(f"several trees run, name one or choose its program with --pid: {names}", USAGE)
    if not fitting:
        below = f"/{path}" if path else ""
        fitting = [
            (program, tree)
            for program, tree in roots
            if any(one["path"] == f"{tree['path']}{below}" for one in walk(tree))
        ]
        if len(fitting) > 1:
            names = ", ".join(f"{tree['path']}{below} (pid {program.facts['pid']})" for program, tree in fitting)
            raise CommandError(
                f"{path!r} is in several trees, name one or choose its program with --pid: {names}", USAGE
            )
        path = f"{fitting[0][1]['path']}{below}" if fitting else path
    elif len(fitting) > 1:
        names = ", ".join(f"pid {program.facts['pid']}" for program, _ in fitting)
        name = path.partition("/")[0]
        raise CommandError(f"trees named {name!r} run in several programs ({names}); choose one with --pid", USAGE)
    for program, tree in fitting:
        for one in walk(tree):
            if one["path"] == path:
                return Target(program, one)
    known = list(dict.fromkeys(one["path"] for _, tree in roots for one in walk(tree)))  # programs may have the same
    down = _down_above(path, [tree for _, tree in roots])
    if down is not None:
        raise NotRunning(f"there is no {path!r}: {down['path']!r} above it is {down['status']}", USAGE)
    name = path.rpartition("/")[2]
    near = [one for one in known if one.rpartition("/")[2] == name] or difflib.get_close_matches(path, known, 1, 0.5)
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else _listed(known)
    raise NotRunning(f"there is no {path!r}{but_silent(silent)}; {hint}", USAGE)


def _down_above(path: str, trees: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the supervisor above a path that does not run, and so has no children; None if there is none."""
    for one in (one for tree in trees for one in walk(tree)):
        names = one["path"], one["path"].partition("/")[2] or one["path"]
        if one.get("kind") == "supervisor" and one["pid"] is None and path.startswith(tuple(f"{it}/" for it in names)):
            return one
    return None


def but_silent(silent: list[str]) -> str:
    """Return what follows where no program, tree or worker is found: a program that does not answer may have it."""
    return f"; a program does not answer: {', '.join(silent)}" if silent else ""


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    return f"there are: {', '.join(paths[:10])}{more}"

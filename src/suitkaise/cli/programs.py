"""The programs of this user that run trees, and the worker or supervisor that a command names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any

from suitkaise.cli.command import NO_PROGRAM, USAGE, CommandError
from suitkaise.errors import AskTimeout, RuntimeGone, SuitkaiseError
from suitkaise.messaging.messages import Answer
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.platform.runtime_directory import HUB_SOCKET, directories_in_use

__all__ = ["PATIENCE", "NotRunning", "Program", "Target", "find", "running_programs", "walk"]

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

    def refresh(self) -> None:
        """Ask again. Raises RuntimeGone, AskTimeout."""
        self.facts = self.ask().get(PATIENCE)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The trees of the program, as `runtime.overview` tells them."""
        trees: list[dict[str, Any]] = self.facts["trees"]
        return trees

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
    return sorted(programs, key=lambda program: float(program.facts["started"])), silent


def walk(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a worker or supervisor and all below it, in start order."""
    yield facts
    for child in facts.get("children", ()):
        yield from walk(child)


def find(path: str | None, programs: list[Program], silent: list[str]) -> Target:
    """Return what is at `path`; None or an empty path is for the only tree that runs.

    The path begins with the name of a tree. Where one tree alone runs, that name may be left out.

    Raises:
        NotRunning: nothing is there.
        CommandError: several trees are there.
    """
    roots = [(program, tree) for program in programs for tree in program.trees]
    if not roots:
        hint = f"; a program does not answer: {', '.join(silent)}" if silent else ""
        raise NotRunning(f"no tree of this user is running{hint}", NO_PROGRAM)
    path = (path or "").strip("/")
    fitting = [(program, tree) for program, tree in roots if path.partition("/")[0] == tree["path"]]
    if not fitting and (len(roots) > 1 and not path):
        raise CommandError(f"several trees run, name one: {', '.join(tree['path'] for _, tree in roots)}", USAGE)
    if not fitting:
        below = f"/{path}" if path else ""
        fitting = [
            (program, tree)
            for program, tree in roots
            if any(one["path"] == f"{tree['path']}{below}" for one in walk(tree))
        ]
        path = f"{fitting[0][1]['path']}{below}" if fitting else path
    if len(fitting) > 1:
        names = ", ".join(f"pid {program.facts['pid']}" for program, _ in fitting)
        raise CommandError(f"{path!r} is in several programs ({names}); choose one with --pid", USAGE)
    for program, tree in fitting:
        for one in walk(tree):
            if one["path"] == path:
                return Target(program, one)
    known = [one["path"] for _, tree in roots for one in walk(tree)]
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    raise NotRunning(f"there is no {path!r}; {f'did you mean {near[0]!r}?' if near else _listed(known)}", USAGE)


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    return f"there are: {', '.join(paths[:10])}{more}"

"""`suitkaise observe`, and `--observe` of `run` and `demo`: the web page that shows trees."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from suitkaise.cli.command import CLEAN, NO_PROGRAM, CommandError, UsageError, tell
from suitkaise.errors import SpecError, SuitkaiseError
from suitkaise.runtime import choices

if TYPE_CHECKING:
    from suitkaise.observer.launch import Place

__all__ = ["first_option", "observe", "observed", "with_address"]


def with_address(words: list[str]) -> list[str]:
    """Join `--observe` and the address behind it, and `--watch` and its folder; what follows may be something else.

    Only the options at the beginning are looked at: the words from the first other one on are those of the program.

    >>> with_address(["--observe", "app.py"]), with_address(["--observe", "8000", "app.py", "--observe"])
    (['--observe=', 'app.py'], ['--observe=8000', 'app.py', '--observe'])
    """
    joined: list[str] = []
    option, words = first_option(words)
    while option:
        joined += option
        option, words = first_option(words)
    return joined + words


def first_option(words: list[str], is_target_left: bool = True) -> tuple[list[str], list[str]]:
    """Return the option that the words begin with, and the other words; the option is empty if there is none.

    As long as the target is left, the last word is the target and no folder.

    >>> first_option(["--observe", "8000", "--watch"])
    (['--observe=8000'], ['--watch'])
    """
    match words:
        case ["--observe", address, *others] if _ADDRESS.fullmatch(address):
            return [f"--observe={address}"], others
        case ["--watch", folder, *others] if (others or not is_target_left) and os.path.isdir(folder):
            return [f"--watch={folder}"], others
        case ["--watch" | "--observe" as name, *others]:
            return [f"{name}="], others
        case ["--engine" | "--address" | "--nodes" | "--health" as name, value, *others]:
            return [name, value], others
        case [option, *others] if option.startswith("-") and option != "--":
            return [option], others
        case _:
            return [], words


_ADDRESS = re.compile(r"(?:(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):)?\d+")


@contextlib.contextmanager
def observed(options: argparse.Namespace) -> Iterator[None]:
    """Have the program's runtime observed if the options say so, and print the URL."""
    if options.observe is None:
        for name in ("actions", "hide_values"):
            if getattr(options, f"observe_{name}"):
                raise UsageError(f"--observe-{name.replace('_', '-')} needs --observe")
        yield
        return
    place = _opened(options.observe, actions=options.observe_actions, hide_values=options.observe_hide_values)
    _tell_url(place)
    choices.observe = place.start_process
    try:
        yield
    finally:
        choices.observe = None
        place.close()


def observe(options: argparse.Namespace) -> int:
    """Serve the page of a program that runs already, until the program ends or Ctrl-C."""
    from suitkaise.cli.programs import but_silent
    from suitkaise.cli.show import chosen

    programs, silent = chosen(options)
    if not programs:
        raise CommandError(f"no tree of this user is running{but_silent(silent)}", NO_PROGRAM)
    if len(programs) > 1:
        raise UsageError(f"several programs run, choose one with --pid: {', '.join(one.title for one in programs)}")
    place = _opened(options.address, actions=options.actions, hide_values=options.hide_values)
    from suitkaise.observer.serve import serve

    if options.json:
        print(json.dumps({"url": place.url, "pid": programs[0].facts["pid"]}), flush=True)
    else:
        _tell_url(place)
    with place.listener:
        serving = {"actions": place.actions, "hide_values": place.hide_values}
        if serve(place.listener, programs[0].directory, place.token, **serving):
            tell("suitkaise observe: the program has ended")
    return CLEAN


def _opened(address: str, *, actions: bool, hide_values: bool) -> Place:
    from suitkaise.observer.launch import Place

    try:
        return Place(address, actions=actions, hide_values=hide_values)
    except SpecError as error:
        raise UsageError(str(error)) from None
    except SuitkaiseError as error:  # the extra is missing, or the address is taken
        raise CommandError(str(error)) from None


def _tell_url(place: Place) -> None:
    tell(f"observer: {place.url}  (this link works once)")
    if not place.is_local:
        tell("observer: it listens beyond this machine, without encryption; a tunnel (ssh -L) is safer")

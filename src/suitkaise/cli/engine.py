"""The engine that `suitkaise run` is told: `--engine ray`, with `--address` or `--nodes`."""

from __future__ import annotations

import argparse
from typing import Literal

from suitkaise.cli.command import UsageError
from suitkaise.errors import SpecError
from suitkaise.specs.cluster import Ray

__all__ = ["engine_of"]


def engine_of(options: argparse.Namespace) -> Ray | Literal["local"] | None:
    """Return the engine that the options name; None: as the tree declares.

    Raises:
        UsageError: the options make no sense together.
    """
    if options.engine == "ray":
        if options.nodes is not None and not options.nodes.isdecimal():
            raise UsageError(f"--nodes must be a number, not {options.nodes!r}")
        try:
            return Ray(options.address, nodes=None if options.nodes is None else int(options.nodes))
        except SpecError as error:
            raise UsageError(str(error)) from error
    if options.engine not in (None, "local"):
        raise UsageError(f"--engine must be local or ray, not {options.engine!r}")
    for name in ("address", "nodes"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} needs --engine ray")
    return "local" if options.engine == "local" else None

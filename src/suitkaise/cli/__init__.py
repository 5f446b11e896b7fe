"""The command line: `suitkaise COMMAND`."""

from suitkaise.cli.dispatch import main

__all__ = ["main"]

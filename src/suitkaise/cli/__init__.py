"""The command line: `suitkaise COMMAND`."""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; return the exit code, which after Ctrl-C is 130, also while modules are imported."""
    try:
        from suitkaise.cli import dispatch

        return dispatch.main(argv)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT

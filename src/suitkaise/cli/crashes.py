"""`suitkaise crashes [ID]`: list crash reports, or show one."""

from __future__ import annotations

import json
import sys

from suitkaise.cli.command import CLEAN, USAGE
from suitkaise.crashes import crash_directory, read_reports

__all__ = ["run"]


def run(id: str | None, *, as_json: bool) -> int:
    """Print the list, or the report whose id begins with `id`; return the exit code."""
    try:
        reports, others = read_reports()
    except OSError as error:
        print(f"suitkaise crashes: {error}", file=sys.stderr)
        return USAGE
    if others:
        files = "1 file is" if others == 1 else f"{others} files are"
        print(f"suitkaise crashes: {files} no crash report, in {crash_directory()}", file=sys.stderr)
    if id is None:
        if as_json:
            print(json.dumps([report.to_dict() for report in reports]))
        elif not reports:
            print(f"no crash reports in {crash_directory()}")
        for report in () if as_json else reports:
            print(report.line())
        return CLEAN
    fitting = reports[-1:] if id == "last" else [report for report in reports if report.id.startswith(id)]
    if len(fitting) != 1:
        trouble = f"{len(fitting)} reports begin with {id!r}" if fitting else f"there is no report {id!r}"
        print(f"suitkaise crashes: {trouble}; `suitkaise crashes` lists them", file=sys.stderr)
        return USAGE
    print(json.dumps(fitting[0].to_dict()) if as_json else fitting[0])
    return CLEAN

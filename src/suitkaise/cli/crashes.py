"""`suitkaise crashes [ID]`: list crash reports, or show one."""

from __future__ import annotations

import argparse
import json

from suitkaise.cli.command import CLEAN, UsageError, tell
from suitkaise.cli.display import Column, print_report, print_table
from suitkaise.crashes import crash_directory, read_reports

__all__ = ["run"]

_COLUMNS = [
    Column("ID", "dim"), Column("TIME", "", 2), Column("WORKER", "text"), Column("REASON", "name"),
    Column("WHERE", "name", 1),
]  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print the list, or the report whose id begins with the given one; return the exit code."""
    try:
        reports, others = read_reports()
    except OSError as error:
        raise UsageError(str(error)) from None
    if others:
        files = "1 file is" if others == 1 else f"{others} files are"
        tell(f"suitkaise crashes: {files} no crash report, in {crash_directory()}")
    path = (options.path or "").strip("/")
    if path:
        reports = [report for report in reports if f"{report.path}/".startswith(f"{path}/")]
    if options.pid is not None:
        reports = [report for report in reports if report.pid == options.pid]
    if options.id is None:
        if options.json:
            print(json.dumps([report.to_dict() for report in reports]))
        elif not reports:
            print(f"no {'such ' if path or options.pid is not None else ''}crash reports in {crash_directory()}")
        else:
            rows = [[report.id, report.when(), report.path, report.reason, report.where] for report in reports]
            print_table(_COLUMNS, rows, plain=(report.line() for report in reports))
        return CLEAN
    last = options.id == "last"
    fitting = reports[-1:] if last else [report for report in reports if report.id.startswith(options.id)]
    if len(fitting) != 1:
        trouble = (
            f"{len(fitting)} reports begin with {options.id!r}" if fitting else f"there is no report {options.id!r}"
        )
        of_path = f", `suitkaise crashes --path {options.id}` those of one part" if "/" in options.id else ""
        raise UsageError(f"{trouble}; `suitkaise crashes` lists them{of_path}")
    if options.json:
        print(json.dumps(fitting[0].to_dict()))
    else:
        print_report(fitting[0])
    return CLEAN

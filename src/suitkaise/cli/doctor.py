"""`suitkaise doctor`: whether this machine has what the trees of this user need."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import suitkaise
from suitkaise.cli.command import CLEAN, FAILED
from suitkaise.cli.display import Column, print_table
from suitkaise.cli.programs import running_programs
from suitkaise.crashes import crash_directory
from suitkaise.errors import SuitkaiseError
from suitkaise.platform.runtime_directory import SHARED_MEMORY, base_directory, unused_directories

__all__ = ["Finding", "doctor", "findings"]

_COLUMNS = [Column("STATE", "status"), Column("WHAT"), Column("FOUND", "text"), Column("ADVICE", "text")]

NEEDED = ("pykka", "cloudpickle", "psutil", "structlog", "msgspec", "lmdb")
DESCRIPTORS = 1024
MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is for one that is not `ok`."""

    what: str
    state: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Print what was found; fail if something keeps trees from running."""
    found = list(findings())
    if options.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        rows = [[one.state, one.what, one.found, one.advice] for one in found]
        print_table(_COLUMNS, rows, plain=_lines(found))
    return FAILED if any(one.state == "error" for one in found) else CLEAN


def _lines(found: list[Finding]) -> Iterator[str]:
    width = max(len(one.what) for one in found)
    for one in found:
        yield f"{one.state:<7}  {one.what:<{width}}  {one.found}"
        if one.advice:
            yield f"{'':<7}  {'':<{width}}  -> {one.advice}"


def findings() -> Iterator[Finding]:
    """Look at everything, one after the other."""
    for look in (
        _python,
        _packages,
        _pidfd,
        _early_restarts,
        _place,
        _shared_memory,
        _descriptors,
        _processes,
        _reports,
        _programs,
        _left,
    ):
        yield look()


def _python() -> Finding:
    found = f"suitkaise {suitkaise.__version__}, Python {platform.python_version()}, {platform.platform()}"
    if sys.platform != "linux":
        return Finding("platform", "error", found, "suitkaise runs on Linux")
    return Finding("platform", "ok", found)


def _packages() -> Finding:
    versions, missing = [], []
    for name in NEEDED:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = "pip install suitkaise-xprocess"
        return Finding("packages", "error", f"missing: {', '.join(missing)}", advice)
    return Finding("packages", "ok", ", ".join(versions))


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        advice = "a container's seccomp profile may forbid it; use a newer runtime, or Linux 5.3 or later"
        return Finding("pidfd", "error", f"pidfd_open fails: {error.strerror}", advice)
    return Finding("pidfd", "ok", "deaths of processes are noticed at once")


def _early_restarts() -> Finding:
    from suitkaise.platform.death_lock import refusal

    if why := refusal():
        advice = "early_restart=True has no effect; it needs Linux 5.16, and a seccomp profile that allows futex_waitv"
        return Finding("early restarts", "warning", why, advice)
    return Finding("early restarts", "ok", "are possible")


def _place() -> Finding:
    try:
        return Finding("private files", "ok", f"are made below {base_directory()}")
    except SuitkaiseError as error:
        return Finding(
            "private files", "error", str(error), "set XDG_RUNTIME_DIR to a directory of your own, mode 0700"
        )


def _shared_memory() -> Finding:
    try:
        total, _, free = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return Finding("shared memory", "warning", f"{SHARED_MEMORY}: {error.strerror}", "mount a tmpfs there")
    found = f"{free >> 20:,} of {total >> 20:,} MiB free in {SHARED_MEMORY}"
    if free < MEMORY:
        return Finding("shared memory", "warning", found, "a larger one holds more: docker run --shm-size=1g")
    return Finding("shared memory", "ok", found)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft:,} open files a process (hard limit {hard:,}); about {max(0, soft - 50) // 3:,} process workers"
    if soft < DESCRIPTORS:
        return Finding("descriptors", "warning", found, "ulimit -n 65536, or LimitNOFILE= in a unit")
    return Finding("descriptors", "ok", found)


def _processes() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    number = "any number of" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    limit = _cgroup_limit()
    found = f"{number} processes and threads" + (f"; {limit} in this container" if limit else "")
    return Finding("processes", "ok", found)


def _cgroup_limit() -> str:
    try:
        with open("/sys/fs/cgroup/pids.max", encoding="ascii") as file:
            limit = file.read().strip()
    except OSError:
        return ""
    return "" if limit == "max" else limit


def _reports() -> Finding:
    directory = crash_directory()
    there = directory
    while not os.path.exists(there):  # `Path.exists` raises an error where it is not allowed to look
        there = there.parent
    if os.access(there, os.W_OK):
        return Finding("crash reports", "ok", f"are kept in {directory}")
    return Finding("crash reports", "warning", f"{directory} cannot be written", "set SUITKAISE_STATE to another one")


def _programs() -> Finding:
    programs, silent = running_programs()
    found = "; ".join(program.title for program in programs) or "none"
    for program in programs:
        program.close()
    if silent:
        advice = "suspended, or very busy? their private directories are listed"
        return Finding("programs", "warning", f"{found}; no answer from {', '.join(silent)}", advice)
    return Finding("programs", "ok", found)


def _left() -> Finding:
    left = unused_directories()
    if left:
        return Finding("leftovers", "warning", ", ".join(left), "of killed programs; the next start removes them")
    return Finding("leftovers", "ok", "no directory of a killed program")

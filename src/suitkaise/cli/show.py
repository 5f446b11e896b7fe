"""`suitkaise ps|tree|status`: what programs, trees and workers are doing."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import psutil

from suitkaise.cli.command import CLEAN, FAILED, NO_PROGRAM, CommandError, tell
from suitkaise.cli.display import Column, print_details, print_table
from suitkaise.cli.programs import PATIENCE, Program, Target, but_silent, find, running_programs, walk
from suitkaise.crashes import read_reports
from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.escapes import one_line
from suitkaise.messaging.log_reader import LogReader, tagged
from suitkaise.messaging.log_rings import EVENT
from suitkaise.observer.words import budget, duration, strategy, took

__all__ = ["chosen", "ps", "status", "target_of", "tree"]

_PS = [
    Column("PID", "number"), Column("TREES", "name"), Column("ALIVE", "number"), Column("RESTARTS", "number", 2),
    Column("UP", "number", 1), Column("NODES", "", 4), Column("COMMAND", "end", 3),
]  # fmt: skip
_TREE = [
    Column("NAME", "name"), Column("STATE", "status"), Column("PID", "number", 1), Column("UP", "number", 4),
    Column("RESTARTS", "number", 3), Column("LOOPS", "number", 6), Column("QUEUED", "number", 5),
    Column("DOING / LAST EXIT", "end", 2),
]  # fmt: skip

LINES = 10
"""How many of the last lines of a worker `status` shows."""


def chosen(options: argparse.Namespace) -> tuple[list[Program], list[str]]:
    """Return the programs that the options choose (`--pid`), and the directories of those that do not answer."""
    programs, silent = running_programs()
    for program in programs:
        options.opened.callback(program.close)
    if options.pid is not None:
        programs = [program for program in programs if program.facts["pid"] == options.pid]
        if not programs:
            told = f"no program with pid {options.pid} runs a tree of this user{but_silent(silent)}"
            raise CommandError(told, NO_PROGRAM)
    return programs, silent


def target_of(options: argparse.Namespace) -> Target:
    """Return the worker or supervisor that the options name."""
    programs, silent = chosen(options)
    target = find(options.path, programs, silent)
    _tell_of(silent, options)
    return target


def _tell_of(silent: list[str], options: argparse.Namespace) -> None:
    """Name the programs that do not answer: one of them may have the tree that is meant, unless `--pid` chooses one."""
    if options.pid is None:
        for directory in silent:
            tell(f"suitkaise {options.command}: a program does not answer: {directory}")


def ps(options: argparse.Namespace) -> int:
    """List the programs that run trees."""
    programs, silent = chosen(options)
    _tell_of(silent, options)
    if options.json:
        print(json.dumps([program.facts for program in programs]))
        return CLEAN if programs else NO_PROGRAM
    rows = []
    for program in programs:
        workers = [one for tree in program.trees for one in walk(tree) if one["kind"] != "supervisor"]
        alive = sum(one["pid"] is not None for one in workers)
        rows.append([
            str(program.facts["pid"]), ", ".join(tree["path"] for tree in program.trees) or "-",
            f"{alive}/{len(workers)}", str(sum(one["restarts"] for tree in program.trees for one in walk(tree))),
            duration(program.facts["uptime"]), _counted(program.nodes),
            _command(program.facts["command"]),
        ])  # fmt: skip
    if rows:
        print_table(*_without_empty(_PS, rows))
    if not rows and not silent:
        tell("no tree of this user is running")
    return CLEAN if rows else NO_PROGRAM


def _without_empty(columns: list[Column], rows: list[list[str]]) -> tuple[list[Column], list[list[str]]]:
    """Return the table without the column of the nodes if no program has any."""
    kept = [one for one, column in enumerate(columns) if column.title != "NODES" or any(row[one] for row in rows)]
    return [columns[one] for one in kept], [[row[one] for one in kept] for row in rows]


def _counted(nodes: list[dict[str, Any]]) -> str:
    lost = sum(node["status"] == "lost" for node in nodes)
    return f"{len(nodes) - lost}, {lost} lost" if lost else str(len(nodes) or "")


def tree(options: argparse.Namespace) -> int:
    """Print a tree, or a part of it, with the state of each worker."""
    if options.path is None:
        programs, silent = chosen(options)
        parts = [tree for program in programs for tree in program.trees]
        if not parts:
            find(None, programs, silent)  # raises the error that says so
        _tell_of(silent, options)
    else:
        parts = [target_of(options).facts]
    if options.json:
        print(json.dumps(parts if options.path is None else parts[0]))
        return CLEAN
    if options.paths:
        for part in parts:
            print(*(one["path"] for one in walk(part)), sep="\n")
        return CLEAN
    print_table(_TREE, [row for part in parts for row in _tree_rows(part, "", "")])
    return CLEAN


def _tree_rows(facts: dict[str, Any], first: str, others: str) -> list[list[str]]:
    name = facts["path"] if not first else facts["id"]
    if facts["kind"] == "supervisor":
        doing = f"{strategy(facts)}, {budget(facts)}" if "max_restarts" in facts else _exit(facts)
        cells = [facts["status"], "", "", _count(facts["restarts"]), "", "", doing]
    else:
        cells = [
            facts["status"], _process(facts),
            "" if facts["uptime"] is None else duration(facts["uptime"]), _count(facts["restarts"]),
            _count(facts.get("loops", 0)), _count(facts.get("queued", 0)), _doing(facts),
        ]  # fmt: skip
    rows = [[f"{first}{one_line(name)}", *cells]]
    children = facts.get("children", [])
    for child in children:
        last = child is children[-1]
        rows += _tree_rows(child, f"{others}{'└─ ' if last else '├─ '}", f"{others}{'   ' if last else '│  '}")
    return rows


def _process(facts: dict[str, Any]) -> str:
    if facts["kind"] == "thread":
        return "thread"
    pid = str(facts["pid"] or "")
    return f"{pid} on {facts['node']}" if pid and "node" in facts else pid


def _doing(facts: dict[str, Any]) -> str:
    parts = []
    if facts["pid"] is not None and facts.get("phase"):
        since = facts.get("in_phase")
        parts.append(facts["phase"] + (f" for {duration(since)}" if since is not None and since >= 1 else ""))
    if facts.get("node_lost"):
        parts.append("its node is lost")
    if facts["last_exit"] is not None:
        parts.append(_exit(facts))
    if facts["abandoned"]:
        parts.append(f"{facts['abandoned']} abandoned threads")
    return "; ".join(parts)


def _exit(facts: dict[str, Any]) -> str:
    text = one_line(facts["last_exit"] or "")
    return text if len(text) <= 60 else f"{text[:57]}..."


def status(options: argparse.Namespace) -> int:
    """Print all that is known of one worker or supervisor; without a path, the trees."""
    if options.path is None:
        options.paths = False  # an option of `tree` alone
        return tree(options)
    target = target_of(options)
    facts = dict(target.facts)
    here = facts["kind"] in ("process", "command") and "node" not in facts and target.program.is_here
    pid = facts["pid"] if here else None
    facts["resources"] = _told_by_node(facts) if pid is None else _resources(pid)
    facts["last_lines"] = [] if facts["kind"] == "supervisor" else _last_lines(target)
    facts["crashes"] = [report.id for report in read_reports()[0] if report.path == target.path][-5:]
    healthy = facts["pid"] is not None or facts["status"] in ("finished", "stopped", "ignored", "running", "created")
    if options.json:
        print(json.dumps(facts))
    else:
        print_details(f"{facts['path']}: {facts['kind']}, ", facts["status"], _details(facts))
    return CLEAN if healthy else FAILED


def _last_lines(target: Target) -> list[str]:
    """Return what a worker has printed and logged last; what happened to it is told by other facts."""
    try:
        news = LogReader(target.program.client, target.path, last=3 * LINES).read(PATIENCE)
    except (AskTimeout, RuntimeGone):
        return []
    return [tagged(stream, text) for _, _, stream, _, text in news.lines if stream != EVENT][-LINES:]


def _resources(pid: int) -> dict[str, Any] | None:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        before = sum(sum(one.cpu_times()[:2]) for one in family)
        began = time.monotonic()
        time.sleep(0.1)
        after = sum(sum(one.cpu_times()[:2]) for one in family if one.is_running())
        return {
            "processes": len(family),
            "rss": sum(one.memory_info().rss for one in family if one.is_running()),
            "cpu": max(0.0, after - before) / (time.monotonic() - began),
            "threads": process.num_threads(),
        }
    except (psutil.Error, OSError):
        return None


def _told_by_node(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the node of a worker has told last; None if it has told nothing."""
    if facts["pid"] is None or "memory" not in facts:
        return None
    return {"processes": None, "rss": facts["memory"], "cpu": facts["cpu"], "threads": None}


def _details(facts: dict[str, Any]) -> list[str]:
    lines = []
    if facts["pid"] is not None:
        up = "" if facts["uptime"] is None else f", up {duration(facts['uptime'])}"
        lost = ", which is lost" if facts.get("node_lost") else ""
        node = f" on the node {facts['node']}{lost}" if "node" in facts else ""
        lines.append(f"pid {facts['pid']}{node}, incarnation {facts['incarnation']}{up}")
    if facts["kind"] == "supervisor" and "max_restarts" in facts:
        children = len(facts["children"])
        lines.append(f"{strategy(facts)}: {budget(facts)}; {children} {'child' if children == 1 else 'children'}")
    if facts.get("phase") and facts["pid"] is not None:
        since = "" if facts["in_phase"] is None else f" for {duration(facts['in_phase'])}"
        loops = ""
        if facts["loops"]:
            last = took(facts["last_loop_time"])
            loops = f"; {facts['loops']:,} loop{'s' * (facts['loops'] != 1)}, the last {last}"
        lines.append(f"in {facts['phase']}{since}{loops}")
        oldest = facts.get("oldest_message")
        waiting = f"{facts['queued']:,} waiting" + (
            "" if oldest is None else f", the oldest for {duration(oldest)} at most"
        )
        blocked = f"; {facts['blocked']:,} more wait for room in the mailbox" if facts.get("blocked") else ""
        lines.append(f"{facts['messages']:,} messages handled, {waiting}{blocked}")
    restart = f"; restart={facts['restart']}" if "restart" in facts else ""
    lines.append(f"{facts['restarts']} {'restart' if facts['restarts'] == 1 else 'restarts'}{restart}")
    if facts["last_exit"] is not None:
        lines.append(f"last exit: {one_line(facts['last_exit'])}")
    if facts["resources"] is not None:
        used = facts["resources"]
        below = f" in {used['processes']} processes" if (used["processes"] or 0) > 1 else ""
        cpu = "" if used["cpu"] is None else f", cpu {used['cpu']:.0%}"
        threads = "" if used["threads"] is None else f", {used['threads']} thread{'s' * (used['threads'] != 1)}"
        lines.append(f"memory {used['rss'] / 2**20:.1f} MiB{below}{cpu}{threads}")
    if facts["crashes"]:
        lines.append(f"crash reports: {', '.join(facts['crashes'])}  (suitkaise crashes ID)")
    if facts["last_lines"]:
        lines += ["last lines:", *(f"  {one_line(line)}" for line in facts["last_lines"])]
    return lines


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _command(words: list[str]) -> str:
    text = one_line(" ".join([os.path.basename(words[0]), *words[1:]])) if words else ""
    return text if len(text) <= 60 else f"{text[:57]}..."

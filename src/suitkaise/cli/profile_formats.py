"""How a profile is printed: as a list of functions, as folded stacks, and as a file for speedscope."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pykka

import suitkaise
from suitkaise.cli.display import table
from suitkaise.escapes import one_line

__all__ = ["FORMATS", "Frame", "Profile", "as_json"]

LINES = 25
"""How many functions the text lists."""

Frame = tuple[str, str, int]
"""The name of a function, its file, and its first line."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profiler has found at `path`.

    `stacks`: each with the name of its thread, its frames from outside to inside, and how often it was found.
    `on_cpu`: how many of them have used the CPU; None if that is not known.
    """

    path: str
    by: str
    seconds: float
    stacks: list[tuple[str, tuple[Frame, ...], int]]
    on_cpu: int | None = None

    @property
    def samples(self) -> int:
        """How many stacks were found."""
        return sum(count for _, _, count in self.stacks)


def text(found: Profile) -> str:
    """Return the functions, those in which the most time was spent first; of the machinery, those that take time."""
    own: Counter[Frame] = Counter()
    total: Counter[Frame] = Counter()
    threads: Counter[str] = Counter()
    for thread, stack, count in found.stacks:
        threads[thread] += count
        if stack:
            own[stack[-1]] += count
            total.update(dict.fromkeys(stack, count))
    samples = max(1, found.samples)
    shown = [frame for frame in total if own[frame] or not _is_machinery(frame[1])]
    order = sorted(shown, key=lambda one: (-own[one], -total[one]))[:LINES]
    rows = [["SELF", "TOTAL", "FUNCTION"]] + [
        [f"{own[frame] / samples:>6.1%}", f"{total[frame] / samples:>6.1%}", _named(frame)] for frame in order
    ]
    head = f"{one_line(found.path)}: {found.samples} stacks in {found.seconds:.1f} s, sampled by {found.by}"
    if found.on_cpu is not None:
        head += f"; on the CPU in {found.on_cpu / samples:.0%} of them"
    if len(threads) > 1:
        shares = ", ".join(f"{one_line(name)} {count / samples:.0%}" for name, count in threads.most_common(8))
        head += f"\nthreads: {shares}"
    return f"{head}\n\n{table(rows)}"


def _is_machinery(file: str) -> bool:
    """Return whether a file is what calls the functions of users, and would be in each stack."""
    return file.startswith((*_OURS, "<")) or file.endswith("/threading.py")


_OURS = tuple(f"{os.path.dirname(module.__file__)}/" for module in (suitkaise, pykka) if module.__file__)


def _named(frame: Frame) -> str:
    name, file, line = frame
    return one_line(f"{name} ({_short(file)}:{line})" if file else name)


def _short(file: str) -> str:
    """Return the last parts of a path, which tell enough."""
    return "/".join(file.split("/")[-2:])


def folded(found: Profile) -> str:
    """Return one line for each stack, as flamegraph.pl and many other tools read it."""
    lines = []
    for thread, stack, count in found.stacks:
        names = [one_line(thread), *(_named(frame) for frame in stack)]
        lines.append(f"{';'.join(name.replace(';', ':') for name in names)} {count}")
    return "\n".join(sorted(lines))


def speedscope(found: Profile) -> str:
    """Return what https://www.speedscope.app opens: one profile for each thread."""
    numbers: dict[Frame, int] = {}
    by_thread: dict[str, tuple[list[list[int]], list[int]]] = {}
    for thread, stack, count in found.stacks:
        samples, weights = by_thread.setdefault(thread, ([], []))
        samples.append([numbers.setdefault(frame, len(numbers)) for frame in stack])
        weights.append(count)
    whole = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": found.path,
        "exporter": "suitkaise",
        "shared": {"frames": [{"name": name, "file": file, "line": line} for name, file, line in numbers]},
        "profiles": [
            {
                "type": "sampled", "name": thread, "unit": "none", "startValue": 0, "endValue": sum(weights),
                "samples": samples, "weights": weights,
            }
            for thread, (samples, weights) in by_thread.items()
        ],
    }  # fmt: skip
    return json.dumps(whole)


def as_json(found: Profile) -> dict[str, Any]:
    return {
        "by": found.by, "seconds": found.seconds, "samples": found.samples,
        "stacks": [
            {"thread": thread, "count": count, "frames": [_named(frame) for frame in stack]}
            for thread, stack, count in found.stacks
        ],
    }  # fmt: skip


FORMATS: dict[str, Callable[[Profile], str]] = {"text": text, "folded": folded, "speedscope": speedscope}

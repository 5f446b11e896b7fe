"""Draws the floors of the package from its code: `python docs/pictures/floors.py` writes `floors.svg` beside this file.

A box is a package, or a module beside the packages. An arrow is an import, type-only imports included; it is left out
where other arrows lead to the same box over a third one. A test compares the picture with the code.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "suitkaise"
PICTURE = Path(__file__).with_suffix(".svg")

FLOORS: dict[str, tuple[str, ...]] = {
    "the concept": ("xprocess", "skthreading", "skglobals", "concept"),
    "faces": ("pools", "testing", "pytest_plugin", "cli", "observer", "metrics", "telemetry", "supervisor", "sktree"),
    "what a program has": ("runtime",),
    "other machines": ("cluster",),
    "carries out": ("supervision",),
    "where workers run": ("engines",),
    "what runs | what is shared": ("workers", "storage"),
    "decides | sends": ("policy", "messaging"),
    "is declared | the system": ("specs", "platform"),
    "words that all know": ("errors", "exits", "events", "status", "crashes", "escapes", "records"),
}
"""The floors from top to bottom, each with its packages and modules."""

WIDTH, FLOOR, BOX, LEFT = 980, 96, 44, 190

STYLE = """
text { font-family: ui-sans-serif, system-ui, sans-serif }
.floor { fill: #f3f5f7 } .box { fill: #fff; stroke: #3b5b7a; stroke-width: 1.4 }
.name { fill: #1c2b39; font-size: 15px; font-weight: 600 } .small { fill: #5b6b7a; font-size: 11px }
.arrow { fill: none; stroke: #3b5b7a; stroke-width: 1.6; stroke-opacity: .55 } .tip { fill: #3b5b7a }
@media (prefers-color-scheme: dark) {
.floor { fill: #1d2329 } .box { fill: #131619; stroke: #8fb3d6 } .name { fill: #e8eef4 } .small { fill: #9fb0c0 }
.arrow { stroke: #8fb3d6 } .tip { fill: #8fb3d6 } }
"""


@dataclass(frozen=True)
class Box:
    """One package or module of the picture."""

    name: str
    column: int
    x: float
    y: float
    width: float
    modules: int


def imports() -> set[tuple[str, str]]:
    """All pairs of boxes of which the first imports the second."""
    found = set()
    for file in sorted(SOURCE.rglob("*.py")):
        origin = _box_of(file)
        if origin is None:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for target in _imported(node):
                if target != origin:
                    found.add((origin, target))
    return found


def _box_of(file: Path) -> str | None:
    """The box that a file belongs to; None for the package's own `__init__` and `__main__`."""
    first = file.relative_to(SOURCE).parts[0]
    name = first.removesuffix(".py")
    return None if name.startswith("__") else name


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(module=str(module), names=names) if module == "suitkaise":
            return [alias.name for alias in names if alias.name in boxes_by_name()]
        case ast.ImportFrom(module=str(module)) if module.startswith("suitkaise."):
            return [module.split(".")[1]]
        case ast.Import(names=names):
            parts = [alias.name.split(".") for alias in names]
            return [part[1] for part in parts if part[0] == "suitkaise" and len(part) > 1]
    return []


def arrows() -> list[tuple[str, str]]:
    """The imports without those that a way over a third box implies."""
    found = imports()

    def leads(origin: str, target: str) -> bool:
        return any(a == origin and (b == target or leads(b, target)) for a, b in found)

    return [
        (origin, target)
        for origin, target in sorted(found)
        if not any(a == origin and b != target and leads(b, target) for a, b in found)
    ]


def boxes_by_name() -> dict[str, int]:
    """Each box with the number of its floor, 8 at the top."""
    return {name: len(FLOORS) - row for row, names in enumerate(FLOORS.values()) for name in names}


def boxes() -> list[Box]:
    """The boxes with their places."""
    found = []
    for row, names in enumerate(FLOORS.values()):
        gap = 18 if len(names) > 2 else 60
        width = min(230.0, (WIDTH - LEFT - 20 - gap * (len(names) - 1)) / len(names))
        start = LEFT + (WIDTH - LEFT - 20 - width * len(names) - gap * (len(names) - 1)) / 2
        for column, name in enumerate(names):
            modules = sum(_box_of(file) == name and file.name != "__init__.py" for file in SOURCE.rglob("*.py"))
            found.append(Box(name, column, start + column * (width + gap), row * FLOOR + 30, width, modules))
    return found


def drawing() -> str:
    """The picture as SVG."""
    placed = {box.name: box for box in boxes()}
    height = FLOOR * len(FLOORS) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>The floors of suitkaise: every arrow points downwards</title>",
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker>',
    ]
    for row, title in enumerate(FLOORS):
        y = row * FLOOR + 12
        parts.append(f'<rect class="floor" x="8" y="{y}" width="{WIDTH - 16}" height="{FLOOR - 14}" rx="8"/>')
        parts.append(f'<text class="name" x="22" y="{y + 36}">{len(FLOORS) - row}</text>')
        parts.append(f'<text class="small" x="40" y="{y + 35}">{title}</text>')
    parts += [_arrow(placed[origin], placed[target]) for origin, target in arrows()]
    for box in placed.values():
        middle = box.x + box.width / 2
        detail = f"{box.modules} modules" if box.modules > 1 else "1 module"
        size = min(15.0, (box.width - 8) / (0.65 * len(box.name)))  # a long name in a narrow box is written smaller
        parts.append(
            f'<rect class="box" x="{box.x:.0f}" y="{box.y}" width="{box.width:.0f}" height="{BOX}" rx="6"/>'
            f'<text class="name" x="{middle:.0f}" y="{box.y + 19}" text-anchor="middle" '
            f'style="font-size: {size:.3g}px">{box.name}</text>'
            f'<text class="small" x="{middle:.0f}" y="{box.y + 35}" text-anchor="middle">{detail}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _arrow(origin: Box, target: Box) -> str:
    """A curve from the lower edge of a box to the upper edge of another, or along the floor."""
    x1, x2 = origin.x + origin.width / 2, target.x + target.width / 2
    if origin.y == target.y and abs(origin.column - target.column) == 1:
        x1, x2 = (origin.x + origin.width, target.x) if x1 < x2 else (origin.x, target.x + target.width)
        y = origin.y + BOX / 2
        way = f"M{x1:.0f} {y:.0f}L{x2:.0f} {y:.0f}"
    elif origin.y == target.y:  # below the boxes between
        y = origin.y + BOX
        way = f"M{x1:.0f} {y}C{x1:.0f} {y + 22} {x2:.0f} {y + 22} {x2:.0f} {y}"
    else:
        shift = max(-60.0, min(60.0, (x2 - x1) / 12))
        x1, x2, y1, y2 = x1 + shift, x2 - shift, origin.y + BOX, target.y
        bend = (y2 - y1) / 2
        way = f"M{x1:.0f} {y1}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{way}"/>'


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")

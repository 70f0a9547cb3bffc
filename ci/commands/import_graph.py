# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the import graph of a checkout, as an SVG for docs/architecture.md.

Each layer of a folder is a row of boxes: sub-folders, and files of the folder itself (one box if
there are many). Lines inside a folder are imports, without those implied by others; arcs at the
side count imports between folders. Imports that are part of a cycle or go upwards are red.

This is a separate program, so that it can read another checkout:
``python import_graph.py CHECKOUT FILE``. `./inv dev.graph` runs it.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

import grimp

FOLDERS = ("ci", "tests", "modules", "images", "kernel")  # from top to bottom
PACKAGE = "blockyard"
OWN_FILES = 8  # a folder with more files shows them as one box
# our own tests and the command: no module imports them
LEAVES = ("tests.hostile", "tests.unit", "tests.integration", "tests.properties", "__main__")
BOX, GAP, ROW, LEFT, WIDTH, ARCS = 112, 12, 56, 100, 900, 150  # pixels
GOOD, BAD = "#57606a", "#cf222e"

Edges = Mapping[str, set[str]]  # importer → imported


def read(checkout: Path) -> grimp.ImportGraph:
    """The checkout's import graph, with imports inside functions and for type checking."""
    sys.path.insert(0, str(checkout))
    names = [PACKAGE] if (checkout / PACKAGE).is_dir() else FOLDERS
    return grimp.build_graph(*names, cache_dir=None)


def circles(edges: Edges) -> list[set[str]]:
    """Import cycles: sets of nodes that all reach each other."""
    reach = {node: _reached(node, edges) for node in edges}
    cycles: list[set[str]] = []
    for node in edges:
        cycle = {other for other in reach[node] if node in reach.get(other, ())}
        if cycle and cycle not in cycles:
            cycles.append(cycle)
    return cycles


def _reached(node: str, edges: Edges) -> set[str]:
    reached: set[str] = set()
    todo = [node]
    while todo:
        new = edges.get(todo.pop(), set()) - reached
        reached |= new
        todo += new
    return reached


class Picture:
    """The import graph of a checkout, grouped into boxes."""

    def __init__(self, graph: grimp.ImportGraph) -> None:
        modules = {self._short(module): module for module in graph.modules}
        self.imports = {
            name: {self._short(it) for it in graph.find_modules_directly_imported_by(module)}
            for name, module in modules.items()
            if not name.startswith(LEAVES)
        }
        own = Counter(name.partition(".")[0] for name in modules if name.count(".") == 1)
        packages = {name.rpartition(".")[0] for name in modules}
        own.subtract(name.partition(".")[0] for name in packages if name.count(".") == 1)
        self._many = {folder for folder, count in own.items() if count > OWN_FILES}
        self._packages = packages
        self.circles = circles(self.imports)
        self.boxes: dict[str, set[str]] = defaultdict(set)
        self.sizes: Counter[str] = Counter()  # modules of a box
        self.across: Counter[tuple[str, str]] = Counter()
        for name, imported in self.imports.items():
            box, folder = self._box(name), name.partition(".")[0]
            if folder not in FOLDERS:
                continue
            for other in imported:
                top = other.partition(".")[0]
                if top not in FOLDERS:  # the package itself, imported for its version
                    continue
                if top != folder:
                    self.across[folder, top] += 1
                elif (target := self._box(other)) != box:
                    self.boxes[box].add(target)
            if name != folder:
                self.boxes[box] |= set()
                self.sizes[box] += 1

    @staticmethod
    def _short(module: str) -> str:
        return module.removeprefix(f"{PACKAGE}.")

    def _box(self, name: str) -> str:
        """The box that shows a module: its sub-folder, the module, or the folder's files."""
        folder, _, rest = name.partition(".")
        inner = f"{folder}.{rest.partition('.')[0]}"
        if rest and (inner in self._packages or folder not in self._many):
            return inner
        return f"{folder}.*"

    def rows(self, folder: str) -> list[list[str]]:
        """The folder's boxes by layer, importers first; boxes of a cycle share a row."""
        edges = {box: to for box, to in self.boxes.items() if box.startswith(f"{folder}.")}
        representative = {box: min(cycle) for cycle in circles(edges) for box in cycle}
        below: dict[str, set[str]] = defaultdict(set)
        for box in edges:
            below[representative.get(box, box)] |= {representative.get(it, it) for it in edges[box]}
        below = {box: to - {box} for box, to in below.items()}
        height: dict[str, int] = {}
        for box in TopologicalSorter(below).static_order():
            height[box] = max((height[it] + 1 for it in below.get(box, ())), default=0)
        rows: list[list[str]] = [[] for _ in range(max(height.values(), default=0) + 1)]
        for box in sorted(edges):
            rows[-1 - height[representative.get(box, box)]].append(box)
        return rows

    def direct(self) -> Iterator[tuple[str, str, bool]]:
        """The lines to draw: importer, imported, whether it is part of a cycle."""
        for box, imported in self.boxes.items():
            for other in sorted(imported):
                in_cycle = box in _reached(other, self.boxes)
                others = [_reached(it, self.boxes) for it in imported - {other}]
                if in_cycle or not any(other in it and box not in it for it in others):
                    yield box, other, in_cycle


def svg(picture: Picture, title: str) -> str:
    """The SVG document as text."""
    at: dict[str, tuple[float, float]] = {}
    frames: dict[str, tuple[float, float]] = {}
    y = 44.0 + 18 * len(picture.circles)
    for folder in FOLDERS:
        rows = picture.rows(folder)
        frames[folder] = (y, ROW * len(rows) + 8)
        for number, row in enumerate(rows):
            left = LEFT + (WIDTH - ARCS - LEFT - len(row) * (BOX + GAP)) / 2
            for column, box in enumerate(row):
                at[box] = (left + column * (BOX + GAP), y + 18 + number * ROW)
        y += ROW * len(rows) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- written by ./inv dev.graph -->",
        f'<rect width="{WIDTH}" height="{y:.0f}" fill="#ffffff"/>',
        *_arrowheads(),
        f'<text x="16" y="26" font-size="15" fill="#1f2328">{escape(title)}</text>',
    ]
    for number, cycle in enumerate(picture.circles):
        text = f"cycle: {', '.join(sorted(cycle))}"
        parts.append(f'<text x="16" y="{46 + 18 * number}" fill="{BAD}">{escape(text)}</text>')
    for folder, (top, height) in frames.items():
        parts.append(
            f'<rect x="8" y="{top}" width="{WIDTH - ARCS - 8}" height="{height}" rx="8" '
            f'fill="#f6f8fa" stroke="#d0d7de"/><text x="20" y="{top + 24}" font-weight="bold" '
            f'fill="#1f2328">{folder}/</text>'
        )
    parts += _lines(picture, at)
    parts += _arcs(picture.across, frames)
    for box, (x, top) in at.items():
        name = box.partition(".")[2]
        name = "own files" if name == "*" else name
        if picture.sizes[box] > 1:
            name = f"{name} ({picture.sizes[box]})"
        parts.append(
            f'<rect x="{x:.0f}" y="{top:.0f}" width="{BOX}" height="28" rx="5" fill="#ffffff" '
            f'stroke="{GOOD}"/><text x="{x + BOX / 2:.0f}" y="{top + 18:.0f}" '
            f'text-anchor="middle" fill="#1f2328">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _arrowheads() -> Iterator[str]:
    for name, colour in (("good", GOOD), ("bad", BAD)):
        yield (
            f'<marker id="{name}" markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="9" '
            f'refX="8" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
        )


def _lines(picture: Picture, at: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for box, other, in_cycle in picture.direct():
        if box not in at or other not in at:
            continue
        (x1, y1), (x2, y2) = at[box], at[other]
        x1, x2 = x1 + BOX / 2, x2 + BOX / 2
        if y1 == y2:  # same row, so a cycle: below the boxes
            path = f"M{x1:.0f},{y1 + 28:.0f} q{(x2 - x1) / 2:.0f},26 {x2 - x1:.0f},0"
        else:
            up = y2 < y1
            path = f"M{x1:.0f},{y1 + (0 if up else 28):.0f} L{x2:.0f},{y2 + (28 if up else 0):.0f}"
        yield _path(path, 1.2, in_cycle)


def _arcs(
    across: Mapping[tuple[str, str], int], frames: Mapping[str, tuple[float, float]]
) -> Iterator[str]:
    right = WIDTH - ARCS
    for (a, b), count in sorted(across.items()):
        i, j = FOLDERS.index(a), FOLDERS.index(b)
        y1 = frames[a][0] + frames[a][1] / 2 + 5 * j
        y2 = frames[b][0] + frames[b][1] / 2 - 18 + 9 * i
        bow = 24 + 26 * abs(i - j)
        path = f"M{right},{y1:.0f} C{right + bow},{y1:.0f} {right + bow},{y2:.0f} {right},{y2:.0f}"
        yield _path(path, min(1 + count / 40, 5), i > j)
        x = right + bow * 0.75 + 3
        yield (
            f'<text x="{x:.0f}" y="{(y1 + y2) / 2 + 4:.0f}" font-size="10" stroke="#ffffff" '
            f'stroke-width="3" paint-order="stroke" fill="{BAD if i > j else GOOD}">{count}</text>'
        )


def _path(path: str, width: float, bad: bool) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{BAD if bad else GOOD}" '
        f'stroke-width="{width:.1f}" marker-end="url(#{"bad" if bad else "good"})"/>'
    )


def main(arguments: Iterable[str]) -> None:
    """Writes the picture. arguments: the checkout's folder, the file to write."""
    checkout, target = map(Path, arguments)
    if not all((checkout / folder).is_dir() for folder in FOLDERS):
        sys.exit(f"error: {checkout} is not a checkout of Blockyard")
    picture = Picture(read(checkout.resolve()))
    count = sum(map(len, picture.imports.values()))
    cycles = len(picture.circles)
    title = f"{len(picture.imports)} modules, {count} imports, {cycles or 'no'} import cycles"
    target.write_text(svg(picture, title))
    print(f"{target}: {title}")
    for cycle in picture.circles:
        print(f"  cycle: {', '.join(sorted(cycle))}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The layers of the package as a table and a picture, from the imports in its code and the rules of a test."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where the rules are

from tests.test_layering import LAYERS, PACKAGE, imports  # noqa: E402

LEFT_OUT = {"__init__", "__main__", "_lazy"}
"""What every layer uses, or what only names the others."""
ROOM, GAP, HEIGHT = 2.6, 0.35, 1.1


def write_all(api: Path) -> None:
    """Write the table and the picture below ``docs/api``."""
    (api / "layers.md").write_text(table())
    draw(api / "architecture.png")


def files_of(layer: str) -> list[Path]:
    """Return the files of a layer, a folder or a single file."""
    folder = PACKAGE / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{layer}.py"]


def uses() -> dict[str, set[str]]:
    """Return which layers each layer imports."""
    layers = [layer for layer in LAYERS if layer not in LEFT_OUT]
    found: dict[str, set[str]] = {}
    for layer in layers:
        targets = set()
        for file in files_of(layer):
            package = ".".join(["fusionblocks", *file.relative_to(PACKAGE).parts[:-1]])
            for _, target, _ in imports(ast.parse(file.read_text()), package):
                top, _, rest = target.partition(".")
                targets |= {rest.partition(".")[0]} if top == "fusionblocks" else set()
        found[layer] = (targets & set(layers)) - {layer}
    return found


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the layers from the ground up: each stands on the floor above all that it uses."""
    level: dict[str, int] = {}

    def height(layer: str) -> int:
        if layer not in level:
            level[layer] = 1 + max((height(used) for used in graph[layer]), default=-1)
        return level[layer]

    for layer in graph:
        height(layer)
    return [[layer for layer in graph if level[layer] == number] for number in range(max(level.values()) + 1)]


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the uses that are no uses of something used: what is left to draw."""

    def below(layer: str) -> set[str]:
        return graph[layer] | {deeper for used in graph[layer] for deeper in below(used)}

    return {layer: used - {deeper for other in used for deeper in below(other)} for layer, used in graph.items()}


def purpose(layer: str) -> str:
    """Return the first sentence of a layer's docstring."""
    file = PACKAGE / layer / "__init__.py" if (PACKAGE / layer).is_dir() else PACKAGE / f"{layer}.py"
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return text.split("\n")[0]


def lines_of(layer: str) -> int:
    """Return how many lines a layer has."""
    return sum(len(file.read_text().splitlines()) for file in files_of(layer))


def table() -> str:
    """Return the layers from the top down."""
    graph = uses()
    rows = ["| layer | holds | uses |", "| --- | --- | --- |"]
    for floor in reversed(floors(graph)):
        for layer in floor:
            used = ", ".join(f"`{name}`" for name in LAYERS if name in graph[layer]) or "nothing of the package"
            rows.append(f"| `fusionblocks.{layer}` | {purpose(layer)} | {used} |")
    return "\n".join(rows) + "\n"


def draw(file: Path) -> None:
    """Draw layers as rooms, as wide as their code, on floors."""
    from matplotlib.figure import Figure

    graph = uses()
    storeys = floors(graph)
    width = max(len(storey) for storey in storeys) * (ROOM + GAP)
    figure = Figure(figsize=(width * 0.85, len(storeys) * 1.05))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    places: dict[str, tuple[float, float]] = {}
    for number, storey in enumerate(storeys):
        left = (width - len(storey) * (ROOM + GAP)) / 2
        for place, layer in enumerate(storey):
            places[layer] = (left + place * (ROOM + GAP) + GAP / 2, number * 1.9)
    for layer, used in direct(graph).items():
        x, y = places[layer]
        for other in used:
            to_x, to_y = places[other]
            axes.plot([x + ROOM / 2, to_x + ROOM / 2], [y, to_y + HEIGHT], color="#9aa7b5", linewidth=1.2, zorder=0)
    most = max(lines_of(layer) for layer in graph)
    for layer, (x, y) in places.items():
        lines = lines_of(layer)
        axes.fill([x, x + ROOM, x + ROOM, x], [y, y, y + HEIGHT, y + HEIGHT], facecolor="white", edgecolor="#33475b")
        full = ROOM * lines / most
        axes.fill([x, x + full, x + full, x], [y, y, y + 0.12, y + 0.12], facecolor="#d9822b", edgecolor="none")
        axes.text(x + ROOM / 2, y + 0.72, layer, ha="center", va="center", fontsize=12, weight="bold")
        axes.text(x + ROOM / 2, y + 0.36, f"{lines:,} lines", ha="center", va="center", fontsize=9, color="#5b6b7b")
    axes.set_axis_off()
    figure.savefig(file, dpi=130)

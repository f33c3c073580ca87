"""Write what the documentation takes from the package: an API page a module, tables, pictures and measurements.

Everything goes to ``docs/api``, which is built and not tracked. Names come from the packages' own tables, so a public
name without a page is impossible.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import benchmark_tables
import floors
import pictures
import torch
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

import fusionblocks as fb

logger = logging.getLogger(__name__)

PACKAGES = {
    "alignment": "Alignment",
    "ops": "Operators",
    "image": "Pictures",
    "data": "Data",
    "guidance": "Guidance",
    "losses": "Losses",
    "metrics": "Metrics",
    "training": "Training",
    "video": "Sequences",
    "deployment": "Deployment",
}
"""The packages that have one page; blocks and models have one a module."""


def write_all(docs: Path) -> None:
    """Write all pages, tables and pictures below ``docs/api``."""
    api = docs / "api"
    shutil.rmtree(api, ignore_errors=True)
    (api / "blocks").mkdir(parents=True)
    (api / "models").mkdir()
    write_pages(api)
    (api / "blocks_table.md").write_text(blocks_table())
    (api / "models_table.md").write_text(models_table())
    (api / "metrics_table.md").write_text(metrics_table())
    (api / "conventions_table.md").write_text(conventions_table())
    (api / "losses_table.md").write_text(losses_table())
    (api / "presets_table.md").write_text(presets_table())
    pictures.write_sample(api)
    pictures.write_comparison(api)
    pictures.write_two_cameras(api)
    pictures.write_sequence(api)
    benchmark_tables.write_all(api)
    floors.write_all(api)


# --- pages ---------------------------------------------------------------------------------------------------------


def write_pages(api: Path) -> None:
    """Write the API pages, every public name once, under the shortest path that users import it from."""
    root = [name for name in fb.__all__ if name != "__version__" and not isinstance(value_of(fb, name), ModuleType)]
    left = set(root)

    def page(file: Path, title: str, names: Iterable[str], package: str) -> None:
        lines = [title, "=" * len(title), ""]
        for name in sorted(names, key=str.lower):
            home = "fusionblocks" if name in root else f"fusionblocks.{package}"
            left.discard(name)
            lines += directive(home, name)
        file.write_text("\n".join(lines))

    for package in ("blocks", "models"):
        module = importlib.import_module(f"fusionblocks.{package}")
        pages: dict[str, list[str]] = {}
        for name in module.__all__:
            pages.setdefault(module._MODULES[name].lstrip("."), []).append(name)
        for stem, names in sorted(pages.items()):
            file = api / package / f"{stem}.rst"
            page(file, ", ".join(sorted(names, key=str.lower)), names, package)
            with file.open("a") as stream:
                stream.write("\n".join(["", *records(f"fusionblocks.{package}.{stem}", names)]))
        toctree(api / f"{package}.rst", package.capitalize(), [f"{package}/{stem}" for stem in sorted(pages)])
    for package, title in PACKAGES.items():
        module = importlib.import_module(f"fusionblocks.{package}")
        names = getattr(module, "__all__", [])
        if not names:
            logger.warning("fusionblocks.%s lists no public names in __all__", package)
        page(api / f"{package}.rst", title, names, package)
    page(api / "inference.rst", "Inference", sorted(left), "")
    toctree(api / "index.rst", "API", ["inference", "models", "blocks", *PACKAGES])


def records(home: str, shown: list[str]) -> list[str]:
    """Return the directives of a module's tuples and dataclasses that its public names take or return."""
    try:
        module = importlib.import_module(home)
    except ImportError:
        return []  # reported with the names
    return [
        line
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == home and not name.startswith("_") and name not in shown
        if issubclass(value, tuple) or dataclasses.is_dataclass(value)
        for line in directive(home, name)
    ]


def homes() -> dict[str, str]:
    """Return where each public name is documented: ``{"SDFM": "fusionblocks.SDFM", ...}``."""
    found = {}
    for package in ("blocks", "models", *PACKAGES):
        for name in getattr(importlib.import_module(f"fusionblocks.{package}"), "__all__", []):
            found[name] = f"fusionblocks.{package}.{name}"
    return found | {name: f"fusionblocks.{name}" for name in fb.__all__}


def toctree(file: Path, title: str, entries: list[str]) -> None:
    lines = [title, "=" * len(title), "", ".. toctree::", "   :maxdepth: 1", "", *(f"   {entry}" for entry in entries)]
    file.write_text("\n".join([*lines, ""]))


def directive(home: str, name: str) -> list[str]:
    """Return the autodoc directive of a public name."""
    value = value_of(importlib.import_module(home), name)
    if value is None:
        return []
    if inspect.isclass(value):
        if issubclass(value, BaseException):
            return [f".. autoexception:: {home}.{name}", ""]
        options = ["   :members:", "   :exclude-members: config_class", "   :show-inheritance:"]
        return [f".. autoclass:: {home}.{name}", *options, ""]
    if callable(value):
        return [f".. autofunction:: {home}.{name}", ""]
    text = comment_of(home, name)
    return [f".. py:data:: {home}.{name}", f"   :value: {readable(value)}", "", *(f"   {line}" for line in text), ""]


def readable(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: ..." for key in value) + "}"
    return "{" + ", ".join(map(repr, sorted(value))) + "}" if isinstance(value, frozenset) else repr(value)


def comment_of(home: str, name: str) -> list[str]:
    """Return the ``#:`` comment over a constant, which autodoc does not find through a lazy name."""
    folder = Path(importlib.import_module(home).__file__).parent
    for file in sorted(folder.rglob("*.py")):
        module = ".".join([home, *file.relative_to(folder).with_suffix("").parts])
        docs = ModuleAnalyzer.for_module(module).find_attr_docs() if file.stem != "__init__" else {}
        if ("", name) in docs:
            return docs["", name]
    logger.warning("%s.%s is public and has no comment that starts with #:", home, name)
    return []


def value_of(module: ModuleType, name: str) -> object:
    """Return a public attribute; one that cannot be imported is a warning, which fails the build."""
    try:
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        logger.warning("%s.%s is public and cannot be imported: %s", module.__name__, name, error)
        return None


# --- tables --------------------------------------------------------------------------------------------------------


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines) + "\n"


def models_table() -> str:
    """Return the networks of the registry as a Markdown table."""
    from fusionblocks.models import model_class

    rows = []
    for name in fb.list_models():
        try:
            network = model_class(name)
        except ImportError as error:
            logger.warning("network %s cannot be imported: %s", name, error)
            continue
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in network().parameters())
        rows.append(
            [
                f"`{name}`",
                f"{{py:obj}}`~fusionblocks.{network.__name__}`",
                ", ".join(["pair", *(f"`{guide}`" for guide in network.guidance_names)]),
                "RGB" if network.fused_channels == 3 else "luma",
                f"{parameters / 1e6:.2f} M" if parameters else "none",
                network.paper,
                network.license_note,
            ]
        )
    return table(["name", "class", "takes", "`fused`", "parameters", "paper", "licence note"], rows)


def blocks_table() -> str:
    """Return the blocks by kind with their papers, from the docstrings, and what they cost, as Markdown tables."""
    from benchmarks import report
    from fusionblocks import blocks
    from fusionblocks.blocks.kinds import KINDS

    costs = {row["name"]: row for row in report.newest("blocks", ("name",))}
    exact = set(fb.list_blocks("invertible"))
    parts = []
    for kind, signature in KINDS.items():
        names = fb.list_blocks(kind)
        if kind != "invertible":
            parts.append(_blocks(f"{kind.capitalize()}: {signature}", names, costs, exact))
    alone = [name for name in fb.list_blocks() if getattr(getattr(blocks, name), "kind", None) is None]
    parts.append(_blocks("Of no kind", alone, costs, exact))
    return "\n".join([*parts, report.machine(list(costs.values())), ""])


def _blocks(title: str, names: Iterable[str], costs: Mapping[str, Mapping[str, str]], exact: Collection[str]) -> str:
    rows = []
    for name in sorted(names, key=str.lower):
        block = value_of(fb, name)
        summary, reference = sections(inspect.getdoc(block) or "")
        notes = [markdown(summary), "Invertible." if name in exact else ""]
        if why := getattr(block, "stands_alone", ""):
            notes.append(f"It {why}.")
        cost = costs.get(name, {})
        parameters = f"{int(cost['parameters']) / 1e3:.4g} k" if cost else ""
        figures = [parameters, *(cost.get(key, "") for key in ("gflop", "ms", "peak_mib")), cost.get("reach") or "–"]
        rows.append([f"{{py:obj}}`~fusionblocks.{name}`", " ".join(filter(None, notes)), markdown(reference), *figures])
    header = ["block", "what it does", "from", "parameters", "GFLOP", "ms", "MiB", "reach"]
    return f"```{{rubric}} {title}\n```\n\n{table(header, rows)}"


def metrics_table() -> str:
    """Return the metrics with their functions, directions and ranges as a Markdown table."""
    rows = []
    for name, metric in fb.metrics.METRICS.items():
        function = f"{{py:obj}}`~fusionblocks.metrics.{metric.function.__name__}`"
        low, high = (f"{bound:.5g}".replace("inf", "∞").replace("-", "−") for bound in metric.range)
        rows.append([name, function, "↑" if metric.direction > 0 else "↓", f"{low} to {high}", metric.description])
    return table(["name", "function", "better", "range", "what it says"], rows)


def conventions_table() -> str:
    """Return the sample pair's fusion, scored by default and under every convention, as a Markdown table.

    What departs from the default is bold; a metric that a convention leaves to the default is left empty.
    """
    sample = pictures.gray_sample()
    conventions = fb.metrics.CONVENTIONS.values()
    scores = [fb.metrics.evaluate(*sample, convention=convention.name) for convention in conventions]
    rows = []
    for name, metric in fb.metrics.METRICS.items():
        default = f"{metric(*sample).item():.3f}"
        cells = [f"{score[name].item():.3f}" for score in scores]
        cells = [cell if cell == default else f"**{cell}**" for cell in cells]
        decided = [name in convention.published or name in convention.options for convention in conventions]
        rows.append([name, default, *(cell if there else "" for cell, there in zip(cells, decided))])
    return table(["", "function's default", *(f"`{convention.name}`" for convention in conventions)], rows)


def losses_table() -> str:
    """Return the terms of training losses with formula, inputs and paper, from the docstrings, as a Markdown table."""
    names: dict[str, list[str]] = {}
    for name, term in fb.losses.TERMS.items():
        names.setdefault(term.function.__name__, []).append(name)
    rows = []
    for function, terms in names.items():
        doc = inspect.getdoc(getattr(fb.losses, function)) or ""
        formula = re.search(r"^\.\. math::((?:.*\n)(?:[ ]+.*\n)*)", doc, re.MULTILINE)
        inputs = [", ".join(f"`{name}`" for name in fb.losses.TERMS[term].inputs.values()) for term in terms]
        rows.append(
            [
                ", ".join(f"`{name}`" for name in terms),
                f"{{py:obj}}`~fusionblocks.losses.{function}`",
                f"${' '.join(formula.group(1).split())}$".replace("|", r"\vert ") if formula else "",
                "; ".join(inputs),
                markdown(sections(doc)[1]),
            ]
        )
    return table(["term", "function", "formula", "inputs", "from"], rows)


def presets_table() -> str:
    """Return the papers' losses with weights and options as a Markdown table."""
    rows = []
    for name, preset in fb.losses.PRESETS.items():
        weights = ", ".join(f"{weight:g} `{term}`" for term, weight in preset.weights.items())
        options = [
            f"`{term}`: `{option}={value!r}`"
            for term, values in preset.options.items()
            for option, value in values.items()
        ]
        rows.append([f"`{name}`", preset.source, weights, ", ".join(options)])
    return table(["preset", "from", "weights", "options"], rows)


def sections(doc: str) -> tuple[str, str]:
    """Return the first sentence of a docstring and its ``Reference:`` section, each on one line."""
    summary = " ".join(doc.partition("\n\n")[0].split())
    match = re.search(r"^References?:\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    return summary, " ".join(match.group(1).split()) if match else ""


def markdown(text: str) -> str:
    """Return a line of reST as Markdown: literals and roles."""
    text = re.sub(r":\w+:`~?([^`<]+)`", lambda match: f"`{match.group(1).rpartition('.')[2]}`", text)
    return text.replace("``", "`").replace("|", r"\|")

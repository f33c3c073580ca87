"""Write what the documentation takes from the package: an API page a module, tables, and the sample's pictures.

Everything goes to ``docs/api``, which is built and not tracked. Names come from the packages' own tables, so a public
name without a page is impossible.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from torch import Tensor

import fusionblocks as fb

logger = logging.getLogger(__name__)

SCENE = {"seed": 10, "height": 360, "width": 480}
PACKAGES = {
    "ops": "Operators",
    "image": "Pictures",
    "data": "Data",
    "guidance": "Guidance",
    "losses": "Losses",
    "metrics": "Metrics",
    "training": "Training",
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
    write_pictures(api)
    write_comparison(api)
    sys.path.insert(0, str(docs.parent))  # where the benchmarks are
    write_performance(api)
    write_guidance(api)
    write_training(api)
    write_quality(api)


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
    for file in sorted(folder.glob("*.py")):
        docs = ModuleAnalyzer.for_module(f"{home}.{file.stem}").find_attr_docs() if file.stem != "__init__" else {}
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
    """Return the blocks with their papers and published classes, from the docstrings, as a Markdown table."""
    from fusionblocks import blocks

    rows = []
    for name in sorted(blocks.__all__, key=str.lower):
        block = value_of(blocks, name)
        if block is None:
            continue
        summary, reference = sections(inspect.getdoc(block) or "")
        rows.append([f"{{py:obj}}`~fusionblocks.{name}`", markdown(summary), markdown(reference)])
    return table(["block", "what it does", "from"], rows)


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
    pictures = gray_sample()
    conventions = fb.metrics.CONVENTIONS.values()
    scores = [fb.metrics.evaluate(*pictures, convention=convention.name) for convention in conventions]
    rows = []
    for name, metric in fb.metrics.METRICS.items():
        default = f"{metric.function(*pictures).item():.3f}"
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


def gray_sample() -> tuple[Tensor, Tensor, Tensor]:
    """Return the sample's fused, infrared and visible gray levels, uint8 ``(1, 1, H, W)`` each."""
    luma = {name: fb.image.luma(picture[None]) for name, picture in sample().items()}
    fused, infrared, visible = (
        luma[name].mul(255).round().to(torch.uint8) for name in ("fused", "infrared", "visible")
    )
    return fused, infrared, visible


def sections(doc: str) -> tuple[str, str]:
    """Return the first sentence of a docstring and its ``Reference:`` section, each on one line."""
    summary = " ".join(doc.partition("\n\n")[0].split())
    match = re.search(r"^References?:\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    return summary, " ".join(match.group(1).split()) if match else ""


def markdown(text: str) -> str:
    """Return a line of reST as Markdown: literals and roles."""
    text = re.sub(r":\w+:`~?([^`<]+)`", lambda match: f"`{match.group(1).rpartition('.')[2]}`", text)
    return text.replace("``", "`").replace("|", r"\|")


# --- pictures ------------------------------------------------------------------------------------------------------


def sample() -> dict[str, Tensor]:
    """Return the sample pair and its fusion, RGB ``(3, H, W)`` each."""
    scene = fb.data.synthetic_scene(**SCENE)
    fused = fb.fuse(scene.infrared, scene.visible)
    return {"infrared": scene.infrared.expand(3, -1, -1), "visible": scene.visible, "fused": fused}


def write_pictures(api: Path) -> None:
    """Write the sample pair and its fusion as JPEG."""
    try:
        pictures = sample()
    except (ImportError, AttributeError) as error:
        logger.warning("the sample pictures cannot be made: %s", error)
        return
    for name, picture in pictures.items():
        fb.image.write_image(api / f"{name}.jpg", fb.image.tensor_to_array(picture))


def write_comparison(api: Path) -> None:
    """Write the plot of four ways to fuse a few small scenes."""
    from fusionblocks.metrics import Comparison, FusionEvaluator

    metrics = ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM")
    evaluators: dict[str, FusionEvaluator] = {}
    for seed in range(6):
        scene = fb.data.synthetic_scene(seed, height=192, width=256)
        infrared, visible = scene.infrared, fb.image.luma(scene.visible)
        methods = {
            "fusionblocks": fb.image.luma(fb.fuse(scene.infrared, scene.visible)),
            "laplacian": fb.image.luma(fb.fuse(scene.infrared, scene.visible, model="laplacian")),
            "maximum": torch.maximum(infrared, visible),
            "mean": (infrared + visible) / 2,
        }
        for method, fused in methods.items():
            evaluator = evaluators.setdefault(method, FusionEvaluator(metrics=metrics))
            evaluator.update(*(picture.clamp(0, 1)[None] for picture in (fused, infrared, visible)))
    tables = {method: evaluator.compute() for method, evaluator in evaluators.items()}
    Comparison(tables).plot(api / "comparison.png")


def write_performance(api: Path) -> None:
    """Write the benchmarks' newest rows as tables, and plots of them, from the tracked files."""
    from benchmarks import plot, report

    for suite in report.SUITES:
        for place in report.PLACES:
            text = report.page(suite, place)
            rows = report.read(suite, place)
            if rows:
                name = f"{suite}_{place}.png"
                plot.draw(rows).savefig(api / name, dpi=150)
                text += f"\n![Times faster than the published formulation, each case](/api/{name})\n"
            (api / f"{suite}_{place}.md").write_text(text)


def write_guidance(api: Path) -> None:
    """Write what guides and the networks that they guide cost, as a table from the tracked file."""
    from benchmarks import report

    rows = report.newest("guidance", ("name", "settings", "height", "width"))
    lines = [
        [
            f"`{row['name']}`",
            row["settings"],
            f"{row['height']}x{row['width']}",
            f"{report.digits(row['p50_s'])} s",
            f"{row['peak_mib']} MiB",
            f"{row['weights_mib']} MiB",
        ]
        for row in rows
    ]
    table = report.markdown(["", "settings", "picture", "median", "peak beside the weights", "weights"], lines)
    (api / "guidance_table.md").write_text(f"{table}\n{report.machine(rows)}\n")


def write_training(api: Path) -> None:
    """Write how fast training is and what memory it takes, as tables from the tracked files."""
    from benchmarks import report

    rows = report.newest("training", ("recipe", "width", "picture", "patch", "precision", "compiled", "clock"))
    lines = [
        [
            f"`{row['recipe']}`, {row['width']}",
            f"{row['picture']}, patch {row['patch']}",
            row["batch"],
            row["threads"],
            {"no": "float32", "bf16": "bfloat16"}[row["precision"]] + (", compiled" * (row["compiled"] == "yes")),
            f"{row['published_pairs_per_s']} ({100 * float(row['published_waiting']):.0f} %)",
            f"{row['pairs_per_s']} ({100 * float(row['waiting']):.1f} %)",
            f"{row['times_faster']}× faster",
        ]
        for row in rows
    ]
    header = ["network", "pictures", "batch", "threads", "precision", "published: pairs/s (waiting)", "ours", ""]
    (api / "training_table.md").write_text(f"{report.markdown(header, lines)}\n{report.machine(rows)}\n")

    rows = report.newest("training_memory", ("recipe", "phase"))
    lines = [
        [f"`{row['recipe']}`", row["phase"], row["batches"], row["patch"], f"{row['peak_gib']} GiB", row["seconds"]]
        for row in rows
    ]
    text = report.markdown(
        ["recipe", "phase", "batches a step", "patch", "peak of the process", "seconds a step"], lines
    )
    (api / "training_memory_table.md").write_text(f"{text}\n{report.machine(rows)}\n")


def write_quality(api: Path) -> None:
    """Write what the library's own network scores, and its variants, as tables from the tracked files."""
    from benchmarks import quality, report

    for name, title in (("quality", "method"), ("ablation", "trained with")):
        rows = report.newest(name, ("variant", "set"))
        sets = dict.fromkeys(row["set"] for row in rows)
        tables = []
        for chosen in sets:
            lines = [
                [row["variant"], *(f"{float(row[metric]):.2f}" for metric in quality.METRICS)]
                for row in rows
                if row["set"] == chosen
            ]
            tables.append(f"{chosen}\n\n{report.markdown([title, *quality.METRICS], lines)}")
        (api / f"{name}_table.md").write_text("\n".join(tables) or "There is no row yet.\n")
    rows = report.newest("quality_speed", ("variant", "set"))
    lines = [[row["variant"], f"{row['p50_s']} s ({row['p20_s']} to {row['p80_s']})", row["psnr_db"]] for row in rows]
    text = report.markdown(["480x640", "median (20 % to 80 %)", "PSNR in dB"], lines)
    (api / "quality_speed_table.md").write_text(f"{text}\n{report.machine(rows)}\n")


def write_degradations(file: Path) -> None:
    """Write a contact sheet: a column a degradation, a row a strength, the clean pictures on top."""
    from PIL import Image, ImageDraw

    height, width, margin = 114, 152, 20
    strengths = (0.0, 0.3, 0.6, 1.0)
    kinds = fb.data.DEGRADATIONS
    scene = fb.data.synthetic_scene(10, height=2 * height, width=2 * width, time="dusk")
    sheet = Image.new("RGB", (margin + width * len(kinds), margin + height * len(strengths)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, kind in enumerate(kinds):
        clean = scene.infrared if kind == "stripes" else scene.visible
        draw.text((margin + (column + 0.5) * width, margin / 2), kind, fill="black", anchor="mm")
        for row, strength in enumerate(strengths):
            degraded = fb.data.degrade(clean, kind, strength=strength, generator=torch.Generator().manual_seed(3))
            cell = Image.fromarray(fb.image.tensor_to_array(degraded)).convert("RGB").resize((width - 2, height - 2))
            sheet.paste(cell, (margin + column * width, margin + row * height))
            draw.text((margin / 2, margin + (row + 0.5) * height), f"{strength:g}", fill="black", anchor="mm")
    sheet.save(file, quality=72, optimize=True)  # noise makes large files


def difficult() -> dict[str, tuple[Tensor, Tensor]]:
    """Return pairs that are hard to fuse, by what is hard about them."""
    night = fb.data.synthetic_scene(10, height=228, width=304)
    dusk = fb.data.synthetic_scene(14, height=228, width=304, time="dusk")
    smoke = fb.data.synthetic_scene(12, height=228, width=304, haze=0.9)
    # every person as warm as what surrounds them
    person = (night.mask == fb.data.CLASS_NAMES.index("person"))[None]
    as_warm = night.infrared.where(~person, night.infrared[~person].median())
    flat = fb.data.degrade(dusk.visible, "low_contrast", strength=0.9)
    glare = fb.data.degrade(dusk.visible, "over_exposure", strength=0.8)
    return {
        "night": (night.infrared, night.visible),
        "dusk": (dusk.infrared, dusk.visible),
        "haze": (smoke.infrared, smoke.visible),
        "glare": (dusk.infrared, glare),
        "flat light": (dusk.infrared, flat),
        "no one is warm": (as_warm, night.visible),
    }


def write_difficult(file: Path) -> None:
    """Write a contact sheet: a row a difficulty; infrared, visible, maximum, classical pyramid and our network."""
    from PIL import Image, ImageDraw

    height, width, margin = 228, 304, 20
    pairs = difficult()
    titles = ("infrared", "visible", "maximum", "laplacian", "fusionblocks")
    sheet = Image.new("RGB", (margin + width * len(titles), margin + height * len(pairs)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((margin + (column + 0.5) * width, margin / 2), title, fill="black", anchor="mm")
    for row, (name, (infrared, visible)) in enumerate(pairs.items()):
        brighter = torch.maximum(infrared, fb.image.luma(visible))
        cells = [
            infrared.expand(3, -1, -1),
            visible,
            fb.image.with_luma(brighter[None], visible[None])[0],
            fb.fuse(infrared, visible, model="laplacian"),
            fb.fuse(infrared, visible),
        ]
        for column, cell in enumerate(cells):
            picture = Image.fromarray(fb.image.tensor_to_array(cell)).resize((width - 2, height - 2))
            sheet.paste(picture, (margin + column * width, margin + row * height))
        label = Image.new("RGB", (height, margin), "white")
        ImageDraw.Draw(label).text((height / 2, margin / 2), name, fill="black", anchor="mm")
        sheet.paste(label.rotate(90, expand=True), (0, margin + row * height))
    sheet.save(file, quality=80, optimize=True)


if __name__ == "__main__":  # the pictures that are tracked
    images = Path(__file__).parent / "images"
    row = torch.cat(list(sample().values()), dim=2)
    fb.image.write_image(images / "demo.jpg", fb.image.tensor_to_array(row))
    write_degradations(images / "degradations.jpg")
    write_difficult(images / "difficult.jpg")

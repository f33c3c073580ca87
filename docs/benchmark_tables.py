"""The documentation's tables and plots of what was measured, from the tracked rows of ``benchmarks/results``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the benchmarks are

from benchmarks import character, plot, quality, report  # noqa: E402


def write_all(api: Path) -> None:
    """Write all tables and plots below ``docs/api``."""
    write_performance(api)
    write_dispatch(api)
    write_guidance(api)
    write_training(api)
    write_quality(api)


def write_performance(api: Path) -> None:
    """Write the benchmarks' newest rows as tables, and plots of them, from the tracked files."""
    for suite in report.SUITES:
        for place in report.PLACES:
            text = report.page(suite, place)
            rows = report.read(suite, place)
            if rows:
                name = f"{suite}_{place}.png"
                plot.draw(rows).savefig(api / name, dpi=150)
                text += f"\n![Times faster than the published formulation, each case](/api/{name})\n"
            (api / f"{suite}_{place}.md").write_text(text)


def write_dispatch(api: Path) -> None:
    """Write what a call of an operator costs before its kernel runs, as a table from the tracked file."""
    rows = report.newest("dispatch", ("operator", "mode"))
    lines = [
        [f"`{row['operator']}`", row["mode"], f"{row['us']} µs", f"{row['pytorch_us']} µs", f"**{row['added_us']} µs**"]
        for row in rows
    ]
    table = report.markdown(["operator", "mode", "a call", "PyTorch's attention", "difference"], lines)
    (api / "dispatch_table.md").write_text(f"{table}\n{report.machine(rows)}\n")


def write_guidance(api: Path) -> None:
    """Write what guides and the networks that they guide cost, as a table from the tracked file."""
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
    columns = [*quality.METRICS, quality.BURNT]
    rows = report.newest("quality", ("variant", "set"))
    tables = []
    for chosen in dict.fromkeys(row["set"] for row in rows):
        lines = [
            [row["variant"], *(f"{float(row[column]):.2f}" for column in columns)]
            for row in rows
            if row["set"] == chosen
        ]
        heads = [*quality.METRICS[:-1], "Nabf (lower is better)", "burnt, % (lower is better)"]
        tables.append(f"{chosen}\n\n{report.markdown(['method', *heads], lines)}")
    (api / "quality_table.md").write_text("\n".join(tables) or "There is no row yet.\n")
    rows = report.newest("character", ("variant", "set"))
    lines = [[row["variant"], *(row[column] for column in character.COLUMNS)] for row in rows]
    heads = ["method", "chroma", "noise", "targets", "half a pixel", "precision", "recall", "F1"]
    (api / "character_table.md").write_text(f"{report.markdown(heads, lines)}\n")
    rows = report.newest("end_to_end", ("variant", "set"))
    lines = [
        [row["set"], row["variant"], f"{row['p50_s']} s ({row['p20_s']} to {row['p80_s']})", row["times_fusionblocks"]]
        for row in rows
    ]
    heads = ["size", "method", "median (20 % to 80 %)", "times the default network's"]
    text = report.markdown(heads, lines) if rows else "There is no row yet.\n"
    (api / "end_to_end_table.md").write_text(f"{text}\n{report.machine(rows)}\n")
    rows = report.newest("quality_speed", ("variant", "set"))
    lines = [[row["variant"], f"{row['p50_s']} s ({row['p20_s']} to {row['p80_s']})", row["psnr_db"]] for row in rows]
    text = report.markdown(["480x640", "median (20 % to 80 %)", "PSNR in dB"], lines)
    (api / "quality_speed_table.md").write_text(f"{text}\n{report.machine(rows)}\n")

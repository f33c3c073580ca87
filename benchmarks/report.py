"""The tracked tables of ``benchmarks.run`` for readers: the newest row of everything, as Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import harness
from benchmarks.cases import COMPILED, HALVES, PUBLISHED

Row = Mapping[str, str]
Rows = Sequence[Row]

SUITES = ("ops", "networks")
PLACES = {"cpu": "CPU", "cuda": "GPU"}
CASE = ("name", "shapes", "precision", "passes")
IDENTITY = (*CASE, "implementation", "place", "device", "threads")
REFERENCE, OURS, SDPA = "reference", "fusionblocks", "sdpa"


def read(suite: str, place: str, folder: Path = harness.RESULTS) -> list[Row]:
    """Return the newest row of each implementation of each case on a type of device, none if there is no table."""
    rows = [row for row in newest(suite, IDENTITY, folder) if row["place"] == place]
    return sorted(rows, key=lambda row: row["name"]) if suite == "networks" else rows  # as measured, name by name


def newest(name: str, identity: Sequence[str], folder: Path = harness.RESULTS) -> list[Row]:
    """Return the newest rows of a table whose columns ``identity`` differ, none if there is no table."""
    file = folder / f"{name}.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list({tuple(row[key] for key in identity): row for row in csv.DictReader(stream)}.values())


def machine(rows: Rows) -> str:
    """Return the machine of the last row in a sentence, with the numbers of threads of all."""
    if not rows:
        return "There is no row yet."
    threads = " or ".join(sorted({row["threads"] for row in rows}))
    return f"Measured on {rows[-1]['device']}, {threads} thread{'s' * (threads != '1')}."


def cases(rows: Rows) -> list[dict[str, Row]]:
    """Return the rows of each case, by implementation."""
    grouped: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(tuple(row[key] for key in (*CASE, "device", "threads")), {})[row["implementation"]] = row
    return list(grouped.values())


def page(suite: str, place: str, folder: Path = harness.RESULTS) -> str:
    """Return a table and what it was measured on, or that there is none."""
    rows = read(suite, place, folder)
    if not rows:
        return f"There is no {PLACES[place]} row yet.\n"
    table = ops_table(rows) if suite == "ops" else networks_table(rows)
    return f"{table}\n{measured_on(rows)}\n"


def ops_table(rows: Rows) -> str:
    """Return one line a case: the published formulation, as it is and compiled, PyTorch's own attention, and ours."""
    header = [
        "operator",
        "sizes",
        "precision",
        "published",
        "compiled",
        "SDPA",
        "fusionblocks",
        "faster",
        "peak memory",
        "of floor",
    ]
    lines = []
    for case in cases(rows):
        published, ours = case[PUBLISHED], case[OURS]
        lines.append(
            [
                f"`{ours['name']}`" + (" with backward" if "backward" in ours["passes"] else ""),
                ours["shapes"].replace(" ", ", "),
                ours["precision"],
                f"{milliseconds(published)} ms",
                *(f"{milliseconds(case[name])} ms" if name in case else "" for name in (PUBLISHED + COMPILED, SDPA)),
                f"**{milliseconds(ours)} ms** ({ours['backend']})",
                times(ours),
                f"{published['peak_mib']} → {ours['peak_mib']} MiB",
                f"{100 * float(ours['floor_share']):.0f} %",
            ]
        )
    return markdown(header, lines)


def networks_table(rows: Rows) -> str:
    """Return one line an implementation."""
    header = ["network", "picture", "precision", "implementation", "time", "faster", "peak memory", "PSNR"]
    lines = [
        [
            f"`{row['name']}`",
            row["shapes"],
            row["precision"] if row["implementation"] != PUBLISHED or row["place"] != "cpu" else "float32",
            row["implementation"],
            f"{milliseconds(row)} ms ({digits(row['p20_ms'])} to {digits(row['p80_ms'])})",
            times(row),
            f"{float(row['peak_mib']):.0f} MiB",
            f"{row['psnr_db']} dB"
            if row["precision"] in HALVES and (row["place"] == "cuda" or row["implementation"] != PUBLISHED)
            else "",
        ]
        for row in rows
    ]
    return markdown(header, lines)


def measured_on(rows: Rows) -> str:
    """Return the machines, versions and commits of some rows in a sentence."""
    places = dict.fromkeys(
        (row["device"] + (f", {row['threads']} threads" if row["place"] == "cpu" else ""), row["versions"])
        for row in rows
    )
    first, *_, last = (f"`{row['commit']}`" for row in (*rows, rows[-1]))
    commits = first if first == last else f"{first} to {last}"
    machines = "; ".join(f"{device} ({versions})" for device, versions in places)
    return f"Measured on {machines}, at {commits} (+: with changes that were not committed yet)."


def times(row: Row) -> str:
    """Return how many times faster a row is: by the clock, and by the time that the cores worked."""
    by_cores = f" ({row['times_less_cpu']}×)" if row["times_less_cpu"] else ""
    return f"{row['times_faster']}×{by_cores}"


def milliseconds(row: Row) -> str:
    return digits(row["p50_ms"])


def digits(value: str) -> str:
    """Return three digits, no more, and no exponent."""
    number = float(value)
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    table = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"

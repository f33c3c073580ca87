"""What the pages say about metrics is what the tables of the package say."""

from __future__ import annotations

import re
from pathlib import Path

from fusionblocks.metrics import CONVENTIONS, METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()


def test_every_metric_is_in_the_readme() -> None:
    (line,) = re.findall(r"^(EN SD .*?):", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line.split() == list(METRICS)


def test_the_page_explains_every_convention_and_each_disagreement() -> None:
    section = PAGE.partition("## Which number is which")[2].partition("\n## ")[0]
    assert re.findall(r"^`(\w+)`\n:", section, re.MULTILINE) == list(CONVENTIONS)
    explained = {row.split(" | ")[0].strip("| "): row for row in re.findall(r"^\| \w+ \|.*$", section, re.MULTILINE)}
    for convention in CONVENTIONS.values():
        for metric in convention.options:
            assert f"`{convention.name}`" in explained[metric], f"{convention.name} has its own {metric}, unexplained"
    disagreeing = {metric for convention in CONVENTIONS.values() for metric in convention.options}
    assert set(explained) - {"metric"} == disagreeing

"""What the page says about losses runs, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from fusionblocks.losses import PRESETS, TERMS

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()


def test_the_code_of_the_page_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), "losses.md", "exec"), {})


def test_the_page_speaks_of_what_there_is() -> None:
    (section,) = re.findall(r"^\| preset \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row.split(" | ") for row in section.splitlines()]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} <= PRESETS.keys()
    for term in re.findall(r"the term `(\w+)`", PAGE):
        assert term in TERMS


def test_the_alternatives_of_the_page_are_options() -> None:
    alternatives = re.findall(r'options=\{"(\w+)": \{"(\w+)": ', PAGE)
    assert len(alternatives) == 3
    assert all(option in TERMS[term].options for term, option in alternatives)

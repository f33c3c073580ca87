"""The README's code runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fusionblocks as fb

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what it writes
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


def test_every_network_and_block_is_listed() -> None:
    for name in [*fb.list_models(), *fb.blocks.__all__]:
        assert f"`{name}`" in README, f"README does not mention {name}"


def test_every_path_exists() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), f"README links to {target}, which does not exist"

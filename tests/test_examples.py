"""The examples and the composed network of the documentation run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

from fusionblocks.image import read_image

ROOT = Path(__file__).parents[1]


def test_the_composed_network_of_the_documentation_runs() -> None:
    page = ROOT / "docs" / "index.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "class TinyFusion" in block]
    names: dict[str, object] = {}
    exec(compile(code, str(page), "exec"), names)
    torch.manual_seed(0)
    fused = names["TinyFusion"]()(torch.rand(1, 1, 33, 50), torch.rand(1, 1, 33, 50))
    assert fused.shape == (1, 1, 33, 50)
    assert torch.isfinite(fused).all()


def test_compose_network_learns_and_fuses(tmp_path: Path) -> None:
    output = tmp_path / "out" / "fused.png"
    script = ROOT / "examples" / "compose_network.py"
    command = [sys.executable, str(script), "--steps", "8", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    first, last = (float(value) for value in re.findall(r"loss ([\d.]+)", finished.stdout))
    assert last < first
    assert read_image(output).shape == (120, 160, 3)


def test_every_example_is_listed() -> None:
    listing = (ROOT / "examples" / "README.md").read_text()
    scripts = [path.name for path in (ROOT / "examples").glob("*.py")]
    assert scripts
    assert all(f"`{script}`" in listing for script in scripts)


def test_sgafusion_learns_with_its_guide_and_shows_its_experts(tmp_path: Path) -> None:
    output = tmp_path / "out" / "experts.jpg"
    script = ROOT / "examples" / "sgafusion_experts.py"
    command = [sys.executable, str(script), "--steps", "12", "--guide-steps", "3", "--scenes", "10"]
    finished = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    first, last = (float(value) for value in re.search(r"loss ([\d.]+) to ([\d.]+)", finished.stdout).groups())
    assert last < first
    assert re.search(r"low_light: dehaze \d+%, low light \d+%, base \d+%", finished.stdout)
    assert read_image(output).shape == (3 * 144, 4 * 192, 3)


def test_swap_blocks_trains_and_scores_each_network(tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = ROOT / "examples" / "swap_blocks.py"
    command = [sys.executable, str(script), "--steps", "2", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    rows = [line.split(" | ") for line in (output / "scores.md").read_text().splitlines()[2:]]
    assert [row[0] for row in rows] == ["| SDFM", "| AdaptiveFusion", "| PSFM", "| MeanMerge"]
    assert len({row[1] for row in rows}) == 4, "parameters differ"
    assert read_image(output / "sheet.png").shape == (6 * 120, 4 * 160, 3)


def test_compose_and_train_shows_a_pair_before_and_after(tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = ROOT / "examples" / "compose_and_train.py"
    command = [sys.executable, str(script), "--steps", "6", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    found = re.search(r"loss ([\d.]+) at the first step, ([\d.]+) at", finished.stdout)
    first, last = (float(value) for value in found.groups())
    assert last < first
    assert read_image(output / "before_and_after.png").shape == (240, 4 * 320, 3)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

import fusionblocks as fb
from tests.helpers.command import run


def test_models_lists_every_network() -> None:
    code, output = run("models")
    assert code == 0
    for name in fb.list_models():
        assert name in output


def test_env_names_versions_devices_and_backends() -> None:
    code, output = run("env")
    assert code == 0
    for word in (fb.__version__, "torch", "cuda", "cross_attention"):
        assert word in output


def test_demo_writes_the_pictures_and_says_where(tmp_path: Path) -> None:
    code, output = run("demo", "--output", tmp_path / "demo")
    assert code == 0
    assert "fused.png" in output
    sizes = {file.stem: Image.open(file).size for file in (tmp_path / "demo").iterdir()}
    assert sizes["fused"] == sizes["visible"] == sizes["infrared"]
    assert sizes["side_by_side"][0] == 3 * sizes["fused"][0]


def test_the_version() -> None:
    code, output = run("--version")
    assert code == 0
    assert output.strip() == f"fusionblocks {fb.__version__}"


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "fusionblocks", "--version"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == f"fusionblocks {fb.__version__}"

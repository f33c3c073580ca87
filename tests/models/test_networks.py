"""A row and a folder a network: everything else is made from them, or held against them here."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import fusionblocks as fb
from fusionblocks.models.networks import NETWORKS
from tests.helpers.networks import NARROW

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "fusionblocks" / "models"


def test_each_folder_has_a_row() -> None:
    assert sorted(NETWORKS) == sorted(path.parent.name for path in FOLDER.glob("*/network.py")) == fb.list_models()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_where_its_row_says(name: str) -> None:
    row = NETWORKS[name]
    for public, file in row.files.items():
        module = importlib.import_module(f"fusionblocks.models.{name}.{file}")
        assert getattr(fb.models, public) is getattr(module, public)
        if not (FOLDER / name / f"{public}.py").exists():  # a file is called like a function
            assert getattr(importlib.import_module(f"fusionblocks.models.{name}"), public) is getattr(module, public)
        assert (public in fb.__all__) == (public in (row.cls, *row.top))
    network = getattr(fb, row.cls)
    assert network.name == name
    assert network.paper
    assert network.license_note
    assert {file.name for file in (FOLDER / name).glob("*.safetensors")} == set(network.packaged)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_tested_and_told(name: str) -> None:
    test = f"test_{name}.py" if name != "fusionblocks" else "test_fusionblocks_net.py"
    assert (ROOT / "tests" / "models" / test).exists()
    assert name in NARROW or name == "sgdfuse"
    assert f"| `{name}` | `{NETWORKS[name].cls}` |" in (ROOT / "README.md").read_text()


def test_a_network_with_extras_tells_them() -> None:
    """Every extra of the contract lies in some network's own output, documented there."""
    outputs = [getattr(fb.models, name) for name in fb.models.__all__ if re.fullmatch(r"\w+Output", name)]
    own = {cls: cls.__dataclass_fields__.keys() - {"fused"} for cls in outputs if issubclass(cls, fb.FusionOutput)}
    assert own.pop(fb.FusionOutput) == set()
    assert set().union(*own.values()) == set(fb.models.base.EXTRAS)
    for cls, names in own.items():
        assert all(f"{name}: " in cls.__doc__ for name in names)


def test_who_speaks_of_a_network() -> None:
    """Outside its folder the code of the package names a network in these files alone."""
    found: dict[str, set[str]] = {}
    classes = {row.cls: name for name, row in NETWORKS.items() if row.cls not in ("Laplacian", "FusionBlocksNet")}
    for path in sorted((ROOT / "fusionblocks").rglob("*.py")):
        tree = ast.parse(path.read_text())
        parts = path.relative_to(ROOT / "fusionblocks")
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        for name in names & classes.keys():
            if parts.parts[:2] != ("models", classes[name]):
                found.setdefault(str(parts), set()).add(name)
    assert found == {
        "optimization/psfusion.py": {"PSFusion"},
        "optimization/sgafusion.py": {"SGAFusion"},
    }

"""The recipes of CONTRIBUTING.md, each tried by a toy in a copy of the package, in the files that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACEHOLDERS = {"toy": r"<(?:stem|name)>"}
"""A toy's name, and how recipes write it."""


@dataclass(frozen=True)
class Recipe:
    """A toy: the files that are new, the lines that are put behind others, and code that uses it."""

    title: str
    use: str
    new: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    @property
    def touched(self) -> list[str]:
        return sorted({*self.new, *self.rows, *self.copies})


BLOCK = '''
"""A toy block."""

from torch import Tensor, nn

from fusionblocks.blocks.reaching import in_a_row


class Toy(nn.Module):
    """A convolution beside its input."""

    kind = "map"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def reach(self) -> int | None:
        return in_a_row(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)
'''

NETWORK = '''
"""A toy network."""

import dataclasses

from torch import Tensor

from fusionblocks.models.base import FusionModel, FusionOutput, fusion_output


@dataclasses.dataclass(frozen=True)
class ToyNetConfig:
    weight: float = 0.5


@fusion_output
class ToyNetOutput(FusionOutput):
    brighter: Tensor | None = None


class ToyNet(FusionModel):
    name, config_class = "toy", ToyNetConfig
    paper, license_note = "none", "MIT"

    def forward(self, infrared: Tensor, visible: Tensor) -> ToyNetOutput:
        gray = visible.mean(1, keepdim=True)
        return ToyNetOutput(fused=gray.lerp(infrared, self.config.weight), brighter=gray.maximum(infrared))
'''

METRIC = '''
"""A toy metric."""

from torch import Tensor

from fusionblocks.metrics._inputs import gray_levels


def toy_brightness(fused: Tensor, infrared: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
    """Return the mean gray level."""
    f, _, _ = gray_levels(fused, infrared, visible, optional=True)
    return f.mean((1, 2, 3))
'''

LOSS = '''
"""A toy loss."""

from torch import Tensor

from fusionblocks.losses._modules import as_module


def toy_loss(fused: Tensor, *, gain: float = 1.0) -> Tensor:
    """Return the mean.

    Args:
        fused: A picture.
        gain: A factor.
    """
    return gain * fused.mean()


ToyLoss = as_module("ToyLoss", toy_loss)
'''

REWRITE = '''
"""A toy rewrite: an identity that says so."""

from torch import Tensor, nn

from fusionblocks.optimization.rewriting import Rewrite, rewrites


@rewrites(nn.Softsign)
class FastSoftsign(Rewrite, nn.Softsign):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs())
'''

RECIPES = [
    Recipe(
        "Add a block",
        """
            assert "Toy" in fb.list_blocks("map")
            block = fb.create_block("Toy", 8, 12)
            assert block(torch.rand(1, 8, 5, 7)).shape == (1, 12, 5, 7)
            assert fb.blocks.reach(fb.Toy(8)) == 1
            """,
        new={"fusionblocks/blocks/toy.py": BLOCK},
        rows={"fusionblocks/blocks/__init__.py": [("_MODULES = {", '    "Toy": ".toy",')]},
    ),
    Recipe(
        "Add an operator",
        """
            q, k, v = torch.rand(3, 1, 2, 5, 8)
            assert torch.equal(fb.ops.toy(q, k, v), fb.ops.token_attention(q, k, v))
            assert fb.ops.explain("toy", q, k, v)
            """,
        copies={
            f"fusionblocks/ops/toy/{part}.py": f"fusionblocks/ops/token_attention/{part}.py"
            for part in ("__init__", "reference", "kernels", "binding")
        },
        rows={
            "fusionblocks/ops/__init__.py": [
                ("__all__ = [", '    "toy",'),
                ("from fusionblocks.ops.token_attention import", "from fusionblocks.ops.toy import toy"),
            ]
        },
    ),
    Recipe(
        "Add a network",
        """
            assert "toy" in fb.list_models()
            model = fb.create_model("toy", weight=1)
            pair = torch.rand(1, 1, 9, 7), torch.rand(1, 3, 9, 7)
            output = torch.export.export(model, pair).module()(*pair)
            assert torch.equal(output.fused, pair[0]) and output.brighter is not None and output.features is None
            assert isinstance(model, fb.ToyNet) and fb.models.ToyNetConfig().weight == 0.5
            assert fb.fuse(*pair, model=fb.optimize(model, outputs=("fused", "brighter"))).shape == (1, 3, 9, 7)
            folder = tempfile.mkdtemp()
            model.save_pretrained(folder)
            assert fb.load_model(folder).config.weight == 1
            assert "toy" in subprocess.run([sys.executable, "-m", "fusionblocks", "models"], capture_output=True,
                                           text=True, check=True).stdout
            """,
        new={
            "fusionblocks/models/toy/network.py": NETWORK,
            "fusionblocks/models/toy/__init__.py": (
                '"""A toy."""\n\nfrom fusionblocks.models.networks import lazily\n\n'
                '__getattr__, __dir__ = lazily("toy", __name__)\n'
            ),
        },
        rows={
            "fusionblocks/models/networks.py": [
                ("NETWORKS = {", '    "toy": Row("ToyNet", {"ToyNetConfig": "network", "ToyNetOutput": "network"}),')
            ]
        },
    ),
    Recipe(
        "Add a metric",
        """
            white = torch.ones(2, 1, 8, 8)
            assert fb.metrics.evaluate(white, white, white, metrics=("Toy",))["Toy"].tolist() == [255, 255]
            assert fb.metrics.toy_brightness(white).tolist() == [255, 255]
            """,
        new={"fusionblocks/metrics/toy.py": METRIC},
        rows={
            "fusionblocks/metrics/__init__.py": [("_MODULES = {", '    "toy_brightness": ".toy",')],
            "fusionblocks/metrics/conventions.py": [
                ("from fusionblocks.metrics.edges import", None),
                ("_TABLE = (", '    Metric("Toy", toy_brightness, 1, (0.0, 255.0), "how bright it is"),'),
            ],
        },
    ),
    Recipe(
        "Add a loss",
        """
            white = torch.ones(1, 1, 8, 8)
            assert fb.losses.FusionLoss({"toy": 2.0}, options={"toy": {"gain": 3.0}})(fused=white).total == 6
            assert fb.losses.ToyLoss(gain=0.5)(white) == 0.5
            """,
        new={"fusionblocks/losses/toy.py": LOSS},
        rows={
            "fusionblocks/losses/__init__.py": [
                ("_MODULES = {", '    "ToyLoss": ".toy",\n    "toy_loss": ".toy",')
            ],
            "fusionblocks/losses/terms.py": [
                ("from torch import Tensor\n", "from fusionblocks.losses.toy import toy_loss"),
                ("TERMS: dict[str, Term] = {", '    "toy": term(toy_loss),'),
            ],
        },
    ),
    Recipe(
        "Add a dataset layout",
        """
            folder = Path(tempfile.mkdtemp())
            for name in ("hot", "bright"):
                (folder / name).mkdir()
                fb.image.write_image(folder / name / "1.png", np.zeros((8, 9, 3), np.uint8))
            (item,) = fb.data.open_dataset(folder, layout="toy")
            assert item["visible"].shape == (3, 8, 9)
            """,
        rows={
            "fusionblocks/data/layouts.py": [
                ("    for layout in (", '        Layout("toy", folders=(("hot", "bright"),)),'),
            ]
        },
    ),
    Recipe(
        "Add a rewrite",
        """
            model = torch.nn.Sequential(torch.nn.Softsign())
            fast = fb.optimize(model)
            assert type(fast[0]).__name__ == "FastSoftsign"
            x = torch.randn(1, 2, 3, 3)
            assert torch.equal(fast(x), model(x))
            """,
        new={"fusionblocks/optimization/toy.py": REWRITE},
        rows={
            "fusionblocks/optimization/__init__.py": [
                ("from fusionblocks.optimization import (  # noqa: F401  (each declares fast classes)", "    toy,")
            ]
        },
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all toys in it."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fusionblocks", root / "fusionblocks", ignore=ignored)
    for recipe in RECIPES:
        for name, source in recipe.copies.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(re.sub("(?<!folded_)token_attention", "toy", (ROOT / source).read_text()))
        for name, text in recipe.new.items():
            assert not (root / name).exists(), name
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for name, rows in recipe.rows.items():
            for anchor, row in rows:
                add_row(root / name, anchor, row)
    return root


def add_row(file: Path, anchor: str, row: str | None) -> None:
    """Put a line behind another one; None puts the toy metric's import before it."""
    lines = file.read_text().split("\n")
    (place,) = [i for i, line in enumerate(lines) if line.startswith(anchor.rstrip("\n"))][:1]
    if row is None:
        lines.insert(place, "from fusionblocks.metrics.toy import toy_brightness")
    else:
        lines.insert(place + 1, row)
    file.write_text("\n".join(lines))


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (found,) = re.findall(rf"^### {title}\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_names_every_file_and_is_short(recipe: Recipe) -> None:
    text = section(recipe.title)
    for file in recipe.touched:
        pattern = re.escape(file).replace("/toy", f"/{PLACEHOLDERS['toy']}")
        assert re.search(f"`{pattern}`", text), f"{recipe.title} does not say {file}"
    assert len(text.strip().split("\n")) <= 12


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_works(recipe: Recipe, package: Path) -> None:
    heads = "import subprocess, sys, tempfile\nfrom pathlib import Path\nimport numpy as np\nimport torch\n"
    heads += "import fusionblocks as fb\n"
    body = textwrap.dedent(recipe.use)
    where = f"assert fb.__file__.startswith({str(package)!r}), fb.__file__\n"
    finished = subprocess.run(
        [sys.executable, "-c", heads + where + body],
        capture_output=True, text=True, check=False, cwd=package, env={**os.environ, "PYTHONPATH": str(package)},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr


def test_a_network_touches_three_files_of_the_package() -> None:
    (recipe,) = [recipe for recipe in RECIPES if recipe.title == "Add a network"]
    assert len(recipe.touched) == 3

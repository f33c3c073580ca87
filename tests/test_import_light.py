"""``import fusionblocks`` costs little more than torch and loads no heavy package."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "triton",
    "timm",
    "open_clip",
    "diffusers",
    "segment_anything",
    "torchvision",
    "matplotlib",
    "pandas",
    "torchmetrics",
)
ROUNDS = 6
LIMIT = 1.3


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip().splitlines()[-1]


def loaded(statement: str) -> set[str]:
    return set(run(f"{statement}\nimport sys\nprint(*sorted(sys.modules))").split())


def seconds(statement: str) -> float:
    return float(run(f"import time\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"))


@pytest.fixture(scope="module")
def by_torch() -> set[str]:
    return loaded("import torch")


@pytest.mark.parametrize(
    "statement",
    [
        "import fusionblocks",
        "import fusionblocks; dir(fusionblocks); fusionblocks.__all__",
        "import fusionblocks.ops, fusionblocks.blocks, fusionblocks.models, fusionblocks.image, fusionblocks.data",
        "from fusionblocks.metrics import Comparison, FusionEvaluator, evaluate",
        "from fusionblocks import list_models; list_models()",
        "from fusionblocks.guidance import CLIPDegradationClassifier, add_lora",
        "from fusionblocks.guidance import SAMMasks, masks_to_map",
    ],
)
def test_no_heavy_package_is_loaded(statement: str, by_torch: set[str]) -> None:
    modules = loaded(statement) - by_torch
    found = sorted({module.partition(".")[0] for module in modules} & set(HEAVY))
    assert not found, f"{statement!r} loads {', '.join(found)}"


@pytest.mark.parametrize(
    "statement", ["from fusionblocks import PSFM, SDFM", "from fusionblocks import ops; ops.backend"]
)
def test_blocks_and_operators_leave_networks_and_guidance_alone(statement: str) -> None:
    found = sorted(
        {name.partition(".")[0] for name in loaded(statement)} & {"open_clip", "diffusers", "segment_anything"}
    )
    assert not found, f"{statement!r} loads {', '.join(found)}"


def test_import_costs_little_more_than_torch() -> None:
    # the minimum over interleaved runs: a busy machine only ever adds time
    ours, torchs = [], []
    for _ in range(ROUNDS):
        torchs.append(seconds("import torch"))
        ours.append(seconds("import fusionblocks"))
        if min(ours) < LIMIT * min(torchs):
            break
    assert min(ours) < LIMIT * min(torchs), f"import fusionblocks {min(ours):.2f} s, import torch {min(torchs):.2f} s"

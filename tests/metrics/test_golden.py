"""Every number the published evaluators give for three sets of pictures, to 1e-6."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionblocks.metrics import evaluate
from tests.helpers.golden import GOLDEN

VALUES = json.loads((GOLDEN / "metrics.json").read_text())["values"]

# what evaluate calls the published name, and under which convention it has that value
NAMES = {
    **{
        name: (name, "cddfuse")
        for name in ["EN", "SD", "SF", "AG", "MI", "MSE", "CC", "PSNR", "SCD", "VIF", "Qabf", "SSIM", "Nabf", "MS_SSIM"]
    },
    "SSIM255": ("SSIM", "smfnet"),
    "AG1": ("AG", "smfnet"),
}


def pictures(index: str) -> tuple[Tensor, Tensor, Tensor]:
    with np.load(GOLDEN / "metrics_images.npz") as arrays:
        return tuple(torch.from_numpy(arrays[f"{name}{index}"])[None, None] for name in ("fused", "ir", "vi"))


def test_every_published_value_is_checked() -> None:
    assert {name for values in VALUES.values() for name in values} == set(NAMES)


@pytest.mark.parametrize("as_float", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("index", VALUES)
@pytest.mark.parametrize("convention", ["cddfuse", "smfnet"])
def test_evaluate_gives_the_published_values(index: str, convention: str, as_float: bool) -> None:
    given = pictures(index)
    if as_float:
        given = tuple(picture.float() / 255 for picture in given)
    names = {published: name for published, (name, its) in NAMES.items() if its == convention}

    scores = evaluate(*given, metrics=tuple(names.values()), convention=convention)

    for published, name in names.items():
        assert scores[name].item() == pytest.approx(VALUES[index][published], rel=1e-6, abs=0), published


@pytest.mark.parametrize("index", VALUES)
def test_cddfuse_and_smfnet_agree_on_all_but_two(index: str) -> None:
    # its evaluator defines the others as CDDFuse's does
    common = [name for name, (_, convention) in NAMES.items() if convention == "cddfuse" and name not in ("AG", "SSIM")]
    scores = evaluate(*pictures(index), metrics=common, convention="smfnet")
    for name in common:
        assert scores[name].item() == pytest.approx(VALUES[index][name], rel=1e-6, abs=0)

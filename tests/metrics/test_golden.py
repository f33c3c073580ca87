"""Every number the published evaluators give for three sets of pictures, to 1e-6."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionblocks.metrics import evaluate, standard_deviation, visual_information_fidelity
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


# --- PSFusion's evaluator --------------------------------------------------------------------------------------------

PSFUSION = json.loads((GOLDEN / "psfusion_evaluator.json").read_text())["values"]


@pytest.mark.parametrize("as_float", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("index", range(len(PSFUSION)))
def test_psfusion_gives_the_values_of_its_authors_evaluator(index: int, as_float: bool) -> None:
    given = pictures(str(index))
    if as_float:
        given = tuple(picture.float() / 255 for picture in given)
    expected = PSFUSION[index]
    scores = evaluate(*given, metrics=[name for name in expected if "plain" not in name], convention="psfusion")
    for name, score in scores.items():
        assert score.item() == pytest.approx(expected[name], rel=1e-6 if name == "VIF" else 1e-9, abs=0), name
    assert standard_deviation(given[0]).item() == pytest.approx(expected["SDplain"], rel=1e-9)
    assert visual_information_fidelity(*given).item() == pytest.approx(expected["VIFplain"], rel=1e-6)


def test_psfusion_gives_values_of_its_published_table() -> None:
    # of one picture by hand: half black, half 100, whose mean is 50
    picture = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    picture[..., 2:] = 100
    # above the mean are eight pixels by 50, whose square stops at 255
    assert standard_deviation(picture, variant="psfusion").item() == pytest.approx((255 / 2) ** 0.5)
    assert standard_deviation(picture).item() == 50


# --- VIFB's evaluator, of gray and of colour pictures -----------------------------------------------------------------

VIFB = json.loads((GOLDEN / "vifb_evaluator.json").read_text())["values"]


def coloured(picture: Tensor) -> Tensor:
    return torch.cat([picture, picture.roll(5, 3), 255 - picture.roll(9, 2)], dim=1)


@pytest.mark.parametrize("index", range(2))
@pytest.mark.parametrize("kind", VIFB)
def test_vifb_gives_the_values_of_its_evaluator(kind: str, index: int) -> None:
    fused, infrared, visible = pictures(str(index))
    if kind == "colour":
        fused, visible = coloured(fused), coloured(visible)
    expected = VIFB[kind][index]
    scores = evaluate(fused, infrared, visible, metrics=tuple(expected), convention="vifb")
    for name, score in scores.items():
        assert score.item() == pytest.approx(expected[name], rel=1e-4), name


def test_other_conventions_take_the_luma_of_colour() -> None:
    fused, infrared, visible = pictures("0")
    given = coloured(fused), infrared.expand(-1, 3, -1, -1), coloured(visible)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    lumas = [(weights * x).sum(1, keepdim=True).round().to(torch.uint8) for x in (given[0], given[2])]
    names = ("SD", "MI", "VIF", "Qabf")
    expected = evaluate(lumas[0], infrared, lumas[1], names)
    for convention in ("cddfuse", "psfusion"):
        found = evaluate(*given, names, convention)
        assert all(torch.isfinite(value).all() for value in found.values())
    for name, value in evaluate(*given, names).items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4)  # a level between two
    as_float = evaluate(*(x.float() / 255 for x in given), names)
    assert as_float["SD"].item() == pytest.approx(expected["SD"].item(), rel=1e-3)
    # a gray result beside a colour picture
    assert (
        evaluate(fused, infrared, coloured(visible), names, "vifb")["SD"]
        == evaluate(fused, infrared, visible, names, "vifb")["SD"]
    )

"""Every number the published losses give, to 1e-5."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from fusionblocks.losses import (
    FusionLoss,
    axis_gradient_loss,
    color_loss,
    correlation_ratio_loss,
    feature_correlation,
    gradient_loss,
    gram_loss,
    intensity_max_loss,
    joint_gradient_loss,
    l1_loss,
    masked_patch_mse_loss,
    ohem_cross_entropy_loss,
    second_gradient_loss,
    spatial_gradient_loss,
    ssim_loss,
)
from tests.helpers.golden import GOLDEN, rule_input

CASES = json.loads((GOLDEN / "losses.json").read_text())


def built(case: str) -> dict[str, Tensor]:
    """Return a case's inputs, built by the rules that the file states."""
    inputs = {}
    for name, (seed, shape, *rule) in CASES[case]["inputs"].items():
        x = rule_input(seed, tuple(shape))
        match "".join(rule):
            case "":
                pass
            case "channel 0 only" | "channel 0":
                x = x[:, :1]
            case "minus 0.5":
                x = x - 0.5
            case "> 0.7":
                x = (x > 0.7).float()
            case "(x - 0.5) * 8":
                x = (x - 0.5) * 8
            case "floor(9x), first 4 rows 255":
                x = (9 * x).floor().long()
                x[:, :4] = 255
            case unknown:
                raise AssertionError(f"no rule {unknown!r}")
        inputs[name] = x
    return inputs


def sga_fusion_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> dict[str, Tensor]:
    loss = FusionLoss.preset("sgafusion_fine_tuning")
    return {
        "total": loss(fused=fused, infrared=infrared, visible=visible).total,
        "intensity_max": intensity_max_loss(fused, infrared, visible),
        "color": color_loss(fused, visible),
        "texture": axis_gradient_loss(fused, infrared, visible, border="replicate"),
        "ssim_visible_window48": ssim_loss(fused, visible, window_size=48),
    }


def smf_fusion_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> dict[str, Tensor]:
    loss = FusionLoss.preset("smfnet", weights={"decomposition": None})
    return {
        "total": loss(fused=fused, infrared=infrared, visible=visible).total,
        "intensity": intensity_max_loss(fused, infrared, visible),
        "gradient": joint_gradient_loss(fused, infrared, visible),
    }


def smf_terms(feature_a: Tensor, feature_b: Tensor, image: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    return {
        "correlation": feature_correlation(feature_a, feature_b),
        "gram_mse": gram_loss(reconstruction, image),
        "stage1_gradient": gradient_loss(reconstruction, image),
        "ssim11": ssim_loss(reconstruction, image, padding="reflect") / 2,
        "kornia_gradient": spatial_gradient_loss(reconstruction, image),
    }


def psf_fusion_loss(fused: Tensor, infrared: Tensor, visible: Tensor, mask: Tensor) -> dict[str, Tensor]:
    loss = FusionLoss({"correlation_ratio": 1, "axis_gradient": 10, "masked_patch_mse": 10})
    return {
        "total": loss(fused=fused, infrared=infrared, visible=visible, mask=mask).total,
        "intensity": masked_patch_mse_loss(fused, infrared, visible, mask),
        "gradient": axis_gradient_loss(fused, infrared, visible),
        "correlation": correlation_ratio_loss(fused, infrared, visible),
    }


def psf_reconstruction_loss(reconstruction: Tensor, reference: Tensor) -> dict[str, Tensor]:
    loss = FusionLoss({"visible_l1": 5, "visible_second_gradient": 5})
    return {
        "total": loss(visible_reconstruction=reconstruction, visible=reference).total,
        "intensity": l1_loss(reconstruction, reference),
        "gradient": second_gradient_loss(reconstruction, reference),
    }


def psf_ohem(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"loss": ohem_cross_entropy_loss(logits, labels, threshold=0.75, n_min=600)}


COMPUTED = {
    function.__name__: function
    for function in (
        sga_fusion_loss,
        smf_fusion_loss,
        smf_terms,
        psf_fusion_loss,
        psf_reconstruction_loss,
        psf_ohem,
    )
}


def test_every_published_case_is_checked() -> None:
    assert CASES.keys() == COMPUTED.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_published_values(case: str, dtype: torch.dtype) -> None:
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in built(case).items()}
    computed = COMPUTED[case](**inputs)
    expected = CASES[case]["values"]
    assert computed.keys() == expected.keys()
    for name, value in computed.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-5, abs=0), name

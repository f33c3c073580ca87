from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fusionblocks.image import check_pair, check_picture, check_values


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (np.zeros((1, 3, 4, 4)), TypeError, "visible must be a tensor of shape (B, 1 or 3, H, W), got ndarray"),
        (torch.zeros(3, 4, 4), ValueError, "visible must have shape (B, 1 or 3, H, W), got (3, 4, 4)"),
        (torch.zeros(1, 4, 4, 3), ValueError, "visible must have shape (B, 1 or 3, H, W), got (1, 4, 4, 3)"),
        (torch.zeros(0, 3, 4, 4), ValueError, "with at least one picture and one pixel, got (0, 3, 4, 4)"),
        (torch.zeros(1, 3, 4, 0), ValueError, "with at least one picture and one pixel, got (1, 3, 4, 0)"),
        (
            torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
            TypeError,
            "visible must be of a floating-point dtype, got torch.uint8",
        ),
    ],
)
def test_check_picture_names_what_came(picture: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        check_picture("visible", picture, channels=(1, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_check_picture_accepts_every_float_dtype(dtype: torch.dtype) -> None:
    check_picture("infrared", torch.zeros(2, 1, 1, 1, dtype=dtype), channels=1)


def test_check_pair() -> None:
    infrared = torch.zeros(2, 1, 37, 50)
    check_pair(infrared, torch.zeros(2, 3, 37, 50))
    check_pair(infrared, torch.zeros(2, 1, 37, 50), visible_channels=(1, 3))
    size = re.escape("infrared and visible must have the same size, got 37x50 and 37x47 (height x width)")
    with pytest.raises(ValueError, match=size):
        check_pair(infrared, torch.zeros(2, 3, 37, 47))
    with pytest.raises(ValueError, match="same batch size, got 2 and 1"):
        check_pair(infrared, torch.zeros(1, 3, 37, 50))
    with pytest.raises(ValueError, match=re.escape("visible must have shape (B, 3, H, W), got (2, 1, 37, 50)")):
        check_pair(infrared, torch.zeros(2, 1, 37, 50))
    with pytest.raises(ValueError, match=re.escape("infrared must have shape (B, 1, H, W), got (2, 3, 37, 50)")):
        check_pair(torch.zeros(2, 3, 37, 50), infrared, visible_channels=1)


def test_check_values() -> None:
    check_values("fused", torch.tensor([-5e-5, 0.5, 1 + 5e-5]))
    check_values("fused", torch.zeros(0, 3, 4, 4))
    check_values("fused", torch.ones(4, dtype=torch.bfloat16, requires_grad=True))
    with pytest.raises(ValueError, match=re.escape("fused must have finite values, got 2 NaN and 1 infinite of 4")):
        check_values("fused", torch.tensor([float("nan"), float("inf"), 0.5, float("nan")]))
    with pytest.raises(ValueError, match=re.escape("fused must have values in [0, 1], got values from -0.25 to 0.5")):
        check_values("fused", torch.tensor([0.5, -0.25]))
    with pytest.raises(ValueError, match="from 0 to 255"):
        check_values("fused", torch.tensor([0.0, 255.0]))
    with pytest.raises(ValueError, match="from 0.5 to 1.001"):
        check_values("fused", torch.tensor([0.5, 1.001]))
    with pytest.raises(TypeError, match=r"fused must be of a floating-point dtype, got torch.int64"):
        check_values("fused", torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="fused must be a tensor, got list"):
        check_values("fused", [0.5])  # type: ignore[arg-type]

"""What CLIP is shown, against Pillow and open_clip's own pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fusionblocks.data import synthetic_scene
from fusionblocks.guidance.clip.preprocessing import CLIP_DEFAULTS, prepare

SIZES = [(96, 128), (128, 96), (301, 223), (223, 401), (60, 33), (224, 224)]
LEVEL = 1 / 255


def scene(height, width):
    array = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    coarse = synthetic_scene(3, height=max(height, 64), width=max(width, 64)).visible[:, :height, :width]
    array = (0.7 * coarse.permute(1, 2, 0).numpy() * 255 + 0.3 * array).astype(np.uint8)
    return Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_published_is_pillow_s_resize(height, width):
    """SGAFusion's loader calls ``Image.resize((224, 224))``, whose filter is bicubic; Pillow rounds to 8 bits twice."""
    picture, tensor = scene(height, width)
    expected = torch.from_numpy(np.array(picture.resize((224, 224)))).permute(2, 0, 1) / 255
    shown = prepare(tensor, (224, 224), preprocessing="published", config=CLIP_DEFAULTS)[0]
    difference = (shown - expected).abs()
    assert difference.max() < 1.6 * LEVEL
    assert difference.mean() < 0.4 * LEVEL


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_clip_is_open_clip_s_own(height, width, mode):
    import open_clip

    picture, tensor = scene(height, width)
    expected = open_clip.image_transform(224, is_train=False, resize_mode=mode)(picture)
    shown = prepare(tensor, (224, 224), preprocessing="clip", config={**CLIP_DEFAULTS, "resize_mode": mode})[0]
    difference = (shown - expected).abs() * torch.tensor(CLIP_DEFAULTS["std"])[:, None, None]
    assert difference.max() < 1.6 * LEVEL
    assert difference.mean() < 0.4 * LEVEL


def test_a_picture_of_the_size_is_shown_as_it_is():
    tensor = torch.rand(2, 3, 224, 224)
    assert torch.equal(prepare(tensor, (224, 224), preprocessing="published", config=CLIP_DEFAULTS), tensor)

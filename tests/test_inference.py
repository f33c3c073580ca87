from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fusionblocks as fb
from fusionblocks.image import luma, rgb_to_ycbcr
from fusionblocks.inference import _default_network
from fusionblocks.models.base import FusionModel, FusionOutput
from tests.helpers.networks import NARROW


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (41, 67), np.uint8), random.integers(0, 256, (41, 67, 3), np.uint8)


@dataclass(frozen=True)
class CopyConfig:
    gain: float = 1.0


class CopyVisible(FusionModel):
    """Answers with the visible luma, or with whatever ``emit`` makes of the pair."""

    name = "copy"
    config_class = CopyConfig
    emit = staticmethod(lambda infrared, visible: luma(visible))

    def __init__(self, config: CopyConfig | None = None, **options: float) -> None:
        super().__init__(config, **options)
        self.unused = nn.Linear(1, 1)
        self.was_training: bool | None = None

    def reach(self) -> int:
        return 0

    def forward(self, infrared: torch.Tensor, visible: torch.Tensor) -> FusionOutput:
        self.was_training = self.training
        self.seen = (infrared, visible)
        return FusionOutput(fused=self.emit(infrared, visible))


def copy_with(emit) -> CopyVisible:
    model = CopyVisible()
    model.emit = emit
    return model


def test_answers_in_kind(arrays, tmp_path: Path) -> None:
    infrared, visible = arrays
    expected = fb.fuse(infrared, visible)
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.uint8
    assert expected.shape == visible.shape
    Image.fromarray(infrared).save(tmp_path / "ir.png")
    Image.fromarray(visible).save(tmp_path / "vis.png")
    for one, other in [
        (tmp_path / "ir.png", tmp_path / "vis.png"),
        (str(tmp_path / "ir.png"), str(tmp_path / "vis.png")),
        (Image.fromarray(infrared), Image.fromarray(visible)),
    ]:
        fused = fb.fuse(one, other)
        assert isinstance(fused, Image.Image)
        assert fused.mode == "RGB"
        assert np.array_equal(np.asarray(fused), expected)
    tensors = torch.from_numpy(infrared)[None] / 255, torch.from_numpy(visible).permute(2, 0, 1) / 255
    single = fb.fuse(*tensors)
    batch = fb.fuse(torch.stack([tensors[0]] * 2), torch.stack([tensors[1]] * 2))
    assert single.shape == (3, 41, 67)
    assert batch.shape == (2, 3, 41, 67)
    torch.testing.assert_close(batch[1], single, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single.permute(1, 2, 0).numpy() * 255, expected, atol=0.51)


def test_a_luma_result_keeps_the_visible_colour() -> None:
    visible = 0.4 + 0.2 * torch.rand(1, 3, 20, 30)
    infrared = torch.rand(1, 1, 20, 30)
    fused = fb.fuse(infrared, visible, model=copy_with(lambda infrared, visible: luma(visible) + 0.1))
    torch.testing.assert_close(rgb_to_ycbcr(fused)[:, 1:], rgb_to_ycbcr(visible)[:, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(luma(fused), luma(visible) + 0.1, rtol=0, atol=1e-5)


def test_the_visible_luma_gives_the_visible_picture_back(arrays) -> None:
    infrared, visible = arrays
    assert np.array_equal(fb.fuse(infrared, visible, model=CopyVisible()), visible)


def test_rgb_results_are_clipped_and_kept() -> None:
    model = copy_with(lambda infrared, visible: visible * 2 - 0.5)
    model.fused_channels = 3
    visible = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(
        fb.fuse(torch.rand(1, 1, 8, 8), visible, model=model), (visible * 2 - 0.5).clamp(0, 1), rtol=0, atol=1e-6
    )


def test_gray_visible_and_colour_infrared_are_taken() -> None:
    model = CopyVisible()
    gray, colour = torch.rand(1, 9, 12), torch.rand(3, 9, 12)
    fused = fb.fuse(colour, gray, model=model)
    torch.testing.assert_close(fused, gray.expand(3, -1, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.seen[0], luma(colour[None]))


def test_sixteen_bit_thermal_is_normalised_by_percentiles() -> None:
    model = CopyVisible()
    counts = np.linspace(29000, 29400, 900).astype(np.uint16).reshape(30, 30)
    fb.fuse(counts, np.zeros((30, 30, 3), np.uint8), model=model)
    assert model.seen[0].min() == 0
    assert model.seen[0].max() == 1
    assert 0.4 < model.seen[0].mean() < 0.6


def test_the_network_keeps_its_mode_and_builds_no_graph() -> None:
    model = CopyVisible().train()
    model.unused.eval()
    fused = fb.fuse(torch.rand(1, 8, 8), torch.rand(3, 8, 8), model=model)
    assert model.was_training is False
    assert model.training
    assert not model.unused.training
    assert not fused.requires_grad
    fused += 1  # the answer is an ordinary tensor


def test_the_network_runs_in_its_own_dtype() -> None:
    model = CopyVisible().to(torch.float64)
    fused = fb.fuse(torch.rand(1, 8, 8), torch.rand(3, 8, 8), model=model)
    assert model.seen[0].dtype == torch.float64
    assert fused.dtype == torch.float32


def test_different_sizes_are_refused_with_both_named_and_resized_on_request(arrays) -> None:
    infrared, visible = arrays
    small = infrared[:20, :30]
    with pytest.raises(ValueError, match=r"20x30 and 41x67.*resize='infrared'"):
        fb.fuse(small, visible)
    assert fb.fuse(small, visible, resize="infrared").shape == (41, 67, 3)
    assert fb.fuse(small, visible, resize="visible").shape == (20, 30, 3)
    with pytest.raises(ValueError, match="resize must be"):
        fb.fuse(small, visible, resize="both")


def test_different_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        fb.fuse(torch.rand(2, 1, 8, 8), torch.rand(3, 3, 8, 8))


@pytest.mark.parametrize("value", [float("nan"), -1.0, 2.0])
@pytest.mark.parametrize("name", ["infrared", "visible"])
def test_values_outside_the_range_are_refused_by_name(name: str, value: float) -> None:
    pair = {"infrared": torch.rand(1, 1, 8, 8), "visible": torch.rand(1, 3, 8, 8)}
    pair[name][0, 0, 2, 3] = value
    with pytest.raises(ValueError, match=name):
        fb.fuse(**pair)


@pytest.mark.parametrize("wrong", [3.5, None, [1, 2], torch.zeros(1, 8, 8, dtype=torch.int32), torch.rand(8, 8)])
def test_other_kinds_of_picture_are_refused_by_name(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="infrared"):
        fb.fuse(wrong, torch.rand(3, 8, 8))


def test_a_result_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fb.fuse(torch.rand(1, 8, 8), torch.rand(3, 8, 8), model=copy_with(lambda infrared, visible: infrared / 0 * 0))


def test_unknown_guidance_and_models_are_refused() -> None:
    pair = torch.rand(1, 8, 8), torch.rand(3, 8, 8)
    with pytest.raises(TypeError, match="takes no guidance 'semantic'"):
        fb.fuse(*pair, semantic=torch.rand(512))
    with pytest.raises(ValueError, match="did you mean 'psfusion'"):
        fb.fuse(*pair, model="psfusoin")
    with pytest.raises(TypeError, match="model must be a network, a name or None, got int"):
        fb.fuse(*pair, model=3)
    with pytest.raises(ValueError, match="Identity cannot fuse"):
        fb.fuse(*pair, model=nn.Identity())


def test_tiles_cover_the_picture_without_seams() -> None:
    visible, infrared = torch.rand(1, 3, 150, 211), torch.rand(1, 1, 150, 211)
    pieces = []

    def emit(infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        pieces.append(infrared.shape[-2:])
        return infrared

    whole = fb.fuse(infrared, visible, model=copy_with(emit))
    pieces.clear()
    tiled = fb.fuse(infrared, visible, model=copy_with(emit), tile=64)
    assert len(pieces) == 8
    assert max(height * width for height, width in pieces) <= 64 * 64
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="tile"):
        fb.fuse(infrared, visible, tile=8)


@pytest.mark.parametrize("name", ["psfusion", "sgafusion", "sgdfuse", "smfnet"])
def test_networks_that_need_pictures_whole_refuse_pieces_with_the_reason(name: str) -> None:
    pair = np.zeros((64, 80), np.uint8), np.zeros((64, 80, 3), np.uint8)
    model = (
        fb.create_model(name, **NARROW.get(name, {})) if name != "sgdfuse" else fb.SGDFuse(channels=8, norm_groups=4)
    )
    with pytest.raises(ValueError, match=f"'{name}' needs pictures whole, got tile=64: its .*leave tile away"):
        fb.fuse(*pair, model=model, tile=64)


def test_a_network_by_name_warns_of_random_weights() -> None:
    pair = torch.rand(1, 8, 8), torch.rand(3, 8, 8)
    with pytest.warns(UserWarning, match="'smfnet' fuses with random weights"):
        fb.fuse(*pair, model="smfnet")
    with warnings.catch_warnings(action="error"):
        fb.fuse(*pair, model="laplacian")


class CopyMask(CopyVisible):
    """Answers with its mask."""

    name = "mask"
    guidance_names = ("infrared_mask",)

    def forward(self, infrared, visible, infrared_mask=None):
        return FusionOutput(fused=infrared if infrared_mask is None else infrared_mask)


def test_masks_come_in_any_kind(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    pair = np.zeros((9, 12), np.uint8), np.zeros((9, 12), np.uint8)
    Image.fromarray(levels).save(tmp_path / "mask.png")
    fb.image.write_image(tmp_path / "deep.png", levels.astype(np.uint16) * 257)
    unit = levels.astype(np.float32) / 255
    kinds = [
        levels,
        levels[None, None],
        levels.astype(np.uint16) * 257,
        unit,
        unit[None],
        torch.from_numpy(unit)[None, None].double(),
        Image.fromarray(levels),
        tmp_path / "mask.png",
        str(tmp_path / "deep.png"),
    ]
    for mask in kinds:
        fused = fb.fuse(*pair, model=CopyMask(), infrared_mask=mask)
        assert np.array_equal(fused[..., 0], levels)
    assert np.array_equal(fb.fuse(*pair, model=CopyMask(), infrared_mask=levels > 99)[..., 1], 255 * (levels > 99))
    assert not fb.fuse(*pair, model=CopyMask(), infrared_mask=None).any()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.zeros((9, 13), np.float32), ValueError, "infrared_mask must have the pair's size, 9x12, got 9x13"),
        (np.full((9, 12), 255.0), ValueError, r"infrared_mask must have values in \[0, 1\], got values from 255"),
        (np.full((9, 12), np.nan), ValueError, "infrared_mask must have finite values"),
        (np.zeros((9, 12), np.int64), TypeError, "infrared_mask must be of booleans, uint8, uint16 or float"),
        ([[0, 1]], TypeError, "infrared_mask must be a path, a PIL image, an array or a tensor, got list"),
        ("absent.png", FileNotFoundError, "absent.png"),
    ],
)
def test_bad_masks_are_named(mask: object, error: type[Exception], message: str) -> None:
    pair = np.zeros((9, 12), np.uint8), np.zeros((9, 12), np.uint8)
    for tile in (None, 64):
        with pytest.raises(error, match=message):
            fb.fuse(*pair, model=CopyMask(), infrared_mask=mask, tile=tile)


def test_the_default_network_is_made_fast_and_stays_equal() -> None:
    scene = fb.data.synthetic_scene(1, height=96, width=130)
    plain = fb.fuse(scene.infrared, scene.visible, model=fb.create_model("fusionblocks"))
    torch.testing.assert_close(fb.fuse(scene.infrared, scene.visible), plain, rtol=0, atol=1e-5)
    assert _default_network(torch.device("cpu")).optimization.outputs == {"fused"}


@pytest.mark.parametrize("resize", ["infrared", "visible"])
def test_another_aspect_is_refused_with_both_named(resize: str) -> None:
    infrared, visible = np.zeros((512, 640), np.uint8), np.zeros((800, 900, 3), np.uint8)
    with pytest.raises(ValueError, match=r"512x640.*800x900.*1\.250 and 1\.125.*crop both to the field of view"):
        fb.fuse(infrared, visible, resize=resize)
    assert fb.fuse(infrared[:, :577], visible, resize=resize).shape[2] == 3  # 1.127

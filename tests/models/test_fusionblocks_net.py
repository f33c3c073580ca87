from __future__ import annotations

import hashlib
import math
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import luma
from fusionblocks.models import packaged
from tests.helpers.model_tester import ModelTester


@pytest.fixture(scope="module")
def trained() -> fb.FusionModel:
    return fb.create_model("fusionblocks")


@pytest.fixture(scope="module")
def scene() -> dict[str, torch.Tensor]:
    scene = fb.data.synthetic_scene(4, height=240, width=320)
    return {"infrared": scene.infrared[None], "visible": scene.visible[None]}


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return -10 * math.log10((x.float() - y.float()).square().mean())


class TestFusionBlocksNet(ModelTester):
    name = "fusionblocks"
    small = {"channels": 8}
    sizes = [(1, 37, 50), (1, 1, 1), (3, 2, 9), (2, 32, 32)]

    def test_an_untrained_one_takes_the_stronger_detail_and_the_brighter_base(self) -> None:
        scene = fb.data.synthetic_scene(2, height=48, width=64)
        infrared, visible = scene.infrared[None], scene.visible[None]
        # detail in one source alone, on a flat other one: the detail of the one on the brighter base
        flat = torch.full_like(visible, 0.3)
        model = fb.create_model(self.name, channels=8, levels=1)
        fused = self.run(model, infrared=infrared, visible=flat).fused
        base = torch.nn.functional.avg_pool2d(infrared, 2)
        twice = partial(torch.nn.functional.interpolate, scale_factor=2, mode="bilinear")
        expected = twice(base.clamp_min(0.3)) + infrared - twice(base)
        between = (expected > infrared.clamp_max(0.3)) & (expected < infrared.clamp_min(0.3))
        assert between.float().mean() > 0.05
        torch.testing.assert_close(fused[between], expected[between], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("level", [0, 7, 100, 255])
    @pytest.mark.parametrize("tile", [None, 64])
    def test_a_constant_pair_stays(self, trained: fb.FusionModel, level: int, tile: int | None) -> None:
        pair = torch.full((1, 1, 80, 70), level / 255), torch.full((1, 3, 80, 70), level / 255)
        fused = fb.fuse(*pair, model=trained, tile=tile)
        torch.testing.assert_close(fused, pair[1], rtol=0, atol=1e-5)

    def test_a_nearly_flat_picture_of_a_batch_is_left_alone_by_the_others(
        self, trained: fb.FusionModel, scene: dict[str, torch.Tensor]
    ) -> None:
        flat = {name: 0.5 + x / 512 for name, x in scene.items()}
        both = self.run(trained, **{name: torch.cat([scene[name], flat[name]]) for name in scene}).fused
        torch.testing.assert_close(both[:1], self.run(trained, **scene).fused, rtol=0, atol=1e-5)
        assert both[1:].max() - both[1:].min() < 2 / 512

    def test_takes_rgb_or_its_luma(self, trained: fb.FusionModel) -> None:
        inputs = self.inputs(2, 33, 40)
        colour = self.run(trained, **inputs).fused
        gray = self.run(trained, **{**inputs, "visible": luma(inputs["visible"])}).fused
        torch.testing.assert_close(colour, gray, rtol=0, atol=0)

    def test_other_widths_and_scales(self) -> None:
        for options in ({"channels": 12, "num_heads": 2}, {"channels": 8, "scale": 1}, {"channels": 8, "scale": 4}):
            model, inputs = fb.create_model(self.name, **options), self.inputs(1, 37, 51)
            torch.nn.init.normal_(model.head.weight)
            assert self.run(model, **inputs).fused.shape == (1, 1, 37, 51)

    def test_impossible_settings_are_refused_by_name(self) -> None:
        wrongs = (
            ("channels", 10),
            ("scale", 0),
            ("scale", 1.5),
            ("scale", 3),
            ("margin", -1),
            ("levels", 0),
            ("style", "x"),
        )
        for name, value in wrongs:
            with pytest.raises((ValueError, TypeError), match=name):
                fb.create_model(self.name, **{name: value})


STYLES = ("vivid", "natural")


@pytest.mark.parametrize("style", STYLES)
def test_it_is_small(style: str) -> None:
    model = fb.create_model("fusionblocks", style=style)
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000
    assert (packaged.MODELS / "fusionblocks" / f"{style}.safetensors").stat().st_size < 2**20


@pytest.mark.parametrize("style", STYLES)
def test_the_weights_are_the_ones_released(style: str) -> None:
    model = fb.create_model("fusionblocks", style=style)
    file = packaged.MODELS / "fusionblocks" / f"{style}.safetensors"
    assert model.packaged[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not model.training
    assert model.config.style == style


def test_the_styles_differ(scene: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        vivid, natural = (fb.create_model("fusionblocks", style=style)(**scene).fused for style in STYLES)
    assert vivid.std() > natural.std()
    assert fb.create_model("fusionblocks").config.style == "vivid"


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (packaged.MODELS / "fusionblocks" / "vivid.safetensors").read_bytes()
    monkeypatch.setattr(packaged, "MODELS", tmp_path)
    (tmp_path / "fusionblocks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"vivid\.safetensors"):
        fb.create_model("fusionblocks")
    (tmp_path / "fusionblocks" / "vivid.safetensors").write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match=r"not the file that was released.*SHA-256"):
        fb.create_model("fusionblocks")


@pytest.mark.parametrize("style", STYLES)
def test_no_pixel_is_burnt_or_crushed_that_is_not_in_a_source(style: str, scene: dict[str, torch.Tensor]) -> None:
    model = fb.create_model("fusionblocks", style=style)
    brightened = {name: (2.5 * x).clamp(0, 1) for name, x in scene.items()}
    for pair in (scene, brightened):
        with torch.no_grad():
            levels = (model(**pair).fused * 255).round()
        sources = torch.stack([pair["infrared"], luma(pair["visible"])]) * 255
        burnt, crushed = levels >= 254, levels <= 1
        assert not (burnt & (sources.amax(0) < 253.4)).any()
        assert not (crushed & (sources.amin(0) > 1.6)).any()


def test_fresh_weights_on_request_and_for_other_widths(trained: fb.FusionModel) -> None:
    assert not fb.create_model("fusionblocks", pretrained=False).head.weight.any()
    assert not fb.create_model("fusionblocks", channels=8).head.weight.any()
    assert trained.head.weight.any()
    with pytest.raises(ValueError, match=r"FusionBlocksConfig\(style=.vivid., channels=24.*got.*channels=8"):
        fb.create_model("fusionblocks", channels=8, pretrained=True)
    with pytest.raises(ValueError, match="load_official"):
        fb.create_model("psfusion", pretrained=True)


def test_it_is_what_fuses_by_default(trained: fb.FusionModel, scene: dict[str, torch.Tensor]) -> None:
    with warnings.catch_warnings(action="error"):
        by_default, by_name = fb.fuse(**scene), fb.fuse(**scene, model="fusionblocks")
    # by default a copy that was made fast
    torch.testing.assert_close(by_default, by_name, rtol=0, atol=1e-5)
    assert torch.equal(by_name, fb.fuse(**scene, model=trained))
    assert not torch.equal(by_default, fb.fuse(**scene, model="laplacian"))


def test_it_computes_the_same_again(trained: fb.FusionModel, scene: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        first, again = trained(**scene).fused, fb.create_model("fusionblocks")(**scene).fused
    assert torch.equal(first, again)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(trained: fb.FusionModel, scene: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    with torch.no_grad():
        expected = trained(**scene).fused.clamp(0, 1)
        narrow = fb.create_model("fusionblocks").to(dtype)(**{k: v.to(dtype) for k, v in scene.items()}).fused
    assert narrow.dtype == dtype
    assert psnr(narrow.clamp(0, 1), expected) >= 45


def test_bfloat16_made_fast_is_close(trained: fb.FusionModel, scene: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        expected = trained(**scene).fused
        assert psnr(fb.optimize(trained, torch.bfloat16)(**scene).fused, expected) >= 45
        torch.testing.assert_close(fb.optimize(trained)(**scene).fused, expected, rtol=0, atol=1e-4)


def test_there_is_no_frame(trained: fb.FusionModel) -> None:
    """What is alike everywhere stays alike up to the edge."""
    infrared, visible = torch.full((1, 1, 90, 121), 0.3), torch.full((1, 1, 90, 121), 0.6)
    with torch.no_grad():
        fused = trained(infrared, visible).fused
    assert (fused - fused[..., 45:46, 60:61]).abs().max() < 2 / 255


def test_it_keeps_what_stands_out_in_either(scene: dict[str, torch.Tensor]) -> None:
    """A warm thing in the dark and a bright thing without warmth are both brighter than their surroundings."""
    infrared, visible = torch.full((1, 1, 96, 128), 0.2), torch.full((1, 3, 96, 128), 0.25)
    infrared[..., 30:50, 30:50] = 0.9
    visible[..., 50:70, 80:100] = 0.9
    fused = luma(fb.fuse(infrared, visible))
    around = fused[..., 5:20, :].mean()
    assert fused[..., 34:46, 34:46].mean() > around + 0.3
    assert fused[..., 54:66, 84:96].mean() > around + 0.3

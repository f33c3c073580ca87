from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import segment_anything
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from torch import nn

import fusionblocks as fb
from fusionblocks.guidance import SAMMasks, SAMPrompts, masks_to_map
from fusionblocks.guidance.mask_maps import ENCODINGS
from tests.helpers.tiny_sam import LOOSE, PATCH, SIDE, tiny_sam

HEIGHT, WIDTH = 43, 60


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    scenes = [fb.data.synthetic_scene(seed, height=HEIGHT, width=WIDTH) for seed in (3, 4)]
    return torch.stack([scene.infrared for scene in scenes]), torch.stack([scene.visible for scene in scenes])


@pytest.fixture
def tiny_registry(monkeypatch) -> None:
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", tiny_sam)


def levels(picture: torch.Tensor) -> np.ndarray:
    return (picture.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy()


# --- what it computes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_maps_are_those_of_segment_anythings_own_generator(pair, encoding: str) -> None:
    sam = tiny_sam()
    maps = SAMMasks(sam, encoding=encoding, **LOOSE)(*pair)
    generator = SamAutomaticMaskGenerator(sam, **LOOSE)
    for picture, found in zip(pair, maps):
        assert found.shape == (2, 1, HEIGHT, WIDTH)
        assert found.min() >= 0
        assert found.max() <= 1
        for image, one in zip(picture, found):
            assert torch.equal(one, masks_to_map(generator.generate(levels(image)), encoding))
    assert any(found.any() for found in maps)


def test_one_channel_counts_as_three_equal_ones(pair) -> None:
    guide = SAMMasks(tiny_sam(), **LOOSE)
    infrared = pair[0]
    assert torch.equal(guide.map(infrared), guide.map(infrared.expand(-1, 3, -1, -1)))
    gray = fb.image.luma(pair[1])
    assert torch.equal(guide(infrared, gray)[1], guide.map(gray))


def test_it_is_deterministic_and_leaves_its_inputs_and_weights_alone(pair) -> None:
    sam = tiny_sam()
    before = [tensor.clone() for tensor in (*sam.state_dict().values(), *pair)]
    first = SAMMasks(sam, **LOOSE)(*pair)
    second = SAMMasks(tiny_sam(), **LOOSE)(*pair)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert all(torch.equal(a, b) for a, b in zip(before, (*sam.state_dict().values(), *pair)))
    assert not any(found.requires_grad for found in first)


def test_no_mask_is_a_map_of_zeros(pair) -> None:
    found = SAMMasks(tiny_sam(), **{**LOOSE, "pred_iou_thresh": 1e6})(*pair)
    assert not torch.cat(found).any()


def test_maps_keep_the_pictures_dtype(pair) -> None:
    found = SAMMasks(tiny_sam(), **LOOSE)(pair[0].double(), pair[1].double())
    assert all(one.dtype == torch.float64 for one in found)


# --- prompts -------------------------------------------------------------------------------------------------------


def test_boxes_and_points_are_predicted_as_segment_anything_does(pair) -> None:
    sam = tiny_sam()
    boxes, points = [[3, 4, 30, 40], [10, 2, 50, 20], [0, 0, 60, 43]], [[20, 20], [50.5, 30.25]]
    guide = SAMMasks(sam, points_per_batch=2)
    (found,) = guide.segment(pair[1][:1], prompts=SAMPrompts(boxes=boxes, points=points))
    predictor = SamPredictor(sam)
    predictor.set_image(levels(pair[1][0]))
    expected = []
    for box in boxes:
        masks, scores, _ = predictor.predict(box=np.array(box), multimask_output=False)
        expected.append((masks[0], scores[0]))
    for point in points:
        masks, scores, _ = predictor.predict(np.array([point]), np.array([1]), multimask_output=True)
        expected.append((masks[scores.argmax()], scores.max()))
    assert found.masks.shape == (5, HEIGHT, WIDTH)
    for mask, score, (own_mask, own_score) in zip(*found, expected):
        assert np.array_equal(mask.numpy(), own_mask)
        assert score.item() == pytest.approx(own_score, abs=1e-5)


def test_several_clicks_mean_one_object(pair) -> None:
    sam = tiny_sam()
    clicks = SAMPrompts(points=[[[20, 20], [50, 30]]], labels=[[1, 0]])
    (found,) = SAMMasks(sam).segment(pair[0][:1], prompts=clicks)
    predictor = SamPredictor(sam)
    predictor.set_image(levels(pair[0][0]))
    masks, _, _ = predictor.predict(np.array([[20, 20], [50, 30]]), np.array([1, 0]), multimask_output=False)
    assert np.array_equal(found.masks.numpy(), masks)


def test_prompts_of_a_fixed_camera_and_of_each_picture(pair) -> None:
    sam = tiny_sam()
    here, there = SAMPrompts(boxes=[[3, 4, 30, 40]]), SAMPrompts(boxes=[[20, 10, 59, 42]])
    fixed = SAMMasks(sam, prompts=here, encoding="binary")
    each = SAMMasks(sam, encoding="binary").map(pair[0], prompts=[here, there])
    assert torch.equal(fixed.map(pair[0])[0], each[0])
    assert torch.equal(fixed.map(pair[0], prompts=there)[1], each[1])
    assert torch.equal(fixed(*pair)[0], fixed.map(pair[0]))
    assert not torch.equal(fixed.map(pair[0])[1], each[1])


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (SAMPrompts(), ValueError, "must hold a box or a point"),
        (SAMPrompts(boxes=[1, 2, 3, 4]), ValueError, r"boxes must have shape \(N, 4\)"),
        (SAMPrompts(boxes=[[30, 4, 3, 40]]), ValueError, "left < right"),
        (SAMPrompts(boxes=[[3, 4, 61, 40]]), ValueError, "60 pixels wide and 43 high"),
        (SAMPrompts(points=[[50, 50]]), ValueError, "points must lie in the picture"),
        (SAMPrompts(points=[[5, float("nan")]]), ValueError, "points must be finite"),
        (SAMPrompts(points=[[1, 2, 3]]), ValueError, r"points must have shape \(N, 2\)"),
        (SAMPrompts(points=[[5, 5]], labels=[2]), ValueError, "labels must be 0 or 1"),
        (SAMPrompts(points=[[5, 5]], labels=[1, 1]), ValueError, "labels must be 0 or 1 for each point"),
        (SAMPrompts(points="middle"), TypeError, "points must be an array of numbers"),
        ([SAMPrompts(boxes=[[1, 2, 3, 4]])], ValueError, "one for each of the 2 pictures, got 1"),
        ("everything", TypeError, "'automatic' or SAMPrompts"),
        ([3, 4], TypeError, "'automatic' or SAMPrompts"),
        (3, TypeError, "'automatic' or SAMPrompts"),
    ],
)
def test_bad_prompts_are_named(pair, prompts: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SAMMasks(tiny_sam(), **LOOSE).map(pair[0], prompts=prompts)


# --- timm's encoder ------------------------------------------------------------------------------------------------


def test_timms_encoder_computes_the_same(pair) -> None:
    sam = tiny_sam()
    guide, lighter = SAMMasks(sam, **LOOSE), SAMMasks(sam, encoder="timm", **LOOSE)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(lighter.sam.image_encoder(pixels), sam.image_encoder(pixels), rtol=1e-5, atol=2e-5)
    for (masks, scores), (own_masks, own_scores) in zip(lighter.segment(pair[1]), guide.segment(pair[1])):
        assert masks.shape == own_masks.shape
        assert (masks != own_masks).float().mean() < 1e-3
        torch.testing.assert_close(scores, own_scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_every_published_size_has_a_timm_encoder(name: str) -> None:
    with torch.device("meta"):
        sam = segment_anything.sam_model_registry[name]()
        guide = SAMMasks(sam, encoder="timm", image_size=512)
    names = {name.replace("mlp.lin", "mlp.fc") for name in sam.image_encoder.state_dict()}
    assert {name.removeprefix("trunk.") for name in guide.sam.image_encoder.state_dict()} == names


@pytest.mark.parametrize("size", [32, 96])
def test_timms_encoder_takes_other_sizes(pair, size: int) -> None:
    sam = tiny_sam()
    guide = SAMMasks(sam, encoder="timm", image_size=size, **LOOSE)
    with torch.no_grad():
        assert guide.sam.image_encoder(torch.zeros(1, 3, size, size)).shape[2:] == (size // PATCH, size // PATCH)
    assert guide.map(pair[1]).shape == (2, 1, HEIGHT, WIDTH)
    assert guide.segment(pair[1], prompts=SAMPrompts(boxes=[[0, 0, 60, 43]]))[0].masks.any()
    assert sam.prompt_encoder.input_image_size == (SIDE, SIDE)
    assert sam.image_encoder.img_size == SIDE


def test_sizes_that_an_encoder_does_not_take(pair) -> None:
    with pytest.raises(ValueError, match="image_size must be 64 for encoder='segment_anything', got 32"):
        SAMMasks(tiny_sam(), image_size=32)
    with pytest.raises(ValueError, match="image_size must be a multiple of 16, got 100"):
        SAMMasks(tiny_sam(), encoder="timm", image_size=100)


# --- the cache -----------------------------------------------------------------------------------------------------


class Counter:
    """Counts the passes of an encoder."""

    def __init__(self, sam: nn.Module) -> None:
        self.passes = 0
        sam.image_encoder.register_forward_hook(self.count)

    def count(self, *_: object) -> None:
        self.passes += 1


def test_the_cache_serves_equal_pictures_and_all_encodings(pair, tmp_path: Path) -> None:
    sam = tiny_sam()
    counter = Counter(sam)
    first = SAMMasks(sam, cache=tmp_path, **LOOSE)(*pair)
    assert counter.passes == 4
    for encoding in ENCODINGS:
        cached = SAMMasks(sam, cache=tmp_path, encoding=encoding, **LOOSE)(*pair)
        plain = SAMMasks(tiny_sam(), encoding=encoding, **LOOSE)(*pair)
        assert all(torch.equal(a, b) for a, b in zip(cached, plain))
    assert counter.passes == 4
    assert torch.equal(SAMMasks(tiny_sam(), cache=tmp_path, **LOOSE)(*pair)[0], first[0])


def test_the_cache_tells_weights_settings_prompts_and_pictures_apart(pair, tmp_path: Path) -> None:
    sam = tiny_sam()
    counter = Counter(sam)
    picture = pair[0][:1]

    def entries(guide: SAMMasks, **options: object) -> int:
        guide.map(picture, **options)
        return len(list(tmp_path.glob("*.zip")))

    assert entries(SAMMasks(sam, cache=tmp_path, **LOOSE)) == 1
    assert entries(SAMMasks(sam, cache=tmp_path, **{**LOOSE, "points_per_batch": 3})) == 1
    assert entries(SAMMasks(sam, cache=tmp_path, **{**LOOSE, "points_per_side": 3})) == 2
    assert entries(SAMMasks(sam, cache=tmp_path, **{**LOOSE, "pred_iou_thresh": 0.0})) == 3
    guide = SAMMasks(sam, cache=tmp_path, **LOOSE)
    assert entries(guide, prompts=SAMPrompts(boxes=[[3, 4, 30, 40]])) == 4
    assert entries(guide, prompts=SAMPrompts(boxes=[[3, 4, 30, 41]])) == 5
    assert entries(guide, prompts=SAMPrompts(points=[[3, 4]])) == 6
    assert entries(guide, prompts=SAMPrompts(points=[[3, 4]], labels=[0])) == 7
    assert counter.passes == 7
    assert entries(SAMMasks(sam, encoder="timm", cache=tmp_path, **LOOSE)) == 8
    with torch.no_grad():
        sam.mask_decoder.mask_tokens.weight[0, 0] += 1
    assert entries(guide) == 9
    guide.map(1 - picture)
    assert len(list(tmp_path.glob("*.zip"))) == 10


def test_a_damaged_entry_is_computed_again(pair, tmp_path: Path) -> None:
    guide = SAMMasks(tiny_sam(), cache=tmp_path, **LOOSE)
    expected = guide.map(pair[0][:1])
    (file,) = tmp_path.glob("*.zip")
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(guide.map(pair[0][:1]), expected)
    assert torch.equal(guide.map(pair[0][:1]), expected)


# --- weights -------------------------------------------------------------------------------------------------------


def test_a_local_checkpoint_by_name(pair, tmp_path: Path, tiny_registry) -> None:
    trained = tiny_sam(seed=22)
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    guide = SAMMasks("vit_b", tmp_path / "own.pth", **LOOSE)
    assert torch.equal(guide.map(pair[1]), SAMMasks(trained, **LOOSE).map(pair[1]))
    assert guide.fingerprint() == SAMMasks(trained).fingerprint() != SAMMasks(tiny_sam()).fingerprint()


@pytest.mark.parametrize(
    ("name", "file"),
    [("vit_b", "sam_vit_b_01ec64.pth"), ("vit_l", "sam_vit_l_0b3195.pth"), ("vit_h", "sam_vit_h_4b8939.pth")],
)
@pytest.mark.parametrize("checkpoint", [None, "absent.pth"])
def test_missing_weights_say_which_file_where_and_how(name: str, file: str, checkpoint: str | None) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        SAMMasks(name, checkpoint)
    message = str(caught.value)
    assert file in message
    assert "README of github.com/facebookresearch/segment-anything" in message
    assert f"checkpoint='path/to/{file}'" in message
    assert (checkpoint or "") in message


def test_a_wrong_file_is_refused_by_its_keys(tmp_path: Path, tiny_registry) -> None:
    state = tiny_sam().state_dict()
    state["image_encoder.neck.7.weight"] = state.pop("image_encoder.neck.0.weight")
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"1 missing: image_encoder.neck.0.weight; 1 surplus: image_encoder.neck.7"):
        SAMMasks("vit_b", tmp_path / "wrong.pth")
    torch.save({"weights": state}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="not a state dict of SAM 'vit_b': expected one like sam_vit_b_01ec64.pth"):
        SAMMasks("vit_b", tmp_path / "nested.pth")


def test_another_size_is_recognised(tmp_path: Path, tiny_registry) -> None:
    state = tiny_sam().state_dict()
    state["image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 1024)
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(ValueError, match="expected the weights of 'vit_b'.* it looks like 'vit_l'"):
        SAMMasks("vit_b", tmp_path / "large.pth")


def test_a_pickle_with_code_is_refused(tmp_path: Path, tiny_registry) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / "code.pth").write_bytes(pickle.dumps({"image_encoder.pos_embed": Payload()}))
    with pytest.raises(ValueError, match="code in it and was refused"):
        SAMMasks("vit_b", tmp_path / "code.pth")
    assert not marker.exists()


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "vit_x"}, ValueError, "vit_b, vit_l, vit_h or a segment_anything Sam, got 'vit_x'"),
        ({"model": nn.Linear(2, 2)}, TypeError, "segment_anything Sam, got Linear"),
        ({"checkpoint": "some.pth"}, ValueError, "checkpoint must be None for a built Sam"),
        ({"encoding": "edge"}, ValueError, "encoding must be one of"),
        ({"encoder": "kornia"}, ValueError, "encoder must be one of segment_anything, timm, got 'kornia'"),
        ({"prompts": "boxes"}, TypeError, "prompts must be 'automatic' or SAMPrompts, got 'boxes'"),
        ({"points_per_side": 0}, ValueError, "points_per_side must be a positive integer"),
        ({"points_per_batch": 1.5}, ValueError, "points_per_batch must be a positive integer"),
    ],
)
def test_bad_options_are_named(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SAMMasks(**{"model": tiny_sam(), **options})


def test_bad_pictures_are_named(pair) -> None:
    guide = SAMMasks(tiny_sam(), **LOOSE)
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got values from 0 to 255"):
        guide.map(torch.tensor([0.0, 255.0]).expand(1, 1, 4, 2))
    with pytest.raises(TypeError, match="floating-point dtype, got torch.uint8"):
        guide.map(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="same size"):
        guide(pair[0][..., 1:], pair[1])


# --- in a network --------------------------------------------------------------------------------------------------


def test_it_guides_sgdfuse(pair) -> None:
    torch.manual_seed(0)
    small = {"channels": 8, "norm_groups": 4, "transformer_channels": 8, "num_inference_steps": 4}
    model = fb.SGDFuse(**small).eval()
    guide = SAMMasks(tiny_sam(), **LOOSE)
    masks = guide(*pair)
    model.attach_guidance(guide)
    with torch.no_grad():
        guided = model(*pair, generator=torch.Generator().manual_seed(1)).fused
        told = model(*pair, *masks, generator=torch.Generator().manual_seed(1)).fused
        blind = model(*pair, *map(torch.zeros_like, masks), generator=torch.Generator().manual_seed(1)).fused
    assert torch.equal(guided, told)
    assert not torch.equal(guided, blind)
    assert not any("mask_decoder" in name for name in model.state_dict())


def test_the_estimate_grows_with_the_points(pair) -> None:
    sam = tiny_sam()
    few = SAMMasks(sam, **{**LOOSE, "points_per_side": 2}).estimate_seconds(pair[1][:1])
    many = SAMMasks(sam, **{**LOOSE, "points_per_side": 64}).estimate_seconds(pair[1][:1])
    assert 0 < few < many / 10
    assert not sam.image_encoder._forward_hooks

"""Guides by name and guides of one's own, attached when a network is made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.models import registry
from tests.helpers.golden import load_case

SMALL = {"channels": 4, "semantic_channels": 8}
SIZES = [(33, 50), (41, 37)]


class Colours(nn.Module):
    """Stands for an image tower: embeds the mean colour, or that of each row as a token."""

    def __init__(self, channels: int = 8, *, patches: bool = False) -> None:
        super().__init__()
        self.patches = patches
        self.linear = nn.Linear(3, channels)
        self.asked: list[tuple[int, ...]] = []

    def forward(self, visible: Tensor) -> Tensor:
        self.asked.append(tuple(visible.shape))
        return self.linear(visible.mean(3).mT[:, ::8] if self.patches else visible.mean((2, 3)))


def scene(size: tuple[int, int]) -> fb.data.SyntheticScene:
    return fb.data.synthetic_scene(1, height=size[0], width=size[1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patches", [False, True], ids=["pooled", "patches"])
@pytest.mark.parametrize("query", ["image", "semantic"])
def test_a_guided_network_fuses_pictures(query: str, patches: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    guide = Colours(patches=patches)
    model = fb.create_model("sgafusion", guidance=guide, query=query, **SMALL).eval()
    with torch.no_grad():  # initial weights hardly tell one pixel from another, and tokens that ask find no difference
        for layer in (model.semantic_attention.image_projection, model.semantic_attention.query):
            layer.weight.mul_(30)
    pair = scene(size)
    fused = fb.fuse(pair.infrared, pair.visible, model=model)
    assert fused.shape == (3, *size)
    assert guide.asked == [(1, 3, *size)]
    with torch.no_grad():
        semantic = guide(pair.visible[None])
    assert semantic.ndim == 2 + patches
    expected = model(pair.infrared[None], pair.visible[None], semantic=semantic).fused[0].clamp(0, 1)
    assert torch.equal(fused, expected)
    # the guide matters
    model.attach_guidance(lambda visible: -50 * semantic)
    assert not torch.allclose(fb.fuse(pair.infrared, pair.visible, model=model), fused, rtol=0, atol=1e-5)


def test_wrong_guides_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'clpi' is unknown \(did you mean 'clip'\?\); 'sgafusion' takes 'clip'"):
        fb.create_model("sgafusion", guidance="clpi")
    with pytest.raises(ValueError, match="'sam' guides 'sgdfuse'; 'sgafusion' takes 'clip'"):
        fb.create_model("sgafusion", guidance="sam")
    with pytest.raises(ValueError, match="'clip' guides 'sgafusion'; 'sgdfuse' takes 'sam'"):
        fb.load_official("sgdfuse", {}, guidance="clip", channels=32, multipliers=(1, 2))
    for guidance in ("clip", len):
        with pytest.raises(TypeError, match="'laplacian' takes no guidance"):
            fb.create_model("laplacian", guidance=guidance)
    with pytest.raises(TypeError, match="guide must be callable, got int"):
        fb.create_model("sgafusion", guidance=3, **SMALL)


def test_a_wrong_name_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fb.SGAFusion, "__init__", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(ValueError, match="clpi"):
        fb.create_model("sgafusion", guidance="clpi")


def test_a_named_guide_gets_the_width_that_the_network_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(registry, "guide_class", lambda network, name: lambda **options: built.append(options) or len)
    fb.create_model("sgafusion", guidance="clip", **SMALL)
    assert built == [{"embedding_channels": 8}]


def test_published_weights_and_a_guide() -> None:
    case = load_case("sga_full")
    pair = {"infrared": case.inputs["infrared"][:, :1], "visible": case.inputs["visible"]}
    asked = fb.load_official("sgafusion", case.state, guidance=lambda visible: case.inputs["semantic"])
    with torch.no_grad():
        fused = asked(**pair).fused
        expected = fb.load_official("sgafusion", case.state)(**pair, semantic=case.inputs["semantic"]).fused
    assert torch.equal(fused, expected)

"""What a network's experts did: the report, its numbers and its pictures."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.experts import ExpertWeights, colours
from tests.helpers.golden import load_case

SMALL = {"channels": 4, "semantic_channels": 8}
ORDER = [
    "encoder.degradation (visible)",
    *(f"encoder.stages.{i}.2 ({sees})" for sees in ("visible", "infrared") for i in range(3)),
    "decoder.0.2",
    "decoder.1.2",
]


def colours_as_semantic(visible: Tensor) -> Tensor:
    return visible.mean((2, 3)).repeat(1, 3)[:, :8]


@pytest.fixture(scope="module")
def model() -> fb.FusionModel:
    torch.manual_seed(0)
    return fb.create_model(
        "sgafusion", guidance=lambda visible: visible.mean((2, 3)).repeat(1, 3)[:, :8], **SMALL
    ).eval()


@pytest.fixture(scope="module")
def scene() -> fb.data.SyntheticScene:
    return fb.data.synthetic_scene(1, height=41, width=54)


@pytest.fixture(scope="module")
def report(model, scene) -> fb.ExpertReport:
    return fb.expert_report(model, scene.infrared, scene.visible)


def test_every_mixture_is_reported_in_every_pass(report) -> None:
    assert [mixture.title for mixture in report.mixtures] == ORDER
    for mixture in report.mixtures:
        experts = 3 if mixture.name == "encoder.degradation" else 2
        assert mixture.weights.shape == (1, experts, 41, 54)
        assert len(mixture.experts) == experts
        torch.testing.assert_close(mixture.weights.sum(1), torch.ones(1, 41, 54))
        torch.testing.assert_close(mixture.shares.sum(1), torch.ones(1))
        assert not mixture.weights.requires_grad
    assert report["encoder.degradation"].experts == ("dehaze", "low light", "base")


def test_the_fused_picture_is_that_of_fuse(model, scene, report) -> None:
    assert torch.equal(report.fused, fb.fuse(scene.infrared, scene.visible, model=model))
    array = fb.expert_report(model, scene.infrared.numpy()[0], scene.visible.movedim(0, -1).numpy()).fused
    assert isinstance(array, np.ndarray)
    assert array.shape == (41, 54, 3)


def test_the_weights_are_those_of_the_gates(model, scene, report) -> None:
    encoder = model.encoder
    for sees in ("visible", "infrared"):
        picture = getattr(scene, sees)[None].expand(-1, 3, -1, -1)
        with torch.no_grad():
            x = encoder.stem(picture)
            if sees == "visible":
                assert torch.equal(report["encoder.degradation"].weights, encoder.degradation.gate(x))
                x = encoder.degradation(x)
            gate = encoder.stages[0][2].gate(encoder.stages[0][:2](x))
        assert torch.equal(report[f"encoder.stages.0.2 ({sees})"].weights, gate)


def test_a_network_is_left_as_it_was(model, scene) -> None:
    twin = fb.create_model("sgafusion", **SMALL).train()
    fb.expert_report(twin, scene.infrared, scene.visible, semantic=torch.zeros(8))
    assert all(module.training and not module._forward_pre_hooks for module in twin.modules())
    with pytest.raises(ValueError, match="semantic"):
        fb.expert_report(twin, scene.infrared, scene.visible)
    assert all(module.training and not module._forward_pre_hooks for module in twin.modules())


def test_an_optimized_network_reports_the_same(model, scene, report) -> None:
    fast = fb.optimize(model)
    fast.attach_guidance(model._guide[0])
    again = fb.expert_report(fast, scene.infrared, scene.visible)
    assert [mixture.title for mixture in again.mixtures] == ORDER
    for one, other in zip(report.mixtures, again.mixtures, strict=True):
        torch.testing.assert_close(one.weights, other.weights, rtol=1e-3, atol=1e-4)


def test_published_weights_report_the_published_gates() -> None:
    case = load_case("sga_full")
    published = fb.load_official("sgafusion", case.state)
    visible, infrared = case.inputs["visible"], case.inputs["infrared"][:, :1]
    report = fb.expert_report(published, infrared.clamp(0, 1), visible.clamp(0, 1), semantic=case.inputs["semantic"])
    assert [mixture.title for mixture in report.mixtures] == ORDER
    assert len(report.rows()) == visible.shape[0] * (3 + 8 * 2)


def test_a_decided_gate_has_its_expert_everywhere(scene) -> None:
    model = fb.create_model("sgafusion", **SMALL).eval()
    with torch.no_grad():
        model.encoder.degradation.gating.weight.zero_()
        model.encoder.degradation.gating.bias.copy_(torch.tensor([-50.0, 50.0, -50.0]))
    report = fb.expert_report(model, scene.infrared, scene.visible, semantic=torch.zeros(8))
    torch.testing.assert_close(report["encoder.degradation"].shares, torch.tensor([[0.0, 1.0, 0.0]]))
    overlay = report.overlay("encoder.degradation")
    assert overlay.shape == (1, 3, 41, 54)
    # the whole picture is blue, the second colour
    assert bool((overlay[:, 2] > overlay[:, 1]).all())
    assert bool((overlay[:, 1] > overlay[:, 0]).all())


def weights(left: float, right: float, *, size: tuple[int, int] = (8, 12)) -> ExpertWeights:
    """Return two experts, the first with the weight ``left`` in the left half and ``right`` in the right one."""
    first = torch.full((1, 1, *size), left)
    first[..., size[1] // 2 :] = right
    return ExpertWeights("mixture", "", ("a", "b"), torch.cat([first, 1 - first], dim=1))


def saturation(picture: Tensor) -> Tensor:
    return picture.amax(1) - picture.amin(1)


def test_colours_say_who_and_how_much() -> None:
    gray = torch.full((1, 1, 8, 12), 0.5)
    overlay = weights(0.9, 0.2).overlay(gray)
    orange, blue = overlay[0, :, 4, 2], overlay[0, :, 4, 9]
    assert orange[0] > orange[1] > orange[2]
    assert blue[2] > blue[1] > blue[0]
    assert torch.equal(overlay[0, :, :, :6].flatten(1).unique(dim=1), orange[:, None])
    # an even split stays gray, and a larger weight is a fuller colour
    assert saturation(weights(0.5, 0.5).overlay(gray)).max() < 1e-6
    fullness = [saturation(weights(share, share).overlay(gray)).mean() for share in (0.55, 0.7, 0.95)]
    assert fullness[0] > 0.05
    assert fullness == sorted(fullness)


def test_relative_colours_show_where_a_gate_moves() -> None:
    gray = torch.full((1, 3, 8, 12), 0.5)
    nearly = weights(0.71, 0.69)
    overlay = nearly.overlay(gray, relative=True)
    assert overlay[0, 0, 4, 2] > overlay[0, 2, 4, 2]
    assert overlay[0, 2, 4, 9] > overlay[0, 0, 4, 9]
    absolute = nearly.overlay(gray)
    assert bool((absolute[:, 0] > absolute[:, 2]).all())
    # a gate that does not move at all colours nothing
    assert saturation(weights(0.7, 0.7).overlay(gray, relative=True)).max() < 0.2


def test_weights_of_another_size_are_brought_to_the_picture() -> None:
    assert weights(0.9, 0.2, size=(4, 6)).overlay(torch.rand(1, 1, 9, 13)).shape == (1, 3, 9, 13)


def test_the_palette_is_told_apart() -> None:
    palette = colours(7)
    assert palette.shape == (7, 3)
    assert torch.cdist(palette, palette).fill_diagonal_(1).min() > 0.25
    assert torch.equal(colours(9)[7:], palette[:2])


def test_rows_and_csv(model) -> None:
    scenes = [fb.data.synthetic_scene(seed, height=33, width=40) for seed in (1, 2)]
    report = fb.expert_report(
        model, torch.stack([s.infrared for s in scenes]), torch.stack([s.visible for s in scenes])
    )
    rows = list(csv.DictReader(report.to_csv().splitlines()))
    assert len(rows) == 2 * (3 + 8 * 2)
    assert rows[0].keys() == {"picture", "mixture", "sees", "expert", "share"}
    dehaze = [float(row["share"]) for row in rows if row["expert"] == "dehaze"]
    assert dehaze == pytest.approx(report["encoder.degradation"].shares[:, 0].tolist(), abs=1e-6)
    for picture in "01":
        total = sum(float(row["share"]) for row in rows if row["picture"] == picture)
        assert total == pytest.approx(len(ORDER), abs=1e-4)


def test_the_figure_names_experts_and_shares(report, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.plot()
    assert [panel.get_title(loc="left") for panel in figure.axes] == ORDER
    figure = report.plot(["encoder.degradation", "decoder.1.2"], relative=True)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    shares = report["encoder.degradation"].shares[0].tolist()
    assert texts == [f"{name} {round(100 * share)} %" for name, share in zip(report.mixtures[0].experts, shares)]
    assert len(figure.axes) == 2
    figure.savefig(tmp_path / "experts.png")
    assert fb.image.read_image(tmp_path / "experts.png").std() > 0


def test_an_unknown_mixture_is_named(report) -> None:
    with pytest.raises(KeyError, match=r"encoder\.degradation \(visible\)"):
        report["encoder.degradatoin"]
    with pytest.raises(KeyError, match=r"known: "):
        report["encoder.stages.0.2"]  # ran twice: say which


def test_networks_without_mixtures_are_refused(scene) -> None:
    with pytest.raises(TypeError, match="'laplacian' has no mixtures of experts"):
        fb.expert_report(fb.create_model("laplacian"), scene.infrared, scene.visible)
    for wrong in ("sgafusion", nn.Identity()):
        with pytest.raises(TypeError, match="model must be a FusionModel"):
            fb.expert_report(wrong, scene.infrared, scene.visible)


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    pass


class Own(fb.FusionModel):
    """A network of one's own, its mixture at half the size and run twice."""

    name, config_class = "own", OwnConfig

    def __init__(self) -> None:
        super().__init__()
        self.mixture = fb.MixtureOfExperts(1, experts=[nn.Identity(), nn.Identity()], names=["keep", "also keep"])

    def forward(self, infrared: Tensor, visible: Tensor) -> fb.FusionOutput:
        half = nn.functional.avg_pool2d(infrared, 2, ceil_mode=True)
        mixed = self.mixture(self.mixture(half))
        return fb.FusionOutput(fused=nn.functional.interpolate(mixed, visible.shape[2:]))


def test_a_network_of_ones_own(scene) -> None:
    report = fb.expert_report(Own(), scene.infrared, scene.visible)
    assert [mixture.title for mixture in report.mixtures] == ["mixture", "mixture"]
    assert report.mixtures[0].experts == ("keep", "also keep")
    assert report.mixtures[0].weights.shape == (1, 2, 21, 27)
    assert report.mixtures[0].overlay(report.visible).shape == (1, 3, 41, 54)

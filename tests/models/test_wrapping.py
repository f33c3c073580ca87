"""A network of one's own goes everywhere: fused with, optimized, trained, saved, named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks.models import as_network, inner_model, list_models, model_class, visible_of
from fusionblocks.training import read_log, train
from tests.helpers.command import run

ARRAYS = (
    np.random.default_rng(0).integers(0, 256, (40, 52), np.uint8),
    np.random.default_rng(1).integers(0, 256, (40, 52, 3), np.uint8),
)


class Luma(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.norm(self.embed(infrared) + self.embed(visible))))


@fb.models.fusion_output
class RgbOutput(fb.FusionOutput):
    source: Tensor | None = None


class Rgb(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> fb.FusionOutput:
        return RgbOutput(fused=self.head(torch.cat([a, b], dim=1)).sigmoid(), source=b)


class Coarse(Luma):
    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        if infrared.shape[2] % 64:
            raise ValueError("multiples of 64")
        return super().forward(infrared, visible)


class Turned(nn.Module):
    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        return infrared + 0 * visible[:, :1]


class Classifier(nn.Module):
    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        return infrared.mean(dim=(2, 3))


@pytest.mark.parametrize(("build", "kind", "channels"), [(Luma, "luma", 1), (Rgb, "rgb", 3), (Coarse, "luma", 1)])
def test_what_visible_is_is_found(build: type[nn.Module], kind: str, channels: int) -> None:
    network = fb.wrap(build())
    assert (network.config.visible, network.fused_channels, network.name) == (kind, channels, build.__name__)
    assert visible_of(network.wrapped) == kind


def test_names_of_arguments_decide_before_their_order() -> None:
    fused = fb.fuse(*ARRAYS, model=Turned())
    assert np.array_equal(fused, fb.fuse(*ARRAYS, model=fb.wrap(Turned(), name="turned")))
    assert abs(fused.mean() - ARRAYS[0].mean()) < 6


def test_the_trial_changes_nothing() -> None:
    module = Luma().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.get_rng_state()
    fb.wrap(module)
    assert module.training
    assert module.norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_the_trial_is_made_once(monkeypatch) -> None:
    module, calls = Luma().eval(), []
    module.register_forward_hook(lambda *args: calls.append(1))
    fb.fuse(*ARRAYS, model=module)
    tried = len(calls)
    fb.fuse(*ARRAYS, model=module)
    assert len(calls) == tried + 1


def test_what_cannot_fuse_says_what_was_tried() -> None:
    with pytest.raises(ValueError, match=r"rgb of 32x32.*returned shape \(1, 1\).*luma of 256x256"):
        fb.fuse(*ARRAYS, model=Classifier())
    with pytest.raises(ValueError, match="Linear cannot fuse"):
        fb.wrap(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="visible must be"):
        fb.wrap(Luma(), visible="gray")
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got str"):
        fb.wrap("psfusion")


def test_a_block_is_optimized_and_a_wrapped_network_too() -> None:
    network = fb.wrap(Luma().eval())
    expected = fb.fuse(*ARRAYS, model=network)
    for fast in (fb.optimize(network), fb.wrap(fb.optimize(network.wrapped))):
        assert abs(fb.fuse(*ARRAYS, model=fast).astype(int) - expected).max() <= 1


def test_weights_come_back_with_the_module_alone(tmp_path: Path) -> None:
    network = fb.wrap(Luma(4), name="mine")
    network.save_pretrained(tmp_path)
    loaded = fb.load_model(Luma(4), tmp_path)
    assert (loaded.name, loaded.config) == ("mine", network.config)
    assert np.array_equal(fb.fuse(*ARRAYS, model=loaded), fb.fuse(*ARRAYS, model=network.eval()))
    for load in (fb.load_model, type(network).from_pretrained):
        with pytest.raises(ValueError, match=r"pass the module.*load_model\(YourNetwork\(\)"):
            load(tmp_path)
    with pytest.raises(ValueError, match="does not fit"):
        fb.load_model(Luma(8), tmp_path)
    lightning = {f"model.{key}": value for key, value in network.wrapped.state_dict().items()}
    torch.save({"state_dict": lightning}, tmp_path / "a.pt")
    again = fb.load_model(Luma(4), tmp_path / "a.pt")
    assert torch.equal(again.wrapped.embed.weight, network.wrapped.embed.weight)


@pytest.mark.parametrize("build", [Luma, Rgb])
def test_it_is_trained_as_it_is(build: type[nn.Module], tmp_path: Path) -> None:
    pairs = [fb.data.synthetic_scene(seed, height=32, width=32)._asdict() for seed in range(4)]
    recipe = {"phases": {"fusion": {"objective": "fusion", "steps": 3, "batch": 2}}}
    module = build()
    before = module.head.weight.detach().clone()
    trained = train(recipe, pairs, output=tmp_path, model=module, progress=False)
    assert len(read_log(tmp_path)) == 3
    assert not torch.equal(inner_model(trained).head.weight, before)
    assert fb.fuse(*ARRAYS, model=trained).shape == (40, 52, 3)


@pytest.mark.parametrize("within", ["compiled", "parallel", "averaged", "averaged and parallel"])
def test_a_network_within_another_runs_by_it(within: str) -> None:
    network, ran = fb.create_model("laplacian", levels=2), []
    if within == "compiled":

        def backend(graph, inputs):
            ran.append(1)
            return graph.forward

        outer: nn.Module = torch.compile(network, backend=backend)
    else:
        outer = nn.DataParallel(network) if within == "parallel" else torch.optim.swa_utils.AveragedModel(network)
        outer = nn.DataParallel(outer) if within == "averaged and parallel" else outer
        outer.register_forward_hook(lambda *args: ran.append(1))
    assert inner_model(outer).name == as_network(outer).name == "laplacian"
    assert np.array_equal(fb.fuse(*ARRAYS, model=outer), fb.fuse(*ARRAYS, model=network))
    assert ran


FILE = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self, weight: float = 0.5, *, names=()):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(weight)))
        self.names = list(names)

    def forward(self, infrared, visible):
        return torch.lerp(visible.mean(1, keepdim=True), infrared, self.weight)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
    fb.image.write_image(tmp_path / "ir/1.png", ARRAYS[0])
    fb.image.write_image(tmp_path / "vi/1.png", ARRAYS[1])
    (tmp_path / "my_networks.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def fuse_with(folder: Path, *arguments: object) -> tuple[int, str]:
    pictures = ("--infrared", folder / "ir/1.png", "--visible", folder / "vi/1.png", "--output", folder / "fused.png")
    return run("fuse", *pictures, *arguments)


@pytest.mark.parametrize("place", ["my_networks", "my_networks.py"])
def test_the_command_line_takes_a_class(own: Path, place: str) -> None:
    model = f"{own / place if place.endswith('.py') else place}:Mean"
    code, output = fuse_with(own, "--model", model, "--set", "weight=1", "--set", "names=[a, b]")
    assert code == 0, output
    gray = fb.image.read_image(own / "fused.png").astype(float) @ (0.299, 0.587, 0.114)
    assert abs(gray - ARRAYS[0]).mean() < 12
    code, output = fuse_with(own, "--model", model.replace("Mean", "Man"))
    assert (code, "no torch.nn.Module 'Man'; it has Mean" in output) == (2, True)
    code, output = fuse_with(own, "--model", model, "--set", "wieght=1")
    assert (code, "wieght" in output) == (2, True)
    assert fuse_with(own, "--model", "nowhere:Mean")[0] == 2


def test_the_command_line_loads_weights_into_a_class(own: Path) -> None:
    torch.save({"state_dict": {"module.weight": torch.tensor(1.0)}}, own / "weights.pt")
    assert fuse_with(own, "--model", "my_networks:Mean", "--checkpoint", own / "weights.pt")[0] == 0
    with_weights = fb.image.read_image(own / "fused.png")
    assert fuse_with(own, "--model", "my_networks:Mean", "--set", "weight=1")[0] == 0
    assert np.array_equal(with_weights, fb.image.read_image(own / "fused.png"))


def test_the_command_line_trains_a_class(own: Path) -> None:
    (own / "mine.yaml").write_text("phases:\n  fusion:\n    objective: fusion\n    steps: 2\n    batch: 1\n")
    arguments = ("train", "--recipe", own / "mine.yaml", "--data", own, "--output", own / "run")
    code, output = run(*arguments, "--model", "my_networks:Mean", "--model-set", "weight=0.3")
    assert code == 0, output
    trained = fb.load_model(sys.modules["my_networks"].Mean(), own / "run/weights")
    assert trained.wrapped.weight.item() != 0.3
    assert abs(trained.wrapped.weight.item() - 0.3) < 0.1


def entry(folder: Path, lines: str) -> None:
    info = folder / "others_networks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others-networks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fusionblocks.models]\n{lines}\n")


def test_other_packages_add_networks(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "others_networks.py").write_text(
        "import dataclasses\nimport fusionblocks as fb\n"
        "@dataclasses.dataclass(frozen=True)\nclass Config:\n    gain: float = 1.0\n"
        "class Brighter(fb.FusionModel):\n    name, config_class = 'brighter', Config\n"
        "    def forward(self, infrared, visible):\n"
        "        return fb.FusionOutput(fused=self.config.gain * infrared.maximum(fb.image.luma(visible)))\n"
    )
    entry(
        tmp_path,
        "brighter = others_networks:Brighter\nbroken = others_networks:Nothing\npsfusion = others_networks:Brighter\n"
        "config = others_networks:Config",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="'psfusion' of others_networks:Brighter is left out"):
        assert {"brighter", "psfusion", "broken"} <= set(list_models())
    assert model_class("psfusion") is fb.PSFusion
    assert fb.create_model("brighter", gain=0.5).config.gain == 0.5
    assert fb.fuse(*ARRAYS, model="brighter").shape == (40, 52, 3)
    with pytest.raises(ValueError, match="'broken' of others_networks:Nothing cannot be imported"):
        fb.create_model("broken")
    with pytest.raises(ValueError, match="not a subclass of FusionModel"):
        fb.create_model("config")
    monkeypatch.undo()
    assert "brighter" not in list_models()

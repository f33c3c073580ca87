"""Files for other programs: they serve all sizes, give what the network gives, and say what they are."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from packaging.version import Version

import fusionblocks as fb
from fusionblocks.deployment import Deployable, psnr, run_file
from tests.helpers.command import run

SIZES = ((2, 70, 90), (1, 64, 64), (3, 7, 5), (1, 1, 1), (1, 2, 3), (2, 1, 40), (1, 133, 97))
PSFUSION = {
    "backbone": "resnet18",
    "backbone_channels": (8, 8, 16, 16),
    "semantic_channels": 8,
    "scene_channels": 8,
}


@pytest.fixture(scope="module")
def default() -> fb.FusionModel:
    return fb.create_model("fusionblocks")


@pytest.fixture(scope="module")
def onnx_file(default: fb.FusionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fb.export(default, tmp_path_factory.mktemp("files") / "net.onnx", colour=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_onnx_file_serves_all_sizes_and_batches(
    onnx_file: Path, default: fb.FusionModel, size: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    graph = Deployable(default, colour=True)
    batch, height, width = size
    inputs = graph.example(height, width, batch)
    assert torch.allclose(run_file(onnx_file, inputs), graph(*inputs)["fused"], atol=1e-5)


def test_colour_in_the_graph_is_what_fuse_gives(onnx_file: Path) -> None:
    scene = fb.data.synthetic_scene(1, height=60, width=80)
    arrays = [(255 * x).round().to(torch.uint8).permute(1, 2, 0).numpy() for x in (scene.infrared, scene.visible)]
    expected = fb.fuse(*arrays).astype(int)
    inputs = [torch.from_numpy(x).permute(2, 0, 1)[None] / 255 for x in arrays]
    found = (255 * run_file(onnx_file, inputs)[0]).round().permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1


def test_the_file_says_what_it_is_and_nothing_of_this_machine(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [entry.name for entry in model.graph.input] == ["infrared", "visible"]
    assert [entry.name for entry in model.graph.output] == ["fused"]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["fusionblocks"] == fb.__version__
    assert said["model"] == "fusionblocks"
    assert said["license"] == fb.FusionBlocksNet.license_note
    assert "[0, 1]" in said["inputs"]
    assert str(Path(fb.__file__).parent).encode() not in onnx_file.read_bytes()


def test_half_precision_is_near_and_smaller(default: fb.FusionModel, onnx_file: Path, tmp_path: Path) -> None:
    scene = fb.data.synthetic_scene(2, height=64, width=96)
    pair = scene.infrared[None], scene.visible[None]
    path = fb.export(default, tmp_path / "half.onnx", dtype=torch.float16, dynamic=False, size=(64, 96), check=pair)
    assert psnr(run_file(path, pair), default(*pair).fused) > 45
    assert path.stat().st_size < onnx_file.stat().st_size
    assert next(default.parameters()).dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 33, 50), (2, 7, 5), (1, 64, 64)], ids=str)
def test_a_program_of_pytorch_serves_all_sizes(laplacian_program: Path, size: tuple[int, int, int]) -> None:
    graph = Deployable(fb.create_model("laplacian", levels=3))
    inputs = graph.example(*size[1:], size[0])
    assert torch.allclose(run_file(laplacian_program, inputs), graph(*inputs)["fused"], atol=1e-5)


@pytest.fixture(scope="module")
def laplacian_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(fb.create_model("laplacian", levels=3), tmp_path_factory.mktemp("files") / "net.pt2")


def exported(model: fb.FusionModel, path: Path) -> Path:
    """Return the file for all sizes, or skip where this PyTorch cannot record one, which the error says."""
    try:
        return fb.export(model, path)
    except ValueError as error:
        if Version(torch.__version__).release >= (2, 14) or "dynamic must be False for" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (5, 40)], ids=str)
def test_the_pyramid_of_a_file_has_the_levels_that_the_picture_has(size: tuple[int, int], pyramid: Path) -> None:
    model = fb.create_model("laplacian", levels=3)
    inputs = Deployable(model).example(*size)
    assert torch.allclose(run_file(pyramid, inputs), model(*inputs).fused, atol=1e-5)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(fb.create_model("laplacian", levels=3), tmp_path_factory.mktemp("files") / "net.onnx")


def test_outputs_are_named_and_chosen() -> None:
    torch.manual_seed(0)
    network = fb.create_model("psfusion", pretrained=False, **PSFUSION).eval()
    graph = Deployable(network)
    inputs = graph.example(32, 32)
    everything = graph(*inputs)
    assert set(everything) == {"fused", "segmentation", "binary", "boundary", "visible_out", "infrared_out"}
    assert set(Deployable(network, outputs=("fused",))(*inputs)) == {"fused"}
    for name, expected in (("fused", network(*inputs).fused), ("visible_out", network(*inputs).visible)):
        assert torch.equal(everything[name], expected)
    features = Deployable(fb.SMFNet(channels=16, num_heads=4, base_layers=1, base_depth=1))(*inputs)
    assert "features_base_infrared" in features


def test_guidance_is_an_input_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = fb.SGAFusion(channels=4, semantic_channels=8).eval()
    graph = Deployable(network, outputs=("fused",))
    assert graph.inputs == ("infrared", "visible", "semantic")
    path = fb.export(network, tmp_path / "net.onnx", outputs=("fused",), dynamic=False, size=(32, 40))
    assert [entry.name for entry in onnx.load(path).graph.input] == ["infrared", "visible", "semantic"]
    inputs = (*graph.example(32, 40)[:2], torch.rand(1, 8))
    assert torch.allclose(run_file(path, inputs), network(*inputs).fused, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"path": "net.pth"}, "the ending of path must be one of '.onnx', '.pt2', got '.pth'"),
        ({"path": "net.onnx", "opset": 9}, "opset must be at least 18, got 9"),
        ({"path": "net.onnx", "dtype": torch.int8}, "dtype must be one of"),
        ({"path": "net.onnx", "dtype": torch.bfloat16}, "dtype must be torch.float16 or torch.float32 for ONNX"),
        ({"path": "net.onnx", "compiled": True}, "compiled asks for a path that ends in .pt2"),
        ({"path": "net.onnx", "outputs": ("colour",)}, "outputs must be names out of fused"),
        ({"path": "net.onnx", "dynamic": False, "size": (0, 9)}, "height must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_named(tmp_path: Path, options: dict, error: str) -> None:
    path = tmp_path / options.pop("path")
    with pytest.raises(ValueError, match=error):
        fb.export(fb.create_model("laplacian"), path, **options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_near_enough_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporting = importlib.import_module("fusionblocks.deployment.exporting")
    monkeypatch.setattr(exporting, "verify", lambda *_: 40.0)
    pair = torch.rand(1, 1, 16, 16), torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"40.0 dB from the network's own, 80 are asked for"):
        fb.export(
            fb.create_model("laplacian", levels=2), tmp_path / "net.pt2", dynamic=False, size=(16, 16), check=pair
        )
    assert not list(tmp_path.iterdir())


def test_a_graph_that_fails_other_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporting = importlib.import_module("fusionblocks.deployment.exporting")
    model = fb.create_model("laplacian", levels=1)
    fb.export(model, tmp_path / "net.onnx")
    (tmp_path / "net.onnx").unlink()
    monkeypatch.setattr(exporting, "verify", lambda *_: 40.0)
    for name in ("net.onnx", "net.pt2"):
        with pytest.raises(
            ValueError, match="dynamic must be False for laplacian: a graph for all sizes fails a batch"
        ):
            fb.export(model, tmp_path / name)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: [][0])
    with pytest.raises(
        ValueError, match="dynamic must be False for laplacian with PyTorch .*: list index out of range"
    ):
        fb.export(model, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporting = importlib.import_module("fusionblocks.deployment.exporting")

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(exporting, "import_module", missing)
    with pytest.raises(ImportError, match=r'onnx is not installed: pip install "fusionblocks\[export\]"'):
        fb.export(fb.create_model("laplacian"), tmp_path / "net.onnx")


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    status, said = run("export", "--model", "laplacian", "--set", "levels=2", "--size", 24, 33, "--output", path)
    assert status == 0, said
    assert "laplacian, single pairs of 24x33" in said
    assert "dB to the network" in said
    assert path.is_file()
    status, said = run("export", "--model", "laplacian", "--output", tmp_path / "net.tflite")
    assert status == 2
    assert "the ending of path must be one of" in said

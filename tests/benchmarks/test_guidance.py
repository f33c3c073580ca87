from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import fusionblocks as fb
from benchmarks import guidance


def test_a_pair_of_files_is_read_as_fusion_reads_it(tmp_path: Path) -> None:
    scene = fb.data.synthetic_scene(1, height=40, width=56)
    files = []
    for kind in ("infrared", "visible"):
        picture = getattr(scene, kind).expand(3, -1, -1)
        files.append(str(tmp_path / f"{kind}.png"))
        fb.image.write_image(files[-1], fb.image.tensor_to_array(picture))
    infrared, visible = guidance.pictures(guidance.Case("clip", 40, 56, (files[0], files[1])))
    assert infrared.shape == (1, 1, 40, 56)
    assert visible.shape == (1, 3, 40, 56)
    torch.testing.assert_close(visible[0], scene.visible, rtol=0, atol=0.51 / 255)
    torch.testing.assert_close(infrared[0], scene.infrared, rtol=0, atol=0.01)


class Colour(torch.nn.Module):
    def forward(self, visible: torch.Tensor) -> torch.Tensor:
        return visible.mean((2, 3))


def small() -> fb.FusionModel:
    return fb.create_model("sgafusion", guidance=Colour(), channels=4, semantic_channels=3)


def test_a_row_says_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # in this process: what a spawned one would build is the published size
    part = guidance.PARTS["sgafusion"]
    monkeypatch.setitem(guidance.PARTS, "sgafusion", guidance.Part(small, part.call, part.settings))
    monkeypatch.setattr(guidance.multiprocessing, "get_context", lambda method: Here)
    table = tmp_path / "guidance.csv"
    arguments = ["sgafusion", "--size", "72x64", "--threads", "1", "--repeats", "2", "--output", str(table)]
    assert guidance.main(arguments) == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["name"], row["width"], row["height"], row["repeats"]) == ("sgafusion", "72", "64", "2")
    assert 0 < float(row["p20_s"]) <= float(row["p50_s"]) <= float(row["p80_s"])
    assert float(row["weights_mib"]) >= 0
    assert int(row["peak_mib"]) >= 0
    assert "open_clip_torch" in row["versions"]


class Here:
    """A process pool that is this process."""

    def __init__(self, _: int) -> None:
        pass

    @classmethod
    def Pool(cls, count: int) -> Here:
        return cls(count)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, function, arguments):
        return function(*arguments)


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        guidance.main(["clpi"])
    assert "clip, sgafusion, sam, sgdfuse" in capsys.readouterr().err

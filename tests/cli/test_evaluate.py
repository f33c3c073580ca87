from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fusionblocks as fb
from fusionblocks.metrics import FusionEvaluator, evaluate, read_gray_levels
from tests.helpers.command import run

NAMES = ("1", "2", "10")


def write(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three scenes; ``mean`` is nearer to both sources than ``noisy``, which has the higher contrast."""
    random = np.random.default_rng(0)
    for name in NAMES:
        infrared = random.integers(0, 256, (48, 60), np.uint8)
        visible = random.integers(0, 256, (48, 60, 3), np.uint8)
        write(tmp_path / "ir" / f"{name}.png", infrared)
        write(tmp_path / "vis" / f"{name}.png", visible)
        mean = (infrared.astype(float) + visible.mean(2)) / 2
        write(tmp_path / "out/mean" / f"{name}.png", mean.astype(np.uint8))
        noisy = np.clip(3 * (mean - 127) + random.normal(127, 30, mean.shape), 0, 255)
        write(tmp_path / "out/noisy" / f"{name}.png", np.repeat(noisy.astype(np.uint8)[:, :, None], 3, 2))
    return tmp_path


def call(folders: Path, *more: object) -> tuple[int, str]:
    sources = ("--infrared", folders / "ir", "--visible", folders / "vis")
    return run("evaluate", *sources, "--fused", folders / "out/mean", folders / "out/noisy", *more)


def rows_of(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open(newline="") as stream:
        return {(row.pop("method"), row.pop("image")): row for row in csv.DictReader(stream)}


def test_values_are_those_of_evaluate(folders: Path) -> None:
    file = folders / "all.csv"
    assert call(folders, "--csv", file, "--metrics", "EN, MSE,SSIM", "--convention", "smfnet")[0] == 0
    rows = rows_of(file)
    assert list(rows) == [(method, name) for method in ("mean", "noisy") for name in NAMES]
    for (method, name), row in rows.items():
        pictures = [read_gray_levels(folders / part / f"{name}.png") for part in (f"out/{method}", "ir", "vis")]
        expected = evaluate(*pictures, metrics=("EN", "MSE", "SSIM"), convention="smfnet")
        assert {metric: float(text) for metric, text in row.items()} == {m: v.item() for m, v in expected.items()}


def test_markdown_has_the_best_in_bold_and_nothing_else_on_the_output(folders: Path) -> None:
    code, output = call(folders, "--metrics", "SD,MSE", "--format", "markdown")
    assert code == 0
    lines = [line for line in output.splitlines() if line.startswith("|")]
    assert lines[0] == "| method | SD ↑ | MSE ↓ |"
    assert re.fullmatch(r"\| mean \| [\d.]+ \| \*\*[\d.]+\*\* \|", lines[2])
    assert re.fullmatch(r"\| noisy \| \*\*[\d.]+\*\* \| [\d.]+ \|", lines[3])


def test_the_terminal_has_a_column_a_method_and_latex_a_row(folders: Path) -> None:
    code, output = call(folders, "--metrics", "SD,MSE")
    assert code == 0
    assert re.search(r"metric\W+mean\W+noisy", output)
    assert re.search(r"MSE ↓\W+[\d.]+\W+[\d.]+", output)
    assert "3 pictures, convention cddfuse, 0 skipped" in output
    assert r"mean & " in call(folders, "--metrics", "SD", "--format", "latex")[1]


def test_wide_tables_are_not_cut(folders: Path) -> None:
    for i in range(12):
        for name in NAMES:
            write(folders / f"more/a_method_with_a_long_name_{i}" / f"{name}.png", np.full((48, 60), 9 * i, np.uint8))
    more = [folders / f"more/a_method_with_a_long_name_{i}" for i in range(12)]
    _, output = call(folders, *more, "--metrics", "SD")
    assert all(f"a_method_with_a_long_name_{i}" in output for i in range(12))
    assert "…" not in output


def test_all_metrics_are_scored_on_request(folders: Path) -> None:
    for file in folders.rglob("*.png"):  # large enough for every scale
        Image.open(file).resize((200, 180)).save(file)
    file = folders / "all.csv"
    assert call(folders, "--metrics", "all", "--csv", file)[0] == 0
    assert list(rows_of(file)["mean", "1"]) == list(FusionEvaluator().metrics)


def test_what_cannot_be_read_is_reported_and_left_out_for_all_methods(folders: Path) -> None:
    broken = folders / "out/mean/2.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (folders / "out/noisy/10.png").unlink()
    file = folders / "all.csv"
    code, output = call(folders, "--metrics", "SD", "--csv", file)
    assert code == 1
    assert re.search(r"skipped: 2: .*out/mean/2\.png", output)
    assert "skipped: 10: not in the noisy folder" in output
    assert "1 picture, convention cddfuse, 2 skipped" in output
    assert list(rows_of(file)) == [("mean", "1"), ("noisy", "1")]


def test_a_picture_of_another_size_or_depth_names_the_method_or_the_file(folders: Path) -> None:
    Image.open(folders / "out/noisy/1.png").resize((40, 44)).save(folders / "out/noisy/1.png")
    write(folders / "out/noisy/2.png", np.full((48, 60), 30000, np.uint16))
    code, output = call(folders, "--metrics", "SD")
    assert code == 1
    assert re.search(r"skipped: 1: noisy: .*44x40 and 48x60", output)
    assert re.search(r"skipped: 2: .*noisy/2\.png has 16 bits", output)
    assert "1 picture," in output


def test_nothing_to_score_is_a_failure_without_a_table(folders: Path) -> None:
    for file in (folders / "ir").iterdir():
        file.write_bytes(b"no picture")
    code, output = call(folders, "--csv", folders / "all.csv")
    assert code == 1
    assert "0 pictures, convention cddfuse, 3 skipped" in output
    assert not (folders / "all.csv").exists()


def test_values_that_are_not_finite_are_told(folders: Path) -> None:
    for part in ("vis", "out/mean"):
        (folders / part / "1.png").write_bytes((folders / "ir/1.png").read_bytes())
    code, output = call(folders, "--metrics", "PSNR")
    assert code == 0
    assert "warning: mean: PSNR is not finite for 1 of 3 pictures (1)" in output


def test_plot_is_written(folders: Path) -> None:
    pytest.importorskip("matplotlib")
    assert call(folders, "--metrics", "EN,SD,CC", "--plot", folders / "curves.png")[0] == 0
    assert Image.open(folders / "curves.png").size[0] > 1000
    assert not list(folders.glob(".*"))


def test_methods_of_one_name_are_told_apart_by_their_folders(folders: Path) -> None:
    for name in NAMES:
        write(folders / "a/test" / f"{name}.png", np.zeros((48, 60), np.uint8))
        write(folders / "b/test" / f"{name}.png", np.ones((48, 60), np.uint8))
    arguments = ("--infrared", folders / "ir", "--visible", folders / "vis", "--metrics", "SD", "--format", "markdown")
    _, output = run("evaluate", *arguments, "--fused", folders / "a/test", "--fused", folders / "b/test")
    assert "| a/test |" in output
    assert "| b/test |" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "EN,SSMI"), "did you mean 'SSIM'"),
        (("--metrics", ""), "unknown metric"),
        (("--convention", "cddfus"), "did you mean 'cddfuse'"),
        (("--infrared", "absent"), "infrared must be a folder"),
        (("--plot", "curves.bmp"), "curves.bmp"),
        (("--plot", "absent/curves.png"), "absent/curves.png"),
        (("--csv", "absent/all.csv"), "absent/all.csv"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--fused", "out/mean"), "twice"),
    ],
)
def test_bad_calls_say_why_in_one_line(folders: Path, monkeypatch, options: tuple, message: str) -> None:
    monkeypatch.chdir(folders)
    code, output = call(folders, *options)
    assert code == 2
    assert message in output
    assert len(output.strip().splitlines()) == 1


def test_a_folder_cannot_be_source_and_result(folders: Path) -> None:
    code, output = call(folders, folders / "ir")
    assert code == 2
    assert "infrared and ir are the same folder" in output


def test_pairs_are_read_as_fuse_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts = (29000 + np.cumsum(random.integers(-20, 21, (80, 100)), axis=1)).astype(np.uint16)
    visible = random.integers(0, 256, (80, 100, 3), np.uint8)
    fused = random.integers(0, 256, (80, 100, 3), np.uint8)
    write(tmp_path / "ir/a_ir.png", counts)
    write(tmp_path / "vis/a_vi.png", visible)
    write(tmp_path / "out/a.png", fused)
    both = ("--infrared", tmp_path / "ir", "--visible", tmp_path / "vis")
    ranged = ("--thermal-range", "28900", "29200", "--black-hot")
    table = tmp_path / "table.csv"
    code, output = run("evaluate", *both, "--fused", tmp_path / "out", *ranged, "--metrics", "MSE", "--csv", table)
    assert code == 0
    assert "1 pair by suffix _ir / _vi" in output
    levels = 1 - fb.image.scale_range(counts, 28900, 29200)
    infrared = torch.from_numpy(levels * 255).round().to(torch.uint8)[None, None]
    sources = (infrared, read_gray_levels(tmp_path / "vis/a_vi.png"))
    expected = evaluate(read_gray_levels(tmp_path / "out/a.png"), *sources, metrics=("MSE",))
    assert float(rows_of(table)["out", "a"]["MSE"]) == expected["MSE"].item()


def test_a_single_triple_is_scored(folders: Path) -> None:
    files = (
        "--infrared",
        folders / "ir/1.png",
        "--visible",
        folders / "vis/1.png",
        "--fused",
        folders / "out/mean/1.png",
    )
    code, output = run("evaluate", *files, "--metrics", "SD")
    assert code == 0
    assert "1 picture," in output
    code, output = run("evaluate", *files[:-1], folders / "none.png")
    assert code == 2
    assert "there is no none.png picture or folder" in output


def test_vifb_scores_colour_by_its_channels(folders: Path) -> None:
    random = np.random.default_rng(1)
    for name in NAMES:
        write(folders / "out/colour" / f"{name}.png", random.integers(0, 256, (48, 60, 3), np.uint8))
    table = folders / "all.csv"
    sources = ("--infrared", folders / "ir", "--visible", folders / "vis", "--fused", folders / "out/colour")
    more = ("--convention", "vifb", "--metrics", "SD,SF,CE", "--csv", table)
    assert run("evaluate", *sources, folders / "out/mean", *more)[0] == 0
    rows = rows_of(table)
    for name in NAMES:
        infrared = read_gray_levels(folders / f"ir/{name}.png")
        colours = [
            torch.from_numpy(fb.image.read_image(folders / part / f"{name}.png")).permute(2, 0, 1)[None]
            for part in ("out/colour", "vis")
        ]
        expected = evaluate(colours[0], infrared, colours[1], ("SD", "SF", "CE"), "vifb")
        gray = [read_gray_levels(folders / part / f"{name}.png") for part in ("out/mean", "ir", "vis")]
        of_gray = evaluate(*gray, ("SD", "SF", "CE"), "vifb")
        for metric in expected:
            assert float(rows["colour", name][metric]) == expected[metric].item()
            assert float(rows["mean", name][metric]) == of_gray[metric].item()

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import harness, quality, report
from fusionblocks.data import open_dataset, synthetic_scene
from fusionblocks.image import tensor_to_array, write_image
from fusionblocks.training import load_recipe


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Five small pairs of each set, split."""
    for name in quality.SETS:
        for seed in range(5):
            scene = synthetic_scene(seed, height=64, width=72)
            for side, picture in (("ir", scene.infrared), ("vi", scene.visible)):
                file = tmp_path / "data" / name / side / f"{seed}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_image(file, tensor_to_array(picture))
    quality.split(tmp_path / "data", tmp_path / "split")
    return tmp_path / "split"


def test_the_split_judges_by_pairs_that_nothing_learned_from(pairs: Path) -> None:
    learned, judged = (open_dataset(pairs, split).names for split in ("train", "val"))
    assert judged == [f"{name}_3" for name in sorted(quality.SETS)]
    assert len(learned) == 16
    assert not set(learned) & set(judged)


def test_methods_are_judged_set_by_set(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = quality.judge(torch.maximum, open_dataset(pairs, "val"))
    assert list(scores) == ["roadscene (1 pairs)", "msrs, m3fd, llvip (3 pairs)"]
    for means in scores.values():
        assert list(means) == [*quality.METRICS, quality.BURNT]
    rows = quality.rows_of("maximum", scores)
    assert rows[0]["SD"] == f"{scores['roadscene (1 pairs)']['SD']:.3f}"
    assert "maximum" in capsys.readouterr().out
    own = quality.judge(quality.methods()["fusionblocks"], open_dataset(pairs, "val"))
    assert own["roadscene (1 pairs)"]["SD"] > scores["roadscene (1 pairs)"]["SD"]


def test_each_ablation_lacks_one_term() -> None:
    plain = load_recipe("fusionblocks").plain()
    phase = plain["phases"][0]
    variants = quality.ablations(plain)
    assert len(variants) == len(phase["losses"]) + 1
    for name, changes in variants.items():
        recipe = load_recipe("fusionblocks", changes).phases[0]
        assert recipe.steps == quality.STEPS
        missing = set(phase["losses"]) - set(recipe.losses)
        assert missing == ({name.removeprefix("without ")} if name != "all terms" else set())


def test_the_newest_row_of_a_variant_counts(tmp_path: Path) -> None:
    rows = [{"variant": "a", "set": "x", "EN": value} for value in ("1", "2")]
    harness.append_rows(tmp_path / "quality.csv", rows)
    assert report.newest("quality", ("variant", "set"), tmp_path) == rows[1:]
    assert report.newest("absent", ("variant", "set"), tmp_path) == []

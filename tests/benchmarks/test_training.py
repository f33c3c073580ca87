from __future__ import annotations

import pytest
import torch

from benchmarks import training
from fusionblocks.models import model_class
from fusionblocks.training import list_recipes, load_recipe
from fusionblocks.training.objectives import objective_class


def test_a_row_for_each_variant() -> None:
    threads = torch.get_num_threads()
    try:
        words = "psfusion --steps 2 --pairs 4 --rounds 1 --size 72 80 --clock cpu"
        rows = list(training.throughput(training.arguments(words.split())))
    finally:
        torch.set_num_threads(threads)
    assert [row["precision"] for row in rows] == [variant["precision"] for variant in training.VARIANTS]
    for row in rows:
        assert float(row["published_pairs_per_s"]) > 0
        assert float(row["pairs_per_s"]) > 0
        assert 0 <= float(row["waiting"]) < 1


def test_only_published_loops_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.arguments(["smfnet"])
    assert "no published loop for 'smfnet'" in capsys.readouterr().err


def test_scenes_have_what_every_recipe_asks_for() -> None:
    (scene,) = training.scenes(1)
    for name in list_recipes():
        recipe = load_recipe(name)
        guidance = model_class(str(recipe.model)).guidance_names
        for phase in recipe.phases:
            made = {"clean_visible"} if phase.degrade else set()
            assert {*objective_class(phase.objective).inputs, *guidance} <= scene.keys() | made, (name, phase.name)

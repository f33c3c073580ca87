from __future__ import annotations

import pytest
import torch

from benchmarks import training
from fusionblocks.training import list_recipes


def test_a_row_for_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROUNDS", 1)
    monkeypatch.setattr(training, "PUBLISHED", {"psfusion": training.PublishedMultiTask})
    threads = torch.get_num_threads()
    try:
        rows = list(training.throughput(2, 4, (72, 80), "cpu"))
    finally:
        torch.set_num_threads(threads)
    assert [row["precision"] for row in rows] == list(training.PRECISIONS)
    for row in rows:
        assert float(row["published_pairs_per_s"]) > 0
        assert float(row["pairs_per_s"]) > 0
        assert 0 <= float(row["waiting"]) < 1


def test_scenes_have_what_every_recipe_asks_for() -> None:
    (scene,) = training.scenes(1)
    needed = {"infrared", "visible", "labels", "binary", "boundary", "salient", "semantic", "infrared_mask"}
    assert needed <= scene.keys()
    assert "smfnet" in list_recipes()

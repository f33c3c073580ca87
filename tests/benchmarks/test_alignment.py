from __future__ import annotations

import numpy as np
import pytest

import fusionblocks as fb
from benchmarks import alignment as bench
from fusionblocks.image import planar, write_image


def test_moved_pairs_carry_their_truth() -> None:
    """What a pixel of the moved picture shows lies where the true map says."""
    y, x = np.mgrid[:90, :120].astype(np.float32)
    picture = 0.5 + 0.2 * np.sin(x / 6) + 0.2 * np.cos(y / 7)
    for draw in (bench.random_similarity, bench.random_homography):
        infrared, visible, truth = bench.moved([(picture, picture)], draw, np.random.default_rng(3), 0, 1)
        height, width = infrared[0].shape
        assert height < 90 or width < 120, "no black border is left"
        points = np.array([[width / 2, height / 2], [width / 4, height / 3]]).round()
        there = planar.mapped(truth, points)
        for (u, v), (px, py) in zip(there, points.astype(int), strict=True):
            assert infrared[0][py, px] == pytest.approx(0.5 + 0.2 * np.sin(u / 6) + 0.2 * np.cos(v / 7), abs=0.02)
        assert visible[0] is picture


def test_the_table_of_a_small_set(tmp_path, capsys) -> None:
    for name in ("ir", "vi"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for seed in range(2):
        scene = fb.data.synthetic_scene(seed, height=96, width=128)
        for name, picture in (("ir", scene.infrared), ("vi", scene.visible)):
            write_image(tmp_path / "set" / name / f"{seed}.png", fb.image.tensor_to_array(picture))
    sets = bench.read_sets(tmp_path)
    assert list(sets) == ["set"]
    rows = bench.rows_of("set", sets["set"], 1, False)
    kinds = [(kind, count) for kind in ("similarity", "homography", "identity") for count in ("2", "1")]
    assert [tuple(row.split(" | ")[1:3]) for row in rows] == kinds

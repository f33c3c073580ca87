from __future__ import annotations

import numpy as np
import pytest

from fusionblocks.data import synthetic_sequence


def test_somebody_enters_crosses_and_leaves() -> None:
    sequence = synthetic_sequence(7, seed=2, height=64, width=96, noise=0.01)
    assert len(sequence.pairs) == len(sequence.moving) == 7
    assert not sequence.moving[0].any()
    assert not sequence.moving[-1].any()
    # the walker goes from the left to the right
    middles = [np.nonzero(moving)[1].mean() for moving in sequence.moving[1:-1] if moving.sum() > 20]
    assert len(middles) >= 4
    assert middles == sorted(middles)
    first = sequence.pairs[0]
    assert first.infrared.dtype == np.uint16
    assert first.visible.dtype == np.uint8
    for pair, moving in zip(sequence.pairs, sequence.moving, strict=True):
        still = ~moving
        assert np.abs(pair.infrared.astype(int) - first.infrared)[still].mean() < 40  # 0.01 of 4000 counts
        assert np.abs(pair.visible.astype(int) - first.visible)[still].mean() < 5
    # somebody is warm
    moving = sequence.moving[3]
    warmer = sequence.pairs[3].infrared.astype(int) - first.infrared
    assert warmer[moving].max() > 800


def test_the_seed_decides() -> None:
    one, same, other = (synthetic_sequence(3, seed=seed, height=32, width=48) for seed in (4, 4, 5))
    for a, b, c in zip(one.pairs, same.pairs, other.pairs, strict=True):
        assert np.array_equal(a.infrared, b.infrared)
        assert np.array_equal(a.visible, b.visible)
        assert not np.array_equal(a.visible, c.visible)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="frames must be at least 3, got 2"):
        synthetic_sequence(2)
    with pytest.raises(ValueError, match="height must be at least 32, got 8"):
        synthetic_sequence(3, height=8)
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 0.5\], got 2"):
        synthetic_sequence(3, noise=2)

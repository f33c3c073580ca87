from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import fusionblocks as fb
from fusionblocks.image.planar import mapped, mean_displacement

pytest.importorskip("cv2")
RIG = fb.data.synthetic_rig(2, seed=3)
INFRARED = [pair.infrared for pair in RIG.pairs]
VISIBLE = [pair.visible for pair in RIG.pairs]


def matches(count: int = 80, wrong: int = 0, noise: float = 0.5):
    """Return a matcher that knows the truth, but for some matches that are wrong."""
    random = np.random.default_rng(0)

    def find(infrared, visible):
        assert infrared.shape[0] == visible.shape[0] == 3
        assert 0 <= infrared.min() <= infrared.max() <= 1
        here = random.uniform(0, 1, (count, 2)) * [infrared.shape[2], infrared.shape[1]]
        there = mapped(RIG.matrix, here) + noise * random.standard_normal((count, 2))
        there[:wrong] = random.uniform(0, 1, (wrong, 2)) * [visible.shape[2], visible.shape[1]]
        return np.concatenate([here, there], axis=1)

    return find


def apart(rig: fb.Alignment) -> float:
    return mean_displacement(RIG.matrix, rig.matrix, INFRARED[0].shape, VISIBLE[0].shape[:2])


@pytest.mark.parametrize("model", [None, "homography"])
def test_matches_of_all_pairs_tell_the_map(model: str | None) -> None:
    rig = fb.align(INFRARED, VISIBLE, matcher=matches(wrong=30), model=model)
    assert apart(rig) < 0.4
    assert rig.reliable
    assert rig.error < 1
    assert rig.model == (model or "similarity")


def test_matches_by_chance_are_not_reliable() -> None:
    rig = fb.align(INFRARED, VISIBLE, matcher=matches(wrong=78))
    assert not rig.reliable


def test_a_name_is_opened_by_vismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get_matcher(name, device):
        asked.append((name, device))
        points = matches()
        return lambda a, b: dict(zip(("matched_kpts0", "matched_kpts1"), np.hsplit(points(a, b), 2), strict=True))

    module = types.ModuleType("vismatch")
    module.get_matcher = get_matcher
    monkeypatch.setitem(sys.modules, "vismatch", module)
    assert apart(fb.align(INFRARED, VISIBLE, matcher="xoftr")) < 0.4
    assert asked[0][0] == "xoftr"
    monkeypatch.setitem(sys.modules, "vismatch", None)
    with pytest.raises(ImportError, match="'xoftr' needs vismatch: pip install vismatch"):
        fb.align(INFRARED, VISIBLE, matcher="xoftr")


def test_bad_matchers_are_refused() -> None:
    with pytest.raises(TypeError, match="matcher must be a name or callable, got int"):
        fb.align(INFRARED, VISIBLE, matcher=3)
    with pytest.raises(ValueError, match=r"matcher must return an array \(N, 4\).*got shape \(3, 2\)"):
        fb.align(INFRARED, VISIBLE, matcher=lambda a, b: np.zeros((3, 2)))
    with pytest.raises(ValueError, match="the matcher's 0 points tell no map"):
        fb.align(INFRARED, VISIBLE, matcher=lambda a, b: np.zeros((0, 4)))
    with pytest.raises(ValueError, match="points and matcher exclude each other"):
        fb.align(INFRARED, VISIBLE, matcher=matches(), points=np.zeros((4, 4)))

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fusionblocks.guidance import masks_to_map
from fusionblocks.guidance.mask_maps import ENCODINGS, map_to_levels


def from_rows(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


LARGE = from_rows("####.", "####.", "####.")
SMALL = from_rows(".....", ".##..", ".##..")
LATE = from_rows("...##", "...##", ".....")  # as large as SMALL; its first pixel comes earlier
EMPTY = np.zeros((3, 5), bool)


def test_index_is_painted_from_large_to_small() -> None:
    found = masks_to_map(np.stack([SMALL, LARGE]))
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0], [0.5, 1.0, 1.0, 0.5, 0.0], [0.5, 1.0, 1.0, 0.5, 0.0]])
    assert found.dtype == torch.float32
    assert torch.equal(found, expected[None])


def test_binary_is_the_union() -> None:
    found = masks_to_map(np.stack([SMALL, LATE]), "binary")
    assert torch.equal(found[0].bool(), torch.from_numpy(SMALL | LATE))
    assert set(found.unique().tolist()) == {0.0, 1.0}


def test_score_is_the_uppermost_masks() -> None:
    found = masks_to_map(np.stack([LARGE, SMALL]), "score", scores=[0.25, 0.75])
    assert torch.equal(
        found, torch.from_numpy(np.where(SMALL, 0.75, np.where(LARGE, 0.25, 0)).astype(np.float32))[None]
    )


def test_edges_are_outlines_without_the_pictures_border() -> None:
    # LARGE: its right column; SMALL: all but what lies at the lower border between its own pixels
    outline = from_rows("...#.", ".###.", ".###.")
    assert torch.equal(masks_to_map(np.stack([LARGE, SMALL]), "edges")[0].bool(), torch.from_numpy(outline))
    assert not masks_to_map(np.ones((1, 4, 4), bool), "edges").any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_order_of_the_masks_is_nothing_to_the_map(encoding: str) -> None:
    masks = [LARGE, SMALL, LATE, SMALL, EMPTY]  # equal areas, one mask twice with two scores, one empty
    scores = [0.5, 0.9, 0.7, 0.8, 0.6]
    reference = masks_to_map(np.stack(masks), encoding, scores=scores)
    assert reference.any()
    for order in itertools.permutations(range(5)):
        found = masks_to_map(np.stack([masks[i] for i in order]), encoding, scores=[scores[i] for i in order])
        assert torch.equal(found, reference), order


def test_many_random_masks_in_any_order() -> None:
    random = np.random.default_rng(0)
    masks = random.random((40, 9, 11)) < random.random((40, 1, 1))
    for encoding in ENCODINGS:
        reference = masks_to_map(masks, encoding, scores=np.linspace(0, 1, 40))
        for _ in range(5):
            order = random.permutation(40)
            assert torch.equal(masks_to_map(masks[order], encoding, scores=np.linspace(0, 1, 40)[order]), reference)


def test_ties_are_broken_by_content() -> None:
    found = masks_to_map(np.stack([SMALL, LATE]))[0]
    assert found[SMALL & ~LATE].unique().tolist() == [0.5]
    assert found[LATE].unique().tolist() == [1.0]


def test_copies_and_empty_masks_change_nothing() -> None:
    plain = masks_to_map(np.stack([LARGE, SMALL]))
    assert torch.equal(masks_to_map(np.stack([SMALL, EMPTY, LARGE, SMALL, LARGE])), plain)


def test_records_of_segment_anything() -> None:
    records = [
        {"segmentation": LARGE, "area": 12, "predicted_iou": 0.5},
        {"segmentation": SMALL, "area": 4, "predicted_iou": 1.02},
    ]
    for encoding in ENCODINGS:
        stacked = masks_to_map(torch.from_numpy(np.stack([LARGE, SMALL])), encoding, scores=torch.tensor([0.5, 1.02]))
        assert torch.equal(masks_to_map(records, encoding), stacked)
        assert stacked.max() <= 1
    assert not masks_to_map([], size=(3, 5)).any()
    assert masks_to_map([], size=(3, 5)).shape == (1, 3, 5)
    assert not masks_to_map(np.zeros((0, 3, 5)), "score", scores=[]).any()


def test_inputs_stay_as_they_are() -> None:
    masks = np.stack([SMALL, LARGE])
    before = masks.copy()
    for encoding in ENCODINGS:
        masks_to_map(masks, encoding, scores=[0.1, 0.2])
    assert np.array_equal(masks, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoding": "indices"}, ValueError, "encoding must be one of index, binary, score, edges, got 'indices'"),
        ({"encoding": "score"}, ValueError, "scores must be given"),
        ({"encoding": "score", "scores": [1.0, 2.0]}, ValueError, r"scores must have shape \(1,\)"),
        ({"encoding": "score", "scores": [float("nan")]}, ValueError, "scores must be finite"),
        ({"size": (5, 3)}, ValueError, r"size \(5, 3\), got \(3, 5\)"),
        ({"masks": LARGE}, ValueError, r"shape \(N, H, W\).*got \(3, 5\)"),
        ({"masks": np.full((1, 3, 5), 0.5)}, ValueError, "zeros and ones"),
        ({"masks": []}, ValueError, "size must be given"),
        ({"masks": "masks.png"}, TypeError, "masks must be a tensor or array"),
        ({"masks": [LARGE]}, TypeError, "sequence of records"),
        ({"masks": [{"segmentation": LARGE}]}, ValueError, "records with 'predicted_iou'"),
        ({"masks": [{"segmentation": {"counts": []}, "predicted_iou": 1}]}, ValueError, "array .H, W."),
        ({"masks": [{"segmentation": LARGE, "predicted_iou": 1}], "scores": [1.0]}, ValueError, "bring their own"),
    ],
)
def test_bad_masks_are_named(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masks_to_map(**{"masks": LARGE[None], **arguments})


@pytest.mark.parametrize(("count", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (3000, np.uint16)])
def test_levels_keep_every_mask_apart(count: int, dtype: type) -> None:
    # masks one pixel smaller each time, so that each shows one pixel
    masks = np.tri(count, 3000, 3000 - count, dtype=bool).reshape(count, 50, 60)
    painted = masks_to_map(masks)
    levels = map_to_levels(painted)
    assert levels.dtype == dtype
    assert levels.shape == (50, 60)
    assert len(np.unique(levels)) == len(painted.unique())
    assert np.abs(levels / np.iinfo(dtype).max - painted[0].numpy()).max() <= 0.5 / np.iinfo(dtype).max + 1e-6

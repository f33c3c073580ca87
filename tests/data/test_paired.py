"""Pairs as a dataset: what an item is, what chance may decide, what is kept in memory, what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fusionblocks.data import (
    MASKS,
    Compose,
    ImageGroup,
    PairedCrop,
    PairedDegrade,
    PairedFlip,
    PairedImages,
    PairedRotate,
    StreamedPairs,
    UnpairedError,
    boundary_mask,
    open_dataset,
)
from fusionblocks.image import VOID, array_to_tensor, luma, scale_range, thermal_limits, write_image

HEIGHT, WIDTH = 40, 56


def samples(*shape: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def make_pairs(root: Path, count: int = 6, labels: bool = False) -> Path:
    for folder in ("ir", "vi", *(("labels",) if labels else ())):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        write_image(root / "ir" / f"{index}.png", samples(HEIGHT, WIDTH, seed=index))
        write_image(root / "vi" / f"{index}.png", samples(HEIGHT, WIDTH, 3, seed=100 + index))
        if labels:
            write_image(root / "labels" / f"{index}.png", samples(HEIGHT, WIDTH, seed=200 + index) % 9)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"), labels=True)


def opened(root: Path, **options) -> PairedImages:
    return PairedImages(root / "ir", root / "vi", **options)


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


# --- what an item is -------------------------------------------------------------------------------------------------


def test_an_item_is_the_pair_in_floats_with_its_name(root: Path) -> None:
    pairs = opened(root)
    assert len(pairs) == 6
    item = pairs[3]
    assert list(item) == ["infrared", "visible", "name"]
    assert item["name"] == "3"
    expected = {"infrared": samples(HEIGHT, WIDTH, seed=3), "visible": samples(HEIGHT, WIDTH, 3, seed=103)}
    for name, array in expected.items():
        assert torch.equal(item[name], array_to_tensor(name, array))
        assert item[name].dtype == torch.float32
        assert item[name].is_contiguous()
    with pytest.raises(IndexError, match=r"index must lie in \[0, 6\), got 6"):
        pairs[6]


def test_deep_thermal_pictures_are_normalised_whole_and_colours_reduced(tmp_path: Path) -> None:
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
    counts, colours = samples(HEIGHT, WIDTH, dtype=np.uint16), samples(HEIGHT, WIDTH, 3)
    deep = samples(HEIGHT, WIDTH, 3, seed=2, dtype=np.uint16)
    gray = samples(HEIGHT, WIDTH, seed=3)
    for name, infrared, visible in (
        ("deep", counts, deep),
        ("colour", colours, gray),
        ("threefold", np.repeat(gray[..., None], 3, 2), gray),
    ):
        write_image(tmp_path / "ir" / f"{name}.tiff", infrared)
        write_image(tmp_path / "vi" / f"{name}.tiff", visible)
    for cache in (False, True):
        pairs = opened(tmp_path, transform=PairedCrop((16, 24), center=True), cache=cache)
        items = {item["name"]: item for item in (pairs[index] for index in range(3))}
        rows, columns = slice(12, 28), slice(16, 40)
        window = scale_range(counts, *thermal_limits(counts))[rows, columns]
        assert torch.equal(items["deep"]["infrared"][0], torch.from_numpy(window))
        assert torch.equal(items["deep"]["visible"], array_to_tensor("", deep)[:, rows, columns])
        expected = luma(array_to_tensor("", colours)[None])[0, :, rows, columns]
        torch.testing.assert_close(items["colour"]["infrared"], expected)
        single = array_to_tensor("", gray)[:, rows, columns]
        assert torch.equal(items["colour"]["visible"], single.expand(3, -1, -1))
        assert torch.equal(items["threefold"]["infrared"], single)


def test_labels_and_masks_are_derived(root: Path) -> None:
    masks = ("binary", "boundary", "salient")
    item = opened(root, labels=root / "labels", masks=masks, num_classes=9, salient_classes=(1, 2, 3))[0]
    classes = torch.from_numpy(samples(HEIGHT, WIDTH, seed=200) % 9).long()
    assert item["labels"].dtype == torch.int64
    assert torch.equal(item["labels"], classes)
    for name in masks:
        assert item[name].shape == (1, HEIGHT, WIDTH)
        assert item[name].dtype == torch.float32
    assert torch.equal(item["binary"][0], (classes > 0).float())
    assert torch.equal(item["salient"][0], ((classes >= 1) & (classes <= 3)).float())
    edge = item["boundary"][0].bool()
    for row, column in ((0, 0), (5, 5), (HEIGHT - 1, 3)):
        near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [(i, j) for i, j in near if 0 <= i < HEIGHT and 0 <= j < WIDTH]
        assert bool(edge[row, column]) == any(classes[place] != classes[row, column] for place in near)


def test_mask_files_come_before_derived_masks(root: Path, tmp_path: Path) -> None:
    for folder, scale in (("mask", 1), ("bi", 0)):
        (tmp_path / folder).mkdir()
        for index in range(6):
            soft = samples(HEIGHT, WIDTH, seed=300 + index)
            write_image(tmp_path / folder / f"{index}.png", soft if scale else soft % 2)
    masks = {"salient": tmp_path / "mask", "binary": tmp_path / "bi", "boundary": None}
    item = opened(root, labels=root / "labels", masks=masks)[1]
    soft = samples(HEIGHT, WIDTH, seed=301)
    assert torch.equal(item["salient"][0], torch.from_numpy(soft).float() / 255)
    assert torch.equal(item["binary"][0], torch.from_numpy(soft % 2).float()), "zeros and ones are black and white"
    assert set(item["boundary"].unique().tolist()) == {0.0, 1.0}


def test_no_class_is_black_in_mask_files_of_zeros_and_ones(tmp_path: Path) -> None:
    make_pairs(tmp_path, count=3)
    (tmp_path / "binary").mkdir()
    classes = samples(HEIGHT, WIDTH, seed=9) % 2
    classes[:7] = 255
    soft = np.where(classes == 0, 3, classes)
    for name, picture in enumerate((classes, classes // 255 * 255, soft)):
        write_image(tmp_path / "binary" / f"{name}.png", picture)
    pairs = opened(tmp_path, masks={"binary": tmp_path / "binary"})
    assert torch.equal(pairs[0]["binary"][0], torch.from_numpy(classes == 1).float())
    assert torch.equal(pairs[1]["binary"][0], torch.from_numpy(classes == 255).float()), "black and white"
    assert torch.equal(pairs[2]["binary"][0], torch.from_numpy(soft).float() / 255), "soft"


def test_palettes_are_class_numbers_and_ignored_labels_no_class(root: Path, tmp_path: Path) -> None:
    classes = samples(HEIGHT, WIDTH, seed=200) % 9
    classes[:10] = 255
    for index in range(6):
        image = Image.fromarray(classes, mode="P")
        image.putpalette(samples(256, 3).tobytes())
        image.save(tmp_path / f"{index}.png")
    for options in ({}, {"num_classes": 9}, {"ignore_index": 255}, {"salient_classes": (1, 2)}):
        item = opened(root, labels=tmp_path, masks=MASKS, **options)[0]
        assert torch.equal(item["labels"], torch.from_numpy(classes).long())
        assert all(item[mask][0, :10].sum() == 0 for mask in MASKS)
        assert torch.equal(item["binary"][0, 10:].bool(), item["labels"][10:] > 0)
        below = boundary_mask(item["labels"][10:])
        assert torch.equal(item["boundary"][0, 10:].bool(), below), "no class has no border"


def test_a_further_label_to_ignore_becomes_the_one_of_no_class(root: Path) -> None:
    classes = torch.from_numpy(samples(HEIGHT, WIDTH, seed=200) % 9).long()
    for cache in (False, True):
        item = opened(root, labels=root / "labels", masks=MASKS, num_classes=8, ignore_index=8, cache=cache)[0]
        assert torch.equal(item["labels"], torch.where(classes == 8, VOID, classes))
        assert torch.equal(item["binary"][0].bool(), (classes > 0) & (classes < 8))
        assert torch.equal(item["boundary"][0].bool(), boundary_mask(item["labels"]))
    with pytest.raises(ValueError, match=r"hold 7, 8, expected 0 to 6, or 255 for no class"):
        opened(root, labels=root / "labels", num_classes=7)[0]
    with pytest.raises(ValueError, match="num_classes must be at most 255, because the label 255 stands for no class"):
        opened(root, labels=root / "labels", num_classes=256)


def test_labels_of_no_class_move_with_the_pictures(root: Path, tmp_path: Path) -> None:
    classes = samples(HEIGHT, WIDTH, seed=7) % 3
    classes[5:20, 30:] = 255
    for index in range(6):
        write_image(tmp_path / f"{index}.png", classes)
    steps = Compose([PairedCrop((64, 64), pad=True), PairedFlip(vertical=1.0), PairedRotate(), PairedDegrade()])
    pairs = opened(root, labels=tmp_path, masks=MASKS, transform=steps)
    for item in (*(pairs[index] for index in range(6)), *StreamedPairs(pairs, repeats=2)):
        void = item["labels"] == VOID
        assert void.any()
        assert set(item["labels"].unique().tolist()) == {0, 1, 2, VOID}
        assert torch.equal(item["binary"][0].bool(), (item["labels"] > 0) & ~void)
        assert not (item["boundary"][0].bool() & void).any()


# --- what chance decides ---------------------------------------------------------------------------------------------


def augmented(root: Path, **options) -> PairedImages:
    steps = Compose([PairedCrop(24), PairedFlip(), PairedDegrade(("noise",), probability=0.5)])
    return opened(root, labels=root / "labels", transform=steps, **{"seed": 3, **options})


def test_crops_are_the_same_in_every_order_and_other_in_another_epoch(root: Path) -> None:
    pairs = augmented(root)
    state = torch.get_rng_state()
    once = [pairs[index] for index in range(6)]
    for index in reversed(range(6)):
        assert_equal(pairs[index], once[index])
    assert torch.equal(state, torch.get_rng_state())
    pairs.set_epoch(1)
    assert all(not torch.equal(pairs[index]["labels"], once[index]["labels"]) for index in range(6))
    pairs.set_epoch(0)
    assert_equal(pairs[2], once[2])
    other = augmented(root, seed=4)
    assert not torch.equal(other[2]["labels"], once[2]["labels"])


@pytest.mark.parametrize(
    ("workers", "context", "cache"), [(0, None, False), (2, "fork", False), (2, "fork", True), (1, "spawn", True)]
)
def test_crops_are_the_same_for_any_number_of_workers(
    root: Path, workers: int, context: str | None, cache: bool
) -> None:
    pairs = augmented(root, cache=cache)
    loader = DataLoader(
        pairs, batch_size=2, num_workers=workers, multiprocessing_context=context, persistent_workers=workers > 0
    )
    for epoch in range(2):
        pairs.set_epoch(epoch)
        plain = augmented(root)
        plain.set_epoch(epoch)
        for number, batch in enumerate(loader):
            expected = [plain[2 * number], plain[2 * number + 1]]
            assert batch["name"] == [item["name"] for item in expected]
            for name in ("infrared", "visible", "labels"):
                assert torch.equal(batch[name], torch.stack([item[name] for item in expected])), (epoch, name)


def test_a_transform_of_the_user_gets_floats(root: Path) -> None:
    def check(item: dict) -> dict:
        assert item["visible"].dtype == torch.float32
        return {**item, "mean": item["visible"].mean()}

    item = opened(root, transform=Compose([PairedCrop(8), check, PairedCrop(4)]))[0]
    assert item["visible"].shape == (3, 4, 4)
    assert item["visible"].is_contiguous()
    assert "mean" in item


# --- memory ----------------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the files that are read from here on."""
    from fusionblocks.data import _reading

    read: list[Path] = []
    plain = _reading.read_image
    opened = _reading.open_infrared
    monkeypatch.setattr(
        _reading, "open_infrared", lambda name, path, limits=None: (read.append(path), opened(name, path, limits))[1]
    )
    monkeypatch.setattr(_reading, "read_image", lambda path, **options: (read.append(path), plain(path, **options))[1])
    return read


def test_a_cache_reads_each_file_once_and_gives_the_same_items(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [augmented(root)[index] for index in range(6)]
    read = counted(monkeypatch)
    pairs = augmented(root, cache=True)
    assert len(read) == len(set(read)) == 18
    assert pairs.cached == 6
    for _ in range(2):
        for index in range(6):
            assert_equal(pairs[index], plain[index])
    assert len(read) == 18


def test_a_cache_keeps_to_its_bound_and_the_rest_is_read_each_time(root: Path, monkeypatch) -> None:
    size = 4 * (HEIGHT * WIDTH + 64)
    read = counted(monkeypatch)
    pairs = opened(root, cache=3 * size)
    assert pairs.cached == 3
    assert pairs._cache is not None
    assert pairs._cache.nbytes <= 3 * size
    everything = opened(root, cache=True)._cache
    assert everything is not None
    assert everything.nbytes <= 6 * size, "what is not used is given back"
    read.clear()
    for index in range(6):
        assert_equal(pairs[index], opened(root)[index])
    assert [path.stem for path in read if path.parent.name == "ir"].count("0") == 1, "by the plain dataset alone"
    assert [path.stem for path in read if path.parent.name == "ir"].count("5") == 2
    assert opened(root, cache=1).cached == 0


def test_workers_find_the_pictures_in_memory(tmp_path: Path) -> None:
    pairs = augmented(make_pairs(tmp_path, 4, labels=True), cache=True)
    expected = [pairs[index] for index in range(4)]
    for file in list(tmp_path.rglob("*.png")):
        file.unlink()
    loader = DataLoader(pairs, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for item, other in zip(loader, expected, strict=True):
        assert_equal(item, other)


def test_items_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    for split, level in (("train", 10), ("test", 200)):
        for folder in ("ir", "vi"):
            (tmp_path / split / folder).mkdir(parents=True)
            write_image(tmp_path / split / folder / "1.png", np.full((8, 8), level, np.uint8))
    pairs = open_dataset(tmp_path, "all", cache=True)
    assert [round(float(item["infrared"].mean()) * 255) for item in (pairs[0], pairs[1])] == [10, 200]


def test_items_can_be_changed_without_changing_what_is_kept(root: Path) -> None:
    pairs = opened(root, labels=root / "labels", masks=("boundary",), cache=True)
    before = copy.deepcopy(pairs[0])
    for value in pairs[0].values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert_equal(pairs[0], before)


def test_a_subset_shares_the_memory_and_draws_by_itself(root: Path, monkeypatch) -> None:
    pairs = augmented(root, cache=True)
    read = counted(monkeypatch)
    part = pairs.subset([4, 1], transform=PairedCrop(24, center=True))
    assert part.names == ["4", "1"]
    assert not read
    assert torch.equal(part[1]["visible"], opened(root, transform=PairedCrop(24, center=True))[1]["visible"])
    pairs.set_epoch(7)
    assert part.epoch == 0
    with pytest.raises(ValueError, match="at least one item"):
        pairs.subset([])


def test_pickles(root: Path) -> None:
    pairs = augmented(root, cache=True)
    assert_equal(pickle.loads(pickle.dumps(pairs))[3], pairs[3])
    error = pickle.loads(pickle.dumps(UnpairedError("told", ["1", "2"])))
    assert (str(error), error.problems) == ("told", ("1", "2"))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_names_without_a_partner_are_listed(tmp_path: Path) -> None:
    make_pairs(tmp_path, 15)
    for index in range(12):
        (tmp_path / "vi" / f"{index}.png").unlink()
    with pytest.raises(UnpairedError, match="12 names make no pair; pass unpaired='skip'") as caught:
        opened(tmp_path)
    assert "9: only in the infrared folder\n  and 2 more" in str(caught.value)
    assert "10: only" not in str(caught.value)
    assert len(caught.value.problems) == 12
    pairs = opened(tmp_path, unpaired="skip")
    assert pairs.names == ["12", "13", "14"]
    assert len(pairs.problems) == 12
    for index in range(12, 15):
        (tmp_path / "vi" / f"{index}.png").rename(tmp_path / "vi" / f"v{index}.png")
    with pytest.raises(UnpairedError, match="18 names make no pair:"):
        opened(tmp_path, unpaired="skip")


def test_a_picture_without_labels_is_unpaired_too(tmp_path: Path) -> None:
    make_pairs(tmp_path, 2, labels=True)
    (tmp_path / "labels" / "1.png").unlink()
    with pytest.raises(UnpairedError, match="1: not in the labels folder"):
        opened(tmp_path, labels=tmp_path / "labels")


def unequal_pair(root: Path) -> None:
    write_image(root / "ir" / "1.png", samples(HEIGHT, WIDTH + 1))


def unequal_labels(root: Path) -> None:
    write_image(root / "labels" / "1.png", samples(HEIGHT + 2, WIDTH) % 9)


def strange_labels(root: Path) -> None:
    write_image(root / "labels" / "1.png", np.full((HEIGHT, WIDTH), 9, np.uint8) + samples(HEIGHT, WIDTH) % 2 * 11)


def coloured_labels(root: Path) -> None:
    write_image(root / "labels" / "1.png", samples(HEIGHT, WIDTH, 3))


def damaged(root: Path) -> None:
    (root / "vi" / "1.png").write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unequal_pair, r"1: infrared and visible must have the same size, got 40x57 and 40x56 .*ir/1\.png and .*vi/1"),
        (unequal_labels, r"1: labels and visible must have the same size, got 42x56 and 40x56"),
        (strange_labels, r"labels .*labels/1\.png hold 9, 20, expected 0 to 8"),
        (coloured_labels, r"labels .*labels/1\.png must be one number a pixel, got a picture of \(40, 56, 3\)"),
        (damaged, r"vi/1\.png"),
    ],
)
@pytest.mark.parametrize("cache", [False, True])
def test_bad_files_are_named_on_reading(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, cache: bool
) -> None:
    spoil(make_pairs(tmp_path, 2, labels=True))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, labels=tmp_path / "labels", num_classes=9, cache=cache)[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"masks": ("edge",)}, ValueError, "unknown mask: 'edge', expected one of 'binary', 'boundary', 'salient'"),
        ({"masks": ("bondary",)}, ValueError, "did you mean 'boundary'"),
        ({"masks": "binary"}, TypeError, "masks must be a sequence of names"),
        ({"masks": ("binary",)}, ValueError, "the binary mask of 0 has neither a file nor labels"),
        ({"unpaired": "drop"}, ValueError, "unpaired must be 'error' or 'skip', got 'drop'"),
        ({"cache": 0}, ValueError, "cache must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
    ],
)
def test_options_that_are_refused(root: Path, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        opened(root, **options)


def test_empty_folders_and_lists_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="infrared folder .* holds no picture"):
        PairedImages(tmp_path, root / "vi")
    with pytest.raises(NotADirectoryError, match="visible must be a folder"):
        PairedImages(root / "ir", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="there are no pairs"):
        PairedImages.from_groups([])
    with pytest.raises(ValueError, match="1 must have an infrared and a visible file, got infrared"):
        PairedImages.from_groups([ImageGroup("1", {"infrared": root / "ir/1.png"})])


def test_a_crop_larger_than_a_picture_names_the_picture(root: Path) -> None:
    with pytest.raises(ValueError, match="2: a crop of 64x64 does not fit into a picture of 40x56"):
        opened(root, transform=PairedCrop(64))[2]

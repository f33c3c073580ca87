"""Pairs as a stream: shares, versions, mixing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fusionblocks.data import PairedCrop, PairedImages, StreamedPairs
from fusionblocks.image import write_image


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for folder in ("ir", "vi"):
        (root / folder).mkdir()
        for index in range(11):
            samples = np.random.default_rng(index).integers(0, 256, (24, 32), np.uint8)
            write_image(root / folder / f"{index}.png", samples)
    return root


def pairs(root: Path, seed: int = 0) -> PairedImages:
    return PairedImages(root / "ir", root / "vi", transform=PairedCrop(16), seed=seed)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_share_every_version_of_every_pair(root: Path, workers: int, world_size: int) -> None:
    seen: Counter[tuple] = Counter()
    for rank in range(world_size):
        stream = StreamedPairs(pairs(root), repeats=2, buffer=4, rank=rank, world_size=world_size)
        items = [item for batch in DataLoader(stream, 2, num_workers=workers, collate_fn=list) for item in batch]
        assert len(stream) == len(items)
        seen.update((item["name"], item["infrared"].numpy().tobytes()) for item in items)
    data = pairs(root)
    versions = [data.draw(index, repeat) for index in range(11) for repeat in range(2)]
    assert seen == Counter((item["name"], item["infrared"].numpy().tobytes()) for item in versions)
    assert len(seen) > 19, "the versions of a pair are not alike"


def test_one_version_is_what_the_dataset_has(root: Path) -> None:
    data = pairs(root)
    plain = [data[index] for index in range(11)]
    for item in StreamedPairs(data):
        assert torch.equal(item["visible"], plain[int(item["name"])]["visible"])
    assert [item["name"] for item in StreamedPairs(data, shuffle=False, repeats=2)][:4] == ["0", "0", "1", "1"]


def test_order_and_versions_are_those_of_seed_and_epoch(root: Path) -> None:
    def names(seed: int, epoch: int) -> list[str]:
        stream = StreamedPairs(pairs(root, seed), repeats=3, buffer=8)
        stream.set_epoch(epoch)
        return [item["name"] for item in stream]

    assert names(0, 0) == names(0, 0)
    assert len({tuple(names(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))}) == 3


def test_the_buffer_mixes_and_each_file_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pairs(root)
    reads: list[int] = []
    plain = data.read
    monkeypatch.setattr(data, "read", lambda index: (reads.append(index), plain(index))[1])
    names = [item["name"] for item in StreamedPairs(data, repeats=4, buffer=16)]
    assert sorted(reads) == list(range(11))
    neighbours = sum(one == other for one, other in zip(names, names[1:]))
    assert neighbours < 12, "33 without a buffer"


def test_epochs_reach_workers_that_stay(root: Path) -> None:
    data = pairs(root)
    loader = DataLoader(StreamedPairs(data), None, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        epochs.append([item["name"] for item in loader])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pairs": [1]}, TypeError, "pairs must be PairedImages, got list"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1"),
        ({"buffer": 0}, ValueError, "buffer must be at least 1"),
        ({"rank": 1}, ValueError, "rank must be below world_size, got 1 of 1"),
    ],
)
def test_what_is_refused(root: Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StreamedPairs(**{"pairs": pairs(root), **arguments})

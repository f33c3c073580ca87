"""What a run does with failures, averages, streams, precision and pictures."""

from __future__ import annotations

import errno
import io
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from fusionblocks.data import PairedImages, StreamedPairs, synthetic_scene
from fusionblocks.image import read_image, tensor_to_array, write_image
from fusionblocks.training import read_log, train
from fusionblocks.training.batches import EpochPlan, seeded
from tests.training.scenes import scenes, small_recipe
from tests.training.toy import ToyLoss, ToyNet, ToyPairs, recipe, toy_train


def weights_of(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step_{step:09d}" / "state.pt", weights_only=True)


class PoisonedPairs(ToyPairs):
    """One infrared picture is not a number."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        if index == 4:
            item["infrared"] = torch.full((1, 32, 32), torch.nan)
        return item


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path: Path) -> None:
    network = ToyNet(norm=False)
    with pytest.raises(FloatingPointError, match=r"loss and brighter and spread is not finite at step \d.*pairs .*4"):
        toy_train(tmp_path, PoisonedPairs(), network=network)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    kept = torch.load(tmp_path / "failed_batch_0.pt", weights_only=True)
    (batch,) = kept["batches"]
    assert torch.isnan(batch["infrared"]).flatten(1).all(1).tolist() == [name == "4" for name in batch["name"]]
    assert kept["step"] == len(read_log(tmp_path)) + 1


def test_a_full_disk_in_mid_checkpoint_leaves_the_last_good_one(tmp_path: Path) -> None:
    whole, full = tmp_path / "whole", tmp_path / "full"
    toy_train(whole)
    size = (whole / "checkpoints" / "step_000000004" / "state.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillingPairs(ToyPairs):
        seen = 0

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.seen += 1
            if self.seen == 14:  # in the second epoch: from here on the system refuses to write half a checkpoint
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
            return super().__getitem__(index)

    try:
        with pytest.raises(OSError, match=r"step_000000008 could .*written \(File too large\).*is .*step_000000004"):
            toy_train(full, FillingPairs())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (full / "checkpoints").iterdir()] == ["step_000000004"]
    toy_train(full, resume=True)
    assert [line["loss"] for line in read_log(full)] == [line["loss"] for line in read_log(whole)]


def test_an_error_of_the_disk_itself_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(state: Any, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match=r"step_000000004 could .*written \(No space left on device\); there is none"):
        toy_train(tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_average_holds_weights_and_statistics_and_is_what_remains(tmp_path: Path) -> None:
    network = ToyNet()
    first = {name: value.clone() for name, value in network.state_dict().items()}
    toy_train(tmp_path, network=network, of=recipe(epochs=1, ema=0.5))
    state = weights_of(tmp_path, 4)
    averaged = {name.removeprefix("module."): value for name, value in state["average"].items()}
    for name, value in network.state_dict().items():
        assert torch.equal(value, averaged[name])
    for name in ("embed.weight", "norm.running_mean"):
        assert not torch.equal(averaged[name], state["network"][name])
        assert not torch.equal(averaged[name], first[name])


def test_two_accumulated_batches_are_one_of_twice_the_size(tmp_path: Path) -> None:
    logs = []
    for name, change in (("one", {"batch": 4}), ("two", {"batch": 2, "accumulate": 2})):
        torch.manual_seed(0)
        toy_train(tmp_path / name, ToyPairs(7), network=ToyNet(norm=False), of=recipe(**change))
        logs.append([(line["loss"], line["gradient"]) for line in read_log(tmp_path / name)])
    torch.testing.assert_close(torch.tensor(logs[0]), torch.tensor(logs[1]), rtol=1e-5, atol=1e-6)


def test_only_the_parts_of_a_phase_learn_each_at_its_rate(tmp_path: Path) -> None:
    network = ToyNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "rates": {"head.bias": 1e-9}}
    toy_train(tmp_path, network=network, of=recipe(epochs=1, parts=["head"], optimizer=optimizer))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= {"head.weight", "head.bias"}
    assert (network.head.bias - before["head.bias"]).abs().max() < 1e-7 < 1e-4
    assert "head.weight" in moved
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_gradients_are_clipped_part_by_part(tmp_path: Path) -> None:
    network = ToyNet(norm=False)
    before = [parameter.clone() for parameter in network.embed.parameters()]
    optimizer = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    of = recipe(epochs=None, steps=1, clip=1e-3, clip_parts=True, optimizer=optimizer)
    toy_train(tmp_path, network=network, of=of)
    moves = [parameter - old for parameter, old in zip(network.embed.parameters(), before)]
    norm = torch.cat([move.flatten() for move in moves]).norm()
    assert float(norm.detach()) == pytest.approx(1e-3, rel=1e-2)
    assert read_log(tmp_path)[0]["gradient"] > 1e-2  # that of before


class Stream(IterableDataset):
    """Five pairs, drawn anew each time, dealt by nobody."""

    def __init__(self) -> None:
        self.pairs = ToyPairs(5)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.pairs[index] for index in torch.randperm(5).tolist())


def test_a_stream_is_gone_through_again_and_resumes(tmp_path: Path) -> None:
    of = recipe(epochs=None, steps=7, batch=2)
    toy_train(tmp_path / "whole", Stream(), of=of)
    losses = [line["loss"] for line in read_log(tmp_path / "whole")]
    assert len(set(losses)) == 7

    class Stopped(Stream):
        came = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return map(self.count, super().__iter__())

        def count(self, item: dict[str, Any]) -> dict[str, Any]:
            self.came += 1
            if self.came == 12:
                raise KeyboardInterrupt
            return item

    with pytest.raises(KeyboardInterrupt):
        toy_train(tmp_path / "cut", Stopped(), of=of, checkpoint_every=2)
    toy_train(tmp_path / "cut", Stream(), of=of, resume=True)
    assert [line["loss"] for line in read_log(tmp_path / "cut")] == losses
    with pytest.raises(ValueError, match="learns from a stream and needs steps"):
        toy_train(tmp_path / "epochs", Stream())


@pytest.mark.parametrize("workers", [0, 2])
def test_no_pair_of_a_stream_is_dropped(tmp_path: Path, workers: int) -> None:
    class Named(Stream):
        """Its own order, seven pairs dealt to the workers: their shares do not go into batches of three."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = torch.utils.data.get_worker_info()
            number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
            return iter([dict(item, where={"index": i}) for i, item in enumerate(ToyPairs(7).items)][number::workers])

    class Noting(ToyLoss):
        def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
            assert list(map(int, batch["name"])) == batch["where"]["index"].tolist()
            seen.append([int(name) for name in batch["name"]])
            return super().predict(batch)

    def run(name: str, steps: int, **options: Any) -> None:
        of = recipe(epochs=None, steps=steps, batch=3)
        toy_train(tmp_path / name, Named(), of=of, workers=workers, objectives={"toy": Noting}, **options)

    seen: list[list[int]] = []
    run("whole", 14)
    assert {len(batch) for batch in seen} == {3}
    counts = Counter(index for batch in seen for index in batch)
    assert counts == Counter(dict.fromkeys(range(7), 6)), "six epochs of seven are fourteen batches of three"

    class Empty(Stream):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(())

    with pytest.raises(ValueError, match="data must give pairs in every epoch, got none in epoch 0"):
        toy_train(tmp_path / "none", Empty(), of=recipe(epochs=None, steps=1, batch=3))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Four pairs as PNG files."""
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
        for seed in range(4):
            scene = synthetic_scene(seed, height=40, width=48)
            picture = scene.infrared if folder == "ir" else scene.visible
            write_image(tmp_path / folder / f"{seed}.png", tensor_to_array(picture))
    return tmp_path


def test_files_are_streamed_in_several_versions_and_a_cut_run_goes_on(files: Path) -> None:
    of = recipe(epochs=None, steps=6, batch=2, patch=24, augment=["flip"])
    seen: list[torch.Tensor] = []

    class Watched(ToyNet):
        limit = 100

        def forward(self, infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
            if len(seen) == self.limit:
                raise KeyboardInterrupt
            seen.append(infrared)
            return super().forward(infrared, visible)

    def start() -> Watched:
        seen.clear()
        torch.manual_seed(0)
        return Watched()

    def stream() -> StreamedPairs:
        return StreamedPairs(PairedImages(files / "ir", files / "vi"), repeats=2, buffer=4)

    for workers in (0, 1):
        whole, cut = files / f"whole_{workers}", files / f"cut_{workers}"
        toy_train(whole, stream(), of=of, network=start(), workers=workers)
        assert {tuple(batch.shape) for batch in seen} == {(2, 1, 24, 24)}
        assert len({patch.numpy().tobytes() for batch in seen for patch in batch}) == 12, "no version twice"
        network = start()
        network.limit = 5
        with pytest.raises(KeyboardInterrupt):
            toy_train(cut, stream(), of=of, network=network, workers=workers, checkpoint_every=2)
        toy_train(cut, stream(), of=of, network=start(), workers=workers, resume=True)
        losses = [[line["loss"] for line in read_log(folder)] for folder in (whole, cut)]
        assert losses[0] == losses[1]


def test_files_are_degraded_anew_in_each_epoch(files: Path) -> None:
    degrade = {"kinds": ["low_light"], "probability": 1.0, "strength": [0.8, 1.0], "keep_clean": True}
    seen: list[list[dict[str, Any]]] = []

    class Watching(ToyLoss):
        inputs = ("infrared", "visible", "clean_visible")

        def predict(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            seen[-1].append(batch)
            return super().predict(batch)

    for workers in (0, 2):
        seen.append([])
        pairs = PairedImages(files / "ir", files / "vi")
        options = {"of": recipe(batch=4, degrade=degrade), "objectives": {"toy": Watching}, "workers": workers}
        toy_train(files / f"run_{workers}", pairs, **options)
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first["visible"], second["visible"]), "whoever draws"
    epochs = [dict(zip(batch["name"], range(4))) for batch in seen[0]]
    for name in "0123":
        dark, anew = (batch["visible"][at[name]] for batch, at in zip(seen[0], epochs, strict=True))
        clean, again = (batch["clean_visible"][at[name]] for batch, at in zip(seen[0], epochs, strict=True))
        assert torch.equal(clean, again)
        assert not torch.equal(dark, anew)
        scene = synthetic_scene(int(name), height=40, width=48)
        torch.testing.assert_close(clean, scene.visible, rtol=0, atol=0.5 / 255 + 1e-6)
        assert max(dark.mean(), anew.mean()) < 0.8 * clean.mean()
        thermal = seen[0][0]["infrared"][epochs[0][name]]
        torch.testing.assert_close(thermal, scene.infrared, rtol=0, atol=0.5 / 255 + 1e-6)


def test_validation_writes_scores_and_pictures(tmp_path: Path) -> None:
    toy_train(tmp_path, validation=ToyPairs(2), tensorboard=True)
    validated = [line for line in read_log(tmp_path) if "validation" in line]
    assert [line["step"] for line in validated] == [4, 8]
    assert all(set(line["validation"]) == {"EN", "SD"} for line in validated)
    picture = read_image(tmp_path / "pictures" / "step_000000008.png")
    assert picture.shape == (2 * 160, 3 * 160, 3)
    assert list((tmp_path / "tensorboard").iterdir())


def test_bfloat16_is_used_by_the_network_alone(tmp_path: Path) -> None:
    seen = []

    class Watching(ToyNet):
        def forward(self, infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
            output = super().forward(infrared, visible)
            seen.append(output.dtype)
            return output

    toy_train(tmp_path, network=Watching(), precision="bf16", of=recipe(epochs=None, steps=2))
    assert set(seen) == {torch.bfloat16}
    assert all(isinstance(line["loss"], float) for line in read_log(tmp_path))


def test_a_compiled_run_learns_the_same_and_goes_on(tmp_path: Path) -> None:
    of = recipe(epochs=None, steps=6, batch=2)
    compiled = []

    class Watching(ToyNet):
        def forward(self, infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
            compiled.append(torch.compiler.is_compiling())
            return super().forward(infrared, visible)

    def start() -> Watching:
        torch.manual_seed(0)
        network = Watching(norm=False)
        network.drop.p = 0.0
        return network

    for name, options in {"eager": {}, "compiled": {"compile": True, "checkpoint_every": 3}}.items():
        toy_train(tmp_path / name, network=start(), of=of, **options)
    losses = {name: [line["loss"] for line in read_log(tmp_path / name)] for name in ("eager", "compiled")}
    torch.testing.assert_close(torch.tensor(losses["compiled"]), torch.tensor(losses["eager"]), rtol=1e-5, atol=0)
    assert True in compiled
    shutil.rmtree(tmp_path / "compiled/checkpoints/step_000000006")
    toy_train(tmp_path / "compiled", network=start(), of=of, compile=True, resume=True)
    assert [line["loss"] for line in read_log(tmp_path / "compiled")] == losses["compiled"]


def test_the_seed_decides_and_workers_do_not(tmp_path: Path) -> None:
    of = small_recipe("smfnet", **{"phases.reconstruction.steps": 1, "phases.fusion.steps": 1})
    losses = []
    for name, options in {"one": {}, "two": {"workers": 2}}.items():
        torch.manual_seed(len(name))
        train(of, scenes(4, 32), output=tmp_path / name, device="cpu", progress=False, **options)
        losses.append([line["loss"] for line in read_log(tmp_path / name)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("length", "processes", "steps"), [(10, 1, 4), (10, 2, 2), (13, 2, 3), (14, 2, 3), (2, 2, 1)])
def test_a_plan_deals_every_pair_once(length: int, processes: int, steps: int) -> None:
    plans = [EpochPlan(length, 3, processes=processes, rank=rank, seed=1) for rank in range(processes)]
    orders = []
    for epoch in (0, 1):
        for plan in plans:
            plan.set_position(epoch)
        batches = [list(plan) for plan in plans]
        assert [len(mine) for mine in batches] == [steps] * processes
        assert {len(plan) for plan in plans} == {steps}
        pairs = [pair for mine in batches for batch in mine for pair in batch]
        assert sorted(pairs) == [(epoch, index) for index in range(length)]
        orders.append(batches)
    assert [[i for _, i in b] for b in orders[0][0]] != [[i for _, i in b] for b in orders[1][0]]
    plans[0].set_position(1, start=steps - 1)
    assert list(plans[0]) == orders[1][0][-1:]
    with pytest.raises(ValueError, match="a pair for each of 3 processes, got 2"):
        EpochPlan(2, 1, processes=3)


def test_seeding_leaves_no_trace() -> None:
    state = torch.get_rng_state()
    with seeded(1, 2):
        first = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), first)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_and_numbers_are_checked(tmp_path: Path) -> None:
    for options in ({"workers": -1}, {"keep": 0}, {"checkpoint_every": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least"):
            toy_train(tmp_path, **options)
    with pytest.raises(TypeError, match="data must be a dataset"):
        toy_train(tmp_path, 3)

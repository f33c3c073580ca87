"""Training of the degradation classifier: it learns what it should, and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader

from fusionblocks.data import DegradedPictures, LabelledPictures, synthetic_scene
from fusionblocks.guidance import CLIPDegradationClassifier
from fusionblocks.training import class_accuracy, train_classifier

CLASSES = ("clean", "haze", "low_light", "over_exposure")
SIDE = 64


def scenes(seeds: range) -> list[torch.Tensor]:
    return [synthetic_scene(seed, height=72, width=96).visible for seed in seeds]


def small_classifier(classes: tuple[str, ...] = CLASSES, *, rank: int = 8, width: int = 64, side: int = SIDE):
    """A random tower of two layers that stays frozen; what learns is its low-rank updates and the heads."""
    torch.manual_seed(0)
    tower = VisionTransformer(side, 16, width=width, layers=2, heads=4, mlp_ratio=2, output_dim=width)
    return CLIPDegradationClassifier(tower=tower, classes=classes, rank=rank, lora_targets="all")


def tiny(classes: tuple[str, ...] = ("clean", "over_exposure"), **options: int):
    return small_classifier(classes, **{"rank": 2, "width": 16, "side": 32, **options})


@pytest.fixture(scope="module")
def few() -> DataLoader:
    pictures = [synthetic_scene(seed, height=40, width=40).visible for seed in range(4)]
    return DataLoader(DegradedPictures(pictures, ("clean", "over_exposure"), length=32, size=32), batch_size=8)


@dataclass
class Trained:
    """A classifier after its training on degraded scenes, and what came of it."""

    classifier: CLIPDegradationClassifier
    before: dict[str, torch.Tensor]
    losses: list[float]
    seconds: float
    accuracy: dict[str, float]


@pytest.fixture(scope="module")
def judged() -> DataLoader:
    """Degraded scenes that nothing is learned from."""
    return DataLoader(DegradedPictures(scenes(range(1000, 1024)), CLASSES, length=192, size=SIDE, seed=1), 64)


@pytest.fixture(scope="module")
def trained(judged: DataLoader) -> dict[int, Trained]:
    """Two trainings, with updates of rank 8 and with none."""
    clean = scenes(range(40))
    steps, batch = 160, 32
    found = {}
    for rank in (8, 0):
        classifier = small_classifier(rank=rank)
        before = {name: value.clone() for name, value in frozen(classifier).items()}
        learned = DegradedPictures(clean, CLASSES, length=steps * batch, size=SIDE, flip=True)
        start = time.perf_counter()
        losses = train_classifier(classifier, DataLoader(learned, batch), steps=steps, lr=3e-3, progress=False)
        seconds = time.perf_counter() - start
        found[rank] = Trained(classifier, before, losses, seconds, class_accuracy(classifier, judged))
    return found


def frozen(classifier: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in classifier.named_parameters() if not value.requires_grad}


def test_it_tells_degradations_of_unseen_scenes_apart(trained) -> None:
    accuracy = trained[8].accuracy
    assert list(accuracy) == list(CLASSES)
    assert sum(accuracy.values()) / 4 >= 0.9
    assert min(accuracy.values()) >= 0.75
    assert trained[8].seconds < 120
    assert not trained[8].classifier.training


def test_training_leaves_the_tower_bit_by_bit_alone(trained) -> None:
    before = trained[8].before
    assert len(before) > 20
    assert all(torch.equal(value, before[name]) for name, value in frozen(trained[8].classifier).items())


def test_updates_learn_what_heads_alone_do_not(trained) -> None:
    assert sum(trained[8].losses[-20:]) < 0.7 * sum(trained[0].losses[-20:])
    assert sum(trained[8].accuracy.values()) > sum(trained[0].accuracy.values())


def test_the_file_judges_as_the_trained_classifier_does(trained, judged: DataLoader, tmp_path: Path) -> None:
    classifier = trained[8].classifier
    classifier.save_adapters(tmp_path / "degradations.safetensors")
    again = small_classifier()
    pictures = next(iter(judged))[0]
    assert not torch.equal(again.classify(pictures).logits, classifier.classify(pictures).logits)
    again.load_adapters(tmp_path / "degradations.safetensors")
    assert torch.equal(again.classify(pictures).logits, classifier.classify(pictures).logits)
    assert class_accuracy(again, judged) == trained[8].accuracy


def test_one_seed_one_training(few) -> None:
    runs = [train_classifier(tiny(), few, steps=6, progress=False) for _ in range(2)]
    assert len(runs[0]) == 6  # the four batches, and two of them again
    assert runs[0] == runs[1]


def test_infrared_stripes_are_learned_from_gray_pictures() -> None:
    thermal = [synthetic_scene(seed, height=64, width=64).infrared for seed in range(6)]
    data = DegradedPictures(thermal, ("clean", "stripes"), length=60 * 16, size=SIDE, strength=(0.6, 1.0))
    classifier = small_classifier(("clean", "stripes"))
    losses = train_classifier(classifier, DataLoader(data, 16), steps=60, lr=5e-3, progress=False)
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_accuracy_counts_by_class() -> None:
    classifier = tiny(("a", "b", "c"))
    with torch.no_grad():
        classifier.class_head.weight.zero_()
        classifier.class_head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # whatever comes, it says b
    items = [(torch.rand(3, 32, 32), label) for label in (0, 1, 1, 0)]
    classifier.train()
    assert class_accuracy(classifier, DataLoader(LabelledPictures(items, size=None), 3)) == {"a": 0.0, "b": 1.0}
    assert classifier.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and lr must be positive, got 0 and 0.001"),
        ({"lr": 0.0}, "steps and lr must be positive, got 300 and 0.0"),
        ({"lr": float("inf")}, "steps and lr must be positive, got 300 and inf"),
    ],
)
def test_numbers_that_are_refused(few, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_classifier(tiny(), few, progress=False, **options)


def test_data_that_is_refused(few) -> None:
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        train_classifier(tiny(), [], steps=1, progress=False)
    with pytest.raises(ValueError, match="an iterator that is spent"):
        train_classifier(tiny(), iter([next(iter(few))]), steps=2, progress=False)
    with pytest.raises(ValueError, match="batches must hold at least one picture, got none"):
        class_accuracy(tiny(), [])
    wrong = [(torch.rand(2, 3, 32, 32), torch.tensor([0, 2]))]
    for judge in (train_classifier, class_accuracy):
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 to 2"):
            judge(tiny(), wrong)


def test_a_classifier_that_cannot_learn_is_refused(few) -> None:
    classifier = tiny()
    classifier.requires_grad_(False)
    with pytest.raises(ValueError, match="classifier must have parameters that ask for gradients, got none"):
        train_classifier(classifier, few)


def test_a_loss_that_is_not_finite_stops_the_training(few) -> None:
    classifier = tiny()
    with torch.no_grad():
        classifier.class_head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1; a lower lr than 0.001 may help"):
        train_classifier(classifier, few, progress=False)


def test_accelerate_that_is_missing_is_named(few, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fusionblocks\[train\]'"):
        train_classifier(tiny(), few)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_learns_on_a_gpu(few) -> None:
    classifier = tiny()
    losses = train_classifier(classifier, few, steps=12, lr=3e-3, progress=False)
    assert next(classifier.parameters()).is_cuda
    assert losses[-1] < losses[0]
    assert set(class_accuracy(classifier, few)) == {"clean", "over_exposure"}

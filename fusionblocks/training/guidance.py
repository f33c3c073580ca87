"""Training of the degradation classifier: its adapters and its head, the foundation model stays as it is."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks.training.learning_rates import learning_rate
from fusionblocks.training.processes import open_accelerator
from fusionblocks.training.recipe import ScheduleRecipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def train_classifier(
    classifier: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    steps: int = 300,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> list[float]:
    """Train the adapters and the head of a classifier of degradations by cross-entropy.

    AdamW on the parameters that ask for gradients, the rate warmed up over the first tenth of the steps, then lowered
    along a cosine. Device, mixed precision and several processes are the accelerator's.

    Args:
        classifier: A :class:`fusionblocks.guidance.CLIPDegradationClassifier`, or any module with ``classes`` and a
            ``classify(pictures)`` whose answer has ``logits`` ``(B, len(classes))``. It is trained in place and left in
            evaluation mode, on the accelerator's device.
        batches: A data loader of ``(pictures, labels)``: ``(B, 3, H, W)`` in [0, 1] and ``(B,)`` class indices; it is
            gone through as often as the steps need.
        steps: How many batches to learn from.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
        accelerator: The caller's; by default a new one, on a GPU if there is one.
        progress: Whether to show a progress bar.

    Returns:
        The loss of each step.

    Raises:
        ModuleNotFoundError: If accelerate is not installed and no accelerator is given.
        ValueError: If ``steps`` or ``lr`` is not positive, no parameter asks for a gradient, there are no batches, or
            a label is not a class index.
        FloatingPointError: If the loss is no longer finite.

    Example:
        >>> import torch
        >>> from open_clip.transformer import VisionTransformer
        >>> from torch.utils.data import DataLoader
        >>> from fusionblocks.data import DegradedPictures, synthetic_scene
        >>> from fusionblocks.guidance import CLIPDegradationClassifier
        >>> from fusionblocks.training import class_accuracy, train_classifier
        >>> clean = [synthetic_scene(seed, height=48, width=48).visible for seed in range(2)]
        >>> loader = DataLoader(DegradedPictures(clean, ("clean", "over_exposure"), size=32), batch_size=4)
        >>> tower = VisionTransformer(32, 16, width=16, layers=1, heads=2, mlp_ratio=2, output_dim=16)
        >>> classifier = CLIPDegradationClassifier(classes=("clean", "over_exposure"), rank=2, tower=tower)
        >>> losses = train_classifier(classifier, loader, steps=3, progress=False)
        >>> len(losses), list(class_accuracy(classifier, loader))
        (3, ['clean', 'over_exposure'])
    """
    if steps < 1 or not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"steps and lr must be positive, got {steps} and {lr}")
    learning = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("classifier must have parameters that ask for gradients, got none")
    accelerator = accelerator or open_accelerator()
    optimizer = torch.optim.AdamW(learning, lr=lr, weight_decay=weight_decay)
    recipe = ScheduleRecipe(name="cosine", warmup=max(1, steps // 10))
    rate = functools.partial(learning_rate, recipe, 1.0, steps=steps, steps_per_epoch=1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    # the step is the forward of a module, which is what several processes synchronise
    task, optimizer, batches = accelerator.prepare(_Task(classifier), optimizer, batches)

    classifier.train()
    losses = []
    for pictures, labels in _bar(itertools.islice(_cycle(batches), steps), steps, progress, accelerator):
        pictures, labels = pictures.to(accelerator.device), labels.to(accelerator.device)
        loss = task(pictures, labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} at step {len(losses)}; a lower lr than {lr:g} may help")
    classifier.eval()
    return losses


@torch.no_grad()
def class_accuracy(classifier: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the share of each class that a classifier recognises.

    Args:
        classifier: As for :func:`train_classifier`; its mode is kept, its device used.
        batches: ``(pictures, labels)``, as for :func:`train_classifier`.

    Returns:
        From class name to a share in [0, 1], in the order of ``classifier.classes``; classes that the batches lack are
        left out.

    Raises:
        ValueError: If there are no batches or a label is not a class index.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from torch import nn
        >>> from fusionblocks.training import class_accuracy
        >>> class Brightness(nn.Module):
        ...     classes = ("low_light", "clean")
        ...     def classify(self, pictures):
        ...         mean = pictures.mean((1, 2, 3))
        ...         return SimpleNamespace(logits=torch.stack([0.3 - mean, mean - 0.3], 1))
        >>> pictures = torch.full((3, 3, 8, 8), 0.5)
        >>> class_accuracy(Brightness(), [(pictures, torch.tensor([1, 1, 0]))])
        {'low_light': 0.0, 'clean': 1.0}
    """
    place = next((parameter.device for parameter in classifier.parameters()), torch.device("cpu"))
    names: tuple[str, ...] = tuple(classifier.classes)  # type: ignore[arg-type]
    total, right = torch.zeros(2, len(names), dtype=torch.int64)
    was_training = classifier.training
    classifier.eval()
    try:
        for pictures, labels in batches:
            check_labels(labels, len(names))
            guessed = _logits(classifier, pictures.to(place)).argmax(1).cpu()
            total += torch.bincount(labels.cpu(), minlength=len(names))
            right += torch.bincount(labels.cpu()[guessed == labels.cpu()], minlength=len(names))
    finally:
        classifier.train(was_training)
    if not total.any():
        raise ValueError("batches must hold at least one picture, got none")
    return {name: int(r) / int(t) for name, r, t in zip(names, right, total) if t}


class _Task(nn.Module):
    """The loss of a batch."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        logits = _logits(self.classifier, pictures)
        check_labels(labels, logits.shape[1])
        return F.cross_entropy(logits.float(), labels)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise unless every label is the index of a class."""
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(f"labels must lie in [0, {classes}), got {int(labels.min())} to {int(labels.max())}")


def _logits(classifier: nn.Module, pictures: Tensor) -> Tensor:
    return classifier.classify(pictures).logits  # type: ignore[operator]


def _cycle(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the batches again and again."""
    if isinstance(batches, Sized) and not len(batches):
        raise ValueError("batches must hold at least one batch, got none")
    while True:
        came = 0
        for batch in batches:
            came += 1
            yield batch
        if not came:
            raise ValueError("batches must hold at least one batch, got none or an iterator that is spent")


def _bar(batches: Iterator[Any], steps: int, progress: bool, accelerator: Accelerator) -> Iterable[Any]:
    if not progress:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, "training", total=steps, unit="step", disable=not accelerator.is_local_main_process)

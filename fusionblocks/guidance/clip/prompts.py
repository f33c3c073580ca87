"""Degradations in CLIP's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.guidance.clip.loading import quiet

#: What a picture of each class is called in ``CLIPDegradationClassifier.zero_shot``.
PROMPTS: Mapping[str, tuple[str, ...]] = {
    "clean": ("a clear, sharp, well-lit photo", "a high-quality photo"),
    "haze": ("a hazy photo", "a photo taken in fog"),
    "low_light": ("a dark, underexposed photo", "a photo taken at night with little light"),
    "over_exposure": ("an overexposed photo", "a photo that is much too bright"),
    "rain": ("a photo taken in heavy rain", "a photo with rain streaks"),
    "noise": ("a noisy, grainy photo", "a photo with strong sensor noise"),
    "stripes": ("a photo with vertical stripes", "a photo with stripe noise of the sensor"),
    "low_contrast": ("a photo of low contrast", "a washed-out, flat photo"),
}


@torch.no_grad()
def class_embeddings(
    text: Any, classes: Sequence[str], prompts: Mapping[str, str | Sequence[str]] | None, *, model_name: str | None
) -> Tensor:
    """Return what a CLIP model's text tower makes of each class, ``(classes, D)``, the mean of its sentences.

    Raises:
        ValueError: If ``prompts`` has other names than ``classes``, or no sentence for one.
    """
    import open_clip

    if prompts is not None and set(prompts) != set(classes):
        raise ValueError(f"prompts must have the names {', '.join(classes)}, got {', '.join(prompts)}")
    sentences = [_sentences(name, prompts) for name in classes]
    with quiet():
        if model_name is None:
            tokenizer = open_clip.SimpleTokenizer(context_length=text.context_length)
        else:
            tokenizer = open_clip.get_tokenizer(model_name)
    device = text.logit_scale.device
    groups = [text.encode_text(tokenizer(list(group)).to(device), normalize=True).mean(dim=0) for group in sentences]
    return F.normalize(torch.stack(groups), dim=-1)


def _sentences(name: str, prompts: Mapping[str, str | Sequence[str]] | None) -> tuple[str, ...]:
    if prompts is None:
        return PROMPTS.get(name, (f"a photo with {name.replace('_', ' ')}",))
    given = prompts[name]
    sentences = (given,) if isinstance(given, str) else tuple(given)
    if not sentences or not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError(f"prompts must have one or several sentences for each class, got {given!r} for {name!r}")
    return sentences

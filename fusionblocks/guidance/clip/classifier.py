"""CLIP as a judge of degradations: the embedding that steers SGAFusion, and what ails the picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionblocks._loading import load_strict
from fusionblocks._support.checks import check_choice, check_positive
from fusionblocks.guidance._adapters import read_adapters, write_adapters
from fusionblocks.guidance._cache import DiskCache, Fingerprint, content_key
from fusionblocks.guidance.clip import towers
from fusionblocks.guidance.clip.loading import load_clip, split_published
from fusionblocks.guidance.clip.preprocessing import PREPROCESSING, prepare
from fusionblocks.guidance.clip.prompts import class_embeddings
from fusionblocks.guidance.lora import add_lora, is_merged, load_lora, lora_state_dict, unmerge_lora, updates
from fusionblocks.image.checks import check_picture

# B batch, T patch tokens, D width of the tower's output, E width of the embedding

DEFAULT_MODEL = "ViT-B-32-quickgelu"
DEFAULT_CLASSES = ("clean", "haze", "low_light", "over_exposure", "rain", "noise", "stripes", "low_contrast")
HEADS = ("embedding_head", "class_head")


class DegradationOutput(NamedTuple):
    """What :meth:`CLIPDegradationClassifier.classify` returns.

    Args:
        embedding: ``(B, embedding_channels)``, what SGAFusion is steered by.
        logits: ``(B, classes)``.
    """

    embedding: Tensor
    logits: Tensor


class CLIPDegradationClassifier(nn.Module):
    """CLIP's frozen image tower and a head of two layers: an embedding of the degradation, and its class.

    The first layer with its ReLU gives the embedding that SGAFusion is steered by, the second the classes, as
    published. With a ``rank``, low-rank updates of the tower train with the head; the tower itself never does.
    Called with a picture it returns the embedding, so that it is a guide:
    ``model.attach_guidance(classifier)``. It is built in evaluation mode.

    Args:
        model_name: A name of ``open_clip.list_models()``. OpenAI's weights need one with ``-quickgelu``.
        pretrained: The tower's weights: a tag of open_clip, ``hf-hub:owner/name``, a local file, or None for random
            ones.
        classes: Names of the classes.
        embedding_channels: Width of the embedding.
        rank: Rank of the low-rank updates; 0: none.
        alpha: The updates are scaled by ``alpha / rank``; None: by 1.
        lora_targets: The layers with updates, see :func:`~fusionblocks.guidance.add_lora`.
        preprocessing: ``"published"``: the whole picture squeezed to the tower's size, not normalised, as SGAFusion
            was trained. ``"clip"``: CLIP's own, a normalised centre crop.
        tokens: ``"pooled"``: one embedding a picture. ``"patches"``: one a patch of the tower's grid.
        tower: An image tower, or a whole CLIP model, of open_clip or like it; then ``model_name`` and ``pretrained``
            are not used. It is frozen, and changed in place if there is a ``rank``.
        cache: A folder that keeps the tower's output by picture, settings and weights. It serves in evaluation mode
            without gradients; any number of processes may share it.

    Raises:
        FileNotFoundError: If the weights are neither here nor to be had; the message says where they are offered.
        ValueError: If there is no such model or tag, a file does not fit, or an argument is out of its range.

    Reference:
        SGAFusion: Semantic-Guided Adaptive Fusion for Infrared-Visible Images Under Degradation Conditions (2025),
        class ``CLIPClassifier``.

    Example:
        >>> import torch
        >>> from open_clip.transformer import VisionTransformer
        >>> from fusionblocks.guidance import CLIPDegradationClassifier
        >>> tower = VisionTransformer(32, 8, width=16, layers=2, heads=2, mlp_ratio=2, output_dim=24)
        >>> classifier = CLIPDegradationClassifier(tower=tower, classes=("clean", "haze"), rank=2)
        >>> visible = torch.rand(3, 3, 48, 64)
        >>> classifier(visible).shape
        torch.Size([3, 512])
        >>> classifier.classify(visible).logits.shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        pretrained: str | os.PathLike[str] | None = "openai",
        *,
        classes: Sequence[str] = DEFAULT_CLASSES,
        embedding_channels: int = 512,
        rank: int = 0,
        alpha: float | None = None,
        lora_targets: str | Sequence[str] = ("attention",),
        preprocessing: str = "published",
        tokens: str = "pooled",
        tower: nn.Module | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_positive(embedding_channels=embedding_channels)
        check_choice("preprocessing", preprocessing, PREPROCESSING)
        check_choice("tokens", tokens, ("pooled", "patches"))
        self.classes = _class_names(classes)
        self.model_name = model_name if tower is None else None
        self.preprocessing = preprocessing
        self.tokens = tokens
        self.cache = None if cache is None else DiskCache(cache)

        self.visual, self.text = towers.split_towers(load_clip(model_name, pretrained) if tower is None else tower)
        self.requires_grad_(False)
        if tokens == "patches":
            towers.check_patches(self.visual)
        self._view: dict[str, Any] = {"preprocessing": preprocessing, "config": towers.preprocess_config(self.visual)}
        self._trunk = Fingerprint()
        width = towers.output_width(self.visual)
        if rank != 0:
            add_lora(self.visual, rank=rank, alpha=alpha, targets=lora_targets)
        self.settings: dict[str, Any] = {
            "rank": rank,
            "alpha": float(rank if alpha is None else alpha),
            "targets": [lora_targets] if isinstance(lora_targets, str) else list(lora_targets),
            "classes": list(self.classes),
            "embedding_channels": embedding_channels,
            "preprocessing": preprocessing,
            "model_name": self.model_name,
        }
        self.embedding_head = nn.Linear(width, embedding_channels)
        self.class_head = nn.Linear(embedding_channels, len(self.classes))
        self.eval()

    @classmethod
    def from_published(
        cls,
        checkpoint: str | os.PathLike[str] | Mapping[str, Any],
        *,
        classes: Sequence[str] | None = None,
        tower: nn.Module | None = None,
        **options: Any,
    ) -> Self:
        """Return a classifier with the weights of SGAFusion's published one.

        Its authors' file is a pickled model, which is refused; with their code at hand, its owner exports the state
        dict: ``torch.save(torch.load("best_cls.pth", weights_only=False).state_dict(), "classifier.pth")``. The
        published low-rank layers never act in the forward pass; their weights are left out.

        Args:
            checkpoint: The exported file, or its loaded dict.
            classes: Names of the classes, in the order of the training folders; None: ``class_0`` and so on.
            tower: A CLIP model to load into; None: ViT-B-32 in its OpenAI form, as published.
            **options: Further arguments of the class.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is a pickled model, its keys or shapes do not fit, or ``classes`` are of another number.

        Example:
            >>> from fusionblocks.guidance import CLIPDegradationClassifier
            >>> classifier = CLIPDegradationClassifier.from_published("classifier.pth")  # doctest: +SKIP
        """
        clip, heads = split_published(checkpoint)
        number, width = heads["class_head.weight"].shape
        names = [f"class_{i}" for i in range(number)] if classes is None else classes
        if len(names) != number:
            raise ValueError(f"classes must be {number} names, as many as the checkpoint has, got {len(names)}")
        model = load_clip(DEFAULT_MODEL, None) if tower is None else tower
        source = "the checkpoint" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
        load_strict(model, clip, source=source)
        classifier = cls(classes=names, embedding_channels=width, tower=model, **options)
        if tower is None:
            classifier.model_name = classifier.settings["model_name"] = DEFAULT_MODEL
        with torch.no_grad():
            for name, value in classifier._heads(heads, source).items():
                value.copy_(heads[name])
        return classifier

    @classmethod
    def from_adapters(
        cls,
        path: str | os.PathLike[str],
        *,
        pretrained: str | os.PathLike[str] | None = "openai",
        tower: nn.Module | None = None,
        tokens: str = "pooled",
        cache: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Return a classifier as :meth:`save_adapters` saved it: built from the file's settings, and loaded.

        Args:
            path: The file.
            pretrained: The weights of the tower that the adapters were trained on, which the file does not hold.
            tower: That tower itself, for adapters of a tower that the caller built.
            tokens: As in the class.
            cache: As in the class.

        Raises:
            FileNotFoundError: If the file or the tower's weights are missing.
            ValueError: If the file does not hold adapters, or it was saved for a tower that the caller built and this
                classifier has none.

        Example:
            >>> from fusionblocks.guidance import CLIPDegradationClassifier
            >>> classifier = CLIPDegradationClassifier.from_adapters("degradations.safetensors")  # doctest: +SKIP
        """
        _, settings = read_adapters(path)
        if tower is None and settings["model_name"] is None:
            raise ValueError(f"{os.fspath(path)} was saved for a tower that its owner built; pass tower=...")
        classifier = cls(
            settings["model_name"] or DEFAULT_MODEL,
            pretrained,
            classes=settings["classes"],
            embedding_channels=settings["embedding_channels"],
            rank=settings["rank"],
            alpha=settings["alpha"],
            lora_targets=settings["targets"],
            preprocessing=settings["preprocessing"],
            tokens=tokens,
            tower=tower,
            cache=cache,
        )
        classifier.load_adapters(path)
        return classifier

    def forward(self, visible: Tensor) -> Tensor:
        """Return the embedding of the degradation.

        Args:
            visible: Pictures ``(B, 1 or 3, H, W)`` in [0, 1], of any size.

        Returns:
            ``(B, embedding_channels)``, or ``(B, T, embedding_channels)`` with ``tokens="patches"``.
        """
        return self._embed(visible, self.tokens)

    def classify(self, visible: Tensor) -> DegradationOutput:
        """Return the pooled embedding and the logits of the classes.

        Args:
            visible: Pictures ``(B, 1 or 3, H, W)`` in [0, 1], of any size.
        """
        embedding = self._embed(visible, "pooled")
        logits = self.class_head(embedding.to(self.class_head.weight))
        return DegradationOutput(embedding, logits.to(visible))

    def zero_shot(self, visible: Tensor, prompts: Mapping[str, str | Sequence[str]] | None = None) -> Tensor:
        """Name the degradation without training, by what CLIP's text tower makes of sentences.

        It needs a CLIP model with real weights; ``preprocessing="clip"`` is what such a model knows.

        Args:
            visible: Pictures ``(B, 1 or 3, H, W)`` in [0, 1], of any size.
            prompts: One or several sentences for each class, all classes; None: sentences made of the classes' names.

        Returns:
            Probabilities ``(B, classes)``, in the order of ``classes``.

        Raises:
            ValueError: If the classifier was built on an image tower alone, or ``prompts`` has other names.
        """
        if self.text is None:
            raise ValueError("zero_shot needs CLIP's text tower, and the classifier was built on an image tower alone")
        names = class_embeddings(self.text, self.classes, prompts, model_name=self.model_name)
        similarity = F.normalize(self._features(visible, "pooled"), dim=-1) @ names.T
        return (self.text.get_parameter("logit_scale").exp() * similarity).softmax(dim=-1).to(visible)

    def train(self, mode: bool = True) -> Self:
        """Set the heads' and updates' mode; the frozen towers stay in evaluation mode, merged updates are unmerged."""
        if mode and is_merged(self.visual):
            unmerge_lora(self.visual)
        super().train(mode)
        for tower in (self.visual, self.text):
            if tower is not None:
                tower.eval()
        return self

    def save_adapters(self, path: str | os.PathLike[str]) -> None:
        """Write the low-rank updates and the heads alone, with the settings that they were trained in.

        Args:
            path: A ``.safetensors`` file; it is whole or not there.

        Raises:
            ValueError: If the name ends in anything else.
            FileNotFoundError: If its folder does not exist.
        """
        adapters = lora_state_dict(self.visual) if self.settings["rank"] else {}
        tensors = {f"visual.{name}": value for name, value in adapters.items()} | self._heads()
        write_adapters(path, tensors, self.settings)

    def load_adapters(self, path: str | os.PathLike[str]) -> None:
        """Load what :meth:`save_adapters` wrote, strictly.

        Args:
            path: The file. Its rank and scale, classes, widths, places and preprocessing must be this classifier's.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or none of adapters, or a setting or a shape differs; the message says
                which, and nothing has changed then.
        """
        source = os.fspath(path)
        state, saved = read_adapters(path)
        for name, value in self.settings.items():
            if name != "targets" and saved.get(name) != value and not (name == "model_name" and value is None):
                raise ValueError(
                    f"{source} was saved with {name}={saved.get(name)!r}, the classifier has {name}={value!r}"
                )
        adapters = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        heads = {key: value for key, value in state.items() if not key.startswith("visual.")}
        own = self._heads(heads, source)
        if adapters or self.settings["rank"]:
            load_lora(self.visual, adapters, source=source)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(heads[name])

    def extra_repr(self) -> str:
        """Return the classes and how pictures are shown, for ``repr``."""
        return f"classes={self.classes}, preprocessing={self.preprocessing!r}, tokens={self.tokens!r}"

    def _heads(self, fitting: Mapping[str, Tensor] | None = None, source: str = "") -> dict[str, Tensor]:
        """Return the heads' weights by name, once it is sure that those of a file fit."""
        own = {f"{head}.{name}": value for head in HEADS for name, value in getattr(self, head).named_parameters()}
        for name in own if fitting is None else {*own, *fitting}:
            shapes = [tuple(found[name].shape) if name in found else None for found in (own, fitting or own)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{source} does not fit the heads: {name} must have shape {shapes[0]}, got {shapes[1]}"
                )
        return own

    def _embed(self, visible: Tensor, tokens: str) -> Tensor:
        features = self._features(visible, tokens)
        return F.relu(self.embedding_head(features.to(self.embedding_head.weight))).to(visible)

    def _features(self, visible: Tensor, tokens: str) -> Tensor:
        """Return what the tower sees in each picture, from the cache where it may serve."""
        check_picture("visible", visible, (1, 3))
        if self.cache is None or self.training or self._wants_gradients(visible):
            return self._tower(visible, tokens)
        weight = next(self.visual.parameters())
        settings = {**self._view, "tokens": tokens, "tower": self._fingerprint(), "autocast": _autocast(weight.device)}
        keys = [content_key(picture, **settings) for picture in visible]
        found = {key: self.cache.get(key) for key in dict.fromkeys(keys)}
        missing = [i for i, key in enumerate(keys) if found[key] is None and keys.index(key) == i]
        if missing:
            for i, features in zip(missing, self._tower(visible[missing], tokens).float().cpu()):
                found[keys[i]] = entry = {"features": features.numpy()}
                self.cache.put(keys[i], entry)
        return torch.stack([torch.from_numpy(found[key]["features"]) for key in keys]).to(weight)  # type: ignore[index]

    def _tower(self, visible: Tensor, tokens: str) -> Tensor:
        """Return the tower's output, ``(B, D)`` or ``(B, T, D)``, wherever the tower is."""
        weight = next(self.visual.parameters())
        x = prepare(visible.to(weight.device), towers.image_size(self.visual), **self._view).to(weight.dtype)
        return towers.patches(self.visual, x) if tokens == "patches" else towers.pooled(self.visual, x)

    def _wants_gradients(self, visible: Tensor) -> bool:
        return torch.is_grad_enabled() and any(x.requires_grad for x in (visible, *self.parameters()))

    def _fingerprint(self) -> str:
        """Return what tells the tower with its updates from every other: one change of a weight changes it."""
        adapters = [value for _, update in updates(self.visual) for value in update.parameters()]
        apart = {id(value) for value in adapters}
        weights = {
            name: value for name, value in self.visual.state_dict(keep_vars=True).items() if id(value) not in apart
        }
        return content_key(*adapters, trunk=self._trunk(weights), structure=f"{self.model_name} {self.visual}")


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"classes must be a sequence of names, got {classes!r}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes must be two different names or more, got {names}")
    return names


def _autocast(device: torch.device) -> str | None:
    return str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None

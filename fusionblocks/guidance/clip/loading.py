"""CLIP networks of open_clip with their weights, strictly loaded, from a tag, the hub or a file."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks._support.names import closest
from fusionblocks.guidance.clip.torchscript import is_torchscript, read_torchscript

HUB_CONFIG = "open_clip_config.json"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
# numbers that OpenAI's own archives keep beside the weights
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
# of SGAFusion's published classifier; ``linear`` and ``lora_*`` hang on names that its forward pass never calls
PUBLISHED_DEAD = re.compile(r"clip_model\.visual\..+\.(linear\.(weight|bias)|lora_[AB])")
PUBLISHED_HEADS = {"fc1": "embedding_head", "fc2": "class_head"}


def load_clip(model_name: str, pretrained: str | os.PathLike[str] | None) -> nn.Module:
    """Return a CLIP network of open_clip.

    Args:
        model_name: A name of ``open_clip.list_models()``, or ``hf-hub:owner/name`` or ``local-dir:folder`` for a
            configuration that comes with its weights.
        pretrained: A tag of ``open_clip.list_pretrained_tags_by_model(model_name)``, ``hf-hub:owner/name``, a file,
            or None for random weights.

    Raises:
        FileNotFoundError: If the weights are neither here nor to be had; the message says where they are offered.
        ValueError: If there is no such model or tag, or the file does not fit the model.
    """
    import open_clip

    if model_name.startswith(("hf-hub:", "local-dir:")):
        with quiet(), offered(f"{model_name}", f"its weights are at {_hub_page(model_name)}"):
            return open_clip.create_model(model_name, load_weights=pretrained is not None)
    known = open_clip.list_models()
    if model_name not in known:
        hint = closest(model_name, known, "; {}", likely=0.3)
        raise ValueError(f"unknown model_name {model_name!r}{hint} open_clip.list_models() lists all")
    file, settings = (None, {}) if pretrained is None else find_weights(model_name, pretrained)
    _check_activation(model_name, settings.get("quick_gelu"), source=str(pretrained))
    with quiet():
        model = open_clip.create_model(model_name)
    if file is not None:
        load_file(model, file, model_name=model_name)
    model.visual.preprocess_cfg.update({key: settings[key] for key in model.visual.preprocess_cfg if key in settings})
    return model


def find_weights(model_name: str, pretrained: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Return the file of weights, downloaded if need be, and what its publisher says about it."""
    import open_clip
    from open_clip.pretrained import download_pretrained

    name = os.fspath(pretrained)
    if Path(name).is_file():
        return Path(name), _beside(Path(name))
    settings = open_clip.get_pretrained_cfg(model_name, name)
    if settings:
        settings = {"quick_gelu": False, **settings}
        _check_activation(model_name, settings["quick_gelu"], source=f"the tag {name!r}")
        hub = settings.get("hf_hub", "").rstrip("/")  # owner/name, or owner/name/file
        places = [f"https://huggingface.co/{hub}"] if hub else []
        places += [settings["url"]] if settings.get("url") else []
        with offered(f"{model_name} with the weights {name!r}", f"they are offered at {' and '.join(places)}"):
            return from_hub(hub) if hub else Path(download_pretrained(settings)), settings
    if name.startswith("hf-hub:"):
        with offered(f"{model_name} with the weights of {name}", f"they are offered at {_hub_page(name)}"):
            file = from_hub(name.removeprefix("hf-hub:"))
            return file, _beside(file)
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if re.search(r"[/\\]|\.(pt|pth|bin|safetensors)$", name):
        raise FileNotFoundError(
            f"pretrained names the file {name}, which does not exist; pass a local file of {model_name}, one of the "
            f"tags {', '.join(tags)} or 'hf-hub:owner/name'"
        )
    raise ValueError(
        f"pretrained={name!r} is not a tag of {model_name!r}{closest(name, tags, '; {}')}; known: "
        f"{', '.join(tags) or 'none'}; a local file or 'hf-hub:owner/name' serves too"
    )


def from_hub(name: str) -> Path:
    """Return the weights of ``owner/name`` or ``owner/name/file`` on the hub, from its local cache if they are there.

    The hub's client tries for a long time where there is no network; one question beforehand fails at once.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session
    from open_clip.pretrained import download_pretrained_from_hf

    owner, repository, *files = name.split("/")
    repository = f"{owner}/{repository}"
    for file in files or HUB_FILES:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    get_session().head(constants.ENDPOINT, timeout=10)
    return Path(download_pretrained_from_hf(repository, filename="/".join(files) or None))


def load_file(model: nn.Module, file: Path, *, model_name: str) -> None:
    """Load a file of CLIP weights, as open_clip, OpenAI or a training run wrote it, into ``model``, strictly."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    # OpenAI offers archives of programs; they are read as data
    raw: Any = read_torchscript(file) if is_torchscript(file) else read_checkpoint(file)
    found = raw.get("state_dict", raw) if isinstance(raw, Mapping) else {}
    if not is_state(found):
        raise ValueError(f"{file} holds no state dict of {model_name}")
    state = {key.removeprefix("module."): value for key, value in found.items()}
    if any(key in state for key in OPENAI_NUMBERS):
        _check_activation(model_name, True, source=f"{file}, a file of OpenAI's,")
    state = convert_state_dict(model, {key: value for key, value in state.items() if key not in OPENAI_NUMBERS})
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    for key in ("logit_scale", "logit_bias"):  # a number or a vector of one
        if key in state and key in own and state[key].numel() == own[key].numel():
            state[key] = state[key].reshape(own[key].shape)
    load_strict(model, state, source=str(file))


def split_published(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[dict, dict]:
    """Return the CLIP weights and the heads of SGAFusion's classifier, without what its forward pass never uses.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickled model, or no state dict of this classifier.
    """
    source = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    raw = checkpoint if isinstance(checkpoint, Mapping) else read_checkpoint(os.fspath(checkpoint))
    state = {key.removeprefix("module."): value for key, value in raw.items()} if is_state(raw) else {}
    expected = {f"{layer}.{leaf}" for layer in PUBLISHED_HEADS for leaf in ("weight", "bias")}
    if not expected <= set(state):
        raise ValueError(
            f"{source} is not a state dict of SGAFusion's classifier: "
            f"it has no {', '.join(sorted(expected - set(state)))}"
        )
    clip, heads = {}, {}
    for key, value in state.items():
        owner, _, rest = key.partition(".")
        if PUBLISHED_DEAD.fullmatch(key) or rest in OPENAI_NUMBERS:
            continue
        if owner in PUBLISHED_HEADS:
            heads[f"{PUBLISHED_HEADS[owner]}.{rest}"] = value
        else:
            clip[key.removeprefix("clip_model.")] = value
    return clip, heads


def is_state(value: object) -> bool:
    """Return whether ``value`` is a plain state dict: names to tensors, and not empty."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


@contextmanager
def offered(what: str, where: str) -> Iterator[None]:
    """Turn whatever a failed download raises into an error that says what is missing and how to bring it."""
    try:
        yield
    except Exception as error:  # each of the hub's and urllib's layers has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"{what} is not on this machine and could not be downloaded; {where}; fetch the file once and pass "
            f"pretrained='/path/to/the/file' ({type(error).__name__}: {reason})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip from warning that it made random weights: they are loaded next, or were asked for."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    root = logging.getLogger()
    root.addFilter(is_error)
    try:
        yield
    finally:
        root.removeFilter(is_error)


def _check_activation(model_name: str, quick_gelu: bool | None, *, source: str) -> None:
    """Raise if weights are known to be trained with the other GELU: their keys would fit, their results would not."""
    import open_clip

    if quick_gelu is None or bool(open_clip.get_model_config(model_name).get("quick_gelu")) == quick_gelu:
        return
    if not quick_gelu and not model_name.endswith("-quickgelu"):
        return  # a model that computes QuickGELU by its configuration alone; publishers leave the note out
    other = f"{model_name}-quickgelu" if quick_gelu else model_name.removesuffix("-quickgelu")
    kinds = ("GELU", "QuickGELU")
    raise ValueError(
        f"{source} was trained with {kinds[quick_gelu]}, {model_name!r} computes {kinds[not quick_gelu]}: the weights "
        f"would load and give wrong results; use model_name={other!r}"
    )


def _beside(file: Path) -> dict[str, Any]:
    """Return what a configuration beside a file of weights says about them."""
    try:
        config = json.loads((file.parent / HUB_CONFIG).read_text())
        return {**config.get("preprocess_cfg", {}), "quick_gelu": bool(config["model_cfg"].get("quick_gelu", False))}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def _hub_page(name: str) -> str:
    return name if name.startswith("local-dir:") else f"https://huggingface.co/{name.removeprefix('hf-hub:')}"

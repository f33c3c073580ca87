"""Weights as people have them: folders, files, wrappers and the authors' checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks.models.base import FusionModel
from fusionblocks.models.official import layout_of, load_official
from fusionblocks.models.published import is_state
from fusionblocks.models.registry import create_model, list_models, model_class
from fusionblocks.models.wrapping import as_network, load_folder

ENTRIES = ("state_dict", "model", "model_state_dict", "network", "net", "weights", "params", "generator")
EMA_ENTRIES = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "average")
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "wrapped.")
AVERAGED = "n_averaged"  # PyTorch's AveragedModel counts what it averaged


class Found(NamedTuple):
    """A part of a file that may be a network's weights."""

    where: str
    content: Mapping[str, Any]
    averaged: bool


def load_model(
    model: str | Path | nn.Module,
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    *,
    ema: bool | None = None,
    **config: Any,
) -> FusionModel:
    """Return a network with the weights of any file or folder that holds them, in evaluation mode.

    Taken are folders that ``save_pretrained`` wrote, files of a state dict, the checkpoints of training, the authors'
    files, and what people wrap any of these in: ``module.``, ``_orig_mod.`` and ``model.`` before the keys, also twice;
    a dict with the weights under ``state_dict``, ``model`` or ``model_state_dict``; averaged copies. Loading is strict,
    and a file with code in it is refused.

    Args:
        model: A name of :func:`fusionblocks.list_models`; or a path alone, whose network is recognised; or a module of
            your own, see :func:`fusionblocks.wrap`.
        checkpoint: The file or the folder, or what ``torch.load`` returned; None for a path alone.
        ema: Whether to take the averaged copy of the weights, which a file may hold beside the trained ones. None
            takes it where there is nothing else.
        **config: Fields of the network's configuration, for weights of other widths in a file that does not tell them.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``checkpoint`` is neither a path nor a dict, or a keyword is not a field of the configuration.
        ValueError: If the weights are of no network that is known, or do not fit; the message says what was tried.

    Example:
        >>> import tempfile
        >>> import fusionblocks as fb
        >>> folder = tempfile.mkdtemp()
        >>> fb.create_model("smfnet", channels=16, num_heads=4, base_layers=1, base_depth=1).save_pretrained(folder)
        >>> fb.load_model(folder).config.channels
        16
    """
    if isinstance(model, nn.Module):
        return _into_module(model, checkpoint, ema)
    if checkpoint is None and str(model) in list_models():
        return create_model(str(model), pretrained=True, **config)
    name, source = (None, model) if checkpoint is None else (str(model), checkpoint)
    if not isinstance(source, str | Path | Mapping):
        raise TypeError(f"checkpoint must be a path or a dict, got {type(source).__name__}")
    if isinstance(source, str | Path) and (folder := _saved_folder(Path(source))) is not None:
        return _from_folder(name, folder, config)
    if name is not None:
        model_class(name)  # a wrong name costs nothing yet
    raw = source if isinstance(source, Mapping) else read_checkpoint(_file(Path(source), alone=name is None))
    label = "the checkpoint" if isinstance(source, Mapping) else str(source)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{label} holds a {type(raw).__name__}, expected the weights of a network")
    found = [part for part in _parts(raw) if ema is None or part.averaged == ema or part.where == ""]
    found.sort(key=lambda part: part.averaged)  # trained weights before averaged ones
    return _recognised(found, [name] if name else list_models(), config, label)


def _saved_folder(path: Path) -> Path | None:
    """Return the folder that ``save_pretrained`` wrote, of itself or of its file of weights."""
    if path.is_dir() and (path / "config.json").is_file():
        return path
    beside = path.name == "model.safetensors" and (path.parent / "config.json").is_file()
    return path.parent if beside else None


def _file(path: Path, alone: bool = False) -> Path:
    """Return the file of weights: of a training checkpoint the state within its folder."""
    if path.is_dir():
        if (path / "state.pt").is_file():
            return path / "state.pt"
        raise FileNotFoundError(
            f"{path} has no config.json and no state.pt: written neither by save_pretrained nor in training"
        )
    if not path.exists():
        names = f", and no network of that name: {', '.join(list_models())}" if alone else ""
        raise FileNotFoundError(f"there is no file {path}{names}")
    return path


def _from_folder(name: str | None, folder: Path, config: dict[str, Any]) -> FusionModel:
    try:
        saved = json.loads((folder / "config.json").read_text())["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} does not name a network: not written by save_pretrained") from error
    if saved == "wrapped":
        raise ValueError(
            f"{folder} holds the weights of a module that is not this library's; pass the module: "
            f"load_model(YourNetwork(), {str(folder)!r})"
        )
    return model_class(name or saved).from_pretrained(str(folder), **config)


def _into_module(module: nn.Module, checkpoint: Any, ema: bool | None) -> FusionModel:
    """Load weights into a module of one's own."""
    if checkpoint is None:
        raise TypeError("checkpoint must be given with a module of your own: the file or the folder of its weights")
    folder = _saved_folder(Path(checkpoint)) if isinstance(checkpoint, str | Path) else None
    if folder is not None and not isinstance(module, FusionModel):
        return load_folder(module, folder)
    if folder is not None:
        checkpoint = folder / "model.safetensors"
    raw = checkpoint if isinstance(checkpoint, Mapping) else read_checkpoint(_file(Path(checkpoint)))
    found = [part for part in _parts(raw) if ema is None or part.averaged == ema or part.where == ""]
    own = module.state_dict().keys()
    states = [state for part in sorted(found, key=lambda part: part.averaged) for _, state in _stages(part)]
    if not states:
        raise ValueError("the checkpoint holds no state dict")
    best = min(states, key=lambda state: len(state.keys() ^ own))
    load_strict(module, best, source="the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint))
    return as_network(module.eval())


def _parts(raw: Mapping[str, Any], where: str = "", averaged: bool = False) -> Iterator[Found]:
    """Yield whatever in a file may be weights, the outermost first."""
    yield Found(where, raw, averaged or AVERAGED in raw)
    for entry in (*ENTRIES, *EMA_ENTRIES):
        held = raw.get(entry)
        if isinstance(held, Mapping):
            yield from _parts(held, f"{where}[{entry!r}]", averaged or entry in EMA_ENTRIES)


def _stages(part: Found) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dict of a part with no prefix taken off its keys, with one, with two, ..."""
    state = {key: value for key, value in part.content.items() if key != AVERAGED}
    where = part.where or "itself"
    while is_state(state):
        yield where, state
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            return
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        where = f"{where} without {prefix!r}"


def _recognised(found: list[Found], names: list[str], config: dict[str, Any], source: str) -> FusionModel:
    """Return the network whose weights are among the parts, loaded."""
    tried: list[str] = []
    nearest: tuple[int, str, dict[str, Tensor]] | None = None
    own = {name: _keys(name, config) for name in names}
    for part in found:
        for name in names:
            published = _published(name, part.content)
            if published is not None:
                return load_official(name, published, **config)
        for where, state in _stages(part):
            tried.append(where)
            for name in names:
                if state.keys() == own[name]:
                    model = model_class(name)(**config)
                    load_strict(model, state, source=source)
                    return model.eval()
                published = _published(name, state)
                if published is not None:
                    return load_official(name, published, **config)
                distance = len(state.keys() ^ own[name])
                if own[name] and (nearest is None or distance < nearest[0]):
                    nearest = distance, name, state
    what = (
        f"tried {', '.join(dict.fromkeys(tried))}"
        if tried
        else f"its entries are {', '.join(map(str, found[0].content))}"
    )
    if len(names) == 1 and nearest is not None:
        try:
            load_strict(model_class(names[0])(**config), nearest[2], source=source)
        except ValueError as error:
            raise ValueError(f"{error} ({what})") from None
    closest = "" if nearest is None else f"; nearest is {nearest[1]!r}, {nearest[0]} keys differ"
    raise ValueError(
        f"{source} holds the weights of no network that is known{closest} ({what}); with a name and the fields of its "
        "configuration, load_model(name, checkpoint, ...) says what does not fit"
    )


def _keys(name: str, config: dict[str, Any]) -> set[str]:
    """Return the keys of a network's weights; nothing is drawn or filled for it."""
    with torch.device("meta"):
        return set(model_class(name)(**config).state_dict())


def _published(name: str, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a part as the authors' file of a network would be, None if it cannot be one."""
    layout = layout_of(name)
    if layout is None:
        return None
    if layout.unwrap(content) is not None:
        return content
    # PSFusion's weights without the dict around them
    bare = name == "psfusion" and is_state(content) and any(key.startswith("encoder_rgb_") for key in content)
    return {"MTAN": content} if bare else None

"""A network with some of its blocks exchanged for others: an ablation in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fusionblocks._support.names import closest
from fusionblocks.blocks.kinds import inputs_of
from fusionblocks.models.base import FusionModel, copied, evaluating

Model = TypeVar("Model", bound=nn.Module)
Block = TypeVar("Block", bound=nn.Module)


def swap(
    model: Model, block: type[Block], factory: Callable[[Block], nn.Module], *, inputs: Mapping[str, Any] | None = None
) -> Model:
    """Return a copy of a network in which every block of a class is exchanged.

    Each new block is tried before it takes its place: it gets what the old one gets in a small forward pass, and must
    return what the old one returns, tensors of the same shapes. The copy's model card and ``config.json`` tell what was
    exchanged; the new blocks have their own weights, all others keep theirs. A block that stands at several places is
    exchanged once for all of them.

    Args:
        model: A network or any other module; it is not changed. A guide that is attached to it is shared, not copied.
        block: The class of the blocks to exchange, subclasses included; any module class will do.
        factory: From an old block to the new one. An old block of :func:`fusionblocks.list_blocks` tells its widths:
            ``channels``, and ``in_channels`` where they differ.
        inputs: Keyword arguments for the forward pass of the trial. By default those of
            :meth:`FusionModel.example_inputs`; in another module blocks are tried alone, as their kind says, and not at
            all if they have none.

    Returns:
        The copy. A new block has the device, the dtype and the training mode of the old one.

    Raises:
        TypeError: If an argument has another type, or ``factory`` returns something that is not a module.
        ValueError: If the network has no such block (the classes that it has are named), is an optimized copy, or a new
            block fails its trial; the message says which and how.

    Example:
        >>> import fusionblocks as fb
        >>> model = fb.create_model("fusionblocks", pretrained=False)
        >>> swapped = fb.swap(model, fb.TransformerBlock, lambda old: fb.ChannelAttention(old.channels))
        >>> type(model.context).__name__, type(swapped.context).__name__
        ('TransformerBlock', 'ChannelAttention')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise TypeError(f"block must be a class of modules, got {block!r}")
    if not callable(factory):
        raise TypeError(f"factory must be callable, from an old block to a new one, got {type(factory).__name__}")
    if hasattr(model, "optimization"):
        raise ValueError("model is an optimized copy, whose blocks have been rewritten: swap in the original")

    swapped = copied(model)
    places = _places(swapped, block)
    if not places:
        known = sorted({type(module).__name__ for module in model.modules()} - {type(model).__name__})
        raise ValueError(
            f"model has no {block.__name__}{closest(block.__name__, known)}; its modules are {', '.join(known)}"
        )
    olds: dict[int, tuple[str, nn.Module]] = {}
    for path, old in places:
        olds.setdefault(id(old), (path, old))
    calls = _calls(swapped, [old for _, old in olds.values()], inputs)
    news = {}
    for key, (path, old) in olds.items():
        news[key] = _made(factory, cast(Block, old), path)
        _try(old, news[key], calls.get(key), path)
    if places[0][0] == "":
        return cast(Model, news[id(places[0][1])])
    for path, old in places:
        parent, _, name = path.rpartition(".")
        setattr(swapped.get_submodule(parent), name, news[id(old)])
    if isinstance(swapped, FusionModel):
        swapped.note_swaps({path: f"{type(old).__name__} -> {type(news[id(old)]).__name__}" for path, old in places})
    return swapped


def _places(model: nn.Module, block: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Return the paths of all blocks of a class and the blocks, but those within another one."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        inside = any(path.startswith(f"{outer}." if outer else "") for outer, _ in found)
        if isinstance(module, block) and not inside:
            found.append((path, module))
    return found


def _made(factory: Callable[[Block], nn.Module], old: Block, path: str) -> nn.Module:
    new = factory(old)
    if not isinstance(new, nn.Module):
        raise TypeError(f"factory must return a torch.nn.Module, got {type(new).__name__} for {path or 'the model'}")
    reference = next(old.parameters(), None)
    if reference is not None:
        new = new.to(reference.device, reference.dtype)
    return new.train(old.training)


class _AllSeen(Exception):
    """Ends a forward pass when every block was called."""


def _calls(
    model: nn.Module, blocks: list[nn.Module], inputs: Mapping[str, Any] | None
) -> dict[int, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return what blocks are called with in a forward pass, by the block's identity."""
    if inputs is None:
        if not isinstance(model, FusionModel):
            return {}
        inputs = model.example_inputs()
    calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        calls.setdefault(id(module), tree_map(_copied, (args, kwargs)))
        if len(calls) == len(blocks):
            raise _AllSeen

    hooks = [block.register_forward_hook(note, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad(), evaluating(model):
            model(**inputs)
    except _AllSeen:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _try(old: nn.Module, new: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]] | None, path: str) -> None:
    """Raise unless a new block takes what the old one takes, and returns tensors of the same shapes."""
    if call is None and getattr(old, "kind", None) is None:
        return  # nothing is known of what it takes
    args, kwargs = (inputs_of(old), {}) if call is None else call
    place = f"{type(new).__name__} in place of {type(old).__name__} at {path or 'the top'}"
    with torch.no_grad(), evaluating(old, new):
        expected = _shapes(old(*tree_map(_copied, args), **tree_map(_copied, kwargs)))
        try:
            actual = _shapes(new(*tree_map(_copied, args), **tree_map(_copied, kwargs)))
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            raise ValueError(f"{place} cannot take {_shapes((args, kwargs))}: {first}") from error
    if actual != expected:
        raise ValueError(f"{place} must return {expected}, got {actual}")


def _shapes(value: Any) -> str:
    """Return a structure of tensors as a text of their shapes."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shapes(part)}" for name, part in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(filter(None, map(_shapes, value)))
    return type(value).__name__

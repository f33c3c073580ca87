"""Low-rank adaptation of a network that stays frozen: LoRA by reparametrisation, inside attention layers too."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fusionblocks._support.checks import check_positive

#: Groups of layers that ``targets`` may name, by a part of a layer's dotted name.
GROUPS = {
    "all": r".*",
    "attention": r"(.*\.)?\w*(attn|attention)\w*\..*",
    "mlp": r"(.*\.)?\w*(mlp|ffn|feed_forward)\w*\..*",
}
# where a merged tower keeps what it needs to unmerge: {site: (weight before, update)}
MERGED = "_merged_lora"


class LowRankUpdate(nn.Module):
    """The update of one weight, as a parametrisation: ``W + (alpha / rank) U D``; ``U`` starts at zero.

    Args:
        weight: The weight to adapt, ``(out, in)``; dtype and device are taken from it.
        rank: Rank of the update.
        alpha: The update is scaled by ``alpha / rank``.
    """

    def __init__(self, weight: Tensor, *, rank: int = 4, alpha: float = 4.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.alpha / self.rank) * (self.up @ self.down)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


def add_lora(
    tower: nn.Module, *, rank: int = 4, alpha: float | None = None, targets: str | Sequence[str] = ("attention",)
) -> list[str]:
    """Freeze a network and add a trainable low-rank update to the weights of its linear layers.

    The update acts on the weight (``torch.nn.utils.parametrize``), so it reaches the projections that
    ``torch.nn.MultiheadAttention`` reads without calling a layer, its packed ``in_proj_weight`` among them. Until it
    is trained, the network computes what it computed before.

    Args:
        tower: The network, changed in place; load its weights before.
        rank: Rank of every update.
        alpha: Every update is scaled by ``alpha / rank``; None: by 1.
        targets: The layers: ``"attention"``, ``"mlp"``, ``"all"``, or patterns of dotted names of weights such as
            ``"transformer.resblocks.1?.mlp.*"``; several are joined.

    Returns:
        The dotted names of the adapted weights.

    Raises:
        ValueError: If the rank is not a positive integer, a target names no weight, or the network has updates already.

    Reference:
        LoRA: Low-Rank Adaptation of Large Language Models (2021).

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import add_lora
        >>> tower = torch.nn.TransformerEncoderLayer(16, 2, 32)
        >>> add_lora(tower, rank=2)
        ['self_attn.in_proj_weight', 'self_attn.out_proj.weight']
        >>> sum(p.numel() for p in tower.parameters() if p.requires_grad)
        192
    """
    check_positive(rank=rank)
    if dict(updates(tower)) or MERGED in tower.__dict__:
        raise ValueError("the network has low-rank updates already")
    chosen = _choose([site for site, _ in _sites(tower)], [targets] if isinstance(targets, str) else list(targets))
    tower.requires_grad_(False)
    for site in chosen:
        owner, leaf = _owner(tower, site)
        update = LowRankUpdate(getattr(owner, leaf), rank=rank, alpha=rank if alpha is None else alpha)
        parametrize.register_parametrization(owner, leaf, update)
    return chosen


def merge_lora(tower: nn.Module) -> None:
    """Put the low-rank updates into the weights: a plain network with its first keys, as fast as without updates.

    The weights as they were are kept, so that :func:`unmerge_lora` restores them bit by bit. A merged network stays so
    until then: loading other weights into it is undone by unmerging.

    Args:
        tower: A network that :func:`add_lora` changed.

    Raises:
        ValueError: If it has no updates, or they are merged already.

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import add_lora, merge_lora
        >>> tower = torch.nn.Linear(4, 4)
        >>> _ = add_lora(tower, targets="all")
        >>> merge_lora(tower)
        >>> list(tower.state_dict())
        ['bias', 'weight']
    """
    if MERGED in tower.__dict__:
        raise ValueError("the low-rank updates are merged already")
    kept = {}
    for site, update in _attached(tower).items():
        owner, leaf = _owner(tower, site)
        original = getattr(owner.parametrizations, leaf).original
        parametrize.remove_parametrizations(owner, leaf, leave_parametrized=False)
        with torch.no_grad():
            setattr(owner, leaf, nn.Parameter(update(original), requires_grad=False))
        kept[site] = (original, update)
    tower.__dict__[MERGED] = kept  # beside the registered modules: neither saved nor moved


def unmerge_lora(tower: nn.Module) -> None:
    """Undo :func:`merge_lora`: the weights are bit by bit what they were, and the updates train again.

    Args:
        tower: A network whose updates are merged.

    Raises:
        ValueError: If it has none that are merged.

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import add_lora, merge_lora, unmerge_lora
        >>> tower = torch.nn.Linear(4, 4)
        >>> _ = add_lora(tower, targets="all")
        >>> merge_lora(tower)
        >>> unmerge_lora(tower)
        >>> [name for name, p in tower.named_parameters() if p.requires_grad]
        ['parametrizations.weight.0.down', 'parametrizations.weight.0.up']
    """
    if MERGED not in tower.__dict__:
        raise ValueError("the network has no merged low-rank updates")
    for site, (original, update) in tower.__dict__.pop(MERGED).items():
        owner, leaf = _owner(tower, site)
        # the network may have moved since
        original.data = original.data.to(getattr(owner, leaf))
        delattr(owner, leaf)
        owner.register_parameter(leaf, original)
        parametrize.register_parametrization(owner, leaf, update.to(original))


def is_merged(tower: nn.Module) -> bool:
    """Return whether the network's low-rank updates are in its weights."""
    return MERGED in tower.__dict__


def updates(tower: nn.Module) -> Iterator[tuple[str, LowRankUpdate]]:
    """Yield every low-rank update of a network, merged or not, with the dotted name of its weight."""
    for site, (_, update) in tower.__dict__.get(MERGED, {}).items():
        yield site, update
    for name, module in tower.named_modules():
        if parametrize.is_parametrized(module):
            for leaf, chain in module.parametrizations.items():
                if isinstance(chain[0], LowRankUpdate):
                    yield f"{name}.{leaf}".lstrip("."), chain[0]


def lora_state_dict(tower: nn.Module) -> dict[str, Tensor]:
    """Return the low-rank updates alone, under the names of the weights that they adapt.

    Args:
        tower: A network that :func:`add_lora` changed, merged or not.

    Raises:
        ValueError: If it has no updates.

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import add_lora, lora_state_dict
        >>> tower = torch.nn.Linear(6, 5)
        >>> _ = add_lora(tower, rank=2, targets="all")
        >>> {name: tuple(value.shape) for name, value in lora_state_dict(tower).items()}
        {'weight.down': (2, 6), 'weight.up': (5, 2)}
    """
    attached = _attached(tower)
    return {f"{site}.{key}": value for site, update in attached.items() for key, value in update.state_dict().items()}


def load_lora(tower: nn.Module, state: Mapping[str, Tensor], *, source: str = "the adapter") -> None:
    """Load what :func:`lora_state_dict` returned into a network with updates of the same places, rank and widths.

    Args:
        tower: A network that :func:`add_lora` changed; its updates must not be merged.
        state: The updates.
        source: What the state is called in messages, a file's name for example.

    Raises:
        ValueError: If the network has no updates or they are merged, or the rank, a width or a place differs; nothing
            of the network has changed then.

    Example:
        >>> import torch
        >>> from fusionblocks.guidance import add_lora, load_lora, lora_state_dict
        >>> tower, other = torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)
        >>> _ = add_lora(tower, rank=8, targets="all"), add_lora(other, rank=4, targets="all")
        >>> load_lora(other, lora_state_dict(tower))
        Traceback (most recent call last):
            ...
        ValueError: the adapter has updates of rank 8, the network has room for rank 4 (at weight)
    """
    if is_merged(tower):
        raise ValueError("the low-rank updates are merged; unmerge them before others are loaded")
    own = lora_state_dict(tower)
    _check_fit(own, state, source)
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def _check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise unless ``state`` has the places, the rank and the widths of ``own``."""
    for key in own:
        if key not in state:
            raise ValueError(f"{source} has no {key}, which the network adapts; the targets differ")
    for key, value in state.items():
        site, _, part = key.rpartition(".")
        if key not in own:
            raise ValueError(f"{source} has {key}, which the network does not adapt; the targets differ")
        expected, got = tuple(own[key].shape), tuple(value.shape)
        if expected == got:
            continue
        axis = 0 if part == "down" else 1  # down is (rank, in), up is (out, rank)
        if len(got) == 2 and expected[axis] != got[axis]:
            raise ValueError(
                f"{source} has updates of rank {got[axis]}, the network has room for rank {expected[axis]} (at {site})"
            )
        raise ValueError(f"{source} does not fit the network's width: {key} must have shape {expected}, got {got}")


def _attached(tower: nn.Module) -> dict[str, LowRankUpdate]:
    found = dict(updates(tower))
    if not found:
        raise ValueError("the network has no low-rank updates; add_lora(network, rank=...) adds them")
    return found


def _sites(tower: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that an update may adapt: of linear layers, and what attention layers hold themselves."""
    for name, module in tower.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            leaves = ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"]
        elif isinstance(module, nn.Linear):
            leaves = ["weight"]
        else:
            continue
        for leaf in leaves:
            if getattr(module, leaf, None) is not None:
                yield f"{name}.{leaf}".lstrip("."), getattr(module, leaf)


def _choose(sites: list[str], targets: list[str]) -> list[str]:
    """Return the sites that a group or a pattern names, in the network's order."""
    if not targets:
        raise ValueError(f"targets must name layers: {', '.join(GROUPS)}, or patterns of dotted names")
    chosen: set[str] = set()
    for target in targets:
        pattern = GROUPS.get(target) or fnmatch.translate(target)
        matching = [site for site in sites if re.fullmatch(pattern, site)]
        if not matching:
            some = ", ".join(sites[:4]) or "none"
            raise ValueError(
                f"targets: {target!r} names no weight of a linear or attention layer; groups are {', '.join(GROUPS)}, "
                f"the network's weights are {some}{', ...' if len(sites) > 4 else ''}"
            )
        chosen.update(matching)
    return [site for site in sites if site in chosen]


def _owner(tower: nn.Module, site: str) -> tuple[nn.Module, str]:
    """Return the module that holds a weight, and the weight's name there."""
    name, _, leaf = site.rpartition(".")
    return tower.get_submodule(name), leaf

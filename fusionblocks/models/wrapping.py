"""Networks of one's own: any module that takes a pair and returns a picture, as a network of this library."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fusionblocks.image import luma
from fusionblocks.models.base import FusionModel, FusionOutput, evaluating

KINDS = {"rgb": 3, "luma": 1}
"""What ``visible`` may be, and its channels."""
TRIED_SIZES = (32, 64, 256)
_FOUND: WeakKeyDictionary[nn.Module, tuple[str, int]] = WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class WrappedConfig:
    """What is known of a wrapped module.

    Args:
        source: Where its class is from, ``"package.module:Class"``.
        visible: What its ``visible`` is, ``"rgb"`` or ``"luma"``.
        label: What the network is called.
    """

    source: str = ""
    visible: str = "rgb"
    label: str = ""


class WrappedModel(FusionModel):
    """A module of one's own as a network: made by :func:`wrap`.

    Args:
        module: The module.
        config: What is known of it.
        fused_channels: Channels of what it returns.

    No example: made by :func:`wrap`, which has one.
    """

    name: ClassVar[str] = "wrapped"
    config_class: ClassVar[type] = WrappedConfig
    config: WrappedConfig

    def __init__(self, module: nn.Module, config: WrappedConfig, fused_channels: int) -> None:
        super().__init__(config)
        self.wrapped = module
        self.fused_channels = fused_channels  # type: ignore[misc]
        self.name = config.label  # type: ignore[misc]

    def _saved_config(self) -> dict[str, Any]:
        return {"model": "wrapped", **dataclasses.asdict(self.config)}

    def reach(self) -> int | None:
        """Return the rows around a row that the module sees, see :func:`fusionblocks.blocks.reach`."""
        from fusionblocks.blocks import reach  # which needs timm

        return reach(self.wrapped)

    def forward(self, infrared: Tensor, visible: Tensor) -> FusionOutput:
        """Fuse a pair.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB in [0, 1]; a module of luma gets its luma.
        """
        if self.config.visible == "luma" and visible.shape[1] == 3:
            visible = luma(visible)
        output = _called(self.wrapped, infrared, visible)
        return output if isinstance(output, FusionOutput) else FusionOutput(fused=output)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> NoReturn:
        raise ValueError(
            f"{model_id} holds the weights of a module that is not this library's; no code that a file names is run: "
            f"pass the module, fusionblocks.load_model(YourNetwork(), {model_id!r})"
        )


def wrap(module: nn.Module, visible: str | None = None, *, name: str | None = None) -> FusionModel:
    """Return a network of this library that computes with a module of your own.

    The module takes ``(infrared, visible)``, under these names or as its first two arguments, and returns a picture
    ``(B, 1 or 3, H, W)`` or a :class:`~fusionblocks.FusionOutput`. The network saves its weights, and is fused with,
    trained and optimized like any other. To read saved weights again pass the module:
    ``fusionblocks.load_model(YourNetwork(), folder)``.

    Args:
        module: The module; the network shares its weights.
        visible: What its ``visible`` is: ``"rgb"`` for ``(B, 3, H, W)`` or ``"luma"`` for ``(B, 1, H, W)``. None finds
            out by fusing a tiny pair, RGB first, in evaluation mode and without touching the random state.
        name: What the network is called; None takes the class's name.

    Raises:
        TypeError: If ``module`` is not a module.
        ValueError: If ``visible`` is another word, or the module cannot fuse a pair; the message says what was tried.

    Example:
        >>> import torch
        >>> import fusionblocks as fb
        >>> class Mean(torch.nn.Module):
        ...     def forward(self, infrared, visible):
        ...         return (infrared + visible) / 2
        >>> network = fb.wrap(Mean(), visible="luma")
        >>> network(torch.rand(1, 1, 8, 9), torch.rand(1, 3, 8, 9)).fused.shape
        torch.Size([1, 1, 8, 9])
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if visible is not None and visible not in KINDS:
        raise ValueError(f"visible must be 'rgb', 'luma' or None, got {visible!r}")
    if isinstance(module, FusionModel):
        return module
    kind, channels = _tried(module, visible)
    cls = type(module)
    config = WrappedConfig(f"{cls.__module__}:{cls.__qualname__}", kind, name or cls.__name__)
    network = WrappedModel(module, config, channels)
    network.training = module.training
    return network


@torch.compiler.disable
def visible_of(module: nn.Module) -> str:
    """Return what the ``visible`` of a module is, ``"rgb"`` or ``"luma"``: a network of this library takes RGB.

    Args:
        module: A network.

    Raises:
        ValueError: If the module cannot fuse a pair; the message says what was tried.

    Example:
        >>> from fusionblocks import create_model
        >>> from fusionblocks.models import visible_of
        >>> visible_of(create_model("laplacian"))
        'rgb'
    """
    return "rgb" if isinstance(inner_model(module), FusionModel) else _tried(module, None)[0]


def inner_model(module: nn.Module) -> nn.Module:
    """Return the module within what compiles it, spreads it over devices or averages it.

    Args:
        module: Any module.

    Example:
        >>> from torch import nn
        >>> from fusionblocks.models import inner_model
        >>> inner_model(nn.DataParallel(nn.ReLU()))
        ReLU()
    """
    while True:
        held = getattr(module, "_orig_mod", None)
        if held is None and isinstance(module, _CONTAINERS):
            held = module.module
        if not isinstance(held, nn.Module):
            return module
        module = held


_CONTAINERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)


def _called(module: nn.Module, infrared: Tensor, visible: Tensor) -> Any:
    if {"infrared", "visible"} <= set(inspect.signature(inner_model(module).forward).parameters):
        return module(infrared=infrared, visible=visible)
    return module(infrared, visible)


def _tried(module: nn.Module, visible: str | None) -> tuple[str, int]:
    """Return what a module's ``visible`` is and the channels of what it returns, found once for each module."""
    found = _FOUND.get(module)
    if found is not None and visible in (None, found[0]):
        return found
    weight = next((tensor for tensor in module.parameters() if tensor.is_floating_point()), torch.empty(0))
    failures = []
    for kind in KINDS if visible is None else (visible,):
        for size in TRIED_SIZES:
            pair = [
                torch.full((1, channels, size, size), 0.5, device=weight.device, dtype=weight.dtype)
                for channels in (1, KINDS[kind])
            ]
            try:
                with torch.no_grad(), evaluating(module), _same_random_state(weight.device):
                    output = _called(module, *pair)
                channels = _channels(output, size)
            except Exception as error:  # a module of one's own may raise anything
                failures.append(
                    f"{kind} of {size}x{size}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
                )
                continue
            _FOUND[module] = kind, channels
            return kind, channels
    raise ValueError(
        f"{type(module).__name__} cannot fuse: it must take (infrared, visible) and return a picture (B, 1 or 3, H, W) "
        f"or a FusionOutput; tried visible as {'; '.join(failures)}"
    )


def _channels(output: Any, size: int) -> int:
    fused = output.fused if isinstance(output, FusionOutput) else output
    if not isinstance(fused, Tensor):
        raise TypeError(f"it returned a {type(fused).__name__}")
    if fused.ndim != 4 or fused.shape[0] != 1 or fused.shape[1] not in (1, 3) or fused.shape[2:] != (size, size):
        raise ValueError(f"it returned shape {tuple(fused.shape)}, expected (1, 1 or 3, {size}, {size})")
    return fused.shape[1]


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


class RunBy(FusionModel):
    """A network that something else runs: it answers for names and channels, the other computes.

    Args:
        runner: What compiles the network, spreads it over devices or averages it.
        network: The network within.

    No example: :func:`fusionblocks.fuse` makes it.
    """

    def __init__(self, runner: nn.Module, network: FusionModel) -> None:
        nn.Module.__init__(self)
        self.runner = runner
        self.config, self.name = network.config, network.name  # type: ignore[misc]
        self.fused_channels, self.guidance_names = network.fused_channels, network.guidance_names  # type: ignore[misc]
        self._guide, self._wanted = network._guide, network._wanted
        self._network: Callable[[], FusionModel] = lambda: network
        self.forward = _with_signature(runner, network)

    def example_inputs(self, batch: int = 1, height: int = 32, width: int = 32) -> dict[str, Any]:
        """Ask the network within."""
        return self._network().example_inputs(batch, height, width)

    def ask_guide(self, infrared: Tensor, visible: Tensor) -> dict[str, Any]:
        """Ask the guide of the network within."""
        return self._network().ask_guide(infrared, visible)


def _with_signature(runner: nn.Module, network: FusionModel) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return runner(*args, **kwargs)

    forward.__signature__ = inspect.signature(network.forward)  # type: ignore[attr-defined]
    return forward


def as_network(module: nn.Module) -> FusionModel:
    """Return any module as a network: itself, one that is run by something else, or one that is wrapped.

    Args:
        module: Any module that can fuse a pair.

    Raises:
        TypeError: If it is not a module.
        ValueError: If it cannot fuse a pair.

    Example:
        >>> from torch import nn
        >>> from fusionblocks import create_model
        >>> from fusionblocks.models import as_network
        >>> as_network(nn.DataParallel(create_model("laplacian"))).name
        'laplacian'
    """
    if isinstance(module, FusionModel):
        return module
    network = inner_model(module)
    return RunBy(module, network) if isinstance(network, FusionModel) else wrap(module)


def load_folder(module: nn.Module, folder: Path) -> FusionModel:
    """Return a module of one's own as a network with the weights that its network once saved.

    Raises:
        ValueError: If the folder holds the weights of another network, or they do not fit.

    No example: :func:`fusionblocks.load_model` calls it.
    """
    import json

    from fusionblocks._loading import load_strict, read_checkpoint

    config = json.loads((folder / "config.json").read_text())
    if config.get("model") != "wrapped":
        raise ValueError(f"{folder} holds a {config.get('model')!r} network, not a module of your own")
    network = wrap(module, config.get("visible"), name=config.get("label"))
    load_strict(network, read_checkpoint(folder / "model.safetensors"), source=str(folder))
    return network.eval()

"""What every fusion network shares: its output, its configuration, saving and loading."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import torch
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from torch import Tensor, nn

from fusionblocks._loading import load_strict, read_checkpoint
from fusionblocks._support.modules import is_watched
from fusionblocks._support.names import closest
from fusionblocks.image.rows import Rows, WholeOnlyError

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nn.Module)

MODEL_CARD = """---
{{ card_data }}
---

# {{ model_name | default("A fusionblocks network", true) }}

An infrared-visible image fusion network saved by [fusionblocks]({{ repo_url | default("", true) }}).

```python
import fusionblocks as fb

model = fb.models.model_class("{{ network | default("", true) }}").from_pretrained("path/or/hub-id")
picture = fb.fuse("infrared.png", "visible.png", model=model)
```
{% if swapped %}
Blocks were exchanged with `fb.swap`. To load it, exchange them again and call `fb.load_model(network, folder)`:
{% for path, change in swapped.items() %}
- `{{ path }}`: {{ change }}
{%- endfor %}
{% endif %}"""


#: The extras that networks return beside ``fused``; asking an output for one that its network lacks gives None.
EXTRAS = ("segmentation", "binary", "boundary", "visible", "infrared", "features", "preliminary")


@dataclasses.dataclass
class FusionOutput:
    """What a fusion network returns.

    A network that returns more has a subclass with its extras, made by :func:`fusion_output`, such as
    :class:`~fusionblocks.models.PSFusionOutput`. Asking for one of ``EXTRAS`` that a network lacks gives None.

    Args:
        fused: What the network's head emits, ``(B, 1, H, W)`` luma or ``(B, 3, H, W)`` RGB, about [0, 1].
    """

    fused: Tensor

    def __getattr__(self, name: str) -> Any:
        if name in EXTRAS:
            return None
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{closest(name, EXTRAS)}")

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a new output with ``function`` applied to every tensor."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                value = {name: function(tensor) for name, tensor in value.items()}
            elif value is not None:
                value = function(value)
            values[field.name] = value
        return type(self)(**values)


torch.export.register_dataclass(FusionOutput, serialized_type_name="fusionblocks.FusionOutput")
Output = TypeVar("Output", bound=type[FusionOutput])


def output_names(cls: type[FusionOutput] = FusionOutput) -> list[str]:
    """Return what outputs may hold: ``fused``, the known extras, and those of all outputs that were defined."""
    own = [field.name for field in dataclasses.fields(cls)]
    others = [name for subclass in cls.__subclasses__() for name in output_names(subclass)]
    return list(dict.fromkeys(["fused", *EXTRAS, *own, *others]))


@dataclass_transform()
def fusion_output(cls: Output) -> Output:
    """Make a subclass of :class:`FusionOutput` a dataclass that ``torch.export`` knows.

    Args:
        cls: The class; its fields are a network's extras, tensors, dicts of tensors or None.

    Raises:
        TypeError: If it is not a subclass of :class:`FusionOutput`.

    Example:
        >>> import torch
        >>> from torch import Tensor
        >>> from fusionblocks import FusionOutput
        >>> from fusionblocks.models import fusion_output
        >>> @fusion_output
        ... class WithEdges(FusionOutput):
        ...     edges: Tensor | None = None
        >>> output = WithEdges(fused=torch.zeros(1, 1, 2, 2), edges=torch.ones(1, 1, 2, 2))
        >>> print(output.edges.mean(), output.segmentation)
        tensor(1.) None
    """
    if not (isinstance(cls, type) and issubclass(cls, FusionOutput)):
        raise TypeError(f"fusion_output takes a subclass of FusionOutput, got {cls!r}")
    made: Any = dataclasses.dataclass(cls)
    torch.export.register_dataclass(made, serialized_type_name=f"{cls.__module__}.{cls.__qualname__}")
    return made


def build_config(config_class: type[Config], config: Config | None, options: Mapping[str, Any]) -> Config:
    """Return ``config`` with ``options`` replaced, refusing keywords that the dataclass does not know.

    Raises:
        TypeError: If ``config`` is not a ``config_class`` or an option is unknown (the closest match is offered).
    """
    if config is None:
        config = config_class()
    if not isinstance(config, config_class):
        raise TypeError(f"config must be a {config_class.__name__}, got {type(config).__name__}")
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for option in options:
        if option not in names:
            raise TypeError(
                f"unknown {config_class.__name__} keyword {option!r}{closest(option, names)}; known: {', '.join(names)}"
            )
    # JSON has no tuples: a list stands for one
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return dataclasses.replace(config, **frozen)  # type: ignore[type-var]


def hand_over(module: nn.Module, maps: list[Tensor]) -> Any:
    """Return ``module(*maps)`` for maps that nobody else needs.

    A module that has a method ``take`` takes them out of the list, each as soon as it has served.
    """
    take = getattr(module, "take", None)
    return module(*maps) if take is None or is_watched(module) else take(maps)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put every part of some modules into evaluation mode, and each back into its own mode afterwards."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def copied(model: Module, *, share_weights: bool = False) -> Module:
    """Return a deep copy of a module; guides are shared, for they do not belong to their networks and may be large.

    Args:
        model: Any module.
        share_weights: Let the copy have the same parameters and buffers.
    """
    shared: list[Any] = [guide for part in model.modules() if isinstance(part, FusionModel) for guide in part._guide]
    if share_weights:
        shared += [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(part): part for part in shared})


class FusionModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="fusionblocks",
    tags=["image-fusion", "infrared-visible"],
    pipeline_tag="image-to-image",
    license="mit",
    model_card_template=MODEL_CARD,
):
    """Base of all networks: ``model(infrared=..., visible=..., **guidance) -> FusionOutput``.

    A network names itself (``name``), its frozen config dataclass (``config_class``), the channels of ``fused``
    (1: luma, 3: RGB), the tensors it takes beside the pair (``guidance_names``), the guides of
    ``fusionblocks.guidance`` that compute them (``guides``, the class of each by its short name), its paper and
    licence note, and writes ``__init__`` and ``forward``. One whose weights come with the library pins their SHA-256
    in ``packaged``, by the names of their files. One that needs pictures whole says why in ``whole_because``; another
    defines ``by_rows``, or just ``reach`` (see :func:`fusionblocks.blocks.reach`). Options of ``__init__`` are the
    fields of the config. A part with mixtures of experts that runs more than once a pass says in ``expert_passes`` what
    it sees each time.

    Args:
        config: The network's configuration; its defaults are the paper's values.
        **options: Fields of the configuration to replace.

    Raises:
        TypeError: If an option is not a field of the configuration.

    Example:
        >>> import dataclasses
        >>> import torch
        >>> from fusionblocks import FusionModel, FusionOutput
        >>> @dataclasses.dataclass(frozen=True)
        ... class MeanConfig:
        ...     weight: float = 0.5
        >>> class Mean(FusionModel):
        ...     name, config_class = "mean", MeanConfig
        ...     def forward(self, infrared, visible):
        ...         return FusionOutput(fused=torch.lerp(visible, infrared, self.config.weight))
        >>> Mean(weight=1.0)(infrared=torch.ones(1, 1, 2, 2), visible=torch.zeros(1, 1, 2, 2)).fused.mean()
        tensor(1.)
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    fused_channels: ClassVar[int] = 1
    guidance_names: ClassVar[tuple[str, ...]] = ()
    guides: ClassVar[Mapping[str, str]] = {}
    expert_passes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    whole_because: ClassVar[str] = ""
    packaged: ClassVar[Mapping[str, str]] = {}
    paper: ClassVar[str] = ""
    license_note: ClassVar[str] = ""

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__()
        self.config = build_config(type(self).config_class, config, options)
        self._hub_mixin_config = self._saved_config()
        self._swapped: dict[str, str] = {}
        self._guide: tuple[Callable[..., Any], ...] = ()
        self._wanted: frozenset[str] | None = None

    def _saved_config(self) -> dict[str, Any]:
        return {"model": self.name, **dataclasses.asdict(self.config)}

    def wants(self, *outputs: str) -> bool:
        """Return whether any of some extras of its output is to be computed.

        All are, but in a copy that :func:`fusionblocks.optimize` made for some of them alone.

        Args:
            *outputs: Names of the extras.
        """
        return self._wanted is None or not self._wanted.isdisjoint(outputs)

    def guidance_example(self, infrared: Tensor) -> dict[str, Tensor]:
        """Return what the network takes beside a pair, of the right shapes: what an export records it with.

        Args:
            infrared: ``(B, 1, H, W)``.

        Raises:
            NotImplementedError: If the network takes guidance, and its class does not say of what shape.
        """
        if self.guidance_names:
            names = ", ".join(self.guidance_names)
            raise NotImplementedError(f"{self.name} cannot be recorded: its class has no guidance_example of {names}")
        return {}

    def attach_guidance(self, guide: Callable[..., Any] | None) -> None:
        """Let ``guide`` compute the network's guidance whenever a pass gets none.

        The guide is not a part of the network: its weights are neither trained, moved nor saved with it.

        Args:
            guide: What the network's documentation says it calls; ``None`` detaches.

        Raises:
            TypeError: If ``guide`` cannot be called, or the network takes no guidance.
        """
        if guide is not None and not self.guidance_names:
            raise TypeError(f"{self.name!r} takes no guidance, so no guide can be attached")
        if guide is not None and not callable(guide):
            raise TypeError(f"guide must be callable, got {type(guide).__name__}")
        # in a tuple, so that a guide that is a module is not registered as a part of this one
        self._guide = () if guide is None else (guide,)

    def ask_guide(self, infrared: Tensor, visible: Tensor) -> dict[str, Any]:
        """Return what the attached guide computes for a pair: the network's guidance by name.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].

        Returns:
            The tensors of ``guidance_names``, as keywords of the forward pass; none without a guide.
        """
        if not self._guide:
            return {}
        return dict(zip(self.guidance_names, self._guide[0](infrared, visible), strict=True))

    def example_inputs(self, batch: int = 1, height: int = 32, width: int = 32) -> dict[str, Any]:
        """Return drawn arguments of the forward pass: for a trial, a trace or an export.

        A network that takes guidance defines it with its guidance.

        Args:
            batch: Size of the batch.
            height: Height of the pictures.
            width: Width of the pictures.
        """
        if self.guidance_names:
            raise NotImplementedError(f"{type(self).__name__} takes guidance, so it must define example_inputs itself")
        return self._drawn(infrared=(batch, 1, height, width), visible=(batch, 3, height, width))

    def _drawn(self, **shapes: tuple[int, ...]) -> dict[str, Any]:
        """Return tensors by name, drawn from [0, 1), of the network's dtype and on its device."""
        reference = next(self.parameters(), torch.empty(0))
        return {name: torch.rand(shape).to(reference) for name, shape in shapes.items()}

    def note_swaps(self, swaps: Mapping[str, str]) -> None:
        """Note in ``config.json`` and the model card which blocks were exchanged, see :func:`fusionblocks.swap`.

        Args:
            swaps: What took whose place, by its path.
        """
        self._swapped = {**self._swapped, **swaps}
        self._hub_mixin_config = {**self._saved_config(), "swapped": self._swapped}

    def by_rows(self, infrared: Rows, visible: Rows) -> Rows:
        """Return the fused picture of a pair by rows: what the network makes of the whole pair, a strip at a time.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible RGB picture ``(B, 3, H, W)`` in [0, 1].

        Returns:
            What ``fused`` would be, up to rounding.

        Raises:
            WholeOnlyError: If the network needs pictures whole; the message says why.
        """
        if self.whole_because:
            raise WholeOnlyError(self.whole_because)
        from fusionblocks.blocks.by_rows import known_reach  # which needs timm

        return infrared.map(lambda *pair: self(*pair).fused, visible, reach=known_reach(self))

    def packaged_file(self) -> str | None:
        """Return which file of ``packaged`` has the weights for this configuration, or None if none has."""
        return next(iter(self.packaged), None) if self.config == self.config_class() else None

    def guide_options(self) -> dict[str, Any]:
        """Return the arguments that this network's configuration asks of a guide that is built by name."""
        return {}

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and a model card into a folder.

        Args:
            save_directory: Folder to write to, made when it does not exist.
            **options: Passed to ``huggingface_hub.PyTorchModelHubMixin.save_pretrained`` (``push_to_hub``, ...).
        """
        told = {"network": self.name, "swapped": self._swapped}
        card = {"model_name": type(self).__name__, **told, **options.pop("model_card_kwargs", {})}
        return super().save_pretrained(save_directory, model_card_kwargs=card, **options)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        if config is None:
            raise ValueError(f"{model_id} has no {constants.CONFIG_NAME}: not a folder written by save_pretrained")
        saved = dict(config)
        saved_name = saved.pop("model", cls.name)
        if saved_name != cls.name:
            raise ValueError(f"{model_id} holds a {saved_name!r} network, not {cls.name!r}")
        if swapped := saved.pop("swapped", None):
            changes = ", ".join(sorted(set(swapped.values())))
            raise ValueError(
                f"{model_id} holds a network whose blocks were exchanged ({changes}): exchange them again with "
                f"fusionblocks.swap, and call fusionblocks.load_model(network, {str(model_id)!r})"
            )
        for name in ("model", "swapped"):
            options.pop(name, None)
        for name in ("proxies", "resume_download"):  # what huggingface_hub before 1.0 hands on though nobody set it
            if options.get(name) is None:
                options.pop(name, None)
        model = cls(**{**saved, **options})
        if Path(model_id).is_dir():
            file = Path(model_id) / constants.SAFETENSORS_SINGLE_FILE
        else:
            file = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=constants.SAFETENSORS_SINGLE_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            )
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: not a folder written by save_pretrained")
        if not strict:
            raise ValueError("strict=False would leave weights at their random initial values; loading is strict")
        load_strict(model, read_checkpoint(file), source=str(file))
        return model.to(map_location).eval()

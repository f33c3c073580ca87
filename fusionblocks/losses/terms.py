"""The terms of a training loss by name, and what each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fusionblocks._support.names import closest
from fusionblocks.losses.color import color_loss
from fusionblocks.losses.correlation import correlation_ratio_loss, decomposition_loss, graph_decomposition_loss
from fusionblocks.losses.diffusion import noise_loss
from fusionblocks.losses.edges import artifact_loss, edge_preservation_loss
from fusionblocks.losses.gradient import axis_gradient_loss, joint_gradient_loss
from fusionblocks.losses.information import entropy_loss, mutual_information_loss
from fusionblocks.losses.intensity import intensity_max_loss, masked_intensity_loss, masked_patch_mse_loss
from fusionblocks.losses.reconstruction import (
    gradient_loss,
    gram_loss,
    l1_loss,
    second_gradient_loss,
    spatial_gradient_loss,
)
from fusionblocks.losses.segmentation import cross_entropy_loss, ohem_cross_entropy_loss, two_class_loss
from fusionblocks.losses.similarity import scd_loss, source_ssim_loss, ssim_loss, vif_loss
from fusionblocks.losses.statistics import brightness_loss, contrast_loss, range_loss, spatial_frequency_loss


@dataclass(frozen=True)
class Term:
    """A function of a training loss and where its arguments come from.

    Args:
        function: What is computed, a scalar.
        inputs: The name of the input that each argument takes: ``{"logits": "binary", "labels": "binary_labels"}``.
    """

    function: Callable[..., Tensor]
    inputs: Mapping[str, str]

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the function's keyword-only arguments."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def term(function: Callable[..., Tensor], inputs: Mapping[str, str] | None = None) -> Term:
    """Return a term of a function, each argument of which takes the input of its own name unless told otherwise.

    Args:
        function: Its arguments are inputs, its keyword-only arguments options.
        inputs: The inputs of arguments that have another name.

    Raises:
        TypeError: The function is not callable, or takes ``*args`` or ``**kwargs``.

    Example:
        >>> from fusionblocks.losses import two_class_loss
        >>> from fusionblocks.losses.terms import term
        >>> dict(term(two_class_loss, {"logits": "binary"}).inputs)
        {'logits': 'binary', 'labels': 'labels'}
    """
    if not callable(function):
        raise TypeError(f"a term must be a function of its inputs, got {type(function).__name__}")
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        raise TypeError("a term must name its inputs, got a function of *args or **kwargs")
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    return Term(function, {name: (inputs or {}).get(name, name) for name in names})


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the message about an unknown name, with the closest known one."""
    known = sorted(known)
    return f"unknown {what} {name!r}{closest(name, known, ', {}')}; there are {', '.join(known) or 'none'}"


_REBUILT = {
    "gradient": gradient_loss,
    "gram": gram_loss,
    "l1": l1_loss,
    "second_gradient": second_gradient_loss,
    "spatial_gradient": spatial_gradient_loss,
    "ssim": ssim_loss,
}

#: The terms that :class:`FusionLoss` knows by name.
TERMS: dict[str, Term] = {
    # the fused picture and its sources
    "artifacts": term(artifact_loss),
    "axis_gradient": term(axis_gradient_loss),
    "brightness": term(brightness_loss),
    "color": term(color_loss),
    "contrast": term(contrast_loss),
    "edge_preservation": term(edge_preservation_loss),
    "correlation_ratio": term(correlation_ratio_loss),
    "entropy": term(entropy_loss),
    "intensity_max": term(intensity_max_loss),
    "joint_gradient": term(joint_gradient_loss),
    "masked_intensity": term(masked_intensity_loss),
    "masked_patch_mse": term(masked_patch_mse_loss),
    "mutual_information": term(mutual_information_loss),
    "range": term(range_loss),
    "scd": term(scd_loss),
    "source_ssim": term(source_ssim_loss),
    "spatial_frequency": term(spatial_frequency_loss),
    "vif": term(vif_loss),
    # features of both modalities
    "decomposition": term(decomposition_loss),
    "graph_decomposition": term(graph_decomposition_loss),
    # labels
    "binary": term(two_class_loss, {"logits": "binary", "labels": "binary_labels"}),
    "boundary": term(two_class_loss, {"logits": "boundary", "labels": "boundary_labels"}),
    "cross_entropy": term(cross_entropy_loss),
    "ohem_cross_entropy": term(ohem_cross_entropy_loss),
    # noise
    "noise": term(noise_loss),
    # the sources, rebuilt
    **{
        f"{modality}_{name}": term(function, {"image": f"{modality}_reconstruction", "reference": modality})
        for modality in ("infrared", "visible")
        for name, function in _REBUILT.items()
    },
}

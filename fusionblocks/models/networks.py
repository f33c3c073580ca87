"""The networks of this library: a row here and a folder beside are all that one is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fusionblocks._lazy import lazy_attributes


class Row(NamedTuple):
    """A network.

    Args:
        cls: The name of its class, which lies in ``models/<name>/network.py``, tells its paper, licence note, guides
            and weights, and is public in ``fusionblocks``.
        names: Further public names, each with the file in which it lies.
        top: Those of them that are public in ``fusionblocks`` too.
    """

    cls: str
    names: Mapping[str, str] = {}
    top: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """The file of each public name."""
        return {self.cls: "network", **self.names}


NETWORKS = {
    "fusionblocks": Row("FusionBlocksNet", {"FusionBlocksConfig": "network"}),
    "laplacian": Row("Laplacian", {"LaplacianConfig": "network"}),
    "psfusion": Row("PSFusion", {"PSFusionConfig": "network", "PSFusionOutput": "network"}),
    "sgafusion": Row("SGAFusion", {"SGAFusionConfig": "network", "SGAFusionOutput": "network"}),
    "sgdfuse": Row(
        "SGDFuse",
        {
            "AggregationHead": "stages",
            "NoiseConditionedUNet": "unet",
            "PreliminaryFusion": "stages",
            "SGDFuseConfig": "network",
            "SGDFuseOutput": "network",
            "SGDFusePipeline": "pipeline",
            "SGDFusePipelineOutput": "pictures",
            "beta_schedule": "schedules",
            "make_scheduler": "schedules",
            "noise_levels": "schedules",
            "sampling": "schedules",
        },
        top=("NoiseConditionedUNet", "SGDFusePipeline"),
    ),
    "smfnet": Row("SMFNet", {"SMFNetConfig": "network", "SMFNetOutput": "network"}),
}
"""The row of each network by its name."""


def public_names(prefix: str = "", *, top: bool = False) -> dict[str, str]:
    """Return the module of each public name of the networks, relative to ``fusionblocks.models``.

    Args:
        prefix: What stands before each module.
        top: Whether to take the names alone that are public in ``fusionblocks``.
    """
    return {
        name: f"{prefix}.{network}.{file}"
        for network, row in NETWORKS.items()
        for name, file in row.files.items()
        if not top or name in (row.cls, *row.top)
    }


def lazily(network: str, package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a network's folder."""
    return lazy_attributes(package, {name: f".{file}" for name, file in NETWORKS[network].files.items()})

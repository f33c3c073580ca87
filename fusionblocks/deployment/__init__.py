"""Networks as files for products: an ONNX file or a PyTorch program for all sizes, checked against the network."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    "Deployable": ".graph",
    "psnr": ".verification",
    "run_file": ".verification",
    "verify": ".verification",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)

"""Pictures as tensors: colour, padding, filters, pyramids, structural similarity, reading and writing."""

from __future__ import annotations

from fusionblocks._lazy import lazy_attributes

_MODULES = {
    # checks
    "check_pair": ".checks",
    "check_picture": ".checks",
    "check_values": ".checks",
    # padding
    "Padding": ".padding",
    "crop": ".padding",
    "pad_to_multiple": ".padding",
    "reflect_pad": ".padding",
    # colour
    "luma": ".color",
    "rgb_to_ycbcr": ".color",
    "with_luma": ".color",
    "ycbcr_to_rgb": ".color",
    # arrays and tensors
    "array_to_tensor": ".convert",
    "normalize_percentiles": ".convert",
    "tensor_to_array": ".convert",
    # planar maps and lenses
    "Lens": ".lens",
    # infrared pictures of any kind
    "Infrared": ".infrared",
    "doubts": ".sanity",
    "intensities": ".palettes",
    "open_infrared": ".infrared",
    "scene_range": ".infrared",
    # what thermal cameras write
    "ThermalPicture": ".radiometric",
    "read_radiometric": ".radiometric",
    "read_thermal": ".radiometric",
    "thermal_picture": ".radiometric",
    # the range of a thermal camera
    "auto_range": ".thermal",
    "check_range": ".thermal",
    "scale_range": ".thermal",
    "thermal_limits": ".thermal",
    # maps by rows
    "Rows": ".rows",
    "Shape": ".rows",
    "WholeOnlyError": ".rows",
    # labels
    "VOID": ".labels",
    # filters
    "gaussian_blur": ".filters",
    "gaussian_kernel": ".filters",
    "gradient_magnitude": ".filters",
    "laplacian": ".filters",
    "sobel": ".filters",
    # pyramids
    "gaussian_pyramid": ".pyramid",
    "laplacian_pyramid": ".pyramid",
    "max_levels": ".pyramid",
    "reconstruct": ".pyramid",
    # structural similarity
    "ssim": ".similarity",
    "ssim_map": ".similarity",
    # reading and writing
    "READABLE_SUFFIXES": ".io",
    "WRITABLE_SUFFIXES": ".io",
    "array_to_image": ".io",
    "image_to_array": ".io",
    "read_image": ".io",
    "write_image": ".io",
}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)

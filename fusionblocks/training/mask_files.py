"""Pairs with the masks that a folder holds for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from fusionblocks.data import PairedImages
from fusionblocks.image import READABLE_SUFFIXES, array_to_tensor, read_image

Item = dict[str, Any]


class WithMasks(Dataset[Item]):
    """Pairs, each with ``infrared_mask`` and ``visible_mask`` ``(1, H, W)`` in [0, 1], read from files of its name.

    Args:
        pairs: The pairs, whole: what crops them must come afterwards, so that it crops the masks too.
        infrared: Folder of the infrared pictures' masks.
        visible: Folder of the visible pictures' masks.

    Raises:
        FileNotFoundError: If pairs have no mask; ten are named.
        ValueError: If the pairs are transformed already.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from fusionblocks.data import PairedImages
        >>> from fusionblocks.image import write_image
        >>> from fusionblocks.training import WithMasks
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder in ("ir", "vi", "masks"):
        ...     (root / folder).mkdir()
        ...     write_image(root / folder / "1.png", np.zeros((48, 64), np.uint8))
        >>> pairs = WithMasks(PairedImages(root / "ir", root / "vi"), root / "masks", root / "masks")
        >>> pairs[0]["infrared_mask"].shape
        torch.Size([1, 48, 64])
    """

    def __init__(self, pairs: PairedImages, infrared: str | Path, visible: str | Path) -> None:
        if pairs.transform is not None:
            raise ValueError("pairs must not be transformed yet: let what crops them come after the masks")
        self.pairs = pairs
        self.files = {"infrared_mask": _by_name(infrared), "visible_mask": _by_name(visible)}
        wanted = [(kind, name) for kind in self.files for name in pairs.names]
        missing = [f"{name} ({kind})" for kind, name in wanted if name not in self.files[kind]]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise FileNotFoundError(f"{len(missing)} masks are missing: {', '.join(missing[:10])}{more}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        item = dict(self.pairs[index])
        for kind, files in self.files.items():
            file = files[item["name"]]
            mask = array_to_tensor(kind, read_image(file))
            if mask.shape[-2:] != item["infrared"].shape[-2:]:
                sizes = " and ".join("x".join(map(str, x.shape[-2:])) for x in (mask, item["infrared"]))
                raise ValueError(f"{file} must have the pair's size, got {sizes} (height x width)")
            item[kind] = mask[:1]
        return item


def _by_name(folder: str | Path) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder of masks")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in READABLE_SUFFIXES}

"""What a person would ask of a fused picture and no loss of the library's networks measures.

    python -m benchmarks.character measure FOLDER            # FOLDER/ir and FOLDER/vi: rows of character.csv
    python -m benchmarks.character sheet FOLDER SHEET.png    # twelve pairs at full size, a row each, beside others

For each method, means over the pairs:

- ``chroma``: how far Cb and Cr of the colour result lie from those of the visible picture, in levels of 255
- ``noise``: standard deviation beside the local mean in the flattest quarter of blocks, as a ratio to the noisier
  source's
- ``targets``: how much darker the hottest hundredth of the infrared picture is than in the brighter source, in levels
- ``half_pixel``: difference between fusing a pair that was moved by half a pixel and moving the result, in levels
- ``precision``, ``recall``, ``f1``: Canny's edges of the result beside those of both sources together, to a pixel; a
  detector that nothing was trained with
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import fusionblocks as fb
from benchmarks import harness
from benchmarks.quality import PACKAGES, Fuse, OfLuma, methods
from fusionblocks.data import PairedImages
from fusionblocks.image import luma, rgb_to_ycbcr, tensor_to_array

COLUMNS = ("chroma", "noise", "targets", "half_pixel", "precision", "recall", "f1")
BLOCK, FLATTEST, HOTTEST = 16, 0.25, 0.99
CANNY = 50, 150
SHOWN = 12


def colour(fuse: Fuse, infrared: Tensor, visible: Tensor) -> float:
    """Return how far the result's chroma is from the visible picture's."""
    chroma = [rgb_to_ycbcr(x)[:, 1:] for x in (fuse(infrared, visible), visible)]
    return 255 * float((chroma[0] - chroma[1]).abs().mean())


def noise(fused: Tensor, infrared: Tensor, visible: Tensor) -> float:
    """Return how noisy the flattest blocks are, as a ratio to the noisier source."""
    pictures = torch.cat([fused, infrared, visible])
    rest = pictures - F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    made, *sources = F.avg_pool2d(rest.square(), BLOCK).sqrt().flatten(1)
    noisier = torch.maximum(*sources)
    flat = noisier <= noisier.quantile(FLATTEST)
    return float(made[flat].mean() / noisier[flat].mean().clamp_min(1e-6))


def targets(fused: Tensor, infrared: Tensor, visible: Tensor) -> float:
    """Return how many levels the hottest pixels are darker than in the brighter source."""
    hot = infrared >= infrared.flatten().quantile(HOTTEST)
    return 255 * float((torch.maximum(infrared, visible) - fused)[hot].mean())


def half_pixel(fuse: Fuse, infrared: Tensor, visible: Tensor) -> float:
    """Return how differently a pair is fused that was moved by half a pixel both ways."""

    def move(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, stride=1)

    difference = luma(fuse(move(infrared), move(visible))) - luma(move(fuse(infrared, visible)))
    return 255 * float(difference.abs().mean())


def edges(fused: Tensor, infrared: Tensor, visible: Tensor) -> tuple[float, float, float]:
    """Return precision, recall and F1 of Canny's edges, those of both sources being the truth."""
    found, *truths = (cv2.Canny(tensor_to_array(x[0]), *CANNY) > 0 for x in (fused, infrared, visible))
    truth = truths[0] | truths[1]
    wide = [cv2.dilate(x.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for x in (found, truth)]
    precision = (found & wide[1]).sum() / max(found.sum(), 1)
    recall = (truth & wide[0]).sum() / max(truth.sum(), 1)
    return float(precision), float(recall), float(2 * precision * recall / max(precision + recall, 1e-9))


@torch.inference_mode()
def measure(method: Fuse, pairs: PairedImages) -> dict[str, float]:
    """Return the means over pairs of each column."""

    model = OfLuma(method)

    def fuse(infrared: Tensor, visible: Tensor) -> Tensor:
        arrays = (tensor_to_array(x[0]) for x in (infrared, visible))
        return torch.from_numpy(fb.fuse(*arrays, model=model)).permute(2, 0, 1)[None] / 255

    rows = []
    for item in (pairs[index] for index in range(len(pairs))):
        infrared, visible = item["infrared"][None], item["visible"][None]
        gray = luma(fuse(infrared, visible)), infrared, luma(visible)
        rows.append(
            (
                colour(fuse, infrared, visible),
                noise(*gray),
                targets(*gray),
                half_pixel(fuse, infrared, visible),
                *edges(*gray),
            )
        )
    return dict(zip(COLUMNS, torch.tensor(rows).mean(0).tolist()))


def sheet(folder: Path, file: Path) -> None:
    """Draw pairs spread over a folder: infrared, visible and every method, side by side at full size."""
    pairs = PairedImages(folder / "ir", folder / "vi")
    chosen = [pairs[int(index)] for index in np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs)))]
    rows = []
    for item in chosen:
        arrays = [tensor_to_array(item[name]) for name in ("infrared", "visible")]
        fused = [fb.fuse(*arrays, model=OfLuma(method)) for method in methods().values()]
        infrared = np.dstack([arrays[0]] * 3) if arrays[0].ndim == 2 else arrays[0]
        rows.append(np.hstack([infrared, arrays[1], *fused]))
    widest = max(row.shape[1] for row in rows)
    Image.fromarray(np.vstack([np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0))) for row in rows])).save(file)
    print("from the left: infrared, visible,", ", ".join(methods()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("measure").add_argument("folder", type=Path)
    commands.add_parser("sheet").add_argument("folder", type=Path)
    commands.choices["sheet"].add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sheet":
        sheet(arguments.folder, arguments.file)
        return
    pairs = PairedImages(arguments.folder / "ir", arguments.folder / "vi")
    machine = harness.machine(torch.device("cpu"), PACKAGES)
    rows = []
    for name, method in methods().items():
        numbers = {column: f"{value:.3f}" for column, value in measure(method, pairs).items()}
        print(f"{name:24}" + "  ".join(f"{column} {number}" for column, number in numbers.items()), flush=True)
        rows.append({"variant": name, "set": f"{arguments.folder.name} ({len(pairs)} pairs)", **numbers, **machine})
    harness.append_rows(harness.RESULTS / "character.csv", rows)


if __name__ == "__main__":
    main()

"""How well cameras are aligned: known maps found again from scenes, beside other methods.

    python -m benchmarks.alignment --data PAIRS              # a folder of sets, each with ir/ and vi/ of one size
    python -m benchmarks.alignment                           # the synthetic rig alone
    python -m benchmarks.alignment --trials 20 --output FILE.md

Each trial moves the infrared pictures of a set by a random map, crops them to what is left, so that no black border
gives the answer away, and looks for the map: of all pairs together, and of one pair. The error is the mean displacement
in visible pixels over the inner 80 % of what both see. Pairs of public datasets are aligned to a few pixels themselves,
which no method can undercut: the rows of the identity, of pairs that are not moved, tell how far a good result lies
from their "truth". The synthetic rig's truth is exact.

Peers get one pair. They are OpenCV's ECC on gradients and phase correlation, and SimpleITK's mutual information; these
packages must be installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

import fusionblocks as fb
from fusionblocks.image import luma, read_image
from fusionblocks.image.planar import corners_of, inside, mean_displacement, sample, similarity, unit

Pair = tuple[np.ndarray, np.ndarray]
MOST = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sets, each with ir/ and vi/")
    parser.add_argument("--trials", type=int, default=6, help="random maps for each set and kind [6]")
    parser.add_argument("--peers", action="store_true", help="other methods too, on one pair")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    lines = ["| set | moved by | pairs | start | median | 75 % | worst | reliable | s |", "| --- " * 9 + "|"]
    for name, pairs in {**read_sets(options.data), "synthetic rig": None}.items():
        for row in rows_of(name, pairs, options.trials, options.peers):
            print(row, flush=True)
            lines.append(row)
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n")
    return 0


def read_sets(folder: Path | None) -> dict[str, list[Pair]]:
    """Return the pairs of each set as gray pictures in [0, 1], cropped to one size."""
    sets = {}
    for path in sorted(folder.iterdir()) if folder is not None else []:
        if not ((path / "ir").is_dir() and (path / "vi").is_dir()):
            continue
        groups = fb.data.match_folders({"infrared": path / "ir", "visible": path / "vi"}).groups
        pairs = [(gray(group.files["infrared"]), gray(group.files["visible"])) for group in groups]
        shapes = np.array([pair[0].shape for pair in pairs])
        size = tuple(np.percentile(shapes, 40, axis=0).astype(int))
        large = [pair for pair in pairs if pair[0].shape[0] >= size[0] and pair[0].shape[1] >= size[1]][:MOST]
        sets[path.name] = [tuple(middle(picture, size) for picture in pair) for pair in large]
    return sets


def gray(path: Path) -> np.ndarray:
    """Return a picture's luma, ``(H, W)`` float32 in [0, 1]."""
    array = torch.from_numpy(read_image(path).astype(np.float32) / 255)
    return (luma(array.permute(2, 0, 1)[None])[0, 0] if array.ndim == 3 else array).numpy()


def middle(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle of a picture."""
    y, x = ((side - goal) // 2 for side, goal in zip(picture.shape, size, strict=True))
    return picture[y : y + size[0], x : x + size[1]]


def rows_of(name: str, pairs: list[Pair] | None, trials: int, peers: bool) -> list[str]:
    """Return the table's rows of a set."""
    rows = []
    kinds: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
        "similarity": random_similarity,
        "homography": random_homography,
        "identity": lambda random, size: np.eye(3),
    }
    for kind, draw in kinds.items() if pairs is not None else {"its rig": None}.items():
        for count in (len(pairs), 1) if pairs is not None else (10, 1):
            found: dict[str, list[tuple[float, float, bool, float]]] = {}
            for trial in range(trials):
                random = np.random.default_rng((trial, kind == "homography"))
                case = moved(pairs, draw, random, trial, count) if pairs is not None else rig(trial, count)
                methods = {"": ours, **(PEERS if peers and count == 1 else {})}
                for method, align in methods.items():
                    start = perf_counter()
                    matrix, reliable = align(*case[:2])
                    seconds = perf_counter() - start
                    sizes = case[0][0].shape[:2], case[1][0].shape[:2]
                    error = mean_displacement(case[2], matrix, *sizes)
                    before = mean_displacement(case[2], _stretched(*sizes), *sizes)
                    found.setdefault(method, []).append((before, error, reliable, seconds))
            for method, values in found.items():
                before, errors, reliable, seconds = (np.array(column) for column in zip(*values, strict=True))
                quantiles = " | ".join(f"{value:.1f}" for value in np.percentile(errors, (50, 75, 100)))
                rows.append(
                    f"| {name}{f', {method}' if method else ''} | {kind} | {count} | {np.median(before):.0f} | "
                    f"{quantiles} | {reliable.sum()} of {trials} | {np.median(seconds):.1f} |"
                )
    return rows


def random_similarity(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a shift up to 40 pixels, a scale from 0.9 to 1.1 and a turn up to 5 degrees."""
    angle, length = random.uniform(0, 2 * np.pi), random.uniform(0, 40)
    shift = (length * np.cos(angle), length * np.sin(angle))
    return similarity(random.uniform(0.9, 1.1), random.uniform(-5, 5), shift, ((size[1] - 1) / 2, (size[0] - 1) / 2))


def random_homography(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a map that moves each corner by up to 5 % of the sides."""
    from fusionblocks.alignment.points import fit

    corners = corners_of(size)
    there = corners + random.uniform(-0.05, 0.05, (4, 2)) * [size[1], size[0]]
    return fit(np.concatenate([corners, there], axis=1), "homography")


Case = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def moved(
    pairs: list[Pair],
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray],
    random: np.random.Generator,
    trial: int,
    count: int,
) -> Case:
    """Return infrared pictures moved and cropped to what is left of them, the visible ones, and the true map."""
    chosen = [pairs[(trial + i) % len(pairs)] for i in range(count)]
    size = chosen[0][0].shape
    matrix = draw(random, size)
    inverse = np.linalg.inv(matrix)
    batch = torch.from_numpy(np.stack([pair[0] for pair in chosen]))[:, None]
    warped = sample(batch, inverse, size, mode="bicubic").clamp(0, 1)[:, 0].numpy()
    valid = inside(inverse, size, size).numpy()
    top, bottom, left, right = 0, size[0], 0, size[1]
    while not (part := valid[top:bottom, left:right]).all():
        worst = int(np.argmax([(~side).mean() for side in (part[0], part[-1], part[:, 0], part[:, -1])]))
        top, bottom, left, right = top + (worst == 0), bottom - (worst == 1), left + (worst == 2), right - (worst == 3)
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
    infrared = [picture[top:bottom, left:right] for picture in warped]
    return infrared, [pair[1] for pair in chosen], unit(np.linalg.inv(shift @ matrix))


def rig(trial: int, count: int) -> Case:
    """Return pairs of a synthetic rig whose infrared camera has half the resolution and sees 60 to 80 %."""
    random = np.random.default_rng(trial)
    made = fb.data.synthetic_rig(
        count,
        100 * trial,
        infrared_size=(240, 320),
        visible_size=(480, 640),
        view=random.uniform(0.6, 0.8),
        degrees=random.uniform(-3, 3),
        shift=tuple(random.uniform(-0.05, 0.05, 2)),
    )
    return [pair.infrared for pair in made.pairs], [pair.visible for pair in made.pairs], made.matrix


def ours(infrared: list[np.ndarray], visible: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Align by this library."""
    found = fb.align(infrared, visible)
    return found.matrix, found.reliable


def _stretched(infrared: tuple[int, int], visible: tuple[int, int]) -> np.ndarray:
    return np.diag([visible[1] / infrared[1], visible[0] / infrared[0], 1.0])


def _edges(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    picture = picture.astype(np.float32)
    picture = picture.mean(2) if picture.ndim == 3 else picture
    picture = cv2.GaussianBlur(cv2.resize(picture, (size[1], size[0])), (0, 0), 2.0)
    return cv2.magnitude(cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1))


def ecc(infrared: list[np.ndarray], visible: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Align one pair by OpenCV's enhanced correlation of gradients."""
    import cv2

    size = visible[0].shape[:2]
    start = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-5)
    first, second = _edges(visible[0], size), _edges(infrared[0], size)
    try:
        _, warp = cv2.findTransformECC(first, second, start, cv2.MOTION_AFFINE, criteria, None, 5)
    except cv2.error:
        return _stretched(infrared[0].shape[:2], size), False
    return np.linalg.inv(np.vstack([warp, [0, 0, 1]])) @ _stretched(infrared[0].shape[:2], size), True


def phase(infrared: list[np.ndarray], visible: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Align one pair by OpenCV's phase correlation of gradients."""
    import cv2

    size = visible[0].shape[:2]
    window = cv2.createHanningWindow(size[::-1], cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(_edges(infrared[0], size), _edges(visible[0], size), window)
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) @ _stretched(infrared[0].shape[:2], size), True


def mutual_information(infrared: list[np.ndarray], visible: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Align one pair by SimpleITK's mutual information."""
    import SimpleITK as itk

    size = visible[0].shape[:2]
    pictures = []
    for picture in (visible[0], infrared[0]):
        picture = picture.astype(np.float32)
        pictures.append(itk.GetImageFromArray(picture.mean(2) if picture.ndim == 3 else picture))
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([8, 4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1, 0])
    start = itk.AffineTransform(2)
    stretched = np.linalg.inv(_stretched(infrared[0].shape[:2], size))
    start.SetMatrix(stretched[:2, :2].ravel())
    method.SetInitialTransform(start, inPlace=True)
    try:
        method.Execute(*pictures)
    except RuntimeError:
        return np.linalg.inv(stretched), False
    corners = corners_of(size)
    there = np.array([start.TransformPoint(tuple(point)) for point in corners])
    from fusionblocks.alignment.points import fit

    return np.linalg.inv(fit(np.concatenate([corners, there], axis=1), "affine")), True


PEERS = {"ECC": ecc, "phase correlation": phase, "mutual information": mutual_information}


if __name__ == "__main__":
    sys.exit(main())

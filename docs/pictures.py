"""The documentation's pictures: the sample pair, what degrades and what is hard, and a plot of scores.

Run as a program, it draws those that are tracked, in ``docs/images``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sphinx.util import logging
from torch import Tensor

import fusionblocks as fb

logger = logging.getLogger(__name__)

SCENE = {"seed": 10, "height": 360, "width": 480}


def sample() -> dict[str, Tensor]:
    """Return the sample pair and its fusion, RGB ``(3, H, W)`` each."""
    scene = fb.data.synthetic_scene(**SCENE)
    fused = fb.fuse(scene.infrared, scene.visible)
    return {"infrared": scene.infrared.expand(3, -1, -1), "visible": scene.visible, "fused": fused}


def write_sample(api: Path) -> None:
    """Write the sample pair and its fusion as JPEG."""
    try:
        pictures = sample()
    except (ImportError, AttributeError) as error:
        logger.warning("the sample pictures cannot be made: %s", error)
        return
    for name, picture in pictures.items():
        fb.image.write_image(api / f"{name}.jpg", fb.image.tensor_to_array(picture))


def write_two_cameras(api: Path) -> None:
    """Write a pair of the synthetic rig fused with its alignment, and the alignment's preview."""
    made = fb.data.synthetic_rig(5, 20)
    rig = fb.align([pair.infrared for pair in made.pairs], [pair.visible for pair in made.pairs])
    infrared, visible = made.pairs[0]
    height, width = visible.shape[:2]
    thermal = (255 * fb.image.scale_range(infrared, *fb.image.thermal_limits(infrared))).astype("uint8")
    pane = np.full((height, infrared.shape[1] + 16, 3), 255, np.uint8)
    pane[: infrared.shape[0], : infrared.shape[1]] = thermal[..., None]
    fused = fb.fuse(infrared, visible, alignment=rig)
    gap = np.full((height, 16, 3), 255, np.uint8)
    fb.image.write_image(api / "two_cameras.jpg", np.concatenate([pane, visible, gap, fused], axis=1))
    fb.image.write_image(api / "alignment_preview.png", fb.alignment.preview(rig, infrared, visible))


def write_sequence(api: Path) -> None:
    """Write a fused sequence as a video, four of its frames, and how far its background moves, beside single frames."""
    from matplotlib.figure import Figure

    made = fb.data.synthetic_sequence(36, seed=1, height=180, width=240)
    stream = fb.FusionStream()
    steady = [stream(infrared, visible) for infrared, visible in made.pairs]
    with fb.video.VideoWriter(api / "sequence.mp4", rate=12) as writer:
        for i, frame in enumerate(steady):
            writer.write(frame, i / 12, "")
    fb.image.write_image(api / "sequence.jpg", np.concatenate([steady[i] for i in (0, 12, 20, 27)], axis=1))
    still = ~made.moving.any(axis=0)
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots()
    for label, frames in {"each frame by itself": [fb.fuse(*pair) for pair in made.pairs], "stream": steady}.items():
        level = [float(frame[still].mean()) for frame in frames]
        axes.plot([x - level[0] for x in level], label=label)
    axes.set(xlabel="frame", ylabel="background, levels", title="How far the background moves as somebody walks by")
    axes.legend(frameon=False)
    figure.savefig(api / "sequence_levels.png", dpi=100)


def write_comparison(api: Path) -> None:
    """Write the plot of four ways to fuse a few small scenes."""
    from fusionblocks.metrics import Comparison, FusionEvaluator

    metrics = ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM")
    evaluators: dict[str, FusionEvaluator] = {}
    for seed in range(6):
        scene = fb.data.synthetic_scene(seed, height=192, width=256)
        infrared, visible = scene.infrared, fb.image.luma(scene.visible)
        methods = {
            "fusionblocks": fb.image.luma(fb.fuse(scene.infrared, scene.visible)),
            "laplacian": fb.image.luma(fb.fuse(scene.infrared, scene.visible, model="laplacian")),
            "maximum": torch.maximum(infrared, visible),
            "mean": (infrared + visible) / 2,
        }
        for method, fused in methods.items():
            evaluator = evaluators.setdefault(method, FusionEvaluator(metrics=metrics))
            evaluator.update(*(picture.clamp(0, 1)[None] for picture in (fused, infrared, visible)))
    tables = {method: evaluator.compute() for method, evaluator in evaluators.items()}
    Comparison(tables).plot(api / "comparison.png")


def gray_sample() -> tuple[Tensor, Tensor, Tensor]:
    """Return the sample's fused, infrared and visible gray levels, uint8 ``(1, 1, H, W)`` each."""
    luma = {name: fb.image.luma(picture[None]) for name, picture in sample().items()}
    fused, infrared, visible = (
        luma[name].mul(255).round().to(torch.uint8) for name in ("fused", "infrared", "visible")
    )
    return fused, infrared, visible


def write_degradations(file: Path) -> None:
    """Write a contact sheet: a column a degradation, a row a strength, the clean pictures on top."""
    from PIL import Image, ImageDraw

    height, width, margin = 114, 152, 20
    strengths = (0.0, 0.3, 0.6, 1.0)
    kinds = fb.data.DEGRADATIONS
    scene = fb.data.synthetic_scene(10, height=2 * height, width=2 * width, time="dusk")
    sheet = Image.new("RGB", (margin + width * len(kinds), margin + height * len(strengths)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, kind in enumerate(kinds):
        clean = scene.infrared if kind == "stripes" else scene.visible
        draw.text((margin + (column + 0.5) * width, margin / 2), kind, fill="black", anchor="mm")
        for row, strength in enumerate(strengths):
            degraded = fb.data.degrade(clean, kind, strength=strength, generator=torch.Generator().manual_seed(3))
            cell = Image.fromarray(fb.image.tensor_to_array(degraded)).convert("RGB").resize((width - 2, height - 2))
            sheet.paste(cell, (margin + column * width, margin + row * height))
            draw.text((margin / 2, margin + (row + 0.5) * height), f"{strength:g}", fill="black", anchor="mm")
    sheet.save(file, quality=72, optimize=True)  # noise makes large files


def difficult() -> dict[str, tuple[Tensor, Tensor]]:
    """Return pairs that are hard to fuse, by what is hard about them."""
    night = fb.data.synthetic_scene(10, height=228, width=304)
    dusk = fb.data.synthetic_scene(14, height=228, width=304, time="dusk")
    smoke = fb.data.synthetic_scene(12, height=228, width=304, haze=0.9)
    # every person as warm as what surrounds them
    person = (night.mask == fb.data.CLASS_NAMES.index("person"))[None]
    as_warm = night.infrared.where(~person, night.infrared[~person].median())
    flat = fb.data.degrade(dusk.visible, "low_contrast", strength=0.9)
    glare = fb.data.degrade(dusk.visible, "over_exposure", strength=0.8)
    return {
        "night": (night.infrared, night.visible),
        "dusk": (dusk.infrared, dusk.visible),
        "haze": (smoke.infrared, smoke.visible),
        "glare": (dusk.infrared, glare),
        "flat light": (dusk.infrared, flat),
        "no one is warm": (as_warm, night.visible),
    }


def write_difficult(file: Path) -> None:
    """Write a contact sheet: a row a difficulty; infrared, visible, maximum, classical pyramid and our network."""
    from PIL import Image, ImageDraw

    height, width, margin = 228, 304, 20
    pairs = difficult()
    titles = ("infrared", "visible", "maximum", "laplacian", "fusionblocks")
    sheet = Image.new("RGB", (margin + width * len(titles), margin + height * len(pairs)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((margin + (column + 0.5) * width, margin / 2), title, fill="black", anchor="mm")
    for row, (name, (infrared, visible)) in enumerate(pairs.items()):
        brighter = torch.maximum(infrared, fb.image.luma(visible))
        cells = [
            infrared.expand(3, -1, -1),
            visible,
            fb.image.with_luma(brighter[None], visible[None])[0],
            fb.fuse(infrared, visible, model="laplacian"),
            fb.fuse(infrared, visible),
        ]
        for column, cell in enumerate(cells):
            picture = Image.fromarray(fb.image.tensor_to_array(cell)).resize((width - 2, height - 2))
            sheet.paste(picture, (margin + column * width, margin + row * height))
        label = Image.new("RGB", (height, margin), "white")
        ImageDraw.Draw(label).text((height / 2, margin / 2), name, fill="black", anchor="mm")
        sheet.paste(label.rotate(90, expand=True), (0, margin + row * height))
    sheet.save(file, quality=80, optimize=True)


if __name__ == "__main__":  # the pictures that are tracked
    images = Path(__file__).parent / "images"
    row = torch.cat(list(sample().values()), dim=2)
    fb.image.write_image(images / "demo.jpg", fb.image.tensor_to_array(row))
    write_degradations(images / "degradations.jpg")
    write_difficult(images / "difficult.jpg")

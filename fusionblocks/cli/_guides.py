"""Guides of ``fusionblocks fuse``, and the report of the experts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionblocks.cli._console import err

if TYPE_CHECKING:
    import torch

    from fusionblocks.experts import ExpertReport


def attach_guide(
    network: Any, guidance: str | None, checkpoint: str | None, adapters: Path | None, cache: Path | None
) -> None:
    """Build the guide that the options describe, and attach it to the network, on its device.

    Raises:
        FileNotFoundError: If a file does not exist, or weights cannot be downloaded.
        TypeError: If the network takes no guidance.
        ValueError: If the guide is unknown or another network's, or an option makes no sense with it.
    """
    from fusionblocks.models.registry import build_guide, guide_class

    if guidance is None:
        options = {"--guidance-checkpoint": checkpoint, "--guidance-adapters": adapters, "--cache": cache}
        alone = [option for option, value in options.items() if value is not None]
        if alone:
            raise ValueError(f"{', '.join(alone)} belongs to a guide: say which with --guidance clip or --guidance sam")
        return
    guide_class(type(network), guidance)
    if guidance == "clip":
        guide = _open_clip(network, checkpoint, adapters, cache)
    elif adapters is not None:
        raise ValueError(f"--guidance-adapters is for --guidance clip, not for {guidance}")
    else:
        guide = build_guide(network, guidance, checkpoint=checkpoint, cache=cache)
    network.attach_guidance(guide.to(_device(network)).eval())


def _open_clip(network: Any, checkpoint: str | None, adapters: Path | None, cache: Path | None) -> Any:
    from fusionblocks.guidance import CLIPDegradationClassifier
    from fusionblocks.models.registry import build_guide

    if adapters is not None:
        return CLIPDegradationClassifier.from_adapters(adapters, pretrained=checkpoint or "openai", cache=cache)
    if checkpoint is not None and _is_published_classifier(Path(checkpoint)):
        return CLIPDegradationClassifier.from_published(checkpoint, cache=cache)
    err.print(
        "[yellow]warning:[/] the head of the CLIP guide is untrained, so its embedding says nothing: pass "
        "--guidance-adapters with a file of fusionblocks train-guidance",
        highlight=False,
    )
    return build_guide(network, "clip", cache=cache, **({} if checkpoint is None else {"pretrained": checkpoint}))


def _is_published_classifier(file: Path) -> bool:
    """Return whether a file holds the whole of SGAFusion's classifier, head and all; a bad file is left to loading."""
    from fusionblocks._loading import read_checkpoint

    try:
        return "fc1.weight" in {key.removeprefix("module.") for key in read_checkpoint(file)}
    except (ValueError, TypeError, AttributeError, FileNotFoundError):
        return False


def _device(network: Any) -> torch.device:
    return next(network.parameters()).device


def open_report(network: Any, folder: Path, pieces: bool) -> None:
    """Make the folder of the experts' report.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If the network has no mixtures of experts.
        ValueError: If pictures are fused in pieces.
    """
    from fusionblocks.experts import mixtures_of, new_figure

    if pieces:
        raise ValueError("--experts needs pictures whole: leave --tile away")
    mixtures_of(network)
    new_figure(1, 1)
    folder.mkdir(parents=True, exist_ok=True)


def report_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a pair's report: a picture and a table."""
    return [folder / f"{name}.png", folder / f"{name}.csv"]


def write_report(report: ExpertReport, folder: Path, name: str) -> None:
    """Write which expert acted where, and how much on average; each file is whole or absent."""
    from fusionblocks._support.files import whole_file

    picture, table = report_files(folder, name)
    with whole_file(picture) as temporary:
        report.plot().savefig(temporary, format="png")
    with whole_file(table) as temporary:
        temporary.write_text(report.to_csv())

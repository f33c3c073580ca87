"""A network, an objective and pairs that train in milliseconds; runnable as a script that a test starts and kills."""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn

from fusionblocks.data import synthetic_scene
from fusionblocks.training import Objective, train


class ToyNet(nn.Module):
    """Norm, dropout and two parts: something of everything that a checkpoint must keep."""

    def __init__(self, *, norm: bool = True, pooled: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.drop = nn.Dropout(0.1 if norm else 0.0)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)) if pooled else None
        self.head = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.embed(torch.cat([infrared, visible], 1))))
        if self.gate is not None:
            features = features * torch.sigmoid(self.gate(features))
        return torch.sigmoid(self.head(self.drop(features)))


class ToyLoss(Objective):
    """The brighter of both, and a second term."""

    terms = {
        "brighter": lambda fused, infrared, visible: (
            (fused - torch.maximum(infrared, visible.mean(1, keepdim=True))).abs().mean()
        ),
        "spread": lambda fused: (fused - 0.5).square().mean(),
    }
    weights = {"brighter": 1.0, "spread": 0.1}

    def predict(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"fused": self.call(self.network, batch)}


class ToyPairs(torch.utils.data.Dataset):
    """Scenes with noise that is drawn anew each time; it can be slow, note who came, or kill its process."""

    def __init__(self, number: int = 10, *, noise: float = 0.02, seconds: float = 0.0, diary: str = "") -> None:
        scenes = [synthetic_scene(seed, height=32, width=32) for seed in range(number)]
        self.items = [{"infrared": s.infrared, "visible": s.visible, "name": str(i)} for i, s in enumerate(scenes)]
        self.noise, self.seconds, self.diary = noise, seconds, diary
        self.deadly: int | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.diary:
            with open(f"{self.diary}_{os.environ.get('RANK', '0')}", "a") as file:
                file.write(f"{index}\n")
        time.sleep(self.seconds)
        item = dict(self.items[index])
        item["infrared"] = item["infrared"] + self.noise * torch.randn(1, 32, 32)
        return item


def recipe(**changes: Any) -> dict[str, Any]:
    phase = {"objective": "toy", "epochs": 2, "batch": 3, "clip": 1.0, "optimizer": {"lr": 0.01}, **changes}
    return {"seed": 3, "phases": {"first": phase}, "validation": {"metrics": ["EN", "SD"], "best": "SD"}}


def toy_train(
    output: Any, data: Any = None, *, of: Any = None, network: nn.Module | None = None, **options: Any
) -> Any:
    torch.manual_seed(0)
    settings = {"device": "cpu", "progress": False, "objectives": {"toy": ToyLoss}, **options}
    return train(of or recipe(), data or ToyPairs(), output=output, model=network or ToyNet(), **settings)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--diary", default="")
    parser.add_argument("--deadly", type=int, help="the pair at which rank 1 dies")
    parser.add_argument("--plain", action="store_true", help="no norm, no dropout, no noise")
    parser.add_argument("--pooled", action="store_true", help="a norm of the whole map's mean")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args(words)
    pairs = ToyPairs(
        arguments.number, noise=0.0 if arguments.plain else 0.02, seconds=arguments.seconds, diary=arguments.diary
    )
    if os.environ.get("RANK") == "1":
        pairs.deadly = arguments.deadly
    of = recipe(
        epochs=arguments.epochs,
        batch=arguments.batch,
        ema=0.9,
        schedule={"name": "linear", "hold": 0.3},
        optimizer={"name": "sgd" if arguments.plain else "adam", "lr": 0.05 if arguments.plain else 0.01},
    )
    torch.manual_seed(0)
    toy_train(
        arguments.output,
        pairs,
        of=of,
        network=ToyNet(norm=not arguments.plain, pooled=arguments.pooled),
        resume=arguments.resume,
        workers=arguments.workers,
        checkpoint_every=2,
        validation=ToyPairs(3, noise=0.0),
    )


if __name__ == "__main__":
    main()

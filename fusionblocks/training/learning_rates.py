"""Learning rates as functions of the step alone, so that a resumed run needs nothing but its step."""

from __future__ import annotations

import math

from fusionblocks.training.recipe import ScheduleRecipe


def learning_rate(schedule: ScheduleRecipe, lr: float, step: int, *, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    Args:
        schedule: How the rate changes.
        lr: The rate before the schedule.
        step: The step, from 0.
        steps: Steps of the phase.
        steps_per_epoch: Steps of an epoch.
    """
    epoch, epochs = step // steps_per_epoch, math.ceil(steps / steps_per_epoch)
    match schedule.name:
        case "steps":
            return max(lr * schedule.factor ** (epoch // schedule.every), min(lr, schedule.floor))
        case "linear":
            held = int(epochs * schedule.hold)
            return lr if epoch < held else max(lr * (epochs - epoch) / (epochs - held), min(lr, schedule.floor))
        case "warmup_poly":
            if step <= schedule.warmup:
                return schedule.start * (lr / schedule.start) ** (step / max(1, schedule.warmup))
            left = 1 - (step - schedule.warmup) / (steps - schedule.warmup)
            return lr * left**schedule.power
        case "cosine":
            if step < schedule.warmup:
                return lr * (step + 1) / schedule.warmup
            share = (step - schedule.warmup) / max(1, steps - schedule.warmup)
            floor = min(lr, schedule.floor)
            return floor + (lr - floor) * 0.5 * (1 + math.cos(math.pi * share))
        case _:
            return lr

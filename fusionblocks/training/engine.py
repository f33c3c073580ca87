"""The training engine: phases of epochs of steps, on one process or many, that can be killed at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from fusionblocks.models.base import FusionModel
from fusionblocks.training.batch_norm import check_single_pairs, least_batch
from fusionblocks.training.batches import seeded
from fusionblocks.training.checkpoints import Checkpoints, name_of, random_states, set_random_states, to_cpu
from fusionblocks.training.journal import Journal
from fusionblocks.training.learning import build_optimizer, check_parts, freeze_all_but, open_average
from fusionblocks.training.learning_rates import learning_rate
from fusionblocks.training.objectives import Objective, build_objective, check_inputs, objective_class
from fusionblocks.training.processes import gather_objects, move
from fusionblocks.training.recipe import PhaseRecipe, Recipe
from fusionblocks.training.sources import Place, Step, open_source
from fusionblocks.training.transforms import transforms_of
from fusionblocks.training.validation import validate

if TYPE_CHECKING:
    from accelerate import Accelerator

WEIGHTS = "weights"


@dataclasses.dataclass
class Position:
    """How far a run is: steps of the run, phase, and steps of the phase; and the best score so far, with its step."""

    total: int = 0
    phase: int = 0
    step: int = 0
    best: float = -math.inf
    best_step: int = -1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is carried out, which does not change what is learned.

    Args:
        output: The run's folder.
        workers: Processes that read pairs, for each process that learns.
        checkpoint_every: Steps between two checkpoints; there is one after every epoch in any case.
        keep: How many of the newest checkpoints stay.
        progress: Whether to show a progress bar.
        tensorboard: Whether to write TensorBoard's files.
        compile: Whether network and losses are compiled by :func:`torch.compile`.
    """

    output: Path
    workers: int = 0
    checkpoint_every: int = 1000
    keep: int = 2
    progress: bool = True
    tensorboard: bool = False
    compile: bool = False


class Trainer:
    """Carries a recipe out; :func:`train` is its front door.

    Args:
        recipe: What to do.
        network: What learns.
        data: Pairs to learn from.
        validation: Pairs to judge by; None judges nothing.
        accelerator: Device, precision and processes.
        settings: How the run is carried out.
        objectives: Objectives beside those of the library, by name.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        data: Dataset[Any],
        validation: Dataset[Any] | None,
        accelerator: Accelerator,
        settings: Settings,
        objectives: Mapping[str, type[Objective]] | None = None,
    ) -> None:
        self.recipe, self.network, self.data, self.validation = recipe, network, data, validation
        self.accelerator, self.settings = accelerator, settings
        self.kinds = {phase.name: objective_class(phase.objective, objectives) for phase in recipe.phases}
        for phase in recipe.phases:  # what the last phase lacks is said before the first begins
            check_parts(network, phase.parts)
            self._check_pairs(build_objective(self.kinds[phase.name], phase, network), phase)
        self.position = Position()
        self.checkpoints = Checkpoints(
            settings.output / "checkpoints", recipe, processes=accelerator.num_processes, keep=settings.keep
        )

    def _check_pairs(self, objective: Objective, phase: PhaseRecipe) -> None:
        """Raise unless a pair holds what a phase needs, and the smallest batch is large enough for its batch norms."""
        place, least = Place(processes=self.accelerator.num_processes), least_batch(objective, phase.batch)
        source = open_source(self.data, transforms_of(phase), phase, self.recipe.seed, place, least)
        pairs = None if isinstance(self.data, IterableDataset) else len(self.data)  # type: ignore[arg-type]
        if pairs is not None:
            check_inputs(objective, source.first(), phase.name)
        if source.smallest == 1:
            check_single_pairs(objective, phase, source.first, pairs, place.processes)

    def run(self, resume: bool) -> None:
        """Go through all phases, from the start or from the last checkpoint."""
        state = self._start(resume)
        settings, is_main = self.settings, self.accelerator.is_main_process
        self.journal = Journal(
            settings.output,
            step=self.position.total,
            tensorboard=settings.tensorboard,
            progress=settings.progress,
            active=is_main,
        )
        try:
            # the order of weights in memory in which convolutions are fastest
            self.network.to(memory_format=torch.channels_last)
            for phase in self.recipe.phases[self.position.phase :]:
                _Phase(self, phase, state).run()
                state = None
                self.position.phase, self.position.step = self.position.phase + 1, 0
            self.network.to(memory_format=torch.contiguous_format)
            self._save_weights()
        finally:
            self.journal.close()

    def _start(self, resume: bool) -> dict[str, Any] | None:
        """Return the state to go on from, None to begin."""
        found = self.checkpoints.list()
        if found and not resume:
            raise ValueError(
                f"{self.settings.output} holds the checkpoints of a run already: resume it, or choose another folder"
            )
        if not found:
            return None
        state = self.checkpoints.read(found[-1])
        self.position = Position(**state["position"])
        self.network.load_state_dict(state["network"])
        if self.accelerator.is_main_process:
            self.checkpoints.clear_partial()
        return state

    def _save_weights(self) -> None:
        if self.accelerator.is_main_process:
            folder, network = self.settings.output / WEIGHTS, self.network
            if isinstance(network, FusionModel):
                network.save_pretrained(folder)
            else:
                from safetensors.torch import save_model

                folder.mkdir(exist_ok=True)
                save_model(network, str(folder / "model.safetensors"))
        self.accelerator.wait_for_everyone()


class _Phase:
    """One phase: the objective, the optimiser, and the loop over its steps."""

    def __init__(self, trainer: Trainer, recipe: PhaseRecipe, state: Mapping[str, Any] | None) -> None:
        self.trainer, self.recipe, self.state = trainer, recipe, state
        self.accelerator, self.position = trainer.accelerator, trainer.position
        network, index = trainer.network, trainer.position.phase
        self.objective: Objective = build_objective(trainer.kinds[recipe.name], recipe, network)
        network.zero_grad()  # of the phase before
        processes = self.accelerator.num_processes
        place = Place(
            self.accelerator.process_index, processes, trainer.settings.workers, self.accelerator.device.type == "cuda"
        )
        # far apart, so that no phase sees another one's order or noise
        self.source = open_source(
            trainer.data,
            transforms_of(recipe),
            recipe,
            trainer.recipe.seed + 7919 * index,
            place,
            least_batch(self.objective, recipe.batch),
        )
        self.per_epoch = self.source.steps_per_epoch
        self.steps = recipe.steps or (recipe.epochs or 0) * self.per_epoch
        self.objective.to(self.accelerator.device).train()
        for guide in getattr(network, "_guide", ()):  # which does not belong to the network
            if isinstance(guide, nn.Module):
                guide.to(self.accelerator.device)
        freeze_all_but(network, recipe.parts)
        self.optimizer = build_optimizer(network, recipe.optimizer)
        self.average = open_average(network, recipe.ema)
        if trainer.settings.compile:
            self.objective.compile()
        self.task, self.stepper = self.accelerator.prepare(self.objective, self.optimizer)
        if state is None:
            torch.manual_seed(trainer.recipe.seed + 104729 * index + self.accelerator.process_index)
        else:
            self._restore(state)

    def run(self) -> None:
        journal, position = self.trainer.journal, self.position
        journal.begin(f"{self.recipe.name} ({self.recipe.objective})", self.steps, position.step)
        while position.step < self.steps:
            for step in self.source.steps(position.step):
                self._step(step)
                at_end = position.step % self.per_epoch == 0 or position.step == self.steps
                if at_end:
                    self._validate()
                if at_end or position.step % self.trainer.settings.checkpoint_every == 0:
                    self._checkpoint()
                if position.step == self.steps:
                    break
        journal.end()
        if self.average is not None:
            self.trainer.network.load_state_dict(self.average.module.state_dict())
        self.trainer.network.requires_grad_(True).eval()
        self.accelerator.free_memory()

    # --- a step --------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        """Change the weights once."""
        begun = time.perf_counter()
        lr = self._set_rates()
        self.stepper.zero_grad()
        names, values = self._backward(step)
        norm = self._clip()
        self._stop_if_not_finite(names, values, norm, step)
        self.stepper.step()
        if self.average is not None:
            self.average.update_parameters(self.trainer.network)
        self.position.step += 1
        self.position.total += 1
        line = {
            "phase": self.recipe.name,
            "epoch": (self.position.step - 1) // self.per_epoch,
            "step": self.position.total,
            "loss": values[0],
            "terms": dict(zip(names, values[1:], strict=True)),
            "lr": lr,
            "gradient": norm,
            "pairs": step.total,
            "batches": [len(batch["infrared"]) for batch in step.batches],
            "waited": round(step.waited, 4),
            "seconds": round(time.perf_counter() - begun + step.waited, 4),
        }
        self.trainer.journal.step(line)

    def _backward(self, step: Step) -> tuple[list[str], list[float]]:
        """Add up the gradients; return the names of the terms, and the values of the loss and them over all pairs."""
        sums: Tensor | None = None
        for number, batch in enumerate(step.batches):
            batch = move(batch, self.accelerator.device)
            share = len(batch["infrared"]) / step.total
            is_last = number == len(step.batches) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.task):
                loss, terms = self.task(batch)
                # processes are averaged: their shares of the pairs are summed
                self.accelerator.backward(loss * (share * self.accelerator.num_processes))
            values = share * torch.stack([loss.detach(), *terms.values()]).double()
            sums = values if sums is None else sums + values
        return list(terms), self.accelerator.reduce(sums, "sum").tolist()

    def _set_rates(self) -> float:
        """Set the learning rates of this step and return that of the first group."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.recipe.schedule,
                group["full_lr"],
                self.position.step,
                steps=self.steps,
                steps_per_epoch=self.per_epoch,
            )
        return self.optimizer.param_groups[0]["lr"]

    def _clip(self) -> float:
        """Clip the gradients, all together or part by part, and return their norm before."""
        self.accelerator.unscale_gradients(self.stepper)
        network, limit = self.trainer.network, self.recipe.clip or math.inf
        parts = list(network.children()) if self.recipe.clip_parts else [network]
        learning = [[x for x in part.parameters() if x.grad is not None] for part in parts]
        norms = [nn.utils.clip_grad_norm_(parameters, limit) for parameters in learning if parameters]
        return float(torch.stack([norm.detach().double() for norm in norms]).norm())

    def _stop_if_not_finite(self, names: list[str], values: list[float], norm: float, step: Step) -> None:
        """Stop before the weights are ruined, and keep the batches."""
        scales = self.accelerator.scaler is not None  # which lowers its scale by itself
        if all(map(math.isfinite, values)) and (math.isfinite(norm) or scales):
            return
        wrong = [name for name, value in zip(["loss", *names], values, strict=True) if not math.isfinite(value)]
        file = self.trainer.settings.output / f"failed_batch_{self.accelerator.process_index}.pt"
        number = self.position.total + 1
        torch.save({"step": number, "phase": self.recipe.name, "batches": to_cpu(step.batches)}, file)
        pairs = ", ".join(str(name) for batch in step.batches for name in batch.get("name", []))
        raise FloatingPointError(
            f"{' and '.join(wrong) or 'the gradient'} is not finite at step {number} (phase {self.recipe.name!r}, "
            f"pairs {pairs or 'without names'}); the weights are as before, the batch is in {file}"
        )

    # --- after some steps ----------------------------------------------------------------------------------------

    def _validate(self) -> None:
        trainer, recipe = self.trainer, self.trainer.recipe.validation
        epoch = math.ceil(self.position.step / self.per_epoch)
        is_last = self.position.step == self.steps
        if trainer.validation is None or not self.objective.validates or (epoch % recipe.every and not is_last):
            return
        network = trainer.network if self.average is None else self.average.module
        with seeded(trainer.recipe.seed):
            scores, grid = validate(self.objective, network, trainer.validation, recipe, self.accelerator)
        trainer.journal.validated(self.recipe.name, self.position.total, scores)
        trainer.journal.pictures(self.position.total, grid)
        if scores[recipe.best] > self.position.best:
            self.position.best, self.position.best_step = scores[recipe.best], self.position.total

    def _checkpoint(self) -> None:
        """Write everything; the other processes wait."""
        accelerator, trainer = self.accelerator, self.trainer
        states = gather_objects(random_states())
        failure = None
        if accelerator.is_main_process:
            state = {
                "position": dataclasses.asdict(self.position),
                "network": trainer.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
                "average": self.average.state_dict() if self.average is not None else None,
                "random": states,
            }
            try:
                best = name_of(self.position.best_step)
                trainer.checkpoints.write(self.position.total, to_cpu(state), best)
            except OSError as error:
                failure = error
        if any(gather_objects(failure is not None)):  # all stop together
            raise failure or OSError("the first process could not write a checkpoint")

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        set_random_states(state["random"][self.accelerator.process_index])

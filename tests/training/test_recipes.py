"""The recipes: the papers' values, and that each of them teaches its network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusionblocks import create_model
from fusionblocks.losses import PRESETS, FusionLoss
from fusionblocks.training import list_recipes, load_recipe, read_log, train
from fusionblocks.training.learning import build_optimizer, check_parts
from fusionblocks.training.learning_rates import learning_rate
from fusionblocks.training.objectives import build_objective, objective_class
from fusionblocks.training.plain import parse_value
from fusionblocks.training.recipe import Recipe, ScheduleRecipe
from tests.training.scenes import scenes, small_recipe

# By how much the mean loss of the last steps must lie below that of the first, for each phase. The terms of the default
# network pull against each other, so most of their sum stays; augmentation alone moves it by 0.3 %. Its other phases
# make small amends, which a few steps need not show.
FALL = {
    ("fusionblocks", "fusion"): 0.97,
    ("fusionblocks", "edges"): 0.98,
    ("fusionblocks_natural", "fusion"): 0.95,
    ("fusionblocks_natural", "finish"): 0.92,
    ("smfnet", "reconstruction"): 0.7,
    ("smfnet", "fusion"): 0.8,
    ("psfusion", "multi_task"): 0.9,
    ("sgafusion", "supervised"): 0.85,
    ("sgafusion", "degraded"): 0.95,
    ("sgdfuse", "preliminary"): 0.8,
    ("sgdfuse", "diffusion"): 0.8,
    ("sgdfuse", "head"): 0.8,
}
PUBLISHED = {
    ("smfnet", "reconstruction"): "smfnet_reconstruction",
    ("smfnet", "fusion"): "smfnet",
    ("psfusion", "multi_task"): "psfusion",
    ("sgafusion", "supervised"): "sgafusion",
    ("sgafusion", "degraded"): "sgafusion_fine_tuning",
    ("sgdfuse", "preliminary"): "sgdfuse",
    ("sgdfuse", "diffusion"): "sgdfuse_diffusion",
    ("sgdfuse", "head"): "sgdfuse",
}
MINIMAL = {"phases": {"only": {"objective": "fusion", "steps": 1}}}


@pytest.mark.parametrize("name", list_recipes())
def test_a_narrow_network_learns_four_scenes(name: str, tmp_path: Path) -> None:
    changes = {"phases.multi_task.optimizer.name": "adam"} if name == "psfusion" else {}
    recipe = small_recipe(name, **changes)
    size = 48 if name.startswith("fusionblocks") else 32  # for VIF's windows
    train(recipe, scenes(4, size), output=tmp_path, device="cpu", progress=False)
    for phase in recipe.phases:
        losses = torch.tensor([line["loss"] for line in read_log(tmp_path) if line["phase"] == phase.name])
        first, last = losses[:3].mean(), losses[-3:].mean()
        assert losses.isfinite().all()
        if (name, phase.name) in FALL:
            assert last < FALL[name, phase.name] * first, f"{phase.name}: {first:.4g} to {last:.4g}"


@pytest.mark.parametrize("name", ["psfusion", "sgafusion"])
def test_pixels_of_no_class_teach_nothing(name: str) -> None:
    recipe = small_recipe(name)
    phase = recipe.phases[0]
    torch.manual_seed(0)
    network = create_model(name, pretrained=False, **recipe.config)
    objective = build_objective(objective_class(phase.objective), phase, network).train()
    batch = torch.utils.data.default_collate(scenes(2, 32))
    learned = {"ohem_cross_entropy", "cross_entropy", "binary", "boundary"} & set(phase.losses)

    def terms() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {term: value for term, value in objective(batch)[1].items() if term in learned}

    whole = terms()
    batch["labels"][:, 8:20] = 255
    left = terms()
    assert all(left[term] != whole[term] for term in learned)
    for mask in ("binary", "boundary"):
        batch[mask][:, :, 8:20] = 1 - batch[mask][:, :, 8:20]
    assert terms() == left
    batch |= {mask: batch[mask].bool() for mask in ("binary", "boundary")}
    assert terms() == left
    batch["labels"][:] = 255
    total, nothing = objective(batch)
    assert all(nothing[term] == 0 for term in learned)
    total.backward()
    assert all(x.grad is None or torch.isfinite(x.grad).all() for x in network.parameters())


@pytest.mark.parametrize(("name", "phase"), PUBLISHED)
def test_the_losses_are_the_published_ones(name: str, phase: str) -> None:
    recipe = next(item for item in load_recipe(name).phases if item.name == phase)
    ours, theirs = FusionLoss(recipe.losses, options=recipe.loss_options), FusionLoss.preset(PUBLISHED[name, phase])
    assert ours.weights == theirs.weights
    assert set(PUBLISHED.values()) == set(PRESETS)
    defaults = {"ohem_cross_entropy": {"threshold": 0.75, "n_min": 65536}}
    theirs.options |= {term: values for term, values in defaults.items() if term in theirs.weights}
    assert {k: {o: list(v) if isinstance(v, tuple) else v for o, v in x.items()} for k, x in ours.options.items()} == {
        k: {o: list(v) if isinstance(v, tuple) else v for o, v in x.items()} for k, x in theirs.options.items()
    }


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_fits_its_network_at_full_width(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        network = create_model(str(recipe.model), pretrained=False)
    for phase in recipe.phases:
        check_parts(network, phase.parts)
        build_objective(objective_class(phase.objective), phase, torch.nn.Identity())
        groups = build_optimizer(network, phase.optimizer).param_groups
        assert len(groups) == 1 + len(phase.optimizer.rates)


def rates(name: str, phase: int, epochs: list[int], steps_per_epoch: int = 10) -> list[float]:
    recipe = load_recipe(name).phases[phase]
    steps = (recipe.epochs or 0) * steps_per_epoch
    return [
        learning_rate(
            recipe.schedule, recipe.optimizer.lr, epoch * steps_per_epoch, steps=steps, steps_per_epoch=steps_per_epoch
        )
        for epoch in epochs
    ]


def test_rates_of_the_papers() -> None:
    assert rates("smfnet", 0, [0, 19, 20, 39]) == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5])
    assert rates("smfnet", 1, [0, 20, 60]) == pytest.approx([2.5e-5, 1.25e-5, 3.125e-6])
    # 25,000 steps: up within 1000, then a polynomial
    assert rates("psfusion", 0, [0, 50, 100, 1300]) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-3 * 0.5**0.9])
    assert rates("sgafusion", 0, [0, 24, 25, 26, 49]) == pytest.approx([1e-3, 1e-3, 1e-3, 9.6e-4, 4e-5])


def test_other_schedules() -> None:
    def rate(step: int, **options: object) -> float:
        return learning_rate(ScheduleRecipe(**options), 1.0, step, steps=100, steps_per_epoch=10)

    assert rate(99) == 1
    assert rate(90, name="steps", every=1, factor=0.1, floor=1e-3) == 1e-3
    assert [rate(step, name="cosine", warmup=10, floor=0.1) for step in (0, 9, 55)] == pytest.approx([0.1, 1.0, 0.55])


def test_changes_reach_the_recipe_and_its_fingerprint() -> None:
    plain = load_recipe("smfnet")
    changed = load_recipe("smfnet", {"phases.fusion.optimizer.lr": 1, "config.channels": 32})
    assert (changed.phases[1].optimizer.lr, changed.config) == (1.0, {"channels": 32})
    assert changed.fingerprint != plain.fingerprint == load_recipe("smfnet").fingerprint
    assert load_recipe(plain.plain()) == plain


def test_yaml_reads_numbers_as_people_write_them(tmp_path: Path) -> None:
    assert [parse_value(text) for text in ("1e-4", "-2E3", "3", ".5", "null", "[a, b]", "1e")] == [
        1e-4, -2e3, 3, 0.5, None, ["a", "b"], "1e",
    ]  # fmt: skip
    file = tmp_path / "mine.yaml"
    file.write_text("phases:\n  only: {objective: fusion, steps: 2, optimizer: {lr: 1e-3}}\n")
    assert load_recipe(file).phases[0].optimizer.lr == 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phase": {}}, "unknown recipe key phase .did you mean 'phases'"),
        ({}, "the recipe lacks phases"),
        ({"phases": {}}, "at least one phase"),
        ({"phases": {"a": {"objective": "fusion"}}}, "phase 'a' needs either epochs or steps"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "epochs": 1}}}, "needs either epochs or steps"),
        ({"phases": {"a": {"steps": 1}}}, "lacks phases.a.objective"),
        ({"phases": {"a": 3}}, "phases.a must be keys with values, got 3"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "optimizer": {"name": "adm"}}}}, "mean 'adam'"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "schedule": {"nam": 1}}}}, "a.schedule.nam .*'name'"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "augment": ["flop"]}}}, "mean 'flip'"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "batch": 0}}}, "batch must be at least 1, got 0"),
        ({"phases": {"a": {"objective": "fusion", "steps": True}}}, "steps must be a whole number, got True"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "clip": "x"}}}, "a.clip must be a number, got 'x'"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "ema": 1.0}}}, "ema must be above 0 and below 1"),
        ({"phases": {"a": {"objective": "fusion", "steps": 1, "losses": {"vif": "x"}}}}, "a.losses.vif must be a num"),
        ({**MINIMAL, "validation": {"best": "EM"}}, "validation.best must be one of .EN"),
        ({**MINIMAL, "seed": 1.5}, "seed must be a whole number, got 1.5"),
    ],
)
def test_a_wrong_value_is_named(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(values)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [", "- 1"])
def test_a_wrong_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"given twice|is not a YAML|must hold keys"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"objective": "fuson"}, "unknown objective 'fuson' .did you mean 'fusion'"),
        ({"objective": "fusion", "losses": {"colour": 1}}, "unknown term 'colour', did you mean 'color'"),
        ({"objective": "sgdfuse_diffusion", "options": {"step": 3}}, "takes no option 'step' .*mean 'steps'"),
        ({"objective": "fusion", "parts": ["hed"]}, "the network has no part 'hed'"),
        (
            {"objective": "psfusion", "losses": {"binary": 1}},
            "needs labels, binary, boundary, salient of every pair",
        ),
    ],
)
def test_what_a_network_or_the_data_lack_is_said_before_anything_is_learned(
    phase: dict, message: str, tmp_path: Path
) -> None:
    pairs = [{name: item[name] for name in ("infrared", "visible")} for item in scenes(2, 32)]
    recipe = load_recipe({"phases": {"only": {"steps": 1, **phase}}})
    assert isinstance(recipe, Recipe)
    with pytest.raises(ValueError, match=message):
        train(recipe, pairs, output=tmp_path / "run", model=torch.nn.Conv2d(1, 1, 1), device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_missing_guidance_is_named(tmp_path: Path) -> None:
    pairs = [{k: v for k, v in item.items() if k != "semantic"} for item in scenes(2, 32)]
    with pytest.raises(ValueError, match="'sgafusion' needs semantic of every pair: let the data hold it, or attach"):
        train(small_recipe("sgafusion"), pairs, output=tmp_path, device="cpu", progress=False)

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fusionblocks.guidance import add_lora, load_lora, lora_state_dict, merge_lora, unmerge_lora
from fusionblocks.guidance.lora import updates
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from tests.guidance.towers import tiny_tower
from tests.helpers.golden import FORWARD, assert_close, load_case

PICTURE = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def stir(tower):
    """Give the updates' second factor, which starts at zero, some values."""
    for i, (_, update) in enumerate(updates(tower)):
        nn.init.normal_(update.up, std=0.2, generator=torch.Generator().manual_seed(i))
    return tower


def test_the_golden_layer_is_met_by_the_parametrised_form():
    case = load_case("sga_lora_linear")
    state = sgafusion.convert(case.state)
    layer = nn.Linear(24, 16)
    layer.load_state_dict({key: state[f"linear.{key}"] for key in ("weight", "bias")})
    add_lora(layer, rank=4, targets="all")  # the published forward pass has no factor: alpha is the rank
    load_lora(layer, {"weight.down": state["down"], "weight.up": state["up"]})
    (x,), (expected,) = case.inputs.values(), case.outputs.values()
    assert_close(layer(x), expected, "output", **FORWARD)
    merge_lora(layer)
    assert_close(layer(x), expected, "merged output", **FORWARD)


@pytest.mark.parametrize(
    ("targets", "count"),
    [("attention", 4), ("mlp", 4), (("attention", "mlp"), 8), ("all", 8), ("*.1.mlp.*", 2), ("*in_proj_weight", 2)],
)
def test_targets_name_the_layers(targets, count):
    tower = tiny_tower()
    sites = add_lora(tower, rank=2, targets=targets)
    assert len(sites) == len(set(sites)) == count
    assert sites == [site for site, _ in updates(tower)]


def test_it_acts_inside_every_layer_and_starts_as_the_tower():
    tower = tiny_tower().eval()
    before = tower(PICTURE)
    add_lora(tower, rank=2, targets="all")
    torch.testing.assert_close(tower(PICTURE), before, rtol=0, atol=1e-6)
    for site, update in updates(tower):
        nn.init.normal_(update.up)
        assert (tower(PICTURE) - before).abs().max() > 1e-4, site
        nn.init.zeros_(update.up)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_only_the_updates_train(targets):
    tower = tiny_tower().train()
    trunk = {name: value.clone() for name, value in tower.state_dict().items()}
    add_lora(tower, rank=2, targets=targets)
    start = {name: value.clone() for name, value in lora_state_dict(tower).items()}
    optimizer = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        tower(PICTURE).square().sum().backward()
        optimizer.step()
    assert all(p.grad is None for p in tower.parameters() if not p.requires_grad)
    now = {name.replace("parametrizations.", "").replace(".original", ""): p for name, p in tower.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in trunk.items())
    assert not any(torch.equal(value, start[name]) for name, value in lora_state_dict(tower).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_computes_the_same_and_unmerging_is_exact(dtype):
    tower = tiny_tower().eval().to(dtype)
    keys, x = set(tower.state_dict()), PICTURE.to(dtype)
    trunk = copy.deepcopy(tower.state_dict())
    add_lora(tower, rank=2, alpha=6.0, targets="all")
    stir(tower)
    adapted, adapters = tower(x), copy.deepcopy(lora_state_dict(tower))
    trained = [p for p in tower.parameters() if p.requires_grad]

    merge_lora(tower)
    torch.testing.assert_close(tower(x), adapted, rtol=1e-5, atol=1e-5)
    assert set(tower.state_dict()) == keys
    assert not any(p.requires_grad for p in tower.parameters())
    assert all(torch.equal(value, adapters[name]) for name, value in lora_state_dict(tower).items())
    plain = tiny_tower(1).eval().to(dtype).requires_grad_(False)
    plain.load_state_dict(tower.state_dict())
    assert torch.equal(plain(x), tower(x))

    unmerge_lora(tower)
    assert torch.equal(tower(x), adapted)
    assert [id(p) for p in tower.parameters() if p.requires_grad] == [id(p) for p in trained]
    for name, value in tower.state_dict().items():
        if name.endswith("original"):
            assert torch.equal(value, trunk[name.replace("parametrizations.", "").removesuffix(".original")])


def test_a_merged_tower_may_be_copied_and_change_its_dtype():
    tower = tiny_tower().eval()
    add_lora(tower, rank=2)
    adapted = stir(tower)(PICTURE)
    merge_lora(tower)
    other = copy.deepcopy(tower).double()
    unmerge_lora(other)
    assert {p.dtype for p in other.parameters()} == {torch.float64}
    torch.testing.assert_close(other(PICTURE.double()).float(), adapted, rtol=1e-5, atol=1e-5)
    unmerge_lora(tower)
    assert torch.equal(tower(PICTURE), adapted)


def test_the_updates_are_saved_and_loaded_alone():
    tower, other = tiny_tower(), tiny_tower()
    for one in (tower, other):
        add_lora(one.eval(), rank=3, targets=("attention", "mlp"))
    state = copy.deepcopy(lora_state_dict(stir(tower)))
    assert not torch.equal(other(PICTURE), tower(PICTURE))
    load_lora(other, state)
    assert torch.equal(other(PICTURE), tower(PICTURE))


def wider(state):
    return {name: value.repeat(1, 2) if name.endswith("down") else value for name, value in state.items()}


def test_updates_that_do_not_fit_are_refused_by_name():
    tower, other = tiny_tower(), tiny_tower()
    add_lora(tower, rank=4)
    add_lora(other, rank=8)
    before, state = copy.deepcopy(lora_state_dict(tower)), lora_state_dict(tower)
    with pytest.raises(
        ValueError, match=r"file\.x has updates of rank 8, the network has room for rank 4 \(at .*in_proj"
    ):
        load_lora(tower, lora_state_dict(other), source="file.x")
    with pytest.raises(ValueError, match=r"width: .*down must have shape \(4, 16\), got \(4, 32\)"):
        load_lora(tower, wider(state))
    with pytest.raises(ValueError, match="which the network does not adapt"):
        load_lora(tower, {**state, "conv1.weight.up": torch.zeros(1)})
    key = next(iter(state))
    with pytest.raises(ValueError, match=f"has no {key}"):
        load_lora(tower, {name: value for name, value in state.items() if name != key})
    assert all(torch.equal(value, before[name]) for name, value in lora_state_dict(tower).items())


def test_wrong_uses_are_refused_by_name():
    tower = tiny_tower()
    with pytest.raises(ValueError, match="no low-rank updates"):
        lora_state_dict(tower)
    with pytest.raises(ValueError, match="no low-rank updates"):
        merge_lora(tower)
    with pytest.raises(ValueError, match="no merged"):
        unmerge_lora(tower)
    for rank in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="rank"):
            add_lora(tower, rank=rank)
    with pytest.raises(ValueError, match=r"'head\.\*' names no weight.*attention.*resblocks"):
        add_lora(tower, targets=("attention", "head.*"))
    with pytest.raises(ValueError, match="targets"):
        add_lora(tower, targets=())
    assert all(p.requires_grad for p in tower.parameters())  # nothing has changed so far
    add_lora(tower)
    with pytest.raises(ValueError, match="already"):
        add_lora(tower)
    merge_lora(tower)
    with pytest.raises(ValueError, match="merged already"):
        merge_lora(tower)
    with pytest.raises(ValueError, match="already"):
        add_lora(tower)
    with pytest.raises(ValueError, match="unmerge"):
        load_lora(tower, lora_state_dict(tower))

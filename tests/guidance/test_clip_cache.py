from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fusionblocks.guidance import merge_lora
from tests.guidance.test_clip import build, pictures, train_a_step
from tests.guidance.towers import tiny_tower


class CountedTower(nn.Module):
    """A tower that counts the pictures it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_tower()
        self.image_size, self.output_dim, self.seen = 32, 24, 0

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


def entries(folder):
    return sorted(path.name for path in folder.glob("*.zip"))


@torch.no_grad()
def test_each_picture_is_seen_once(tmp_path):
    classifier, visible = build(tower=CountedTower(), rank=2, cache=tmp_path / "new"), pictures(3)
    first = classifier(visible)
    assert (classifier.visual.seen, len(entries(tmp_path / "new"))) == (3, 3)
    assert torch.equal(classifier(visible), first)
    torch.testing.assert_close(classifier(visible[[2, 0]]), first[[2, 0]], rtol=1e-6, atol=1e-6)
    assert torch.equal(classifier.classify(visible).embedding, first)
    assert classifier.visual.seen == 3
    more = classifier(torch.cat([pictures(1, seed=5), visible, pictures(1, seed=5)]))
    assert classifier.visual.seen == 4
    torch.testing.assert_close(more[1:4], first, rtol=1e-6, atol=1e-6)
    assert torch.equal(more[0], more[4])
    classifier.cache = None
    torch.testing.assert_close(classifier(visible), first, rtol=1e-5, atol=1e-6)
    assert classifier.visual.seen == 7


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["pooled", "patches"])
def test_another_process_finds_it(tmp_path, tokens):
    classifier, visible = build(cache=tmp_path, tokens=tokens), pictures()
    expected = classifier(visible)
    written = entries(tmp_path)
    other = build(cache=tmp_path, tokens=tokens)
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other(visible), expected)
    assert entries(tmp_path) == written


@torch.no_grad()
def test_nothing_stale_is_served(tmp_path):
    """Every change that changes the answer makes new entries, and the answer is the uncached one."""
    classifier, visible = build(rank=2, cache=tmp_path), pictures(1)

    def is_new():
        before = len(entries(tmp_path))
        answer = classifier(visible)
        cache, classifier.cache = classifier.cache, None
        torch.testing.assert_close(answer, classifier(visible), rtol=1e-5, atol=1e-6)
        classifier.cache = cache
        return len(entries(tmp_path)) > before

    update = classifier.visual.transformer.resblocks[0].attn.parametrizations.in_proj_weight[0]
    assert is_new()
    assert not is_new()
    update.up.add_(0.1)
    assert is_new()
    update.up.data.mul_(1.1)  # behind autograd's back, as some optimisers and averages do
    assert is_new()
    merge_lora(classifier.visual)
    assert is_new()
    assert not is_new()
    classifier.train().eval()  # unmerges
    assert not is_new()
    classifier.visual.conv1.weight.mul_(1.1)
    assert is_new()
    classifier.visual.ln_post.bias = nn.Parameter(torch.ones(16))
    assert is_new()
    classifier.load_state_dict({key: value * 1.01 for key, value in classifier.state_dict().items()})
    assert is_new()
    visible = visible.flip(3)
    assert is_new()
    classifier.embedding_head.weight.mul_(2)  # after the tower: what it saw still holds
    assert not is_new()
    classifier.double()
    assert is_new()


@torch.no_grad()
def test_settings_and_activations_are_told_apart(tmp_path):
    from open_clip.transformer import QuickGELU

    visible = pictures(1)
    options = [{}, {"preprocessing": "clip"}, {"tokens": "patches"}, {"tower": tiny_tower(act_layer=QuickGELU)}]
    for count, option in enumerate(options, start=1):
        build(cache=tmp_path, **option)(visible)
        assert len(entries(tmp_path)) == count, option
    with torch.autocast("cpu", torch.bfloat16):
        build(cache=tmp_path)(visible)
    assert len(entries(tmp_path)) == len(options) + 1


def test_it_stays_out_of_training_and_gradients(tmp_path):
    classifier, visible = build(rank=2, cache=tmp_path), pictures()
    classifier(visible).sum().backward()  # in evaluation mode, with gradients
    assert all(p.grad is not None for _, p in classifier.visual.named_parameters() if p.requires_grad)
    train_a_step(classifier)
    assert entries(tmp_path) == []
    with torch.no_grad():
        classifier(visible)  # in training mode
        assert entries(tmp_path) == []
        classifier.eval()(visible)
    assert len(entries(tmp_path)) == 3
    classifier.requires_grad_(False)
    assert classifier(pictures(1, seed=8)).requires_grad is False
    assert len(entries(tmp_path)) == 4


@torch.no_grad()
def test_a_damaged_entry_is_made_again(tmp_path):
    classifier, visible = build(cache=tmp_path), pictures(2)
    expected = classifier(visible)
    (tmp_path / entries(tmp_path)[0]).write_bytes(b"cut off")
    assert torch.equal(classifier(visible), expected)
    assert len(entries(tmp_path)) == 2


def test_classifiers_share_a_folder(tmp_path):
    """Many at once, in threads; processes are tested with the cache itself."""
    classifiers = [build(cache=tmp_path) for _ in range(4)]
    for classifier in classifiers[1:]:
        classifier.load_state_dict(classifiers[0].state_dict())
    batches = [pictures(4, seed=seed) for seed in range(6)]

    def answer(classifier):
        with torch.no_grad():
            return torch.cat([classifier(batch) for batch in batches])

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(answer, classifiers))
    classifiers[0].cache = None
    for one in answers:
        torch.testing.assert_close(one, answer(classifiers[0]), rtol=1e-5, atol=1e-6)
    assert len(entries(tmp_path)) == 24
    assert not list(tmp_path.glob(".*"))

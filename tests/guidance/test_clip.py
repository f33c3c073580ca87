from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fusionblocks import create_model, load_official
from fusionblocks.data import DEGRADATIONS
from fusionblocks.guidance import CLIPDegradationClassifier, lora_state_dict, merge_lora
from fusionblocks.guidance.clip.classifier import DEFAULT_CLASSES
from fusionblocks.guidance.clip.preprocessing import prepare
from fusionblocks.guidance.clip.prompts import PROMPTS
from fusionblocks.guidance.lora import updates
from tests.guidance.towers import tiny_clip, tiny_tower
from tests.helpers.golden import FORWARD, assert_close, load_case, rule_weight

CLASSES = ("clean", "haze", "low_light")


def pictures(batch=3, channels=3, height=40, width=56, seed=0):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def build(seed=0, **options):
    """Return a classifier of a small tower; equal seeds give equal weights, the adapters' at work."""
    tower = options.pop("tower", None) or tiny_tower(seed)
    classifier = CLIPDegradationClassifier(**{"tower": tower, "classes": CLASSES, **options})
    for _, update in updates(classifier.visual):
        nn.init.normal_(update.up, std=0.3)
    return classifier


def train_a_step(classifier):
    classifier.train()
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    loss = nn.functional.cross_entropy(classifier.classify(pictures()).logits, torch.tensor([0, 1, 2]))
    loss.backward()
    optimizer.step()
    return classifier


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tokens", ["pooled", "patches"])
@pytest.mark.parametrize("preprocessing", ["published", "clip"])
def test_shapes(tokens, preprocessing, channels):
    classifier = build(tokens=tokens, preprocessing=preprocessing, embedding_channels=20)
    visible = pictures(2, channels)
    assert classifier(visible).shape == ((2, 20) if tokens == "pooled" else (2, 16, 20))
    output = classifier.classify(visible)
    assert output.embedding.shape == (2, 20)
    assert output.logits.shape == (2, 3)
    if channels == 1:
        assert torch.equal(classifier(visible.repeat(1, 3, 1, 1)), classifier(visible))


def test_the_head_is_the_published_one():
    classifier = build(rank=2)
    visible = pictures(2, height=32, width=32)  # the tower's size: nothing is resized
    features = classifier.visual(visible)
    embedding = torch.relu(features @ classifier.embedding_head.weight.T + classifier.embedding_head.bias)
    logits = embedding @ classifier.class_head.weight.T + classifier.class_head.bias
    torch.testing.assert_close(classifier(visible), embedding)
    torch.testing.assert_close(classifier.classify(visible).logits, logits)
    assert (embedding >= 0).all()
    assert embedding.max() > 0


def test_patch_tokens_take_the_way_of_the_pooled_one():
    """A tower that pools the mean of its normalised patches returns the mean of the projected patch tokens."""
    classifier = build(tower=tiny_tower(pool_type="avg"), tokens="patches")
    visible = pictures()
    torch.testing.assert_close(
        classifier._features(visible, "patches").mean(dim=1), classifier._features(visible, "pooled")
    )


def test_a_batch_is_its_pictures():
    classifier, visible = build(rank=2), pictures(3)
    alone = torch.cat([classifier(picture[None]) for picture in visible])
    torch.testing.assert_close(classifier(visible), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_answer_has_the_picture_s_dtype(dtype):
    classifier, visible = build(), pictures()
    answer = classifier(visible.to(dtype))
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), classifier(visible), rtol=0.02, atol=0.02)
    assert classifier.classify(visible.to(dtype)).logits.dtype == dtype


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 2])
def test_adapters_and_heads_alone_train(rank):
    classifier = build(rank=rank, tower=tiny_clip())
    trainable = {name for name, p in classifier.named_parameters() if p.requires_grad}
    heads = {f"{head}.{leaf}" for head in ("embedding_head", "class_head") for leaf in ("weight", "bias")}
    assert {name for name in trainable if "parametrizations" not in name} == heads
    assert len(trainable) == 4 + (8 if rank else 0)
    before = copy.deepcopy(classifier.state_dict())
    train_a_step(classifier)
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trainable), name


def test_the_towers_stay_in_evaluation_mode():
    classifier = build(tower=tiny_clip())
    assert not classifier.training
    classifier.train()
    assert classifier.training
    assert classifier.class_head.training
    assert not any(module.training for tower in (classifier.visual, classifier.text) for module in tower.modules())


def test_gradients_reach_the_picture():
    visible = pictures().requires_grad_()
    build(preprocessing="clip")(visible).sum().backward()
    assert visible.grad.abs().max() > 0


def test_training_unmerges():
    classifier = build(rank=2)
    before, trunk = classifier(pictures()), copy.deepcopy(classifier.state_dict())
    merge_lora(classifier.visual)
    torch.testing.assert_close(classifier(pictures()), before, rtol=1e-5, atol=1e-5)
    classifier.train()
    assert all(torch.equal(value, trunk[name]) for name, value in classifier.state_dict().items())
    assert torch.equal(classifier(pictures()), before)


# --- adapters in files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 3])
def test_saved_adapters_make_an_equal_classifier(tmp_path, rank):
    classifier = train_a_step(build(rank=rank, lora_targets="all", embedding_channels=20, preprocessing="clip")).eval()
    expected = classifier.classify(pictures())
    classifier.save_adapters(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").stat().st_size < 40_000

    loaded = CLIPDegradationClassifier.from_adapters(tmp_path / "a.safetensors", tower=tiny_tower())
    assert loaded.classes == CLASSES
    assert loaded.preprocessing == "clip"
    assert torch.equal(loaded.classify(pictures()).logits, expected.logits)

    other = build(rank=rank, lora_targets="all", embedding_channels=20, preprocessing="clip")
    other.load_adapters(tmp_path / "a.safetensors")
    assert torch.equal(other(pictures()), expected.embedding)
    if rank:
        merge_lora(classifier.visual)
        classifier.save_adapters(tmp_path / "merged.safetensors")
        assert (tmp_path / "merged.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 8}, r"saved with rank=4, the classifier has rank=8"),
        ({"rank": 0}, r"saved with rank=4, the classifier has rank=0"),
        ({"alpha": 8.0}, r"saved with alpha=4\.0, the classifier has alpha=8\.0"),
        ({"classes": ("clean", "haze", "rain")}, r"classes=\['clean', 'haze', 'low_light'\].*'rain'"),
        ({"embedding_channels": 16}, r"embedding_channels=512, .*embedding_channels=16"),
        ({"preprocessing": "clip"}, r"preprocessing='published', .*'clip'"),
        ({"lora_targets": "mlp"}, r"targets differ"),
        ({"tower": tiny_tower(width=32)}, r"width"),
        ({"tower": tiny_tower(output_dim=48)}, r"embedding_head.weight must have shape \(512, 48\), got \(512, 24\)"),
    ],
)
def test_adapters_of_other_settings_are_refused_by_name(tmp_path, options, message):
    build(rank=4).save_adapters(tmp_path / "a.safetensors")
    classifier = build(**{"rank": 4, **options})
    before = copy.deepcopy(classifier.state_dict())
    with pytest.raises(ValueError, match=message):
        classifier.load_adapters(tmp_path / "a.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_files_that_are_no_adapters_are_refused(tmp_path):
    from safetensors.torch import save_file

    classifier = build()
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        classifier.load_adapters(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no folder"):
        classifier.save_adapters(tmp_path / "none" / "a.safetensors")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        classifier.save_adapters(tmp_path / "a.pt")
    torch.save(classifier.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="not a file of adapters"):
        classifier.load_adapters(tmp_path / "a.pt")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a file of adapters"):
        classifier.load_adapters(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="damaged"):
        classifier.load_adapters(tmp_path / "y.safetensors")
    classifier.save_adapters(tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="tower"):
        CLIPDegradationClassifier.from_adapters(tmp_path / "z.safetensors")


def test_adapters_of_rank_4_on_vit_b_32_are_small(tmp_path):
    import open_clip

    with torch.device("meta"):
        tower = open_clip.create_model("ViT-B-32-quickgelu", device="meta").visual
    classifier = CLIPDegradationClassifier(tower=tower, rank=4)
    for part in (classifier.embedding_head, classifier.class_head, *(update for _, update in updates(tower))):
        part.to_empty(device="cpu")
    assert len(lora_state_dict(tower)) == 2 * 24
    classifier.save_adapters(tmp_path / "a.safetensors")
    assert 1_900_000 < (tmp_path / "a.safetensors").stat().st_size < 2_000_000


# --- the published classifier --------------------------------------------------------------------------------------


def published_state(model, number=9):
    """Return what the published class's state dict holds: CLIP, its dead low-rank layers and the heads."""
    state = {f"clip_model.{key}": value.clone() for key, value in model.state_dict().items()}
    for name, module in model.visual.named_modules():
        if isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
            dead = {"linear.weight": shape, "linear.bias": shape[:1], "lora_A": (shape[1], 4), "lora_B": (4, shape[0])}
            state |= {f"clip_model.visual.{name}.{key}": torch.rand(size) for key, size in dead.items()}
    heads = {"fc1.weight": (512, 24), "fc1.bias": (512,), "fc2.weight": (number, 512), "fc2.bias": (number,)}
    return state | {key: rule_weight(key, list(shape)) for key, shape in heads.items()}


@pytest.mark.parametrize("where", ["dict", "file"])
def test_the_published_classifier_loads_without_its_dead_layers(tmp_path, where):
    model = tiny_clip(3)
    state = published_state(model)
    assert any(key.endswith("c_fc.lora_A") for key in state)
    visible = pictures(2, height=32, width=32)
    features = model.encode_image(visible)
    embedding = torch.relu(features @ state["fc1.weight"].T + state["fc1.bias"])
    if where == "file":
        torch.save(state, tmp_path / "classifier.pth")
        state = tmp_path / "classifier.pth"
    classifier = CLIPDegradationClassifier.from_published(state, tower=tiny_clip(4))
    assert len(classifier.classes) == 9
    torch.testing.assert_close(classifier(visible), embedding)
    assert classifier.classify(visible).logits.shape == (2, 9)
    assert not any(p.requires_grad for p in classifier.visual.parameters())


def test_another_checkpoint_than_the_published_classifier_s_is_refused(tmp_path):
    state = published_state(tiny_clip())
    load = CLIPDegradationClassifier.from_published
    torch.save(tiny_clip(), tmp_path / "best_cls.pth")  # a pickled model, as its authors' script writes
    with pytest.raises(ValueError, match=r"nothing of it ran.*torch\.save\(model\.state_dict\(\), file\)"):
        load(tmp_path / "best_cls.pth", tower=tiny_clip())
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load(tmp_path / "none.pth", tower=tiny_clip())
    with pytest.raises(ValueError, match=r"not a state dict of SGAFusion's classifier: it has no fc1\.bias"):
        load({"weight": torch.zeros(1)}, tower=tiny_clip())
    with pytest.raises(ValueError, match=r"1 missing: visual\.proj"):
        load({key: value for key, value in state.items() if key != "clip_model.visual.proj"}, tower=tiny_clip())
    with pytest.raises(ValueError, match=r"1 surplus: visual\.extra"):
        load({**state, "clip_model.visual.extra": torch.zeros(1)}, tower=tiny_clip())
    with pytest.raises(ValueError, match=r"embedding_head\.weight must have shape \(512, 24\), got \(512, 25\)"):
        load({**state, "fc1.weight": torch.zeros(512, 25)}, tower=tiny_clip())
    with pytest.raises(ValueError, match="9 names.*got 2"):
        load(state, tower=tiny_clip(), classes=("clean", "haze"))


# --- in words ------------------------------------------------------------------------------------------------------


def test_zero_shot_follows_the_sentences():
    model = tiny_clip()
    classifier = build(tower=model, preprocessing="clip")
    visible = pictures()
    chances = classifier.zero_shot(visible)
    assert chances.shape == (3, 3)
    torch.testing.assert_close(chances.sum(dim=1), torch.ones(3))

    import open_clip

    sentences = {"clean": "a photo", "haze": ["fog", "a photo in fog"], "low_light": "night"}
    tokens = open_clip.SimpleTokenizer()(["a photo", "fog", "a photo in fog", "night"])
    text = model.encode_text(tokens, normalize=True)
    text = torch.stack([text[0], nn.functional.normalize(text[1:3].mean(dim=0), dim=0), text[3]])
    image = model.encode_image(classifier_view(classifier, visible), normalize=True)
    expected = (model.logit_scale.exp() * image @ text.T).softmax(dim=1)
    torch.testing.assert_close(classifier.zero_shot(visible, sentences), expected, rtol=1e-4, atol=1e-6)
    assert (classifier.zero_shot(visible, sentences) - chances).abs().max() > 1e-3


def classifier_view(classifier, visible):
    return prepare(visible, (32, 32), **classifier._view)


def test_zero_shot_refuses_what_it_cannot_read():
    classifier = build(tower=tiny_clip())
    with pytest.raises(ValueError, match="prompts must have the names clean, haze, low_light, got clean"):
        classifier.zero_shot(pictures(), {"clean": "a photo"})
    with pytest.raises(ValueError, match="for 'haze'"):
        classifier.zero_shot(pictures(), {"clean": "a", "haze": [], "low_light": "c"})
    with pytest.raises(ValueError, match="text tower"):
        build().zero_shot(pictures())


def test_the_default_classes_are_the_library_s_degradations():
    assert ("clean", *DEGRADATIONS) == DEFAULT_CLASSES
    assert set(PROMPTS) == set(DEFAULT_CLASSES)


def test_a_model_that_is_passed_is_left_whole():
    model = tiny_clip()
    build(tower=model)
    assert model.visual is not None
    assert model.encode_image(pictures(1, height=32, width=32)).shape == (1, 24)


# --- as a guide ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["pooled", "patches"])
@pytest.mark.parametrize("query", ["image", "semantic"])
def test_attached_it_steers_sgafusion_as_its_embedding_does(tokens, query):
    torch.manual_seed(0)
    model = create_model("sgafusion", channels=4, query=query).eval()
    infrared, visible = pictures(2, 1, 21, 30), pictures(2, 3, 21, 30)
    classifier = build(rank=2, tokens=tokens)
    with torch.inference_mode():
        expected = model(infrared=infrared, visible=visible, semantic=classifier(visible))
        model.attach_guidance(classifier)
        assert torch.equal(model(infrared=infrared, visible=visible).fused, expected.fused)


def test_attached_it_meets_the_published_network():
    """The golden pictures through a classifier that yields the golden embedding, as far as the network can tell.

    The golden embedding has negative values, which the classifier's ReLU never gives. The network reads a linear
    projection of it to fewer channels, so another embedding, without negative values, is the same to it.
    """
    from scipy.optimize import nnls

    case = load_case("sga_full")
    model = load_official("sgafusion", case.state)
    visible, infrared = case.inputs["visible"], case.inputs["infrared"][:, :1]
    projection = model.semantic_attention.semantic_projection.weight.detach().double()
    embedding, residual = nnls(projection.numpy(), (projection @ case.inputs["semantic"][0].double()).numpy())
    assert residual < 1e-9
    classifier = with_embedding(visible, torch.from_numpy(embedding))
    model.attach_guidance(classifier)
    with torch.no_grad():
        output = model(infrared=infrared, visible=visible)
    for name, expected in case.outputs.items():
        assert_close(getattr(output, name), expected, name, **FORWARD)


def with_embedding(visible, embedding):
    """Return a classifier whose first layer is solved so that the one picture has this embedding."""
    classifier = build()
    with torch.no_grad():
        features = classifier.visual(classifier_view(classifier, visible)).double()
        classifier.embedding_head.weight.copy_(torch.linalg.lstsq(features, embedding[None]).solution.T)
        classifier.embedding_head.bias.zero_()
    return classifier


# --- bad arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": ("clean",)}, ValueError, "classes"),
        ({"classes": ("clean", "clean")}, ValueError, "classes"),
        ({"classes": "clean"}, TypeError, "classes"),
        ({"embedding_channels": 0}, ValueError, "embedding_channels"),
        ({"rank": -1}, ValueError, "rank"),
        ({"lora_targets": "conv", "rank": 2}, ValueError, "'conv'"),
        ({"preprocessing": "imagenet"}, ValueError, "preprocessing must be one of 'published', 'clip', got 'imagenet'"),
        ({"tokens": "all"}, ValueError, "tokens must be one of 'pooled', 'patches', got 'all'"),
        ({"tower": nn.Flatten(), "tokens": "patches"}, ValueError, "vision transformer"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


def test_wrong_pictures_are_refused_by_name():
    classifier = build()
    for shape in ((3, 40, 56), (1, 2, 40, 56), (0, 3, 40, 56)):
        with pytest.raises(ValueError, match="visible"):
            classifier(torch.rand(shape))
    with pytest.raises(TypeError, match="visible"):
        classifier(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))

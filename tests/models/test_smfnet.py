from __future__ import annotations

import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import luma
from fusionblocks.models.published import is_unused
from fusionblocks.models.smfnet import checkpoint as smfnet
from fusionblocks.models.smfnet.network import Decoder, Encoder, Reconstruction, SMFNetConfig
from tests.helpers.golden import FORWARD, assert_close, load_case
from tests.helpers.model_tester import ModelTester


def published(prefix: str = "module.") -> dict[str, dict[str, torch.Tensor]]:
    """The authors' checkpoint: five state dicts of DataParallel networks."""
    nested: dict[str, dict[str, torch.Tensor]] = {entry: {} for entry in smfnet.ENTRIES}
    for key, value in load_case("smf_full").state.items():
        entry, _, rest = key.partition(".")
        nested[entry][prefix + rest] = value
    return nested


@pytest.fixture(scope="module")
def official() -> fb.SMFNet:
    return fb.load_official("smfnet", published())


class TestSMFNet(ModelTester):
    name = "smfnet"
    small = {"channels": 16, "num_heads": 4, "base_layers": 1, "base_depth": 1, "dilations": (1, 2, 4)}
    sizes = [(1, 37, 50), (1, 1, 5), (2, 32, 32)]

    def test_features_of_both_modalities(self) -> None:
        features = self.run(self.make(), **self.inputs(*self.sizes[0])).features
        parts = {f"{branch}_{side}" for branch in ("base", "detail", "graph") for side in ("infrared", "visible")}
        assert features.keys() == parts
        for feature in features.values():
            assert feature.shape == (1, 16, 37, 50)

    def test_takes_rgb_or_its_luma(self) -> None:
        model, inputs = self.make(), self.inputs(*self.sizes[-1])
        colour = self.run(model, **inputs).fused
        gray = self.run(model, **{**inputs, "visible": luma(inputs["visible"])}).fused
        torch.testing.assert_close(colour, gray, rtol=0, atol=0)

    def test_reconstructs_both_inputs(self) -> None:
        model, inputs = self.make(), self.inputs(*self.sizes[0])
        with torch.no_grad():
            rebuilt = model.reconstruct(**inputs)
        assert isinstance(rebuilt, Reconstruction)
        assert rebuilt.infrared.shape == rebuilt.visible.shape == (1, 1, 37, 50)
        assert not torch.equal(rebuilt.infrared, rebuilt.visible)
        with pytest.raises(ValueError, match="visible"):
            model.reconstruct(inputs["infrared"], inputs["visible"][:, :2])

    def test_training_steps_lower_the_reconstruction_loss(self) -> None:
        model, inputs = self.make().train(), self.inputs(2, 16, 16)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        losses = []
        for _ in range(12):
            rebuilt = model.reconstruct(**inputs)
            loss = (rebuilt.infrared - inputs["infrared"]).square().mean()
            loss = loss + (rebuilt.visible - luma(inputs["visible"])).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.95 * losses[0]

    def test_exports_for_any_batch_and_size(self) -> None:
        model, inputs = self.make(), self.inputs(2, 24, 40)
        free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
        shapes = dict.fromkeys(inputs, free)
        program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes).module()
        other = self.inputs(1, 37, 51)
        torch.testing.assert_close(program(**other).fused, self.run(model, **other).fused, rtol=1e-4, atol=1e-5)

    def test_impossible_widths_are_refused_by_name(self) -> None:
        for wrong, name in (({"channels": 24}, "channels"), ({"dilations": (4,)}, "dilations")):
            with pytest.raises(ValueError, match=name):
                fb.create_model("smfnet", **{**self.small, "num_heads": 8, **wrong})


def test_fuses_like_the_published_network(official):
    case = load_case("smf_full")
    with torch.no_grad():
        output = official(**case.inputs)
    results = {"fused": output.fused, **output.features}
    assert case.outputs.keys() <= results.keys()
    for name, expected in case.outputs.items():
        assert_close(results[name], expected, f"smf_full output {name}", **FORWARD)


def test_reconstructs_like_the_published_network(official):
    case = load_case("smf_reconstruct")
    with torch.no_grad():
        results = official.reconstruct(**case.inputs)._asdict()
    assert case.outputs.keys() == results.keys()
    for name, expected in case.outputs.items():
        assert_close(results[name], expected, f"smf_reconstruct output {name}", **FORWARD)


def test_encoder_equals_the_published_encoder():
    case = load_case("smf_encoder")
    encoder = Encoder(SMFNetConfig()).eval()
    encoder.load_state_dict(smfnet.convert(case.state))
    with torch.no_grad():
        results = {**encoder(case.inputs["x"])._asdict(), "embedding": encoder.embed(case.inputs["x"])}
    assert case.outputs.keys() == results.keys()
    for name, expected in case.outputs.items():
        assert_close(results[name], expected, f"smf_encoder output {name}", **FORWARD)


def test_decoder_equals_the_published_decoder():
    case = load_case("smf_decoder")
    decoder = Decoder(SMFNetConfig()).eval()
    decoder.load_state_dict(smfnet.convert(case.state))
    features = case.inputs["feature"]
    with torch.no_grad():
        results = {"image": decoder(features), "feature": decoder.transformer(features)}
    assert case.outputs.keys() == results.keys()
    for name, expected in case.outputs.items():
        assert_close(results[name], expected, f"smf_decoder output {name}", **FORWARD)


class TestOfficialCheckpoint:
    def test_a_file_loads_as_its_dict_does(self, official, tmp_path) -> None:
        torch.save(published(), tmp_path / "model_VIF.pth")
        loaded = fb.load_official("smfnet", tmp_path / "model_VIF.pth")
        assert not loaded.training
        for (name, value), expected in zip(loaded.state_dict().items(), official.state_dict().values(), strict=True):
            assert torch.equal(value, expected), name

    def test_keys_without_the_data_parallel_prefix_load_too(self, official) -> None:
        loaded = fb.load_official("smfnet", published(prefix=""))
        assert torch.equal(loaded.decoder.head[0].weight, official.decoder.head[0].weight)

    def test_every_weight_is_a_published_one(self, official) -> None:
        """Each of our tensors is one of the checkpoint's, and every used one of the checkpoint is ours."""
        used = smfnet.convert(load_case("smf_full").state)
        assert used.keys() == official.state_dict().keys()
        for name, value in official.state_dict().items():
            assert torch.equal(value, used[name]), name

    def test_unused_keys_may_be_absent(self) -> None:
        checkpoint, unused = published(), 0
        for entry, state in checkpoint.items():
            for key in list(state):
                if is_unused(f"{entry}.{key.removeprefix('module.')}", smfnet.UNUSED):
                    del state[key]
                    unused += 1
        assert unused == 40
        fb.load_official("smfnet", checkpoint)

    @pytest.mark.parametrize(
        ("entry", "key", "ours"),
        [
            ("GraphModel", "module.C_cls.weight", r"graph_reasoning\.fuse\.weight"),
            ("DIDF_Encoder", "module.baseFeature.layers.1.residual_group.0.1.attn.scale", "temperature"),
            ("DIDF_Encoder", "module.detailFeature.layer.shffleconv.bias", r"encoder\.detail\.coupling\.mix\.bias"),
        ],
    )
    def test_a_missing_key_is_named(self, entry, key, ours) -> None:
        checkpoint = published()
        del checkpoint[entry][key]
        with pytest.raises(ValueError, match=f"1 missing: .*{ours}"):
            fb.load_official("smfnet", checkpoint)

    def test_a_surplus_key_is_named(self) -> None:
        checkpoint = published()
        checkpoint["DIDF_Decoder"]["module.gadget.weight"] = torch.zeros(3)
        with pytest.raises(ValueError, match=r"1 surplus: .*gadget\.weight"):
            fb.load_official("smfnet", checkpoint)

    def test_another_layout_is_refused(self) -> None:
        checkpoint = published()
        del checkpoint["GraphModel"]
        with pytest.raises(ValueError, match="not a checkpoint of 'smfnet'.*DIDF_Encoder"):
            fb.load_official("smfnet", checkpoint)

    def test_another_width_is_refused_by_shape(self) -> None:
        checkpoint = published()
        with pytest.raises(ValueError, match="of another shape"):
            fb.load_official("smfnet", checkpoint, channels=32)

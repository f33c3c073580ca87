"""What every network must do; a network's test file inherits it and says how a small one is built and fed."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import fusionblocks as fb
from fusionblocks.models.base import EXTRAS


class ModelTester:
    name: ClassVar[str]
    small: ClassVar[dict[str, Any]] = {}
    """Options of a narrow network that the general tests run."""
    sizes: ClassVar[list[tuple[int, int, int]]] = [(1, 37, 50), (2, 32, 32)]
    compiles: ClassVar[bool] = True

    def guidance(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        """The tensors beside the pair."""
        return {}

    def make(self) -> fb.FusionModel:
        torch.manual_seed(0)
        return fb.create_model(self.name, **self.small).eval()

    def inputs(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        torch.manual_seed(1)
        return {
            "infrared": torch.rand(batch, 1, height, width),
            "visible": torch.rand(batch, 3, height, width),
            **self.guidance(batch, height, width),
        }

    def run(self, model: fb.FusionModel, **inputs: Tensor) -> fb.FusionOutput:
        """One reproducible pass; stochastic networks override it with a seeded generator."""
        with torch.no_grad():
            return model(**inputs)

    def test_is_listed_and_named(self) -> None:
        model = self.make()
        assert self.name in fb.list_models()
        assert model.name == self.name
        assert type(model).__name__ in fb.__all__
        assert dataclasses.is_dataclass(model.config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(model.config, dataclasses.fields(model.config)[0].name, 1)

    def test_any_size_and_batch(self) -> None:
        model = self.make()
        for size in self.sizes:
            output = self.run(model, **self.inputs(*size))
            assert isinstance(output, fb.FusionOutput)
            assert output.fused.shape == (size[0], model.fused_channels, *size[1:])
            assert torch.isfinite(output.fused).all()

    def test_unknown_option_is_refused_with_the_closest(self) -> None:
        option = dataclasses.fields(self.make().config)[0].name
        with pytest.raises(TypeError, match=option):
            fb.create_model(self.name, **{option + "x": 1})

    def test_wrong_pairs_are_refused_by_name(self) -> None:
        model, inputs = self.make(), self.inputs(*self.sizes[0])
        infrared, visible = inputs["infrared"], inputs["visible"]
        wrong = {
            "infrared": [infrared[0], infrared.repeat(1, 2, 1, 1), (infrared * 255).to(torch.uint8)],
            "visible": [visible[0], visible.repeat(1, 2, 1, 1), (visible * 255).to(torch.uint8)],
        }
        for name, tensors in wrong.items():
            for tensor in tensors:
                with pytest.raises((ValueError, TypeError), match=name):
                    self.run(model, **{**inputs, name: tensor})
        height, width = infrared.shape[-2:]
        with pytest.raises(ValueError, match=rf"{height}.{{1,3}}{width}.*{height}.{{1,3}}{width - 3}"):
            self.run(model, **{**inputs, "visible": visible[..., :-3]})
        with pytest.raises(ValueError, match="batch"):
            self.run(model, **{**inputs, "visible": visible.repeat(2, 1, 1, 1)})

    def test_saves_and_loads_offline_with_equal_values(self, tmp_path, monkeypatch) -> None:
        def no_network(*_: object) -> None:
            raise AssertionError("the network was reached for")

        monkeypatch.setattr(socket.socket, "connect", no_network)
        model, inputs = self.make(), self.inputs(*self.sizes[-1])
        model.save_pretrained(tmp_path)
        assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()} or not [
            *model.parameters()
        ]
        loaded = type(model).from_pretrained(tmp_path)
        assert loaded.config == model.config
        assert not loaded.training
        assert torch.equal(self.run(loaded, **inputs).fused, self.run(model, **inputs).fused)

    def test_loading_is_strict(self, tmp_path) -> None:
        model = self.make()
        if not [*model.parameters()]:
            pytest.skip("the network has no weights")
        model.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        key = next(iter(state))
        save_file({k: v for k, v in state.items() if k != key}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=key.replace(".", r"\.")):
            type(model).from_pretrained(tmp_path)

    def test_another_networks_folder_is_refused(self, tmp_path) -> None:
        model = self.make()
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model": "othernet"}))
        with pytest.raises(ValueError, match="othernet"):
            type(model).from_pretrained(tmp_path)

    def test_channels_last(self) -> None:
        model, inputs = self.make(), self.inputs(*self.sizes[-1])
        expected = self.run(model, **inputs).fused
        model = model.to(memory_format=torch.channels_last)
        inputs = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in inputs.items()}
        torch.testing.assert_close(self.run(model, **inputs).fused, expected, rtol=1e-3, atol=1e-4)

    def test_autocast_bfloat16(self) -> None:
        model, inputs = self.make(), self.inputs(*self.sizes[-1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fused = self.run(model, **inputs).fused
        assert torch.isfinite(fused).all()

    def test_gradients_reach_every_parameter(self) -> None:
        model, inputs = self.make(), self.inputs(2, 32, 32)
        if not [*model.parameters()]:
            pytest.skip("the network has no weights")
        model.train()
        for parameter in model.parameters():  # let parameters that start at zero act
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        output = self.training_output(model, **inputs)
        tensors: list[Tensor] = []
        output.map(lambda tensor: tensors.append(tensor) or tensor)
        sum((tensor * torch.randn_like(tensor)).sum() for tensor in tensors).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(parameter.grad).all(), f"gradient of {name} is not finite"

    def training_output(self, model: fb.FusionModel, **inputs: Tensor) -> fb.FusionOutput:
        """The pass that training differentiates."""
        return model(**inputs)

    def test_compiles_and_exports(self) -> None:
        if not self.compiles:
            pytest.skip("a sampling loop is not one graph; its network is tested instead")
        torch.compiler.reset()
        model, inputs = self.make(), self.inputs(*self.sizes[-1])
        with torch.no_grad():
            output = model(**inputs)
            expected = output.fused
            compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs)
            exported = torch.export.export(model, (), kwargs=inputs).module()(**inputs)
        assert type(exported) is type(compiled) is type(output)
        for name in EXTRAS:
            assert (getattr(exported, name) is None) == (getattr(output, name) is None), name
        for output in (compiled, exported):
            assert isinstance(output, fb.FusionOutput)
            torch.testing.assert_close(output.fused, expected, rtol=1e-3, atol=1e-4)

    def test_fuses_pictures_in_colour(self) -> None:
        model, size = self.make(), self.sizes[0]
        inputs = self.inputs(1, *size[1:])
        fused = fb.fuse(inputs.pop("infrared"), inputs.pop("visible"), model=model, **inputs)
        assert fused.shape == (1, 3, *size[1:])
        assert fused.min() >= 0
        assert fused.max() <= 1

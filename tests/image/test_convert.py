from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionblocks.image import array_to_tensor, normalize_percentiles, tensor_to_array


def test_eight_bit_round_trip_is_exact() -> None:
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for picture in (array, np.stack([array, array.T, array[::-1]], axis=2)):
        assert np.array_equal(tensor_to_array(array_to_tensor("visible", picture)), picture)


def test_sixteen_bit_scales_by_full_range_or_percentiles() -> None:
    array = np.array([[0, 65535], [32768, 6554]], np.uint16)
    plain = array_to_tensor("visible", array)[0]
    torch.testing.assert_close(plain, torch.tensor([[0, 1], [32768 / 65535, 6554 / 65535]]))
    counts = np.linspace(29000, 29400, 10_000).round().astype(np.uint16).reshape(100, 100)
    counts[0, 0] = 65535  # a dead pixel must not flatten the picture
    thermal = array_to_tensor("infrared", counts, thermal=True)
    assert thermal.min() == 0
    assert thermal.max() == 1
    assert 0.45 < thermal.mean() < 0.55


def test_sparse_hot_pixels_survive_normalisation() -> None:
    counts = np.full((100, 100), 29000, np.uint16)
    counts[50, 50] = 30000
    normalised = normalize_percentiles(counts)
    assert normalised[50, 50] == 1
    assert normalised.sum() == 1


def test_constant_counts_are_black() -> None:
    assert not normalize_percentiles(np.full((4, 4), 7000, np.uint16)).any()


def test_alpha_is_dropped_and_float_kept() -> None:
    array = np.random.default_rng(0).random((5, 7, 4))
    tensor = array_to_tensor("visible", array)
    assert tensor.shape == (3, 5, 7)
    np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy(), array[:, :, :3], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (2, 4, 4, 3), (0, 4), (4, 0, 3)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="infrared must have shape"):
        array_to_tensor("infrared", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint32, bool, np.complex64])
def test_other_dtypes_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match=f"infrared must be .* got dtype {np.dtype(dtype)}"):
        array_to_tensor("infrared", np.zeros((4, 4), dtype))


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan, np.inf, 255.0])
def test_float_values_outside_the_range_are_refused(value: float) -> None:
    array = np.full((4, 4), 0.5)
    array[1, 2] = value
    with pytest.raises(ValueError, match="visible"):
        array_to_tensor("visible", array)


def test_percentiles_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="low and high"):
        normalize_percentiles(np.zeros((2, 2), np.uint16), 60, 40)


def test_tensor_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        tensor_to_array(torch.rand(4, 4))

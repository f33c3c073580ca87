from __future__ import annotations

import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import luma
from tests.helpers.model_tester import ModelTester


class TestLaplacian(ModelTester):
    name = "laplacian"
    sizes = [(1, 37, 50), (2, 32, 32), (1, 1, 1), (3, 2, 9)]  # noqa: RUF012

    def test_two_equal_pictures_come_back(self) -> None:
        visible = torch.rand(2, 3, 45, 61)
        fused = fb.Laplacian()(luma(visible), visible).fused
        torch.testing.assert_close(fused, luma(visible), rtol=0, atol=1e-5)

    def test_gray_visible_is_luma(self) -> None:
        infrared, gray = torch.rand(1, 1, 40, 40), torch.rand(1, 1, 40, 40)
        fused = fb.Laplacian()(infrared, gray).fused
        torch.testing.assert_close(fused, fb.Laplacian()(infrared, gray.expand(-1, 3, -1, -1)).fused)

    def test_details_come_from_the_source_that_has_them(self) -> None:
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        stripes = 0.5 + 0.3 * torch.sin(x * 1.5)
        checks = 0.5 + 0.3 * torch.sin(y * 1.5)
        infrared = torch.where(x < 32, stripes, torch.tensor(0.5))[None, None]
        visible = torch.where(x >= 32, checks, torch.tensor(0.5))[None, None]
        fused = fb.Laplacian()(infrared, visible).fused
        inside = (slice(None), slice(None), slice(8, 56))
        for columns, source in ((slice(6, 24), infrared), (slice(40, 58), visible)):
            one, other = fused[*inside, columns].flatten(), source[*inside, columns].flatten()
            assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.99
            assert one.std() > 0.9 * other.std()

    @pytest.mark.parametrize("options", [{"levels": 0}, {"levels": 2.5}, {"window": 0.0}])
    def test_settings_out_of_range_are_refused(self, options: dict) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            fb.create_model("laplacian", **options)

    def test_it_takes_no_guide(self) -> None:
        with pytest.raises(TypeError, match="takes no guidance"):
            fb.Laplacian().attach_guidance(lambda visible: visible)

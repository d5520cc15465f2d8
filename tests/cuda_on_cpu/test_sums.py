"""Means of constants: what rounds up rounds up each time, and does not average out."""

import pytest
import torch

from tests.ops.maps import channels_last

LAYOUTS = {"contiguous": lambda maps: maps, "channels last": channels_last}
LAYOUTS["every other column"] = lambda maps: maps.repeat_interleave(2, 3)[:, :, :, ::2]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("count", "size"), ((2, (7, 7)), (2, (256, 256)), (2048, (7, 7)), (2048, (64, 32)))
)
@pytest.mark.parametrize("value", (0.1, 0.3, 1.1))
def test_means_of_constants(value, count, size, layout, emulated):
    """Of few images the pixels are shared out; of many a thread adds up long chains."""
    maps = LAYOUTS[layout](torch.full((1, 4, *size), value)).expand(count, 4, *size)
    pooled, _ = torch.ops.gpe_emulated.gap_mse(maps, None)
    torch.testing.assert_close(pooled, torch.full_like(pooled, maps[0, 0, 0, 0]), rtol=4e-7, atol=0)

"""Blocks and threads of the CUDA kernels in any order give the same bits.

By default a few cases of each op in three orders; with ``GPE_EMULATOR=all`` all of them in all
orders, and the op tests in four.
"""

import random
from itertools import product

import pytest
import torch

from tests.cuda_on_cpu import emulator
from tests.ops.maps import FLOATS, LAYOUTS, SHAPES, two_maps

ORDERS = list(emulator.ORDERS) if emulator.EVERYTHING else ["forward", "reversed", "random1"]


def some(cases, n: int) -> list:
    """``n`` of the cases; with GPE_EMULATOR=all every one."""
    cases = list(cases)
    return cases if emulator.EVERYTHING else random.Random(0).sample(cases, n)


def assert_any_order_will_do(op: str, *arguments) -> None:
    """The op's results, and what it wrote to its first argument."""
    results = []
    for order in ORDERS:
        emulator.set_order(order)
        with emulator.filled_memory():
            own = [arguments[0].clone() if op.endswith("_") else arguments[0], *arguments[1:]]
            result = getattr(torch.ops.gpe_emulated, op)(*own)
        results.append([own[0], *(result if isinstance(result, tuple) else [result])])
    for order, other in zip(ORDERS, results, strict=True):
        for a, b in zip(results[0], other, strict=True):
            assert a is b is None or torch.equal(a, b), order


SIZES = [*SHAPES, {"height": 90, "width": 90, "count": 2}, {"channels": 300, "height": 7}]


@pytest.mark.parametrize(
    ("dtype", "layout", "size"), some(product(FLOATS, LAYOUTS, SIZES), 60), ids=str
)
def test_pooling(dtype, layout, size, emulated):
    a, b = (LAYOUTS[layout](maps) for maps in two_maps(dtype=dtype, **size))
    assert_any_order_will_do("gap_mse", a, b)
    assert_any_order_will_do("flip_difference", a, b, None, None)


@pytest.mark.parametrize(
    ("dtype", "layout", "size"), some(product((*FLOATS, torch.int8), LAYOUTS, SIZES), 40), ids=str
)
def test_mask_channels(dtype, layout, size, emulated):
    maps = LAYOUTS[layout](two_maps(dtype=dtype, **size)[0])
    masked = torch.arange(maps.shape[1]) % 3 == 1
    assert_any_order_will_do("mask_channels", maps, masked)
    assert_any_order_will_do("mask_channels_", maps, masked)


def images(seed: int, channels: int, height: int, width: int, layout: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (5, channels, height, width)
    return LAYOUTS[layout](torch.randint(256, shape, generator=generator, dtype=torch.uint8))


IMAGES = list(product((1, 3, 4), ((7, 9), (8, 8), (40, 33)), LAYOUTS, FLOATS, (False, True)))


@pytest.mark.parametrize("mode", ("zeros", "reflect", "replicate", "circular"))
@pytest.mark.parametrize("case", some(IMAGES, 12), ids=str)
def test_dual_crop(case, mode, emulated):
    channels, (height, width), layout, dtype, last = case
    scale = torch.linspace(0.1, 0.2, channels, dtype=torch.promote_types(dtype, torch.float32))
    offsets = torch.arange(20).view(2, 5, 2) % 5
    flips = torch.arange(10).view(2, 5) % 3 == 0
    size, padding = (height - 1, width), (2, 3)
    pixels = images(0, channels, height, width, layout)
    options = (offsets, flips, size, padding, mode, scale, -scale, dtype, last)
    assert_any_order_will_do("dual_crop", pixels, *options)


@pytest.mark.parametrize("case", some(IMAGES, 40), ids=str)
def test_place_on_grid(case, emulated):
    channels, (height, width), layout, dtype, last = case
    pixels = images(0, channels, height, width, layout)
    scale = torch.linspace(0.1, 0.2, channels, dtype=torch.promote_types(dtype, torch.float32))
    locations, later = torch.tensor([0, 8, 4, 3, 1]), torch.tensor([0, 2, 4, 7, 6])
    options = (pixels, locations, 3, scale, -scale, dtype, last)
    assert_any_order_will_do("place_on_grid", *options)
    canvas = torch.ops.gpe_emulated.place_on_grid(*options)
    assert_any_order_will_do("place_on_grid_", canvas, locations, pixels, later, 3, scale, -scale)


REGIONS = {"halves": [(0, 0, 50, 90), (0, 90, 50, 180)], "one": [(3, 5, 44, 171)]}
REGIONS["many"] = [  # more than one launch takes, with few borders
    (y, x, y + 10, min(x + 30, 180)) for y in range(0, 50, 10) for x in range(0, 180, 18)
]


@pytest.mark.parametrize(
    ("dtype", "classes", "regions", "layout"),
    some(product((torch.int64, *FLOATS), (3, 19, 130), REGIONS, LAYOUTS), 40),
    ids=str,
)
def test_region_confusion(dtype, classes, regions, layout, emulated):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(-1, classes + 1, (2, 50, 180), generator=generator)
    if dtype == torch.int64:
        logits = torch.randint(0, classes, labels.shape, generator=generator)
    else:
        logits = LAYOUTS[layout](torch.randn(2, classes, 6, 20, generator=generator).to(dtype))
    flat = [side for region in REGIONS[regions] for side in region]
    assert_any_order_will_do("region_confusion", logits, labels, flat, classes, 255)

"""The views that shift consistency compares: a loop says which, χ² how they are spread."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from torch.nn import functional as F

from gpe.metrics.views import Views, _shifts, _splitmix64
from tests.conftest import TOLERANCE

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def sample(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, height, width), generator=generator, dtype=torch.uint8)


def views(max_shift, protocol, *, size=None, dtype=torch.float32, layout=torch.contiguous_format):
    return Views(max_shift, protocol, 1, 7, size, MEAN, STD, dtype, layout)


def plain_shift(seed, number, index, view, axis, max_shift):
    """The hash in Python's integers."""
    state = 0
    for word in (seed, number, index, 2 * view + axis):
        z = (state + word + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        state = z ^ (z >> 31)
    return state % (2 * max_shift + 1) - max_shift


WINDOWS = (  # protocol, image, size that is asked for, size of the views, max_shift
    ("crop", (16, 16), None, (10, 10), 3),
    ("crop", (12, 17), None, (4, 9), 4),
    ("crop", (16, 16), 9, (9, 9), 3),  # an odd difference: borders of 3 and 4
    ("crop", (12, 17), (6, 11), (6, 11), 3),
    *(
        (protocol, *window)
        for protocol in ("zeros", "reflect", "circular")
        for window in (
            ((12, 17), None, (12, 17), 4),
            ((16, 16), 9, (9, 9), 3),  # all within the image
            ((12, 17), (12, 9), (12, 9), 5),  # padded in each axis by as much as it needs
            ((6, 5), (7, 8), (7, 8), 2),  # larger than the image
        )
    ),
    ("reflect", (5, 6), None, (5, 6), 4),  # as far as it goes
    ("circular", (5, 6), None, (5, 6), 5),
    ("zeros", (5, 6), None, (5, 6), 9),  # nothing of the image is left in some
)


@pytest.mark.parametrize(("protocol", "sides", "asked", "size", "max_shift"), WINDOWS)
def test_views_are_those_of_a_loop(protocol, sides, asked, size, max_shift):
    """Normalise, pad and slice one view at a time."""
    images, indices = sample(*sides), torch.tensor([5, 0, 2**40])
    cut = views(max_shift, protocol, size=asked, dtype=torch.float64).cut(images, indices, 2)
    assert cut.shape == (2, 3, 3, *size)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (MEAN, STD))
    top, left = ((side - length) // 2 for side, length in zip(sides, size, strict=True))
    margin = max(0, max_shift - min(top, left))
    mode = "constant" if protocol in ("crop", "zeros") else protocol
    padded = (F.pad(images.double() / 255, (margin,) * 4, mode=mode) - mean) / std
    rtol, atol = TOLERANCE[torch.float64]
    for view, image in product(range(2), range(3)):
        key = 7, 2, int(indices[image]), view
        row = margin + top + plain_shift(*key, 0, max_shift)
        column = margin + left + plain_shift(*key, 1, max_shift)
        expected = padded[image, :, row : row + size[0], column : column + size[1]]
        torch.testing.assert_close(cut[view, image], expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
def test_both_views_are_one_batch_in_the_dtype_and_layout_asked_for(layout):
    cut = views(2, "zeros", dtype=torch.bfloat16, layout=layout).cut(
        sample(9, 9), torch.arange(3), 0
    )
    assert cut.dtype == torch.bfloat16
    batch = cut.flatten(0, 1)
    assert batch.data_ptr() == cut.data_ptr()
    assert batch.is_contiguous(memory_format=layout)


def test_hash_is_splitmix64():
    """The first number of the published C code (prng.di.unimi.it/splitmix64.c) from 1234567."""
    assert _splitmix64(np.array([1234567], np.uint64)).tolist() == [6457827717110365317]


@pytest.mark.parametrize("max_shift", (1, 8, 64))
def test_shifts_are_uniform_over_the_whole_range_and_independent(max_shift):
    """χ² of each of 8 coordinates (pass, view, axis), and of every two of them."""
    count, values = 40_000, 2 * max_shift + 1
    drawn = torch.stack([_shifts(0, number, torch.arange(count), max_shift) for number in (0, 1)])
    coordinates = (drawn.movedim(2, -1).reshape(8, count) + max_shift).numpy()
    for one in coordinates:
        assert one.min() == 0 and one.max() == 2 * max_shift
        assert chisquare(np.bincount(one)).pvalue > 1e-4
    coarse = coordinates * 3 // values
    for one, other in combinations(coarse, 2):
        table = np.bincount(3 * one + other).reshape(3, 3)
        assert chi2_contingency(table).pvalue > 1e-4


def test_another_seed_pass_or_index_has_shifts_of_its_own():
    """Two that have nothing to do with each other are equal once in 41."""
    indices = torch.arange(20_000)
    drawn = [
        _shifts(seed, number, indices + first, 20)
        for seed, number, first in product((0, 1), repeat=3)
    ]
    for one, other in combinations(drawn, 2):
        assert abs((one == other).double().mean() - 1 / 41) < 0.003

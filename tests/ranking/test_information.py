"""Bits of the cell: against closed forms, loops, and channels that tell nothing."""

from collections import Counter
from math import e, exp, log, log2, pi, sqrt

import pytest
import torch
from scipy.integrate import quad

from gpe.errors import InputError
from gpe.ranking import mutual_information
from gpe.ranking.information import shuffle_cells
from gpe.statistics import times_drawn


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def grid(cells, images):
    """Each image once in each cell: the cells and the images of all pairs."""
    return torch.arange(cells).repeat(images), torch.arange(images).repeat_interleave(cells)


def gaussian_bits(levels):
    """Of a channel that is its cell's level plus a standard normal: h(mixture) - h(normal)."""

    def density(x):
        normals = (exp(-((x - level) ** 2) / 2) / sqrt(2 * pi) for level in levels)
        return sum(normals) / len(levels)

    low, high = min(levels) - 9, max(levels) + 9
    entropy, _ = quad(lambda x: -density(x) * log(density(x)), low, high, limit=500)
    return (entropy - log(2 * pi * e) / 2) / log(2)


# Closed forms


@pytest.mark.parametrize("paired", (False, True))
@pytest.mark.parametrize("cells", (4, 9, 25))
@pytest.mark.parametrize("spacing", (0.7, 1, 2))
def test_a_planted_channel_tells_as_much_as_its_closed_form(cells, spacing, paired):
    where, images = grid(cells, 36_000 // cells)
    order = torch.randperm(cells, generator=torch.Generator().manual_seed(1))
    levels = spacing * order.double()
    latents = levels[where][:, None] + noise(len(where), 3)
    found = mutual_information(latents, where, images=images if paired else None)
    expected = gaussian_bits(levels.tolist())
    assert 0.2 < expected < log2(cells)
    assert found.tolist() == pytest.approx([expected] * 3, rel=0.05)


@pytest.mark.parametrize("cells", (4, 9, 25))
def test_as_few_images_as_the_command_takes_do_on_average(cells):
    where, images = grid(cells, 200)
    latents = where.double()[:, None] + noise(len(where), 40)
    found = mutual_information(latents, where, images=images).mean().item()
    assert found == pytest.approx(gaussian_bits(list(range(cells))), rel=0.05)


@pytest.mark.parametrize("cells", (4, 9, 49))
def test_a_channel_that_names_the_cell_tells_all_of_it(cells):
    where, images = grid(cells, 400)
    for of in (None, images):
        (found,) = mutual_information(where.sqrt()[:, None], where, images=of)
        assert found.item() == pytest.approx(log2(cells), rel=0.02)


# Nothing to tell


@pytest.mark.parametrize("paired", (False, True))
def test_a_shuffled_channel_tells_nothing_within_its_noise(paired):
    where, images = grid(9, 200)
    planted = 2 * where.double()[:, None] + noise(len(where), 100)
    generator = torch.Generator().manual_seed(2)
    shuffled = torch.stack(
        [channel[torch.randperm(len(where), generator=generator)] for channel in planted.T], 1
    )
    found = mutual_information(shuffled, where, images=images if paired else None)
    uncorrected = 31 * 8 / (2 * len(where) * log(2))
    assert found.mean().abs() < 4 * found.std() / 10 + uncorrected / 50
    assert found.abs().max() < uncorrected


def test_an_image_that_fixes_its_values_tells_nothing_of_cells():
    """What is left there of the correction for independent pairs is far below zero."""
    where, images = grid(9, 200)
    latents = noise(200, 50)[images] + 0.01 * noise(len(where), 50, seed=1)
    assert mutual_information(latents, where).mean() < -0.05
    found = mutual_information(latents, where, images=images)
    assert found.mean().abs() < 4 * found.std() / 50**0.5 + 0.002


def test_rounding_is_no_information():
    where, images = grid(9, 50)
    constant = (3 + 1e-7 * where.float())[:, None]
    dead = torch.zeros_like(constant)
    for of in (None, images):
        found = mutual_information(torch.cat([constant, dead], 1), where, images=of)
        torch.testing.assert_close(found, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


# Against a loop


def looped(values, cells, weights, bins):
    """The definition, for one channel."""
    order = sorted(values)
    binned = [order.index(value) * bins // len(values) for value in values]

    def nats(names):
        counts = Counter()
        for name, weight in zip(names, weights, strict=True):
            counts[name] += weight
        counts = [count for count in counts.values() if count]
        total = sum(counts)
        plug_in = -sum(count / total * log(count / total) for count in counts)
        return plug_in + (len(counts) - 1) / (2 * total)

    both = list(zip(binned, cells, strict=True))
    return (nats(binned) + nats(cells) - nats(both)) / log(2)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("bins", (2, 5, 16))
def test_it_is_the_loop(bins, dtype):
    where, _ = grid(4, 20)
    latents = (where[:, None] + 2 * noise(80, 6)).to(dtype)
    latents[:, 1] = latents[:, 1].relu()  # ties
    latents[:, 2] = latents[:, 2].round()
    latents[:, 3] = 0
    found = mutual_information(latents, where, bins=bins)
    expected = [looped(c.tolist(), where.tolist(), [1] * 80, bins) for c in latents.T]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_images_that_count_several_times_are_in_the_table_as_often():
    where, images = grid(4, 20)
    latents = where[:, None] + 2 * noise(80, 5)
    (times,) = times_drawn(20, 50)
    once = torch.cat([torch.ones(1, 20, dtype=torch.float64), times[:3]])
    found = mutual_information(latents, where, images=images, times=once, bins=4)
    torch.testing.assert_close(found[0], mutual_information(latents, where, images=images, bins=4))
    bias = mutual_information(latents, where, bins=4) - found[0]
    for row, weights in zip(found, once[:, images], strict=True):
        expected = [looped(c.tolist(), where.tolist(), weights.tolist(), 4) for c in latents.T]
        torch.testing.assert_close(row + bias, torch.tensor(expected, dtype=torch.float64))


def test_the_order_of_pairs_and_the_unit_of_channels_change_nothing(monkeypatch):
    where, images = grid(4, 50)
    latents = where[:, None] + noise(200, 7)
    expected = mutual_information(latents, where, images=images)
    torch.testing.assert_close(
        mutual_information(5 * latents + 10, where, images=images), expected, rtol=0, atol=1e-3
    )
    plain = mutual_information(latents, where)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mutual_information(latents[order], where[order]), plain)
    monkeypatch.setattr("gpe.ranking.information.AT_ONCE", 1)
    torch.testing.assert_close(mutual_information(latents, where), plain)


def test_shuffled_cells_stay_with_their_image():
    where, images = grid(9, 300)
    order = torch.randperm(len(where), generator=torch.Generator().manual_seed(0))
    where, images = where[order], images[order]
    shuffled = shuffle_cells(where, images, 0)
    assert torch.equal((9 * images + shuffled).sort().values, torch.arange(2700))
    assert 0.08 < (shuffled == where).double().mean() < 0.14, "a ninth stays by chance"
    assert torch.equal(shuffled, shuffle_cells(where, images, 0))
    assert not torch.equal(shuffled, shuffle_cells(where, images, 1))


# Correlation of ranks, and intervals


# Refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"latents": torch.zeros(8)}, r"latents: expected floating \[P,C\]"),
        ({"latents": torch.zeros(8, 2).long()}, r"latents: expected floating \[P,C\]"),
        ({"latents": torch.zeros(8, 0)}, r"latents: expected floating \[P,C\]"),
        ({"latents": torch.full((8, 2), float("nan"))}, "latents: expected finite numbers"),
        ({"cells": torch.zeros(7).long()}, r"cells: expected int64 \[8\] of at least 0"),
        ({"cells": torch.zeros(8)}, r"cells: expected int64 \[8\]"),
        ({"cells": torch.full((8,), -1)}, r"cells: expected int64 \[8\] of at least 0"),
        ({"cells": torch.arange(8)}, "latents: expected 4 or more for each cell, got 1"),
        ({"images": torch.arange(8)}, "images: expected 0 and on, each once in each of 2 cells"),
        ({"images": torch.arange(4).repeat_interleave(2) + 1}, "images: expected 0 and on, each"),
        ({"images": torch.arange(3)}, r"images: expected int64 \[8\]"),
        ({"times": torch.ones(2, 4)}, r"times: expected \[D,0\], one for each of images, got"),
        ({"bins": 1}, "bins: expected at least 2, got 1"),
    ),
)
def test_refusals(changed, message):
    options = {"latents": torch.rand(8, 2), "cells": torch.arange(2).repeat(4)} | changed
    with pytest.raises(InputError, match=message):
        mutual_information(options.pop("latents"), options.pop("cells"), **options)

"""Readouts on vectors: equal to convolution and pooling in place, and what each can learn."""

import pytest
import torch
from torch import nn

from gpe.data import ImageSet
from gpe.errors import InputError
from gpe.models import resnet18
from gpe.models.inside import maps_at
from gpe.ops.place_on_grid import place_on_grid
from gpe.readout import READOUTS, answer, build_readout, grid_latents, train_readout

GRID = 3


@pytest.mark.parametrize("kind", READOUTS)
def test_trained_on_vectors_it_is_what_it_is_with_the_network_in_place(kind):
    """The same seed and batches: the logits agree to 1e-4, and so do the weights."""
    torch.manual_seed(0)
    net = resnet18(width=8).eval()
    pixels = torch.randint(256, (60, 3, 16, 16), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(60, dtype=torch.int64), ("any",), (0.5,) * 3, (0.2,) * 3)
    cells = torch.randint(GRID**2, (60,))
    latents = grid_latents(net, images, cells, GRID, layers=["layer3"])["layer3"]

    @torch.no_grad()
    def maps(chosen):
        canvases = place_on_grid(
            pixels[chosen], cells[chosen], GRID, mean=images.mean, std=images.std
        )
        (features,) = maps_at(net, "layer3", canvases)
        assert features.shape[2:] == (6, 6)  # something to pool over
        return features

    def trained(features):
        readout = build_readout(kind, latents, GRID**2, seed=3)
        return train_readout(readout, features, cells, epochs=5, batch_size=16, seed=5)

    cached, in_place = trained(latents), trained(maps)
    start = build_readout(kind, latents, GRID**2, seed=3)
    moved = [
        (a - b).abs().max() for a, b in zip(cached.parameters(), start.parameters(), strict=True)
    ]
    assert min(moved) > 0.01, "it was trained at all"
    with torch.no_grad():
        torch.testing.assert_close(
            cached(latents), in_place(maps(torch.arange(60))), rtol=0, atol=1e-4
        )


def planted(count, channels=12, classes=4, noise=0.3, seed=0):
    """Latents that name the cell by which channel is high."""
    draws = torch.Generator().manual_seed(seed)
    cells = torch.randint(classes, (count,), generator=draws)
    latents = noise * torch.randn(count, channels, generator=draws)
    latents[torch.arange(count), cells] += 3
    return latents, cells


def accuracy(kind, train=400, **options):
    latents, cells = planted(train)
    readout = train_readout(build_readout(kind, latents, 4), latents, cells, **options)
    return answer(readout, *planted(300, seed=1))


def test_what_stands_in_the_order_is_read_unless_the_order_is_lost():
    """The control learns its one permutation like any other order."""
    assert accuracy("gapnet").accuracy > 0.98
    assert accuracy("fixed").accuracy > 0.98
    lost = accuracy("permutenet")
    assert lost.interval[0] < 0.25 < lost.interval[1], "guessing"


def test_what_stands_in_the_sum_survives_the_permutation():
    cells = torch.arange(200) % 2
    latents = torch.rand(200, 6) + 2 * cells[:, None]
    readout = train_readout(build_readout("permutenet", latents, 2), latents, cells)
    assert answer(readout, latents, cells).accuracy == 1


def test_a_permuting_readout_draws_anew_for_each_image_it_is_asked_about():
    """Two of the same vector get two answers; with one permutation for all they would not."""
    latents, cells = planted(400)
    readout = train_readout(build_readout("permutenet", latents, 4), latents, cells, epochs=5)
    found = answer(readout, latents[:1].expand(200, -1), cells[:1].expand(200))
    assert len(found.predictions.unique()) > 1
    fixed = train_readout(build_readout("fixed", latents, 4), latents, cells, epochs=5)
    found = answer(fixed, latents[:1].expand(200, -1), cells[:1].expand(200))
    assert len(found.predictions.unique()) == 1


@pytest.mark.parametrize("kind", READOUTS)
def test_the_same_seed_gives_the_same_bits(kind):
    first, second = (accuracy(kind, epochs=2).predictions for _ in range(2))
    assert torch.equal(first, second)


def test_channels_that_never_change_do_no_harm():
    latents, cells = planted(400)
    latents[:, 5:9] = 7.1
    readout = train_readout(build_readout("gapnet", latents, 4), latents, cells)
    unseen, answers = planted(300, seed=1)
    unseen[:, 5:9] = 7.1 + 1e-6
    assert answer(readout, unseen, answers).accuracy > 0.98


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: build_readout("mlp", torch.rand(3, 2), 2), "kind: expected one of gapnet, perm"),
        (lambda: build_readout("gapnet", torch.rand(3), 2), r"latents: expected floating \[P,C\]"),
        (
            lambda: build_readout("gapnet", torch.full((3, 2), float("nan")), 2),
            "latents: expected finite numbers, got NaN or infinity",
        ),
        (
            lambda: train_readout(
                build_readout("gapnet", torch.rand(8, 2), 9), torch.rand(8, 2), torch.arange(8)
            ),
            "images: expected at least 9 to train a readout of 9 cells, got 8",
        ),
        (
            lambda: answer(
                build_readout("gapnet", torch.rand(8, 2), 9), torch.rand(8, 2), torch.arange(7)
            ),
            "cells: expected one for each of one or more latents, got 7 for 8",
        ),
    ],
)
def test_what_cannot_be_trained_or_asked_is_refused(call, complaint):
    with pytest.raises(InputError, match=complaint):
        call()


def test_a_convolution_on_maps_is_a_linear_map_of_their_means():
    """Equation S1, as written."""
    readout = build_readout("gapnet", torch.rand(50, 6), 4)
    maps = torch.rand(3, 6, 5, 7)
    torch.testing.assert_close(readout(maps), readout(maps.mean((2, 3))))
    assert isinstance(readout.head, nn.Conv2d) and readout.head.kernel_size == (1, 1)

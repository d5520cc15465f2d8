"""Maps of channels by cell, and channels specific to any region."""

import pytest
import torch

from gpe.errors import InputError
from gpe.ranking import ChannelRanking, group_means, rank_region


def table(cells=9, images=12, channels=5, seed=0):
    """Each image once in each cell, the pairs in any order: latents, cells, images."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(cells * images, generator=generator)
    latents = torch.randn(cells * images, channels, generator=generator)
    where = torch.arange(cells).repeat(images)
    return latents, where[order], torch.arange(images).repeat_interleave(cells)[order]


def test_means_are_those_of_a_loop():
    latents, cells, _ = table()
    found = group_means(latents, cells, 9)
    assert found.shape == (9, 5) and found.dtype == torch.float64
    for cell in range(9):
        rows = [row.double() for row, place in zip(latents, cells, strict=True) if place == cell]
        torch.testing.assert_close(found[cell], torch.stack(rows).mean(0))


@pytest.mark.parametrize("region", ((0,), (8, 2), (0, 1, 2, 3, 4, 5, 6, 7)))
def test_scores_are_those_of_a_loop(region):
    latents, cells, images = table()
    ranking = rank_region(latents, cells, images, region, layer="layer4", weights="abc")
    differences = []
    for image in range(12):
        of = {
            int(c): z.double() for z, c, i in zip(latents, cells, images, strict=True) if i == image
        }
        inside = torch.stack([of[cell] for cell in region]).mean(0)
        outside = torch.stack([of[cell] for cell in range(9) if cell not in region]).mean(0)
        differences.append(inside - outside)
    expected = torch.stack(differences).mean(0)
    torch.testing.assert_close(ranking.scores, expected, rtol=1e-5, atol=1e-6)
    low, high = ranking.interval
    assert ((low < ranking.scores) & (ranking.scores < high)).all(), "of the mean, with its sign"
    assert ranking.mode == "cells:" + "+".join(map(str, sorted(region)))
    assert (ranking.layer, ranking.weights, ranking.images) == ("layer4", "abc", 12)


def test_a_channel_of_the_region_comes_first_and_one_of_the_rest_last():
    latents, cells, images = table()
    latents[:, 3] += 4 * (cells % 3 == 0)  # the left column
    latents[:, 1] -= 4 * (cells % 3 == 0)
    left = rank_region(latents, cells, images, (0, 3, 6))
    assert left.order[0] == 3 and left.order[-1] == 1
    assert left.scores[3] > 3 and left.scores[1] < -3


def test_it_is_a_ranking_like_others(tmp_path):
    latents, cells, images = table()
    latents = latents.double()
    whole = rank_region(latents, cells, images, (0, 4))
    whole.save(tmp_path / "region.safetensors")
    loaded = ChannelRanking.load(tmp_path / "region.safetensors")
    assert torch.equal(loaded.order, whole.order) and torch.equal(loaded.interval, whole.interval)
    halves = [
        ChannelRanking.of_differences(whole.mode, whole.differences[rows], rows.tolist())
        for rows in torch.arange(12).split(7)
    ]
    assert torch.equal(halves[1].merge(halves[0]).scores, whole.scores)


@pytest.mark.parametrize("region", ((), (0, 0), (9,), (-1,), tuple(range(9))))
def test_what_is_no_region_is_refused(region):
    with pytest.raises(InputError, match="region: expected some of the 9 cells, each once and not"):
        rank_region(*table(), region)


def test_an_image_without_an_outside_is_refused():
    latents, cells, images = table()
    there = (images > 0) | (cells == 0)
    with pytest.raises(InputError, match="groups: expected all of 0 to 11, got"):
        rank_region(latents[there], cells[there], images[there], (0,))


@pytest.mark.parametrize("groups", (torch.zeros(3).long(), torch.zeros(2), torch.tensor([0, 2])))
def test_groups_that_do_not_go_with_the_latents_are_refused(groups):
    with pytest.raises(InputError, match="groups: expected"):
        group_means(torch.zeros(2, 4), groups, 2)

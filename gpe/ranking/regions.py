"""Where on a grid channels respond, and those that are specific to any part of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ranking.modes import CELLS
from gpe.ranking.result import ChannelRanking


def group_means(latents: Tensor, groups: Tensor, count: int) -> Tensor:  # [P,C] -> [count,C]
    """Means of latents by group, float64: by cell, they are maps of where channels respond.

    Args:
        latents: floating ``[P,C]``.
        groups: int64 ``[P]``, from 0 to ``count - 1``, as the cell of each latent or its image.
        count: how many groups there are.

    Raises:
        InputError: groups that do not go with the latents, or one without any.

    Example:
        >>> group_means(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 1]), 2).tolist()
        [[1.0], [3.0]]
    """
    if groups.dtype != torch.int64 or groups.shape != latents.shape[:1]:
        got = f"{groups.dtype} {list(groups.shape)}"
        raise InputError(f"groups: expected int64 [{len(latents)}], got {got}")
    members = groups.bincount(minlength=count)
    if len(members) > count or not members.all():
        raise InputError(
            f"groups: expected all of 0 to {count - 1}, got {groups.unique().tolist()}"
        )
    sums = torch.zeros(count, latents.shape[1], dtype=torch.float64)
    return sums.index_add_(0, groups, latents.double()) / members[:, None]


def rank_region(
    latents: Tensor,  # [P,C]
    cells: Tensor,  # int64 [P]
    images: Tensor,  # int64 [P]
    region: Sequence[int],
    *,
    layer: str | None = None,
    weights: str | None = None,
) -> ChannelRanking:
    """Ranks channels by how much more they respond to an image inside a region than outside.

    What Equation 3 does for left and right, for any cells of a grid: the score is the mean over
    images of the difference of two means, of the latents of an image in the cells of the region and
    in all others.

    Args:
        latents: floating; each image has some inside and some outside.
        cells: of each latent.
        images: of each latent, counted from 0; they are the ids of the ranking.
        region: some of the cells.
        layer, weights: as of :class:`ChannelRanking`.

    Returns:
        A ranking of mode ``"cells:0+3"``, the cells of the region in rising order.

    Raises:
        InputError: a region without cells, with one twice, one that there is not, or all; an
            image that is not both inside and outside.

    Example:
        >>> cells, images = torch.arange(4).repeat(2), torch.arange(2).repeat_interleave(4)
        >>> latents = torch.stack([cells == 2, cells < 2], 1).float()
        >>> ranking = rank_region(latents, cells, images, (0, 1))
        >>> ranking.mode, ranking.order.tolist(), ranking.scores.tolist()
        ('cells:0+1', [1, 0], [-0.5, 1.0])
    """
    region = tuple(sorted(region))
    known = set(cells.tolist())
    if not region or len(set(region)) < len(region) or not set(region) < known:
        raise InputError(
            f"region: expected some of the {len(known)} cells, each once and not all, got {region}"
        )
    inside = torch.isin(cells, torch.tensor(region))
    count = int(images.max()) + 1
    within, without = (
        group_means(latents[those], images[those], count) for those in (inside, ~inside)
    )
    return ChannelRanking.of_differences(
        CELLS + "+".join(map(str, region)),
        (within - without).to(torch.promote_types(latents.dtype, torch.float32)),
        range(count),
        layer=layer,
        weights=weights,
    )

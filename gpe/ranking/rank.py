"""Channels ranked by position (Equations 2 and 3), by activity in a region, and by importance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from gpe.errors import InputError, expect_one_of
from gpe.metrics.evaluating import evaluating
from gpe.metrics.region_iou import Regions
from gpe.models.inside import digest, find_layer
from gpe.models.running import WRAPPED, eager
from gpe.ops.flip_difference import flip_difference
from gpe.ops.region_confusion import Rectangle
from gpe.ranking.derived import DERIVED, derive, needed, seed_of
from gpe.ranking.modes import ACTIVITY, DEVIATION, SUBSETS, over_maps
from gpe.ranking.passes import Loss, Passes
from gpe.ranking.result import ChannelRanking, ImageId
from gpe.ranking.tally import Keep, Tally, gathered

# Of each mode, what it subtracts from what: what the network sees or what is made of its maps, and
# whether its kernels are mirrored.
_Pass = tuple[str, bool]
_IMAGE, _MIRROR, _NOTHING = ("image", False), ("mirror", False), ("nothing", False)
_FLIPPED_IMAGE, _FLIPPED_MIRROR = ("image", True), ("mirror", True)
_PAIRS: dict[str, tuple[_Pass, _Pass]] = {
    "overall": (_IMAGE, _MIRROR),
    "left": (_IMAGE, _MIRROR),
    "right": (_IMAGE, _MIRROR),
    "kernel_flip_mirror": (_FLIPPED_IMAGE, _FLIPPED_MIRROR),
    "kernel_flip_pair": (_IMAGE, _FLIPPED_IMAGE),
    "magnitude": (_IMAGE, _NOTHING),
    DEVIATION: (_IMAGE, _NOTHING),
    "taylor": (("taylor", False), _NOTHING),
}


def rank_channels(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence],
    *,
    layer: str,
    modes: Sequence[str] = ("overall",),
    subsets: Mapping[str, Iterable[ImageId]] | None = None,
    regions: Regions | None = None,
    loss: Loss | None = None,
    device: torch.device | str | None = None,
    start: int = 0,
    channel_dim: int | None = None,
    keep: Keep = "images",
) -> dict[str, ChannelRanking]:
    """Ranks the channels of a layer by how much position they encode, in one pass over the images.

    z is the layer's output, averaged over height and width, or over the tokens of patches; Δ is
    z(image) - z(mirror). Of several maps with the same channels, as of a feature pyramid, each is
    averaged by itself, and Δ and |Δ| are means over them. The modes:

    - ``"overall"``: the mean of |Δ| (Equation 2).
    - ``"left"``, ``"right"``: the mean of Δ over the images of that subset, whose objects lie on
      that side (Equation 3). First come the channels that are high with objects on that side
      and low with the same objects on the other: Δ has the same sign for both.
    - ``"kernel_flip_mirror"``: the mean of |Δ| in the network with mirrored kernels (Kernel-Flip*).
    - ``"kernel_flip_pair"``: the mean of |z(image) - z'(image)|, z' of the network with mirrored
      kernels (Kernel-Flip**). Which kernels these are, :mod:`gpe.ranking.kernel_flip` tells.
    - ``"left_right"``, ``"right_left"``: the scores of left minus those of right, and the reverse.
      A mirrored photo is another one, wherever its objects are: what that alone changes is in the
      Δ of either subset, and drops out.
    - ``"activity"``: for each of ``regions`` the mean activation inside minus that outside, before
      pooling, averaged over images; ``"activity:left"`` for one.

    And what position has to be held against:

    - ``"random"``, ``"random:1"``, ``"random:2"``, …: random scores from that seed, 0 if none.
    - ``"magnitude"``: the mean of |z|.
    - ``"deviation"``: the standard deviation of z over images.
    - ``"relative"``: the score of overall divided by the deviation.
    - ``"taylor"``: the mean size of the activation times the gradient of the loss, averaged over
      the map: how much the loss would change without the channel, to first order.
    - ``"matched"``, ``"matched:1"``, …: a random order from that seed whose channels deviate, rank
      by rank, as those of overall do, within 5 %.

    Only the forward passes that the modes need are run, at most four for each image, each up to
    the layer and no further, but for ``"taylor"``, which runs to the loss and back to the layer;
    one image more runs through the whole network to see what the layer
    yields, and how often. The model runs in evaluation mode without gradients, uncompiled, and is
    left as it was.

    Among processes of :mod:`torch.distributed` each gives its own images, all call this, and all
    get the ranking by all images, as one process would: to the last bit where images are kept,
    to rounding of float64 sums where they are not.

    Args:
        model: any network; none of its weights is changed, not even for a time.
        batches: images ``[N,C,H,W]``, as the model takes them, or tuples that begin with
            them. Where a tuple ends with a sequence of strings, these are the images' ids; else
            images are numbered as they come.
        layer: a name of ``model.named_modules()`` whose output is one tensor ``[N,C,H,W]``,
            ``[N,H,W,C]``, ``[N,T,C]`` or ``[N,C]``, alone or in a dict, list or tuple, or several
            maps with the same channels. :func:`gpe.models.inside.layout_of` tells which.
        modes: which rankings to make.
        subsets: for ``"left"`` and ``"right"``, the ids of their images. Where nothing but these is
            asked for, other images are passed over.
        regions: for ``"activity"``: names or rectangles in pixels of the image, as of
            :func:`gpe.metrics.resolve_regions`; part of a cell of the map counts as that part.
        loss: for ``"taylor"``: of what the network yields and the batch, the sum of a loss over the
            images. If None, cross-entropy with the labels that come second in a batch, the mean
            over the labelled pixels of an image; 255 is no label, unless it is a class.
        device: where to run; if None, where the model's weights are. A model that lies elsewhere
            is not moved: it runs with copies of its weights.
        start: number of the first image, for a part of a set whose images come without ids.
        channel_dim: of the layer's output, where it does not show; negative from the end.
        keep: what is kept for intervals and merging. ``"images"``: the difference of each image,
            4 bytes for each channel and mode. ``"draws"``: sums, and those of 1,000 draws of a
            bootstrap, 8 kB for each channel and mode, however many images there are.
            ``"sums"``: the sums alone, and no interval. Ids are kept in each case.

    Returns:
        A :class:`ChannelRanking` for each mode, by its name; of ``"activity"`` one for each region,
        ``"activity:NAME"``. Those of left_right, right_left, relative and matched are made of
        others and have no interval.

    Raises:
        InputError: a layer that there is not (with the nearest names), that does not run once, or
            yields no feature map, or one whose channels cannot be told apart; a network that is
            traced or scripted, or does not take the images; an unknown mode; a subset that is
            missing or empty; a region that leaves nothing outside, or a layer without maps for it;
            no labels for ``"taylor"``; no images, or an image twice; NaN in the features; a kernel
            flip without convolutions, or with some that are no modules.

    Source:
        Section 4.2.1; for ``"taylor"`` Molchanov et al., "Pruning convolutional neural networks for
        resource efficient inference", ICLR 2017.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 2))
        >>> batches = [(torch.rand(2, 3, 16, 16), ["a", "b"]), (torch.rand(1, 3, 16, 16), ["c"])]
        >>> modes = ("overall", "right", "kernel_flip_pair", "random:7")
        >>> rankings = rank_channels(
        ...     model, batches, layer="1", modes=modes, subsets={"right": ["b"]}
        ... )
        >>> {mode: ranking.images for mode, ranking in rankings.items()}
        {'overall': 3, 'right': 1, 'kernel_flip_pair': 3, 'random:7': 0}
        >>> rankings["overall"].order.shape, rankings["overall"].interval.shape
        (torch.Size([8]), torch.Size([2, 8]))
    """
    modes = _expanded((modes,) if isinstance(modes, str) else tuple(modes), regions)
    wanted = _checked(modes, subsets)
    expect_one_of("keep", keep, get_args(Keep))
    seen = [mode for mode in needed(modes) if seed_of(mode, "random") is None]
    with eager(model) as network, evaluating(network):
        find_layer(network, layer)
        passes = Passes(
            network,
            layer,
            device=_device(network, device),
            channel_dim=channel_dim,
            regions=_rectangles(modes, regions),
            loss=loss,
        )
        tallies = {mode: Tally(mode, keep) for mode in seen}
        _tally(passes, batches, tallies, wanted, start)
        channels = None if passes.layout is None else passes.layout.channels
        weights = digest(network)
    width, name = gathered(tallies, channels, weights), layer.replace(WRAPPED, "")
    found = {mode: tally.ranking(layer=name, weights=weights) for mode, tally in tallies.items()}
    for mode in modes:
        if (seed := seed_of(mode, "random")) is not None:
            found[mode] = ChannelRanking(mode, _random(seed, width), name, weights)
    return derive(modes, found)


def _tally(
    passes: Passes,
    batches: Iterable[Tensor | Sequence],
    tallies: Mapping[str, Tally],
    subsets: Mapping[str, frozenset],
    start: int,
) -> None:
    """Counts each image in the tallies of the modes that want it."""
    pairs = dict.fromkeys(_pair(mode) for mode in tallies)
    one_sided = bool(tallies) and all(mode in SUBSETS for mode in tallies)
    wanted = frozenset[ImageId]().union(*subsets.values()) if one_sided else None
    for batch in batches:
        images, ids = _images_and_ids(batch, start)
        start += len(images)
        if wanted is not None:
            rows = [row for row, image in enumerate(ids) if image in wanted]
            images, ids = images[rows], [ids[row] for row in rows]
        if len(images) == 0:
            continue
        passes.begin(images, (batch,) if isinstance(batch, Tensor) else batch)
        if not tallies:  # random scores need no more than the number of channels
            return
        for pair in pairs:
            one = passes(*pair[0])
            other = passes(*pair[1]) if pair[1] != _NOTHING else [_zeros(each) for each in one]
            modes = [mode for mode in tallies if _pair(mode) == pair]
            # Of all images and one map, the kernel's own sums are what is wanted.
            whole = [m for m in modes if m not in (*subsets, DEVIATION) and len(one) == 1]
            totals = tallies[whole[0]].totals(one[0]) if whole else None
            try:
                found = [
                    flip_difference(a, b, totals=totals).difference
                    for a, b in zip(one, other, strict=True)
                ]
            except InputError as error:
                where = f"{passes.layer!r}, images {ids[0]!r} to {ids[-1]!r}"
                raise InputError(f"model: {where}: {error}") from None
            for mode in modes:
                values = over_maps(mode, found)
                rows = [n for n, i in enumerate(ids) if mode not in subsets or i in subsets[mode]]
                some = values if len(rows) == len(ids) else values[rows]
                summed = totals is not None and mode == whole[0]
                tallies[mode].add(some, [ids[row] for row in rows], summed=summed)


def _images_and_ids(batch: Tensor | Sequence, start: int) -> tuple[Tensor, list[ImageId]]:
    images, *rest = batch if isinstance(batch, Sequence) and batch else (batch,)
    if not isinstance(images, Tensor) or images.dim() != 4:
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"batches: expected images [N,C,H,W] or tuples that begin with them, got {got}"
        )
    last = rest[-1] if rest else None
    if not isinstance(last, list | tuple) or not all(isinstance(image, str) for image in last):
        return images, list(range(start, start + len(images)))
    if len(last) != len(images):
        raise InputError(f"batches: expected {len(images)} ids of as many images, got {len(last)}")
    return images, list(last)


def _pair(mode: str) -> tuple[_Pass, _Pass]:
    return _PAIRS.get(mode, ((mode, False), _NOTHING))  # the others are activities


def _zeros(features: Tensor) -> Tensor:
    """Of the same shape, without memory of their own."""
    return features.new_zeros(()).expand_as(features)


def _expanded(modes: tuple[str, ...], regions: Regions | None) -> tuple[str, ...]:
    """The modes, with one for each region in place of ``"activity"``."""
    if "activity" in modes and not regions:
        raise InputError("regions: expected one or more for 'activity', got none")
    each = {"activity": [f"{ACTIVITY}{name}" for name in regions or ()]}
    return tuple(dict.fromkeys(one for mode in modes for one in each.get(mode, [mode])))


def _rectangles(modes: tuple[str, ...], regions: Regions | None) -> dict[str, Rectangle | None]:
    """By the name of each region that a mode is about; None where that is known by its name."""
    given = regions if isinstance(regions, Mapping) else {}
    names = [mode.removeprefix(ACTIVITY) for mode in modes if mode.startswith(ACTIVITY)]
    return {name: given.get(name) for name in names}


def _checked(modes: tuple[str, ...], subsets: Mapping | None) -> dict[str, frozenset]:
    """The subsets that the modes need."""
    if not modes:
        raise InputError("modes: expected one or more, got none")
    for mode in modes:
        seeded = any(seed_of(mode, name) is not None for name in ("random", "matched"))
        if not (mode in (*_PAIRS, *DERIVED) or mode.startswith(ACTIVITY) or seeded):
            others = ("activity", "matched:SEED", "random", "random:SEED")
            known = ", ".join((*_PAIRS, *DERIVED, *others))
            raise InputError(f"modes: expected some of {known}, got {mode!r}")
    found, subsets = {}, subsets or {}
    for mode in set(needed(modes)) & set(SUBSETS):
        if mode not in subsets:
            raise InputError(f"subsets: expected the ids of the images for {mode!r}, got none")
        ids = subsets[mode]
        found[mode] = frozenset(ids.tolist() if hasattr(ids, "tolist") else ids)
        if not found[mode]:
            raise InputError(f"subsets: expected one or more images for {mode!r}, got none")
    return found


def _random(seed: int, width: int) -> Tensor:
    return torch.rand(width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _device(model: nn.Module, device: torch.device | str | None) -> torch.device | None:
    if device is not None:
        return torch.device(device)
    weights = [*model.parameters(), *model.buffers()]
    return weights[0].device if weights else None

"""Channels ranked by how much they change when the image is mirrored (Equations 2 and 3)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from gpe.errors import InputError, expect_one_of
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import digest, find_layer, layout_of, maps_at
from gpe.models.layout import Layout
from gpe.models.running import WRAPPED, eager
from gpe.ops.flip_difference import flip_difference
from gpe.ranking.kernel_flip import mirrored_weights
from gpe.ranking.result import SIGNED, ChannelRanking, ImageId
from gpe.ranking.tally import Keep, Tally, gathered

# Of each mode, the two forward passes that it compares: what the network sees, and whether its
# kernels are mirrored.
_IMAGE, _MIRROR = ("image", False), ("mirror", False)
_FLIPPED_IMAGE, _FLIPPED_MIRROR = ("image", True), ("mirror", True)
_PAIRS = {
    "overall": (_IMAGE, _MIRROR),
    "left": (_IMAGE, _MIRROR),
    "right": (_IMAGE, _MIRROR),
    "kernel_flip_mirror": (_FLIPPED_IMAGE, _FLIPPED_MIRROR),
    "kernel_flip_pair": (_IMAGE, _FLIPPED_IMAGE),
}
_Pair = tuple[tuple[str, bool], tuple[str, bool]]


def rank_channels(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence],
    *,
    layer: str,
    modes: Sequence[str] = ("overall",),
    subsets: Mapping[str, Iterable[ImageId]] | None = None,
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
    - ``"random"``, ``"random:1"``, ``"random:2"``, …: random scores from that seed, 0 if none.

    Only the forward passes that the modes need are run, at most four for each image, each up to
    the layer and no further; one image more runs through the whole network to see what the layer
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
        device: where to run; if None, where the model's weights are. A model that lies elsewhere
            is not moved: it runs with copies of its weights.
        start: number of the first image, for a part of a set whose images come without ids.
        channel_dim: of the layer's output, where it does not show; negative from the end.
        keep: what is kept for intervals and merging. ``"images"``: the difference of each image,
            4 bytes for each channel and mode. ``"draws"``: sums, and those of 1,000 draws of a
            bootstrap, 8 kB for each channel and mode, however many images there are.
            ``"sums"``: the sums alone, and no interval. Ids are kept in each case.

    Returns:
        A :class:`ChannelRanking` for each mode, by its name.

    Raises:
        InputError: a layer that there is not (with the nearest names), that does not run once, or
            yields no feature map, or one whose channels cannot be told apart; a network that is
            traced or scripted, or does not take the images; an unknown mode; a subset that is
            missing or empty; no images, or an image twice; NaN in the features; a kernel flip
            without convolutions, or with some that are no modules.

    Source:
        Section 4.2.1.

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
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    wanted = _checked(modes, subsets)
    expect_one_of("keep", keep, get_args(Keep))
    with eager(model) as network, evaluating(network):
        find_layer(network, layer)
        passes = _Passes(network, layer, _device(network, device), channel_dim)
        tallies = {mode: Tally(mode, keep) for mode in modes if mode in _PAIRS}
        _tally(passes, batches, tallies, wanted, start)
        channels = None if passes.layout is None else passes.layout.channels
        weights = digest(network)
    width, name = gathered(tallies, channels, weights), layer.replace(WRAPPED, "")
    return {
        mode: tallies[mode].ranking(layer=name, weights=weights)
        if mode in tallies
        else ChannelRanking(mode, _random(mode, width), name, weights)
        for mode in modes
    }


class _Passes:
    """Forward passes of one batch, each run when it is first asked for."""

    def __init__(
        self, model: nn.Module, layer: str, device: torch.device | None, channel_dim: int | None
    ):
        self.model, self.layer, self.device, self.channel_dim = model, layer, device, channel_dim
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        moved = {name: value.to(device) for name, value in own.items()} if device else {}
        # Weights that lie where they should are the model's own affair.
        self.weights = {n: value for n, value in moved.items() if value is not own[n]}
        self.flipped: dict[str, Tensor] | None = None
        self.layout: Layout | None = None

    def begin(self, images: Tensor) -> None:
        self.images = images.to(self.device, non_blocking=True) if self.device else images
        self.features: dict[tuple[str, bool], list[Tensor]] = {}
        if self.layout is None:
            self.layout = layout_of(
                self.model,
                self.layer,
                self.images,
                channel_dim=self.channel_dim,
                weights=self.weights,
            )

    def __call__(self, view: str, flipped: bool) -> list[Tensor]:
        if (view, flipped) not in self.features:
            images = self.images if view == "image" else self.images.flip(-1)
            weights = self.weights
            if flipped:
                weights = weights | self._flipped()
            features = maps_at(self.model, self.layer, images, self.layout, weights)
            self.features[view, flipped] = features
        return self.features[view, flipped]

    def _flipped(self) -> dict[str, Tensor]:
        if self.flipped is None:
            weights = mirrored_weights(self.model, self.layer, self.images[:1], self.weights)
            self.flipped = weights
        return self.flipped


def _tally(
    passes: _Passes,
    batches: Iterable[Tensor | Sequence],
    tallies: Mapping[str, Tally],
    subsets: Mapping[str, frozenset],
    start: int,
) -> None:
    """Counts each image in the tallies of the modes that want it."""
    pairs = dict.fromkeys(_PAIRS[mode] for mode in tallies)
    one_sided = bool(tallies) and all(mode in SIGNED for mode in tallies)
    wanted = frozenset[ImageId]().union(*subsets.values()) if one_sided else None
    for batch in batches:
        images, ids = _images_and_ids(batch, start)
        start += len(images)
        if wanted is not None:
            rows = [row for row, image in enumerate(ids) if image in wanted]
            images, ids = images[rows], [ids[row] for row in rows]
        if len(images) == 0:
            continue
        passes.begin(images)
        if not tallies:  # random scores need no more than the number of channels
            return
        for pair in pairs:
            one, other = (passes(*run) for run in pair)
            modes = [mode for mode in tallies if _PAIRS[mode] == pair]
            # Of all images and one map, the kernel's own sums are what is wanted.
            whole = [mode for mode in modes if mode not in subsets and len(one) == 1]
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
                sizes = found if mode in SIGNED else [each.abs() for each in found]
                values = sizes[0] if len(sizes) == 1 else torch.stack(sizes).mean(0)
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


def _checked(modes: tuple[str, ...], subsets: Mapping | None) -> dict[str, frozenset]:
    """The subsets that the modes need."""
    if not modes:
        raise InputError("modes: expected one or more, got none")
    for mode in modes:
        name, _, seed = mode.partition(":")
        if mode not in _PAIRS and not (name == "random" and (seed.isdecimal() or mode == name)):
            known = ", ".join((*_PAIRS, "random", "random:SEED"))
            raise InputError(f"modes: expected some of {known}, got {mode!r}")
    found, subsets = {}, subsets or {}
    for mode in set(modes) & set(SIGNED):
        if mode not in subsets:
            raise InputError(f"subsets: expected the ids of the images for {mode!r}, got none")
        ids = subsets[mode]
        found[mode] = frozenset(ids.tolist() if hasattr(ids, "tolist") else ids)
        if not found[mode]:
            raise InputError(f"subsets: expected one or more images for {mode!r}, got none")
    return found


def _random(mode: str, width: int) -> Tensor:
    seed = int(mode.partition(":")[2] or 0)
    return torch.rand(width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _device(model: nn.Module, device: torch.device | str | None) -> torch.device | None:
    if device is not None:
        return torch.device(device)
    weights = [*model.parameters(), *model.buffers()]
    return weights[0].device if weights else None

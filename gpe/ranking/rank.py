"""Channels ranked by how much they change when the image is mirrored (Equations 2 and 3)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gpe.errors import InputError
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import find_layer
from gpe.ops.flip_difference import flip_difference
from gpe.ranking.kernel_flip import mirrored_weights
from gpe.ranking.layer import digest, features_at
from gpe.ranking.result import SIGNED, ChannelRanking, ImageId

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
) -> dict[str, ChannelRanking]:
    """Ranks the channels of a layer by how much position they encode, in one pass over the images.

    z is the layer's output, averaged over height and width; Δ is z(image) - z(mirror). The modes:

    - ``"overall"``: the mean of |Δ| (Equation 2).
    - ``"left"``, ``"right"``: the mean of Δ over the images of that subset, whose objects lie on
      that side (Equation 3). First come the channels that are high with objects on that side
      and low with the same objects on the other: Δ has the same sign for both.
    - ``"kernel_flip_mirror"``: the mean of |Δ| in the network with mirrored kernels (Kernel-Flip*).
    - ``"kernel_flip_pair"``: the mean of |z(image) - z'(image)|, z' of the network with mirrored
      kernels (Kernel-Flip**). Which kernels these are, :mod:`gpe.ranking.kernel_flip` tells.
    - ``"random"``, ``"random:1"``, ``"random:2"``, …: random scores from that seed, 0 if none.

    Only the forward passes that the modes need are run, at most four for each image, each up to
    the layer and no further. The model runs in evaluation mode without gradients, and is left as
    it was.

    Among processes of :mod:`torch.distributed` each gives its own images, all call this, and all
    get the ranking by all images, as one process would.

    Args:
        model: any network; none of its weights is changed, not even for a time.
        batches: images ``[N,C,H,W]``, as the model takes them, or tuples that begin with
            them. Where a tuple ends with a sequence of strings, these are the images' ids; else
            images are numbered as they come.
        layer: a name of ``model.named_modules()`` whose output is one tensor ``[N,C,H,W]`` or
            ``[N,C]``, alone or in a dict, list or tuple.
        modes: which rankings to make.
        subsets: for ``"left"`` and ``"right"``, the ids of their images. Where nothing but these is
            asked for, other images are passed over.
        device: where to run; if None, where the model's weights are. A model that lies elsewhere
            is not moved: it runs with copies of its weights.
        start: number of the first image, for a part of a set whose images come without ids.

    Returns:
        A :class:`ChannelRanking` for each mode, by its name.

    Raises:
        InputError: a layer that there is not (with the nearest names), that does not run or yields
            no feature map; an unknown mode; a subset that is missing or empty; no images, or an
            image twice; NaN in the features; a kernel flip without convolutions.

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
    subsets = _checked(modes, subsets)
    find_layer(model, layer)
    with evaluating(model):
        passes = _Passes(model, layer, _device(model, device))
        found = _gathered(_differences(passes, batches, modes, subsets, start), digest(model))
    about = {"layer": layer, "weights": found.weights}
    rankings = {}
    for mode in modes:
        if mode not in _PAIRS:
            rankings[mode] = ChannelRanking(mode, _random(mode, found.width), **about)
            continue
        differences, ids = found.differences[_PAIRS[mode]], found.image_ids
        if mode in SIGNED:
            rows = [row for row, image in enumerate(ids) if image in subsets[mode]]
            differences, ids = differences[rows], [ids[row] for row in rows]
        rankings[mode] = ChannelRanking.of_differences(mode, differences, ids, **about)
    return rankings


@dataclass
class _Found:
    """What a process learns of its images."""

    image_ids: list[ImageId] = field(default_factory=list)
    differences: dict[_Pair, Tensor] = field(default_factory=dict)  # [n,C]
    width: int | None = None
    weights: str | None = None


class _Passes:
    """Forward passes of one batch, each run when it is first asked for."""

    def __init__(self, model: nn.Module, layer: str, device: torch.device | None):
        self.model, self.layer, self.device = model, layer, device
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        moved = {name: value.to(device) for name, value in own.items()} if device else {}
        # Weights that lie where they should are the model's own affair.
        self.weights = {n: value for n, value in moved.items() if value is not own[n]}
        self.flipped: dict[str, Tensor] | None = None

    def begin(self, images: Tensor) -> None:
        self.images = images.to(self.device, non_blocking=True) if self.device else images
        self.features: dict[tuple[str, bool], Tensor] = {}

    def __call__(self, view: str, flipped: bool) -> Tensor:
        if (view, flipped) not in self.features:
            images = self.images if view == "image" else self.images.flip(-1)
            weights = self.weights
            if flipped:
                weights = weights | self._flipped()
            features = features_at(self.model, self.layer, images, weights)
            self.features[view, flipped] = features
        return self.features[view, flipped]

    def _flipped(self) -> dict[str, Tensor]:
        if self.flipped is None:
            weights = mirrored_weights(self.model, self.layer, self.images[:1], self.weights)
            self.flipped = weights
        return self.flipped


def _differences(
    passes: _Passes,
    batches: Iterable[Tensor | Sequence],
    modes: tuple[str, ...],
    subsets: dict[str, frozenset],
    start: int,
) -> _Found:
    """Of each image and pair of passes that the modes need, the difference of the latents."""
    pairs = dict.fromkeys(_PAIRS[mode] for mode in modes if mode in _PAIRS)
    one_sided = all(mode in SIGNED for mode in modes if mode in _PAIRS)
    wanted = frozenset().union(*subsets.values()) if pairs and one_sided else None
    found, parts = _Found(), {pair: [] for pair in pairs}
    for batch in batches:
        images, ids = _images_and_ids(batch, start)
        start += len(images)
        if wanted is not None:
            rows = [row for row, image in enumerate(ids) if image in wanted]
            images, ids = images[rows], [ids[row] for row in rows]
        if len(images) == 0:
            continue
        passes.begin(images if pairs else images[:1])
        for pair in pairs:
            parts[pair].append(_difference(passes, pair, ids))
        if not pairs:  # random scores need no more than the number of channels
            found.width = passes(*_IMAGE).shape[1]
            return found
        found.image_ids += ids
    found.differences = {pair: torch.cat(part) for pair, part in parts.items() if part}
    return found


def _difference(passes: _Passes, pair: _Pair, ids: list[ImageId]) -> Tensor:
    one, other = (passes(*run) for run in pair)
    try:
        return flip_difference(one, other).difference.cpu()
    except InputError as error:
        where = f"{passes.layer!r}, images {ids[0]!r} to {ids[-1]!r}"
        raise InputError(f"model: {where}: {error}") from None


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


def _gathered(found: _Found, weights: str) -> _Found:
    """What all processes found."""
    found.weights = weights
    parts = [found]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, found)
    if len({part.weights for part in parts}) > 1:
        raise InputError("model: expected the same weights in all processes, got others")
    parts = [part for part in parts if part.width or part.differences]
    if not parts:
        raise InputError("batches: expected one or more images, got none")
    pairs = parts[0].differences
    joined = {pair: torch.cat([part.differences[pair] for part in parts]) for pair in pairs}
    width = parts[0].width or next(iter(joined.values())).shape[1]
    ids = [image for part in parts for image in part.image_ids]
    return _Found(ids, joined, width, weights)


def _checked(modes: tuple[str, ...], subsets: Mapping | None) -> dict[str, frozenset]:
    """The subsets that the modes need."""
    if not modes:
        raise InputError("modes: expected one or more, got none")
    for mode in modes:
        name, _, seed = mode.partition(":")
        if mode not in _PAIRS and not (name == "random" and (seed.isdecimal() or mode == name)):
            known = ", ".join((*_PAIRS, "random", "random:SEED"))
            raise InputError(f"modes: expected some of {known}, got {mode!r}")
    found = {}
    for mode in set(modes) & set(SIGNED):
        if mode not in (subsets or {}):
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

"""What channels are ranked by, of one batch: maps of a layer, seen one way or another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from gpe.errors import InputError
from gpe.metrics.region_iou import Regions, resolve_regions
from gpe.models.inside import find_layer, layout_of, maps_at
from gpe.models.layout import Layout
from gpe.models.running import foreign, forward, pick_logits
from gpe.ops.region_confusion import Rectangle
from gpe.ranking.kernel_flip import mirrored_weights
from gpe.ranking.modes import ACTIVITY

Loss = Callable[[Any, Sequence], Tensor]
IGNORE = 255  # the label of pixels that count nowhere, where it is no class


class Passes:
    """The maps of a batch, by what the network sees or what is made of its maps.

    Each is made when it is first asked for, and a forward pass is shared by all that need it.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        *,
        device: torch.device | None,
        channel_dim: int | None,
        regions: Mapping[str, Rectangle | None],
        loss: Loss | None,
    ):
        self.model, self.layer, self.device, self.channel_dim = model, layer, device, channel_dim
        self.regions, self.loss = regions, loss or cross_entropy
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        moved = {name: value.to(device) for name, value in own.items()} if device else {}
        # Weights that lie where they should are the model's own affair.
        self.weights = {n: value for n, value in moved.items() if value is not own[n]}
        self.flipped: dict[str, Tensor] | None = None
        self.layout: Layout | None = None

    def begin(self, images: Tensor, batch: Sequence) -> None:
        """The next batch: its images, and all that came with them."""
        self.batch = batch
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

    def __call__(self, view: str, flipped: bool = False) -> list[Tensor]:
        """Each ``[N,C,H,W]`` or ``[N,C]``; ``flipped``: of the network with mirrored kernels."""
        if (view, flipped) not in self.features:
            if view == "taylor":
                made = self._taylor()
            elif view.startswith(ACTIVITY):
                made = self._active(view.removeprefix(ACTIVITY))
            else:
                made = self._seen(view, flipped)
            self.features[view, flipped] = made
        return self.features[view, flipped]

    def _seen(self, view: str, flipped: bool) -> list[Tensor]:
        images = self.images if view == "image" else self.images.flip(-1)
        weights = self.weights
        if flipped:
            self.flipped = self.flipped or mirrored_weights(
                self.model, self.layer, self.images[:1], weights
            )
            weights = weights | self.flipped
        return maps_at(self.model, self.layer, images, self.layout, weights)

    def _active(self, region: str) -> list[Tensor]:
        """Means of the image's maps in a region minus those outside, ``[N,C]``."""
        size = (self.images.shape[-2], self.images.shape[-1])
        rectangle = self.regions[region]
        named: Regions = (region,) if rectangle is None else {region: rectangle}
        (rectangle,) = resolve_regions(named, *size).values()
        found = []
        for features in self("image"):
            if features.dim() != 4 or features.shape[-1] == 1:
                raise InputError(
                    f"layer: expected {self.layer!r} to yield maps for {ACTIVITY}{region}, got "
                    f"{list(features.shape)}"
                )
            weights = _contrast(region, rectangle, size, features).to(features.device)
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            with torch.autocast(features.device.type, enabled=False):
                found.append(wide.flatten(2) @ weights.to(wide.dtype).flatten())
        return found

    def _taylor(self) -> list[Tensor]:
        """Activations times the gradient of the loss; no gradient leads in front of the layer."""
        leaves: list[Tensor] = []

        def leaf(part: Any) -> Any:
            if not isinstance(part, Tensor):
                return part
            leaves.append(part.detach().requires_grad_())
            return leaves[-1].clone()  # which what follows may write over

        def watch(module: nn.Module, arguments: tuple, output: Any) -> Any:
            assert self.layout is not None
            self.layout.expect(output)
            return tree_map(leaf, output)

        own = {name: value.detach() for name, value in self.model.named_parameters()}
        handle = find_layer(self.model, self.layer).register_forward_hook(watch)
        try:
            with torch.enable_grad():
                output = forward(self.model, self.images, own | self.weights)
                with foreign("loss: expected one of what the network yields and the batch"):
                    gradients = torch.autograd.grad(self.loss(output, self.batch), leaves)
        finally:
            handle.remove()
        products = [
            one.detach() * gradient for one, gradient in zip(leaves, gradients, strict=True)
        ]
        assert self.layout is not None
        return self.layout.maps(products, self.images)


def cross_entropy(output: Any, batch: Sequence) -> Tensor:
    """Of each image the mean over its labelled pixels; summed over the images.

    Args:
        output: of a network: logits ``[N,K]`` or ``[N,K,h,w]``, alone, under ``"out"`` or
            ``"logits"``, or first in a tuple.
        batch: images and labels, integers ``[N]`` or ``[N,H,W]``; 255 counts nowhere, unless the
            logits have so many classes that it is one.

    Raises:
        InputError: no labels that go with the logits.
    """
    logits = pick_logits(output)
    labels = batch[1] if len(batch) > 1 else None
    dims = logits.dim() if isinstance(logits, Tensor) else 0
    if not isinstance(labels, Tensor) or labels.dim() != dims - 1 or labels.is_floating_point():
        got = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(
            "batches: expected (images, labels, …) with integer labels for 'taylor', or a loss, "
            f"got {got} beside logits of {dims} dimensions"
        )
    labels = labels.to(logits.device).long()
    if labels.dim() == 3 and labels.shape[1:] != logits.shape[2:]:
        logits = F.interpolate(logits, list(labels.shape[1:]), mode="bilinear")
    ignored = IGNORE if logits.shape[1] <= IGNORE else torch.iinfo(torch.int64).min  # none
    each = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="none")
    counted = (labels != ignored).reshape(len(labels), -1).sum(1).clamp(min=1)
    return (each.reshape(len(labels), -1).sum(1) / counted).sum()


def _contrast(
    region: str, rectangle: Rectangle, image: tuple[int, int], features: Tensor
) -> Tensor:  # float64 [h,w]
    """Weights of the cells of a map: the mean inside minus the mean outside is their sum.

    A cell that the rectangle cuts counts by the share that lies inside.
    """
    top, left, bottom, right = rectangle
    height, width = features.shape[-2:]
    rows = _covered(top, bottom, image[0], height)
    inside = rows[:, None] * _covered(left, right, image[1], width)
    outside = 1 - inside
    if outside.sum() < 1e-9:
        raise InputError(f"regions: expected some of the image outside of {region!r}, got all")
    return inside / inside.sum() - outside / outside.sum()


def _covered(start: int, stop: int, side: int, cells: int) -> Tensor:  # float64 [cells]
    """Which share of each of ``cells`` along a side lies between two pixels."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    shared = edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)
    return shared.clamp(min=0) * cells / side

"""Where channels are ranked and removed: in the latent, in one level of it, or in another layer."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gpe.ablation.detection import detections_without, detections_without_inside
from gpe.ablation.masking import expect_effect
from gpe.models.detection import Detector
from gpe.models.detection.detector import Found
from gpe.models.inside import layout_of, maps_at
from gpe.models.layout import Layout

Points = Iterator[tuple[str, int, Found]]  # order, count, and the boxes of a batch


class Place:
    """All maps of the latent, or one level; or a layer of the backbone or the neck.

    Of what is kept of the latent only the heads run again; of a layer, the whole network for each
    point.

    Args:
        size: of the images.

    Raises:
        InputError: no such layer, one whose channels cannot be told, or without effect.
    """

    def __init__(
        self, model: Detector, level: int | None, layer: str | None, size: tuple[int, int]
    ):
        self.model, self.level = model, level
        self.name = model.LATENT if level is None else f"{model.LATENT}, level {level}"
        self.layout: Layout | None = None
        if layer is not None and layer != model.LATENT:
            self.name = layer
            device = next(model.parameters()).device
            image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
            self.layout = layout_of(model, layer, image)
            expect_effect(model, self.layout, image)

    def read(self, images: Tensor) -> list[Tensor]:
        """What is kept of a batch, so that the removal need not compute it again."""
        return self.model.latent(images) if self.layout is None else [images]

    def ranked(self, kept: list[Tensor]) -> list[Tensor]:
        """The maps whose channels are ranked."""
        if self.layout is not None:
            return maps_at(self.model, self.name, kept[0], self.layout)
        return kept if self.level is None else [kept[self.level]]

    def without(
        self,
        kept: list[Tensor],
        size: tuple[int, int],
        orders: Mapping[str, Tensor],
        counts: Sequence[int],
        least_score: float | None,
    ) -> Points:
        """As :func:`gpe.ablation.detection.detections_without`."""
        if self.layout is not None:
            return detections_without_inside(
                self.model, kept[0], self.layout, orders, counts, least_score=least_score
            )
        return detections_without(
            self.model, kept, size, orders, counts, level=self.level, least_score=least_score
        )

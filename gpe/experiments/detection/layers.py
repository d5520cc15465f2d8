"""Where channels are ranked and removed: in the latent, in one level of it, or in another layer."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gpe.ablation.detection import detections_without, detections_without_inside
from gpe.ablation.masking import expect_effect
from gpe.models.detection import Detector
from gpe.models.detection.detector import Found
from gpe.models.inside import layout_of, maps_at

Points = Iterator[tuple[str, int, Found]]  # order, count, and the boxes of a batch


class Latent:
    """All maps of the latent, or one level; of what is kept, only the heads run again."""

    def __init__(self, model: Detector, level: int | None):
        self.model, self.level = model, level
        self.name = model.LATENT if level is None else f"{model.LATENT}, level {level}"

    def read(self, images: Tensor) -> list[Tensor]:
        """What is kept of a batch, so that the removal need not compute it again."""
        return self.model.latent(images)

    def ranked(self, kept: list[Tensor]) -> list[Tensor]:
        """The maps whose channels are ranked."""
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
        return detections_without(
            self.model, kept, size, orders, counts, level=self.level, least_score=least_score
        )


class Inside:
    """A layer of the backbone or the neck, both of which run again for each point.

    Raises:
        InputError: no such layer, one whose channels cannot be told, or without effect.
    """

    def __init__(self, model: Detector, layer: str, size: tuple[int, int]):
        self.model, self.name = model, layer
        device = next(model.parameters()).device
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        self.layout = layout_of(model, layer, image)
        expect_effect(model, self.layout, image)

    def read(self, images: Tensor) -> list[Tensor]:
        return [images]

    def ranked(self, kept: list[Tensor]) -> list[Tensor]:
        return maps_at(self.model, self.name, kept[0], self.layout)

    def without(
        self,
        kept: list[Tensor],
        size: tuple[int, int],
        orders: Mapping[str, Tensor],
        counts: Sequence[int],
        least_score: float | None,
    ) -> Points:
        return detections_without_inside(
            self.model, kept[0], self.layout, orders, counts, least_score=least_score
        )


Place = Latent | Inside  # which answer alike


def place_of(model: Detector, level: int | None, layer: str | None, size: tuple[int, int]) -> Place:
    """The latent, one level of it, or a layer inside; ``size`` is that of the images.

    Raises:
        InputError: as :class:`Inside`.
    """
    inside = layer not in (None, model.LATENT)
    return Inside(model, str(layer), size) if inside else Latent(model, level)

"""What the experiments ask of any pedestrian detector: its latent, boxes from it, its losses."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Counted = Callable[[Tensor], Tensor]
Found = list[dict[str, Tensor]]  # an image each: boxes [n,4], corners in pixels, and scores [n]


def own(count: Tensor) -> Tensor:
    """The count of this batch alone."""
    return count


class Detector(nn.Module):
    """A backbone with its neck, whose output is the latent, and heads.

    The latent that Table S1 removes channels of is the output of ``"neck"``: one or several maps
    ``[N,C,h,w]`` with the same channels. All that reads it first, but for pooling regions, is
    convolutions (:meth:`first`), so that removing channels of it is linear up to there.
    """

    multiple: int  # that images are padded to with zeros, right and below, in pixels
    least_score: float  # of the boxes that the published detector keeps
    LATENT = "neck"
    backbone: nn.Module
    neck: nn.Module

    def latent(self, images: Tensor) -> list[Tensor]:
        """The neck's maps of normalised images ``[N,3,H,W]``, which are padded before."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        maps = self.neck(self.backbone(padded))
        return [maps] if isinstance(maps, Tensor) else maps

    def first(self) -> list[tuple[nn.Conv2d, int]]:
        """The convolutions that read the latent, and which of its maps each reads."""
        raise NotImplementedError

    def detect(
        self,
        latent: list[Tensor],
        size: tuple[int, int],
        mixed: list[Tensor] | None = None,
        *,
        least_score: float | None = None,
    ) -> Found:
        """Boxes of pedestrians, by falling score, as :class:`gpe.LogAverageMissRate` takes them.

        Args:
            latent: of :meth:`latent`.
            size: height and width of the images before they were padded, in pixels.
            mixed: what the convolutions of :meth:`first` make of the latent, where it is there.
            least_score: only boxes of higher scores; the published one where None.
        """
        if mixed is None:
            mixed = [conv(latent[place]) for conv, place in self.first()]
        least_score = self.least_score if least_score is None else least_score
        return self.found(latent, size, mixed, least_score)

    def found(
        self, latent: list[Tensor], size: tuple[int, int], mixed: list[Tensor], least_score: float
    ) -> Found:
        """As :meth:`detect`, whose arguments are all there."""
        raise NotImplementedError

    def losses(
        self,
        images: Tensor,
        wanted: Sequence[Tensor],
        ignored: Sequence[Tensor],
        *,
        of_all: Counted = own,
    ) -> dict[str, Tensor]:
        """Parts of the loss, whose sum is to be minimised.

        Args:
            images: normalised ``[N,3,H,W]``.
            wanted, ignored: boxes ``[p,4]`` of each image, as of
                :func:`gpe.data.citypersons_boxes.training_boxes`.
            of_all: what a count that divides a loss is in the whole batch, of which these images
                are a part: the losses of all parts add up to that of the whole.
        """
        raise NotImplementedError

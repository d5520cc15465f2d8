"""Image sets that live whole in device memory: where they come from, how an epoch is drawn."""

from gpe.data.resident import Batch, ImageSet, epoch_order, generator
from gpe.data.sources import load

__all__ = ["Batch", "ImageSet", "epoch_order", "generator", "load"]

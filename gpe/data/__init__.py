"""Sets of images, in memory or streamed: where they come from, how an epoch is drawn."""

from gpe.data.resident import Batch, ImageSet, epoch_order, generator
from gpe.data.sources import load, stream
from gpe.data.streamed import StreamedSet

__all__ = ["Batch", "ImageSet", "StreamedSet", "epoch_order", "generator", "load", "stream"]

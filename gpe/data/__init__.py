"""Sets of images: where they come from, how an epoch and its views are drawn."""

from gpe.data.resident import Batch, ImageSet, epoch_order, generator
from gpe.data.sources import load, stream, stream_test
from gpe.data.streamed import StreamedSet
from gpe.data.views import centre_view, random_views

__all__ = [
    "Batch",
    "ImageSet",
    "StreamedSet",
    "centre_view",
    "epoch_order",
    "generator",
    "load",
    "random_views",
    "stream",
    "stream_test",
]

"""Sets of images: where they come from, how an epoch and its views are drawn."""

from gpe.errors import needs

with needs("gpe.data"):
    from gpe.data.augmentation import Augmentation
    from gpe.data.classes import ClassMatch, expect_classes, match_classes
    from gpe.data.pixels import SegmentationBatch, SegmentationSet
    from gpe.data.resident import Batch, ImageSet, epoch_order, generator
    from gpe.data.segmentation import segmentation_set
    from gpe.data.sources import load, load_test, named_set, stream, stream_test
    from gpe.data.streamed import StreamedSet
    from gpe.data.views import centre_view, random_views

__all__ = [
    "Augmentation",
    "Batch",
    "ClassMatch",
    "ImageSet",
    "SegmentationBatch",
    "SegmentationSet",
    "StreamedSet",
    "centre_view",
    "epoch_order",
    "expect_classes",
    "generator",
    "load",
    "load_test",
    "match_classes",
    "named_set",
    "random_views",
    "segmentation_set",
    "stream",
    "stream_test",
]

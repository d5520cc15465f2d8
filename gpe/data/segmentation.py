"""Segmentation datasets by name."""

from pathlib import Path

from gpe.data import camvid, cityscapes, voc
from gpe.data.labelled_files import LabelledFiles
from gpe.data.listing import spread
from gpe.data.opening import expect_max_pixels
from gpe.data.pixels import SegmentationSet
from gpe.data.streets import streets
from gpe.errors import expect_at_least_one, expect_one_of

FROM_FILES = {"camvid": camvid, "cityscapes": cityscapes, "voc": voc}
DATASETS = ("streets", *FROM_FILES)


def segmentation_set(
    name: str,
    root: str | Path = Path("data"),
    split: str = "val",
    size: tuple[int, int] | None = None,
    *,
    images: int | None = None,
    seed: int = 0,
    workers: int = 0,
    max_pixels: int | None = None,
) -> SegmentationSet:
    """One split of a dataset.

    Args:
        name: ``"streets"``, ``"camvid"``, ``"cityscapes"`` or ``"voc"``.
        root: where its files lie; streets have none.
        split: ``"train"`` or ``"val"``; CamVid and Cityscapes also have ``"test"``, VOC
            ``"trainval"``.
        size: height and width in pixels; None: the dataset's own, 128×256 of streets.
        images: at most so many, spread evenly over the set; the first so many streets.
        seed: of the streets.
        workers: processes that read.
        max_pixels: of an image in a file; as for :func:`gpe.data.opening.open_image`.

    Raises:
        InputError: an unknown dataset or split, numbers below 1, files that are not there, or
            images without labels.

    Example:
        >>> few = segmentation_set("streets", size=(64, 128), images=3)
        >>> few.ids[-1], [batch.labels.shape for batch in few.batches(2)]
        ('streets_val_000002', [torch.Size([2, 64, 128]), torch.Size([1, 64, 128])])
    """
    expect_one_of("data", name, DATASETS)
    for side in size or ():
        expect_at_least_one("size", side)
    if images is not None:
        expect_at_least_one("images", images)
    expect_max_pixels(max_pixels)
    if name == "streets":
        return streets(split, size, images=images, seed=seed, workers=workers)
    dataset = FROM_FILES[name]
    expect_one_of("split", split, dataset.SPLITS)
    files, labels, ids = dataset.files(Path(root).expanduser(), split)
    samples = LabelledFiles(files, labels, dataset.TABLE, size, max_pixels)
    found = SegmentationSet(
        name, samples, tuple(ids), dataset.CLASSES, dataset.PALETTE, workers=workers
    )
    return found.part(spread(len(found), images))

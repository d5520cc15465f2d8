"""The images that a classifier is scored on, as large as it sees them."""

from pathlib import Path

from gpe.data import ImageSet, StreamedSet, cifar, load_test, stream_test
from gpe.models.pretrained import OpenedModel

Images = ImageSet | StreamedSet


def images_for(
    data: str,
    opened: OpenedModel,
    *,
    images: int | None = None,
    border: bool = False,
    root: Path = Path("data"),
    download: bool = False,
    workers: int | None = None,
) -> Images:
    """The test images of a set.

    Args:
        data: the name of an image set, or a folder of images by class.
        opened: the network.
        images: at most so many, drawn by seed 0; all where None.
        border: of the size before the centre is cut out, so that there is something around it.
        root, download, workers: as for :func:`gpe.data.load` and :func:`gpe.data.stream_test`.

    Raises:
        InputError: they cannot be had.
    """
    side = opened.resize_size if border else opened.input_size
    if data in ("digits", *cifar.DATASETS):
        places = {"root": root, "download": download}
        return load_test(data, images=images, image_size=side, **places)
    return stream_test(
        data,
        side=side,
        resize_side=opened.resize_size,
        images=images,
        root=root,
        workers=workers,
    )

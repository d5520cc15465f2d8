"""The images that a classifier is scored on, as large as it sees them."""

from gpe.data import ImageSet, StreamedSet, cifar, load, stream_test
from gpe.experiments.options import Places
from gpe.experiments.trained import Trained

Images = ImageSet | StreamedSet


def images_for(
    data: str,
    network: Trained,
    *,
    places: Places,
    images: int | None = None,
    border: bool = False,
) -> Images:
    """The test images of a set.

    Args:
        data: the name of an image set, or a folder of images by class.
        network: which knows their size.
        places: where they lie.
        images: at most so many, drawn by seed 0; all where None.
        border: of the size before the centre is cut out, so that there is something around it.

    Raises:
        InputError: they cannot be had.
    """
    side = network.resize_size if border else network.input_size
    if data in ("digits", *cifar.DATASETS):
        return load(
            data, image_size=side, test_images=images, root=places.root, download=places.download
        )[1]
    return stream_test(
        data,
        side=side,
        resize_side=network.resize_size,
        images=images,
        root=places.root,
        workers=places.workers,
    )

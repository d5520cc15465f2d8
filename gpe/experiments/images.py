"""The images that a classifier is scored on, as large as it sees them."""

from gpe.data import ImageSet, StreamedSet, load_test, named_set, stream_test
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
        data: the name of an image set, or a folder of images, by class or without.
        network: which knows their size and interpolation.
        places: where they lie.
        images: at most so many, drawn by seed 0; all where None.
        border: of the size before the centre is cut out, so that there is something around it.

    Raises:
        InputError: they cannot be had.
    """
    input_size, resize_size = network.sizes
    side = resize_size if border else input_size
    if named_set(data) not in (None, "imagenet"):
        return load_test(
            data,
            images=images,
            image_size=side,
            root=places.root,
            download=places.download,
            interpolation=network.interpolation,
        )
    return stream_test(
        data,
        side=side,
        resize_side=resize_size,
        images=images,
        root=places.root,
        workers=places.workers,
        interpolation=network.interpolation,
        max_pixels=places.max_pixels,
    )


def spread(count: int, images: int | None) -> list[int]:
    """Indices of so many of ``count`` images, evenly spread.

    Example:
        >>> spread(10, 3), spread(2, None)
        ([0, 3, 6], [0, 1])
    """
    images = count if images is None else min(images, count)
    return [number * count // images for number in range(images)]

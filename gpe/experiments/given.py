"""Anybody's classifier and the images to look at it with, as the commands name them."""

from dataclasses import replace
from pathlib import Path

import torch

from gpe.data import cifar, load, stream_test
from gpe.errors import InputError
from gpe.experiments.augshift import load_trained
from gpe.experiments.under_shifts import Images
from gpe.models.pretrained import OpenedModel, open_model


def open_given(
    model: str,
    weights: str | None,
    *,
    image_size: int | None = None,
    resize_size: int | None = None,
) -> OpenedModel:
    """A classifier.

    Args:
        model: a directory that ``gpe augshift`` left, or a name for :func:`open_model`.
        weights: as for :func:`open_model`; ``"random"`` ones are always the same.
        image_size: of what the network sees, in pixels; the model's where None.
        resize_size: of the shorter side before its centre is cut out; the model's where None.

    Raises:
        InputError: it cannot be had.
    """
    if (directory := Path(model)).is_dir():
        expect_no_weights(model, weights)
        opened = load_trained(directory)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of weights "random"
            opened = open_model(model, weights=weights)
    input_size = image_size or opened.input_size
    resize_size = resize_size or max(opened.resize_size, input_size)
    return replace(opened, input_size=input_size, resize_size=resize_size)


def expect_no_weights(model: str, weights: str | None) -> None:
    """Raise an InputError where weights come with a directory, which has its own."""
    if weights is not None and Path(model).is_dir():
        raise InputError(f"weights: expected none with a directory, got {weights}")


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
    """The test images of a set, as large as the network sees them.

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
        return load(data, image_size=side, test_images=images, **places)[1]
    return stream_test(
        data,
        side=side,
        resize_side=opened.resize_size,
        images=images,
        root=root,
        workers=workers,
    )

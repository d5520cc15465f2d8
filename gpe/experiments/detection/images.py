"""The images of configurations, with the boxes of their people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpe.data.boxed_views import BoxedSet
from gpe.data.citypersons import read_annotations
from gpe.data.citypersons_boxes import SPLITS, annotations_of, citypersons
from gpe.data.streets import boxed_streets
from gpe.errors import InputError, expect_one_of
from gpe.experiments.images import spread
from gpe.experiments.options import Places


def boxed_images(
    data: str | None,
    places: Places,
    split: str,
    *,
    size: tuple[int, int] | None = None,
    images: int | None = None,
    annotations: str | None = None,
) -> BoxedSet:
    """A split, or so many of its images, spread evenly; the first ones of streets.

    Raises:
        InputError: no such data, split or annotations.
    """
    expect_one_of("split", split, SPLITS)
    if data == "streets":
        if annotations is not None:
            raise InputError(f"annotations: expected none with streets, got {annotations}")
        return boxed_streets(split, size, images=images)
    found = citypersons(places.root, split, annotations=annotations)
    return found.part(spread(len(found), images))


class Annotated(NamedTuple):
    """People without their images, which a file of detections is scored against."""

    name: str
    boxes: Sequence[np.ndarray]
    scale: float = 1.0


def annotated(
    data: str | None, places: Places, split: str, *, annotations: str | None = None
) -> Annotated:
    """The people of a split, in the annotations' order; of CityPersons no image is needed."""
    if data == "streets":
        found = boxed_images(data, places, split, annotations=annotations)
        return Annotated(found.name, found.boxes, found.scale)
    expect_one_of("split", split, SPLITS)
    file = annotations or annotations_of(places.root, split)
    return Annotated(str(file), list(read_annotations(file).values()))

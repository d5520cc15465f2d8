"""Views of images with people: boxes follow the pixels, and what a crop loses is ignored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpe.data.boxed_views import BoxAugmentation, _cropped, view_batches, whole_batches
from gpe.data.citypersons_boxes import BoxedSet
from gpe.data.pixels import normalised


@pytest.fixture(scope="module")
def images():
    """A white rectangle where the pedestrian of each image is, 30 px high: 120 of the settings'."""
    pixels, boxes = torch.zeros(6, 3, 64, 128, dtype=torch.uint8), []
    for n in range(6):
        x, y, w, h = 10 + 12 * n, 20, 12, 30
        pixels[n, :, y : y + h, x : x + w] = 200
        boxes.append(np.array([[1, x, y, w, h, 24000, x, y, w, h]]))
    return BoxedSet("six", tuple("abcdef"), pixels, tuple(boxes), (64, 128), scale=4)


def views(images, seed=0, **how):
    order = torch.arange(len(images))
    return view_batches(images, order, 2, augmentation=BoxAugmentation(**how), seed=seed, epoch=1)


@pytest.mark.parametrize(
    "how",
    [
        {"flip": True},
        {"scales": (0.5, 1.5)},
        {"crop": (48, 80), "scales": (0.8, 1.2), "flip": True},
        {"crop": (96, 160)},
    ],
)
def test_boxes_lie_where_the_pedestrians_are(images, how):
    for batch in views(images, **how):
        for image, boxes in zip(batch.images, batch.wanted, strict=True):
            bright = image[0] > normalised(torch.full((1, 3, 1, 1), 130).byte())[0, 0, 0, 0]
            if not len(boxes):
                continue
            rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            torch.testing.assert_close(boxes[0], torch.stack(seen).float(), atol=1.5, rtol=0)


def test_the_parts_of_several_processes_are_the_batch(images):
    how = {"batch_size": 3, "seed": 0, "epoch": 1}
    how["augmentation"] = BoxAugmentation(scales=(0.5, 1.5), flip=True)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    parts = [view_batches(images, order, **how, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *some in zip(view_batches(images, order, **how), *parts, strict=True):
        assert torch.equal(torch.cat([part.images for part in some]), whole.images)
        boxes = [box for part in some for box in part.wanted]
        assert all(torch.equal(*pair) for pair in zip(boxes, whole.wanted, strict=True))


def test_views_are_a_function_of_the_seed(images):
    how = {"scales": (0.5, 1.5), "flip": True, "brightness": (0.5, 2.0)}
    once, again, other = (list(views(images, seed, **how)) for seed in (0, 0, 1))
    for one, same in zip(once, again, strict=True):
        assert torch.equal(one.images, same.images)
    assert any(a.images.shape != b.images.shape for a, b in zip(once, other, strict=True))


def test_what_a_crop_leaves_less_than_half_of_is_to_be_ignored():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 20, 20], [25, 0, 45, 20], [38, 0, 58, 20]])
    _, inside, lost = _cropped(image, boxes, (40, 40), None, (0.0, 0.0), 3)
    assert lost.tolist() == [False, False, True]
    assert inside[1].tolist() == [25, 0, 40, 20]


def test_low_people_and_riders_are_to_be_ignored(images):
    rows = [[1, 5, 5, 4, 12, 24000, 5, 5, 4, 12], [2, 40, 5, 12, 30, 25000, 40, 5, 12, 30]]
    few = replace(images, ids=("a",), boxes=(np.array(rows),))
    (batch,) = views(few)
    assert len(batch.wanted[0]) == 0 and len(batch.ignored[0]) == 2


def test_whole_images_come_in_their_order(images):
    found = torch.cat(list(whole_batches(images, 4, order=[5, 0, 1, 2, 3])))
    assert torch.equal(found, normalised(images.images[[5, 0, 1, 2, 3]]))

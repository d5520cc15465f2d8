"""What is measured and kept of a classifier under shifts, against images moved by torch."""

import pytest
import torch
from torch.nn import functional as F

from gpe.data import ImageSet
from gpe.errors import InputError
from gpe.experiments.shifts import expect_room
from gpe.experiments.under_shifts import (
    SAMPLE_SHIFT,
    SAMPLES,
    SHIFT_SEED,
    consistency_rows,
    probabilities_under_shifts,
)
from gpe.metrics import shift_consistency

SIZE = 12
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


@pytest.fixture
def images():
    return image_set(40, SIZE)


def image_set(count, side):
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=draws)
    labels = torch.randint(5, (count,), generator=draws)
    return ImageSet(pixels, labels, tuple("abcde"), **STATISTICS)


def classify(views):
    """A linear map of the pixels, to which every shift makes a difference."""
    draws = torch.Generator().manual_seed(1)
    return views.flatten(1) @ torch.randn(3 * SIZE * SIZE, 5, generator=draws)


def probabilities(images):
    """Of uint8 images."""
    mean, std = (torch.tensor(v)[:, None, None] for v in STATISTICS.values())
    return classify((images / 255 - mean) / std).softmax(1)


def rows(images, **options):
    given = {"shifts": (1, 3), "passes": 3, "batch_size": 7, "protocol": "zeros", "size": SIZE}
    return consistency_rows(classify, images, **given | STATISTICS | options)


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_are_shift_consistency_in_percent(labelled, images):
    """For each shift that of the whole set, although all are measured in one reading of it."""
    options = {} if labelled else {"labels": lambda _: None}
    for row, shift in zip(rows(images, **options), (1, 3), strict=True):
        result = shift_consistency(
            classify,
            images.images,
            images.labels if labelled else None,
            max_shift=shift,
            protocol="zeros",
            passes=3,
            seed=SHIFT_SEED,
            **STATISTICS,
        )
        assert row == {
            "shift": shift,
            "consistency": 100 * result.consistency,
            "low": 100 * result.interval[0],
            "high": 100 * result.interval[1],
            "pairs": 40 * 3,
            "accuracy": 100 * result.accuracy if labelled else None,
        }
        assert 0 <= row["low"] < row["consistency"] < row["high"] <= 100


def moved(images, protocol, shift):
    """Each image moved by ``shift`` pixels to the right, its centre of ``SIZE`` where it is."""
    if protocol == "circular":
        return images.roll(shift, 3)
    if protocol == "crop":
        border = (images.shape[3] - SIZE) // 2
        start = border - shift
        return images[:, :, border : border + SIZE, start : start + SIZE]
    mode = {"zeros": "constant", "reflect": "reflect"}[protocol]
    reach = abs(shift)
    padded = F.pad(images.float(), (reach, reach, 0, 0), mode=mode).to(images.dtype)
    return padded[:, :, :, reach - shift : reach - shift + SIZE]


@pytest.mark.parametrize("protocol", ["zeros", "reflect", "circular", "crop"])
def test_probabilities_are_those_of_images_that_move_to_the_right(protocol):
    images = image_set(40, SIZE + 2 * 5 if protocol == "crop" else SIZE)
    arrays = probabilities_under_shifts(
        classify, images, size=SIZE, protocol=protocol, batch_size=7, **STATISTICS
    )
    chosen = torch.arange(SAMPLES) * 40 // SAMPLES  # spread over the set
    assert torch.equal(arrays["images"], images.images[chosen])
    assert torch.equal(arrays["labels"], images.labels[chosen])
    reach = 5 if protocol == "crop" else SAMPLE_SHIFT  # as far as there are pixels
    assert arrays["shifts"].tolist() == list(range(-reach, reach + 1))
    assert arrays["probabilities"].shape == (SAMPLES, 2 * reach + 1, 5)
    for number, shift in enumerate(arrays["shifts"].tolist()):
        expected = probabilities(moved(arrays["images"], protocol, shift))
        torch.testing.assert_close(arrays["probabilities"][:, number], expected)
    assert not torch.allclose(arrays["probabilities"][:, 0], arrays["probabilities"][:, -1])


@pytest.mark.parametrize("protocol", ["zeros", "reflect", "circular"])
def test_an_image_moves_no_further_than_it_is_wide(protocol):
    options = {"size": 4, "protocol": protocol, "batch_size": 64} | STATISTICS
    arrays = probabilities_under_shifts(
        lambda views: views.mean((2, 3)), image_set(2, 4), **options
    )
    assert arrays["shifts"].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert len(arrays["images"]) == 2, "all images of a set that has few"


@pytest.mark.parametrize(
    ("shifts", "protocol", "resize_size", "complaint"),
    [
        ((4,), "crop", 19, "shifts: expected at most 3 pixels with protocol crop, got 4"),
        (
            (1, 12),
            "reflect",
            12,
            "shifts: expected at most 11 pixels with protocol reflect, got",
        ),
        (
            (13,),
            "circular",
            12,
            "shifts: expected at most 12 pixels with protocol circular, got",
        ),
        ((1,), "zeros", 11, "resize_size: expected at least image_size, 12, got 11"),
    ],
)
def test_a_shift_beyond_the_pixels_that_there_are_is_named(
    shifts, protocol, resize_size, complaint
):
    with pytest.raises(InputError, match=complaint):
        expect_room(shifts, protocol, image_size=12, resize_size=resize_size)


@pytest.mark.parametrize(
    ("shift", "protocol", "side"), [(3, "crop", 18), (11, "reflect", 12), (12, "circular", 12)]
)
def test_what_is_let_pass_can_be_measured(shift, protocol, side):
    """The limits are those of the metric itself."""
    expect_room((shift,), protocol, image_size=SIZE, resize_size=side)
    assert rows(image_set(3, side), shifts=(shift,), protocol=protocol)[0]["pairs"] == 9
    with pytest.raises(InputError, match="max_shift: expected at most"):
        rows(image_set(3, side), shifts=(shift + 1,), protocol=protocol)

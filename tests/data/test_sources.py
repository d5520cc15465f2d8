"""``load``: what holds for every source."""

import pytest
import torch

from gpe.data import load
from gpe.errors import InputError


def test_subset_is_fixed_by_the_seed_and_is_part_of_the_set():
    whole, _ = load("digits", image_size=8)
    first, again, other = (
        load("digits", image_size=8, train_images=100, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert len(first) == 100 and labelled(first) <= labelled(whole)


def labelled(images):
    """Images with their labels, as something to compare."""
    pairs = zip(images.images.flatten(1).tolist(), images.labels.tolist(), strict=True)
    return {(tuple(pixels), label) for pixels, label in pairs}


def test_subset_is_drawn_from_all_classes():
    train, test = load("digits", train_images=500, test_images=200)
    assert train.labels.bincount().min() > 25 and test.labels.bincount().min() > 8


def test_asking_for_more_than_there_is_gives_all():
    train, test = load("digits", train_images=10**6, test_images=10**6)
    assert (len(train), len(test)) == (1437, 360)


def test_test_set_has_the_mean_and_std_of_the_training_set():
    train, test = load("digits", train_images=50)
    pixels = train.images.double() / 255
    assert train.mean == test.mean == pytest.approx([pixels.mean().item()] * 3)
    assert train.std == test.std == pytest.approx([pixels.std(correction=0).item()] * 3)


@pytest.mark.parametrize("name", ["train_images", "test_images", "image_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_below_one_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got {value}"):
        load("digits", **{name: value})


def test_unknown_name_lists_the_known_ones():
    expected = "data: there is no cifar11; expected digits, cifar10, cifar100 or a folder of images"
    with pytest.raises(InputError, match=expected):
        load("cifar11")

"""The embedded digits."""

import pytest
import torch
from sklearn.datasets import load_digits

from gpe.data import digits, load


def test_split_is_stratified_and_holds_every_digit_once():
    train, test = digits.listings(8)
    together = torch.cat([train.labels, test.labels])
    assert torch.equal(together.bincount(), torch.from_numpy(load_digits().target).bincount())
    share = test.labels.bincount() / together.bincount()
    assert ((share > 0.19) & (share < 0.21)).all()
    assert train.classes == tuple("0123456789")


def test_split_does_not_depend_on_the_seed():
    assert torch.equal(load("digits", seed=0)[1].images, load("digits", seed=1)[1].images)


def test_original_size_keeps_the_values_and_their_labels():
    """Every image and label of both parts is one of scikit-learn's, scaled from 16 to 255."""
    source = load_digits()
    known = {
        (tuple((image.ravel() * 255 / 16).round().astype(int)), label)
        for image, label in zip(source.images, source.target, strict=True)
    }
    for part in load("digits", image_size=8):
        assert part.images.max() == 255
        for image, label in zip(part.images, part.labels, strict=True):
            assert (tuple(image[0].flatten().tolist()), label.item()) in known


@pytest.mark.parametrize("size", [5, 32, 33])
def test_images_are_grey_and_of_the_size_asked_for(size):
    train, _ = load("digits", image_size=size, train_images=20)
    assert train.images.shape == (20, 3, size, size)
    assert (train.images == train.images[:, :1]).all()


def test_upsampled_digits_keep_their_brightness():
    """Bilinear resizing without shift or clipping changes a digit's mean only at its border."""
    small, large = (load("digits", image_size=size)[1].images.float() for size in (8, 32))
    torch.testing.assert_close(large.mean((1, 2, 3)), small.mean((1, 2, 3)), atol=1.0, rtol=0.02)

"""CIFAR through torchvision, on small files in CIFAR's own form."""

import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from gpe.data import cifar, load, load_test
from gpe.errors import InputError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with CIFAR-10 (5 × 4 and 3 images) and CIFAR-100 (6 and 3 images)."""
    random = np.random.default_rng(0)
    for dataset, key, count in (
        (datasets.CIFAR10, "labels", 4),
        (datasets.CIFAR100, "fine_labels", 6),
    ):
        folder = tmp_path / dataset.base_folder
        folder.mkdir()
        for files, images in (("train_list", count), ("test_list", 3)):
            names = [name for name, _ in getattr(dataset, files)]
            monkeypatch.setattr(dataset, files, [[name, None] for name in names])
            for name in names:
                data = random.integers(0, 256, (images, 3 * 32 * 32), np.uint8)
                labels = random.integers(0, 10, images).tolist()
                (folder / name).write_bytes(pickle.dumps({"data": data, key: labels}))
        classes = [f"class {index}" for index in range(10)]
        meta = {dataset.meta["key"]: classes}
        (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta))
        monkeypatch.setitem(dataset.meta, "md5", None)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dataset"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)]
)
def test_images_and_labels_are_those_torchvision_serves(root, name, dataset):
    for part, train in zip(load(name, root=root), (True, False), strict=True):
        expected = dataset(root, train=train)
        assert len(part) == len(expected) and part.classes == tuple(expected.classes)
        for image, label, (picture, target) in zip(part.images, part.labels, expected, strict=True):
            assert torch.equal(image, torch.from_numpy(np.array(picture)).permute(2, 0, 1))
            assert label == target


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_both_sets_have_the_published_mean_and_std(root, name, mean, std):
    for part in load(name, root=root):
        assert part.mean == mean and part.std == std


def test_the_test_set_is_read_alone(root, monkeypatch):
    _, expected = load("cifar10", root=root)
    kind = cifar.DATASETS["cifar10"]
    parts = []

    class Noted(kind):
        def __init__(self, *arguments, train, **options):
            parts.append(train)
            super().__init__(*arguments, train=train, **options)

    monkeypatch.setitem(cifar.DATASETS, "cifar10", Noted)
    found = load_test("cifar10", root=root)
    assert parts == [False] and torch.equal(found.images, expected.images)
    assert (found.mean, found.classes) == (expected.mean, expected.classes)


def test_subset_and_size(root):
    train, test = load("cifar10", root=root, train_images=7, test_images=2, image_size=16)
    whole, _ = load("cifar10", root=root)
    assert train.images.shape == (7, 3, 16, 16) and test.images.shape == (2, 3, 16, 16)
    halved = whole.images.float().unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    # Antialiased bilinear weights at one half are (1, 3, 3, 1) / 8, near to a mean of two.
    distance = (train.images[:, None] - halved[None]).abs().mean((2, 3, 4))
    assert len(set(distance.argmin(1).tolist())) == 7 and distance.amin(1).max() < 35


def test_missing_files_are_an_error_that_says_where_and_what_to_do(tmp_path):
    with pytest.raises(InputError) as error:
        load("cifar10", root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere" / "cifar-10-batches-py") in str(error.value)
    assert "--download" in str(error.value)


def test_damaged_file_is_an_error(root, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", "0" * 32]])
    with pytest.raises(InputError, match=r"no intact cifar100 in .*cifar-100-python"):
        load("cifar100", root=root)


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    """A file: address that is not there stands in for a network that is not there."""
    monkeypatch.setattr(datasets.CIFAR10, "url", (tmp_path / "nothing.tar.gz").as_uri())
    with pytest.raises(InputError, match="could not download cifar10 into") as error:
        load("cifar10", root=tmp_path / "data", download=True)
    assert "\n" not in str(error.value)

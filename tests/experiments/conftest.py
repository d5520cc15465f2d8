"""What the tests of experiments share."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny layers gain nothing from two threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image_tree(tmp_path):
    """Images of different sizes, in ImageFolder's form: of 2 classes 5 to train on, 2 to test."""
    return write(tmp_path / "images", {"train": 5, "test": 2}, ("cat", "dog"))


@pytest.fixture
def imagenet_tree(tmp_path):
    """The same in ImageNet's form."""
    root = write(tmp_path / "imagenet", {"train": 5, "val": 2}, ("n01", "n02"))
    classes = {"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}
    torch.save((classes, list(classes)), root / "meta.bin")
    return root


def write(root, parts, classes):
    random = np.random.default_rng(0)
    for part, count in parts.items():
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (*random.integers(45, 70, 2), 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root

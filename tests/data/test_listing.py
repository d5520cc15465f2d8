"""The split of one set into two."""

import pytest
import torch

from gpe.data.listing import split


def test_split_holds_every_image_once_and_a_fifth_of_every_class_is_tested():
    labels = torch.arange(100) % 4
    train, test = split(labels, torch.Generator().manual_seed(0))
    assert torch.cat([train, test]).sort().values.tolist() == list(range(100))
    assert labels[test].bincount().tolist() == [5, 5, 5, 5]


def test_another_generator_splits_otherwise():
    labels = torch.zeros(100, dtype=torch.int64)
    tests = {
        tuple(split(labels, torch.Generator().manual_seed(seed))[1].tolist()) for seed in range(3)
    }
    assert len(tests) == 3


@pytest.mark.parametrize("count", [2, 3, 7])
def test_small_sets_leave_neither_part_empty(count):
    train, test = split(torch.arange(count), torch.Generator())
    assert len(train) >= 1 and len(test) >= 1

"""Processes that read: what they say when something ends or is missing."""

import os

import pytest
import torch

from gpe.data import workers
from gpe.errors import InputError


def read(index):
    return torch.full((4,), index)


def ended(index):
    os._exit(3)


def collate(tensors):
    return torch.stack(tensors), None


def batches(read=read, number=2):
    return list(workers.read_batches(read, collate, [[0, 1], [2]], workers=number, device="cpu"))


@pytest.mark.parametrize("number", [0, 2])
def test_batches_come_in_order(number):
    found = [images[:, 0].tolist() for images, _ in batches(number=number)]
    assert found == [[0, 1], [2]]


def test_no_shared_memory_is_an_error_at_once(monkeypatch):
    """torch shares tensors in a thread of the worker, whose error nobody would ever see."""

    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(InputError, match=r"^workers: expected shared memory .*--shm-size\)$"):
        batches()
    assert len(batches(number=0)) == 2, "this process shares nothing"


def test_a_process_that_ends_is_an_error():
    with pytest.raises(InputError, match="workers: expected processes that read until the end"):
        batches(ended)

"""Batches read by worker processes, whose errors are told in one line and never hang."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gpe.errors import InputError

Read = TypeVar("Read")
Batch = TypeVar("Batch", bound=tuple[Tensor | None, ...])

_SHARED = "/dev/shm"


def default_workers(workers: int | None) -> int:
    """One a core, 8 at most, where None."""
    return min(8, os.cpu_count() or 1) if workers is None else workers


def read_batches(
    read: Callable[[int], Read],
    collate: Callable[[list[Read]], Batch],
    indices: Sequence[list[int]],
    *,
    workers: int,
    device: str,
) -> Iterator[Batch]:
    """``collate([read(index) for index in batch])`` of each batch of ``indices``, in processes.

    They end with the iterator; of no workers this process reads. ``read`` and ``collate`` can be
    pickled. For a GPU batches come in pinned memory.

    Raises:
        InputError: what ``read`` and ``collate`` raise, by itself; no shared memory for a batch;
            a process that ended.
    """
    loader = DataLoader(
        _Batches(read, collate),
        batch_size=None,
        sampler=indices,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
        generator=torch.Generator(),  # or it would draw from torch's own
    )
    try:
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"workers: expected processes that read until the end, got: {reason} Fewer of them "
            f"need less memory, also shared memory{_room()}"
        ) from error


@dataclass(frozen=True)
class _Batches(Dataset[Batch | InputError], Generic[Read, Batch]):
    """An error is returned, since torch would wrap what a worker raises."""

    read: Callable[[int], Read]
    collate: Callable[[list[Read]], Batch]

    def __getitem__(self, indices: list[int]) -> Batch | InputError:
        try:
            batch = self.collate([self.read(index) for index in indices])
            if worker := get_worker_info():
                _share(batch, worker.num_workers)
        except InputError as error:
            return error
        return batch


def _share(batch: tuple[Tensor | None, ...], workers: int) -> None:
    """Moves tensors to shared memory here: torch would in a thread, whose errors nobody sees."""
    tensors = [tensor for tensor in batch if tensor is not None]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        size = sum(tensor.nbytes for tensor in tensors) / 2**20
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"workers: expected shared memory for the batches of {workers} "
            f"processes, two each, got none for one of {size:.1f} MiB{_room()}: {reason}. Take "
            "fewer workers (0 needs none), smaller batches, or more shared memory (docker run "
            "--shm-size)"
        ) from None


def _room() -> str:
    try:
        status = os.statvfs(_SHARED)
    except OSError:
        return ""
    free, total = (count * status.f_frsize / 2**20 for count in (status.f_bavail, status.f_blocks))
    return f" ({free:.0f} of {total:.0f} MiB free in {_SHARED})"


def _as_it_is(batch: Batch) -> Batch:
    return batch

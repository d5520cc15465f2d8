"""The processes that ``torchrun`` starts: each takes its share of the images, one writes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

Made = TypeVar("Made")


@contextmanager
def processes() -> Iterator[None]:
    """Joins the others that torchrun started, each on a GPU of its own if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Sums and rankings travel as tensors on the CPU or as objects, a few in a whole run.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def several() -> bool:
    """Whether there are others."""
    return distributed.is_available() and distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return not several() or distributed.get_rank() == 0


def process_name() -> str:
    """Tells the files of several processes apart; empty where there is one."""
    return f"{distributed.get_rank()}-of-{distributed.get_world_size()}" if several() else ""


def from_first(make: Callable[[], Made]) -> Made:
    """What ``make`` yields in the first process, in all of them."""
    if not several():
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def share(indices: Sequence[int]) -> Sequence[int]:
    """Those of ``indices`` that are this process's."""
    if not several():
        return indices
    return indices[distributed.get_rank() :: distributed.get_world_size()]

"""The processes that ``torchrun`` starts: each takes its share of the images, one writes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from gpe.errors import InputError

Made = TypeVar("Made")

TIMEOUT = timedelta(minutes=30)  # of an exchange: how long the others are waited for


@contextmanager
def processes() -> Iterator[None]:
    """Joins the others that torchrun started, each on a GPU of its own if there are any.

    Raises:
        InputError: another process ended while this one waited for it.
    """
    if _started() == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Gradients travel on the GPUs; sums and rankings as tensors on the CPU or as objects.
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backends, timeout=TIMEOUT)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise InputError(
                f"process {rank()} of {count()} lost another, which ended or did not answer "
                f"within {TIMEOUT.seconds // 60} minutes"
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


def _started() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    """Whether there are others."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Which of the processes this one is."""
    return distributed.get_rank() if several() else 0


def count() -> int:
    """How many there are."""
    return distributed.get_world_size() if several() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def process_name() -> str:
    """Tells the files of several processes apart; empty where there is one."""
    return f"{rank()}-of-{count()}" if several() else ""


def expect_one_process(what: str) -> None:
    """Raise an InputError in several: ``what`` would be done as often as there are processes."""
    if _started() > 1:
        raise InputError(
            f"{what} runs in one process, not in {_started()}: call it without torchrun"
        )


def expect_trained(command: str) -> None:
    """Raise an InputError in several: a training and what follows are two calls."""
    if _started() > 1:
        raise InputError(
            f"checkpoint: expected one among several processes: train first, with {command}"
        )


def expect_enough(images: int, batch_size: int) -> None:
    """Raise an InputError where some process would get no image of some batch."""
    smallest = min(batch_size, images % batch_size or batch_size)
    if smallest < count():
        raise InputError(
            f"batch_size: expected an image of each batch for each of {count()} processes, got "
            f"{smallest} in the last batch of {images} images in batches of {batch_size}"
        )


def from_first(make: Callable[[], Made]) -> Made:
    """What ``make`` yields in the first process, in all of them."""
    if not several():
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def share(indices: Sequence[int]) -> Sequence[int]:
    """Those of ``indices`` that are this process's."""
    return indices[rank() :: count()]


def summed(values: Tensor) -> Tensor:
    """The sum over the processes, on the device of ``values``."""
    if several():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def joined(parts: Sequence[Tensor]) -> list[Tensor]:
    """Each of ``parts``, on the CPU, with those of the other processes: along the last dimension,
    in the order of the processes."""
    own = [part.cpu() for part in parts]
    if not several():
        return own
    found: list[list[Tensor]] = [[]] * count()
    distributed.all_gather_object(found, own)
    return [torch.cat(each, -1) for each in zip(*found, strict=True)]

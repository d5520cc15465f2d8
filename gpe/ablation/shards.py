"""A sweep in pieces: over processes, and over interruptions."""

from functools import reduce
from pathlib import Path

from torch import distributed

from gpe.ablation.result import AblationResult
from gpe.errors import InputError


def checkpoint_path(checkpoint: str | Path | None) -> Path | None:
    """The file of this process."""
    if checkpoint is None:
        return None
    (rank, world), path = _place(), Path(checkpoint)
    return path if world == 1 else path.with_name(f"{path.stem}-{rank}-of-{world}{path.suffix}")


def resumed(result: AblationResult, path: Path | None) -> AblationResult:
    """A result of no images, or what a checkpoint of the same ablation holds."""
    if path is None or not path.exists():
        return result
    try:
        return result.merge(AblationResult.load(path))
    except InputError as error:
        raise InputError(f"checkpoint: {path} cannot be continued: {error}") from None


def over_processes(result: AblationResult | None) -> AblationResult:
    """The sum over all processes; those that had no images give None."""
    found: list[AblationResult | None] = [result]
    world = _place()[1]
    if world > 1:
        found = [None] * world
        # Matrices and counts are integers: the sum is the same in any order.
        distributed.all_gather_object(found, result)
    counted = [one for one in found if one is not None]
    if not counted:
        raise InputError("batches: expected one or more, got none")
    return reduce(AblationResult.merge, counted)


def _place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1

"""What every experiment does with its configurations: a directory, a training, a record each."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from gpe.errors import InputError
from gpe.experiments.progress import Progress
from gpe.experiments.training import CHECKPOINT, Trial, fit
from gpe.records import RECORD


class Config(Protocol):
    """A dataclass with every option of one run; ``epochs`` and ``seed`` among them."""

    @property
    def name(self) -> str:
        """The directory of the run."""

    @property
    def paper(self) -> dict[str, Any] | None:
        """What the paper has for it."""


def run_all(
    experiment: str,
    configs: Sequence[Config],
    out: Path,
    make_trial: Callable[[Any], Trial],
    *,
    progress: Progress,
    resume: bool = False,
    force: bool = False,
) -> list[Path]:
    """Trains each configuration in a directory of its own below ``out``.

    Args:
        experiment: what the records are called.
        configs: one a run; ``out/<config.name>`` receives its checkpoint, arrays and record.
        out: made where it is not there.
        make_trial: takes a configuration.
        progress: where to show how far it has come.
        resume: go on from the checkpoints of an interrupted call.
        force: run finished configurations again; otherwise they are left as they are.

    Returns:
        The directories, in the order of ``configs``.

    Raises:
        InputError: a directory cannot be made, before anything is trained in it; or what
            ``make_trial`` and :func:`fit` raise.
    """
    directories = []
    for config in configs:
        directory = out / config.name
        directories.append(directory)
        if (directory / RECORD).exists() and not force:
            progress.skip(directory.name, "finished before; --force runs it again")
            continue
        trial = make_trial(config)
        prepare(directory)
        fit(
            trial,
            directory,
            experiment=experiment,
            config=json.loads(json.dumps(asdict(config))),
            chance=100 / trial.num_classes,
            paper=config.paper,
            progress=progress,
            resume=resume,
        )
    return directories


def expect_device(name: str) -> None:
    """Raise an InputError unless ``name`` is a CPU or a GPU that is there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device: expected cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: expected one that is there, got {name}; "
            f"torch sees {torch.cuda.device_count()} GPUs"
        )
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: expected cpu, cuda or cuda:N, got {name!r}")


def expect_seed(seed: int) -> None:
    """Raise an InputError unless ``seed`` is one that all generators take."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: expected 0 to 2**63 - 1, got {seed}")


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Raise an InputError that expected ``what`` for whatever a block raises.

    Around the reading of checkpoints: torch.load raises almost anything on a file not its own, and
    a file may hold anything.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{what}, got {type(error).__name__}: {reason:.100}") from None


def prepare(directory: Path) -> Path:
    """Makes the directory of a run, or one that was run before as if it had not been.

    Raises:
        InputError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot make {directory}: {error.strerror}") from None
    # Interrupted, the new run is neither finished nor to go on from the end of the old one.
    if (directory / RECORD).exists():
        (directory / CHECKPOINT).unlink(missing_ok=True)
        (directory / RECORD).unlink()
    return directory

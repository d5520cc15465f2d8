"""One policy for runs: finished ones are kept, interrupted ones continued, stale ones run again.

A run's directory is named by all its options, by the content of the weights and rankings that it
is about included, and so is found again by the same command alone.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from gpe.errors import InputError
from gpe.experiments.options import Config, Places
from gpe.experiments.processes import from_first, is_first, process_name
from gpe.experiments.progress import Progress
from gpe.records import RECORD, Record, atomic

CHECKPOINT = "checkpoint.pt"
# Begin the names of files that only an unfinished run has: its own, and those of the run before it.
PARTIAL = "partial"
BEFORE = ".before-"

SomeConfig = TypeVar("SomeConfig", bound=Config)


def run_all(
    configs: Sequence[SomeConfig],
    places: Places,
    progress: Progress,
    run: Callable[[SomeConfig, Path], Record | None],
) -> list[Path]:
    """Runs each configuration in a directory of its own below ``places.out``.

    Args:
        configs: one a run, ``places.out / config.name``.
        places: ``force`` runs finished ones again; without ``resume`` interrupted ones start again.
        progress: is told what becomes of each.
        run: does one; leaves all but the record in the directory, whatever it needs to continue
            there under names that begin with ``PARTIAL`` or as ``CHECKPOINT``. Returns the record,
            or None in a process that does not write.

    Returns:
        The directories, in the order of ``configs``.

    Raises:
        InputError: a directory cannot be made, before anything is computed, or another command is
            at work in it; or what ``run`` raises.
    """
    progress.expect(len(configs))
    directories = []
    for config in configs:
        directory = places.out / config.name
        directories.append(directory)
        if not places.force and from_first(partial(is_finished, directory, config, progress)):
            continue
        with writable(directory), alone(directory):
            again = places.force or not places.resume or from_first((directory / RECORD).exists)
            start = time.perf_counter()
            with anew(directory) if again else nullcontext():
                record = run(config, directory)
            if record is not None and is_first():
                record.run["seconds"] = record.run["seconds"] or time.perf_counter() - start
                record.save(directory)
                for file in (*directory.glob(f"{PARTIAL}*"), *directory.glob(f"{BEFORE}*")):
                    file.unlink()
    return directories


def record(
    experiment: str, config: Config, result: dict[str, Any], *, chance: float, **run: Any
) -> Record:
    """The record of what was measured without training; ``run`` is told beside the machine."""
    device = getattr(config, "device", "cpu")
    return Record.of(
        experiment,
        config,
        result,
        chance=chance,
        seconds=0.0,  # run_all says how many
        device=device,
        paper=config.paper,
        run=run,
    )


class Partial:
    """What an unfinished run has counted so far: tensors, and of how many images.

    Args:
        directory: of the run. Each of several processes has a file of its own, which serves again
            where as many continue.
        name: tells several counts of one run apart.
    """

    SECONDS = 10.0  # between two writings

    def __init__(self, directory: Path, name: str = ""):
        self.path = directory / "-".join(filter(None, (PARTIAL, name, process_name())))
        self._written = time.perf_counter()

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """What was saved; None where nothing sound is."""
        try:
            with self.path.open("rb") as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
            return int(state["done"]), dict(state["tensors"])
        except Exception:  # torch.load raises almost anything on half a file, or another's
            return None

    def save(self, done: int, tensors: Mapping[str, Tensor]) -> None:
        """Keeps ``tensors`` of the first ``done`` images, at most every few seconds."""
        if time.perf_counter() - self._written < self.SECONDS:
            return
        with atomic(self.path) as path:
            torch.save({"done": done, "tensors": dict(tensors)}, path)
        self._written = time.perf_counter()


def is_finished(directory: Path, config: Config, progress: Progress) -> bool:
    """Whether the record of just these options is there; says so, and of one of others too."""
    if not (directory / RECORD).exists():
        return False
    try:
        stored = Record.load(directory).config
    except InputError as error:
        progress.note(f"{directory.name}: its record cannot be read and is made again: {error}")
        return False
    options = as_json(config)
    # What the run itself decided, where nothing was given, stands in the record alone.
    stale = [
        name
        for name in stored.keys() & options.keys()
        if options[name] not in (None, "") and stored[name] != options[name]
    ]
    if stale:
        progress.note(f"{directory.name}: is of another {', '.join(sorted(stale))}; runs again")
        return False
    progress.skip(directory.name, "finished before; --force runs it again")
    return True


def as_json(config: Config) -> dict[str, Any]:
    """The options of a run as its record has them."""
    return json.loads(json.dumps(asdict(config)))


@contextmanager
def writable(directory: Path) -> Iterator[None]:
    """Makes a directory, where there is none, around what is to write into it.

    What fails and leaves nothing in it leaves no directory either.

    Raises:
        InputError: it cannot be made or written.
    """
    if not is_first():
        yield
        return
    missing: list[Path] = []
    try:
        missing += [each for each in (directory, *directory.parents) if not each.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"out: cannot write to {directory}: {error.strerror}") from None
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # those with something in them stay
                each.rmdir()
        raise


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps other commands out of a run's directory, on this machine and for as long as it lives.

    Raises:
        InputError: another is at work in it.
    """
    if not is_first():
        yield
        return
    path = directory / ".lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        raise InputError(f"out: another command is at work in {directory}") from None


@contextmanager
def anew(directory: Path) -> Iterator[None]:
    """Around a run that starts again: interrupted, it is neither finished nor continues an old one.

    What the old one left comes back where the new one is refused: a wrong path loses nothing.
    """

    def set_aside() -> None:
        for file in directory.glob(f"{BEFORE}*"):
            file.unlink()
        for name in (CHECKPOINT, RECORD, *(file.name for file in directory.glob(f"{PARTIAL}*"))):
            with suppress(FileNotFoundError):
                (directory / name).replace(directory / f"{BEFORE}{name}")

    from_first(set_aside)
    try:
        yield
    except InputError:
        if is_first():
            for file in directory.glob(f"{BEFORE}*"):
                file.replace(directory / file.name.removeprefix(BEFORE))
        raise

"""What a run leaves behind: ``record.json``, and arrays for pictures beside it.

A record holds the experiment, its configuration, the metrics of every epoch, the
paper's value, and under ``run`` what differs from machine to machine: seconds,
hardware, versions, commit. Everything outside ``run`` is reproduced bit for bit by
the same command on the same machine.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gpe.errors import InputError

RECORD = "record.json"
ARRAYS = "arrays.safetensors"


@dataclass
class Record:
    """One finished run.

    Attributes:
        experiment: the command that made it, ``"location"``.
        config: every option of the run, by name.
        epochs: one dict of metrics an epoch; accuracies in percent. None where nothing was
            trained.
        result: ``{"last": {...}, "best": {...}}``, the metrics of the last epoch and of
            the epoch with the best test accuracy (Table 1's protocol), and what else the
            experiment measured: ``"consistency"``, a row for each largest shift.
        chance: accuracy of guessing, in percent.
        paper: ``{"source", "value", "protocol"}``, an accuracy, and for Table 2
            ``"consistency"`` by shift; None where the paper has no number.
        run: seconds, images per second, hardware, versions, commit, time of finishing.
    """

    experiment: str
    config: dict[str, Any]
    epochs: list[dict[str, float]]
    result: dict[str, Any]
    chance: float
    paper: dict[str, Any] | None
    run: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write ``record.json`` into ``directory``, whole or not at all."""
        with atomic(directory / RECORD) as path:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Record":
        """The record in ``directory``.

        Raises:
            InputError: there is none, or it is not a record.
        """
        path = directory / RECORD
        try:
            record = cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise InputError(f"no record: expected {path}") from None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is not a record: {error}") from None
        for name, kind in _KINDS.items():
            value = getattr(record, name)
            if not isinstance(value, kind):
                expected = f"expected a {kind.__name__}, got {value!r:.80}"
                raise InputError(f"{path} is not a record: {name}: {expected}")
        return record


_KINDS = {"experiment": str, "config": dict, "epochs": list, "result": dict, "run": dict}


def find(paths: Iterable[Path]) -> list[Path]:
    """The directories at or below ``paths`` that hold a record, sorted.

    Raises:
        InputError: a path is no directory, or no record lies below any.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"runs: expected a directory, got {path}")
    files = (file for path in paths for file in path.rglob(RECORD))
    found = {file.parent.resolve(): file.parent for file in files}
    if not found:
        raise InputError(f"runs: no {RECORD} below {', '.join(map(str, paths))}")
    return sorted(found.values())


def save_arrays(directory: Path, arrays: dict[str, Tensor]) -> None:
    """Write ``arrays`` beside the record of ``directory``, whole or not at all."""
    # Clones, because safetensors refuses two names for the same memory.
    copies = {
        name: array.detach().clone(memory_format=torch.contiguous_format)
        for name, array in arrays.items()
    }
    with atomic(directory / ARRAYS) as path:
        path.write_bytes(save(copies))


def load_arrays(directory: Path) -> dict[str, Tensor]:
    """The arrays beside the record of ``directory``; empty where there are none.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / ARRAYS
    try:
        return load_file(path) if path.exists() else {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def environment(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and commit of this machine, for ``Record.run``."""
    hardware = {"cpu": _cpu_name(), "threads": torch.get_num_threads(), "device": device.type}
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "gpe"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"hardware": hardware, "versions": versions, "commit": _commit()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of gpe's own checkout, with ``+`` behind it where files differ from it."""
    try:
        # Installed in an environment inside another project, gpe lies in that project's
        # repository, whose commit says nothing about gpe.
        if not (Path(_git("rev-parse", "--show-toplevel")) / "gpe" / "records.py").exists():
            return None
        return _git("describe", "--always", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

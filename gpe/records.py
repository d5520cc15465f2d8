"""What a run leaves behind: ``record.json``, and arrays for pictures beside it.

A record holds the experiment, its configuration, the metrics of every epoch, the
paper's value, and under ``run`` what differs from machine to machine: seconds,
hardware, versions, commit. Everything outside ``run`` is reproduced bit for bit by
the same command on the same machine.

The JSON is strict. A result that does not exist, as the mIoU of a region without a labelled pixel,
is null; NaN in ``result``, ``epochs`` and ``run`` becomes that. NaN anywhere else, and infinity,
is an error. torch is imported where it is needed: reading a record takes none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpe.errors import InputError

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance
    from torch import Tensor

RECORD = "record.json"
ARRAYS = "arrays.safetensors"
LONGEST_NAME = 255  # bytes; what file systems take


@dataclass
class Record:
    """One finished run.

    Attributes:
        experiment: the command that made it, ``"location"``.
        config: every option of the run, by name.
        epochs: one dict of metrics an epoch; accuracies in percent. Empty where nothing was
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
    epochs: list[dict[str, Any]]
    result: dict[str, Any]
    chance: float
    paper: dict[str, Any] | None
    run: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        experiment: str,
        config: DataclassInstance | Mapping[str, Any],
        result: Mapping[str, Any],
        *,
        chance: float,
        seconds: float,
        device: torch.device | str = "cpu",
        epochs: Sequence[Mapping[str, Any]] = (),
        paper: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Record:
        """The record of a run that ends now, with the circumstances that this machine knows.

        Args:
            experiment: what is registered under this name.
            config: a dataclass, or all options by name.
            result: what was measured; plain data, numbers of numpy and tensors of one included.
            chance: accuracy of guessing, in percent.
            seconds: what the run took.
            device: where the network ran.
            epochs: metrics of each, where something was trained.
            paper: the paper's number for it.
            run: further circumstances, ``{"images_per_second": 310.0}``.

        Raises:
            InputError: something that JSON cannot hold, with the name of the field.

        Example:
            >>> found = {"miou": float("nan")}
            >>> record = Record.of("segment", {"seed": 0}, found, chance=10, seconds=2)
            >>> record.result, record.run["processes"]
            ({'miou': None}, 1)
        """
        import torch

        distributed = torch.distributed
        several = distributed.is_available() and distributed.is_initialized()
        circumstances = {
            "seconds": seconds,
            **(run or {}),
            "processes": distributed.get_world_size() if several else 1,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(torch.device(device)),
        }
        made = cls(
            experiment,
            config=asdict(config) if is_dataclass(config) else dict(config),
            epochs=[dict(metrics) for metrics in epochs],
            result=dict(result),
            chance=chance,
            paper=None if paper is None else dict(paper),
            run=circumstances,
        )
        return cls(**_plain_fields(vars(made)))

    @property
    def identity(self) -> str:
        """A digest of what was run and what came out: a run and a copy of it share it."""
        said = {"experiment": self.experiment, "config": self.config, "result": self.result}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write ``record.json`` into ``directory``, whole or not at all.

        Raises:
            InputError: something that JSON cannot hold, with the name of the field; or what
                :func:`atomic` raises.
        """
        text = json.dumps(_plain_fields(vars(self)), indent=2, allow_nan=False)
        with atomic(directory / RECORD) as path:
            path.write_text(text + "\n", encoding="ascii")

    @classmethod
    def load(cls, directory: Path) -> Record:
        """The record in ``directory``.

        Raises:
            InputError: there is none, or it is not a record.
        """
        path = Path(directory) / RECORD
        if not os.path.lexists(path):
            raise InputError(f"no record: expected {path}")
        try:
            if not path.is_file():  # to read a pipe would wait for ever
                raise TypeError("expected a file")
            return cls._checked(json.loads(path.read_text(encoding="utf-8")))
        except RecursionError:
            raise InputError(f"{path} is not a record: it is nested too deep") from None
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} is not a record: {reason:.200}") from None

    @classmethod
    def _checked(cls, fields: Any) -> Record:
        record = cls(**_plain_fields(fields))
        for name, (kind, fits) in _KINDS.items():
            if not fits(value := getattr(record, name)):
                raise TypeError(f"{name}: expected {kind}, got {value!r:.80}")
        return record


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "experiment": ("a name", lambda value: isinstance(value, str) and value != ""),
    "config": ("a dict", lambda value: isinstance(value, dict)),
    "epochs": (
        "a list of dicts",
        lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value),
    ),
    "result": ("a dict", lambda value: isinstance(value, dict)),
    "chance": ("a number", _is_number),
    "paper": ("a dict or null", lambda value: value is None or isinstance(value, dict)),
    "run": ("a dict", lambda value: isinstance(value, dict)),
}


def _plain_fields(fields: Any) -> dict[str, Any]:
    """Fields of a record as JSON holds them; NaN is a missing number where things are measured."""
    if not isinstance(fields, dict):
        raise TypeError(f"expected an object, got {fields!r:.80}")
    return {
        name: _plain(value, name, gaps=name in ("result", "epochs", "run"))
        for name, value in fields.items()
    }


def _plain(value: Any, where: str, *, gaps: bool) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if gaps and math.isnan(value):
            return None
        raise InputError(f"{where}: expected a finite number, got {value}")
    if isinstance(value, Mapping):
        named = {key if isinstance(key, str) else str(key): item for key, item in value.items()}
        if len(named) < len(value) or not all(isinstance(key, str | int) for key in value):
            raise InputError(f"{where}: expected names, each once, got {list(value)!r:.80}")
        return {key: _plain(item, f"{where}.{key}", gaps=gaps) for key, item in named.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", gaps=gaps) for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's scalars, arrays and tensors
        return _plain(value.tolist(), where, gaps=gaps)
    raise InputError(f"{where}: expected what JSON can hold, got {type(value).__name__}")


def load_all(paths: Iterable[Path | str]) -> tuple[dict[Path, Record], list[str]]:
    """Every record at or below ``paths``: one that cannot be read blocks no other.

    Beside directories with a ``record.json``, files that hold several are read, as in ``results/``:
    ``{"runs": [record, ...]}`` under any name that ends in ``.json``.

    A run and copies of it, known by :attr:`Record.identity`, are one measurement and come once.
    Links to directories are not followed, but for the paths themselves.

    Returns:
        records: by directory, or by file and number, sorted.
        notes: one line for each record or folder that could not be read, for each copy, and for the
            other JSON files of a folder.

    Raises:
        InputError: a path is no directory, no record lies below any, or none can be read.
    """
    places = [Path(path) for path in paths]
    records: dict[Path, Record] = {}
    first: dict[str, Path] = {}
    notes: list[str] = []
    for place, record in _records(places, notes.append):
        original = first.setdefault(record.identity, place)
        if original is place:
            records[place] = record
        else:
            notes.append(f"{place} is a copy of {original} and counts once")
    if not records and notes:
        raise InputError(f"runs: no {RECORD} that can be read: {notes[0]}")
    if not records:
        raise InputError(f"runs: no {RECORD} below {', '.join(map(str, places))}")
    return records, notes


def _walk(paths: Sequence[Path], tell: Callable[[str], None]) -> list[tuple[Path, list[str]]]:
    """Every folder once, with the names of its files, sorted."""
    found: dict[Path, tuple[Path, list[str]]] = {}
    for path in paths:
        if not os.path.isdir(path):
            raise InputError(f"runs: expected a directory, got {path}")
    for path in paths:
        for folder, _, files in os.walk(
            path, onerror=lambda error: tell(f"{error.filename} is left out: {error.strerror}")
        ):
            found.setdefault(Path(folder).resolve(), (Path(folder), sorted(files)))
    return sorted(found.values())


def _records(paths: Sequence[Path], tell: Callable[[str], None]) -> Iterator[tuple[Path, Record]]:
    for folder, names in _walk(paths, tell):
        if RECORD in names:  # other files belong to this run
            try:
                yield folder, Record.load(folder)
            except InputError as error:
                tell(str(error))
            continue
        others = []
        for name in (name for name in names if name.endswith(".json")):
            several = _several(folder / name)
            if several is None:
                others.append(name)
                continue
            for number, fields in enumerate(several, 1):
                place = folder / name / str(number) if len(several) > 1 else folder / name
                try:
                    yield place, Record._checked(fields)
                except (ValueError, TypeError, RecursionError) as error:
                    tell(f"{place} is not a record: {' '.join(str(error).split()):.200}")
        if others:
            tell(f"{folder}: {', '.join(others)} left out, no record in it")


def _several(path: Path) -> list[Any] | None:
    """The fields of the records in a file that holds some; None if it is another."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    runs = found.get("runs") if isinstance(found, dict) else None
    if not isinstance(runs, list) or not runs:
        return None
    return runs if all(isinstance(run, dict) and "experiment" in run for run in runs) else None


def directory_name(config: DataclassInstance, *parts: str) -> str:
    """``parts``, and a digest of all options: no two configurations share a directory.

    Parts that are too long for a file system are cut; the digest still tells them apart.
    """
    options = _plain(asdict(config), "config", gaps=False)
    digest = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:8]
    room = LONGEST_NAME - len(digest) - 1
    name = "-".join(parts).encode(errors="surrogateescape")[:room]
    return f"{name.decode(errors='ignore')}-{digest}"


def save_arrays(directory: Path, arrays: dict[str, Tensor]) -> None:
    """Write ``arrays`` beside the record of ``directory``, whole or not at all."""
    with atomic(directory / ARRAYS) as path:
        path.write_bytes(packed(arrays))


def packed(arrays: Mapping[str, Tensor]) -> bytes:
    """Tensors in the format of safetensors, also where some share their memory."""
    import torch
    from safetensors.torch import save

    # Clones, because safetensors refuses two names for the same memory.
    copies = {
        name: array.detach().clone(memory_format=torch.contiguous_format)
        for name, array in arrays.items()
    }
    return save(copies)


def load_arrays(directory: Path) -> dict[str, Tensor]:
    """The arrays beside the record of ``directory``; empty where there are none.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors.torch import load_file

    path = Path(directory) / ARRAYS
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # to read a pipe would wait for ever
            raise TypeError("expected a file")
        return load_file(path)
    except Exception as error:  # a file may hold anything
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged: {reason:.200}") from None


_OF_THE_PATH = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends without an error.

    Raises:
        InputError: ``path`` cannot be written: no permission, no folder, a name too long.
        OSError: the disk is full or broken. Either names ``path``, in one line.
    """
    # Short, since a name that is just short enough must not become too long by what is added.
    temporary = path.with_name(f".{path.name[:20]}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in _OF_THE_PATH:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    except RuntimeError as error:
        # So torch.save says that it could not write, and no more.
        if not any(said in str(error) for said in ("inline_container", "iostream error")):
            raise
        raise OSError(errno.EIO, "cannot write; is the disk full?", str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def environment(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and commit of this machine, for ``Record.run``."""
    import torch

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

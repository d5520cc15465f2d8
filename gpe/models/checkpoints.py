"""One reader of every file that holds weights. Nothing of a file is executed."""

import datetime
import pathlib
import re
import warnings
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpe import hub
from gpe.errors import InputError
from gpe.records import packed

# Under what names training scripts keep weights: averaged over the training, and as they were.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model",
             "ema", "params_ema", "averaged", "swa_model")  # fmt: skip
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module",
          "params", "weights")  # fmt: skip
# Other parts of a checkpoint that hold tensors, but no weights.
_TRAINING = re.compile("optim|sched|scaler|rng|callback|loop", re.IGNORECASE)
# What DataParallel, torch.compile and FSDP put into names, and a count that AveragedModel adds.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNT = "n_averaged"
_DEEPEST = 4  # dicts within dicts


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        weights: names to dense tensors on the CPU, under the names that they have in the file.
        extras: what else a training script or the metadata of safetensors says, without
            optimizers; arguments, epochs, scores.
        taken: the keys that lead to ``weights``, joined by dots; empty where the file is bare.
        others: keys of other weights beside them.
        path: of the file.
    """

    weights: dict[str, Tensor]
    extras: dict[str, Any]
    taken: str
    others: tuple[str, ...]
    path: Path

    @property
    def note(self) -> str:
        """Which weights were taken, where there was a choice; else empty."""
        return f"weights under {self.taken}, not {first(self.others)}" if self.others else ""


def read_checkpoint(
    path: str | Path, *, averaged: bool = True, argument: str = "path"
) -> Checkpoint:
    """The weights of a file, whatever they are wrapped in.

    Args:
        path: what ``torch.save`` wrote (``.pth``, ``.pt``, ``.tar``, ``.bin``) or a safetensors
            file, told apart by their content, or ``"hf://OWNER/NAME/FILE"`` for one of these in a
            repository of the Hugging Face Hub: a state dict, bare or under ``"state_dict"``,
            ``"model"``, ``"model_state"``, ``"net"`` and their like, in any nesting.
        averaged: whether averaged weights (``"model_ema"``, ``"state_dict_ema"``, …) go before
            the plain ones where a file has both.
        argument: what the messages call ``path``.

    Raises:
        InputError: no such file, one that is damaged or holds more than inert data, or no weights.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     torch.save({"model": {"module.bias": torch.zeros(1)}, "epoch": 3}, file.name)
        ...     checkpoint = read_checkpoint(file.name)
        >>> checkpoint.weights, checkpoint.extras, checkpoint.taken
        ({'module.bias': tensor([0.])}, {'epoch': 3}, 'model')
        >>> fit(checkpoint.weights, ["bias"])
        {'bias': tensor([0.])}
    """
    path = hub.local(path)
    content, extras = _read(path, argument)
    expected = f"{argument}: expected {printable(path)} to hold weights"
    order = _AVERAGED + _PLAIN if averaged else _PLAIN + _AVERAGED
    taken: list[str] = []
    others: tuple[str, ...] = ()
    without: set[int] = set()
    while isinstance(content, dict) and len(taken) < _DEEPEST:
        level = {key: value for key, value in content.items() if _holds(value, without)}
        named = [key for key in order if key in level]
        if not named and not _tensors(content):
            named = [key for key in level if isinstance(key, str) and not _TRAINING.search(key)]
            if len(named) > 1:
                raise InputError(f"{expected} of one network, got those of {first(named)}")
        if not named:
            break
        for key, value in content.items():
            if isinstance(key, str) and key not in level and not _TRAINING.search(key):
                extras.setdefault(key, value)
        taken.append(named[0])
        others = (*others, *named[1:])
        content = content[named[0]]
    return Checkpoint(_dense(content, expected), extras, ".".join(taken), others, path)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict of a network to one file, in the format of safetensors.

    Args:
        network: any.
        path: of the file; or ``"hf://OWNER/NAME/FILE"``, in a repository of the Hugging Face Hub,
            where ``huggingface_hub`` is installed. :func:`gpe.models.open_model` takes both.

    Raises:
        InputError: the file cannot be written there.

    Example:
        >>> import tempfile
        >>> network = nn.Linear(2, 1)
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     save_weights(network, file.name)
        ...     sorted(read_checkpoint(file.name).weights)
        ['bias', 'weight']
    """
    with hub.written(path) as file:
        file.write_bytes(packed(network.state_dict()))


def read_file(path: str | Path, argument: str = "path") -> Any:
    """All that a file holds, of which nothing is executed: the state of a run, for one."""
    return _read(Path(path), argument)[0]


def fit(weights: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Weights under the names of a network, without the prefixes that wrappers put before them.

    Of the names as they are, without a prefix that all share, or without the ``module`` and
    ``_orig_mod`` of DataParallel and torch.compile, the first that most of ``expected`` are among.
    Names that begin so in the network itself therefore stay. Of a file that holds more, as the
    weights of a loss beside those under ``model.``, what has all the names is taken.

    Warns:
        UserWarning: weights that are left out.
    """
    known = set(expected)
    if not any(name.endswith(_COUNT) for name in known):
        weights = {name: v for name, v in weights.items() if name.rpartition(".")[2] != _COUNT}
    weights = _part(weights, known)
    starts = list(weights), [_unwrapped(name) for name in weights]
    candidates = [names for start in starts for names in _shorter(start)]
    best = max(candidates, key=lambda names: len(known.intersection(names)))
    return dict(zip(best, weights.values(), strict=True))


def _part(weights: Mapping[str, Tensor], known: set[str]) -> Mapping[str, Tensor]:
    """The weights under the one prefix that has all that are known, where several prefixes are."""
    tops = dict.fromkeys(name.partition(".")[0] for name in weights)
    parts = {top: [name for name in weights if name.startswith(f"{top}.")] for top in tops}
    fitting = [
        names
        for names in parts.values()
        if (inner := {name.partition(".")[2] for name in names})
        and known
        and known <= inner | {_unwrapped(name) for name in inner}
    ]
    if len(tops) < 2 or len(fitting) != 1 or known <= weights.keys():
        return weights
    others = [name for name in weights if name not in fitting[0]]
    warnings.warn(
        f"weights: {first(others)} are of no part of the network, and are left out", stacklevel=3
    )
    return {name: weights[name] for name in fitting[0]}


def expect_fit(
    expected: str,
    weights: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    *,
    names: tuple[Iterable[str], Iterable[str]] | None = None,
) -> None:
    """Raise an InputError, which begins with ``expected``, unless ``weights`` are a ``network``'s.

    ``names`` are the missing and the unexpected, where the network knows them better. Of its own
    state dict no data is needed.
    """
    missing, unexpected = names or (
        # Networks saved by old versions of torch lack num_batches_tracked; nothing here uses it.
        [n for n in network if n not in weights and not n.endswith("num_batches_tracked")],
        [n for n in weights if n not in network],
    )
    misshapen = [
        f"{name} {list(weights[name].shape)} where {list(value.shape)} is due"
        for name, value in network.items()
        if name in weights and weights[name].shape != value.shape
    ]
    numbers = [
        f"{name} {weights[name].dtype}"
        for name, value in network.items()
        if name in weights and weights[name].is_floating_point() != value.is_floating_point()
    ]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshapen,
        "of another kind of number": numbers,
    }
    if any(problems.values()):
        found = "; ".join(f"{first(names)} {what}" for what, names in problems.items() if names)
        raise InputError(f"{expected}, got another network: {found}")


def ready(
    expected: str, weights: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights that :func:`expect_fit` finds right, of the network's dtypes, whole."""
    expect_fit(expected, weights, network)
    return {
        name: weights[name].to(value.dtype)
        if name in weights
        else torch.zeros((), dtype=value.dtype, device="cpu")
        for name, value in network.items()
    }


def first_dimension(weights: Mapping[str, Tensor], name: str, default: int) -> int:
    """Of a tensor, or the default where there is none: :func:`expect_fit` will name it."""
    shape = weights[name].shape if name in weights else ()
    return next(iter(shape), 0) or default


def first(names: Iterable[Any]) -> str:
    """The first three ``names``, and how many more there are."""
    names = [printable(name, 100) for name in names]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def printable(text: object, most: int | None = None) -> str:
    """In one line that any terminal takes, of at most so many characters."""
    line = str(text)
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def _read(path: Path, argument: str) -> tuple[Any, dict[str, Any]]:
    """What a file holds, and its metadata."""
    expected = f"{argument}: expected {printable(path)} to hold weights"
    try:
        if not path.exists():
            raise InputError(f"{argument}: there is no {printable(path)}")
        if not path.is_file():  # a pipe would never end
            raise InputError(f"{expected}, got {'a directory' if path.is_dir() else 'no file'}")
        with path.open("rb") as file:
            head = file.read(9)
            if not head:
                raise InputError(f"{expected}, got an empty file")
            if head[8:] == b"{" or (path.suffix == ".safetensors" and head[:2] != b"PK"):
                return _safetensors(path)
            file.seek(0)
            with warnings.catch_warnings(), torch.serialization.safe_globals(_inert()):
                warnings.simplefilter("ignore")  # what matters here is whether it can be read
                return torch.load(file, map_location="cpu", weights_only=True), {}
    except InputError:
        raise
    except Exception as error:  # what reads files raises almost anything on a file not its own
        raise InputError(f"{expected}, got {_reason(error)}") from error


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open
    from safetensors.torch import load

    if not str(path).isprintable():  # safe_open takes names of UTF-8 alone
        return load(path.read_bytes()), {}
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without what torch advises: to execute it."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        name = printable(found[1], 100)
        return (
            f"more than that: {name}, which is not executed; where the file comes from, save "
            "the weights alone: torch.save(network.state_dict(), file)"
        )
    if "TorchScript" in text:
        return (
            "a TorchScript archive; save its weights: "
            "torch.save(torch.jit.load(file).state_dict(), other_file)"
        )
    reason = text.partition("WeightsUnpickler error: ")[2] or text
    line = next((line for line in reason.splitlines() if line.strip()), "")
    return f"what cannot be read: {type(error).__name__}: {printable(line.strip(), 150)}"


class Array:
    """A numpy array of a file, in ``value``. numpy's own can be told lies about its memory."""

    def __init__(self, *_: Any):
        self.value: Any = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], "_DType", bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = dtype.read(data).reshape(shape, order="F" if fortran else "C")


class _DType:
    """The dtype of a numpy scalar or array: of plain numbers and texts alone."""

    def __init__(self, code: str, *_: Any):
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def read(self, data: bytes) -> Any:
        import numpy as np

        if not re.fullmatch("[biufcSU][0-9]+", self.code) or self.order not in tuple("<>=|"):
            raise ValueError(f"expected numbers, got a numpy dtype {self.code!r}")
        return np.frombuffer(data, np.dtype(self.order + self.code)).copy()


def _scalar(dtype: _DType, data: bytes) -> Any:
    (value,) = dtype.read(data).tolist()
    return value


def _inert() -> list[Callable | tuple[Callable, str]]:
    """What stands for the inert types of a file: under each name what is made of it."""
    made: dict[str, Callable] = {
        "argparse.Namespace": Namespace,
        "types.SimpleNamespace": Namespace,
        "collections.defaultdict": lambda *_: OrderedDict(),
        "torch.torch_version.TorchVersion": str,
        "numpy.dtype": _DType,
        "numpy.ndarray": Array,
    }
    for module in ("numpy.core", "numpy._core"):
        made[f"{module}.multiarray.scalar"] = _scalar
        made[f"{module}.multiarray._reconstruct"] = Array
    for module in ("pathlib", "pathlib._local"):
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath"):
            made[f"{module}.{name}"] = pathlib.PurePosixPath
        for name in ("WindowsPath", "PureWindowsPath"):
            made[f"{module}.{name}"] = pathlib.PureWindowsPath
    kinds: tuple[type, ...] = (bool, int, float, str, list, tuple, dict, frozenset)
    kinds += (datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone)
    made |= {f"{kind.__module__}.{kind.__name__}": kind for kind in kinds}
    return [(what, name) for name, what in made.items()]


def _tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor | Array) for value in content.values())


def _holds(value: Any, without: set[int], depth: int = _DEEPEST) -> bool:
    """Whether it is a state dict, or holds one; those ``without`` were looked at before."""
    if not isinstance(value, dict) or id(value) in without:
        return False
    holds = all(isinstance(key, str) for key in value) and (
        _tensors(value)
        or (depth > 1 and any(_holds(v, without, depth - 1) for v in value.values()))
    )
    if not holds:
        without.add(id(value))
    return holds


def _dense(content: Any, expected: str) -> dict[str, Tensor]:
    """The tensors of a state dict, as networks take them."""
    if not isinstance(content, dict) or not content:
        raise InputError(f"{expected}, got {'an empty dict' if content == {} else _kind(content)}")
    weights = {
        name: torch.from_numpy(value.value) if isinstance(value, Array) else value
        for name, value in content.items()
    }
    strange = [n for n, v in weights.items() if not (isinstance(n, str) and isinstance(v, Tensor))]
    if strange:
        raise InputError(f"{expected}, got no tensors under {first(strange)}")
    special = [
        name
        for name, value in weights.items()
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized
    ]
    if special:
        raise InputError(
            f"{expected}, got sparse or quantised tensors, or some without data, "
            f"under {first(special)}"
        )
    return {name: value.detach() for name, value in weights.items()}


def _kind(content: Any) -> str:
    return f"a {type(content).__name__}"


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _shorter(names: list[str]) -> Iterator[list[str]]:
    """Names, then without the first part that all share, and so on, while no two are the same."""
    while len(set(names)) == len(names):
        yield names
        if len({name.partition(".")[0] for name in names}) != 1 or not all("." in n for n in names):
            return
        names = [name.partition(".")[2] for name in names]

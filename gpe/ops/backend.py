"""Which implementation serves which device, and why.

Every op has up to four implementations behind one public function: C++ and CUDA kernels in
``gpe._C`` ("compiled"), Triton kernels ("triton") and plain PyTorch ("reference"). The first that
there is for a device serves it. The environment variable ``GPE_BACKEND`` forces one; a forced one
that is missing raises.
"""

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

from gpe.errors import InputError
from gpe.ops import reference

log = logging.getLogger("gpe")

_BUILD = "in gpe's source, pip install --no-build-isolation --no-deps ."
BACKENDS = ("compiled", "triton", "reference")


class Status(NamedTuple):
    """Whether a backend serves a device, and why or why not."""

    ready: bool
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`doctor` found. ``print`` it.

    Attributes:
        versions: of torch and Triton, and the GPU's name.
        active: device type -> the backend that serves it.
        status: (device type, backend) -> :class:`Status`.
        forced: the value of ``GPE_BACKEND``, or None.
    """

    versions: dict[str, str]
    active: dict[str, str]
    status: dict[tuple[str, str], Status]
    forced: str | None

    def __str__(self) -> str:
        lines = [", ".join(f"{name} {version}" for name, version in self.versions.items())]
        if self.forced:
            lines.append(f"GPE_BACKEND={self.forced}")
        for (device, backend), status in self.status.items():
            mark = "serves" if self.active[device] == backend else "ready" if status.ready else "-"
            lines.append(f"{device:<5} {backend:<10} {mark:<7} {status.reason}")
        return "\n".join(lines)

    __repr__ = __str__


def doctor() -> Diagnosis:
    """Says what is active on which device, what is not, and why.

    Example:
        >>> import gpe
        >>> sorted(gpe.doctor().active)
        ['cpu', 'cuda']
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {"torch": torch.__version__, "GPU": gpu}
    if _has_triton():
        versions["triton"] = importlib.import_module("triton").__version__
    devices = ("cpu", "cuda")
    status = {
        (device, backend): _status(device, backend) for device in devices for backend in BACKENDS
    }
    active = {}
    for device in devices:
        try:
            active[device] = choose(device)
        except InputError:
            active[device] = "none"
    return Diagnosis(versions, active, status, os.environ.get("GPE_BACKEND") or None)


@torch.compiler.assume_constant_result
def choose(device: str) -> str:
    """The backend that serves tensors of a device type.

    Raises:
        InputError: ``GPE_BACKEND`` names none, or one that is missing here.
    """
    forced = os.environ.get("GPE_BACKEND")
    if not forced:
        if _compiled(device).ready:  # at once, since every call of an op asks
            return "compiled"
        return next(backend for backend in BACKENDS if _status(device, backend).ready)
    if forced not in BACKENDS:
        raise InputError(f"GPE_BACKEND: expected one of {', '.join(BACKENDS)}, got {forced!r}")
    status = _status(device, forced)
    if not status.ready:
        raise InputError(f"GPE_BACKEND={forced}: not there for {device} tensors: {status.reason}")
    return forced


@torch.compiler.assume_constant_result
def forced() -> bool:
    """Whether ``GPE_BACKEND`` names a backend."""
    return bool(os.environ.get("GPE_BACKEND"))


def implementation(name: str, device: str, unserved: str = "") -> Callable:
    """The function that computes op ``name`` (a trailing ``_``: in place) on a device type.

    Where a reason is given why no kernel serves this call, that is plain PyTorch.
    """
    if unserved:
        warn_once(f"gpe: {name} takes reference: {unserved}")
        return getattr(reference, name)
    backend = choose(device)
    if backend == "compiled":
        return getattr(torch.ops.gpe, name)
    if not os.environ.get("GPE_BACKEND"):
        warn_once(f"gpe: {device} tensors take {backend}: {_compiled(device).reason}")
    if backend == "triton":
        if _define_triton_op(name.rstrip("_")):
            return getattr(torch.ops.gpe_triton, name)
        if os.environ.get("GPE_BACKEND"):
            raise InputError(f"GPE_BACKEND=triton: {name} has no Triton kernel")
        warn_once(f"gpe: {name} has no Triton kernel, {device} tensors take reference")
    return getattr(reference, name)


def warn_once(message: str) -> None:
    """Logs a warning the first time it is given."""
    if not torch.compiler.is_compiling():
        _log_once(message)


@cache
def extension() -> Status:
    """Imports ``gpe._C``, once; whether it is there, and why not."""
    try:
        from gpe import _build
    except ImportError:
        return Status(False, f"gpe._C is not built: {_BUILD}")
    if torch.__version__ != _build.TORCH:
        built = f"gpe._C was built for torch {_build.TORCH}, this is {torch.__version__}"
        return Status(False, f"{built}: {_BUILD}")
    try:
        from gpe import _C
    except ImportError as error:
        return Status(False, f"gpe._C cannot be imported: {str(error).splitlines()[0]}")
    return Status(True, f"C++ with {_C.cpu_instructions()}")


def _status(device: str, backend: str) -> Status:
    if backend == "reference":
        return Status(True, "plain PyTorch")
    return (_compiled if backend == "compiled" else _triton)(device)


def _compiled(device: str) -> Status:
    status = extension()
    if not status.ready or device == "cpu":
        return status
    if device != "cuda":
        return Status(False, f"no kernels for {device}")
    from gpe import _build

    if _build.CUDA is None:
        return Status(False, f"gpe._C has no CUDA kernels: {_build.REASON}")
    return Status(True, f"CUDA C++, built with {_build.REASON}{_without_gpu()}")


def _triton(device: str) -> Status:
    if not _has_triton():
        return Status(False, "triton is not installed")
    if device not in ("cpu", "cuda"):
        return Status(False, f"no kernels for {device}")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cpu" and not interpreted:
        return Status(False, "Triton needs a GPU, or TRITON_INTERPRET=1")
    # The interpreter is there for tests; nobody wants it by default.
    if interpreted and os.environ.get("GPE_BACKEND") != "triton":
        return Status(False, "TRITON_INTERPRET=1 serves only with GPE_BACKEND=triton")
    return Status(True, "Triton's interpreter" if interpreted else f"Triton{_without_gpu()}")


def _without_gpu() -> str:
    return "" if torch.cuda.is_available() else "; no GPU here"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _define_triton_op(op: str) -> bool:
    """Whether there is one: not every op needs Triton."""
    module = f"gpe.ops.triton.{op}"
    if importlib.util.find_spec(module) is None:
        return False
    importlib.import_module(module)
    return True


@cache
def _log_once(message: str) -> None:
    log.warning("%s", message)

"""Which implementation serves which device: forced, missing, broken, and what is said about it."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import gpe
from gpe.ops import backend

ROOT = Path(__file__).parents[2]
IMAGES, LOCATIONS = torch.ones(2, 3, 4, 4), torch.tensor([0, 8])


def place() -> None:
    gpe.place_on_grid(IMAGES, LOCATIONS, 3)


def test_a_forced_backend_serves(served):
    diagnosis = gpe.doctor()
    assert diagnosis.forced == os.environ["GPE_BACKEND"]
    assert diagnosis.active[served] == diagnosis.forced


def test_the_first_that_is_ready_serves(monkeypatch):
    monkeypatch.delenv("GPE_BACKEND", raising=False)
    diagnosis = gpe.doctor()
    assert diagnosis.forced is None
    ready = [name for name in backend.BACKENDS if diagnosis.status["cpu", name].ready]
    assert diagnosis.active["cpu"] == ready[0]
    monkeypatch.setattr(backend, "extension", lambda: backend.Status(False, "not built"))
    assert gpe.doctor().active["cpu"] == "reference"


def test_an_unknown_backend_raises(monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", "cuda")
    expected = "GPE_BACKEND: expected one of compiled, triton, reference, got 'cuda'"
    with pytest.raises(gpe.InputError, match=expected):
        place()
    assert gpe.doctor().active == {"cpu": "none", "cuda": "none"}


def test_a_forced_backend_that_is_missing_raises(monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", "compiled")
    monkeypatch.setattr(backend, "extension", lambda: backend.Status(False, "not built"))
    with pytest.raises(gpe.InputError, match=r"GPE_BACKEND=compiled: .* cpu tensors: not built"):
        place()
    assert gpe.doctor().active["cpu"] == "none"


def test_forced_triton_raises_for_cpu_tensors_outside_its_interpreter(monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(gpe.InputError, match="GPE_BACKEND=triton: not there for cpu tensors"):
        place()


def test_other_devices_take_the_reference_where_triton_is_installed_too(monkeypatch):
    monkeypatch.delenv("GPE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    assert backend.choose("mps") == "reference"


def test_the_interpreter_serves_nobody_by_default(monkeypatch):
    monkeypatch.delenv("GPE_BACKEND", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(backend, "extension", lambda: backend.Status(False, "not built"))
    assert gpe.doctor().active["cpu"] == "reference"


def test_an_op_without_a_triton_kernel_takes_the_reference_and_says_so(monkeypatch, caplog):
    monkeypatch.delenv("GPE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "choose", lambda device: "triton")
    backend._log_once.cache_clear()
    served = backend.implementation("region_confusion", "cpu")
    assert served is backend.reference.region_confusion
    said = "gpe: region_confusion has no Triton kernel, cpu tensors take reference"
    assert said in caplog.messages


def test_a_build_without_cuda_says_why(monkeypatch):
    if not backend.extension().ready:
        pytest.skip("no compiled kernels")
    monkeypatch.setattr("gpe._build.CUDA", None)
    monkeypatch.setattr("gpe._build.REASON", "GPE_CUDA=0")
    status = gpe.doctor().status
    assert status["cuda", "compiled"] == (False, "gpe._C has no CUDA kernels: GPE_CUDA=0")
    assert status["cpu", "compiled"].ready


def test_the_diagnosis_prints_a_line_for_each_device_and_backend():
    lines = str(gpe.doctor()).splitlines()
    shown = {tuple(line.split()[:2]) for line in lines}
    assert shown >= {(device, name) for device in ("cpu", "cuda") for name in backend.BACKENDS}


# A gpe._C that cannot be used is one line, and everything works without it.

BROKEN = {
    "built for another torch": ("1.0", f"built for torch 1.0, this is {torch.__version__}"),
    "cannot be imported": (torch.__version__, "gpe._C cannot be imported: "),
}


@pytest.mark.parametrize(("version", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_extension_is_one_line_and_leaves_the_reference(version, reason):
    said = with_broken_extension(
        version,
        """
        images, locations = torch.ones(2, 3, 4, 4), torch.tensor([0, 8])
        for _ in range(3):
            canvas = gpe.place_on_grid(images, locations, 3)
        print(canvas.shape, canvas[1, :, 8:, 8:].sum().item(), canvas.sum().item())
        """,
    )
    assert said.stdout == "torch.Size([2, 3, 12, 12]) 48.0 96.0\n"
    (line,) = said.stderr.splitlines()
    assert line.startswith("gpe: cpu tensors take reference: ")
    assert reason in line


def test_a_forced_reference_does_not_warn():
    said = with_broken_extension(
        torch.__version__,
        "gpe.place_on_grid(torch.ones(1, 1, 2, 2), torch.tensor([0]), 2)",
        GPE_BACKEND="reference",
    )
    assert said.stderr == ""


def with_broken_extension(version: str, code: str, **environment: str):
    """Runs code in a process whose gpe._C was built for a torch, and cannot be imported."""
    start = (
        "import sys, types\n"
        "build = types.ModuleType('gpe._build')\n"
        f"build.TORCH, build.CUDA, build.REASON = {version!r}, None, ''\n"
        "sys.modules |= {'gpe._build': build, 'gpe._C': None}\n"
        "import gpe, torch\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "GPE_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", start + dedent(code)],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )

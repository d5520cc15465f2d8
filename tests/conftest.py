"""What all tests share: which implementations there are to test, and how close is close enough."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

# Where there is no GPU, Triton's kernels run in its interpreter. It must be told before the
# first kernel is defined; it serves only where GPE_BACKEND=triton asks for it.
if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

from gpe.ops import backend

# Real data, if somebody says where it lies; tests that need it are skipped where it does not.
SHARED_DATA = Path(os.environ.get("GPE_TEST_DATA", os.devnull))

# (rtol, atol) against a computation in float64: a few units in the last place. One table for
# all ops; a test that needs another says why.
TOLERANCE = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-6, 1e-6),
    torch.bfloat16: (8e-3, 8e-3),
    torch.float16: (1e-3, 1e-3),
}

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _served() -> list[tuple[str, str]]:
    """(device, backend) for each implementation that can run here."""
    pairs = [(device, name) for device in DEVICES for name in backend.BACKENDS]
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for device, name in pairs:
            patch.setenv("GPE_BACKEND", name)
            if backend._status(device, name).ready:
                found.append((device, name))
    return found


SERVED = _served()
WITHOUT_TRITON = [(device, name) for device, name in SERVED if name != "triton"]


@pytest.fixture(params=SERVED, ids="-".join)
def served(request, monkeypatch) -> str:
    """Forces each implementation in turn; the device that it serves.

    An op without a Triton kernel parametrises it with ``WITHOUT_TRITON``, indirectly.
    """
    device, name = request.param
    monkeypatch.setenv("GPE_BACKEND", name)
    torch.compiler.reset()  # or a function compiled with another one would serve again
    return device


@pytest.fixture
def interpreted() -> bool:
    """Whether this test runs in Triton's interpreter, which truncates to bfloat16."""
    return os.environ.get("GPE_BACKEND") == "triton" and "TRITON_INTERPRET" in os.environ


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A function from arguments to (exit code, stdout, stderr) of ``gpe``, in an empty directory.

    An exception that is not turned into an exit code fails the test.
    """
    from gpe import cli

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")  # which main sets for its process
    # Two threads gain nothing on tiny layers.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def gpe(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    yield gpe
    torch.set_num_threads(threads)

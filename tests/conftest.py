"""What all tests share: which implementations there are to test, and how close is close enough."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch

# Where there is no GPU, Triton's kernels run in its interpreter. It must be told before the
# first kernel is defined; it serves only where GPE_BACKEND=triton asks for it.
if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

from gpe.ops import backend
from tests.cuda_on_cpu import emulator

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
# The CUDA kernels on CPU tensors, where there is no GPU to run them.
if DEVICES == ["cpu"] and ("cpu", "compiled") in SERVED:
    SERVED += [("cpu", name) for name in emulator.NAMES]
WITHOUT_TRITON = [(device, name) for device, name in SERVED if name != "triton"]


@pytest.fixture(params=SERVED, ids="-".join)
def served(request, monkeypatch) -> str:
    """Forces each implementation in turn; the device that it serves.

    An op without a Triton kernel parametrises it with ``WITHOUT_TRITON``, indirectly.
    """
    device, name = request.param
    if name in emulator.NAMES:
        request.getfixturevalue("emulated")
        emulator.set_order(emulator.NAMES[name])
        monkeypatch.setattr(torch.ops, "gpe", torch.ops.gpe_emulated)
        name = "compiled"
    monkeypatch.setenv("GPE_BACKEND", name)
    torch.compiler.reset()  # or a function compiled with another one would serve again
    return device


@pytest.fixture
def emulated() -> None:
    """The CUDA kernels on CPU tensors, as ``torch.ops.gpe_emulated``."""
    if reason := emulator.why_not():
        pytest.skip(reason)
    emulator.load()
    emulator.set_order("forward")


@pytest.fixture
def asserts(served) -> bool:
    """Whether wrong numbers in a tensor end in a device-side assertion, as in CUDA kernels."""
    return served == "cuda" or torch.ops.gpe.name == "gpe_emulated"


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


@pytest.fixture
def local_hub(monkeypatch, tmp_path) -> Path:
    """A folder that stands for the Hugging Face Hub, behind the client's own signatures."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    folder = tmp_path / "hub"

    def create(self, repo_id, *, private, exist_ok):
        (folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload(self, *, path_or_fileobj, path_in_repo, repo_id):
        shutil.copy(path_or_fileobj, folder / repo_id / path_in_repo)

    def download(repo_id, filename):
        if not (folder / repo_id / filename).exists():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: {filename}\n\nsee elsewhere")
        return str(folder / repo_id / filename)

    api = huggingface_hub.HfApi
    for home, name, stands_for_it in (
        (api, "create_repo", create),
        (api, "upload_file", upload),
        (huggingface_hub, "hf_hub_download", download),
    ):
        its = create_autospec(getattr(home, name), side_effect=stands_for_it)
        monkeypatch.setattr(home, name, its)
    return folder

"""How ops are tested: by which kernels, with how many threads, in how much memory."""

import subprocess
import sys

import pytest
import torch

from tests.conftest import SERVED

compiled_for_cpu = pytest.mark.skipif(
    ("cpu", "compiled") not in SERVED, reason="no compiled kernels"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def compiled(device, monkeypatch) -> str:
    """Forces the compiled kernels; the device that they serve."""
    if (device, "compiled") not in SERVED:
        pytest.skip("no compiled kernels")
    monkeypatch.setenv("GPE_BACKEND", "compiled")
    return device


@pytest.fixture(params=((2**31, 4, 2, 1), (12, 2**31, 2, 1), (12, 4, 2**31, 1)))
def far_apart(request, compiled) -> torch.Tensor:
    """Maps of zeros ``[2,3,2,2]`` far apart in memory, of which hardly a page is touched."""
    memory = torch.empty(2**32 + 64, dtype=torch.bfloat16, device=compiled)
    return memory.as_strided((2, 3, 2, 2), request.param).zero_()


@pytest.fixture(params=("compiled", "triton"))
def captured(request, monkeypatch):
    """Forces each kind of GPU kernels; makes a CUDA graph of a function, and what it returns."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    monkeypatch.setenv("GPE_BACKEND", request.param)
    return _captured


def _captured(step):
    # What a first call sets up would not be allowed inside the graph.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph, result


def with_reference(function, *args, **kwargs):
    """What a public function gives where the reference serves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPE_BACKEND", "reference")
        return function(*args, **kwargs)


def with_threads(threads, function, *args, **kwargs):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return function(*args, **kwargs)
    finally:
        torch.set_num_threads(before)


def assert_same_bits(function, *args, **kwargs):
    """Twice, and with any number of threads, of the tensor or the tuple that comes back."""
    first = function(*args, **kwargs)
    for threads in (1, 2, 3, 7):
        again = with_threads(threads, function, *args, **kwargs)
        assert len(again) == len(first)
        assert all(map(torch.equal, first, again))


def skip_without_memory(device, gigabytes):
    if device != "cpu":
        return
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) * 1e3 for line in lines if "MemAvailable" in line)
    if free < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes} GB of free memory")


def largest_allocation(function, *args):
    """Of the memory that a call takes, the largest piece in bytes; what the call returns."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        result = function(*args)
    events = profiler.events()
    return max(max(e.cpu_memory_usage, e.device_memory_usage) for e in events), result


def complaint_of_a_gpu(code):
    """What a failing process of its own says: a device-side assertion ends the use of the GPU."""
    code = f"import gpe, torch; {code}; torch.cuda.synchronize()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr

"""What nvcc made of the kernels: no spills, bounded resources, 16 bytes at a time."""

import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from gpe.ops import backend

# Most registers of a thread. Of 65,536, two blocks of 256 threads need to fit a multiprocessor.
MOST_REGISTERS = 128
MOST_SHARED = 36 << 10  # static shared memory of a block, in bytes: six of them have 227 KB
# Of kernels that experiments spend their time in: six blocks of 256 threads fit, 48 warps of 64.
MOST_REGISTERS_OF_HOT = {"pool_small_planes": 40, "write_small_planes": 40}

# Kernels that take the size of a vector as their first template argument, or have just one, and
# what they do with 16 bytes.
VECTORISED = {
    "pool_planes": ["LDG"],
    "pool_pixels": ["LDG"],
    "pool_small_planes": ["LDGSTS"],
    "write_small_planes": ["LDG", "STG"],
    "write_planes": ["LDG", "STG"],
    "write_pixels": ["LDG", "STG"],
    "write_crops": ["STG"],
    "write_canvas": ["STG"],
    "move_patch": ["STG"],
}


def cuobjdump() -> str | None:
    found = shutil.which("cuobjdump")
    homes = [os.environ.get("CUDA_HOME", "/usr/local/cuda")]
    if triton := importlib.util.find_spec("triton"):  # brings its own
        homes.append(str(Path(triton.origin).parent / "backends" / "nvidia"))
    paths = (Path(home, "bin", "cuobjdump") for home in homes)
    return found or next((str(path) for path in paths if path.exists()), None)


@cache
def machine_code() -> Path:
    """The extension, where it holds CUDA kernels."""
    if not backend._compiled("cuda").ready:
        pytest.skip("no CUDA build: " + backend._compiled("cuda").reason)
    if cuobjdump() is None:
        pytest.skip("needs cuobjdump")
    return Path(importlib.util.find_spec("gpe._C").origin)


@cache
def dump(*options: str) -> str:
    command = [cuobjdump(), *options, str(machine_code())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_spills_and_bounded_resources():
    machine_code()
    pattern = r"Function (\S+):\n\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    usage = re.findall(pattern, dump("--dump-resource-usage"))
    assert len(usage) > 50
    for name, *numbers in usage:
        registers, stack, shared, local = map(int, numbers)
        hot = [most for kernel, most in MOST_REGISTERS_OF_HOT.items() if kernel in name]
        assert registers <= min([MOST_REGISTERS, *hot]), name
        assert stack == local == 0, name
        assert shared <= MOST_SHARED, name


@pytest.mark.parametrize("kernel", VECTORISED)
def test_hot_kernels_move_16_bytes_at_once(kernel):
    machine_code()
    found = 0
    for part in re.split(r"\n\s+Function : ", dump("-sass"))[1:]:
        name, body = part.split("\n", 1)
        size = re.search(rf"\d{kernel}I(?:Li(\d+)E)?", name)
        if size is None or size[1] == "1":
            continue
        found += 1
        for operation in VECTORISED[kernel]:
            assert re.search(rf"\b{operation}\.E\.(\w+\.)*128\b", body), (operation, name)
    assert found > 0

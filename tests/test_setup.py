"""setup.py chooses what to build and says so in one line. Nothing is compiled here.

A torch of paper stands in for the real one: its BuildExtension prints what it was told to build.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
PAPER_TORCH = {
    "__init__.py": """
        __version__ = "2.99"
        class version: cuda = "99.1"
        class cuda: is_available = staticmethod(lambda: False)
    """,
    "utils/__init__.py": "",
    "utils/cpp_extension.py": """
        import os
        from setuptools import Extension
        from setuptools.command.build_ext import build_ext

        def CppExtension(name, sources, **flags):
            return Extension(name, sources)

        CUDAExtension = CppExtension

        class BuildExtension(build_ext):
            def __init__(self, distribution, use_ninja):
                super().__init__(distribution)

            def run(self):
                os.makedirs(os.path.join(self.build_lib, "gpe"))
                print(*self.distribution.ext_modules[0].sources, sep="\\n")
                for name in ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS"):
                    print(f"{name}={os.environ.get(name)}")
    """,
}


@pytest.fixture
def setup_py(tmp_path):
    """Runs setup.py with the torch of paper, or without any; the toolkit it may find is in PATH."""
    write(tmp_path / "paper" / "torch", PAPER_TORCH)
    write(tmp_path / "none" / "torch", {"__init__.py": "raise ModuleNotFoundError('torch')"})

    def run(*arguments, torch="paper", **environment):
        cleared = ("CUDA_HOME", "CUDA_PATH", "GPE_CUDA", "MAX_JOBS", "TORCH_CUDA_ARCH_LIST")
        inherited = {name: value for name, value in os.environ.items() if name not in cleared}
        environment = {**inherited, "PYTHONPATH": str(tmp_path / torch), **environment}
        command = [sys.executable, "setup.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def build(setup_py, tmp_path):
    """Builds into a folder of its own; what was said, and what gpe._build holds."""

    def run(**environment):
        lib = tmp_path / "lib"
        done = setup_py("-q", "build_ext", f"--build-lib={lib}", **environment)
        assert done.returncode == 0, done.stderr
        information = {}
        exec((lib / "gpe" / "_build.py").read_text(), information)
        return done.stdout.splitlines(), information

    return run


@pytest.fixture
def toolkit(tmp_path):
    """A CUDA toolkit of the release that the torch of paper wants."""
    return write_toolkit(tmp_path / "toolkit", "99.3")


def test_metadata_needs_no_torch(setup_py):
    done = setup_py("-q", "--name", "--version", torch="none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert done.stdout.splitlines() == ["gpe", project["version"]], done.stderr


def test_without_torch_one_line_says_what_to_do(setup_py):
    done = setup_py("-q", "build_ext", torch="none")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gpe: building needs the torch that gpe will")
    assert "--no-build-isolation" in done.stderr


def test_a_fitting_nvcc_builds_the_cuda_kernels_without_a_gpu(build, toolkit):
    said, information = build(CUDA_HOME=toolkit)
    assert said[0] == f"gpe: building for CPU and CUDA 99.3 (nvcc 99.3 in {toolkit})"
    assert "csrc/cpu/place_on_grid.cpp" in said
    assert "csrc/cuda/place_on_grid.cu" in said
    assert f"CUDA_HOME={toolkit}" in said
    assert "TORCH_CUDA_ARCH_LIST=9.0+PTX" in said
    assert (information["TORCH"], information["CUDA"]) == ("2.99", "99.3")


def test_settings_of_the_user_stay(build, toolkit):
    said, _ = build(CUDA_HOME=toolkit, TORCH_CUDA_ARCH_LIST="8.0", MAX_JOBS="7")
    assert {"TORCH_CUDA_ARCH_LIST=8.0", "MAX_JOBS=7"} <= set(said)


def test_nvcc_in_the_path_is_found(build, toolkit):
    said, _ = build(PATH=f"{toolkit}/bin:{os.environ['PATH']}")
    assert said[0] == f"gpe: building for CPU and CUDA 99.3 (nvcc 99.3 in {toolkit})"


def test_no_fitting_nvcc_is_one_line_and_a_cpu_build(build, tmp_path):
    home = write_toolkit(tmp_path / "old", "98.0")
    said, information = build(CUDA_HOME=home)
    assert said[0].startswith("gpe: building for CPU (torch needs nvcc 99, found nvcc 98.0")
    assert not any(line.endswith(".cu") for line in said)
    assert information["CUDA"] is None
    assert information["REASON"].startswith("torch needs nvcc 99, found nvcc 98.0")


def test_nvcc_without_headers_does_not_count(build, toolkit):
    Path(toolkit, "include", "cuda_runtime.h").unlink()
    said, _ = build(CUDA_HOME=toolkit)
    assert said[0].startswith("gpe: building for CPU (torch needs nvcc 99, found ")


def test_cuda_can_be_left_out(build, toolkit):
    said, information = build(CUDA_HOME=toolkit, GPE_CUDA="0")
    assert said[0] == "gpe: building for CPU (GPE_CUDA=0)"
    assert information["CUDA"] is None


@pytest.mark.parametrize(
    ("value", "message"),
    (
        ("1", "gpe: GPE_CUDA=1, but torch needs nvcc 99, found "),
        ("2", "gpe: GPE_CUDA: expected 0 or 1, got '2'"),
    ),
)
def test_what_cannot_be_ends_with_one_line(value, message, setup_py):
    done = setup_py("-q", "build_ext", GPE_CUDA=value)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


def write_toolkit(home, release):
    nvcc, header = home / "bin" / "nvcc", home / "include" / "cuda_runtime.h"
    for path in (nvcc, header):
        path.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho Cuda compilation tools, release {release}, V{release}.1\n")
    nvcc.chmod(0o755)
    header.touch()
    return str(home)

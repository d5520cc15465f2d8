"""Builds gpe._C: the CPU kernels always, the CUDA kernels where an nvcc fits the installed torch.

GPE_CUDA=0 leaves CUDA out, GPE_CUDA=1 fails without it; GPE_SANITIZE=1 builds for `make sanitize`.
TORCH_CUDA_ARCH_LIST and MAX_JOBS mean what they mean for torch, which is imported only when
something is compiled.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
COMPILE_FLAGS = {
    # No fused multiply-adds: the CPU and the GPU then round alike.
    "cxx": ["-O3", "-g0", "-ffp-contract=off"],
    "nvcc": ["-O3", "--fmad=false", "--threads=2"],
}
GB_PER_JOB = 4


class BuildKernels(build_ext):
    """Hands over to torch's BuildExtension, so that metadata can be read without torch."""

    def run(self):
        cuda_home, cuda, reason = find_cuda()
        print(f"gpe: building for CPU{f' and CUDA {cuda}' if cuda else ''} ({reason})", flush=True)
        os.environ.setdefault("MAX_JOBS", str(jobs()))
        # An environment's ninja is found there even where nobody activated the environment.
        os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")
        # What torch would warn of (no GPU, another minor release of CUDA) is meant to be so.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        import torch

        if cuda:
            os.environ["CUDA_HOME"] = cuda_home
            if not torch.cuda.is_available():
                os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0+PTX")
        from torch.utils.cpp_extension import BuildExtension  # reads CUDA_HOME when imported

        self.distribution.ext_modules = [extension(bool(cuda))]
        command = BuildExtension(self.distribution, use_ninja=shutil.which("ninja") is not None)
        for option in ("build_lib", "inplace", "debug", "editable_mode"):
            setattr(command, option, getattr(self, option))
        # Ninja knows what must be compiled again where it finds what it compiled before, which
        # pip's temporary folders do not keep. A new Python, torch or CUDA starts afresh.
        command.force = True
        variant = f"{sys.implementation.cache_tag}-torch-{torch.__version__}-cuda-{cuda}"
        command.build_temp = str(ROOT / "build" / variant)
        command.ensure_finalized()
        command.run()
        self.write_build_information(torch.__version__, cuda, reason)

    def write_build_information(self, torch_version, cuda, reason):
        """What gpe/ops/backend.py reads before it imports gpe._C."""
        package = ROOT / "gpe" if self.inplace else Path(self.build_lib) / "gpe"
        lines = ["# Written by setup.py.", f"TORCH = {torch_version!r}"]
        lines += [f"CUDA = {cuda!r}", f"REASON = {reason!r}"]
        (package / "_build.py").write_text("\n".join(lines) + "\n")


def extension(cuda):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    openmp = ["-fopenmp"] if sys.platform.startswith("linux") else []
    flags = {**COMPILE_FLAGS, "cxx": COMPILE_FLAGS["cxx"] + openmp}
    if os.environ.get("GPE_SANITIZE") == "1":
        # One instruction set: what the loader runs to choose among several starts before ASan does.
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        flags["cxx"] += [
            *sanitizers,
            "-fno-sanitize=vptr",
            "-fno-wrapv",
            "-g1",
            "-O1",
            "-DGPE_MULTIVERSION=",
        ]
        openmp = openmp + sanitizers
    make = CUDAExtension if cuda else CppExtension
    return make("gpe._C", sources(cuda), extra_compile_args=flags, extra_link_args=openmp)


def sources(cuda):
    return files("*.cpp", "cpu/*.cpp", *(["cuda/*.cu"] if cuda else []))


def files(*patterns):
    found = (file for pattern in patterns for file in sorted((ROOT / "csrc").glob(pattern)))
    return [str(file.relative_to(ROOT)) for file in found]


def find_cuda():
    """CUDA's folder and release, None where it is left out; and why it is or is not built."""
    wanted = os.environ.get("GPE_CUDA", "")
    if wanted not in ("", "0", "1"):
        sys.exit(f"gpe: GPE_CUDA: expected 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None, None, "GPE_CUDA=0"
    home, release, reason = matching_toolkit()
    if wanted == "1" and not release:
        sys.exit(f"gpe: GPE_CUDA=1, but {reason}")
    return home, release, reason


def matching_toolkit():
    try:
        import torch
    except ModuleNotFoundError:
        sys.exit(
            "gpe: building needs the torch that gpe will run with: "
            "pip install torch 'setuptools>=77' ninja, "
            "then pip install --no-build-isolation ."
        )
    if torch.version.cuda is None:
        return None, None, "this torch has no CUDA"
    major = torch.version.cuda.split(".")[0]
    found = []
    for home in toolkit_homes(major):
        release = toolkit_release(home)
        if release and release.split(".")[0] == major:
            return home, release, f"nvcc {release} in {home}"
        found += [release] if release else []
    seen = f"nvcc {', '.join(dict.fromkeys(found))}" if found else "no nvcc"
    return None, None, f"torch needs nvcc {major}, found {seen}"


def toolkit_homes(major):
    """Where a toolkit may lie, the likeliest first."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    homes += [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    homes += [f"/usr/local/cuda-{major}", "/usr/local/cuda"]
    return [home for home in homes if home]


def toolkit_release(home):
    """The release of a complete toolkit, None where nvcc or the headers are missing."""
    nvcc, headers = Path(home, "bin", "nvcc"), Path(home, "include", "cuda_runtime.h")
    if not (nvcc.exists() and headers.exists()):
        return None
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", printed)
    return release and release.group(1)


def jobs():
    """As many compilers as there are cores and memory for."""
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        memory = int(available.group(1)) * 1024
    except OSError:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // (GB_PER_JOB * 2**30)))


if __name__ == "__main__":
    setup(
        # What a source distribution holds; BuildKernels builds with torch's extension.
        ext_modules=[Extension("gpe._C", sources(cuda=True), depends=files("**/*.h"))],
        cmdclass={"build_ext": BuildKernels},
    )

"""Builds gpe._C: the CPU kernels always, the CUDA kernels where an nvcc fits the installed torch.

GPE_CUDA=0 leaves CUDA out, GPE_CUDA=1 fails without it. TORCH_CUDA_ARCH_LIST and MAX_JOBS mean
what they mean for torch. torch is imported only when something is compiled.
"""

import os
import re
import shutil
import subprocess
import sys
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
        if cuda:
            os.environ["CUDA_HOME"] = cuda_home
            choose_architectures()
        from torch.utils.cpp_extension import BuildExtension  # reads CUDA_HOME when imported

        self.distribution.ext_modules = [extension(bool(cuda))]
        command = BuildExtension(self.distribution, use_ninja=shutil.which("ninja") is not None)
        for option in ("build_lib", "build_temp", "inplace", "force", "debug", "editable_mode"):
            setattr(command, option, getattr(self, option))
        command.ensure_finalized()
        command.run()
        self.write_build_information(cuda, reason)

    def write_build_information(self, cuda, reason):
        """What gpe/ops/backend.py reads before it imports gpe._C."""
        import torch

        package = ROOT / "gpe" if self.inplace else Path(self.build_lib) / "gpe"
        lines = ["# Written by setup.py.", f"TORCH = {torch.__version__!r}"]
        lines += [f"CUDA = {cuda!r}", f"REASON = {reason!r}"]
        (package / "_build.py").write_text("\n".join(lines) + "\n")


def extension(cuda):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    openmp = ["-fopenmp"] if sys.platform.startswith("linux") else []
    flags = {**COMPILE_FLAGS, "cxx": COMPILE_FLAGS["cxx"] + openmp}
    make = CUDAExtension if cuda else CppExtension
    return make("gpe._C", sources(cuda), extra_compile_args=flags, extra_link_args=openmp)


def sources(cuda):
    patterns = ["ops.cpp", "cpu/*.cpp"] + (["cuda/*.cu"] if cuda else [])
    return [
        f"csrc/{file.relative_to(ROOT / 'csrc')}"
        for pattern in patterns
        for file in sorted((ROOT / "csrc").glob(pattern))
    ]


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
        sys.exit("gpe: building needs torch: install it, then use --no-build-isolation")
    if torch.version.cuda is None:
        return None, None, "this torch has no CUDA"
    major = torch.version.cuda.split(".")[0]
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    homes += [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    homes += [f"/usr/local/cuda-{major}", "/usr/local/cuda"]
    found = []
    for home in filter(None, homes):
        release = toolkit_release(home)
        if release and release.split(".")[0] == major:
            return home, release, f"nvcc {release} in {home}"
        found += [release] if release else []
    seen = f"nvcc {', '.join(dict.fromkeys(found))}" if found else "no nvcc"
    return None, None, f"torch needs nvcc {major}, found {seen}"


def toolkit_release(home):
    """The release of a complete toolkit, None where nvcc or the headers are missing."""
    nvcc, headers = Path(home, "bin", "nvcc"), Path(home, "include", "cuda_runtime.h")
    if not (nvcc.exists() and headers.exists()):
        return None
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", printed)
    return release and release.group(1)


def choose_architectures():
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0+PTX")


def jobs():
    """As many compilers as there are cores and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory / GB_PER_JOB)))


setup(
    ext_modules=[Extension("gpe._C", sources(cuda=False))],
    cmdclass={"build_ext": BuildKernels},
)

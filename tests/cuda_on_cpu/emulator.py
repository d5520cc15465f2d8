"""Builds the CUDA kernels for the CPU, and chooses the order in which their threads run.

Each ``.cu`` file is compiled as it is but for launches, ``__shared__``, ``__launch_bounds__`` and
the names of CUDA's headers; ``cuda_on_cpu.h`` stands in for those, ``scheduler.cpp`` runs blocks.
"""

import ctypes
import fcntl
import os
import platform
import re
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import torch

from gpe.ops import gap_mse

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILDS = ROOT / "build" / "cuda_on_cpu"
OPS = ("dual_crop", "flip_difference", "gap_mse", "mask_channels", "place_on_grid")
OPS += ("region_confusion",)

# No fused multiply-adds, as in setup.py. Ubuntu's fortified longjmp takes fibers for an error.
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-fno-gnu-unique", "-U_FORTIFY_SOURCE")
FLAGS += ("-fvisibility=hidden", "-w")
ASAN = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g1")

ORDERS = {"forward": (0, 0), "reversed": (1, 0)}
ORDERS |= {f"random{seed}": (2, seed) for seed in (1, 2, 3)}
# Names of implementations to test, with the orders in which they run.
EVERYTHING = os.environ.get("GPE_EMULATOR") == "all"
NAMES = {"emulated": "forward"}
if EVERYTHING:
    NAMES |= {f"emulated-{order}": order for order in ("reversed", "random1", "random2")}


@cache
def load() -> None:
    """Makes torch.ops.gpe_emulated: once built, kept in build/ for as long as nothing changes."""
    load_library(build(flags=ASAN if "libasan" in os.environ.get("LD_PRELOAD", "") else ()))
    for op in OPS:
        module = import_module(f"gpe.ops.{op}")
        if hasattr(module, "register"):
            module.register("gpe_emulated")
    torch.library.register_fake("gpe_emulated::gap_mse", gap_mse.fake)


def load_library(path: Path) -> None:
    torch.ops.load_library(path)
    _libraries.append(ctypes.CDLL(str(path)))


_libraries: list[ctypes.CDLL] = []


def why_not() -> str | None:
    """Why nothing can be emulated here."""
    if platform.system() != "Linux":
        return "the emulator of CUDA kernels needs Linux"
    if shutil.which("g++") is None:
        return "the emulator of CUDA kernels needs g++"
    return None


def runtime_of_asan() -> list[str]:
    """What LD_PRELOAD must name; libstdc++ with it, since Python alone does not load it."""
    names = ("libasan.so", "libstdc++.so")
    return [
        subprocess.run(
            ["g++", f"-print-file-name={n}"], capture_output=True, text=True
        ).stdout.strip()
        for n in names
    ]


def set_order(name: str) -> None:
    """Of blocks, of a block's warps and of a warp's lanes: one of ``ORDERS``."""
    for library in _libraries:
        library.cuda_on_cpu_set_order(*ORDERS[name])


# Building


def build(
    change=lambda file, text: text,
    kernels=OPS,
    namespace="gpe_emulated",
    flags=(),
    more="",
) -> Path:
    """Compiles kernels to a library that registers ``torch.ops.<namespace>`` for CPU tensors.

    Args:
        change: of a file's name in csrc and its text, makes the text that is compiled instead.
        kernels: stems of those in csrc/cuda.
        more: further CUDA code.
    """
    sources = {}
    for path in sorted([*ROOT.glob("csrc/*.h"), *ROOT.glob("csrc/cuda/*"), HERE / "cuda_on_cpu.h"]):
        name = str(path.relative_to(path.parents[path.parent.name == "cuda"]))
        sources[name] = f'#line 1 "{name}"\n' + translated(change(name, path.read_text()))
    schemas = (ROOT / "csrc" / "ops.cpp").read_text()
    schemas = re.search(r"^TORCH_LIBRARY\(.*?^}$", schemas, re.DOTALL | re.MULTILINE).group()
    includes = (f'#include "{name}"' for name in ("cuda_on_cpu.h", "torch/library.h"))
    kernels_used = (f'#include "cuda/{kernel}.cu"' for kernel in kernels)
    sources["kernels.cpp"] = "\n".join((*includes, schemas, *kernels_used, translated(more)))
    sources["scheduler.cpp"] = (HERE / "scheduler.cpp").read_text()
    if "gap_mse" in kernels:
        sources["gap_mse.cpp"] = (ROOT / "csrc" / "gap_mse.cpp").read_text()
    for name, text in sources.items():
        text = re.sub(r"(TORCH_LIBRARY_IMPL)\(gpe, CUDA,", rf"\1({namespace}, CPU,", text)
        text = re.sub(r"(TORCH_LIBRARY\w*\()gpe,", rf"\1{namespace},", text)
        sources[name] = text.replace('"gpe::', f'"{namespace}::')
    return compiled(sources, flags)


def compiled(sources: dict[str, str], flags: tuple[str, ...]) -> Path:
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout
    content = repr((sources, flags, torch.__version__, version, Path(__file__).read_text()))
    folder = BUILDS / sha256(content.encode()).hexdigest()[:16]
    library = folder / "kernels.so"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of pytest may be at it
        if library.exists():
            return library
        for name, text in sources.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        torch_at = Path(torch.__file__).parent
        includes = ["-I."]
        for part in ("include", "include/torch/csrc/api/include"):
            includes += ["-isystem", str(torch_at / part)]
        running = [
            subprocess.Popen(
                ["g++", *FLAGS, *flags, *includes, "-c", name, "-o", name + ".o"],
                cwd=folder,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in sources
            if name.endswith(".cpp")
        ]
        said = "".join(process.communicate()[1] for process in running)
        if any(process.returncode for process in running):
            raise RuntimeError(f"g++ in {folder}:\n{said[:4000]}")
        objects = [f"{name}.o" for name in sources if name.endswith(".cpp")]
        links = ["-L", str(torch_at / "lib"), "-ltorch_cpu", "-ltorch", "-lc10"]
        linked = ["g++", "-shared", *flags, *objects, *links, "-o", "linked.so"]
        subprocess.run(linked, cwd=folder, check=True)
        os.replace(folder / "linked.so", library)
    return library


# Translation; every line keeps its number.


def translated(text: str) -> str:
    text = re.sub(r"#include <(c10/cuda|cub|cuda_pipeline|cuda_runtime).*>", "", text)
    return _launches(_shared(_launch_bounds(text)))


def _launch_bounds(text: str) -> str:
    """Takes the bounds out of a kernel's head, and checks them as its body begins."""
    while (found := text.find("__launch_bounds__(")) >= 0:
        begin = found + len("__launch_bounds__")
        end = _closing(text, begin)
        body = text.index("{", _closing(text, text.index("(", end))) + 1
        check = f" cuda_on_cpu::check_launch_bounds{text[begin:end]};"
        text = text[:found] + text[end:body] + check + text[body:]
    return text


def _shared(text: str) -> str:
    text = re.sub(
        r"extern __shared__ ([\w: ]+?) (\w+)\[\];",
        r"\1* const \2 = static_cast<\1*>(cuda_on_cpu::dynamic_shared(alignof(\1)));",
        text,
    )
    return re.sub(
        r"__shared__ ([^;=]+?)\b(\w+)((?:\[[^\]]*\])*);",
        r"static const char \2_key = 0; using \2_type = \1\3;"
        r" auto& \2 = cuda_on_cpu::shared<\2_type>(&\2_key);",
        text,
    )


def _launches(text: str) -> str:
    while (found := text.find("<<<")) >= 0:
        begin, end = _begin_of_name(text, found), text.index(">>>", found)
        kernel, configuration = text[begin:found], text[found + 3 : end]
        after = _closing(text, end + 3)
        arguments = text[end + 4 : after - 1]
        call = (
            f'cuda_on_cpu::launch({{{configuration}}}, "{" ".join(kernel.split())}", '
            f"cuda_on_cpu::Site::current(), [&](auto... arguments_of_kernel) "
            f"{{ {kernel}(arguments_of_kernel...); }}, {arguments})"
        )
        text = text[:begin] + call + text[after:]
    return text


def _begin_of_name(text: str, end: int) -> int:
    """Where a name, perhaps with template arguments, begins that ends at ``end``."""
    begin, depth = end, 0
    while text[begin - 1] == ">" or depth:
        begin -= 1
        depth += (text[begin] == ">") - (text[begin] == "<")
    return re.search(r"\w+$", text[:begin]).start()


def _closing(text: str, begin: int) -> int:
    """One past the bracket that closes the one at ``begin``."""
    depth = 0
    for i in range(begin, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"no end of {text[begin : begin + 40]!r}")


@contextmanager
def filled_memory():
    """Tensors that nobody wrote to hold NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

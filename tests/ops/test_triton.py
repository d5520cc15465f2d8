"""Triton's kernels compile for a GPU where there is none: the interpreter accepts more."""

import importlib.util
import os
import subprocess
import sys
from textwrap import dedent

import pytest

COMPILE = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from gpe.ops.triton import dual_crop, place_on_grid

    pointers = {"out": "*bf16", "images": "*u8", "scale": "*fp32", "shift": "*fp32"}
    pointers |= {"placed": "*i64", "locations": "*i64", "offsets": "*i64", "flips": "*i1"}
    for module, kernel, options in (
        (place_on_grid, place_on_grid._write_canvas, {}),
        (place_on_grid, place_on_grid._move_patch, {}),
        (dual_crop, dual_crop._write_crops, {"MODE": "reflect"}),
    ):
        constants = {name: getattr(module, name) for name in ("ROWS", "COLUMNS")}
        constants |= {"ROW_STEPS": 4, "COLUMN_STEPS": 2} | options
        kinds = {name: pointers.get(name, "i32") for name in kernel.arg_names}
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, signature=kinds, constexprs=constants)
        target = GPUTarget("cuda", 90, 32)
        ptx = compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]
        print("fused" if "fma" in ptx else "unfused")
"""


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")
def test_kernels_compile_for_sm_90_and_round_twice():
    """A fused multiply-add would round once, and give other bits than the reference."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMPILE)], env=inherited, capture_output=True, text=True
    )
    assert done.stdout.split() == ["unfused"] * 3, done.stderr


COMPILE_POOLING = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from gpe.ops.triton import pooling

    pointers = {"a": "*bf16", "b": "*bf16", "sums": "*fp32", "errors": "*fp32", "scale": "fp32"}
    for flat in (False, True):
        constants = {"FLAT": flat, "CHANNELS": 64, "PIXELS": 32, "STEPS": 4}
        kinds = dict.fromkeys(pooling._pool.arg_names, "i64") | pointers
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(pooling._pool, signature=kinds, constexprs=constants)
        print("atom" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")
def test_pooling_compiles_for_sm_90_without_atomics():
    """Atomics would add in another order on each run."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMPILE_POOLING)],
        env=inherited,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


COMPILE_OTHERS = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from gpe.ops.triton import flip_difference, mask_channels

    pointers = dict.fromkeys(("pooled", "mirrored", "difference"), "*fp32")
    pointers |= dict.fromkeys(("total", "absolute_total"), "*fp64")
    pointers |= {"features": "*bf16", "out": "*bf16", "masked": "*u8"}
    for kernel, constants in (
        (flip_difference._subtract, {"CHANNELS": 32}),
        (mask_channels._mask, {"IN_PLACE": False, "ELEMENTS": 1024}),
        (mask_channels._mask, {"IN_PLACE": True, "ELEMENTS": 1024}),
    ):
        kinds = {name: pointers.get(name, "i32") for name in kernel.arg_names}
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, signature=kinds, constexprs=constants)
        print("atom" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")
def test_flip_difference_and_mask_channels_compile_for_sm_90():
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMPILE_OTHERS)],
        env=inherited,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False"] * 3, done.stderr

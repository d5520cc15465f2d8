"""Triton's kernels compile for a GPU where there is none: the interpreter accepts more."""

import importlib.util
import os
import subprocess
import sys
from textwrap import dedent

import pytest

needs_triton = pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="triton is not installed"
)

COMPILE = """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    def ptx(kernel, pointers, constants, others="i32", **options):
        kinds = {name: pointers.get(name, others) for name in kernel.arg_names}
        kinds |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, signature=kinds, constexprs=constants)
        return compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
"""


def printed(code):
    """By code that has ``ptx``, in a process that knows nothing of the interpreter."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", dedent(COMPILE) + dedent(code)]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_triton
def test_kernels_compile_for_sm_90_and_round_twice():
    """A fused multiply-add would round once, and give other bits than the reference."""
    code = """
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
            compiled = ptx(kernel, pointers, constants, enable_fp_fusion=False)
            print("fused" if "fma" in compiled else "unfused")
    """
    assert printed(code) == ["unfused"] * 3


@needs_triton
def test_pooling_compiles_for_sm_90_without_atomics():
    """Atomics would add in another order on each run."""
    code = """
        from gpe.ops.triton import pooling

        pointers = {"a": "*bf16", "b": "*bf16", "sums": "*fp32", "errors": "*fp32", "scale": "fp32"}
        for flat in (False, True):
            constants = {"FLAT": flat, "CHANNELS": 64, "PIXELS": 32, "STEPS": 4}
            print("atom" in ptx(pooling._pool, pointers, constants, others="i64"))
    """
    assert printed(code) == ["False"] * 2


@needs_triton
def test_flip_difference_and_mask_channels_compile_for_sm_90():
    code = """
        from gpe.ops.triton import flip_difference, mask_channels

        pointers = dict.fromkeys(("pooled", "mirrored", "difference"), "*fp32")
        pointers |= dict.fromkeys(("total", "absolute_total"), "*fp64")
        pointers |= {"features": "*bf16", "out": "*bf16", "masked": "*u8"}
        for kernel, constants in (
            (flip_difference._subtract, {"CHANNELS": 32}),
            (mask_channels._mask, {"IN_PLACE": False, "ELEMENTS": 1024}),
            (mask_channels._mask, {"IN_PLACE": True, "ELEMENTS": 1024}),
        ):
            print("atom" in ptx(kernel, pointers, constants))
    """
    assert printed(code) == ["False"] * 3

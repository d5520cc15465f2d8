"""The emulator sees what CUDA leaves undefined, and bugs planted in the kernels."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import gpe
from tests.cuda_on_cpu import emulator
from tests.ops.maps import channels_last, two_maps

ORDERS = ("forward", "reversed", "random1", "random2", "random3")

# Kernels of selftest.cu with one mistake each, and what is said about it.
MISTAKES = {
    "not all reach the barrier": "deadlock .*threads 40 41 .* exited; threads 0 1 .* 39 wait",
    "two barriers": "threads 0 1 .* 31 wait at __syncthreads .*threads 32 33 .* 95 wait at",
    "lane left out": "a lane that its own mask leaves out",
    "lane exited": "the mask names lane 5, which has exited",
    "lane elsewhere": "threads 5 37 69 wait at __syncthreads",
    "shuffle from outside": "a shuffle from outside the mask",
    "too many threads": "__launch_bounds__",
    "no blocks": "a grid without blocks",
    "too many rows": "too large a grid",
    "too large a grid": "does not fit 32 bits",
    "too much shared memory": "too much shared memory",
}
# These give other bits in another order, or NaN.
UNDEFINED = (
    "reversed without barrier",
    "same place",
    "uninitialised",
    "not waited for",
    "wrong thread of the sum",
)


@cache
def selftest():
    text = (Path(__file__).parent / "selftest.cu").read_text()
    emulator.load_library(emulator.build(kernels=(), namespace="gpe_selftest", more=text))
    return torch.ops.gpe_selftest.selftest


def run(name: str, order: str) -> torch.Tensor:
    kernel = selftest()
    emulator.set_order(order)
    return kernel(torch.arange(96.0), name)


@pytest.mark.parametrize("order", ORDERS)
def test_right_kernels_are_right(order, emulated):
    numbers = torch.arange(96.0)
    assert torch.equal(run("reversed", order), numbers.flip(0))
    assert torch.equal(run("fetched", order), numbers)
    last = torch.tensor([31.0, 63, 95]).repeat_interleave(32)
    last[0] = numbers.sum() + 96 * 4 * 16
    assert torch.equal(run("collectives", order), last)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "message"), MISTAKES.items(), ids=MISTAKES)
def test_what_must_not_be_is_an_error(name, message, order, emulated):
    with pytest.raises(RuntimeError, match=message):
        run(name, order)
    assert torch.equal(run("reversed", order), torch.arange(96.0).flip(0))  # goes on after it


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_is_undefined_shows(name, emulated):
    results = [run(name, order) for order in ORDERS]
    assert results[0].isnan().any() or not all(torch.equal(results[0], r) for r in results)


@pytest.mark.parametrize("wrong", (-1, 9, 2**40))
def test_a_location_outside_the_grid_is_an_assertion(wrong, emulated):
    images, one = torch.zeros(1, 3, 2, 2), torch.ones(3)
    with pytest.raises(RuntimeError, match=r"device-side assert: .*locations must lie inside"):
        torch.ops.gpe_emulated.place_on_grid(
            images, torch.tensor([wrong]), 3, one, one, torch.float32, False
        )


@pytest.mark.parametrize("wrong", ((-1, 0), (0, -1), (1, 0), (0, 1), (2**40, 0)))
def test_a_crop_outside_the_padded_image_is_an_assertion(wrong, emulated):
    images, one = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.ones(1)
    offsets, flips = torch.tensor([[wrong]]), torch.zeros(1, 1, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"device-side assert: .*inside the padded image"):
        torch.ops.gpe_emulated.dual_crop(
            images, offsets, flips, (4, 4), (0, 0), "zeros", one, one, torch.float32, False
        )


# Bugs planted in a copy of the kernels


def planted(kernel: str, file: str, text: str, instead: str, flags: tuple[str, ...] = ()) -> Path:
    """A library torch.ops.gpe_<kernel> with one bug."""

    def change(name: str, code: str) -> str:
        if name != file:
            return code
        assert code.count(text) == 1, f"{file}: no longer has the line that the bug is put in"
        return code.replace(text, instead)

    return emulator.build(change, (kernel,), f"gpe_{kernel}", flags)


def test_a_missing_barrier_is_found(emulated):
    file, before = "cuda/pooling.h", "  A error = 0;\n  for (int i"
    emulator.load_library(planted("flip_difference", file, "  __syncthreads();\n" + before, before))
    maps = [channels_last(m) for m in two_maps(channels=64, height=8, width=8)]
    right = torch.ops.gpe_emulated.flip_difference(*maps, None, None)
    for order in ORDERS:
        emulator.set_order(order)
        wrong = torch.ops.gpe_flip_difference.flip_difference(*maps, None, None)
        assert not torch.equal(wrong[0], right[0])


@pytest.mark.parametrize("order", ORDERS)
def test_a_wrong_mask_is_found(order, emulated):
    count = _with_wrong_mask()
    emulator.set_order(order)
    labels = torch.zeros(1, 4, 40, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"count_tile.* lane 31|its own mask leaves out"):
        count(labels, labels, (0, 0, 4, 40), 3, 255)


@cache
def _with_wrong_mask():
    call = "__match_any_sync({}, pair)"
    mask, wrong = call.format("0xffffffff"), call.format("0x7fffffff")
    emulator.load_library(planted("region_confusion", "cuda/region_confusion.cu", mask, wrong))
    return torch.ops.gpe_region_confusion.region_confusion


def test_an_index_one_too_far_is_found(emulated):
    if not Path(emulator.runtime_of_asan()[0]).is_absolute():
        pytest.skip("needs g++ with its address sanitizer")
    check = "if (plane >= planes) return;"
    library = planted(
        "mask_channels",
        "cuda/mask_channels.cu",
        check,
        check.replace(">=", ">"),
        flags=emulator.ASAN,
    )
    call = (
        f"import torch; torch.ops.load_library({str(library)!r});"
        "torch.ops.gpe_mask_channels.mask_channels"
        "(torch.zeros(1, {}, 2, 2), torch.zeros({}, dtype=torch.bool))"
    )
    environment = os.environ | {"LD_PRELOAD": " ".join(emulator.runtime_of_asan())}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"
    done = subprocess.run(
        [sys.executable, "-c", call.format(3, 3)], env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "cuda/mask_channels.cu:" in done.stderr


def test_the_kernels_are_those_of_the_extension(emulated):
    schemas = {
        name.removeprefix("gpe::"): str(schema).partition("::")[2]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("gpe::")
        for schema in torch._C._jit_get_schemas_for_operator(name)
    }
    assert gpe.ops.backend.extension().ready and schemas
    for name, schema in schemas.items():
        (emulated_schema,) = torch._C._jit_get_schemas_for_operator(f"gpe_emulated::{name}")
        assert str(emulated_schema).partition("::")[2] == schema
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gpe_emulated::{name}", "CPU")

"""Ops called with right, odd and hostile arguments, drawn from a seed.

    python -m tests.fuzz.ops --calls 100000 --seed 0

A call may give what the reference gives, or raise an error that names its argument; anything else
is a fault. Chunks of calls run in processes of their own: a crash or a hang names its chunk, and
``--seed`` and ``--chunk`` repeat it. Exits with 1 where there was a fault.
"""

import argparse
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gpe

CALLS_PER_CHUNK = 1000
SECONDS_PER_CHUNK = 300
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16)

Arguments = dict[str, Any]


class Draw:
    """Arguments from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def side(self) -> int:
        return self.random.choice((1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33))

    def count(self) -> int:
        return self.random.choice((0, 1, 2, 3, 4, 6))

    def one_of(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def maps(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Numbers of any layout."""
        if dtype.is_floating_point:
            values = torch.randn(shape, generator=self.torch).to(dtype)
        else:
            values = torch.randint(0, 100, shape, generator=self.torch).to(dtype)
        if len(shape) != 4:
            return values
        layout = self.random.randrange(6)
        if layout == 1:
            return values.contiguous(memory_format=torch.channels_last)
        if layout == 2:
            return values.mT.contiguous().mT
        if layout == 3:
            return values.repeat_interleave(2, 3)[..., ::2]
        if layout == 4 and shape[2]:
            return values[:, :, :1].expand(shape)
        if layout == 5:
            return values.repeat_interleave(2, 1)[:, ::2]
        return values

    def integers(self, shape: tuple[int, ...], below: int) -> Tensor:
        return torch.randint(0, max(1, below), shape, generator=self.torch)

    def integer(self, value: int) -> Any:
        """The same, as Python's or one of numpy's."""
        return self.one_of(value, value, np.int64(value), np.int32(value), np.uint8(value % 256))


# Right arguments of each public function


def place_on_grid(draw: Draw) -> Arguments:
    grid, count, channels = draw.one_of(1, 2, 3, 5), draw.count(), draw.one_of(1, 2, 3, 4)
    shape = (count, channels, draw.side(), draw.side())
    arguments = {
        "images": draw.maps(shape, draw.one_of(torch.uint8, *FLOATS)),
        "locations": draw.integers((count,), grid**2),
        "grid_size": draw.integer(grid),
        "mean": draw.one_of(None, 0.5, np.float32(0.5), [0.1] * channels, np.ones(channels)),
        "std": draw.one_of(None, 2, (0.5,) * channels, torch.ones(channels)),
        "dtype": draw.one_of(None, *FLOATS),
        "memory_format": draw.one_of(torch.contiguous_format, torch.channels_last),
    }
    if draw.one_of(True, False):
        arguments["out"] = gpe.place_on_grid(**arguments).add_(1)
    return arguments


def dual_crop(draw: Draw) -> Arguments:
    count, height, width = draw.count(), draw.side(), draw.side()
    views, mode = draw.one_of(1, 2, 3), draw.one_of("zeros", "reflect", "replicate", "circular")
    most = {"reflect": min(height, width) - 1, "circular": min(height, width)}.get(mode, 5)
    padding = draw.random.randint(0, most)
    rows, columns = (draw.random.randint(1, side + 2 * padding) for side in (height, width))
    last = torch.tensor([height + 2 * padding - rows, width + 2 * padding - columns])
    return {
        "images": draw.maps((count, draw.one_of(0, 1, 3, 5), height, width), torch.uint8),
        "size": draw.one_of((rows, columns), [np.int64(rows), columns], np.array([rows, columns])),
        "offsets": draw.integers((views, count, 2), 1 << 30) % (last + 1),
        "flips": draw.integers((views, count), 2).bool(),
        "padding": draw.integer(padding),
        "padding_mode": mode,
        "dtype": draw.one_of(None, *FLOATS),
        "memory_format": draw.one_of(torch.contiguous_format, torch.channels_last),
    }


def gap_mse(draw: Draw) -> Arguments:
    shape = (2 * draw.count(), draw.one_of(0, 1, 5, 16, 33), draw.side(), draw.side())
    dtype = draw.one_of(*FLOATS)
    second = draw.maps(shape, dtype) if draw.one_of(True, False) else None
    return {"features_a": draw.maps(shape, dtype), "features_b": second}


def flip_difference(draw: Draw) -> Arguments:
    channels, dtype = draw.one_of(0, 1, 5, 16, 33), draw.one_of(*FLOATS)
    shape = (draw.count(), channels, *draw.one_of((), (draw.side(), draw.side())))
    totals = tuple(torch.ones(2, channels, dtype=torch.float64).unbind())
    return {
        "features": draw.maps(shape, dtype),
        "mirrored": draw.maps(shape, dtype),
        "totals": draw.one_of(None, totals),
    }


def mask_channels(draw: Draw) -> Arguments:
    count = draw.one_of(1, 2, 5, 17)
    shape = (draw.count(), count, *draw.one_of((), (draw.side(),), (draw.side(), draw.side())))
    dtype = draw.one_of(*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128)
    order = torch.randperm(count, generator=draw.torch)[: draw.random.randint(0, count)]
    features = draw.maps(shape, dtype)
    inplace = draw.one_of(True, False)
    return {
        "features": features.clone() if inplace else features,
        "channels": draw.one_of(order, order.tolist(), order.numpy()[::-1], tuple(order.numpy())),
        "inplace": inplace,
    }


def region_confusion(draw: Draw) -> Arguments:
    classes, height, width = draw.one_of(1, 2, 5, 19), draw.side(), draw.side()
    count, predicted = draw.count(), draw.one_of(True, False)
    labels = draw.integers((count, height, width), classes)
    labels[draw.integers(labels.shape, 10) == 0] = 99
    regions = []
    for _ in range(draw.one_of(1, 2, 3, 40)):
        top, left = draw.random.randrange(height), draw.random.randrange(width)
        bottom = draw.random.randint(top + 1, height)
        regions.append((top, left, bottom, draw.random.randint(left + 1, width)))
    shape = (count, classes, draw.side(), draw.side())
    predictions = draw.integers(labels.shape, classes).to(draw.one_of(*INTEGERS))
    return {
        "logits": predictions if predicted else draw.maps(shape, draw.one_of(*FLOATS)),
        "labels": labels.to(draw.one_of(*INTEGERS)),
        "regions": draw.one_of(regions, np.array(regions)),
        "num_classes": draw.integer(classes),
        "ignore_index": draw.integer(99),
    }


def fused_augshift_loss(draw: Draw) -> Arguments:
    count, channels, classes = draw.one_of(1, 2, 5), draw.one_of(1, 4), 3
    shape = (2 * count, channels, *draw.one_of((), (draw.side(), draw.side())))
    return {
        "features_a": draw.maps(shape, draw.one_of(*FLOATS)),
        "features_b": None,
        "head": lambda latents: latents.sum(1, keepdim=True).expand(-1, classes),
        "target": draw.integers((count,), classes),
        "weight": draw.one_of(0, 1.5, np.float32(2)),
        "label_smoothing": draw.one_of(0, 0.1),
    }


PUBLIC = (
    *(place_on_grid, dual_crop, gap_mse, flip_difference),
    *(mask_channels, region_confusion, fused_augshift_loss),
)


# Hostile values, for any argument


def hostile(draw: Draw, value: Any) -> Any:
    """Something in the place of ``value``: of another kind, or of a kind near to it."""
    strange: list[Callable[[], Any]] = [
        *(lambda: None, lambda: "ab", lambda: object(), lambda: {}, lambda: b"\0"),
        *(lambda: float("nan"), lambda: float("inf"), lambda: -1, lambda: 0, lambda: True),
        *(lambda: 2**63, lambda: -(2**70), lambda: 2**62, lambda: 10**5000, lambda: 1j),
        *(lambda: [], lambda: [1, "a"], lambda: [[1, 2], [3]], lambda: [2**80], lambda: (1, 2, 3)),
        *(lambda: np.float32("nan"), lambda: np.array(["a"]), lambda: np.ones((2, 2))),
        *(lambda: np.bool_(True), lambda: np.datetime64("2020-01-01"), lambda: torch.float8_e5m2),
        *(lambda: torch.ones(()), lambda: torch.ones(2, 3), lambda: torch.preserve_format),
    ]
    if isinstance(value, Tensor):
        strange += [
            *(lambda: value.tolist(), lambda: value[..., :-1], lambda: value[None]),
            *(lambda: value.to("meta"), lambda: value.to(torch.complex64), lambda: value.bool()),
            *(lambda: value.float().to_sparse(), lambda: value.float().to(torch.float8_e4m3fn)),
            lambda: value.double() * float("nan"),
            lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.quint8),
            lambda: value.refine_names(*"abcdefg"[: value.dim()]),
            lambda: torch.nested.nested_tensor([value.float(), value.float()]),
            *(lambda: value.long() - 7, lambda: value.long() + 2**40, lambda: value.long() * 0),
            *(lambda: value.to(torch.uint32), lambda: value.short(), lambda: value.half()),
            lambda: value.as_subclass(type("Other", (Tensor,), {})),
        ]
    return draw.one_of(*strange)()


# One call


def call(seed: int) -> str | None:
    """What is wrong with the call of a seed; None where nothing is."""
    draw = Draw(seed)
    function = draw.one_of(*PUBLIC)
    name, arguments = function.__name__, function(draw)
    changed = None
    if draw.random.random() < 0.6:
        changed = draw.one_of(*arguments)
        with suppress(Exception):  # what torch itself does not make
            arguments[changed] = hostile(draw, arguments[changed])
    if draw.random.random() < 0.15:
        return raw_call(draw, name)
    about = f"gpe.{name}, seed {seed}, {changed} = {_shown(arguments.get(changed or ''))}"
    expected = _outcome(name, _copied(arguments), "reference")
    got = _outcome(name, _copied(arguments), "compiled")
    for outcome in (expected, got):
        if isinstance(outcome, Exception) and not _is_named(outcome, arguments):
            return f"{about}: {type(outcome).__name__}: {outcome!s:.200}"
    if not isinstance(got, Exception) and all(tensor.numel() == 0 for tensor in got):
        return None  # no kernel ran, and none looked at the values of the arguments
    if isinstance(got, Exception) != isinstance(expected, Exception):
        return f"{about}: {got!r:.200} and not {expected!r:.200}"
    if isinstance(got, Exception) or (name == "region_confusion" and _level(got, expected)):
        return None
    try:
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2, equal_nan=True)
    except AssertionError as error:
        return f"{about}: {error!s:.200}"
    return None


def _outcome(name: str, arguments: Arguments, backend: str) -> Any:
    os.environ["GPE_BACKEND"] = backend
    try:
        result = getattr(gpe, name)(**arguments)
    except Exception as error:
        return error
    return tuple(result) if isinstance(result, tuple) else (result,)


def _is_named(error: Exception, arguments: Arguments) -> bool:
    """Whether it says which argument is wrong. That memory is short is an error of its own."""
    if "not enough memory" in str(error):
        return True
    first = re.split(r"[:\[]", str(error))[0]
    named = {*arguments, "out", "placed", "totals"}
    return isinstance(error, gpe.InputError) and all(n in named for n in first.split(", "))


def _level(got: tuple, expected: tuple) -> bool:
    """Whether confusions count the same pixels: of level logits either class may win."""
    return torch.equal(got[0].sum(-1), expected[0].sum(-1))


def _copied(arguments: Arguments) -> Arguments:
    """So that what is written in place is written once."""
    copied = dict(arguments)
    for name in ("features", "out"):
        if isinstance(copied.get(name), Tensor):
            with suppress(Exception):
                copied[name] = copied[name].clone()
    if isinstance(copied.get("totals"), tuple):
        copied["totals"] = tuple(
            t.clone() if isinstance(t, Tensor) else t for t in copied["totals"]
        )
    return copied


def _shown(value: Any) -> str:
    try:
        return (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
        )
    except Exception:
        return type(value).__name__


# Raw operators stay inside their tensors, whatever comes


def raw_call(draw: Draw, name: str) -> str | None:
    name = draw.one_of(*RAW)
    arguments = RAW[name](draw)
    if draw.random.random() < 0.7:
        place = draw.random.randrange(len(arguments))
        with suppress(Exception):
            arguments[place] = _near(draw, arguments[place])
    with suppress(ValueError, TypeError, RuntimeError, NotImplementedError, IndexError):
        getattr(torch.ops.gpe, name)(*arguments)
    return None  # it lives: a crash ends the process


def _near(draw: Draw, value: Any) -> Any:
    if isinstance(value, Tensor):
        return draw.one_of(
            *(value[..., :-1], value[:1], value.to("meta"), value.double(), value.long(), None),
            *(value.long() + 2**40, value.long() - 9, value.expand(2, *value.shape), value[:0]),
        )
    return draw.one_of([], [1], [1, 2, 3], 2**62, -1, 0, 2**63 - 1, [2**62, 2**62], [-1, 1], None)


def _raw_place(draw: Draw) -> list:
    images, (scale, shift) = draw.maps((3, 2, 4, 5), torch.uint8), torch.ones(2, 2)
    return [
        images,
        draw.integers((3,), 9),
        3,
        scale,
        shift,
        torch.float32,
        draw.one_of(True, False),
    ]


def _raw_move(draw: Draw) -> list:
    images, locations, grid, scale, shift, *_ = _raw_place(draw)
    canvas = torch.zeros(3, 2, 12, 15)
    return [canvas, draw.one_of(None, locations.flip(0)), images, locations, grid, scale, shift]


def _raw_crop(draw: Draw) -> list:
    images, offsets = draw.maps((3, 2, 4, 5), torch.uint8), draw.integers((2, 3, 2), 2)
    mode, ones = draw.one_of("zeros", "reflect", "circular", "x"), torch.ones(2)
    flips = torch.ones(2, 3, dtype=torch.bool)
    return [images, offsets, flips, [3, 4], [1, 1], mode, ones, ones, torch.float32, True]


def _raw_confusion(draw: Draw) -> list:
    regions = [0, 0, 8, 8, 1, 2, 3, 4]
    return [draw.maps((2, 3, 4, 4), torch.float32), draw.integers((2, 8, 8), 5), regions, 3, 4]


def _raw_maps(draw: Draw) -> list:
    return [draw.maps((2, 3, 4, 5), torch.float32) for _ in range(2)]


RAW: dict[str, Callable[[Draw], list]] = {
    "place_on_grid": _raw_place,
    "place_on_grid_": _raw_move,
    "dual_crop": _raw_crop,
    "region_confusion": _raw_confusion,
    "gap_mse": _raw_maps,
    "flip_difference": lambda draw: [*_raw_maps(draw), torch.zeros(3).double(), None],
    "mask_channels": lambda draw: [_raw_maps(draw)[0], torch.ones(3, dtype=torch.bool)],
    "mask_channels_": lambda draw: [_raw_maps(draw)[0].clone(), torch.ones(3, dtype=torch.bool)],
}


def faults(seeds: range) -> list[str]:
    """Of the calls of some seeds."""
    for function in PUBLIC:
        getattr(gpe, function.__name__)  # imports, and so registers, the operators
    before = os.environ.get("GPE_BACKEND")
    try:
        return [fault for seed in seeds if (fault := call(seed))]
    finally:
        os.environ.pop("GPE_BACKEND", None)
        if before is not None:
            os.environ["GPE_BACKEND"] = before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, help="only this one, in this process")
    options = parser.parse_args()
    if options.chunk is not None:
        first = options.seed * 10**9 + options.chunk * CALLS_PER_CHUNK
        found = faults(range(first, first + CALLS_PER_CHUNK))
        print("\n".join(found))
        return bool(found)
    bad, chunks = 0, -(-options.calls // CALLS_PER_CHUNK)
    for chunk in range(chunks):
        command = [sys.executable, "-m", "tests.fuzz.ops", "--seed", str(options.seed)]
        command += ["--chunk", str(chunk)]
        try:
            done = subprocess.run(
                command, timeout=SECONDS_PER_CHUNK, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            bad += 1
            print(f"chunk {chunk}: no end after {SECONDS_PER_CHUNK} s", flush=True)
            continue
        if done.returncode:
            bad += 1
            print(
                f"chunk {chunk}: {done.returncode}\n{done.stdout}{done.stderr[-500:]}", flush=True
            )
    print(f"{chunks * CALLS_PER_CHUNK} calls, {bad} of {chunks} chunks with faults")
    return bool(bad)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())

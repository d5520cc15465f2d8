"""What public ops check of tensors, and what transforms and compilers let them see of values."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gpe.errors import InputError, shown

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
)
ANY = (*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128)


def expect_tensor(
    name: str, value: object, dtypes: Sequence[torch.dtype], expected: str, first: bool = False
) -> None:
    """An InputError unless ``value`` is a strided tensor of one of ``dtypes``.

    The first of a call must be on a CPU or a GPU; :func:`expect_device` is for the others.
    """
    wrong = _what_is_wrong(value)
    if wrong:
        raise InputError(f"{name}: expected {expected}, got {wrong}")
    assert isinstance(value, Tensor)
    if value.dtype not in dtypes:  # quantized numbers, and those of less than a byte, never are
        shape = f" {list(value.shape)}" if "[" in expected else ""
        raise InputError(f"{name}: expected {expected}, got {value.dtype}{shape}")
    if first and value.is_meta:
        raise InputError(f"{name}: expected a tensor on a CPU or a GPU, got one on meta")


def expect_alike(name: str, value: Tensor, other: str, like: Tensor) -> None:
    """An InputError unless ``value`` is a tensor of the shape, dtype and device of ``like``."""
    expect_tensor(name, value, ANY, "a tensor")
    for what in ("shape", "dtype", "device"):
        expected, got = getattr(like, what), getattr(value, what)
        if expected != got:
            raise InputError(f"{name}: expected the {what} of {other}, {expected}, got {got}")


def expect_device(name: str, value: Tensor, other: str, like: Tensor) -> None:
    """An InputError unless both tensors are on one device."""
    if value.device != like.device:
        raise InputError(
            f"{name}: expected the device of {other}, {like.device}, got {value.device}"
        )


def expect_one_device(**tensors: Tensor | None) -> None:
    """What a kernel's shapes ask for: torch takes a meta tensor beside others for all of them."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, *others = given
    for name in others:
        expect_device(name, given[name], first, given[first])


def expect_values(name: str, value: Tensor) -> None:
    """An InputError where :func:`torch.func.vmap` maps over ``value``, which then has no values."""
    if _is_batched(value):
        raise InputError(f"{name}: expected a tensor over which torch.func.vmap does not map")


def expect_addressable(name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
    """An InputError where no machine has the bytes for a tensor of ``shape``."""
    if prod(shape) * dtype.itemsize >= 2**47:
        raise InputError(f"{name}: expected results that fit into memory, got {list(shape)}")


def expect_memory_format(value: object) -> None:
    """An InputError unless it is one of the two that canvases and crops can have."""
    if not isinstance(value, torch.memory_format) or value not in (
        torch.contiguous_format,
        torch.channels_last,
    ):
        raise InputError(
            f"memory_format: expected contiguous_format or channels_last, got {shown(value)}"
        )


def has_values(tensor: Tensor) -> bool:
    """Whether one can look at the values of a result, and it costs nothing."""
    # A type of its own, as of a fake tensor, has none.
    looked = tensor.is_cpu and type(tensor) is Tensor and not torch.compiler.is_compiling()
    return looked and not _is_batched(tensor)


def transformed(*tensors: Tensor | None) -> str:
    """By what, where torch.func or forward-mode AD asks for derivatives that no kernel has."""
    if torch.compiler.is_compiling():
        return ""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func transforms it"
    if forward_ad._current_level >= 0:
        given = (tensor for tensor in tensors if tensor is not None)
        if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in given):
            return "forward-mode AD follows it"
    return ""


def told(kernel: Callable, *args: object):
    """What a kernel yields; its word on a value that only it looked at is an InputError."""
    try:
        return kernel(*args)
    except ValueError as error:
        raise InputError(str(error).splitlines()[0]) from None


def asserted(value: Tensor, condition: Tensor, message: str) -> Tensor:
    """``value``, after an InputError where a ``condition`` does not hold, in compiled code too.

    On a GPU it is an assertion of the device. On the CPU the assertion of a compiler would end the
    process, where it is inside a parallel loop: an operator of its own looks.
    """
    if value.is_cuda:
        torch._assert_async(condition.all(), message)
        return value
    return _asserted(value, condition, message)


@torch.library.custom_op("gpe_checks::asserted", mutates_args=())
def _asserted(value: Tensor, condition: Tensor, message: str) -> Tensor:
    if not condition.all():
        raise InputError(message)
    return value.clone()


@_asserted.register_fake
def _(value: Tensor, condition: Tensor, message: str) -> Tensor:
    return torch.empty_like(value)


def overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors may have bytes in common, whichever storages they belong to."""
    (first, last), (begin, end) = _bytes(one), _bytes(other)
    return one.device == other.device and first < end and begin < last


def _bytes(tensor: Tensor) -> tuple[int, int]:
    first, count = tensor.data_ptr(), min(1, tensor.numel())
    if count:
        count += sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + count * tensor.itemsize


def _is_batched(tensor: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def _what_is_wrong(value: object) -> str | None:
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} {shown(value)}"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {value.layout}"
    names = () if torch.compiler.is_compiling() else getattr(value, "names", ())
    if any(names):
        return f"a tensor with named dimensions {names}"
    return None

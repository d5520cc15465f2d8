"""mask_channels in Triton, for dense maps; others take plain PyTorch, which walks any strides."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpe.ops import reference
from gpe.ops.mask_channels import register

ELEMENTS = 1024  # to a program


@torch.library.custom_op("gpe_triton::mask_channels", mutates_args=())
def mask_channels(features: Tensor, masked: Tensor) -> Tensor:
    out = torch.empty_like(features)
    period = _elements_of_a_channel(features)
    if period is None or out.stride() != features.stride():
        return out.copy_(reference.mask_channels(features, masked))
    _write(features, out, masked, period)
    return out


@torch.library.custom_op("gpe_triton::mask_channels_", mutates_args={"features"})
def mask_channels_(features: Tensor, masked: Tensor) -> None:
    period = _elements_of_a_channel(features)
    if period is None:
        reference.mask_channels_(features, masked)
    else:
        _write(features, features, masked, period)


def _elements_of_a_channel(features: Tensor) -> int | None:
    """How many lie side by side in memory; None where maps are neither NCHW nor channels-last."""
    if features.is_contiguous():
        return features.shape[2:].numel()
    return 1 if features.movedim(1, -1).is_contiguous() else None


def _write(features: Tensor, out: Tensor, masked: Tensor, period: int) -> None:
    count = features.numel()
    if count:
        _mask[(triton.cdiv(count, ELEMENTS),)](
            features, out, masked.view(torch.uint8), count, features.shape[1], period,
            IN_PLACE=out is features, ELEMENTS=ELEMENTS,
        )  # fmt: skip


@triton.jit
def _mask(
    features, out, masked, count, channels, period, IN_PLACE: tl.constexpr, ELEMENTS: tl.constexpr
):  # fmt: skip
    element = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = element < count
    zero = tl.load(masked + element // period % channels, mask=inside, other=0) != 0
    if IN_PLACE:
        nothing = tl.zeros((ELEMENTS,), out.dtype.element_ty)
        tl.store(out + element, nothing, mask=inside & zero)
    else:
        values = tl.load(features + element, mask=inside & (zero == 0), other=0)
        tl.store(out + element, values, mask=inside)


register("gpe_triton")

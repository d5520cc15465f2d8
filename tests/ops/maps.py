"""What ops are tested with: images, and feature maps of all dtypes, layouts and shapes."""

import torch
from torch.nn.functional import pad

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMATS = (torch.contiguous_format, torch.channels_last)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of the colours in CIFAR-10


def channels_last(maps):
    return maps.contiguous(memory_format=torch.channels_last)


# Each makes of maps [N,C,H,W] others, of the same shape, with strides of their own.
WRITABLE = {
    "contiguous": lambda maps: maps,
    "channels last": channels_last,
    "every other row": lambda maps: maps.repeat_interleave(2, 2)[:, :, ::2],
    "every other column": lambda maps: maps.repeat_interleave(2, 3)[:, :, :, ::2],
    "every third column": lambda maps: maps.repeat_interleave(3, 3)[:, :, :, ::3],
    "part of wider maps": lambda maps: pad(maps, (1, 2, 3, 1))[:, :, 3:-1, 1:-2],
    "part of wider channels-last maps": lambda maps: pad(channels_last(maps), (1, 2, 3, 1))[
        :, :, 3:-1, 1:-2
    ],
    "some of the channels": lambda maps: maps.repeat_interleave(2, 1)[:, ::2],
    "transposed": lambda maps: maps.mT.contiguous().mT,
}
# Expanded, a number lies in many places at once.
LAYOUTS = WRITABLE | {
    "one image for all": lambda maps: maps[:1].expand(maps.shape),
    "one row for all": lambda maps: maps[:, :, :1].expand(maps.shape),
    "one pixel for all": lambda maps: maps[:, :, :1, :1].expand(maps.shape),
}

# Arguments of ``two_maps``.
SHAPES = (
    {"count": 1, "channels": 1, "height": 1, "width": 1},
    {"height": 1, "width": 1},
    {"height": 1},
    {"width": 1},
    {"height": 7, "width": 7, "channels": 130},
    {"height": 7, "width": 7, "channels": 48},
    {"height": 8, "width": 8, "channels": 64},
    {"height": 2, "width": 2, "count": 9},
    {"height": 40, "width": 61, "channels": 2, "count": 1},
    {"height": 48, "width": 64, "channels": 16, "count": 1},
)


def two_maps(seed=0, *, count=3, channels=5, height=4, width=6, dtype=torch.float32, device="cpu"):
    """Both ``[N,C,H,W]``, with a mean of about 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, count, channels, height, width)
    return (torch.randn(shape, generator=generator) + 1).to(device, dtype).unbind()

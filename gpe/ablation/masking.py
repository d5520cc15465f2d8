"""Channels removed from any network for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from gpe.errors import InputError
from gpe.models.inside import find_layer
from gpe.ops.mask_channels import mask_channels


@contextmanager
def ablated(model: nn.Module, layer: str, channels: Tensor | Sequence[int]) -> Iterator[nn.Module]:
    """Within the block, ``layer`` of ``model`` yields zeros in these channels.

    Weights stay as they are, gradients pass through the other channels, and blocks may be
    nested: then the channels of all of them are removed.

    Args:
        model: any network.
        layer: its name in ``model.named_modules()``. It yields one tensor ``[N,C,...]``.
        channels: indices, int64 ``[k]`` or a sequence of integers; none removes nothing.

    Yields:
        The model itself. After the block, also after an error in it, it is as before.

    Raises:
        InputError: there is no such layer, with the nearest that there are; when the network
            runs, a layer that yields no tensor ``[N,C,...]``, and channels that are out of range
            or repeated.

    Source:
        Section 4.2.2: a removed channel is set to zero.

    Example:
        >>> import torch, gpe
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with gpe.ablated(net, "0", [0, 2]):
        ...     net(torch.ones(1, 4, 1, 1))
        tensor([[0., 1., 0., 1.]])
        >>> net(torch.ones(1, 4, 1, 1))
        tensor([[1., 1., 1., 1.]])
    """

    def mask(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() < 2:
            came = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"layer: expected {layer!r} to yield a tensor [N,C,...], got {came}")
        return mask_channels(output, channels)

    handle = find_layer(model, layer).register_forward_hook(mask)
    try:
        yield model
    finally:
        handle.remove()

"""A network run up to one of its layers, and no further."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gpe.errors import InputError
from gpe.models.layers import find_layer


def features_at(
    model: nn.Module,
    layer: str,
    images: Tensor,
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:  # [N,C,H,W] or [N,C]
    """What ``layer`` makes of ``images``; what comes after it is not run.

    Args:
        model: is not changed, and is run as it is: its mode is the caller's affair.
        layer: a name of ``model.named_modules()``. Where it runs more than once, its first output.
        images: one batch.
        weights: parameters and buffers to run with instead of the model's own, by name.

    Raises:
        InputError: no such layer, one that does not run, or whose output is not one feature map or
            latent of each image.
    """
    found = []

    def stop(module: nn.Module, arguments: tuple, output: object) -> None:
        found.append(output)
        raise _Reached

    handle = find_layer(model, layer).register_forward_hook(stop)
    try:
        functional_call(model, dict(weights), images) if weights else model(images)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not found:
        raise InputError(f"layer: expected one that runs, got {layer!r}, which does not")
    return _feature_map(layer, found[0], len(images))


def digest(model: nn.Module) -> str:
    """Tells weights apart: a hash of the names, types and bytes of the state dict."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict().items():
        hashed.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hashed.hexdigest()[:32]


class _Reached(Exception):
    """Ends a forward pass."""


def _feature_map(layer: str, output: object, count: int) -> Tensor:
    tensors = list(_tensors(output))
    if len(tensors) != 1:
        raise InputError(
            f"layer: expected one tensor from {layer!r}, got {len(tensors)} in a "
            f"{type(output).__name__}; name a module inside it"
        )
    features = tensors[0]
    shape = list(features.shape)
    if features.dim() not in (2, 4) or len(features) != count or not features.is_floating_point():
        raise InputError(
            f"layer: expected {layer!r} to yield floating [{count},C,H,W] or [{count},C], "
            f"got {features.dtype} {shape}"
        )
    return features


def _tensors(output: object):
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from _tensors(value)

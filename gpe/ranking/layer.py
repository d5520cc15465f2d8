"""A network run up to some of its layers, and no further."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gpe.errors import InputError
from gpe.models.inside import find_layer


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
    found = {}

    def keep(name: str, output: object) -> None:
        found[name] = _feature_map(name, output, len(images))

    _run(model, (layer,), images, weights or {}, keep)
    return found[layer]


def pooled_at(
    model: nn.Module, layers: Sequence[str], images: Tensor
) -> dict[str, Tensor]:  # each [N,C]
    """Global averages of what each of several layers makes of ``images``, from one pass.

    Args:
        model: as for :func:`features_at`.
        layers: names as there; what comes after the last of them to run is not run. They may also
            yield tokens ``[N,T,C]``, as a ViT does, or from square images ``[N,H,W,C]``, as Swin.
        images: one batch.

    Returns:
        By layer, in the order of ``layers``, in float32 or wider.

    Raises:
        InputError: as :func:`features_at`, or no layers.
    """
    if not layers:
        raise InputError("layers: expected one or more, got none")
    found = {}

    def pool(name: str, output: object) -> None:
        features = _feature_map(name, output, len(images), tokens=True)
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        places = _places(features, images)
        # A copy, since what comes after a layer may write over its output.
        found[name] = features.mean(places) if places else features.clone()

    _run(model, layers, images, {}, pool)
    return {layer: found[layer] for layer in layers}


def digest(model: nn.Module) -> str:
    """Tells weights apart: a hash of the names, types and bytes of the state dict."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict().items():
        hashed.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hashed.hexdigest()[:32]


class _Reached(Exception):
    """Ends a forward pass."""


def _run(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    weights: Mapping[str, Tensor],
    take: Callable[[str, object], None],
) -> None:
    """Runs ``model`` until each of ``layers`` has given its first output to ``take``."""
    due = set(layers)

    def hook(name: str) -> Callable:
        def on_output(module: nn.Module, arguments: tuple, output: object) -> None:
            if name in due:
                take(name, output)
                due.remove(name)
            if not due:
                raise _Reached

        return on_output

    modules = {name: find_layer(model, name) for name in layers}
    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        functional_call(model, dict(weights), images) if weights else model(images)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if due:
        missed = next(name for name in layers if name in due)
        raise InputError(f"layer: expected one that runs, got {missed!r}, which does not")


def _places(features: Tensor, images: Tensor) -> tuple[int, ...]:
    """The dimensions to average over: those that are neither images nor channels."""
    if features.dim() < 4:
        return tuple(range(1, features.dim() - 1))
    # Square images have square maps: where the last two sides differ, channels come last.
    square = images.shape[-1] == images.shape[-2]
    _, first, second, third = features.shape
    return (1, 2) if square and first == second != third else (2, 3)


def _feature_map(layer: str, output: object, count: int, *, tokens: bool = False) -> Tensor:
    tensors = list(_tensors(output))
    if len(tensors) != 1:
        raise InputError(
            f"layer: expected one tensor from {layer!r}, got {len(tensors)} in a "
            f"{type(output).__name__}; name a module inside it"
        )
    features = tensors[0]
    shape = list(features.shape)
    dims = (2, 3, 4) if tokens else (2, 4)
    if features.dim() not in dims or len(features) != count or not features.is_floating_point():
        also = f", [{count},T,C]" if tokens else ""
        raise InputError(
            f"layer: expected {layer!r} to yield floating [{count},C,H,W]{also} or [{count},C], "
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

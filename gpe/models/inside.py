"""One way to look inside any network: find a layer, run up to it, read and pool its latent."""

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache

import torch
from torch import Tensor, nn

from gpe.errors import InputError
from gpe.models.layout import Layout, layout_among
from gpe.models.running import (
    WRAPPED,
    Weights,
    calls_of,
    eager,
    forward,
    own_passes,
    tensors_of,
    untouched,
)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of a network that has this name in ``named_modules()``.

    Args:
        model: any network. What :func:`torch.compile` puts into names need not be written.
        name: as in ``"backbone.layer4"``; the name of the network itself, ``""``, is none.

    Returns:
        The module itself, not a copy.

    Raises:
        InputError: there is no such layer; the message names the nearest that there are.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> find_layer(net, "1")
        ReLU()
        >>> find_layer(nn.ModuleDict({"layer4": nn.ReLU()}), "layer5")
        Traceback (most recent call last):
        gpe.errors.InputError: layer: expected one of the network's, got 'layer5'; nearest: layer4
    """
    layers: dict[str, nn.Module] = {}
    for known, module in model.named_modules(remove_duplicate=False):
        layers.setdefault(known.replace(WRAPPED, ""), module)
        layers[known] = module
    if isinstance(name, str) and name and name.strip(".") and name in layers:
        return layers[name]
    names = [known for known in layers if known]
    # Of "layer4" in a network that has "backbone.layer4", no spelling is near enough.
    nearest = [known for known in names if name and known.endswith(f".{name}")]
    nearest += difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    nearest = list(dict.fromkeys(nearest))[:3] or [n for n, _ in model.named_children()][:3]
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise InputError(f"layer: expected one of the network's, got {name!r}{hint}")


def layout_of(
    model: nn.Module,
    layer: str,
    images: Tensor,
    *,
    channel_dim: int | None = None,
    weights: Weights | None = None,
) -> Layout:
    """Which dimension of a layer's output holds its channels.

    One image runs through the whole network. What tells, in this order: ``channel_dim``; the
    layer's own kind, as a convolution; what of the output's shape stays the same for an image of
    another size, where the network takes one; and where it takes none, the sizes of the layers in
    and after it, what timm's ``output_fmt`` says, and which of its dimensions have the image's
    proportions. These may not contradict each other.

    Args:
        model: any network; it runs in evaluation mode without gradients, and is left as it was.
        layer: a name of ``model.named_modules()``.
        images: floating ``[N,C,H,W]``; the first is looked at.
        channel_dim: of the layer's output, where the caller knows it; negative from the end.
        weights: as of :func:`gpe.models.running.forward`.

    Raises:
        InputError: no such layer; one that does not run, or more than once, with its calls; an
            output that is not one floating tensor ``[N,...]`` of two to four dimensions, or several
            maps with the same channels; one whose channels cannot be told apart; images that the
            network does not take.

    Example:
        >>> from torchvision.models import swin_t
        >>> layout = layout_of(swin_t().eval(), "features.1", torch.zeros(1, 3, 64, 64))
        >>> layout.channels, layout.dims
        (96, (3,))
    """
    return layouts_of(model, [layer], images, channel_dim=channel_dim, weights=weights)[layer]


def layouts_of(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    *,
    channel_dim: int | None = None,
    weights: Weights | None = None,
) -> dict[str, Layout]:
    """:func:`layout_of` for several layers, from the same passes."""
    modules = {layer: find_layer(model, layer) for layer in layers}

    @cache
    def outputs(height: int, width: int) -> dict[str, list[list[int]]]:
        found: dict[str, list[list[int]]] = {}

        def take(layer: str, output: object) -> None:
            found[layer] = [list(tensor.shape) for tensor in tensors_of(output)]

        with untouched(model), suppress(InputError):
            image = images.new_zeros(1, images.shape[1], height, width)
            run_to(model, layers, image, take, weights)
        return found

    with eager(model), untouched(model):
        calls = calls_of(model, images[:1], reach=[*modules.values()], weights=weights)
    return {
        layer: layout_among(calls, layer, module, model, images[:1], channel_dim, outputs)
        for layer, module in modules.items()
    }


def run_to(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    take: Callable[[str, object], None],
    weights: Weights | None = None,
) -> None:
    """Runs a network once, until each of some layers has given its first output, and no further.

    Its mode is the caller's affair. ``take`` is given a layer's name and output; what comes later
    may write over that.

    Raises:
        InputError: no such layer, one that does not run, or images that the network does not take.
    """
    due, own = {find_layer(model, name): name for name in layers}, own_passes()

    def on_output(module: nn.Module, arguments: tuple, output: object) -> None:
        if not own():
            return
        if (name := due.pop(module, None)) is not None:
            take(name, output)
        if not due:
            raise _Reached

    with ExitStack() as stack:
        network = stack.enter_context(eager(model))
        for module in due:
            stack.callback(module.register_forward_hook(on_output).remove)
        try:
            forward(network, images, weights)
        except _Reached:
            return
    missed = next(iter(due.values()))
    raise InputError(f"layer: expected one that runs, got {missed!r}, which does not")


def pooled_at(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    layouts: Mapping[str, Layout] | None = None,
) -> dict[str, Tensor]:  # each [N,C]
    """Averages over all places of what each of several layers makes of images, from one pass.

    They come by layer, in float32 or wider. Class tokens are left out, and several maps are
    averaged. With ``layouts``, of :func:`layouts_of`, these need not be asked for each batch.

    Raises:
        InputError: as :func:`layout_of`, or no layers.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
        >>> pooled_at(net, ["0", "1"], torch.zeros(2, 3, 8, 8))["1"].shape
        torch.Size([2, 8])
    """
    if not layers:
        raise InputError("layers: expected one or more, got none")
    if layouts is None:
        layouts = layouts_of(model, layers, images)
    found: dict[str, Tensor] = {}

    def pool(name: str, output: object) -> None:
        found[name] = layouts[name].pool(output, images)

    run_to(model, layers, images, pool)
    return {layer: found[layer] for layer in layers}


def maps_at(
    model: nn.Module,
    layer: str,
    images: Tensor,
    layout: Layout | None = None,
    weights: Weights | None = None,
) -> list[Tensor]:  # each [N,C,H,W] or [N,C]
    """A layer's latent with its channels second, one tensor for each of its maps.

    Tokens ``[N,T,C]`` come as ``[N,C,T,1]``, those of class left out. All are views. Where
    ``layout`` is None, :func:`layout_of` is asked.
    """
    layout = layout or layout_of(model, layer, images, weights=weights)
    found: dict[str, object] = {}
    run_to(model, (layer,), images, found.__setitem__, weights)
    return layout.maps(found[layer], images)


def digest(model: nn.Module) -> str:
    """Tells weights apart: a hash of the names, types and bytes of the state dict."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        name = name.replace(WRAPPED, "")
        hashed.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        hashed.update(raw.numpy().tobytes())
    return hashed.hexdigest()[:32]


class _Reached(BaseException):
    """Ends a forward pass; no network that guards itself against exceptions stops it."""

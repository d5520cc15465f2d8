"""Which layers of a network to read, from its images to its last feature map."""

import torch
from torch import Tensor, nn

from gpe.errors import InputError
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import find_layer

ENOUGH = 4  # stages that make a curve


def layers_by_depth(
    model: nn.Module, images: Tensor, *, inside: str = "", most: int = 8
) -> list[str]:
    """The stages of a network, first to last: the outermost modules that yield maps or tokens.

    Containers are opened, the largest first, until there are four or more. What has no weights to
    mix channels by (batch norm, ReLU, pooling) is no stage of its own.

    Args:
        model: run once, in evaluation mode, and left as it was.
        images: ``[N,C,H,H]``, square, as the model takes them; one is enough.
        inside: name of the module to look in, ``"backbone"``; all of the model if empty.
        most: of more stages so many are named, spread evenly, with the first and the last.

    Returns:
        Names of ``model.named_modules()``. The last one is the network's last feature map.

    Raises:
        InputError: there is no module ``inside``, or no stage.

    Example:
        >>> from torchvision.models import resnet18
        >>> layers_by_depth(resnet18(), torch.zeros(1, 3, 64, 64))
        ['conv1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    root = find_layer(model, inside) if inside else model
    mapped = _with_feature_maps(model, images)
    level, stages = [inside], []
    while len(stages) < ENOUGH:
        opened = [(name, children) for name in level if (children := _children(root, inside, name))]
        if not opened:
            break
        widest, children = max(opened, key=lambda pair: _size(model, pair[0]))
        if len(stages) > 1 and not any(child in mapped for child in children):
            break
        level = [n for name in level for n in (children if name == widest else [name])]
        stages = [name for name in mapped if name in level]
    if not stages:
        where = f"in {inside!r} of {type(model).__name__}" if inside else type(model).__name__
        raise InputError(
            f"layer: expected a network with feature maps [N,C,H,W], got {where} without any; "
            "name a layer that yields [N,C]"
        )
    if len(stages) <= most:
        return stages
    places = [round(place * (len(stages) - 1) / (most - 1)) for place in range(most)]
    return [stages[place] for place in places]


def _with_feature_maps(model: nn.Module, images: Tensor) -> list[str]:
    """Names of modules with weights that yield one feature map, in the order in which they do."""
    found: dict[str, None] = {}
    handles = []

    def watch(name: str, module: nn.Module):
        def on_output(module: nn.Module, arguments: tuple, output: object) -> None:
            # Maps, or the tokens of a ViT.
            if isinstance(output, Tensor) and output.dim() in (3, 4) and len(output) == len(images):
                found.setdefault(name)

        return module.register_forward_hook(on_output)

    for name, module in model.named_modules():
        if name and _mixes(module):
            handles.append(watch(name, module))
    try:
        with evaluating(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


def _mixes(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _children(root: nn.Module, inside: str, name: str) -> list[str]:
    below = name.removeprefix(inside).removeprefix(".")
    module = root.get_submodule(below)
    prefix = f"{name}." if name else ""
    return [prefix + child for child, part in module.named_children() if _mixes(part)]


def _size(model: nn.Module, name: str) -> int:
    return sum(parameter.numel() for parameter in model.get_submodule(name).parameters())

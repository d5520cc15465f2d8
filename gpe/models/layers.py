"""Layers of any network, by name."""

import difflib

from torch import nn

from gpe.errors import InputError


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of a network that has this name in ``named_modules()``.

    Args:
        model: any network.
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
    layers = dict(model.named_modules())
    if name and name in layers:
        return layers[name]
    names = [known for known in layers if known]
    # Of "layer4" in a network that has "backbone.layer4", no spelling is near enough.
    nearest = [known for known in names if name and known.endswith(f".{name}")]
    nearest += difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    nearest = list(dict.fromkeys(nearest))[:3] or [n for n, _ in model.named_children()][:3]
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise InputError(f"layer: expected one of the network's, got {name!r}{hint}")

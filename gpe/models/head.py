"""A classifier in two parts: what makes latents of images, and the linear layer that reads them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.errors import InputError


class SplitClassifier(NamedTuple):
    """A classifier in two parts, which share its weights.

    Attributes:
        trunk: the network with an identity in the linear layer's place: images to latents
            ``[N,C]``, also the output of its module ``layer``.
        head: the linear layer, from these to logits ``[N,K]``.
        layer: its name in ``named_modules()``.
    """

    trunk: nn.Module
    head: nn.Linear
    layer: str


def split_classifier(model: nn.Module, images: Tensor) -> SplitClassifier:
    """Splits a classifier before the linear layer that yields its logits.

    Behind a global average pooling the latents are the pooled channels of the last feature map,
    as in ResNets; a transformer's are those of its class token or mean. The model is left as it
    was.

    Args:
        model: any network in evaluation mode of which a linear layer yields the logits, such as
            most of torchvision and timm.
        images: a few that it takes, floating ``[N,3,H,W]``.

    Returns:
        Both parts.

    Raises:
        InputError: something else yields the logits, a convolution or a mean of two heads.

    Example:
        >>> from gpe.models import Classifier, resnet18
        >>> net = Classifier(resnet18(width=8, stem="cifar"), num_classes=10).eval()
        >>> images = torch.rand(2, 3, 32, 32)
        >>> trunk, head, layer = split_classifier(net, images)
        >>> layer, trunk(images).shape, head.weight.shape
        ('head', torch.Size([2, 64]), torch.Size([10, 64]))
    """
    outputs: dict[str, Any] = {}

    def note(name: str) -> Callable:
        return lambda module, arguments, output: outputs.update({name: output})

    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    handles = [one.register_forward_hook(note(name)) for name, one in linear.items() if name]
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    layer = next((name for name, output in outputs.items() if output is logits), None)
    if layer is None or logits.dim() != 2:
        raise InputError(
            "model: expected a classifier whose logits a linear layer yields, got "
            f"{type(model).__name__}, of whose {len(linear)} linear layers none does"
        )
    # The copy is of modules alone: it reads the same weights.
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    trunk = deepcopy(model, weights)
    above, _, name = layer.rpartition(".")
    setattr(trunk.get_submodule(above), name, nn.Identity())
    head = linear[layer]
    _expect_whole(trunk, head, images, logits)
    return SplitClassifier(trunk, head, layer)


def _expect_whole(trunk: nn.Module, head: nn.Linear, images: Tensor, logits: Tensor) -> None:
    """Raise an InputError unless both parts yield what the whole does."""
    with torch.no_grad():
        latents = trunk(images)
        fits = latents.shape == (len(images), head.in_features)
        # Linear layers of a kind of their own may do more than multiply.
        product = F.linear(latents, head.weight, head.bias) if fits else logits
        fits = fits and torch.allclose(product, logits, 1e-3, 1e-4)
    if not fits:
        raise InputError(
            "model: expected logits that are a linear map of latents, got others from "
            f"{type(head).__name__}"
        )

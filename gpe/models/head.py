"""A classifier in two parts: what makes latents of images, and the linear map that reads them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.errors import InputError
from gpe.models.running import forward, pick_logits


class NotLinearError(InputError):
    """Logits that are no linear map of latents."""


class SplitClassifier(NamedTuple):
    """A classifier in two parts.

    Attributes:
        trunk: the network with an identity in the head's place, sharing its weights: images to
            latents ``[N,C]``, also the output of its module ``layer``.
        head: from these to logits ``[N,K]``: the network's own linear layer, or the linear map
            that its head is.
        layer: name of the head, or of the first of two, in ``named_modules()``.
    """

    trunk: nn.Module
    head: nn.Linear
    layer: str


def split_classifier(model: nn.Module, images: Tensor) -> SplitClassifier:
    """Splits a classifier before the linear map that yields its logits.

    That is its last linear layer, a 1×1 convolution of pooled features, a batch norm with a linear
    layer, or the mean of two such heads of the same latents, as in distilled networks. Behind a
    global average pooling the latents are the pooled channels of the last feature map, as in
    ResNets; a transformer's are those of its class token or mean. Of heads of several layers
    (VGG, MobileNetV3) the latents are what the last one reads. The model is left as it was.

    Args:
        model: any network in evaluation mode whose logits are a linear map of latents, such as
            most of torchvision and timm.
        images: a few that it takes, floating ``[N,3,H,W]``.

    Returns:
        Both parts.

    Raises:
        NotLinearError: an InputError: the logits are no linear map of one latent: they are pooled
            (SqueezeNet), the mean of heads that read two tokens (DeiT) or one that takes a maximum
            (VOLO).

    Example:
        >>> from gpe.models import Classifier, resnet18
        >>> net = Classifier(resnet18(width=8, stem="cifar"), num_classes=10).eval()
        >>> images = torch.rand(2, 3, 32, 32)
        >>> trunk, head, layer = split_classifier(net, images)
        >>> layer, trunk(images).shape, head.weight.shape
        ('head', torch.Size([2, 64]), torch.Size([10, 64]))
    """
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if len(arguments) == 1 and _is_vector(arguments[0]) and _is_vector(output):
                calls[name] = arguments[0], output

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            logits = pick_logits(forward(model, images))
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(logits, Tensor) and logits.dim() == 2:
        for layers in _heads(model, calls, logits):
            if split := _split(model, layers, images, calls[layers[0]][0], logits):
                return split
    raise NotLinearError(
        "model: expected a classifier whose logits are a linear map of latents [N,C], got others "
        f"from {type(model).__name__}"
    )


def _is_vector(value: Any) -> bool:
    """``[N,C]``, or ``[N,C,1,1]``."""
    return isinstance(value, Tensor) and (
        value.dim() == 2 or (value.dim() == 4 and value.shape[2:] == (1, 1))
    )


def _heads(
    model: nn.Module, calls: dict[str, tuple[Tensor, Tensor]], logits: Tensor
) -> list[list[str]]:
    """Modules that may yield the logits together: those that read the same latents.

    A linear layer that does so alone goes before all else, then what is called last.
    """
    readers: dict[int, list[str]] = {}
    for name, (latents, output) in reversed(calls.items()):
        if output.shape[1] == logits.shape[1]:
            readers.setdefault(id(latents), []).append(name)
    heads = [
        # Of modules within each other the outermost.
        [name for name in names if not any(name.startswith(f"{other}.") for other in names)][::-1]
        for names in readers.values()
    ]
    alone = [
        [name]
        for name, (_, output) in calls.items()
        if output is logits and isinstance(model.get_submodule(name), nn.Linear)
    ]
    return alone + heads


@torch.no_grad()
def _split(
    model: nn.Module, layers: list[str], images: Tensor, latents: Tensor, logits: Tensor
) -> SplitClassifier | None:
    """Both parts, where the mean of ``layers`` is a linear map that yields the logits."""
    # The copy is of modules alone: it reads the same weights.
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    trunk = deepcopy(model, weights)
    for layer in layers:
        above, _, name = layer.rpartition(".")
        setattr(trunk.get_submodule(above), name, nn.Identity())
    try:
        given = trunk(images)
    except Exception:  # what follows does not take latents: these layers are not the head
        return None
    if not isinstance(given, Tensor) or given.shape != latents.shape[:2]:
        return None
    if not torch.allclose(given, latents.flatten(1)):
        return None
    head = model.get_submodule(layers[0])
    if len(layers) > 1 or not isinstance(head, nn.Linear):
        head = _as_linear([model.get_submodule(layer) for layer in layers], latents)
    # Linear layers of a kind of their own may do more than multiply.
    product = F.linear(given, head.weight, head.bias).to(logits.dtype)
    tolerance = max(1e-3, 4 * torch.finfo(logits.dtype).eps)
    fits = product.shape == logits.shape and torch.allclose(
        product, logits, tolerance, tolerance * logits.abs().max().item()
    )
    return SplitClassifier(trunk, head, layers[0]) if fits else None


def _as_linear(heads: list[nn.Module], latents: Tensor) -> nn.Linear:
    """What the mean of ``heads`` is if it is linear: of zeros the bias, of units the weights."""
    width = latents.shape[1]
    like = next(heads[0].parameters(), latents)  # under autocast the latents are of another dtype
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    units = torch.eye(width + 1, width, **options).reshape(-1, *latents.shape[1:])
    with torch.autocast(like.device.type, enabled=False):
        *weights, bias = torch.stack([head(units).flatten(1) for head in heads]).mean(0)
    linear = nn.Linear(width, len(bias), **options)
    linear.weight.copy_((torch.stack(weights) - bias).T)
    linear.bias.copy_(bias)
    return linear

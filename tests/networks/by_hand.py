"""What ranking and ablation yield, by plain hooks: no code of gpe, and one rule a layout."""

import timm
import torch
import torchvision
from torch import Tensor, nn


def build(name: str, side: int = 64, **options) -> nn.Module:
    """``timm/NAME`` or ``torchvision/NAME``, float64 with random weights, in evaluation mode.

    One of a fixed size is made for images of this side.
    """
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    if library == "timm":
        if timm.get_pretrained_cfg(name).fixed_input_size:
            options["img_size"] = side
        net = timm.create_model(name, **options)
    else:
        options |= {"image_size": side} if name.startswith("vit") else {}
        known = {"weights": None} | ({"init_weights": False} if name == "googlenet" else {})
        net = torchvision.models.get_model(name, **known, **options)
    # Zero gammas and layer scales of 1e-6 would leave most channels alike, zero heads all logits.
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            elif not parameter.any():
                parameter.normal_(std=0.02)
    return net.eval().double()


def output_of(net: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What a layer yields, by a hook, copied before the next one writes over it."""
    found = []

    def keep(module, arguments, output):
        found.append(output.clone())

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.no_grad():
            net(images)
    finally:
        handle.remove()
    (output,) = found
    return output


def pooled(output: Tensor, layout: str) -> Tensor:
    """By a layout that is written down: NCHW, NHWC, NTC, 1+NTC with a class token, or NC."""
    if layout == "NCHW":
        return output.mean((2, 3))
    if layout == "NHWC":
        return output.mean((1, 2))
    prefix, plus, tokens = layout.rpartition("+")
    if tokens == "NTC":
        return output[:, int(prefix) if plus else 0 :].mean(1)
    return output


def scores(net: nn.Module, layer: str, images: Tensor, layout: str) -> dict[str, Tensor]:
    """The scores of modes of ``rank_channels``."""
    one = pooled(output_of(net, layer, images), layout)
    other = pooled(output_of(net, layer, images.flip(-1)), layout)
    kernels = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    delta = (one - other).double()
    found = {"overall": delta.abs().mean(0), "left": delta[:1].mean(0)}
    for kernel in kernels:  # all of them: those behind the layer change nothing before it
        kernel.weight.data = kernel.weight.data.flip(-1)
    flipped = pooled(output_of(net, layer, images), layout)
    flipped_mirror = pooled(output_of(net, layer, images.flip(-1)), layout)
    for kernel in kernels:
        kernel.weight.data = kernel.weight.data.flip(-1)
    found["kernel_flip_mirror"] = (flipped - flipped_mirror).double().abs().mean(0)
    found["kernel_flip_pair"] = (one - flipped).double().abs().mean(0)
    return found


def without(net: nn.Module, layer: str, images: Tensor, layout: str, channels: Tensor) -> Tensor:
    """The logits without some channels of a layer."""

    def zero(module, arguments, output):
        output = output.clone()
        if layout in ("NCHW", "NC"):
            output[:, channels] = 0
        else:
            output[..., channels] = 0
        return output

    handle = net.get_submodule(layer).register_forward_hook(zero)
    try:
        with torch.no_grad():
            return net(images)
    finally:
        handle.remove()

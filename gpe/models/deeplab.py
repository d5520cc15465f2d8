"""DeepLabv3 (Chen et al. 2017) on ResNets, from torchvision's parts (paper, section 4.2)."""

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gpe.errors import InputError, expect_at_least_one, expect_one_of, needs
from gpe.models.checkpoints import first_dimension, fit, printable, read_checkpoint, ready
from gpe.models.running import forward, pick_logits

# torchvision takes a second to import: only inside the functions that need it.

Backbone = Literal["resnet18", "resnet50"]

# Blocks in each stage, and what the rates of the three dilated convolutions of ASPP are where the
# feature map is an eighth or a sixteenth of the image.
_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}

_AUTHORS_HEAD = "classifier.classifier."  # theirs is a module within a module


def deeplabv3(
    backbone: Backbone = "resnet50",
    num_classes: int = 19,
    *,
    output_stride: int = 16,
    width: int = 64,
) -> nn.Module:
    """A network for segmentation, with random weights.

    Args:
        backbone: ``"resnet18"`` (basic blocks) or ``"resnet50"`` (bottlenecks).
        num_classes: channels of the logits.
        output_stride: pixels of the image to a pixel of the feature map, 8 or 16: the last two
            stages, or the last one, are dilated in place of their strides.
        width: channels of the first stage; those of the others and of ASPP (four times as many)
            follow it. 64 gives the published networks.

    Returns:
        torchvision's ``DeepLabV3``, in training mode, from normalised images ``[N,3,H,W]`` to
        ``{"out": logits [N,num_classes,H,W]}``. The paper removes channels of its layer
        ``"backbone.layer4"``. With 64 and a ResNet-50 its weights have the names and shapes of
        torchvision's ``deeplabv3_resnet50`` without the auxiliary head.

    Raises:
        InputError: unknown backbone, another output stride, no classes, no channels.

    Example:
        >>> net = deeplabv3("resnet18", num_classes=5, width=8).eval()
        >>> net(torch.zeros(1, 3, 64, 96))["out"].shape
        torch.Size([1, 5, 64, 96])
        >>> low_resolution_logits(net, torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 5, 4, 6])
    """
    expect_one_of("backbone", backbone, get_args(Backbone))
    if type(output_stride) is not int or output_stride not in _RATES:
        raise InputError(f"output_stride: expected 8 or 16, got {output_stride!r}")
    expect_at_least_one("num_classes", num_classes)
    expect_at_least_one("width", width)
    with needs("deeplabv3"):
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.segmentation import DeepLabV3
        from torchvision.models.segmentation.deeplabv3 import ASPP

    resnet, channels = _resnet(backbone, width)
    dilation = 1
    for stage in ("layer3", "layer4")[0 if output_stride == 8 else 1 :]:
        dilation = _dilate(resnet.get_submodule(stage), dilation)

    # torchvision's DeepLabHead, but for its fixed width.
    head_width = 4 * width
    head = nn.Sequential(
        ASPP(channels, _RATES[output_stride], head_width),
        nn.Conv2d(head_width, head_width, 3, padding=1, bias=False),
        nn.BatchNorm2d(head_width),
        nn.ReLU(),
        nn.Conv2d(head_width, num_classes, 1),
    )
    return DeepLabV3(IntermediateLayerGetter(resnet, {"layer4": "out"}), head)


def low_resolution_logits(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of a segmentation network, before they are upsampled where that can be had.

    Args:
        model: yields logits alone, under ``"out"`` or ``"logits"``, or first in a tuple.
        images: floating ``[N,3,H,W]``, normalised.

    Returns:
        Logits ``[N,K,h,w]``. Those of :func:`deeplabv3` and torchvision's FCN and DeepLabv3 have
        the size of the feature map: upsampled bilinearly (``align_corners=False``) to ``H×W`` they
        are ``model(images)["out"]``. Those of others are as the network yields them.

    Raises:
        InputError: a network that does not take the images, or yields other than logits.

    Example:
        >>> images = torch.rand(1, 3, 64, 64)
        >>> low_resolution_logits(deeplabv3("resnet18", 3, width=8).eval(), images).shape
        torch.Size([1, 3, 4, 4])
    """
    from torchvision.models.segmentation.deeplabv3 import _SimpleSegmentationModel

    if isinstance(model, _SimpleSegmentationModel):
        return model.classifier(pick_logits(forward(model.backbone, images)))
    logits = pick_logits(forward(model, images))
    if not isinstance(logits, Tensor) or logits.dim() != 4:
        came = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"model: expected logits [N,K,h,w], got {came}")
    return logits


def load_deeplab_checkpoint(path: str | Path, *, output_stride: int | None = None) -> nn.Module:
    """A :func:`deeplabv3` with trained weights, in evaluation mode.

    Args:
        path: the paper's authors' file, ``{"model_state": state_dict, …}``; torchvision's of
            ``deeplabv3_resnet50`` (its auxiliary head is left out: only training uses it), or
            ``state_dict()`` of a :func:`deeplabv3`, in any form that
            :func:`gpe.models.checkpoints.read_checkpoint` knows.
        output_stride: that the network was trained with; weights do not tell it. None: what the
            file says under ``"output_stride"``, else 16 for ``{"model_state": …}``, as the
            authors' network has, and 8 for the other forms, as torchvision's has.

    Returns:
        The network, on the CPU. Backbone, width and number of classes are read from the weights.

    Raises:
        InputError: no such file, none of these forms, weights of another network (the message
            tells which names do not fit), or another output stride.

    Example:
        >>> load_deeplab_checkpoint("no/such/file.pth")
        Traceback (most recent call last):
        gpe.errors.InputError: path: there is no no/such/file.pth
    """
    checkpoint = read_checkpoint(path)
    stride = 16 if "model_state" in checkpoint.taken.split(".") else 8
    known = "backbone.conv1.weight", "classifier.4.weight", f"{_AUTHORS_HEAD}4.weight"
    weights = {
        name.replace(_AUTHORS_HEAD, "classifier."): value
        for name, value in fit(checkpoint.weights, known).items()
        if not name.startswith("aux_classifier.")
    }
    # On the meta device a network costs neither memory nor random numbers.
    with torch.device("meta"):
        model = deeplabv3(
            "resnet50" if "backbone.layer1.0.conv3.weight" in weights else "resnet18",
            first_dimension(weights, "classifier.4.weight", default=19),
            output_stride=output_stride or checkpoint.extras.get("output_stride", stride),
            width=first_dimension(weights, "backbone.conv1.weight", default=64),
        )
    whose = f"path: expected {printable(path)} to hold a DeepLabv3 on a ResNet-18 or ResNet-50"
    model.load_state_dict(ready(whose, weights, model.state_dict()), assign=True)
    return model.eval()


def _resnet(backbone: Backbone, width: int) -> tuple[nn.Module, int]:
    """torchvision's ResNet, whose first stage has ``width`` channels, and how many its last has."""
    from torchvision.models import resnet

    class Narrow(resnet.ResNet):
        def _make_layer(self, block, planes, *args, **options):
            planes = planes * width // 64
            if planes == width:  # the first stage: the stem is there, with 64 channels
                self.inplanes = width
                self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
            return super()._make_layer(block, planes, *args, **options)

    block = {"resnet18": resnet.BasicBlock, "resnet50": resnet.Bottleneck}[backbone]
    net = (resnet.ResNet if width == 64 else Narrow)(block, _DEPTHS[backbone])
    return net, 8 * width * block.expansion


def _dilate(stage: nn.Module, dilation: int) -> int:
    """Takes a stage's stride of 2 and spreads what follows it by 2: yields that dilation.

    Every second pixel of the new map is a pixel of the old one. torchvision does the same to
    bottlenecks, but refuses to do it to basic blocks.
    """
    for conv in (module for module in stage.modules() if isinstance(module, nn.Conv2d)):
        strided = conv.stride == (2, 2)
        if conv.kernel_size == (3, 3):
            # The convolution that had the stride sees the map that comes in.
            spread = dilation if strided else 2 * dilation
            conv.dilation = conv.padding = (spread, spread)
        conv.stride = (1, 1)
    return 2 * dilation

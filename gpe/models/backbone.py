"""What every network here asks of a backbone: its last feature map and the channels of it."""

from collections.abc import Mapping

from torch import Tensor, nn

from gpe.errors import InputError
from gpe.models.running import foreign, forward, untouched
from gpe.models.stages import last_feature_map

SIDES = (64, 224)  # of the images that a backbone is asked with, where it does not tell
# What may stand between a layer and the pooling without being a module.
_ACTIVATIONS = ("relu", "relu6", "hardtanh", "hardswish", "silu", "gelu")


def as_backbone(backbone: nn.Module, channels: int | None) -> tuple[nn.Module, int]:
    """A network that yields feature maps, and how many channels they have.

    Where a network does not tell its channels, it is run once. A classifier, of torchvision or
    another that torch.fx can trace, is cut before the pooling of its head; the parts that remain
    keep their weights and names.

    Raises:
        InputError: channels that are not given and cannot be found, or a classifier that cannot be
            cut.
    """
    told = _told(backbone)
    if told is not None or hasattr(backbone, "forward_features"):
        return backbone, _known(backbone, told if channels is None else channels)
    for side in SIDES if any(True for _ in backbone.parameters()) else ():
        weight = next(p for p in backbone.parameters() if p.is_floating_point())
        images = weight.new_zeros(1, 3, side, side)
        try:
            with untouched(backbone):
                output = forward(backbone, images)
        except InputError:
            continue
        if isinstance(output, Tensor) and output.dim() == 2 and channels != output.shape[1]:
            backbone, output = _cut(backbone, images)
        features = _last(output)
        if isinstance(features, Tensor) and features.dim() == 4:
            found = features.shape[1]
            return backbone, found if channels is None else channels
        break
    return backbone, _known(backbone, channels)


def feature_map(backbone: nn.Module, images: Tensor, channels: int) -> Tensor:
    """The backbone's last feature map, ``[N,channels,H,W]``."""
    features = _last(getattr(backbone, "forward_features", backbone)(images))
    if isinstance(features, Tensor) and features.ndim == 4:
        last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        if features.shape[1] == channels and not last:
            return features
        if features.shape[3] == channels:  # timm's Swin and its kin
            return features.permute(0, 3, 1, 2)
    came = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise InputError(
        f"backbone: expected a feature map [N,{channels},H,W], "
        f"got {came} from {type(backbone).__name__}"
    )


def _told(backbone: nn.Module) -> int | None:
    if (told := getattr(backbone, "num_features", None)) is not None:
        return int(told)
    info = getattr(backbone, "feature_info", None)  # timm, features_only=True
    return None if info is None else int(info.channels()[-1])


def _known(backbone: nn.Module, channels: int | None) -> int:
    if channels is None:
        raise InputError(
            "channels: expected the number of channels of the backbone's feature map, "
            f"which {type(backbone).__name__} does not tell, got None"
        )
    return channels


def _last(output: object) -> object:
    """The deepest map of several: that called ``"out"``, or the last one."""
    if isinstance(output, Mapping) and output:
        return output.get("out", [*output.values()][-1])
    return output[-1] if isinstance(output, list | tuple) and output else output


def _cut(classifier: nn.Module, images: Tensor) -> tuple[nn.Module, object]:
    """A classifier without its head, and what it makes of the images."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    layer = last_feature_map(classifier, images)
    kind = type(classifier).__name__
    with foreign(
        f"backbone: expected one that yields a feature map, or a classifier that torch.fx can cut "
        f"behind {layer!r}, got {kind}"
    ):
        nodes = get_graph_node_names(classifier)[1]
        own = [n for n, node in enumerate(nodes) if f"{node}.".startswith(f"{layer}.")]
        follows = nodes[own[-1] + 1 : own[-1] + 2] if own else []
        if follows and follows[0].partition("_")[0] in _ACTIVATIONS:
            layer = follows[0]
        trunk = create_feature_extractor(classifier, [layer])
    with untouched(trunk.train(classifier.training)):
        return trunk, forward(trunk, images)

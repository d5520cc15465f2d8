"""What every network here asks of a backbone: its last feature map and the channels of it."""

from torch import Tensor, nn

from gpe.errors import InputError


def feature_channels(backbone: nn.Module) -> int:
    """Channels of the backbone's last feature map, where it tells them."""
    if hasattr(backbone, "num_features"):
        return backbone.num_features
    if hasattr(backbone, "feature_info"):  # timm, features_only=True
        return backbone.feature_info.channels()[-1]
    raise InputError(
        "channels: expected the number of channels of the backbone's feature map, "
        f"which {type(backbone).__name__} does not tell, got None"
    )


def feature_map(backbone: nn.Module, images: Tensor, channels: int) -> Tensor:
    """The backbone's last feature map, ``[N,channels,H,W]``."""
    features = getattr(backbone, "forward_features", backbone)(images)
    if isinstance(features, list | tuple):
        features = features[-1]
    if isinstance(features, Tensor) and features.ndim == 4:
        if features.shape[1] == channels:
            return features
        if features.shape[3] == channels:  # timm's Swin and its kin
            return features.permute(0, 3, 1, 2)
    came = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise InputError(
        f"backbone: expected a feature map [N,{channels},H,W], "
        f"got {came} from {type(backbone).__name__}"
    )

"""A backbone with the usual head: global average pooling, then a linear layer."""

from torch import Tensor, nn

from gpe.errors import expect_at_least_one
from gpe.models.backbone import as_backbone, feature_map


class Classifier(nn.Module):
    """Backbone, global average pooling, linear layer: an image classifier.

    Args:
        backbone: as in :class:`gpe.GAPNet`.
        num_classes: number of logits.
        channels: of the feature map. Where None, the backbone tells them by ``num_features`` or
            timm's ``feature_info``, or is run once on black images to see them.

    Attributes:
        backbone: as given.
        head: the linear layer, from pooled features ``[N,channels]`` to logits.

    Raises:
        InputError: no classes, or channels that are not given and cannot be inferred; in
            ``forward`` and ``forward_features``, a backbone that yields no such feature map.

    Example:
        >>> import torch
        >>> from gpe.models import resnet18
        >>> net = Classifier(resnet18(width=8, stem="cifar"), num_classes=10)
        >>> images = torch.zeros(2, 3, 32, 32)
        >>> net(images).shape, net.forward_features(images).shape
        (torch.Size([2, 10]), torch.Size([2, 64, 4, 4]))
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, channels: int | None = None):
        super().__init__()
        expect_at_least_one("num_classes", num_classes)
        self.backbone, self.channels = as_backbone(backbone, channels)
        self.head = nn.Linear(self.channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N,3,H,W]`` to logits ``[N,num_classes]``."""
        return self.head(self.forward_features(images).mean((2, 3)))

    def forward_features(self, images: Tensor) -> Tensor:
        """Images ``[N,3,H,W]`` to the feature map before pooling, ``[N,channels,H',W']``."""
        return feature_map(self.backbone, images, self.channels)

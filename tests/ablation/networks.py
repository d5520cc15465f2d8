"""Small networks of many kinds, whose batch norms do something."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.models.deeplab import deeplabv3

CLASSES, SIZE = 5, (48, 64)


def deeplab50() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_resnet50

    return deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )


def deeplab18() -> nn.Module:
    return deeplabv3("resnet18", CLASSES, width=16, output_stride=8)


def fcn() -> nn.Module:
    from torchvision.models.segmentation import FCN
    from torchvision.models.segmentation.fcn import FCNHead

    return FCN(deeplabv3("resnet18", CLASSES, width=16).backbone, FCNHead(128, CLASSES))


class Decoder(nn.Module):
    """A user's own: a skip connection past the layer, a size read from the images, two results."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.encoder = nn.Sequential(nn.Conv2d(8, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.Conv2d(24, 8, 1)
        self.head = nn.Conv2d(16, CLASSES, 3, padding=1)

    def forward(self, images: Tensor, scale: float | None = None) -> tuple[Tensor, int]:
        skip = self.stem(images)
        deep = self.encoder(skip)
        deep = F.interpolate(self.up(deep), skip.shape[-2:], mode="bilinear") + deep.mean(
            (1, 2, 3), True
        )
        if scale is not None:
            deep = deep * scale
        logits = self.head(torch.cat([skip, F.relu_(deep)], 1))
        return F.interpolate(logits, size=images.shape[2:], mode="nearest"), self.up.out_channels


class PlainHead(nn.Module):
    """Logits at a quarter of the size, from a convolution that reads the layer past a dropout."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 24, 3, 4, 1), nn.ReLU())
        self.drop = nn.Dropout2d()
        self.head = nn.Sequential(
            nn.Conv2d(24, 12, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(12, CLASSES, 1),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.drop(self.encoder(images)))}


class Branching(PlainHead):
    """Goes on in a way that depends on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        features = features * 2 if features[:, 0].abs().sum() > 0 else features
        return self.head(features)


class Mixing(PlainHead):
    """What it says of an image depends on the others of the batch."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        return self.head(features - features.mean())


class Twice(PlainHead):
    """Calls the layer twice."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images) + self.encoder(images.flip(3)))


class Classifier(nn.Module):
    """Pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 24, 3, 4, 1), nn.ReLU())
        self.head = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images).mean((2, 3)))


# How to make one, the layer, its channels, and the engine that is chosen.
NETWORKS = {
    "deeplab50": (deeplab50, "backbone.layer4", 2048, "incremental"),
    "deeplab18": (deeplab18, "backbone.layer4", 128, "incremental"),
    "deeplab18, within": (deeplab18, "backbone.layer3.1.conv1", 64, "general"),
    "deeplab18, before a stage": (deeplab18, "backbone.layer3", 64, "incremental"),
    "fcn": (fcn, "backbone.layer4", 128, "incremental"),
    "decoder": (Decoder, "encoder", 24, "general"),
    "plain head": (PlainHead, "encoder", 24, "incremental"),
    "branching": (Branching, "encoder", 24, "rerun"),
    "classifier": (Classifier, "encoder", 24, "incremental"),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = NETWORKS[name][0]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.3, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return net.eval()


def batches(count: int = 2, size: int = 2, *, whole: bool = False) -> list[tuple]:
    """Images, labels (one for each pixel, or for the whole image) and ids."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for batch in range(count):
        images = torch.randn(size, 3, *SIZE, generator=generator)
        shape = (size,) if whole else (size, *SIZE)
        labels = torch.randint(CLASSES, shape, generator=generator)
        if not whole:
            labels[:, ::7] = 255
        made.append((images, labels, [f"{batch}/{image}" for image in range(size)]))
    return made

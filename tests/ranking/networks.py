"""Small networks and images that the ranking's tests share."""

import torch
from torch import nn


def images(count=12, *, height=12, width=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator, dtype=dtype)


class Stacked(nn.Module):
    """Plain, grouped, depthwise and transposed convolutions, stride 1, and a head."""

    def __init__(self, stride=1):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride, 1)
        self.grouped = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.transposed = nn.ConvTranspose2d(8, 10, (3, 5), padding=(1, 2), groups=2)
        self.features = nn.ReLU()
        self.along = nn.Conv1d(10, 10, 3, padding=1)
        self.head = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, images):
        maps = self.norm(self.depthwise(self.grouped(self.first(images).relu()).relu()))
        features = self.features(self.transposed(maps))
        pooled = self.along(features.mean((2, 3))[:, :, None])
        return self.head(features * pooled[..., None])


def stacked(**options):
    torch.manual_seed(0)
    return Stacked(**options).double()


def paper(model, batches, layer_of):
    """The paper's own procedure: image by image, the pooled latents, |Δ| and Δ averaged."""
    model.eval()
    deltas = []
    with torch.no_grad():
        for image in batches.split(1):
            z = layer_of(model, image).mean((2, 3))
            z_mirror = layer_of(model, image.flip(-1)).mean((2, 3))
            deltas.append((z - z_mirror)[0])
    return torch.stack(deltas)

"""AugShift in a plain PyTorch loop, on handwritten digits: python examples/augshift_pytorch.py"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import gpe
from gpe.metrics import shift_consistency

SHIFT = 4  # pixels, of images of 16×16


def main(epochs: int = 6, weight: float = 1.0) -> list[float]:
    """Trains a small network with λ = ``weight``; the mean loss of each epoch."""
    torch.manual_seed(0)
    images, labels = digits()
    train, test = torch.arange(len(images)).tensor_split([1437])

    # Any network will do that can be split where it pools.
    backbone = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
    )
    head = nn.Linear(64, 10)
    network = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)

    def score(when: str) -> None:
        found = shift_consistency(
            network, images[test], labels[test], max_shift=SHIFT, protocol="zeros", passes=5
        )
        print(f"{when}: accuracy {found.accuracy:.1%}, consistency {found.consistency:.1%}")

    score("before")
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in train[torch.randperm(len(train))].split(64):
            offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(batch), 2))
            flips = torch.zeros(2, len(batch), dtype=torch.bool)  # digits are not symmetric
            crops = gpe.dual_crop(images[batch], 16, offsets, flips, padding=SHIFT)
            features = backbone(crops.flatten(0, 1))  # first all first crops, then the second
            loss = gpe.fused_augshift_loss(features, None, head, labels[batch], weight=weight).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(train))
    score("after")
    return losses


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 ``[1797,1,16,16]`` and int64 ``[1797]``."""
    small = load_digits()
    images = torch.from_numpy(small.images * (255 / 16)).to(torch.uint8)[:, None]
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3), torch.from_numpy(small.target)


if __name__ == "__main__":
    main()

"""AugShift in a plain PyTorch loop, on handwritten digits: python examples/augshift_pytorch.py"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import gpe
from gpe.metrics import Consistency, shift_consistency

SHIFT = 2  # pixels, of images of 8×8


def main(epochs: int = 8) -> tuple[list[float], Consistency]:
    """Trains a small network; the mean loss of each epoch, and the consistency afterwards."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images * 15).to(torch.uint8)[:, None]  # [1797,1,8,8]
    labels = torch.from_numpy(digits.target)
    train, test = torch.arange(len(images)).tensor_split([1437])

    # Any network will do that can be taken apart where it pools.
    backbone = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
    )
    head = nn.Linear(64, 10)
    network = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)

    def score() -> Consistency:
        options = {"max_shift": SHIFT, "protocol": "zeros", "passes": 5}
        found = shift_consistency(network, images[test], labels[test], **options)
        print(f"consistency {found.consistency:.1%}, accuracy {found.accuracy:.1%}")
        return found

    score()
    losses = []
    for epoch in range(epochs):
        total = 0.0
        for batch in train[torch.randperm(len(train))].split(64):
            offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(batch), 2))
            flips = torch.zeros(2, len(batch), dtype=torch.bool)  # a mirrored digit is none
            crops = gpe.dual_crop(images[batch], 8, offsets, flips, padding=SHIFT)
            features = backbone(crops.flatten(0, 1))  # the first crops, then the second
            loss = gpe.fused_augshift_loss(features, None, head, labels[batch], weight=1.0).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(train))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.2f}")
    return losses, score()


if __name__ == "__main__":
    main()

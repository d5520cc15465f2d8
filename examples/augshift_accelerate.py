"""AugShift with Hugging Face Accelerate: accelerate launch examples/augshift_accelerate.py

Accelerate's own options set processes, precision and gradient accumulation.
"""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpe
from gpe.metrics import Consistency

SHIFT = 2  # pixels, of images of 8×8


class Network(nn.Module):
    """The loss belongs into forward, where several processes average the head's gradients too."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images, target=None):
        features = self.backbone(images)
        if target is None:
            return self.head(features.mean((2, 3)))
        return gpe.fused_augshift_loss(features, None, self.head, target, weight=1.0)


def main(epochs: int = 8) -> tuple[list[float], Consistency]:
    """Trains a small network; the last loss of each epoch, and the consistency afterwards."""
    accelerator = Accelerator()
    set_seed(0, device_specific=True)  # so that each process draws crops of its own
    digits = load_digits()
    images = torch.from_numpy(digits.images * 15).to(torch.uint8)[:, None]  # [1797,1,8,8]
    labels = torch.from_numpy(digits.target)
    train, test = torch.arange(len(images)).tensor_split([1437])

    loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    losses = []
    for epoch in range(epochs):
        for batch, target in loader:
            offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(batch), 2)).to(batch.device)
            flips = torch.zeros_like(offsets[..., 0], dtype=torch.bool)  # a mirrored digit is none
            crops = gpe.dual_crop(batch, 8, offsets, flips, padding=SHIFT)
            with accelerator.accumulate(network):
                loss = network(crops.flatten(0, 1), target).loss
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        losses.append(loss.item())
        accelerator.print(f"epoch {epoch + 1}: loss {losses[-1]:.2f}")

    metric = gpe.ShiftConsistency(max_shift=SHIFT, protocol="zeros", passes=5)
    metric.to(accelerator.device)
    mine = test[accelerator.process_index :: accelerator.num_processes]
    views = images[mine].to(accelerator.device), labels[mine].to(accelerator.device)
    metric.update(accelerator.unwrap_model(network), *views, indices=mine)
    found = metric.compute()  # of the images of all processes
    accelerator.print(f"consistency {found.consistency:.1%}, accuracy {found.accuracy:.1%}")
    return losses, found


if __name__ == "__main__":
    main()

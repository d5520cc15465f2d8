"""AugShift with Lightning: python examples/augshift_lightning.py"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpe
from gpe.metrics import Consistency

SHIFT = 2  # pixels, of images of 8×8


class Network(lightning.LightningModule):
    """Any module that can be taken apart where it pools; the loss is called in training_step."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)
        self.criterion = gpe.AugShiftLoss(weight=1.0)

    def forward(self, images):
        return self.head(self.backbone(images).mean((2, 3)))

    def training_step(self, batch, batch_number):
        images, target = batch
        offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(images), 2), device=self.device)
        flips = torch.zeros_like(offsets[..., 0], dtype=torch.bool)  # a mirrored digit is none
        crops = gpe.dual_crop(images, 8, offsets, flips, padding=SHIFT)
        features = self.backbone(crops.flatten(0, 1))  # the first crops, then the second
        terms = self.criterion(features, None, self.head, target)
        self.log_dict({"loss": terms.loss, "mse": terms.mse})
        return terms.loss

    def validation_step(self, batch, batch_number):
        pass  # ScoreShifts does it

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


class ScoreShifts(lightning.Callback):
    """Logs after each validation epoch how often the answer stays when an image moves.

    Args:
        max_shift: and all others, as of :class:`gpe.ShiftConsistency`.
    """

    def __init__(self, **options):
        self.metric = gpe.ShiftConsistency(**options)
        self.found: list[Consistency] = []

    def on_validation_epoch_start(self, trainer, module):
        self.metric = self.metric.to(module.device)
        self.metric.reset()

    def on_validation_batch_end(self, trainer, module, outputs, batch, number, loader=0):
        images, target, indices = batch  # which image it is decides how it is moved
        self.metric.update(module, images, target, indices=indices)

    def on_validation_epoch_end(self, trainer, module):
        found = self.metric.compute()  # of the images of all processes
        self.found.append(found)
        module.log_dict({"consistency": found.consistency, "accuracy": found.accuracy})


def main(epochs: int = 8) -> tuple[list[float], Consistency]:
    """Trains a small network; the last loss of each epoch, and the consistency afterwards."""
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    images = torch.from_numpy(digits.images * 15).to(torch.uint8)[:, None]  # [1797,1,8,8]
    labels = torch.from_numpy(digits.target)
    train, test = torch.arange(len(images)).tensor_split([1437])
    training = TensorDataset(images[train], labels[train])
    testing = TensorDataset(images[test], labels[test], test)

    scores = ScoreShifts(max_shift=SHIFT, protocol="zeros", passes=5)
    losses = Losses()
    trainer = lightning.Trainer(
        accelerator="auto",
        max_epochs=epochs,
        callbacks=[scores, losses],
        num_sanity_val_steps=0,
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False),
        enable_progress_bar=False,
    )
    loader = DataLoader(training, batch_size=64, shuffle=True)
    trainer.fit(Network(), loader, DataLoader(testing, batch_size=360))
    found = scores.found[-1]
    print(f"consistency {found.consistency:.1%}, accuracy {found.accuracy:.1%}")
    return losses.found, found


class Losses(lightning.Callback):
    """Keeps and prints the last loss of each epoch."""

    def __init__(self):
        self.found: list[float] = []

    def on_train_epoch_end(self, trainer, module):
        self.found.append(trainer.callback_metrics["loss"].item())
        print(f"epoch {len(self.found)}: loss {self.found[-1]:.2f}")


if __name__ == "__main__":
    main()

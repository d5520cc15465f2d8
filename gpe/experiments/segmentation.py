"""Networks that name the class of each pixel: training, and loading of what was trained."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import PolynomialLR

from gpe.data import SegmentationSet, epoch_order, segmentation_set
from gpe.data.pixels import IGNORE, default_workers
from gpe.errors import InputError
from gpe.experiments.region_scores import region_scores
from gpe.experiments.runs import run_all
from gpe.experiments.segmentation_config import SegmentationConfig
from gpe.experiments.training import NetworkTrial
from gpe.models import open_model
from gpe.models.deeplab import deeplabv3


def run(
    configs: Sequence[SegmentationConfig],
    out: Path,
    *,
    root: Path = Path("data"),
    workers: int | None = None,
    **options: Any,
) -> list[Path]:
    """Trains each configuration in a directory of its own below ``out``.

    Args:
        configs, out, options: as for :func:`gpe.experiments.runs.run_all`.
        root: where the files of the dataset lie.
        workers: processes that read images; one a core where None. Streets and CamVid are kept
            in memory and need none.

    Returns:
        The directories, in the order of ``configs``.

    Raises:
        InputError: the data or the backbone's weights cannot be had; or what :func:`run_all`
            raises.
    """

    def make_trial(config: SegmentationConfig) -> SegmentationTrial:
        find = partial(
            segmentation_set,
            config.data,
            root,
            size=config.size,
            workers=default_workers(workers),
        )
        train = find("train", images=config.train_images)
        test = find(config.split, images=config.test_images)
        if config.data in ("streets", "camvid"):
            train, test = train.cached(), test.cached()
        return SegmentationTrial(config, train.to(config.device), test.to(config.device))

    return run_all("segment", configs, out, make_trial, **options)


class PixelTally:
    """As :class:`gpe.experiments.training.Tally`, of the pixels that are not to be ignored."""

    def __init__(self) -> None:
        self.count = 0  # of images
        self._pixels: Tensor | int = 0
        self._loss: Tensor | float = 0.0
        self._hits: Tensor | int = 0

    def add(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Counts a batch; logits ``[N,K,H,W]``, labels uint8 ``[N,H,W]``. Returns the mean loss."""
        target = labels.long()
        total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum")
        pixels = (target != IGNORE).sum()
        self.count += len(labels)
        self._pixels += pixels
        self._loss += total.detach().double()
        self._hits += (logits.detach().argmax(1) == target).sum()
        return total / pixels.clamp(min=1)

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return float(self._loss) / max(1, int(self._pixels))

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * int(self._hits) / max(1, int(self._pixels))


class SegmentationTrial(NetworkTrial):
    """One DeepLabv3, trained on views of images and tested on whole ones."""

    def __init__(self, config: SegmentationConfig, train: SegmentationSet, test: SegmentationSet):
        self.train_set, self.test_set = train, test
        self.num_classes = len(train.classes)
        if len(train) < config.batch_size:
            raise InputError(
                f"batch_size: expected at most {len(train)}, as many as there are images to "
                f"train on, got {config.batch_size}"
            )
        # Whole batches only: batch norm of a batch of one image cannot be had.
        self._steps = len(train) // config.batch_size
        self.images_per_epoch = self._steps * config.batch_size
        model = build(config, self.num_classes)
        super().__init__(config, model, channels_last=config.width % 16 == 0)
        rate = config.learning_rate
        self.optimizer = torch.optim.SGD(
            [
                {"params": self.model.classifier.parameters()},
                {"params": self.model.backbone.parameters(), "lr": config.backbone_rate * rate},
            ],
            lr=rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps = self._steps * config.epochs
        self.scheduler = PolynomialLR(self.optimizer, total_iters=steps, power=config.power)

    def train_epoch(self, epoch: int) -> Iterator[PixelTally]:
        self.model.train()
        config, tally = self.config, PixelTally()
        order = epoch_order(
            len(self.train_set), seed=config.seed, epoch=epoch, samples=self.images_per_epoch
        )
        views = self.train_set.training_batches(
            order,
            config.batch_size,
            augmentation=config.augmentation,
            seed=config.seed,
            epoch=epoch,
        )
        for batch in views:
            loss = tally.add(self._logits(batch.images), batch.labels)
            self.descend(loss)
            yield tally

    @torch.no_grad()
    def test(self, epoch: int) -> tuple[PixelTally, dict[str, Tensor]]:
        self.model.eval()
        tally = PixelTally()
        for batch in self.test_set.batches(self.config.test_batch_size):
            tally.add(self._logits(batch.images), batch.labels)
        return tally, {}

    def measure(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config = self.config
        return region_scores(
            self.model.eval(),
            self.test_set,
            batch_size=config.test_batch_size,
            precision=config.precision,
        )

    def state_dict(self) -> dict[str, Any]:
        # What whoever uses the network needs to know of the images it was trained on.
        names = ("classes", "palette", "mean", "std")
        images = {name: getattr(self.train_set, name) for name in names}
        return super().state_dict() | {"images": images}

    def _logits(self, images: Tensor) -> Tensor:
        with self.autocast():
            return self.network(images.contiguous(memory_format=self.memory_format))["out"]


def build(config: SegmentationConfig, num_classes: int) -> nn.Module:
    """The network of a configuration; weights that are not given are drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = deeplabv3(
            config.backbone,
            num_classes,
            output_stride=config.output_stride,
            width=config.width,
        )
        if config.weights is not None:
            file = None if config.weights == "imagenet" else config.weights
            classifier = open_model(f"torchvision/{config.backbone}", weights=file).model
            classifier.fc = nn.Identity()
            model.backbone.load_state_dict(classifier.state_dict())
    return model

"""Every option of ``gpe segment train`` and ``evaluate``, the recipes, and the paper's mIoU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gpe.choices import Backbone, PixelData, Precision
from gpe.errors import InputError
from gpe.experiments.options import (
    TORCHRUN_HELP,
    WEIGHTS_HELP,
    Command,
    Config,
    TrainingConfig,
    batch_size_option,
    device_option,
    option,
    precision_option,
    preset_option,
    seed_option,
)

CHECKPOINT_HELP = (
    "A run of gpe segment train; a file: torchvision's weights of deeplabv3_resnet50, or the "
    "authors' checkpoint; a segmentation network of torchvision; or module:function, your own"
)
PIXEL_DATA_HELP = "streets, camvid, cityscapes or voc"
AS_TRAINED = "what it was trained on"
BACKBONES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
PAPER_MIOU = 74.0  # section 4.2: Cityscapes, DeepLabv3-ResNet-50

_COMMON: dict[str, Any] = {
    "weights": None,
    "size": None,
    "crop": None,
    "scales": (1.0, 1.0),
    "flip": False,
    "train_images": None,
    "test_images": None,
    "backbone_rate": 1.0,
    "momentum": 0.9,
    "power": 0.9,
    "precision": "fp32",
}


def _size_option(help: str, **settings: Any) -> Any:
    return preset_option(f"{help}: HEIGHT,WIDTH (px)", at_least=1, **settings)


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TrainingConfig):
    """Every option of one training."""

    SWEPT = ("seed",)
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Two CPU cores, two minutes.
        "quick": _COMMON
        | {
            "data": "streets",
            "backbone": "resnet18",
            "width": 16,
            "output_stride": 8,  # people are a few cells wide, as on Cityscapes at 16
            "size": (96, 192),
            "train_images": 2000,
            "test_images": 200,
            "epochs": 4,
            "batch_size": 8,
            "test_batch_size": 20,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
        },
        # Real images at their size. Not mirrored: left and right differ there, and are to. A step
        # is 1.75 core-seconds on an Intel Xeon: two cores do the 2,070 in some 35 minutes.
        "camvid": _COMMON
        | {
            "data": "camvid",
            "backbone": "resnet18",
            "width": 32,
            "output_stride": 16,
            "crop": (288, 480),
            "scales": (0.75, 1.5),
            "epochs": 45,
            "batch_size": 8,
            "test_batch_size": 8,
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
        },
        # The authors' network with DeepLab's recipe: 30,000 steps from ImageNet's weights.
        "cityscapes": _COMMON
        | {
            "data": "cityscapes",
            "backbone": "resnet50",
            "weights": "imagenet",
            "width": 64,
            "output_stride": 16,
            "crop": (768, 768),
            "scales": (0.5, 2.0),
            "flip": True,
            "epochs": 161,
            "batch_size": 16,
            "test_batch_size": 2,
            "learning_rate": 0.1,
            "backbone_rate": 0.1,
            "weight_decay": 1e-4,
        },
    }

    preset: str = option("quick (streets, two cores), camvid, or cityscapes: the paper's network")
    data: PixelData = preset_option(PIXEL_DATA_HELP)
    split: str = option("Split to test on", "val")
    backbone: Backbone = preset_option("resnet18 or resnet50")
    weights: str | None = preset_option(
        "Weights that the backbone starts from: imagenet (downloaded), or a file"
    )
    width: int = preset_option("Channels of the first stage", at_least=1)
    output_stride: int = preset_option("Pixels to one place of the feature map: 8 or 16")
    size: tuple[int, int] | None = _size_option("Size that images are resized to")
    crop: tuple[int, int] | None = _size_option("Size of training crops")
    scales: tuple[float, float] = preset_option(
        "Smallest and largest scale of training crops", above=0
    )
    flip: bool = preset_option("Mirror half of the training images")
    epochs: int = preset_option("Passes over the training images", at_least=1)
    train_images: int | None = preset_option("Number of training images", at_least=1)
    test_images: int | None = preset_option("Number of test images", at_least=1)
    # Batch norm of the head's pooled features needs two.
    batch_size: int = preset_option("Training images in a batch", at_least=2)
    test_batch_size: int = preset_option("Test images in a batch", at_least=1)
    learning_rate: float = preset_option("SGD learning rate of the head at the start", above=0)
    backbone_rate: float = preset_option(
        "Learning rate of the backbone, as a share of the head's", at_least=0
    )
    momentum: float = preset_option("SGD momentum", at_least=0)
    weight_decay: float = preset_option("SGD weight decay", at_least=0)
    power: float = preset_option("Learning rate falls as (1 - step/steps)^power", at_least=0)
    device: str = device_option()
    precision: Precision = preset_option("fp32 or bf16")
    compile: bool = option("Compile the network", False)
    seed: int = seed_option("Seed of weights, batches and crops")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_stride not in (8, 16):
            raise InputError(f"output_stride: expected 8 or 16, got {self.output_stride}")
        if self.scales[0] > self.scales[1]:
            raise InputError(f"scales: expected the smaller one first, got {self.scales}")
        if self.crop is None and self.scales != (1.0, 1.0):
            raise InputError(f"scales: expected none without a crop, got {self.scales}")
        if self.weights is not None and self.width != 64:
            raise InputError(f"width: expected 64 with weights, got {self.width}")

    @property
    def title(self) -> tuple[str, ...]:
        return ("segment", f"deeplabv3-{self.backbone}", self.data, self.preset)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's mIoU, for its network and data."""
        if (self.data, self.backbone, self.width) != ("cityscapes", "resnet50", 64):
            return None
        return {"source": "Section 4.2", "value": PAPER_MIOU, "protocol": "mIoU, full resolution"}


@dataclass(frozen=True, kw_only=True)
class PixelConfig(Config):
    """What is looked at of a trained network, and on which images.

    What is not given is as in the network's training; :func:`resolved` fills it in.
    """

    checkpoint: str = option(CHECKPOINT_HELP, argument=True)
    weights: str | None = option(WEIGHTS_HELP, None, unset="its own")
    network: str = option("Its name", "", hidden=True)
    weights_digest: str = option("Of its weights", "", hidden=True)
    data: PixelData | None = option(PIXEL_DATA_HELP, None, unset=AS_TRAINED)
    split: str | None = option("train, val or test", None, unset="val")
    size: tuple[int, int] | None = option(
        "Size that images are resized to: HEIGHT,WIDTH (px)",
        None,
        unset="as it was trained",
        at_least=1,
    )
    images: int | None = option(
        "Number of images, spread evenly over the split", None, unset="all", at_least=1
    )
    output_stride: int | None = option(
        "Output stride of a file's network: 8 or 16", None, unset="what the file is known for"
    )
    batch_size: int | None = batch_size_option(None, unset="as in its tests, or 1")
    device: str = device_option()
    precision: Precision = precision_option()


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(PixelConfig):
    """What ``gpe segment evaluate`` scores, and how."""

    @property
    def title(self) -> tuple[str, ...]:
        return ("segment-evaluate", self.network.partition(".")[0], f"{self.data}", f"{self.split}")


COMMANDS = (
    Command(
        "segment train",
        SegmentationConfig,
        run="run",
        help="Train a DeepLabv3 and score it on the whole image and on its parts (section 4.2).\n\n"
        f"--seed takes several values, separated by commas: a run each.\n\n{TORCHRUN_HELP}",
        places=("workers", "root", "sync_batch_norm", "out", "resume", "force"),
    ),
    Command(
        "segment evaluate",
        EvaluationConfig,
        run="evaluate",
        help="Score a trained network: mIoU of the whole image, its halves and its centre.",
        places=("workers", "root", "out", "resume", "force"),
    ),
)

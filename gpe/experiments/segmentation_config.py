"""Every option of a run of ``gpe segment train``, and the recipes."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from gpe.data.augmentation import Augmentation
from gpe.data.segmentation import DATASETS
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.runs import expect_device, expect_seed
from gpe.models.deeplab import Backbone
from gpe.records import directory_name

Precision = Literal["fp32", "bf16"]

PRESETS: dict[str, dict[str, Any]] = {
    # Two CPU cores, two minutes.
    "quick": {
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
    # Real images at their size. Not mirrored: left and right differ there, and are to.
    "camvid": {
        "data": "camvid",
        "backbone": "resnet18",
        "width": 32,
        "output_stride": 16,
        "crop": (288, 480),
        "scales": (0.75, 1.5),
        "epochs": 50,
        "batch_size": 8,
        "test_batch_size": 8,
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
    },
    # The authors' network with DeepLab's recipe: 30,000 steps from ImageNet's weights.
    "cityscapes": {
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
_COMMON = {
    "weights": None,
    "split": "val",
    "size": None,
    "crop": None,
    "scales": (1.0, 1.0),
    "flip": False,
    "train_images": None,
    "test_images": None,
    "backbone_rate": 1.0,
    "momentum": 0.9,
    "power": 0.9,
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "seed": 0,
}


@dataclass(frozen=True)
class SegmentationConfig:
    """Every option of one run. :meth:`of_preset` fills in what a preset says.

    Attributes:
        data: ``"streets"``, ``"camvid"``, ``"cityscapes"`` or ``"voc"``.
        split: what is tested on; the training images are those of ``"train"``.
        backbone: ``"resnet18"`` or ``"resnet50"``.
        weights: that the backbone starts from: ``"imagenet"`` for torchvision's, downloaded, or a
            file of them; None: random ones.
        width: channels of the backbone's first stage.
        size: height and width, in pixels, that images and labels are resized to; None: their own.
        crop, scales, flip: of training views, as :class:`gpe.data.Augmentation` has them.
        train_images, test_images: at most so many; all where None.
        learning_rate: of the head at the start; it falls as (1 - step/steps)^``power``.
        backbone_rate: the backbone's learning rate, as a share of the head's.

    Raises:
        InputError: an option outside what it may be.
    """

    preset: str
    data: str
    split: str
    backbone: Backbone
    weights: str | None
    width: int
    output_stride: int
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    scales: tuple[float, float]
    flip: bool
    epochs: int
    train_images: int | None
    test_images: int | None
    batch_size: int
    test_batch_size: int
    learning_rate: float
    backbone_rate: float
    momentum: float
    weight_decay: float
    power: float
    device: str
    precision: Precision
    compile: bool
    seed: int

    @classmethod
    def of_preset(cls, preset: str, **options: Any) -> "SegmentationConfig":
        """The preset; options that are not None take the place of its values."""
        expect_one_of("preset", preset, PRESETS)
        options = {name: value for name, value in options.items() if value is not None}
        return cls(preset=preset, **_COMMON | PRESETS[preset] | options)

    def __post_init__(self):
        choices = {"data": DATASETS, "backbone": get_args(Backbone)}
        for name, choice in (choices | {"precision": get_args(Precision)}).items():
            expect_one_of(name, getattr(self, name), choice)
        if self.output_stride not in (8, 16):
            raise InputError(f"output_stride: expected 8 or 16, got {self.output_stride}")
        counts = ("width", "epochs", "batch_size", "test_batch_size")
        for name in (*counts, "train_images", "test_images"):
            if name in counts or getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if self.batch_size < 2:  # batch norm of the head's pooled features
            raise InputError(f"batch_size: expected at least 2, got {self.batch_size}")
        for name in ("size", "crop"):
            if getattr(self, name) is not None and len(getattr(self, name)) != 2:
                raise InputError(f"{name}: expected height and width, got {getattr(self, name)}")
        self.augmentation  # noqa: B018 - it checks itself
        if self.weights is not None and self.width != 64:
            raise InputError(f"width: expected 64 with weights, got {self.width}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: expected above 0, got {self.learning_rate}")
        for name in ("backbone_rate", "momentum", "weight_decay", "power"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")
        expect_seed(self.seed)
        expect_device(self.device)

    @property
    def augmentation(self) -> Augmentation:
        """How training views are cut."""
        return Augmentation(self.crop, self.scales, self.flip)

    @property
    def name(self) -> str:
        """A directory name that tells what the run is; no two configurations share one."""
        parts = ("segment", f"deeplabv3-{self.backbone}", self.data, self.preset)
        return directory_name(self, *parts)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's mIoU, for its network and data."""
        if (self.data, self.backbone, self.width) != ("cityscapes", "resnet50", 64):
            return None
        return {"source": "Section 4.2", "value": 74.0, "protocol": "mIoU, full resolution"}

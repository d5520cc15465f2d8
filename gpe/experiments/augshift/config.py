"""Every option of ``gpe augshift``, its recipes, and what the paper has in Table 2."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from gpe.choices import SMALL_SETS, Backbone, Precision, ShiftProtocol, Split, Stem, TrainReading
from gpe.errors import InputError, expect_one_of
from gpe.experiments.options import (
    TORCHRUN_HELP,
    Command,
    TrainingConfig,
    device_option,
    option,
    preset_option,
    seed_option,
)
from gpe.experiments.shifts import PROTOCOL_HELP, expect_room

Images = Literal["small", "large"]


class Method(NamedTuple):
    """A row of Table 2.

    Attributes:
        crops: of an image that go through the network together; two are wide.
        loss: whether the crops of an image are asked to pool to the same vector.
        blur: whether it is BlurPool's network.
        remark: what to say of it beside the paper's.
    """

    label: str
    in_a_sentence: str
    colour: str
    crops: int
    loss: bool = False
    blur: bool = False
    remark: str = ""


# The second row is the control that the paper lacks: AugShift's crops without its loss. The last
# is the combination that the paper only guesses at.
METHODS = {
    "baseline": Method("Baseline", "the baseline", "red", crops=1),
    "wide-crops": Method(
        *("Wide crops alone", "wide crops alone", "orange"),
        crops=2,
        remark="control, not in the paper",
    ),
    "augshift": Method("AugShift", "AugShift", "blue", crops=2, loss=True),
    "blurpool": Method("BlurPool", "BlurPool", "grey", crops=1, blur=True),
    "blurpool-augshift": Method(
        *("BlurPool + AugShift", "BlurPool + AugShift", "teal"),
        crops=2,
        loss=True,
        blur=True,
        remark="not in the paper",
    ),
}

# Table 2 in percent, ResNet-18: (data, method) -> top-1 accuracy and consistency by shift.
TABLE_2 = {
    ("cifar10", "baseline"): (93.1, {8: 90.8}),
    ("cifar10", "augshift"): (92.1, {8: 94.8}),
    ("cifar10", "blurpool"): (92.5, {8: 92.5}),
    ("cifar100", "baseline"): (72.6, {8: 70.1}),
    ("cifar100", "augshift"): (72.6, {8: 85.6}),
    ("cifar100", "blurpool"): (72.4, {8: 78.2}),
    ("imagenet", "baseline"): (69.7, {8: 89.5, 16: 87.4}),
    ("imagenet", "augshift"): (70.1, {8: 90.2, 16: 88.2}),
    ("imagenet", "blurpool"): (71.4, {8: 90.5, 16: 88.8}),
}


# What is usual beside it. The paper states neither λ nor its crops, nor a recipe of training.
_COMMON: dict[str, Any] = {
    "train_images": None,
    "test_images": None,
    "epoch_images": None,
    "momentum": 0.9,
    "label_smoothing": 0.0,
    "test_batch_size": 250,
    "flip": True,
    "precision": "fp32",
    "compile": False,
    "equal_compute": True,
    "relative": True,
    "weight": 1.0,
}
# Equation 1 as it stands: its plain MSE, two crops of every image whatever they cost. λ is ours, of
# the sweep in results/README.md.
_AS_IN_THE_PAPER = {"equal_compute": False, "relative": False, "weight": 10.0}
# crop_shift: of rows with one crop an image and of rows with two.
_SMALL = _COMMON | {
    "image_size": 32,
    "resize_size": None,
    "reading": None,
    # A picture of 32 pixels is gone long before a shift of 64; Figure S2 has 8 to 64 on ImageNet.
    "shifts": (1, 2, 4, 8, 12, 16),
    "crop_shift": {1: 4, 2: 8},
    "weight_decay": 5e-4,
}
_LARGE = _COMMON | {
    "stem": "imagenet",
    "image_size": 224,
    "resize_size": 256,
    "reading": "resized",
    "shifts": (8, 16, 32, 40, 48, 64),
    "crop_shift": {1: 0, 2: 16},
    "weight_decay": 1e-4,
    "passes": 1,
}


@dataclass(frozen=True, kw_only=True)
class AugShiftConfig(TrainingConfig):
    """Every option of one run."""

    # Seeds change slowest: each draws its own images, which are loaded once that way.
    SWEPT = ("seed", "method", "weight", "crop_shift")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Few images gone through often, as a long recipe goes through many: 126 times in two
        # minutes.
        "quick": _SMALL
        | {
            "stem": "grid",
            "width": 16,
            "epochs": 7,
            "train_images": 1000,
            "test_images": 2000,
            "epoch_images": 18000,
            "batch_size": 64,
            "learning_rate": 0.1,
            "schedule": "one-cycle",
            "passes": 2,
        },
        "fast": _SMALL
        | {
            "stem": "cifar",
            "width": 64,
            "epochs": 30,
            "batch_size": 512,
            "learning_rate": 0.2,
            "schedule": "one-cycle",
            "passes": 5,
            "precision": "bf16",
            "compile": True,
        },
        "paper": _SMALL
        | _AS_IN_THE_PAPER
        | {
            "stem": "cifar",
            "width": 64,
            "epochs": 200,
            "batch_size": 128,
            "learning_rate": 0.1,
            "schedule": "cosine",
            "passes": 5,
        },
    }
    LARGE_PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": _LARGE
        | {
            "width": 16,
            "epochs": 3,
            "train_images": 2000,
            "test_images": 500,
            "batch_size": 32,
            "learning_rate": 0.05,
            "schedule": "one-cycle",
        },
        # torchvision's recipe.
        "paper": _LARGE
        | _AS_IN_THE_PAPER
        | {
            "width": 64,
            "epochs": 90,
            "batch_size": 256,
            "learning_rate": 0.1,
            "schedule": "step",
        },
    }

    method: str = option(f"Rows of Table 2: {', '.join(METHODS)}", several=",".join(METHODS))
    network: Backbone = option("resnet18 or resnet50", "resnet18")
    stem: Stem = preset_option("grid (stride 2), cifar (stride 1) or imagenet (stride 4)")
    width: int = preset_option("Channels of the first stage", at_least=1)
    data: str = option(f"{SMALL_SETS}, imagenet, or a folder of images by class", "digits")
    split: Split = option("Tested on: test, or validation, a part of the training images", "test")
    image_size: int = preset_option("Height and width of what the network sees (px)", at_least=1)
    resize_size: int | None = preset_option(
        "Shorter side of large images before a test (px)", at_least=1, unset="256 for large images"
    )
    reading: TrainReading | None = preset_option(
        "Training crops of large images: resized (random area and aspect ratio) or plain",
        unset="resized for large images",
    )
    preset: str = option("quick, fast (one GPU), or paper: the usual long recipes")
    epochs: int = preset_option("Number of epochs of --epoch-images crops", at_least=1)
    train_images: int | None = preset_option("Number of training images", at_least=1)
    test_images: int | None = preset_option("Number of test images", at_least=1)
    epoch_images: int | None = preset_option("Crops in an epoch", at_least=1)
    equal_compute: bool = preset_option(
        "As many crops in all rows: half as many images where each has two; otherwise twice as "
        "many crops, as in the paper",
        group="",
    )
    batch_size: int = preset_option("Training crops in a batch", at_least=1)
    test_batch_size: int = preset_option("Test images in a batch", at_least=1)
    learning_rate: float = preset_option("SGD learning rate", above=0)
    momentum: float = preset_option("SGD momentum (Nesterov)", at_least=0)
    weight_decay: float = preset_option("SGD weight decay", at_least=0)
    schedule: Literal["cosine", "one-cycle", "step"] = preset_option("cosine, one-cycle or step")
    label_smoothing: float = preset_option("Label smoothing", at_least=0, at_most=1)
    crop_shift: int = preset_option(
        "Maximum offset of a training crop from the centre (px); with one crop or two", at_least=0
    )
    flip: bool = preset_option("Mirror half of the training crops")
    weight: float = preset_option("λ of the loss; the paper states none", at_least=0)
    relative: bool = preset_option(
        "Loss relative to the variance of the latents; --no-relative: plain, as in the paper"
    )
    shifts: tuple[int, ...] = preset_option(
        "Maximum shifts that consistency is measured under (px)", at_least=1
    )
    protocol: ShiftProtocol = option(PROTOCOL_HELP, "zeros")
    passes: int = preset_option("Pairs of shifts for each test image and maximum", at_least=1)
    device: str = device_option()
    precision: Precision = preset_option("fp32 or bf16")
    compile: bool = preset_option("Compile the training step")
    seed: int = seed_option("First seed, of weights, batches and crops")

    @classmethod
    def several(  # type: ignore[override]
        cls, *, seeds: int = 1, images: Images | None = None, **given: Any
    ) -> "list[AugShiftConfig]":
        if seeds < 1:
            raise InputError(f"seeds: expected at least 1, got {seeds}")
        first = (given.get("seed") or [0])[0]
        given["seed"] = range(first, first + seeds)
        return super().several(**given, images=images)

    @classmethod
    def of(cls, *, images: Images | None = None, **given: Any) -> "AugShiftConfig":
        """``images``: ``"small"`` ones live in memory, ``"large"`` ones are read as needed."""
        given = {"data": "digits", **{k: v for k, v in given.items() if v is not None}}
        kind = images or ("large" if given["data"] == "imagenet" else "small")
        expect_one_of("images", kind, ("small", "large"))
        for name in ("resize_size", "reading"):
            if kind == "small" and name in given:
                raise InputError(f"{name}: expected none for small images, got {given[name]}")
        expect_one_of("method", given["method"], list(METHODS))
        method = METHODS[given["method"]]
        if not method.loss:
            given["weight"] = 0.0
        recipe = cls._recipe(given.get("preset", "quick"), kind)
        given.setdefault("crop_shift", recipe["crop_shift"][method.crops])
        return super().of(**(recipe | given))

    @classmethod
    def _recipe(cls, preset: str, images: Images) -> dict[str, Any]:
        expect_one_of("preset", preset, list(cls.PRESETS))
        presets = cls.PRESETS if images == "small" else cls.LARGE_PRESETS
        if preset not in presets:
            raise InputError(f"preset: {preset} has no recipe for {images} images")
        return dict(presets[preset])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shifts:
            raise InputError("shifts: expected one or more, got none")
        if self.resize_size is not None and self.reading is None:
            raise InputError("reading: expected resized or plain with large images, got none")
        # One pixel less, and the feature map is one place: no batch norm of a batch of one crop.
        smallest = {"cifar": 9, "grid": 17, "imagenet": 33}[self.stem]
        if self.image_size < smallest:
            raise InputError(
                f"image_size: expected at least {smallest} with stem {self.stem}, "
                f"got {self.image_size}"
            )
        expect_room(
            self.shifts,
            self.protocol,
            image_size=self.image_size,
            resize_size=self.resize_size or self.image_size,
        )

    @property
    def crop_padding(self) -> int:
        """Pixels around a training image, in which its crops lie; large images have their own."""
        return self.crop_shift if self.resize_size is None else 0

    @property
    def sides(self) -> dict[str, Any]:
        """How large images are read, for :func:`gpe.data.stream`."""
        moved = self.image_size + 2 * self.crop_shift
        return {
            "train_reading": self.reading,
            "train_side": moved if self.reading == "resized" else self.resize_size,
            "test_side": self.resize_size if self.protocol == "crop" else self.image_size,
            "test_resize_side": self.resize_size,
        }

    @property
    def title(self) -> tuple[str, ...]:
        return (self.method, self.network, Path(self.data).name, self.split, self.preset)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's values for this row of Table 2, None where it has none."""
        known = TABLE_2.get((self.data, self.method))
        if known is None or self.network != "resnet18" or self.split != "test":
            return None
        value, consistency = known
        return {
            "source": "Table 2",
            "value": value,
            "protocol": "not stated",
            "consistency": {str(shift): share for shift, share in consistency.items()},
        }


@dataclass(frozen=True, kw_only=True)
class AugShiftOptions:
    """What ``gpe augshift`` asks beside."""

    seeds: int = option("Number of seeds; the report shows mean and 95 % interval", 1)
    images: Images | None = option(
        "small: held in memory; large: read as needed", None, unset="the data's"
    )


COMMANDS = (
    Command(
        "augshift",
        AugShiftConfig,
        run="run",
        help="Train networks whose answer stays when the image moves (Table 2, Figure S2).\n\n"
        "--method, --weight and --crop-shift take several values, separated by commas: every "
        f"combination is run. Defaults are shown for small images.\n\n{TORCHRUN_HELP}",
        places=(
            "workers",
            "root",
            "download",
            "max_pixels",
            "sync_batch_norm",
            "out",
            "resume",
            "force",
        ),
        extra=AugShiftOptions,
    ),
)

"""Every option of an AugShift run, and what the paper has for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gpe.data.sources import Split
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.augshift_recipes import METHODS, recipe
from gpe.experiments.runs import expect_device, expect_seed
from gpe.experiments.under_shifts import expect_shifts
from gpe.metrics.views import ShiftProtocol
from gpe.models.resnet import Stem
from gpe.records import directory_name

Network = Literal["resnet18", "resnet50"]
Schedule = Literal["cosine", "one-cycle", "step"]
Reading = Literal["resized", "plain"]
Precision = Literal["fp32", "bf16"]

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


@dataclass(frozen=True)
class AugShiftConfig:
    """Every option of one run. :meth:`of_preset` fills in what a preset says.

    Attributes:
        image_size: height and width, in pixels, of what the network sees.
        resize_size: of the shorter side of large images before a test; None for small ones,
            which live in memory.
        reading: how large images are read for training: ``"resized"``, a crop of random area
            and aspect ratio as in torchvision's recipe, which ``crop_shift`` then moves; or
            ``"plain"``, whole and with the shorter side of ``resize_size``, so that a crop
            may lie anywhere.
        epoch_images: crops that go through the network in an epoch; None: as many as there
            are training images.
        equal_compute: whether rows with two crops an image take half as many images, so that
            all rows see ``epoch_images`` crops; otherwise they see twice as many, as in the
            paper.
        batch_size: crops a step, by the same rule.
        crop_shift: pixels that a training crop may lie off the centre, in each axis.
        weight: λ of Equation 1; 0 in rows without the loss.
        relative: whether the loss is relative to the latents' variance.
        shifts: shift consistency is measured up to each of them, in pixels.
        split: what is tested on; ``"validation"`` is a part of the training images, for
            choosing options.

    Raises:
        InputError: an option outside what it may be.
    """

    method: str
    network: Network
    stem: Stem
    width: int
    data: str
    split: Split
    image_size: int
    resize_size: int | None
    reading: Reading | None
    preset: str
    epochs: int
    train_images: int | None
    test_images: int | None
    epoch_images: int | None
    equal_compute: bool
    batch_size: int
    test_batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    label_smoothing: float
    crop_shift: int
    flip: bool
    weight: float
    relative: bool
    shifts: tuple[int, ...]
    protocol: ShiftProtocol
    passes: int
    device: str
    precision: Precision
    compile: bool
    seed: int

    @classmethod
    def of_preset(cls, preset: str, method: str, **options: Any) -> "AugShiftConfig":
        """The preset for a method; options that are not None take the place of its values."""
        options = {name: value for name, value in options.items() if value is not None}
        images = options.pop("images", "large" if options["data"] == "imagenet" else "small")
        values = recipe(preset, images) | options
        expect_one_of("method", method, METHODS)
        for name in ("resize_size", "reading"):
            if images == "small" and name in options:
                raise InputError(f"{name}: expected none for small images, got {options[name]}")
        crops, loss, _ = METHODS[method]
        if isinstance(values["crop_shift"], dict):
            values["crop_shift"] = values["crop_shift"][crops]
        if not loss:
            values["weight"] = 0.0
        return cls(preset=preset, method=method, **values)

    def __post_init__(self):
        choices = {
            "network": Network,
            "stem": Stem,
            "split": Split,
            "schedule": Schedule,
            "protocol": ShiftProtocol,
            "precision": Precision,
        }
        for name, choice in choices.items():
            expect_one_of(name, getattr(self, name), get_args(choice))
        counts = ("width", "image_size", "epochs", "batch_size", "test_batch_size", "passes")
        for name in (*counts, "train_images", "test_images", "epoch_images", "resize_size"):
            if name in counts or getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        for name in ("crop_shift", "weight", "weight_decay", "momentum"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 <= self.label_smoothing <= 1:
            raise InputError(f"label_smoothing: expected 0 to 1, got {self.label_smoothing}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not self.shifts or min(self.shifts) < 1:
            raise InputError(f"shifts: expected pixels of at least 1, got {self.shifts}")
        if self.resize_size is not None:
            expect_one_of("reading", self.reading, get_args(Reading))
        self._expect_room()
        expect_seed(self.seed)
        expect_device(self.device)

    def _expect_room(self) -> None:
        # One pixel less, and the feature map is one place: no batch norm of a batch of one crop.
        smallest = {"cifar": 9, "grid": 17, "imagenet": 33}[self.stem]
        if self.image_size < smallest:
            raise InputError(
                f"image_size: expected at least {smallest} with stem {self.stem}, "
                f"got {self.image_size}"
            )
        expect_shifts(
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
    def name(self) -> str:
        """A directory name that tells what the run is; no two configurations share one."""
        parts = (self.method, self.network, Path(self.data).name, self.split, self.preset)
        return directory_name(self, *parts)

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

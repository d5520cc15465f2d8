"""Every option of ``gpe detect`` and ``gpe table-s1``, the recipes, and the paper's miss rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from gpe.choices import Precision
from gpe.errors import InputError, expect_one_of
from gpe.experiments.options import (
    TORCHRUN_HELP,
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
from gpe.experiments.removal.config import MATCHED, RANDOM, RANDOM_HELP

DetectorName = Literal["csp", "faster-rcnn", "cascade-rcnn"]
BoxData = Literal["streets", "citypersons"]
Optimizer = Literal["adam", "sgd"]
Schedule = Literal["steps", "cosine"]

# As Table S1 has them, from the top down, and how many channels their latent has there.
LABELS = {"faster-rcnn": "Faster R-CNN", "cascade-rcnn": "Cascade R-CNN", "csp": "CSP"}
PAPER_CHANNELS = {"faster-rcnn": 256, "cascade-rcnn": 256, "csp": 768}
PAPER_COUNT = 100  # that the paper removes
LEVELS = {"faster-rcnn": 5, "cascade-rcnn": 5, "csp": 1}  # maps of the latent
PARTS = ("backbone", "neck")  # what comes before the heads, whole or a layer of it
SETTINGS = ("reasonable", "small", "heavy", "all")
TARGETED = "overall"
# What a latent is ranked by: Equation 2, and what position is held against.
MODES = (TARGETED, "relative", "magnitude", "deviation", MATCHED)
# Miss rates in percent, in the order of SETTINGS: nothing removed, random channels, those first by
# Equation 2.
TABLE_S1 = {
    "faster-rcnn": {
        "": (10.3, 11.59, 33.07, 30.34),
        RANDOM: (10.83, 11.87, 33.78, 31.92),
        TARGETED: (12.51, 12.77, 36.95, 34.36),
    },
    "cascade-rcnn": {
        "": (7.55, 8.55, 27.47, 26.89),
        RANDOM: (7.85, 8.39, 28.31, 27.17),
        TARGETED: (8.44, 9.3, 30.59, 28.57),
    },
    "csp": {
        "": (11.05, 14.76, 41.35, 37.57),
        RANDOM: (11.05, 15.0, 41.3, 38.05),
        TARGETED: (11.14, 16.7, 41.24, 38.82),
    },
}

CHECKPOINT_HELP = (
    "A run of gpe detect train, or a file of Pedestron's: epoch_N.pth or epoch_N.pth.stu"
)
_DATA_HELP = "streets or citypersons"
_SPLIT_HELP = "train or val"


def _by_detector(csp: Any, faster: Any, cascade: Any) -> dict[str, Any]:
    return {"csp": csp, "faster-rcnn": faster, "cascade-rcnn": cascade}


_SMALL: dict[str, Any] = {
    "data": "streets",
    "detector": "csp",
    "backbone": _by_detector("resnet18", "hrnet", "hrnet"),
    "weights": None,
    "width": _by_detector(16, 8, 8),
    "neck_width": _by_detector(32, 32, 32),
    "head_width": _by_detector(32, 128, 128),
    "proposals": 150,
    "crop": None,
    "scales": (1.0, 1.0),
    "flip": False,
    "brightness": (1.0, 1.0),
    "train_images": 1200,
    "test_images": 250,
    "epochs": 3,
    "batch_size": 4,
    "test_batch_size": 10,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "milestones": (),
    "warmup": 100,
    "weight_decay": 0.0,
    "clip": 35.0,
    "averaging": 0.0,
    "least_score": 0.05,
    "precision": "fp32",
}


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """Every option of one training."""

    SWEPT = ("detector", "seed")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Two CPU cores, two minutes.
        "quick": _SMALL,
        "streets": _SMALL | {"test_images": 500, "epochs": 4},
        # Pedestron's recipes, but for the crops that it trains its Faster R-CNN on.
        "citypersons": {
            "data": "citypersons",
            "detector": "csp",
            "backbone": _by_detector("resnet50", "hrnet", "hrnet"),
            "weights": "imagenet",
            "width": _by_detector(64, 32, 32),
            "neck_width": _by_detector(256, 256, 256),
            "head_width": _by_detector(256, 1024, 1024),
            "proposals": 1000,
            "crop": _by_detector((640, 1280), None, None),
            "scales": _by_detector((0.4, 1.5), (0.594, 1.0), (0.594, 1.0)),
            "flip": True,
            "brightness": _by_detector((0.5, 2.0), (0.87, 1.13), (1.0, 1.0)),
            "train_images": None,
            "test_images": None,
            "epochs": _by_detector(240, 20, 20),
            "batch_size": _by_detector(32, 8, 14),
            "test_batch_size": 1,
            "optimizer": _by_detector("adam", "sgd", "sgd"),
            "learning_rate": _by_detector(2e-4, 0.02, 0.02),
            "schedule": _by_detector("steps", "steps", "cosine"),
            "milestones": _by_detector((110, 160), (8, 11), ()),
            "warmup": 500,
            "weight_decay": _by_detector(0.0, 1e-4, 1e-4),
            "clip": 35.0,
            "averaging": 0.999,
            "least_score": _by_detector(0.1, 0.05, 0.001),
            "precision": "fp32",
        },
    }

    preset: str = option("quick or streets (two cores), or citypersons: the published recipes")
    detector: DetectorName = preset_option("csp, faster-rcnn or cascade-rcnn")
    data: BoxData = preset_option(_DATA_HELP)
    split: str = option("Split to test on", "val")
    backbone: str = preset_option("Of CSP resnet18 or resnet50; of the others hrnet")
    weights: str | None = preset_option(
        "Weights that the backbone starts from: imagenet (downloaded)", unset="none"
    )
    width: int = preset_option("Channels of the backbone's first stage", at_least=1)
    neck_width: int = preset_option("Channels of each map of the neck", at_least=1)
    head_width: int = preset_option("Channels or units of the heads", at_least=1)
    proposals: int = preset_option(
        "Regions of an image that the heads of two-stage detectors look at", at_least=1
    )
    size: tuple[int, int] | None = option(
        "Size of streets: HEIGHT,WIDTH (px)", None, unset="128,256", at_least=1
    )
    crop: tuple[int, int] | None = preset_option(
        "Size of training crops: HEIGHT,WIDTH (px)", at_least=1, unset="whole images"
    )
    scales: tuple[float, float] = preset_option(
        "Smallest and largest scale of training images", above=0
    )
    flip: bool = preset_option("Mirror half of the training images")
    brightness: tuple[float, float] = preset_option(
        "Least and greatest factor of the brightness of half of the training images", above=0
    )
    epochs: int = preset_option("Passes over the training images", at_least=1)
    train_images: int | None = preset_option("Number of training images", at_least=1)
    test_images: int | None = preset_option("Number of test images", at_least=1)
    batch_size: int = preset_option("Training images in a batch", at_least=1)
    test_batch_size: int = preset_option("Test images in a batch", at_least=1)
    optimizer: Optimizer = preset_option("adam or sgd (momentum 0.9)")
    learning_rate: float = preset_option("Learning rate after the warm-up", above=0)
    schedule: Schedule = preset_option("Learning rate falls in steps, or as a cosine to 0")
    milestones: tuple[int, ...] = preset_option(
        "Epochs after which a tenth of the learning rate is left", at_least=1
    )
    warmup: int = preset_option("Steps until the learning rate is whole, from a third", at_least=0)
    weight_decay: float = preset_option("Weight decay", at_least=0)
    clip: float = preset_option("Greatest norm of the gradient", above=0)
    averaging: float = preset_option(
        "Tested weights are a running mean that keeps this share at each step", at_least=0
    )
    least_score: float = preset_option("Boxes with lower scores are dropped", at_least=0)
    device: str = device_option()
    precision: Precision = preset_option("fp32 or bf16")
    compile: bool = option("Compile the backbone and the neck", False)
    seed: int = seed_option("Seed of weights, batches and views")

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        detector = given.get("detector") or values["detector"]
        expect_one_of("detector", detector, tuple(LABELS))
        return {
            name: value[detector] if isinstance(value, Mapping) else value
            for name, value in values.items()
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("resnet18", "resnet50") if self.detector == "csp" else ("hrnet",)
        expect_one_of("backbone", self.backbone, known)
        if self.size is not None and self.data != "streets":
            raise InputError(f"size: expected none with {self.data}, got {self.size}")
        for name in ("scales", "brightness"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"{name}: expected the smaller one first, got {low}, {high}")
        if not self.averaging < 1:
            raise InputError(f"averaging: expected below 1, got {self.averaging}")
        if self.weights not in (None, "imagenet"):
            raise InputError(f"weights: expected imagenet or none, got {self.weights!r}")

    @property
    def title(self) -> tuple[str, ...]:
        return ("detect", self.detector, self.data, self.preset)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's miss rates, for its network and data."""
        return paper_row(self.detector, self.data, PAPER_CHANNELS[self.detector], self.neck_width)


def paper_row(detector: str, data: str, channels: int, width: int = 256) -> dict[str, Any] | None:
    """Table S1's miss rates with nothing removed, for networks and images like the paper's."""
    if data != "citypersons" or channels != PAPER_CHANNELS[detector] or width != 256:
        return None
    return {"source": "Table S1", "value": TABLE_S1[detector][""][0], "protocol": "MR-2"}


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(Config):
    """What is looked at of a trained detector, and on which images.

    What is not given is as in its training.
    """

    checkpoint: str = option(CHECKPOINT_HELP, argument=True)
    detector: DetectorName | None = option("What it is", None, hidden=True)
    network: str = option("Its name", "", hidden=True)
    weights_digest: str = option("Of its weights", "", hidden=True)
    data: BoxData | None = option(_DATA_HELP, None, unset="what it was trained on")
    annotations: str | None = option(
        "CityPersons' anno_val.mat or anno_train.mat", None, unset="that of --split below --root"
    )
    split: str | None = option(_SPLIT_HELP, None, unset="val")
    size: tuple[int, int] | None = option(
        "Size of streets: HEIGHT,WIDTH (px)", None, unset="as it was trained", at_least=1
    )
    images: int | None = option(
        "Number of images, spread evenly over the split", None, unset="all", at_least=1
    )
    least_score: float | None = option(
        "Boxes with lower scores are dropped", None, unset="as it was trained", at_least=0
    )
    batch_size: int | None = batch_size_option(None, unset="as in its tests, or 1")
    device: str = device_option()
    precision: Precision = precision_option()


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(DetectorConfig):
    """What ``gpe detect evaluate`` scores: a detector, or the boxes that anybody's found."""

    checkpoint: str = option(
        f"{CHECKPOINT_HELP}; or detections, COCO's JSON, whose image_id is the place in the "
        "annotations from 1",
        argument=True,
    )

    @property
    def title(self) -> tuple[str, ...]:
        return ("detect-evaluate", Path(self.network).stem, f"{self.data}", f"{self.split}")


@dataclass(frozen=True, kw_only=True)
class AblationConfig(DetectorConfig):
    """What is removed of one detector's latent."""

    SWEPT = ("checkpoint", "detector", "seed")

    checkpoint: str = option(CHECKPOINT_HELP, "", argument=True)
    job: Literal["detect-ablate", "table-s1"] = option("What is done", hidden=True)
    preset: str | None = option(
        "The training that goes before, without a checkpoint: quick, streets or citypersons",
        None,
        unset="quick",
    )
    detector: DetectorName | None = option(
        "Without a checkpoint: csp, faster-rcnn, cascade-rcnn",
        None,
        unset="csp; all three with --preset streets or citypersons",
    )
    count: int | None = option(
        "How many channels to remove in the table",
        None,
        unset="100 at full width, else the same share",
        at_least=1,
    )
    counts: tuple[int, ...] | None = option(
        "How many to remove along the curve", None, unset="each eighth", at_least=1
    )
    level: int | None = option(
        "Rank and remove in one map of the latent, from 0, the largest; two-stage detectors have 5",
        None,
        unset="all of them",
        at_least=0,
    )
    layer: str | None = option(
        "Rank and remove in another layer of the backbone or neck, such as backbone.layer4 or "
        "neck.reduction_conv; slower, as the whole network runs each time",
        None,
        unset="the latent, which the neck yields",
    )
    modes: tuple[str, ...] = option(
        f"Rank by: {', '.join(MODES)}; {TARGETED}, Equation 2, is always among them",
        MODES,
        check=lambda name, mode: expect_one_of(name, mode, MODES),
    )
    random_seeds: int = option(RANDOM_HELP, 5, at_least=1)
    cache: float = option(
        "Latents kept in memory (GiB); the rest are computed again", 2.0, at_least=0
    )
    seed: int = seed_option("Seed of the training, where one goes before, and of random orders")

    @classmethod
    def several(cls, **given: Any) -> "Sequence[AblationConfig]":  # type: ignore[override]
        given["checkpoint"] = [str(each) for each in given.get("checkpoint") or ("",)]
        trained, preset = given["checkpoint"] == [""], given.get("preset")
        if trained and given["job"] == "detect-ablate":
            raise InputError("checkpoint: expected one or more, got none")
        for name in ("preset", "detector") if not trained else ():
            if given.get(name):
                raise InputError(f"{name}: expected none beside a checkpoint, got {given[name]}")
        if trained:
            given["preset"] = preset = preset or "quick"
            expect_one_of("preset", preset, tuple(DetectionConfig.PRESETS))
            given["detector"] = given.get("detector") or (
                ("csp",) if preset == "quick" else tuple(LABELS)
            )
        return super().several(**given)

    def __post_init__(self) -> None:
        super().__post_init__()
        if TARGETED not in self.modes:
            raise InputError(f"modes: expected {TARGETED} among them, got {', '.join(self.modes)}")
        if self.layer is not None and self.layer.partition(".")[0] not in PARTS:
            raise InputError(
                f"layer: expected one that begins with {' or '.join(PARTS)}, got {self.layer!r}"
            )
        if self.level is not None and self.layer is not None:
            raise InputError(f"level: expected none beside a layer, got {self.level}")
        last = LEVELS[self.detector] - 1 if self.detector else None
        if self.level is not None and last is not None and self.level > last:
            raise InputError(f"level: expected at most {last} of {self.detector}, got {self.level}")

    @property
    def title(self) -> tuple[str, ...]:
        where = [] if self.level is None else [f"level{self.level}"]
        where += [] if self.layer is None else [self.layer]
        return (self.job, Path(self.network).stem, f"{self.data}", *where)

    def removed(self, detector: str, channels: int) -> tuple[int, tuple[int, ...]]:
        """How many the table removes, and all counts of the curve, for so many channels.

        Raises:
            InputError: more than there are.
        """
        share = PAPER_COUNT / PAPER_CHANNELS[detector]
        count = max(1, round(share * channels)) if self.count is None else self.count
        eighths = tuple(max(1, channels * part // 8) for part in range(1, 8))
        counts = eighths if self.counts is None else self.counts
        for name, most in (("count", count), ("counts", max(counts))):
            if most > channels:
                raise InputError(f"{name}: expected at most {channels}, got {most}")
        return count, tuple(sorted({count, *counts}))


_PLACES = ("workers", "root", "out", "resume", "force")
COMMANDS = (
    Command(
        "detect train",
        DetectionConfig,
        run="run",
        help="Train a pedestrian detector and measure its log-average miss rate (S4).\n\n"
        "--detector and --seed take several values, separated by commas: a run each.\n\n"
        f"{TORCHRUN_HELP} In several processes only CSP can be trained: the "
        "others learn from random regions, which depend on how many processes draw them.",
        places=("workers", "root", "sync_batch_norm", "out", "resume", "force"),
    ),
    Command(
        "detect evaluate",
        EvaluationConfig,
        run="evaluate",
        help="Score a detector, or a file of anybody's detections: miss rate by setting.",
        places=_PLACES,
    ),
    Command(
        "detect ablate",
        AblationConfig,
        run="ablate",
        help="What detectors lose without the channels of their latent that hold position.",
        places=_PLACES,
        only=tuple(
            name
            for name in AblationConfig.__dataclass_fields__
            if name not in ("preset", "detector")
        ),
        fixed={"job": "detect-ablate"},
    ),
    Command(
        "table-s1",
        AblationConfig,
        run="ablate",
        help="Table S1: miss rates of detectors without the channels that hold position.\n\n"
        "Without a checkpoint the detectors of --preset are trained before. --detector and --seed "
        "take several values, separated by commas: a run each.",
        places=_PLACES,
        fixed={"job": "table-s1"},
    ),
)

"""Every option of ``gpe rank``, ``gpe ablate`` and the figures, and what the paper has for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from gpe.choices import SMALL_SETS, Engine, Precision, Region
from gpe.errors import InputError, expect_one_of
from gpe.experiments.options import (
    Command,
    Config,
    batch_size_option,
    channel_dim_option,
    device_option,
    option,
    precision_option,
    seed_option,
    short_names,
)
from gpe.experiments.segmentation.config import (
    CHECKPOINT_HELP,
    PIXEL_DATA_HELP,
    PixelConfig,
    SegmentationConfig,
)

Job = Literal["rank", "ablate", "figure4", "figure5", "figure6"]
REGIONS: tuple[Region, ...] = get_args(Region)


class Mode(NamedTuple):
    """A way to rank channels, as it is called and drawn.

    Attributes:
        note: what it is, in the paper's terms.
        kind: of its first channels, in a sentence.
        colour, dashes: of its line; lines that may lie upon one another differ.
    """

    label: str
    note: str
    kind: str
    colour: str
    dashes: str = ""


RANDOM, MATCHED = "random", "matched"  # each many orders, drawn and told of as one
# In the order of the paper's figures; then what position is held against.
MODES = {
    "overall": Mode("Overall", "Normal in Figure 4 (Equation 2)", "position-specific", "blue"),
    "kernel_flip_mirror": Mode(
        "Kernel-Flip*", "image and mirror, kernels mirrored", "position-specific", "teal", "7 3"
    ),
    "kernel_flip_pair": Mode(
        *("Kernel-Flip**", "image, kernels as they are and mirrored", "position-specific"),
        *("purple", "2.5 2.5"),
    ),
    "left": Mode("Left", "people on the left alone (Equation 3)", "left-specific", "red"),
    "right": Mode("Right", "people on the right alone (Equation 3)", "right-specific", "amber"),
    "left_right": Mode(
        *("Left − right", "Equation 3, left minus right", "left-minus-right", "red", "7 3")
    ),
    "right_left": Mode(
        *("Right − left", "Equation 3, right minus left", "right-minus-left", "amber", "7 3")
    ),
    "activity:left": Mode(
        *("Active left", "activation on the left minus elsewhere", "left-active", "red", "2.5 2.5")
    ),
    "activity:right": Mode(
        "Active right",
        "activation on the right minus elsewhere",
        "right-active",
        "amber",
        "2.5 2.5",
    ),
    "relative": Mode(
        *("Relative", "Equation 2 over the deviation", "relatively position-specific"),
        *("blue", "7 3"),
    ),
    "magnitude": Mode("Magnitude", "mean activation", "active", "orange"),
    "deviation": Mode("Deviation", "standard deviation over images", "varying", "red", "8 3 2 3"),
    "taylor": Mode("Taylor", "activation × gradient of the loss", "important", "teal"),
    MATCHED: Mode("Matched", "random, deviating as Equation 2's", "matched", "purple", "2.5 2.5"),
    RANDOM: Mode("Random", "", "random", "grey"),
}
# Importance, and channels that deviate as those of Equation 2 do: what position is held against.
IMPORTANCE = ("magnitude", "deviation", "taylor")
CONTROLS = ("relative", *IMPORTANCE, MATCHED)
# A classifier's images do not say which side they are of.
CLASSIFIER_MODES = ("overall", "kernel_flip_mirror", "kernel_flip_pair", *CONTROLS)
# Rankings of a side, each with that of the other.
SIDED = (("left", "right"), ("left_right", "right_left"), ("activity:left", "activity:right"))
GRID = tuple(f"3x3:{cell}" for cell in range(9))  # regions of Figure 6's map

# What each command ranks by, and whether it also removes a range of channels at a time.
JOBS: Mapping[str, Mapping[str, Any]] = {
    "rank": {"modes": ("overall",), "random_seeds": 0},
    "ablate": {"modes": ("overall", *CONTROLS), "ranges": True, "regions": REGIONS},
    "figure4": {"modes": CLASSIFIER_MODES, "ranges": True, "regions": REGIONS},
    "figure5": {"modes": ("overall",), "random_seeds": 1},
    "figure6": {
        "modes": ("overall", *(mode for pair in SIDED for mode in pair)),
        "regions": REGIONS,
    },
}
FEW = (0, 1, 3, 5, 10)  # twentieths, whose predictions Figure 5 shows

# The paper's network has so many channels, and it tells of so many removed.
PAPER_CHANNELS = 2048
PAPER_COUNTS = (100, 500)
# Section 4.2.2: Cityscapes, DeepLabv3-ResNet-50, the whole image. (ranking, channels) -> mIoU.
FIGURE_4 = {
    ("overall", 0): 74.0,
    ("random", 0): 74.0,
    ("overall", 100): 71.9,
    ("random", 100): 73.4,
    ("overall", 500): 64.7,
    ("random", 500): 70.5,
}


def _expect_mode(name: str, value: str) -> None:
    kind, _, which = value.partition(":")
    if kind != "activity" or not which:
        expect_one_of(name, kind, tuple(MODES))


_MODES_HELP = f"Rank by: {', '.join(MODES)}"
_RANKINGS_HELP = (
    "Files that gpe rank left, or the paper's JSON, as FILE or NAME=FILE; besides --modes, or in "
    "place of its default"
)
_LAYER_HELP = "Layer whose channels are ranked and removed; last: the last feature map"
_COUNTS_HELP = "How many channels to remove"
_RANGES_HELP = "Also remove each twentieth of a ranking by itself"
RANDOM_HELP = "Number of random orders, and of matched ones, to compare with"


@dataclass(frozen=True, kw_only=True)
class RemovalConfig(PixelConfig):
    """What is ranked and removed of one segmentation network."""

    SWEPT = ("checkpoint",)

    checkpoint: str = option(CHECKPOINT_HELP, "", argument=True)
    job: Job = option("What is done", hidden=True)
    preset: str | None = option(
        "The training that goes before, without a checkpoint: quick, camvid or cityscapes",
        None,
        unset="quick, or the one for --data",
    )
    layer: str = option(_LAYER_HELP, "backbone.layer4")
    channel_dim: int | None = channel_dim_option()
    modes: tuple[str, ...] = option(_MODES_HELP, (), check=_expect_mode)
    rankings: tuple[str, ...] = option(_RANKINGS_HELP, ())
    rankings_digest: str = option("Of the files' content", "", hidden=True)
    random_seeds: int = option(RANDOM_HELP, 5, at_least=0)
    counts: tuple[int, ...] | None = option(_COUNTS_HELP, None, unset="all twentieths", at_least=0)
    ranges: bool = option(_RANGES_HELP, False)
    regions: tuple[Region, ...] = option("Regions to score: full, left, centre or right", ())
    boxes: str | None = option(
        "CityPersons' anno_val.mat, for left and right",
        None,
        unset="images with people on that side alone, by their labels",
    )
    person: str | None = option("Class of people", None, unset="person or pedestrian")
    engine: Engine = option("auto, incremental or general", "auto")
    seed: int = seed_option("Seed of the random orders")

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(JOBS[given["job"]])
        if given.get("rankings"):
            values["modes"] = ()
        return values

    @classmethod
    def several(cls, **given: Any) -> "Sequence[RemovalConfig]":  # type: ignore[override]
        given["checkpoint"] = [str(each) for each in given.get("checkpoint") or ("",)]
        if given["checkpoint"] == [""] and given["job"] in ("rank", "ablate"):
            raise InputError("checkpoint: expected one or more, got none")
        if given["checkpoint"] == [""]:
            given["preset"] = _preset(given.get("preset"), given.get("data"))
        elif given.get("preset") is not None:
            raise InputError(
                f"preset: expected none beside a checkpoint, got {given['preset']}: it is of the "
                "training that goes before without one"
            )
        return super().several(**given)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modes and not self.rankings:
            raise InputError("modes: expected at least one, got none")

    @property
    def title(self) -> tuple[str, ...]:
        return (self.job, self.network.partition(".")[0], f"{self.data}")

    @property
    def paper(self) -> dict[str, Any] | None:
        """Figure 4's numbers, for the network and the set that they are of."""
        if self.job not in ("ablate", "figure4") or self.data != "cityscapes":
            return None
        rows = [
            {"ranking": name, "removal": "top", "start": 0, "stop": n, "region": "full"}
            | {"miou": miou}
            for (name, n), miou in FIGURE_4.items()
        ]
        protocol = "DeepLabv3-ResNet-50, output stride 16"
        return {"source": "Figure 4", "protocol": protocol, "rows": rows}

    def removals(self, channels: int) -> "RemovalConfig":
        """With the counts of a layer of so many channels: the paper's hundreds of 2,048.

        None is always among them, for comparison.
        """
        if self.counts is not None:
            return replace(self, counts=tuple(dict.fromkeys((0, *self.counts))))
        step = step_of(channels)
        steps: Sequence[int] = FEW if self.job == "figure5" else range(-(-channels // step))
        return replace(self, counts=tuple(number * step for number in steps))


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(Config):
    """What is ranked and removed of one classifier, in a layer or before its linear layer."""

    job: Literal["rank", "ablate"] = option("What is done", "ablate", hidden=True)
    task: str = option("What the network does", "classify", hidden=True)
    model: str = option("A classifier")
    network: str = option("Its name", "", hidden=True)
    weights_digest: str = option("Of its weights", "", hidden=True)
    layer: str = option("Whose channels are removed", "", hidden=True)
    channel_dim: int | None = channel_dim_option()
    data: str = option("Images by class; its test images are ranked and scored on")
    weights: str | None = option("Its weights", None)
    images: int | None = option("Number of images, drawn by seed 0", None, at_least=1)
    image_size: int | None = option("What the network sees (px)", None, at_least=1)
    resize_size: int | None = option("Shorter side before (px)", None, at_least=1)
    modes: tuple[str, ...] = option(_MODES_HELP, ("overall", *CONTROLS))
    rankings: tuple[str, ...] = option(_RANKINGS_HELP, ())
    rankings_digest: str = option("Of the files' content", "", hidden=True)
    random_seeds: int = option(RANDOM_HELP, 5, at_least=0)
    counts: tuple[int, ...] | None = option(_COUNTS_HELP, None, at_least=0)
    ranges: bool = option(_RANGES_HELP, True)
    batch_size: int = batch_size_option(64)
    device: str = device_option()
    precision: Precision = precision_option()
    seed: int = seed_option("Seed of the random orders")

    def __post_init__(self) -> None:
        super().__post_init__()
        for mode in self.modes:
            expect_one_of("modes", mode, CLASSIFIER_MODES)
        if not self.modes and not self.rankings:
            raise InputError("modes: expected at least one, got none")

    @property
    def title(self) -> tuple[str, ...]:
        return (f"{self.job}-classify", *short_names(self.model), Path(self.data).name)

    def removals(self, channels: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Counts, none always among them, and ranges for a layer of so many channels."""
        counts = range(0, channels, step_of(channels)) if self.counts is None else self.counts
        return list(dict.fromkeys((0, *counts))), ranges_of(channels) if self.ranges else []


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """What ``gpe ablate`` asks beside, where it is a classifier's channels that are removed."""

    task: Literal["segment", "classify"] = option("segment or classify", "segment")
    image_size: int | None = option(
        "What the network sees (px)", None, unset="the model's", group="With --task classify"
    )
    resize_size: int | None = option(
        "Shorter side before (px)", None, unset="the model's", group="With --task classify"
    )


@dataclass(frozen=True, kw_only=True)
class AblateConfig(RemovalConfig):
    """``gpe rank`` and ``gpe ablate``: of segmentation networks, or of classifiers."""

    data: str | None = option(  # type: ignore[assignment]
        f"{PIXEL_DATA_HELP}; to classify: {SMALL_SETS}, imagenet or a folder of images by class",
        None,
        unset="what it was trained on",
    )
    layer: str | None = option(  # type: ignore[assignment]
        _LAYER_HELP,
        None,
        unset="backbone.layer4; of a classifier last, to remove what its linear layer reads",
    )

    @classmethod
    def several(cls, **given: Any) -> "Sequence[Config]":  # type: ignore[override]
        of_classifier = {name: given.pop(name) for name in ("image_size", "resize_size")}
        task = given.pop("task")
        expect_one_of("task", task, ("segment", "classify"))
        if task == "segment":
            _expect_none(of_classifier, task)
            return RemovalConfig.several(**given)
        only_segment = ("regions", "engine", "split", "size", "person", "output_stride", "boxes")
        unset = {"engine": "auto", "regions": REGIONS}
        refused = {name: given.pop(name, None) for name in only_segment}
        _expect_none(
            {name: value for name, value in refused.items() if unset.get(name) != value}, task
        )
        if given["data"] is None:
            raise InputError("data: expected one with --task classify, got none")
        models = given.pop("checkpoint")
        if given.get("rankings") and given.get("modes") is None:
            given["modes"] = ()
        return [ClassificationConfig.of(model=model, **given, **of_classifier) for model in models]


def step_of(channels: int) -> int:
    """A twentieth of a layer's channels: 100 of 2,048, as in Figure 4."""
    return max(1, round(channels / 20.48))


def ranges_of(channels: int) -> list[tuple[int, int]]:
    """Each twentieth of a ranking."""
    step = step_of(channels)
    return [(start, start + step) for start in range(0, channels - step + 1, step)]


def _preset(preset: str | None, data: str | None) -> str:
    """The training that goes before a figure of no checkpoint."""
    presets = SegmentationConfig.PRESETS
    if preset is not None:
        expect_one_of("preset", preset, list(presets))
    trained_on = {name: str(values["data"]) for name, values in presets.items()}
    if data is None:
        return preset or next(iter(presets))
    fitting = [name for name, known in trained_on.items() if known == data]
    if not fitting or preset not in (None, *fitting):
        known = ", ".join(f"{data} (--preset {name})" for name, data in trained_on.items())
        raise InputError(f"data: expected, without a checkpoint, one of {known}, got {data}")
    return preset or fitting[0]


def _expect_none(given: Mapping[str, Any], task: str) -> None:
    """Raise an InputError where one of them is given."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name}: expected none with --task {task}, got {value}")


_IMAGES = ("data", "images", "batch_size", "device", "precision")
_PLACES = ("workers", "root", "out", "resume", "force")
_RANKED = (
    *("checkpoint", "modes", "layer", "channel_dim", "split", "size", "output_stride"),
    *("boxes", "person", "weights"),
)
_FIGURE = ("checkpoint", "preset", "split", *_IMAGES)

COMMANDS = (
    Command(
        "rank",
        AblateConfig,
        run="run",
        help="Rank the channels of a layer by how much position they hold (Equations 2 and 3).",
        places=("download", "max_pixels", *_PLACES),
        extra=ClassifyOptions,
        only=(*_RANKED, *_IMAGES, "seed"),
        fixed={"job": "rank"},
    ),
    Command(
        "ablate",
        AblateConfig,
        run="run",
        help="Remove ranked channels and score what is left (section 4.2.2).\n\n"
        "Of a segmentation network region by region; of a classifier the channels before its "
        "linear layer, or of --layer, by top-1 accuracy, or without labels by answers kept. "
        "Several networks are reported side by side.",
        places=("download", "max_pixels", *_PLACES),
        extra=ClassifyOptions,
        only=(
            *(*_RANKED, *_IMAGES, "rankings", "random_seeds", "counts", "ranges", "regions"),
            *("engine", "seed"),
        ),
        fixed={"job": "ablate"},
    ),
    Command(
        "figure4",
        RemovalConfig,
        run="run",
        help="Figure 4: mIoU without the first N channels, and without a range of them, by region."
        "\n\nRanked by Equation 2 (Normal), by Kernel-Flip* and Kernel-Flip**, beside random "
        "orders. Without a checkpoint, a network is trained first.",
        places=_PLACES,
        only=(*_FIGURE, "random_seeds", "engine"),
        fixed={"job": "figure4"},
    ),
    Command(
        "figure5",
        RemovalConfig,
        run="run",
        help="Figure 5: predictions without N position channels and without N random ones.\n\n"
        "Without a checkpoint, a network is trained first.",
        places=_PLACES,
        only=(*_FIGURE, "counts"),
        fixed={"job": "figure5"},
    ),
    Command(
        "figure6",
        RemovalConfig,
        run="run",
        help="Figures 6, S3 and S4: each half without the channels of the left, the right, or any."
        "\n\nWithout a checkpoint, a network is trained first.",
        places=_PLACES,
        only=(*_FIGURE, "boxes", "person", "random_seeds", "engine"),
        fixed={"job": "figure6"},
    ),
)

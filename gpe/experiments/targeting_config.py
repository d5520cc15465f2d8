"""Every option of ``gpe rank``, ``gpe ablate`` and the figures, and what the paper has for them."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from gpe.data.segmentation import DATASETS
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.runs import expect_device, expect_seed
from gpe.experiments.segmentation_config import Precision
from gpe.experiments.segmentation_evaluation import Segmenter
from gpe.records import directory_name

Job = Literal["rank", "ablate", "figure4", "figure5", "figure6"]
Engine = Literal["auto", "incremental", "general"]

MODES = ("overall", "left", "right", "kernel_flip_mirror", "kernel_flip_pair", "random")
REGIONS = ("full", "left", "centre", "right")

# What each command ranks by, and whether it also removes a range of channels at a time.
JOBS: dict[Job, dict[str, Any]] = {
    "rank": {"modes": ("overall",), "random_seeds": 0},
    "ablate": {"modes": ("overall",), "ranges": True, "regions": REGIONS},
    "figure4": {
        "modes": ("overall", "kernel_flip_mirror", "kernel_flip_pair"),
        "ranges": True,
        "regions": REGIONS,
    },
    "figure5": {"modes": ("overall",), "random_seeds": 1},
    "figure6": {"modes": ("left", "overall", "right"), "regions": REGIONS},
}
_COMMON = {
    "layer": "backbone.layer4",
    "split": "val",
    "size": None,
    "images": None,
    "output_stride": None,
    "rankings": (),
    "random_seeds": 5,
    "counts": None,
    "ranges": False,
    "regions": (),
    "boxes": None,
    "person": None,
    "engine": "auto",
    "batch_size": 1,
    "device": "cpu",
    "precision": "fp32",
    "seed": 0,
}

FEW = (0, 1, 3, 5, 10)  # twentieths, whose predictions Figure 5 shows

# Section 4.2.2: Cityscapes, DeepLabv3-ResNet-50, the whole image. (ranking, channels) -> mIoU.
FIGURE_4 = {
    ("overall", 0): 74.0,
    ("random", 0): 74.0,
    ("overall", 100): 71.9,
    ("random", 100): 73.4,
    ("overall", 500): 64.7,
    ("random", 500): 70.5,
}


@dataclass(frozen=True)
class TargetingConfig:
    """Every option of one run. :meth:`of` fills in what the command and the network say.

    Attributes:
        checkpoint: as for :func:`load_segmenter`.
        network: its name.
        layer: whose channels are ranked and removed.
        data, split, size, images: what is ranked and scored on, as in ``EvaluationConfig``.
        modes: that channels are ranked by, of ``MODES``.
        rankings: files of rankings, besides or in place of ``modes``.
        random_seeds: how many random orders there are to compare with.
        counts: how many channels are removed; None: from none to all in steps of a twentieth.
        ranges: whether each twentieth of a ranking is removed by itself, too.
        regions: of the image, whose mIoU is told.
        boxes: CityPersons' ``anno_*.mat``, for ``left`` and ``right``; without it, the images
            in which the labels have the class ``person`` on one side only.
        engine: of :func:`gpe.ablation_sweep`.
        seed: of the random orders.

    Raises:
        InputError: an option outside what it may be.
    """

    job: Job
    checkpoint: str
    network: str
    layer: str
    data: str
    split: str
    size: tuple[int, int] | None
    images: int | None
    output_stride: int | None
    modes: tuple[str, ...]
    rankings: tuple[str, ...]
    random_seeds: int
    counts: tuple[int, ...] | None
    ranges: bool
    regions: tuple[str, ...]
    boxes: str | None
    person: str | None
    engine: Engine
    batch_size: int
    device: str
    precision: Precision
    seed: int

    @classmethod
    def of(
        cls, job: Job, segmenter: Segmenter, checkpoint: str, **options: Any
    ) -> "TargetingConfig":
        """Options that are None are the command's own, or those that the network was trained with.

        Raises:
            InputError: no data, where the network does not know any.
        """
        trained = segmenter.config
        known = {name: trained[name] for name in ("data", "split", "size") if name in trained}
        if options.get("data") not in (None, known.get("data")):
            known = {}  # of another dataset, which has splits and a size of its own
        elif "test_images" in trained:
            known["images"] = trained["test_images"]
            known["batch_size"] = trained["test_batch_size"]
        given = {name: value for name, value in options.items() if value is not None}
        values = _COMMON | JOBS[job] | known | given
        if "data" not in values:
            raise InputError(f"data: expected one of {', '.join(DATASETS)} with a file, got none")
        for name in ("size", "modes", "rankings", "counts", "regions"):
            if values[name] is not None:
                values[name] = tuple(values[name])
        return cls(job=job, checkpoint=checkpoint, network=segmenter.name, **values)

    def __post_init__(self):
        choices = {"data": DATASETS, "engine": get_args(Engine), "precision": get_args(Precision)}
        for name, choice in choices.items():
            expect_one_of(name, getattr(self, name), choice)
        for name, choice in (("modes", MODES), ("regions", REGIONS)):
            for value in getattr(self, name):
                expect_one_of(name, value, choice)
        if not self.modes and not self.rankings:
            raise InputError("modes: expected at least one, got none")
        for name in ("batch_size", "images"):
            if getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if self.random_seeds < 0:
            raise InputError(f"random_seeds: expected at least 0, got {self.random_seeds}")
        if self.counts is not None and (not self.counts or min(self.counts) < 0):
            raise InputError(f"counts: expected numbers of channels, got {self.counts}")
        if self.size is not None and len(self.size) != 2:
            raise InputError(f"size: expected height and width, got {self.size}")
        expect_seed(self.seed)
        expect_device(self.device)

    @property
    def name(self) -> str:
        """A directory name that tells what the run is; no two configurations share one."""
        return directory_name(self, self.job, self.network.partition(".")[0], self.data)

    def removals(self, channels: int) -> "TargetingConfig":
        """With the counts of a layer of so many channels: the paper's hundreds of 2,048.

        None is always among them, for comparison.
        """
        if self.counts is not None:
            return replace(self, counts=tuple(dict.fromkeys((0, *self.counts))))
        step = step_of(channels)
        steps = FEW if self.job == "figure5" else range(-(-channels // step))
        return replace(self, counts=tuple(number * step for number in steps))


def step_of(channels: int) -> int:
    """A twentieth of a layer's channels: 100 of 2,048, as in Figure 4."""
    return max(1, round(channels / 20.48))

"""``gpe segment evaluate``: any trained segmentation network on any dataset."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import torch
from torch import nn

from gpe.data import segmentation_set
from gpe.data.pixels import default_workers
from gpe.data.segmentation import DATASETS
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.region_scores import region_scores
from gpe.experiments.runs import expect_device, expecting, prepare
from gpe.experiments.segmentation import build
from gpe.experiments.segmentation_config import Precision, SegmentationConfig
from gpe.experiments.training import CHECKPOINT
from gpe.models.deeplab import load_deeplab_checkpoint
from gpe.records import Record, directory_name, environment, save_arrays


@dataclass(frozen=True)
class Segmenter:
    """A trained network.

    Attributes:
        model: a DeepLabv3 in evaluation mode, on the CPU.
        config: of the run of ``gpe segment train`` that left it; of a file its path alone, under
            ``"weights"``.
        name: the directory's or the file's.
        classes: their names; None where a file does not tell.
    """

    model: nn.Module
    config: dict[str, Any]
    name: str
    classes: tuple[str, ...] | None


def load_segmenter(checkpoint: str | Path, *, output_stride: int | None = None) -> Segmenter:
    """A trained network, wherever it comes from.

    Args:
        checkpoint: a directory that ``gpe segment train`` left, or a file for
            :func:`gpe.models.load_deeplab_checkpoint`: torchvision's weights or the authors'
            checkpoint.
        output_stride: of a file, 8 or 16; None: what it says or is known for.

    Raises:
        InputError: no such directory or file, one with something else, or a stride with a
            directory, which knows its own.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        model = load_deeplab_checkpoint(path, output_stride=output_stride)
        return Segmenter(model, {"weights": str(checkpoint)}, path.name, None)
    if output_stride is not None:
        raise InputError(f"output_stride: expected none with a directory, got {output_stride}")
    file = path / CHECKPOINT
    with expecting(f"checkpoint: expected {file} to be one of gpe segment train"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        config = SegmentationConfig(**state["config"] | {"device": "cpu", "weights": None})
        classes = tuple(state["trial"]["images"]["classes"])
        model = build(config, len(classes))
        model.load_state_dict(state["trial"]["model"])
    return Segmenter(model.eval(), state["config"], path.resolve().name, classes)


@dataclass(frozen=True)
class EvaluationConfig:
    """What is scored, and how.

    Attributes:
        checkpoint: as for :func:`load_segmenter`.
        data, split: as for :func:`gpe.data.segmentation_set`.
        size: height and width in pixels that images are resized to; None: as they are.
        images: at most so many, spread evenly over the split; all where None.
        output_stride: as for :func:`load_segmenter`.

    Raises:
        InputError: an option outside what it may be.
    """

    checkpoint: str
    data: str
    split: str
    size: tuple[int, int] | None
    images: int | None
    output_stride: int | None
    batch_size: int
    device: str
    precision: Precision

    @classmethod
    def of(cls, segmenter: Segmenter, checkpoint: str, **options: Any) -> "EvaluationConfig":
        """Of options that are None, those that the network was trained with are taken.

        Raises:
            InputError: no data, where the network does not know any.
        """
        names = "data", "split", "size"
        known = {name: segmenter.config[name] for name in names if name in segmenter.config}
        if options.get("data") not in (None, known.get("data")):
            known = {}  # of another dataset, which has splits and a size of its own
        given = {name: value for name, value in options.items() if value is not None}
        values = {"split": "val", "size": None, "images": None, "output_stride": None}
        values |= known | given
        if "data" not in values:
            raise InputError(f"data: expected one of {', '.join(DATASETS)} with a file, got none")
        if values["size"] is not None:
            values["size"] = tuple(values["size"])
        return cls(checkpoint=checkpoint, **values)

    def __post_init__(self):
        expect_one_of("data", self.data, DATASETS)
        expect_one_of("precision", self.precision, get_args(Precision))
        for name in ("batch_size", "images"):
            if getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if self.size is not None and len(self.size) != 2:
            raise InputError(f"size: expected height and width, got {self.size}")
        expect_device(self.device)

    @property
    def name(self) -> str:
        """A directory name that tells what was scored."""
        checkpoint = Path(self.checkpoint).stem
        return directory_name(self, "segment-evaluate", checkpoint, self.data, self.split)


def evaluate(
    checkpoint: str,
    out: Path,
    *,
    root: Path = Path("data"),
    workers: int | None = None,
    output_stride: int | None = None,
    **options: Any,
) -> Path:
    """Scores a network and leaves a record in a directory below ``out``, which is returned.

    Args:
        checkpoint, output_stride: as for :func:`load_segmenter`.
        out: made where it is not there.
        root: where the files of the dataset lie.
        workers: processes that read images; one a core where None.
        options: ``batch_size``, ``device`` and ``precision``, and what else
            :class:`EvaluationConfig` has; without data, split or size, those of the training.

    Raises:
        InputError: a network or images that cannot be had or do not go together, or a directory
            that cannot be made.
    """
    start = perf_counter()
    segmenter = load_segmenter(checkpoint, output_stride=output_stride)
    options |= {"output_stride": output_stride}
    config = EvaluationConfig.of(segmenter, str(checkpoint), **options)
    images = segmentation_set(
        config.data,
        root,
        config.split,
        config.size,
        images=config.images,
        workers=default_workers(workers),
    ).to(config.device)
    device = torch.device(config.device)
    result, arrays = region_scores(
        segmenter.model.to(device),
        images,
        batch_size=config.batch_size,
        precision=config.precision,
    )
    directory = prepare(out / config.name)
    save_arrays(directory, arrays)
    Record(
        experiment="segment",
        config=json.loads(json.dumps(asdict(config))) | {"network": segmenter.name},
        epochs=[],
        result=result,
        chance=100 / len(images.classes),
        paper=None,
        run={
            "seconds": perf_counter() - start,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(device),
        },
    ).save(directory)
    return directory

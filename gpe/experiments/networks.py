"""Networks as the commands name them: anybody's classifiers, files, and what gpe's runs left."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpe.data.imagenet import STATISTICS
from gpe.errors import InputError
from gpe.experiments import augshift, location, segmentation
from gpe.experiments.augshift_config import AugShiftConfig
from gpe.experiments.location_config import LocationConfig
from gpe.experiments.runs import expecting
from gpe.experiments.segmentation_config import SegmentationConfig
from gpe.experiments.segmentation_evaluation import load_segmenter
from gpe.experiments.training import CHECKPOINT
from gpe.models import load_location_checkpoint, open_model
from gpe.models.pretrained import OpenedModel

RANDOM = "random"
PRETRAINED = "pretrained"


def open_classifier(
    model: str,
    weights: str | None,
    *,
    seed: int = 0,
    image_size: int | None = None,
    resize_size: int | None = None,
) -> OpenedModel:
    """A classifier, to be measured.

    Args:
        model: a directory that ``gpe augshift`` left, or a name for :func:`open_model`.
        weights: as for :func:`open_model`; none with a directory, which has its own.
        seed: of ``"random"`` weights.
        image_size: of what the network sees, in pixels; the model's where None.
        resize_size: of the shorter side before its centre is cut out; the model's where None.

    Raises:
        InputError: it cannot be had.
    """
    if (directory := Path(model)).is_dir():
        expect_no_weights(model, weights)
        opened = augshift.load_trained(directory)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            opened = open_model(model, weights=weights)
    input_size = image_size or opened.input_size
    resize_size = resize_size or max(opened.resize_size, input_size)
    return replace(opened, input_size=input_size, resize_size=resize_size)


def expect_no_weights(model: str, weights: str | None) -> None:
    """Raise an InputError where weights come with a directory, which has its own."""
    if weights is not None and Path(model).is_dir():
        raise InputError(f"weights: expected none with a directory, got {weights}")


@dataclass(frozen=True)
class Frozen:
    """A network that is read and never changed.

    Attributes:
        model: in evaluation mode, on the CPU.
        name: what it is called.
        task: what it was made for: ``"classification"``, ``"location"``, ``"segmentation"``.
        inside: name of the module whose stages are read, all of the model if empty.
        mean, std: that it wants images normalised by; None for those of the images at hand.
    """

    model: nn.Module
    name: str
    task: str
    inside: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def open_frozen(model: str, weights: str = PRETRAINED, *, seed: int = 0) -> Frozen:
    """A network of any task, to be read.

    Args:
        model: a directory that ``gpe location``, ``gpe augshift`` or ``gpe segment train`` left; a
            file with a checkpoint of the paper's authors or of torchvision's DeepLabv3; or a name
            for :func:`gpe.models.open_model`.
        weights: ``"pretrained"`` for those of the checkpoint or the library; ``"random"`` for the
            same network as it was before any training, the control; of a name also a file.
        seed: of random weights.

    Raises:
        InputError: no such network, weights that cannot be had, or a file of weights with a
            directory or file, which has its own.
    """
    path = Path(model).expanduser()
    if not path.exists():
        opened = open_classifier(model, None if weights == PRETRAINED else weights, seed=seed)
        return Frozen(opened.model, opened.name, "classification", "", opened.mean, opened.std)
    if weights not in (PRETRAINED, RANDOM):
        raise InputError(f"weights: expected {PRETRAINED} or {RANDOM} with {path}, got {weights}")
    if path.is_dir():
        return _of_run(path, seed if weights == RANDOM else None)
    if weights == RANDOM:
        raise InputError(f"weights: expected {PRETRAINED} with the file {path}, got {RANDOM}")
    return _of_file(path)


def short_names(model: str, weights: str) -> tuple[str, str]:
    """What the arguments of :func:`open_frozen` are called in the name of a directory."""
    name = Path(model).name if Path(model).exists() else model
    kind = weights if weights in (PRETRAINED, RANDOM) else Path(weights).stem
    return name.replace("/", "-"), kind


def _of_file(path: Path) -> Frozen:
    try:
        return Frozen(load_location_checkpoint(path), path.name, "location", "backbone", None, None)
    except InputError as error:
        not_location = error
    try:
        return _segmentation(load_segmenter(path).model, path.name)
    except InputError as error:
        raise InputError(
            f"model: expected {path} to hold a location or segmentation network, got neither: "
            f"{not_location}; {error}"
        ) from None


def _of_run(path: Path, seed: int | None) -> Frozen:
    """The network of a run: with its weights, or as ``seed`` makes it before any training."""
    checkpoint = path / CHECKPOINT
    commands = "gpe location, gpe augshift or gpe segment train"
    with expecting(f"model: expected {checkpoint} to be one of {commands}"):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        kind = next(kind for option, kind in _KINDS.items() if option in state["config"])
    return kind(path, state, seed)


def _location_run(path: Path, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        config = LocationConfig(**config | {"betas": tuple(config["betas"])})
        return location.build(config, len(state["trial"]["model"]["classifier.bias"]))

    # The images' mean and std are not in such a checkpoint: those at hand stand in for them.
    model = _rebuilt(build, path, state, seed)
    return Frozen(model, path.resolve().name, "location", "backbone", None, None)


def _augshift_run(path: Path, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        classes = len(state["trial"]["images"]["classes"])
        return augshift.build(AugShiftConfig(**config), classes)

    if seed is None:
        opened = open_classifier(str(path), None)
        model, mean, std = opened.model, opened.mean, opened.std
    else:
        model = _rebuilt(build, path, state, seed)
        with expecting(f"model: expected {path / CHECKPOINT} to be a checkpoint of gpe augshift"):
            mean, std = (state["trial"]["images"][name] for name in ("mean", "std"))
    return Frozen(model, path.resolve().name, "classification", "backbone", mean, std)


def _segment_run(path: Path, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        classes = len(state["trial"]["images"]["classes"])
        return segmentation.build(SegmentationConfig(**config | {"weights": None}), classes)

    model = load_segmenter(path).model if seed is None else _rebuilt(build, path, state, seed)
    return _segmentation(model, path.resolve().name)


# By an option that the configurations of the others do not have.
_KINDS: dict[str, Callable[[Path, dict, int | None], Frozen]] = {
    "permutation": _location_run,
    "crop_shift": _augshift_run,
    "output_stride": _segment_run,
}


def _segmentation(model: nn.Module, name: str) -> Frozen:
    # Trained on images normalised by ImageNet's mean and std, whatever they show.
    return Frozen(model, name, "segmentation", "backbone", *STATISTICS)


def _rebuilt(
    build: Callable[[dict[str, Any]], nn.Module], path: Path, state: dict, seed: int | None
) -> nn.Module:
    config = state["config"] | {"device": "cpu"}
    with expecting(f"model: expected {path / CHECKPOINT} to hold a run's network"):
        model = build(config if seed is None else config | {"seed": seed})
        if seed is None:
            model.load_state_dict(state["trial"]["model"])
    return model.eval()

"""Frozen networks to read: anybody's classifiers, and what the package's own commands trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpe.data.imagenet import STATISTICS
from gpe.errors import InputError
from gpe.experiments import augshift, location, segmentation
from gpe.experiments.augshift_config import AugShiftConfig
from gpe.experiments.location import LocationConfig
from gpe.experiments.segmentation_config import SegmentationConfig
from gpe.experiments.segmentation_evaluation import load_segmenter
from gpe.experiments.training import CHECKPOINT
from gpe.models import load_location_checkpoint, open_model

RANDOM = "random"
PRETRAINED = "pretrained"


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
    """A network to read.

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            opened = open_model(model, weights=None if weights == PRETRAINED else weights)
        return Frozen(opened.model, opened.name, "classification", "", opened.mean, opened.std)
    if weights not in (PRETRAINED, RANDOM):
        raise InputError(f"weights: expected {PRETRAINED} or {RANDOM} with {path}, got {weights}")
    if path.is_dir():
        return _of_run(path, weights == RANDOM, seed)
    if weights == RANDOM:
        raise InputError(f"weights: expected {PRETRAINED} with the file {path}, got {RANDOM}")
    return _of_file(path)


def _of_file(path: Path) -> Frozen:
    try:
        return Frozen(load_location_checkpoint(path), path.name, "location", "backbone", None, None)
    except InputError as error:
        not_location = error
    try:
        segmenter = load_segmenter(path)
    except InputError as error:
        raise InputError(
            f"model: expected {path} to hold a location or segmentation network, got neither: "
            f"{not_location}; {error}"
        ) from None
    return _segmentation(segmenter.model, path.name)


def _of_run(path: Path, random: bool, seed: int) -> Frozen:
    name = path.resolve().name
    try:
        state = torch.load(path / CHECKPOINT, map_location="cpu", weights_only=True)
        config = state["config"]
        kind = next(kind for option, kind in _KINDS.items() if option in config)
    except Exception as error:  # torch.load raises almost anything on a file not its own
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"model: expected {path / CHECKPOINT} to be one of gpe location, gpe augshift or "
            f"gpe segment train, got {type(error).__name__}: {reason:.100}"
        ) from None
    return kind(path, name, state, seed if random else None)


def _location_run(path: Path, name: str, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        config = LocationConfig(**config | {"betas": tuple(config["betas"])})
        return location.build(config, _location_classes(state))

    # The images' mean and std are not in such a checkpoint: those at hand stand in for them.
    return Frozen(_rebuilt(build, path, state, seed), name, "location", "backbone", None, None)


def _location_classes(state: dict) -> int:
    return len(state["trial"]["model"]["classifier.bias"])


def _augshift_run(path: Path, name: str, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        classes = len(state["trial"]["images"]["classes"])
        return augshift.build(AugShiftConfig(**config), classes)

    if seed is None:
        opened = augshift.load_trained(path)
        model, mean, std = opened.model, opened.mean, opened.std
    else:
        images = state["trial"]["images"]
        model, mean, std = _rebuilt(build, path, state, seed), images["mean"], images["std"]
    return Frozen(model, name, "classification", "backbone", mean, std)


def _segment_run(path: Path, name: str, state: dict, seed: int | None) -> Frozen:
    def build(config: dict[str, Any]) -> nn.Module:
        classes = len(state["trial"]["images"]["classes"])
        return segmentation.build(SegmentationConfig(**config | {"weights": None}), classes)

    model = load_segmenter(path).model if seed is None else _rebuilt(build, path, state, seed)
    return _segmentation(model, name)


# By an option that the configurations of the others do not have.
_KINDS: dict[str, Callable[[Path, str, dict, int | None], Frozen]] = {
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
    """The network of a run: with its weights, or as ``seed`` makes it before any training."""
    config = state["config"] | {"device": "cpu"}
    try:
        model = build(config if seed is None else config | {"seed": seed})
        if seed is None:
            model.load_state_dict(state["trial"]["model"])
    except Exception as error:  # a file may hold anything under these names
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"model: expected {path / CHECKPOINT} to hold a run's network, "
            f"got {type(error).__name__}: {reason:.100}"
        ) from None
    return model.eval()

"""One trained network, wherever it comes from: a run of gpe, a file, or a name of a library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpe.data.imagenet import STATISTICS
from gpe.data.opening import Interpolation
from gpe.errors import InputError
from gpe.experiments import EXPERIMENTS
from gpe.experiments.options import PRETRAINED, RANDOM
from gpe.experiments.runs import CHECKPOINT
from gpe.models import load_location_checkpoint, open_model
from gpe.models.checkpoints import read_file
from gpe.models.deeplab import load_deeplab_checkpoint
from gpe.models.inside import digest
from gpe.models.pretrained import Task
from gpe.models.running import foreign
from gpe.models.stages import what_follows

# Checkpoints of before did not say what left them: an option that the others do not have.
_OLD = {"permutation": "location", "crop_shift": "augshift", "output_stride": "segmentation"}


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode on the CPU, and what it is known to want and to mean.

    Attributes:
        name: what it is called.
        task: what it was made for, as :class:`gpe.models.pretrained.OpenedModel` has it; of runs
            also ``"location"``.
        inside: name of the module whose stages are read, all of the model if empty.
        num_classes: number of its answers; None where nothing tells.
        classes: their names; None where nothing tells.
        mean, std: that it wants images normalised by; None: those of the images at hand.
        input_size, resize_size: in pixels: the central crop that it sees, and the shorter side
            before; None where any will do.
        interpolation: of that resizing.
        config: of the run that trained it, empty for others.
        note: what its user should know: which weights of a file were taken, what may not fit.
    """

    model: nn.Module
    name: str
    task: str
    inside: str = ""
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: Interpolation = "bilinear"
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def sizes(self) -> tuple[int, int]:
        """``input_size`` and ``resize_size``; an InputError where the network tells none."""
        if self.input_size is None or self.resize_size is None:
            raise InputError(f"image_size: expected one with {self.name}, which tells none")
        return self.input_size, self.resize_size

    @property
    def digest(self) -> str:
        """Tells its weights from others: a hash, for names of runs and for rankings."""
        return digest(self.model)


def open_trained(
    model: str,
    weights: str | None = None,
    *,
    tasks: Sequence[Task] = (),
    seed: int = 0,
    image_size: int | None = None,
    resize_size: int | None = None,
    output_stride: int | None = None,
) -> Trained:
    """A network that is to be looked at, and is not trained any further.

    Args:
        model: a directory that ``gpe location``, ``augshift`` or ``segment train`` left; a file
            with a checkpoint of the paper's authors or of torchvision's DeepLabv3; or a name for
            :func:`gpe.models.open_model`.
        weights: None or ``"pretrained"`` for those of the run, file or library; ``"random"`` for
            the same network as it was before any training, the control; of a name also a file.
        tasks: that it may be for; any if empty.
        seed: of random weights.
        image_size, resize_size: in pixels; the network's own where None.
        output_stride: of a DeepLabv3 from a file; what the file is known for where None.

    Raises:
        InputError: no such network, weights that cannot be had, or a network for another task.
    """
    path = Path(model).expanduser()
    known = weights if weights != PRETRAINED else None
    if path.exists() and known not in (None, RANDOM):
        raise InputError(f"weights: expected {PRETRAINED} or {RANDOM} with {path}, got {weights}")
    if output_stride is not None and not path.is_file():
        raise InputError(f"output_stride: expected none without a file, got {output_stride}")
    if path.is_dir():
        found = _of_run(path, seed if known == RANDOM else None)
    elif path.exists():
        if known == RANDOM:
            raise InputError(f"weights: expected {PRETRAINED} with the file {path}, got {RANDOM}")
        found = _of_file(path, output_stride)
    elif path.suffix in (".pth", ".pt", ".safetensors", ".tar", ".ckpt", ".bin"):
        raise InputError(f"path: there is no {model}")
    else:
        found = _of_library(model, known, seed, tasks, image_size)
    if tasks and found.task not in tasks:
        expected = " or ".join(tasks)
        raise InputError(f"model: expected a network for {expected}, got {model}: {found.task}")
    if image_size is None and resize_size is None:
        return found
    input_size = image_size or found.input_size
    resize_size = resize_size or max(found.resize_size or 0, input_size or 0)
    return replace(found, input_size=input_size, resize_size=resize_size)


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """To bfloat16 where the precision is bf16."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def about_layer(network: Trained, layer: str, images: Tensor) -> str:
    """Which layer is looked at, and what of the network follows it."""
    follows = ", ".join(what_follows(network.model, layer, images)) or "nothing"
    return f"{network.name}: layer {layer}, followed by {follows}"


def _of_run(path: Path, seed: int | None) -> Trained:
    """The network of a run: with its weights, or as ``seed`` makes it before any training."""
    checkpoint = path / CHECKPOINT
    what = f"model: expected {checkpoint} to be one of gpe location, augshift or segment train"
    with foreign(what):
        state = read_file(checkpoint, "model")
        said = state.get("experiment")
        if said is None:
            folder = next(folder for option, folder in _OLD.items() if option in state["config"])
        else:
            folder = next(folder for folder, names in EXPERIMENTS.items() if said in names)
        config = {**state["config"], "device": "cpu"}
        if seed is not None:
            config["seed"] = seed
        run = import_module(f"gpe.experiments.{folder}.run")
        found: Trained = run.rebuilt(config, state["trial"])
        if seed is None:
            found.model.load_state_dict(state["trial"]["model"])
    return replace(
        found, model=found.model.eval(), name=path.resolve().name, config=state["config"]
    )


def _of_file(path: Path, output_stride: int | None) -> Trained:
    try:
        model: nn.Module = load_location_checkpoint(path)
        return Trained(model, path.name, "location", "backbone")
    except InputError as error:
        not_location = error
    try:
        model = load_deeplab_checkpoint(path, output_stride=output_stride)
    except InputError as error:
        raise InputError(
            f"model: expected {path} to hold a location or segmentation network, got neither: "
            f"{not_location}; {error}"
        ) from None
    mean, std = STATISTICS
    return Trained(model, path.name, "segmentation", "backbone", mean=mean, std=std)


def _of_library(
    name: str, weights: str | None, seed: int, tasks: Sequence[Task], image_size: int | None
) -> Trained:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        opened = open_model(
            name, weights=weights, tasks=tuple(tasks) or _LIBRARY_TASKS, image_size=image_size
        )
    segments = opened.task == "segmentation" and hasattr(opened.model, "backbone")
    return Trained(
        opened.model,
        opened.name,
        opened.task,
        inside="backbone" if segments else "",
        num_classes=opened.num_classes or None,
        classes=opened.class_names,
        mean=opened.mean,
        std=opened.std,
        input_size=opened.input_size,
        resize_size=opened.resize_size,
        interpolation=cast(Interpolation, opened.interpolation),
        note=opened.note,
    )


_LIBRARY_TASKS: tuple[Task, ...] = ("classification", "segmentation", "features")

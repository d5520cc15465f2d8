"""The detectors of configurations, of runs and of files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from gpe.choices import Backbone
from gpe.data.imagenet import STATISTICS
from gpe.errors import InputError
from gpe.experiments.detection.config import DetectionConfig, DetectorConfig
from gpe.experiments.trained import Trained, open_trained
from gpe.models.detection import Detector, csp, load_detector
from gpe.models.detection.two_stage import cascade_rcnn, faster_rcnn
from gpe.models.inside import digest
from gpe.models.pretrained import open_model

SomeConfig = TypeVar("SomeConfig", bound=DetectorConfig)


def build(config: DetectionConfig) -> Detector:
    """The network of a configuration; weights that are not given are drawn from its seed."""
    widths = {name: getattr(config, name) for name in ("width", "neck_width", "head_width")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: Detector
        if config.detector == "csp":
            model = csp(cast(Backbone, config.backbone), **widths)
        else:
            made = faster_rcnn if config.detector == "faster-rcnn" else cascade_rcnn
            model = made(**widths, proposals=config.proposals)
        if config.weights is not None:
            _start(model, config)
    return model


def _start(model: Detector, config: DetectionConfig) -> None:
    """Gives the backbone ImageNet's weights."""
    name = "timm/hrnet_w32" if config.backbone == "hrnet" else f"torchvision/{config.backbone}"
    given = open_model(name).model.state_dict()
    backbone = model.get_submodule("backbone")
    own = backbone.state_dict()
    if any(name not in given or given[name].shape != value.shape for name, value in own.items()):
        raise InputError(f"width: expected ImageNet's with weights, got {config.width}")
    backbone.load_state_dict({name: given[name] for name in own})


def rebuilt(config: Mapping[str, Any], state: Mapping[str, Any]) -> Trained:
    """The network of a checkpoint, before any training."""
    lists: dict[str, Any] = {n: tuple(v) for n, v in config.items() if isinstance(v, list)}
    model = build(DetectionConfig(**{**config, **lists, "weights": None}))
    mean, std = STATISTICS
    return Trained(model, "", "detection", "backbone", 1, ("pedestrian",), mean, std)


def open_detector(config: SomeConfig) -> tuple[SomeConfig, Detector]:
    """The network of a configuration; and that, with what it was trained with for what is None.

    Raises:
        InputError: no such run or file, or one of another network.
    """
    path = Path(config.checkpoint).expanduser()
    known: dict[str, Any] = {}
    if path.is_dir():
        found = open_trained(config.checkpoint)
        if not isinstance(found.model, Detector):
            raise InputError(
                f"checkpoint: expected a detector, got {config.checkpoint}, for {found.task}"
            )
        name, model, options = found.config["detector"], found.model, found.config
        known = {each: options[each] for each in ("data", "split", "size", "least_score")}
        if config.data in (None, known["data"]):
            known |= {"images": options["test_images"], "batch_size": options["test_batch_size"]}
    else:
        name, model = load_detector(path)
        known = {"data": "citypersons"}
    known |= {name: value for name, value in _DEFAULTS.items() if known.get(name) is None}
    if known.get("size") is not None:
        known["size"] = tuple(known["size"])
    unset = {each: value for each, value in known.items() if getattr(config, each) is None}
    about = {"detector": name, "network": path.resolve().name, "weights_digest": digest(model)}
    found_config = replace(config, **unset, **about)
    if found_config.data != "streets" and found_config.size is not None:
        if config.size is not None:
            raise InputError(f"size: expected none with {found_config.data}, got {config.size}")
        found_config = replace(found_config, size=None)
    return found_config, model.eval()


_DEFAULTS = {"split": "val", "batch_size": 1}

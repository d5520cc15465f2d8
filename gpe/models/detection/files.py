"""A detector from a file, whichever of them it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpe.errors import InputError
from gpe.models.checkpoints import first_dimension, fit, printable, read_checkpoint, ready
from gpe.models.detection.csp import csp
from gpe.models.detection.detector import Detector

# By its name, a weight that no other detector has.
_TELLS = {
    "csp": "bbox_head.csp_cls.weight",
    "cascade-rcnn": "bbox_head.2.fc_cls.weight",
    "faster-rcnn": "bbox_head.fc_cls.weight",
}
_HRNET = {
    "width": ("backbone.transition1.0.0.weight", 32),
    "neck_width": ("neck.reduction_conv.conv.weight", 256),
}
# Weights whose first dimension tells a width, and the published one.
_WIDTHS = {
    "csp": {
        "width": ("backbone.conv1.weight", 64),
        "neck_width": ("neck.p3_l2.weight", 256),
        "head_width": ("bbox_head.cls_convs.0.gn.weight", 256),
    },
    "cascade-rcnn": _HRNET | {"head_width": ("bbox_head.2.shared_fcs.0.weight", 1024)},
    "faster-rcnn": _HRNET | {"head_width": ("bbox_head.shared_fcs.0.weight", 1024)},
}
# Of the published Cascade Mask R-CNN, whose masks do not touch the boxes.
_MASKS = "mask_head."


def load_detector(path: str | Path) -> tuple[str, Detector]:
    """A published detector, or one of the same form, in evaluation mode, and which it is.

    Args:
        path: Pedestron's ``epoch_N.pth`` or ``epoch_N.pth.stu``, ``{"state_dict": …}``, or a bare
            state dict. The ``.stu`` holds the averaged weights that were published and tested.

    Returns:
        ``"csp"``, ``"faster-rcnn"`` or ``"cascade-rcnn"``, and the network.

    Raises:
        InputError: no such file, or weights of another network, with the names that differ.
    """
    checkpoint = read_checkpoint(path)
    weights = fit(checkpoint.weights, _TELLS.values())
    name = next((name for name, key in _TELLS.items() if key in weights), None)
    if name is None:
        raise InputError(
            f"path: expected {printable(path)} to hold a detector with one of "
            f"{', '.join(_TELLS.values())}, got another network"
        )
    widths = {option: first_dimension(weights, *told) for option, told in _WIDTHS[name].items()}
    made: Callable[..., Detector] = csp
    options: dict[str, Any] = {}
    if name == "csp":
        deep = "backbone.layer1.0.conv3.weight" in weights
        options["backbone"] = "resnet50" if deep else "resnet18"
    else:
        from gpe.models.detection.two_stage import cascade_rcnn, faster_rcnn

        made = faster_rcnn if name == "faster-rcnn" else cascade_rcnn
        options["shrink"] = True
    if name == "cascade-rcnn":
        weights = {key: value for key, value in weights.items() if not key.startswith(_MASKS)}
    with torch.device("meta"):
        model = made(**widths, **options)
    expected = f"path: expected {printable(path)} to hold a {'CSP' if name == 'csp' else name}"
    model.load_state_dict(ready(expected, weights, model.state_dict()), assign=True)
    return name, model.eval()

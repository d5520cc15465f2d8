"""Networks: the backbones, the classifiers and the two location networks of the paper."""

from gpe.models.checkpoints import save_weights
from gpe.models.classifier import Classifier
from gpe.models.deeplab import deeplabv3, load_deeplab_checkpoint, low_resolution_logits
from gpe.models.inside import find_layer
from gpe.models.location import GAPNet, PermuteNet, load_location_checkpoint
from gpe.models.pretrained import OpenedModel, open_model
from gpe.models.resnet import ResNet, resnet18, resnet50

__all__ = [
    "Classifier",
    "GAPNet",
    "OpenedModel",
    "PermuteNet",
    "ResNet",
    "deeplabv3",
    "find_layer",
    "load_deeplab_checkpoint",
    "load_location_checkpoint",
    "low_resolution_logits",
    "open_model",
    "resnet18",
    "resnet50",
    "save_weights",
]

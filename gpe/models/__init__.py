"""Networks: the backbones, the classifiers and the two location networks of the paper."""

from gpe.models.classifier import Classifier
from gpe.models.location import GAPNet, PermuteNet, load_location_checkpoint
from gpe.models.pretrained import OpenedModel, open_model
from gpe.models.resnet import ResNet, resnet18, resnet50

__all__ = [
    "Classifier",
    "GAPNet",
    "OpenedModel",
    "PermuteNet",
    "ResNet",
    "load_location_checkpoint",
    "open_model",
    "resnet18",
    "resnet50",
]

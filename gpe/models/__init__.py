"""Networks: the backbone and the two location networks of the paper."""

from gpe.models.location import GAPNet, PermuteNet, load_location_checkpoint
from gpe.models.resnet import ResNet, resnet18

__all__ = ["GAPNet", "PermuteNet", "ResNet", "load_location_checkpoint", "resnet18"]

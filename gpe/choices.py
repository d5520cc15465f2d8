"""Names that an option may have, wherever it is an option. Nothing here imports torch."""

from typing import Literal

Split = Literal["test", "validation"]
Precision = Literal["fp32", "bf16"]

# Networks of gpe (gpe.models).
Backbone = Literal["resnet18", "resnet50"]
Stem = Literal["grid", "cifar", "imagenet"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Permutation = Literal["random", "fixed", "sorted", "mean"]
Readout = Literal["gapnet", "permutenet", "fixed"]

# Image sets (gpe.data).
SMALL_SETS = "digits, cifar10, cifar100"  # that fit into memory, in help
PixelData = Literal["streets", "camvid", "cityscapes", "voc"]
TrainReading = Literal["resized", "plain"]

# What is measured (gpe.metrics, gpe.ablation).
ShiftProtocol = Literal["crop", "zeros", "reflect", "circular"]
Region = Literal["full", "left", "centre", "right"]
Engine = Literal["auto", "incremental", "general"]

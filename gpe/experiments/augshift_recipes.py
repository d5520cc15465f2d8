"""The rows and the recipes of AugShift runs."""

from typing import Any, Literal, NamedTuple, get_args

from gpe.errors import InputError, expect_one_of

Images = Literal["small", "large"]


class Method(NamedTuple):
    """A row of the comparison: crops of an image, whether wide, with the loss, with BlurPool."""

    crops: int
    loss: bool
    blur: bool


# The second row is the control that the paper lacks: AugShift's crops without its loss. The last
# is the combination that the paper only guesses at.
METHODS = {
    "baseline": Method(crops=1, loss=False, blur=False),
    "wide-crops": Method(crops=2, loss=False, blur=False),
    "augshift": Method(crops=2, loss=True, blur=False),
    "blurpool": Method(crops=1, loss=False, blur=True),
    "blurpool-augshift": Method(crops=2, loss=True, blur=True),
}

# Recipes by preset and kind of images. "paper" is the usual one of CIFAR, and torchvision's of
# ImageNet: the paper states none. crop_shift: of rows with one crop an image and of rows with two.
PRESETS: dict[tuple[str, Images], dict[str, Any]] = {
    # Few images gone through often, as a long recipe goes through many: 126 times in two minutes.
    ("quick", "small"): {
        "stem": "grid",
        "width": 16,
        "epochs": 7,
        "train_images": 1000,
        "test_images": 2000,
        "epoch_images": 18000,
        "batch_size": 64,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "crop_shift": {1: 4, 2: 8},
        "weight": 1.0,
        "passes": 2,
    },
    ("fast", "small"): {
        "stem": "cifar",
        "width": 64,
        "epochs": 30,
        "batch_size": 512,
        "learning_rate": 0.2,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "crop_shift": {1: 4, 2: 8},
        "weight": 1.0,
        "passes": 5,
        "precision": "bf16",
        "compile": True,
    },
    ("paper", "small"): {
        "stem": "cifar",
        "width": 64,
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "crop_shift": {1: 4, 2: 8},
        "weight": 1.0,
        "passes": 5,
    },
    ("paper", "large"): {
        "width": 64,
        "epochs": 90,
        "batch_size": 256,
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "schedule": "step",
        "crop_shift": {1: 0, 2: 16},
        "weight": 1.0,
        "passes": 1,
    },
    ("quick", "large"): {
        "width": 16,
        "epochs": 3,
        "train_images": 2000,
        "test_images": 500,
        "batch_size": 32,
        "learning_rate": 0.05,
        "weight_decay": 1e-4,
        "schedule": "one-cycle",
        "crop_shift": {1: 0, 2: 16},
        "weight": 1.0,
        "passes": 1,
    },
}
_IMAGES: dict[Images, dict[str, Any]] = {
    # A picture of 32 pixels is gone long before a shift of 64; Figure S2 has 8 to 64 on ImageNet.
    "small": {
        "image_size": 32,
        "resize_size": None,
        "reading": None,
        "shifts": (1, 2, 4, 8, 12, 16),
    },
    "large": {
        "stem": "imagenet",
        "image_size": 224,
        "resize_size": 256,
        "reading": "resized",
        "shifts": (8, 16, 32, 40, 48, 64),
    },
}
_COMMON = {
    "network": "resnet18",
    "split": "test",
    "train_images": None,
    "test_images": None,
    "epoch_images": None,
    "equal_compute": True,
    "protocol": "zeros",
    "seed": 0,
    "relative": True,
    "momentum": 0.9,
    "label_smoothing": 0.0,
    "test_batch_size": 250,
    "flip": True,
    "precision": "fp32",
    "compile": False,
}


def recipe(preset: str, images: Images) -> dict[str, Any]:
    """The options of a preset; ``crop_shift`` by the number of crops of an image.

    Raises:
        InputError: there is none of that name, or none for such images.
    """
    expect_one_of("preset", preset, dict.fromkeys(name for name, _ in PRESETS))
    expect_one_of("images", images, get_args(Images))
    if (preset, images) not in PRESETS:
        raise InputError(f"preset: {preset} has no recipe for {images} images")
    return _COMMON | _IMAGES[images] | PRESETS[preset, images]

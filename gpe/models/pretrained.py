"""Anybody's image classifier: any one of torchvision or timm, with their weights or a file's."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from gpe.errors import InputError, needs
from gpe.models.weights import expect_fit, first, misshapen

# torchvision and timm take a second each to import: only inside the functions that need them.


@dataclass(frozen=True)
class OpenedModel:
    """A classifier in evaluation mode, and what it wants done to images.

    Attributes:
        name: with its library, as ``"torchvision/resnet18"``.
        model: on the CPU, from images ``[N,3,H,W]`` to logits ``[N,classes]``.
        classes: number of logits.
        mean: one number a channel, subtracted from images in [0,1].
        std: one number a channel, that they are then divided by.
        input_size: height and width, in pixels, of the central crop.
        resize_size: of the shorter side before that crop, in pixels.
        interpolation: of that resizing: ``"bilinear"`` or ``"bicubic"``.
    """

    name: str
    model: nn.Module
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int
    resize_size: int
    interpolation: str


def open_model(name: str, *, weights: str | Path | None = None) -> OpenedModel:
    """An image classifier of torchvision or timm, ready to be measured.

    Args:
        name: ``"torchvision/resnet18"``, ``"timm/resnet18"``, or without the library, which is
            then torchvision wherever it has a network of that name. timm's tags may follow, as
            in ``"timm/resnet50.a1_in1k"``.
        weights: None for the library's default ones, which it downloads once and keeps;
            ``"random"`` for an untrained network, seeded by ``torch.manual_seed``; else a file
            (``.safetensors``, or what :func:`torch.load` reads with ``weights_only``) that holds
            a state dict, either bare or under ``"state_dict"``, ``"model"``, ``"net"`` or
            ``"model_state"``, with or without DataParallel's prefix. The file decides the number
            of classes.

    Returns:
        The network and the preprocessing that goes with its default weights, or with those of
        torchvision whose own file name the file has.

    Raises:
        InputError: neither library has such a classifier; its weights cannot be fetched or read,
            or are those of another network.

    Example:
        >>> opened = open_model("torchvision/resnet18", weights="random")
        >>> opened.input_size, opened.resize_size, opened.classes
        (224, 256, 1000)
        >>> opened.model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1000])
    """
    library, short_name = _find(name)
    name = f"{library}/{short_name}"
    entry = _torchvision(short_name, weights) if library == "torchvision" else _timm(short_name)
    if not entry.classes:
        raise InputError(f"name: expected a classifier, got {name}, which has no classes")

    classes = entry.classes
    if weights is None:
        model = _fetched(name, entry)
    elif weights == "random":
        model = entry.build()
    else:
        model, classes = _filled(name, entry, Path(weights))
    return OpenedModel(name, model.eval(), classes, **entry.images)


@dataclass(frozen=True)
class _Entry:
    """What a library knows of a network before it is built."""

    build: Callable[..., nn.Module]  # takes pretrained and num_classes
    classes: int
    images: dict[str, Any]  # the fields of OpenedModel that tell the preprocessing


def _find(name: str) -> tuple[str, str]:
    """Library, and the name there."""
    with needs(f"the network {name}"):
        import timm
        from torchvision import models

    known = {
        "torchvision": models.list_models(module=models),
        "timm": timm.list_models() + timm.list_pretrained(),
    }
    library, _, short_name = name.rpartition("/")
    if library in known:
        known = {library: known[library]}
    for found, names in known.items():
        if short_name in names and library in ("", found):
            return found, short_name

    full_names = {n: f"{found}/{n}" for found in reversed(known) for n in known[found]}
    nearest = difflib.get_close_matches(short_name, full_names)
    hint = f"; nearest: {', '.join(full_names[n] for n in nearest)}" if nearest else ""
    raise InputError(f"name: expected a classifier of {' or '.join(known)}, got {name!r}{hint}")


def _torchvision(name: str, weights: str | Path | None) -> _Entry:
    from torchvision import models

    choices = models.get_model_weights(name)
    file_name = Path(weights or "").name
    own = [choice for choice in choices if Path(choice.url).name == file_name]
    chosen = own[0] if own else choices.DEFAULT
    images = chosen.transforms()
    options = {}
    if name.startswith("vit_"):
        options["image_size"] = images.crop_size[0]
    if own and name in ("googlenet", "inception_v3"):
        # Those weights want this; a state dict does not tell.
        options["transform_input"] = True

    def build(*, pretrained: bool = False, **classes: int) -> nn.Module:
        return models.get_model(name, weights=chosen if pretrained else None, **options, **classes)

    preprocessing = {
        "mean": tuple(images.mean),
        "std": tuple(images.std),
        "input_size": images.crop_size[0],
        "resize_size": images.resize_size[0],
        "interpolation": images.interpolation.value,
    }
    return _Entry(build, len(chosen.meta["categories"]), preprocessing)


def _timm(name: str) -> _Entry:
    import timm

    config = timm.get_pretrained_cfg(name)
    images = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    side = images["input_size"][-1]

    def build(**options: Any) -> nn.Module:
        return timm.create_model(name, **options)

    preprocessing = {
        "mean": tuple(images["mean"]),
        "std": tuple(images["std"]),
        "input_size": side,
        "resize_size": math.floor(side / images["crop_pct"]),
        "interpolation": images["interpolation"],
    }
    return _Entry(build, config.num_classes, preprocessing)


def _fetched(name: str, entry: _Entry) -> nn.Module:
    try:
        return entry.build(pretrained=True)
    except Exception as error:  # what fetches files raises almost anything
        came = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"weights: expected to fetch or find the default ones of {name}, "
            f"got {type(error).__name__}: {came}; a file may be given instead, or 'random'"
        ) from error


def _filled(name: str, entry: _Entry, path: Path) -> tuple[nn.Module, int]:
    """The network with the weights of a file, and its number of classes."""
    weights = _read(path)
    model = entry.build()
    classes = _classes(weights, model.state_dict(), entry.classes)
    if classes != entry.classes:
        model = entry.build(num_classes=classes)

    # The names are left to load_state_dict, since some networks know older ones too.
    expected = f"weights: expected {path} to hold {name}"
    expect_fit(expected, [], [], misshapen(weights, model.state_dict()))
    found = model.load_state_dict(weights, strict=False)
    expect_fit(expected, found.missing_keys, found.unexpected_keys, [])
    return model, classes


def _classes(weights: dict[str, Tensor], expected: dict[str, Tensor], classes: int) -> int:
    """How many there are if nothing but their number keeps ``weights`` from fitting a head."""
    counts = {
        weights[name].shape[0]
        for name, value in expected.items()
        if name in weights
        and value.shape[:1] == (classes,)
        and weights[name].ndim == value.ndim
        and weights[name].shape[1:] == value.shape[1:]
    }
    return counts.pop() if len(counts) == 1 else classes


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, without DataParallel's prefix."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights: there is no {path}") from None
    except Exception as error:  # both readers raise almost anything on a file not their own
        came = f"what cannot be read: {type(error).__name__}"
        raise InputError(f"weights: expected {path} to hold a state dict, got {came}") from error
    for key in ("state_dict", "model", "net", "model_state"):
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
            break
    if not isinstance(weights, dict):
        came = type(weights).__name__
        raise InputError(f"weights: expected {path} to hold a state dict, got a {came}")
    strange = [
        name
        for name, value in weights.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strange:
        raise InputError(
            f"weights: expected {path} to hold a state dict, got no tensors under {first(strange)}"
        )
    consume_prefix_in_state_dict_if_present(weights, "module.")
    return weights

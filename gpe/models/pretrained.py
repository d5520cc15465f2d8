"""Anybody's network: of torchvision or timm or the user's own, with their weights or a file's."""

import difflib
import importlib
import math
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gpe.errors import InputError, needs
from gpe.models.checkpoints import Checkpoint, expect_fit, fit, printable, read_checkpoint
from gpe.models.running import pick_logits

# torchvision and timm take a second each to import: only inside the functions that need them.

Task = Literal["classification", "segmentation", "location", "detection", "features"]
ImageNet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class OpenedModel:
    """A network in evaluation mode, and what it wants done to images.

    Attributes:
        name: with its library, as ``"torchvision/resnet18"``.
        model: on the CPU, from images ``[N,3,H,W]`` to logits ``[N,num_classes]``; of other tasks
            to what the library's networks yield.
        num_classes: number of logits; 0 of a network for ``"features"``.
        mean: one number a channel, subtracted from images in [0,1].
        std: one number a channel, that they are then divided by.
        input_size: height and width, in pixels, of the central crop.
        resize_size: of the shorter side before that crop, in pixels.
        interpolation: of that resizing: ``"bilinear"`` or ``"bicubic"``.
        task: what it was made for.
        class_names: one a class, where they are known.
        note: what its user should know: which weights of a file were taken, what may not fit.
    """

    name: str
    model: nn.Module
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    resize_size: int
    interpolation: str
    task: Task = "classification"
    class_names: tuple[str, ...] | None = None
    note: str = ""

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.num_classes


def open_model(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    tasks: tuple[Task, ...] = ("classification",),
    averaged: bool = True,
) -> OpenedModel:
    """A network of torchvision or timm or the user's own, ready to be measured.

    Args:
        name: ``"torchvision/resnet18"``, ``"timm/resnet18"``, or without the library, which is
            then torchvision wherever it has a network of that name. timm's tags may follow, as
            in ``"timm/resnet50.a1_in1k"``. ``"package.module:function"`` calls a function of the
            user's, which yields a module.
        weights: None for the library's default ones, which it downloads once and keeps;
            ``"random"`` for an untrained network, seeded by ``torch.manual_seed``; else a file for
            :func:`gpe.models.checkpoints.read_checkpoint`. The file decides the number of classes.
            A user's own network is as the function yields it, or has the weights of a file.
        image_size: height and width in pixels, where others than the network's are wanted.
        tasks: that it may be made for. With ``"features"``, networks without a head are opened,
            and files that lack it.
        averaged: as for :func:`gpe.models.checkpoints.read_checkpoint`.

    Returns:
        The network and the preprocessing that goes with its default weights, or with those of
        torchvision whose own file name the file has.

    Raises:
        InputError: there is no such network; its weights cannot be fetched or read, or are those
            of another network; it takes no images of that size, or is made for another task.

    Warns:
        UserWarning: the weights fit, but a file is known to be of another network, whose padding
            or normalisation may differ.

    Example:
        >>> opened = open_model("torchvision/resnet18", weights="random")
        >>> opened.input_size, opened.resize_size, opened.num_classes, opened.class_names[0]
        (224, 256, 1000, 'tench')
        >>> opened.model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1000])
    """
    if ":" in name:
        opened = _own(name, weights, averaged)
    else:
        opened = _of_library(name, weights, tasks, averaged)
    if opened.task not in tasks:
        kind = "which has no classes" if opened.task == "features" else f"for {opened.task}"
        wanted = "a classifier" if tasks == ("classification",) else f"one for {' or '.join(tasks)}"
        raise InputError(f"name: expected {wanted}, got {opened.name}, {kind}")
    opened.model.eval()
    return opened if image_size is None else _resized(opened, image_size)


@dataclass(frozen=True)
class _Entry:
    """What a library knows of a network before it is built."""

    build: Callable[..., nn.Module]  # takes pretrained and num_classes
    opened: OpenedModel  # all but the network
    head: tuple[str, ...] = ()  # modules that a network without classes lacks


def _of_library(
    name: str, weights: str | Path | None, tasks: tuple[Task, ...], averaged: bool
) -> OpenedModel:
    library, short_name = _find(name)
    entry = _torchvision(short_name, weights) if library == "torchvision" else _timm(short_name)
    if entry.opened.task not in tasks:
        return entry.opened  # not built: it will be refused
    if weights is None:
        return replace(entry.opened, model=_fetched(entry))
    if weights == "random":
        return replace(entry.opened, model=entry.build())
    checkpoint = read_checkpoint(weights, averaged=averaged, argument="weights")
    return _filled(entry, checkpoint, "features" in tasks)


def _find(name: str) -> tuple[str, str]:
    """Library, and the name there."""
    with needs(f"the network {name}"):
        import timm
        from torchvision import models

    known = {
        "torchvision": models.list_models(module=models)
        + models.list_models(module=models.segmentation),
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

    choices: Any = models.get_model_weights(name)
    file_name = Path(weights or "").name
    own = [choice for choice in choices if Path(choice.url).name == file_name]
    chosen = own[0] if own else choices.DEFAULT
    images = chosen.transforms()
    segments = name in models.list_models(module=models.segmentation)
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = images.crop_size[0]
    if own and name in ("googlenet", "inception_v3"):
        # Those weights want this; a state dict does not tell.
        options["transform_input"] = True
    if segments:
        options["weights_backbone"] = None

    def build(*, pretrained: bool = False, **more: Any) -> nn.Module:
        return models.get_model(name, weights=chosen if pretrained else None, **options | more)

    categories = tuple(chosen.meta["categories"])
    size = images.resize_size[0]
    opened = OpenedModel(
        f"torchvision/{name}",
        nn.Identity(),
        len(categories),
        tuple(images.mean),
        tuple(images.std),
        input_size=size if segments else images.crop_size[0],
        resize_size=size,
        interpolation=images.interpolation.value,
        task="segmentation" if segments else "classification",
        class_names=categories,
    )
    return _Entry(build, opened)


def _timm(name: str) -> _Entry:
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    images: Any = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    side = images["input_size"][-1]

    def build(**options: Any) -> nn.Module:
        return timm.create_model(name, **options)

    subset = timm.data.infer_imagenet_subset({"num_classes": config.num_classes})
    names = config.label_names
    if not names and subset:
        imagenet = timm.data.ImageNetInfo(subset)
        synonyms = map(imagenet.index_to_description, range(config.num_classes))
        names = [text.partition(",")[0] for text in synonyms]
    opened = OpenedModel(
        f"timm/{name}",
        nn.Identity(),
        config.num_classes,
        tuple(images["mean"]),
        tuple(images["std"]),
        input_size=side,
        resize_size=math.floor(side / images["crop_pct"]),
        interpolation=images["interpolation"],
        task="classification" if config.num_classes else "features",
        class_names=tuple(names) if names else None,
    )
    head = config.classifier or ()
    return _Entry(build, opened, (head,) if isinstance(head, str) else tuple(head))


def _fetched(entry: _Entry) -> nn.Module:
    try:
        return entry.build(pretrained=True)
    except Exception as error:  # what fetches files raises almost anything
        raise InputError(
            f"weights: expected to fetch or find the default ones of {entry.opened.name}, "
            f"got {_line(error)}; a file may be given instead, or 'random'"
        ) from error


def _filled(entry: _Entry, checkpoint: Checkpoint, headless: bool) -> OpenedModel:
    """The network with the weights of a file."""
    opened, notes = entry.opened, [checkpoint.note]
    # Of torchvision's segmentation networks, the head that only training uses.
    aux = any("aux_classifier." in name for name in checkpoint.weights)
    takes = opened.task == "segmentation" and not opened.name.startswith("torchvision/lraspp")
    options = {"aux_loss": aux} if takes else {}
    model = entry.build(**options)
    expected = model.state_dict()
    weights = fit(checkpoint.weights, expected)
    if "_conv_stem.weight" in (theirs := fit(checkpoint.weights, ["_conv_stem.weight"])):
        weights = _timms_names(theirs, expected)

    classes = _classes(weights, expected, opened.num_classes)
    head = [name for name in expected if name.startswith(tuple(f"{h}." for h in entry.head))]
    if headless and entry.head and not any(name in weights for name in head):
        classes = 0
        notes.append("the file has no head")
    if classes != opened.num_classes:
        model = entry.build(num_classes=classes, **options)
    _load(model, weights, f"weights: expected {printable(checkpoint.path)} to hold {opened.name}")
    notes.append(_suspicion(opened.name, checkpoint, "_conv_stem.weight" in theirs))
    # A thousand classes are ImageNet's; of others the file does not tell the order.
    same = classes == opened.num_classes == 1000
    return replace(
        opened,
        model=model,
        num_classes=classes,
        task=opened.task if classes else "features",
        class_names=opened.class_names if same else None,
        note="; ".join(filter(None, notes)),
    )


def _load(model: nn.Module, weights: Mapping[str, Tensor], expected: str) -> None:
    own = model.state_dict()
    expect_fit(expected, weights, own, names=((), ()))
    # The names are left to load_state_dict, since some networks know older ones too. Where all are
    # today's, so is their version, which renaming and safetensors lose.
    state = OrderedDict(weights)
    if own.keys() == weights.keys():
        vars(state)["_metadata"] = vars(own).get("_metadata")
    found = model.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    expect_fit(expected, {}, {}, names=(missing, found.unexpected_keys))


def _classes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], classes: int) -> int:
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


def _timms_names(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """timm's names for those of efficientnet_pytorch, which counts blocks through all stages."""
    found = (re.match(r"blocks\.\d+\.\d+\.", name) for name in expected)
    blocks = list(dict.fromkeys(match[0] for match in found if match))
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
           "_fc": "classifier"}  # fmt: skip
    squeeze = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"} | squeeze  # fmt: skip
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                 "_bn2": "bn2"} | squeeze  # fmt: skip

    def renamed(name: str) -> str:
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", name)
        if not match or int(match[1] or 0) >= len(blocks):
            return name
        block, layer, kind = match.groups()
        if block is None:
            return f"{top.get(layer, layer)}.{kind}"
        expands = f"_blocks.{block}._expand_conv.weight" in weights
        layer = (inverted if expands else separable).get(layer, layer)
        return f"{blocks[int(block)]}{layer}.{kind}"

    return {renamed(name): value for name, value in weights.items()}


def _suspicion(name: str, checkpoint: Checkpoint, tensorflow: bool) -> str:
    """A warning where the file is known to be of another network than the one that it fits."""
    import timm

    known = set(timm.list_models())
    library, _, short_name = name.partition("/")
    architecture = short_name.partition(".")[0]
    if tensorflow and architecture.startswith("tf_"):
        return ""
    arguments = checkpoint.extras.get("args")
    told = (
        checkpoint.extras.get("arch"),  # timm's training script
        checkpoint.extras.get("architecture"),
        getattr(arguments, "model", None),  # torchvision's
        re.split(r"[-.]", checkpoint.path.name)[0],
        f"tf_{architecture}" if tensorflow and library == "timm" else None,
    )
    for other in told:
        other = other.partition(".")[0] if isinstance(other, str) else ""
        if other in known and other != architecture:
            warning = (
                f"the weights are those of {other}, whose padding or normalisation may differ "
                f"from {name}'s: consider timm/{other}"
            )
            warnings.warn(warning, stacklevel=5)
            return warning
    return ""


def _own(name: str, weights: str | Path | None, averaged: bool) -> OpenedModel:
    """The network that a function of the user's yields."""
    module, _, function = name.partition(":")
    sys.path.insert(0, "")  # as python itself does, and a command does not
    try:
        made: object = importlib.import_module(module)
        for part in function.split("."):
            made = getattr(made, part)
        if not callable(made):
            raise TypeError(f"{function} is a {type(made).__name__}, no function")
        model = made()
    except Exception as error:  # the user's code raises anything
        raise InputError(
            f"name: expected a function that yields a network, got {name!r}: {_line(error)}"
        ) from error
    finally:
        sys.path.remove("")
    if not isinstance(model, nn.Module):
        raise InputError(f"name: expected a module of {name}, got a {type(model).__name__}")

    notes = []
    if weights not in (None, "random"):
        checkpoint = read_checkpoint(str(weights), averaged=averaged, argument="weights")
        expected = f"weights: expected {printable(checkpoint.path)} to hold {name}"
        _load(model, fit(checkpoint.weights, model.state_dict()), expected)
        notes.append(checkpoint.note)
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict):
        config = {}
        notes.append("images as ImageNet's: 224 pixels of 256, normalised by its mean and std")
    size = config.get("input_size", (3, 224, 224))[-1]
    try:
        answer = _answer(model, size)
    except Exception as error:
        raise InputError(
            f"name: expected {name} to take images [1,3,{size},{size}], got {_line(error)}"
        ) from error
    named, logits = isinstance(answer, Mapping), pick_logits(answer)
    shape = [*logits.shape] if isinstance(logits, Tensor) else []
    task: Task = "features"
    if len(shape) == 2:
        task = "classification"
    elif len(shape) == 4 and (named or shape[2:] == [size, size]):
        task = "segmentation"
    return OpenedModel(
        name,
        model,
        0 if task == "features" else shape[1],
        tuple(config.get("mean", ImageNet[0])),
        tuple(config.get("std", ImageNet[1])),
        input_size=size,
        resize_size=math.floor(size / config.get("crop_pct", 0.875)),
        interpolation=config.get("interpolation", "bilinear"),
        task=task,
        note="; ".join(filter(None, notes)),
    )


def _resized(opened: OpenedModel, size: int) -> OpenedModel:
    """The network for images of another size; one of a fixed size is made anew where it can be."""
    if size == opened.input_size:
        return opened
    model: Any = opened.model
    wanted = f"image_size: expected one that {opened.name} takes, such as {opened.input_size}"
    try:
        if opened.name.startswith("torchvision/vit_"):
            from torchvision import models
            from torchvision.models.vision_transformer import interpolate_embeddings

            weights = interpolate_embeddings(size, model.patch_size, model.state_dict())
            options = {"image_size": size, "num_classes": opened.num_classes}
            model = models.get_model(opened.name.partition("/")[2], weights=None, **options)
            model.load_state_dict(weights)
        elif hasattr(model, "set_input_size"):  # timm's
            model.set_input_size(img_size=(size, size))
        _answer(model, size)
    except Exception as error:  # anybody's code raises anything
        raise InputError(f"{wanted}, got {size}: {_line(error)}") from error
    return replace(opened, model=model, input_size=size, resize_size=max(size, opened.resize_size))


@torch.no_grad()
def _answer(model: nn.Module, size: int) -> Any:
    """What a network yields of one image, in evaluation mode."""
    return model.eval()(torch.zeros(1, 3, size, size))


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(f"{type(error).__name__}: {lines[0] if lines else ''}", 200)

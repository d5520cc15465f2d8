"""All curves of an ablation, for several rankings and regions, in one pass over the images."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gpe.ablation.choice import EngineName, Engines
from gpe.ablation.plan import Plan, Ranges, integer, make_plan
from gpe.ablation.result import AblationResult, empty_result
from gpe.ablation.shards import checkpoint_path, over_processes, resumed
from gpe.errors import InputError, expect_one_of
from gpe.metrics.evaluating import evaluating
from gpe.metrics.region_iou import Regions, resolve_regions
from gpe.models.inside import find_layer, layout_of
from gpe.models.running import WRAPPED, eager, foreign
from gpe.ops.region_confusion import Rectangle, region_confusion

SECONDS = 10.0  # between two writings of what was counted


def ablation_sweep(
    model: nn.Module,
    batches: Iterable[tuple],
    rankings: Mapping[str, Any],
    *,
    layer: str,
    counts: int | Iterable[int] = (),
    ranges: Ranges = (),
    regions: Regions,
    num_classes: int,
    ignore_index: int = 255,
    engine: EngineName = "auto",
    memory: int | None = None,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    channel_dim: int | None = None,
) -> AblationResult:
    """What a network loses in each region when channels of a layer are removed, for all curves.

    One pass over the images yields every count, range, ranking and region. The part of the network
    that leads to the layer runs once for each batch, and so does every set of channels that two
    curves share. Where the network goes on with linear maps, as DeepLab's ASPP does, their outputs
    for all variants are sums of parts that are computed once (engine ``"incremental"``); elsewhere
    masked variants run through the rest of the network in batches (``"general"``); a network that
    cannot be traced runs as a whole for each variant (``"rerun"``). Before anything is counted,
    logits of some variants are held against zeroing the channels by hand and running the whole
    network; an engine that differs by more than the tolerance is not used, ``"rerun"`` included.
    A warning tells where the logits do not depend on the layer. Compiled networks run uncompiled.

    Among processes of :mod:`torch.distributed` each gives its own batches, all call this, and all
    get the result over the images of all, the same as one process that is given all batches.

    Args:
        model: any network that yields logits ``[N,K,h,w]`` of any size, alone, under ``"out"`` or
            ``"logits"``, or first in a tuple; or, with labels ``[N]``, logits ``[N,K]``. It runs
            where its parameters are, in evaluation mode, without gradients.
        batches: ``(images, labels)`` or ``(images, labels, ids)``: normalised floating images
            ``[N,3,H,W]``, labels of any integer dtype ``[N,H,W]``, and what names each image.
        rankings: name to a ``ChannelRanking``, or to all the layer's channels in order: those to
            remove first come first. :func:`gpe.ablation.random_orders` makes random ones.
        layer: its name in ``model.named_modules()``; its output as for :func:`gpe.ablated`.
        counts: how many of the top channels to remove; or an integer: every so many, from 0.
        ranges: pairs ``(start, stop)`` in the order of the ranking; or an integer: one for every
            so many channels, as far as they are whole.
        regions: names among full, left, centre, right, or a mapping of names to
            ``(top, left, bottom, right)`` in pixels, half-open.
        num_classes: K.
        ignore_index: pixels with this label count nowhere. A region without other pixels has a
            mIoU of NaN, which changes nothing else.
        engine: ``"auto"`` takes the fastest that can run; ``"incremental"`` and ``"general"``
            force one.
        memory: bytes that the variants which run at once may take, about. None: 64 MiB on a CPU,
            whose caches then help, and 1 GiB on a GPU, which many of them keep busy.
        checkpoint: a file for the sums so far. If it is there, what it holds is not done again.
            Each of several processes has its own, with its number in the name.
        every: batches between two of these files; None: as many as take ten seconds.
        channel_dim: of the layer's output, where it does not show; negative from the end.

    Returns:
        An :class:`AblationResult`: ``.rows``, one for each ranking, removal and region; which
        engine ran and how near it was; it saves, loads and merges.

    Raises:
        InputError: a layer that is not there, with the nearest that are, or as for
            :func:`gpe.ablated`; a network that is traced or scripted, does not take the images, or
            yields other logits when it runs again; a ranking of another width or with channels
            out of range or repeated; counts and ranges that are not within the layer; regions that
            are empty or leave the image; images and labels of different sizes; labels that are no
            class; features or logits that are not finite; no images; a checkpoint of another
            ablation or of batches of other sizes; a forced engine that cannot run here.

    Source:
        Section 4.2.2 and 4.2.3, Figures 4 and 6.

    Example:
        >>> import torch, gpe
        >>> from gpe.models import deeplabv3
        >>> net = deeplabv3("resnet18", num_classes=3, width=8)
        >>> batches = [(torch.rand(2, 3, 64, 64), torch.randint(3, (2, 64, 64)))]
        >>> result = gpe.ablation_sweep(
        ...     net, batches, {"first": range(64)}, layer="backbone.layer4",
        ...     counts=[0, 32], ranges=16, regions=["full", "left"], num_classes=3,
        ... )
        >>> result.engine.name, len(result.rows)
        ('incremental', 12)
        >>> row = result.rows[2]
        >>> row["ranking"], row["removal"], row["start"], row["stop"], row["region"]
        ('first', 'top', 0, 32, 'full')
    """
    expect_one_of("engine", engine, get_args(EngineName))
    num_classes = integer("num_classes", num_classes, 1)
    every = None if every is None else integer("every", every, 1)
    ignore_index = integer("ignore_index", ignore_index)
    path, sums, skipped = checkpoint_path(checkpoint), None, 0
    written = time.monotonic()
    with eager(model) as network, evaluating(network), torch.inference_mode():
        find_layer(model, layer)
        name = layer.replace(WRAPPED, "")
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        if memory is None:
            memory = 2**26 if device.type == "cpu" else 2**30
        memory = integer("memory", memory, 1)
        for number, batch in enumerate(batches):
            images, labels, ids = _unpacked(batch, device)
            rectangles = resolve_regions(regions, *_sides(labels))
            if sums is None:
                layout = layout_of(network, name, images, channel_dim=channel_dim)
                plan = make_plan(rankings, counts, ranges, layout.channels)
                nothing = empty_result(
                    layer=name,
                    orders=plan.orders,
                    points=plan.points,
                    regions=rectangles if isinstance(regions, Mapping) else list(rectangles),
                    num_classes=num_classes,
                    ignore_index=ignore_index,
                )
                engines = Engines(network, layout, engine, memory)
                sums = _Sums(plan, engines, resumed(nothing, path), images.device)
            if number < sums.result.batches:
                skipped += len(images)  # the checkpoint has it
                continue
            sums.expect_same(skipped)
            sums.add(images, labels, ids, list(rectangles.values()))
            due = (
                time.monotonic() - written >= SECONDS if every is None else not sums.batches % every
            )
            if path is not None and due:
                sums.total().save(path)
                written = time.monotonic()

    if sums is None:
        return over_processes(None)
    sums.expect_same(skipped)
    result = sums.total()
    if path is not None:
        result.save(path)
    return over_processes(result)


class _Sums:
    """What was counted since a result, of each variant, on the device that counts."""

    def __init__(self, plan: Plan, engines: Engines, result: AblationResult, device: torch.device):
        self.plan, self.engines, self.result = plan, engines, result
        shape = len(plan.variants), *result.confusion.shape[1:]
        self.confusion = torch.zeros(shape, dtype=torch.int64, device=device)
        self.images, self.batches = 0, 0
        self.ids: list[str] = []

    def add(self, images: Tensor, labels: Tensor, ids: list[str], regions: list[Rectangle]) -> None:
        """Counts a batch in all variants."""
        engine, size = self.engines.engine(images, self.plan), list(images.shape)
        runs = engine.run(images, self.plan, range(len(self.plan.variants)))
        about = self.result
        while True:
            with foreign(f"model: expected a network that takes images {size} as the first ones"):
                found = next(runs, None)
            if found is None:
                break
            variant, logits = found
            self.confusion[variant] += _confusion(
                logits, labels, regions, about.num_classes, about.ignore_index
            )
        self.images += len(images)
        self.batches += 1
        self.ids += ids

    def expect_same(self, skipped: int) -> None:
        """An InputError unless the batches that a checkpoint has hold as many images as then."""
        if skipped != self.result.images:
            raise InputError(
                f"checkpoint: expected the same batches as then, the first {self.result.batches} "
                f"of which had {self.result.images} images, got {skipped}"
            )

    def total(self) -> AblationResult:
        """Both together."""
        since = replace(
            self.result,
            confusion=self.confusion.cpu()[self.plan.variant_of],
            images=self.images,
            batches=self.batches,
            ids=self.ids,
            engine=self.engines.record,
        )
        return self.result.merge(since)


def _unpacked(batch: tuple, device: torch.device) -> tuple[Tensor, Tensor, list[str]]:
    """Images and labels of one batch on the device, and ids, if it has any."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise InputError(
            "batches: expected tuples (images, labels) or (images, labels, ids), "
            f"got {type(batch).__name__}"
        )
    images, labels, names = (*batch, ())[:3]
    for argument, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise InputError(f"{argument}: expected a tensor, got {type(value).__name__}")
    if not images.is_floating_point() or images.dim() < 2 or len(images) == 0:
        came = f"{images.dtype} {list(images.shape)}"
        raise InputError(f"images: expected floating point [N,3,H,W], one or more, got {came}")
    if labels.dim() not in (1, 3):
        raise InputError(f"labels: expected integers [N,H,W] or [N], got {list(labels.shape)}")
    size = (len(images), *images.shape[-2:]) if labels.dim() == 3 else (len(images),)
    if labels.shape != size:
        raise InputError(
            f"labels: expected the images' size, {list(size)}, got {list(labels.shape)}"
        )
    ids = [str(name) for name in names]
    if ids and len(ids) != len(images):
        raise InputError(f"ids: expected {len(images)}, one for each image, got {len(ids)}")
    return images.to(device), labels.to(device), ids


def _sides(labels: Tensor) -> tuple[int, int]:
    """Height and width; a label for a whole image is one pixel."""
    return (labels.shape[1], labels.shape[2]) if labels.dim() == 3 else (1, 1)


def _confusion(
    logits: object, labels: Tensor, regions: list[Rectangle], num_classes: int, ignore_index: int
) -> Tensor:  # [R,K,K]
    if not isinstance(logits, Tensor) or logits.dim() != labels.dim() + 1:
        came = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        expected = "[N,K,h,w]" if labels.dim() == 3 else "[N,K]"
        raise InputError(f"model: expected logits {expected}, got {came}")
    if labels.dim() == 1:
        logits, labels = logits[..., None, None], labels[:, None, None]
    return region_confusion(
        logits, labels, regions, num_classes=num_classes, ignore_index=ignore_index
    )

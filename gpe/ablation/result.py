"""What an ablation found: confusion matrices, which add up over images, and the mIoU of each."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from math import isnan
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gpe import hub
from gpe.ablation.plan import Point
from gpe.errors import InputError, expect_one_of, needs
from gpe.metrics.region_iou import mean_iou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_FORMAT = "gpe ablation 1"


@dataclass(frozen=True)
class EngineRecord:
    """Which engine ran, and how far it was from plainly zeroing channels.

    Attributes:
        name: ``"incremental"``, ``"general"`` or ``"rerun"`` (the whole network for each variant).
        tolerance: largest difference of logits that is accepted, relative to the largest of them.
        measured: that difference on the first image, from zeroing by a replaced ``forward`` of the
            layer; for ``"rerun"`` too, which zeroes by hooks.
        why: not a faster engine; empty where the fastest ran.
    """

    name: str
    tolerance: float
    measured: float
    why: str = ""

    def merge(self, other: "EngineRecord") -> "EngineRecord":
        """Of the images of both."""
        names, whys = (
            " and ".join(sorted(filter(None, set(pair))))
            for pair in ((self.name, other.name), (self.why, other.why))
        )
        tolerance = max(self.tolerance, other.tolerance)
        return EngineRecord(names, tolerance, max(self.measured, other.measured), whys)


@dataclass(frozen=True)
class AblationResult:
    """Confusion matrices for each ranking, removal and region, over a set of images.

    Attributes:
        layer: whose channels were removed.
        orders: name of a ranking to its channels, int64 ``[C]``.
        points: which channels were removed: ``(ranking, removal, start, stop)``.
        regions: names, or names and rectangles, as they were given.
        num_classes: K.
        ignore_index: the label of pixels that count nowhere; where it is a class, that has no IoU.
        confusion: int64 ``[points, regions, K, K]``, labels along the rows.
        images: how many were counted.
        batches: likewise, of this process until it was reduced or merged.
        ids: of the images, where the batches told them.
        engine: which ran; None where there were no images.

    Example:
        >>> import torch, gpe
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Conv2d(4, 3, 1))
        >>> batches = [(torch.rand(2, 4, 8, 8), torch.randint(3, (2, 8, 8)))]
        >>> result = gpe.ablation_sweep(
        ...     net, batches, {"first": [0, 1, 2, 3]}, layer="0", counts=[0, 2],
        ...     regions=["full", "left"], num_classes=3,
        ... )
        >>> [(row["stop"], row["region"], int(row["confusion"].sum())) for row in result.rows]
        [(0, 'full', 128), (0, 'left', 64), (2, 'full', 128), (2, 'left', 64)]
        >>> result.merge(result).images
        4
    """

    layer: str
    orders: dict[str, Tensor]
    points: list[Point]
    regions: list[str] | dict[str, tuple[int, int, int, int]]
    num_classes: int
    ignore_index: int
    confusion: Tensor
    images: int = 0
    batches: int = 0
    ids: list[str] = field(default_factory=list)
    engine: EngineRecord | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict for each ranking, removal and region.

        With the keys ``ranking``, ``removal`` (``"top"`` or ``"range"``), ``start``, ``stop``
        (channels in the order of the ranking; start is 0 for ``"top"``), ``region``, ``miou``
        (from 0 to 1, NaN for a region without a labelled pixel) and ``confusion`` (int64
        ``[K,K]``).
        """
        scores = mean_iou(self.confusion, self.ignore_index).tolist()
        return [
            point._asdict() | {"region": region, "miou": score, "confusion": confusion}
            for point, of_regions, matrices in zip(self.points, scores, self.confusion, strict=True)
            for region, score, confusion in zip(self.regions, of_regions, matrices, strict=True)
        ]

    def to_pandas(self) -> "DataFrame":
        """:attr:`rows` without the confusion matrices.

        Raises:
            InputError: pandas is not installed.

        Example:
            >>> import torch, gpe
            >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Conv2d(4, 3, 1))
            >>> batches = [(torch.rand(2, 4, 8, 8), torch.randint(3, (2, 8, 8)))]
            >>> result = gpe.ablation_sweep(
            ...     net, batches, {"first": range(4)}, layer="0", counts=2, regions=["full"],
            ...     num_classes=3,
            ... )
            >>> list(result.to_pandas()["stop"])
            [0, 2, 4]
        """
        with needs("to_pandas()"):
            import pandas
        return pandas.DataFrame(self.rows).drop(columns="confusion")

    def plot(
        self, axes: "Axes | None" = None, *, region: str | None = None, removal: str = "top"
    ) -> "Axes":
        """Draw a region's mIoU, in percent, by how many channels were removed.

        Rankings whose names differ in a seed are one line, of their mean, and a band of their
        extremes, as of :func:`gpe.ablation.bands`.

        Args:
            axes: of matplotlib, to draw into; None: the current ones.
            region: one of :attr:`regions`; None: the first.
            removal: ``"top"``, the first channels; or ``"range"``, by where a range begins.

        Returns:
            The axes, for titles and the like.

        Raises:
            InputError: matplotlib is not installed; no such region; nothing was removed like that.
        """
        with needs("plot()"):
            from matplotlib import pyplot
        names = list(self.regions)
        region = names[0] if region is None else region
        expect_one_of("region", region, names)
        expect_one_of("removal", removal, list(dict.fromkeys(p.removal for p in self.points)))
        axes = pyplot.gca() if axes is None else axes
        curves = defaultdict(list)
        for row in bands(self.rows):
            if row["region"] == region and row["removal"] == removal:
                place = row["stop" if removal == "top" else "start"]
                curves[row["ranking"]].append((place, row["miou"], row["low"], row["high"]))
        for ranking, points in curves.items():
            places, means, lows, highs = torch.tensor(sorted(points)).T * 1.0
            axes.plot(places, 100 * means, marker=".", label=ranking)
            axes.fill_between(places, 100 * lows, 100 * highs, alpha=0.25, linewidth=0)
        what = "channels removed" if removal == "top" else "first channel of the range removed"
        axes.set(xlabel=what, ylabel=f"mIoU (%), {region}")
        axes.legend()
        return axes

    def merge(self, other: "AblationResult") -> "AblationResult":
        """The result over the images of both, exactly as if one sweep had seen all of them.

        Raises:
            InputError: the other one is of another layer, rankings, removals, regions or classes,
                or has counted some of the same images.
        """
        mine, others = self._job(), other._job()
        differ = [name for name in mine if mine[name] != others[name]]
        if differ:
            raise InputError(
                f"other: expected the same ablation of other images, got another "
                f"in {', '.join(differ)}"
            )
        twice = sorted(set(self.ids) & set(other.ids))
        if twice:
            raise InputError(f"other: expected other images, got {twice[0]} in both")
        engines = [engine for engine in (self.engine, other.engine) if engine is not None]
        return replace(
            self,
            confusion=self.confusion + other.confusion,
            images=self.images + other.images,
            batches=self.batches + other.batches,
            ids=sorted([*self.ids, *other.ids]),
            engine=engines[0].merge(engines[-1]) if engines else None,
        )

    def save(self, path: str | Path) -> None:
        """Writes one file (safetensors), whole or not at all; paths as of :meth:`load`."""
        about = self._job() | {
            "images": self.images,
            "batches": self.batches,
            "ids": self.ids,
            "engine": self.engine and asdict(self.engine),
        }
        del about["orders"]
        tensors = {"confusion": self.confusion.contiguous()} | {
            f"order/{name}": order.clone() for name, order in self.orders.items()
        }
        metadata = {"format": _FORMAT, "about": json.dumps(about)}
        with hub.written(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "AblationResult":
        """What :meth:`save` wrote.

        Args:
            path: of the file; or ``"hf://OWNER/NAME/FILE"``, in a repository of the Hugging Face
                Hub, where ``huggingface_hub`` is installed.

        Raises:
            InputError: there is no such file, or it is not one of these.
        """
        file_here = hub.local(path)
        try:
            with safe_open(file_here, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise InputError(f"path: there is no {path}") from None
        except (OSError, SafetensorError) as error:
            raise InputError(f"path: {path} is damaged or no ablation: {error}") from None
        if metadata.get("format") != _FORMAT:
            raise InputError(f"path: expected {path} to hold an ablation, got another file")
        about = json.loads(metadata["about"])
        points = [Point(*point) for point in about.pop("points")]
        regions, engine = about.pop("regions"), about.pop("engine")
        if isinstance(regions, dict):
            regions = {name: tuple(rectangle) for name, rectangle in regions.items()}
        return cls(
            orders={point.ranking: tensors[f"order/{point.ranking}"] for point in points},
            points=points,
            regions=regions,
            confusion=tensors["confusion"],
            engine=engine and EngineRecord(**engine),
            **about,
        )

    def _job(self) -> dict[str, Any]:
        """What two results must share to add up."""
        return {
            "layer": self.layer,
            "orders": {name: order.tolist() for name, order in self.orders.items()},
            "points": [tuple(point) for point in self.points],
            "regions": self.regions,
            "num_classes": self.num_classes,
            "ignore_index": self.ignore_index,
        }


def bands(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean and the band over rankings that differ in a seed, behind a slash or colon in names.

    Args:
        rows: of an :class:`AblationResult`; ``"random/0"``, ``"random/1"`` …, or ``"random"``,
            ``"random:1"`` … become one curve, ``"random"``, and other rankings stay as they are,
            ``"activity:left"`` and ``"activity:right"`` among them.

    Returns:
        For each curve, removal and region, in the order in which they come: ``ranking``,
        ``removal``, ``start``, ``stop``, ``region``, ``miou`` (the mean), ``std`` (0 of one),
        ``low``, ``high`` (the extremes) and ``seeds`` (how many rankings there were). What is NaN
        of one is so of all, as it has no labels, and of the curve.

    Example:
        >>> point = {"removal": "top", "start": 0, "stop": 5, "region": "full"}
        >>> scores = {"random/0": 0.5, "random/1": 0.7}
        >>> rows = [{"ranking": name, "miou": miou, **point} for name, miou in scores.items()]
        >>> curve, = bands(rows)
        >>> curve["ranking"], round(curve["miou"], 3), curve["low"], curve["high"]
        ('random', 0.6, 0.5, 0.7)
    """
    scores = defaultdict(list)
    for row in rows:
        seeded = re.fullmatch(r"([^/:]+)[/:]\d+", row["ranking"])
        curve = seeded[1] if seeded else row["ranking"]
        key = (curve, row["removal"], row["start"], row["stop"], row["region"])
        scores[key].append(row["miou"])
    names = ("ranking", "removal", "start", "stop", "region")
    return [
        dict(zip(names, key, strict=True))
        | {
            "miou": mean(values),
            "std": stdev(values) if len(values) > 1 and not isnan(values[0]) else 0 * values[0],
            "low": min(values),
            "high": max(values),
            "seeds": len(values),
        }
        for key, values in scores.items()
    ]


def empty_result(**job: Any) -> AblationResult:
    """A result of no images."""
    shape = len(job["points"]), len(job["regions"]), job["num_classes"], job["num_classes"]
    return AblationResult(confusion=torch.zeros(shape, dtype=torch.int64), **job)

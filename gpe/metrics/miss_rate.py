"""Log-average miss rate, MR⁻², of pedestrian detectors on CityPersons (Table S1).

A curve of the miss rate over the false positives per image is read at nine points between 0.01 and
1, and their geometric mean taken (Dollár et al., "Pedestrian detection: an evaluation of the state
of the art", TPAMI 2012), under the four settings of CityPersons' evaluation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gpe.errors import InputError, expect_integer, expect_one_of
from gpe.metrics.collection import next_indices
from gpe.metrics.detections import BoxFormat, Predictions, Targets, flat_predictions, flat_targets
from gpe.metrics.matching import SETTINGS, Outcomes, match
from gpe.statistics import Estimate

# False positives per image: four digits, as the official script has them, not powers of ten.
REFERENCES = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)
Numbered = tuple[np.ndarray, np.ndarray]  # places of images, and rows
_CELLS = 2**21  # of draws times detections at once: it bounds the memory


class Curve(NamedTuple):
    """A detector at every threshold, from the highest score down.

    Attributes:
        fppi: float64 ``[n]``, false positives per image; it never falls.
        miss_rate: float64 ``[n]``, in [0, 1]; it never rises.
    """

    fppi: Tensor
    miss_rate: Tensor


def log_average_miss_rate(
    preds: Predictions,
    target: Targets,
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    box_format: BoxFormat = "xyxy",
    curves: bool = False,
) -> dict[str, Any]:
    """MR⁻² of a set of images, as CityPersons' official script computes it.

    Up to 1000 detections an image, by falling score, each take the free pedestrian that they
    overlap most, by half of their union at least; one that finds none is left out where half of
    it lies in a box to be ignored, and else is a false positive. To be ignored are all boxes of
    another class than 1 and pedestrians outside the setting. Detections lower than the setting's
    least height / 1.25, or not below 1.25 times its greatest, are left out.

    ============== ============ ==============
    setting        height (px)  visibility
    ============== ============ ==============
    ``reasonable`` 50 or more   0.65 or more
    ``small``      50 to 75     0.65 or more
    ``heavy``      50 or more   0.2 to 0.65
    ``all``        20 or more   0.2 or more
    ============== ============ ==============

    Where the curve begins above a reference, which takes fewer than 100 images, the recall there
    is 0. (The official script then reads the curve's other end.) Where it ends before a
    reference, its last point counts.

    Args:
        preds: a dict an image: ``boxes`` ``[n,4]``, corners in pixels of the annotations' images,
            without any + 1; ``scores`` ``[n]``; where there are ``labels`` ``[n]``, only 1,
            pedestrians, count.
        target: arrays or tensors ``[m,10]``, one an image, as CityPersons' annotations and
            :func:`gpe.data.citypersons.read_annotations` have them: class, x, y, w, h, a number,
            and x, y, w, h of what is seen.
        settings: which of the four.
        box_format: ``"xyxy"`` (x2 = x1 + w) or ``"xywh"``.
        curves: also give ``"curves"``, the name of each setting to its :class:`Curve`.

    Returns:
        The name of each setting to MR⁻² in percent; 100 where nothing was detected.

    Raises:
        InputError: images and targets of different number, or none; boxes with negative sides,
            NaN; tensors or rows of another shape; unknown settings; a setting without any
            pedestrian.

    Source:
        Table S1; Zhang et al., "CityPersons: a diverse dataset for pedestrian detection", CVPR
        2017, and its evaluation script.

    Example:
        >>> import torch
        >>> person = [1, 100, 50, 41, 100, 24000, 100, 50, 41, 100]
        >>> found = {"boxes": torch.tensor([[100.0, 50, 141, 150]]), "scores": torch.ones(1)}
        >>> missed = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
        >>> target = [torch.tensor([person])] * 2
        >>> log_average_miss_rate([found, missed], target, settings=("reasonable", "all"))
        {'reasonable': 50.0, 'all': 50.0}
    """
    metric = LogAverageMissRate(settings=settings, box_format=box_format, curves=curves)
    metric.update(preds, target)
    return metric.compute()


class LogAverageMissRate(Metric):
    """:func:`log_average_miss_rate` over batches and processes, exact on any number of them.

    ``update(preds, target, *, indices=None)`` takes a batch; ``compute()`` returns a mapping of
    each setting to MR⁻² in percent. All boxes are kept until then, since a curve needs them: 6
    numbers a detection.

    ``indices``, int64 ``[n]``, are the images' in their set, and are needed where there are
    several processes: detections of equal score count in the order of their images. Where they
    are None, images are numbered in the order in which they come. An image that comes again under
    its index, as torch's DistributedSampler repeats some to fill up the last batches, counts once.

    Args:
        settings, box_format, curves: as in :func:`log_average_miss_rate`.

    Raises:
        InputError: as :func:`log_average_miss_rate`: about a batch in ``update``, about the set
            in ``compute``. The value of a batch, as ``forward`` returns it, is NaN where a setting
            has no pedestrian in it. In ``update``, no indices among several processes.

    Example:
        >>> import torch, gpe
        >>> found = {"boxes": torch.tensor([[100.0, 50, 141, 150]]), "scores": torch.ones(1)}
        >>> metric = gpe.LogAverageMissRate(settings=("reasonable",))
        >>> for x in (100, 500):
        ...     person = torch.tensor([[1, x, 50, 41, 100, 24000, x, 50, 41, 100]])
        ...     metric.update([found], [person], indices=torch.tensor([x]))
        >>> metric.compute(), metric.pedestrians()
        ({'reasonable': 50.0}, {'reasonable': 2})
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    images: list[Tensor]
    detections: list[Tensor]
    boxes: list[Tensor]

    def __init__(
        self,
        *,
        settings: Sequence[str] = tuple(SETTINGS),
        box_format: BoxFormat = "xyxy",
        curves: bool = False,
    ):
        super().__init__()
        self.settings = (settings,) if isinstance(settings, str) else tuple(settings)
        for name in self.settings:
            expect_one_of("settings", name, tuple(SETTINGS))
        if not self.settings or len(set(self.settings)) < len(self.settings):
            raise InputError(f"settings: expected each once, and one or more, got {settings!r}")
        self.box_format, self.curves = box_format, curves
        for name in _WIDTHS:  # float64, so that all may be gathered alike
            self.add_state(name, [], dist_reduce_fx="cat")
        self._of_batch = False

    def forward(
        self, preds: Predictions, target: Targets, *, indices: Tensor | None = None
    ) -> dict[str, Any]:
        """Adds a batch, and returns the miss rates of this batch alone."""
        # torchmetrics sets the states back before this batch: the images are numbered here.
        indices = self._next_indices(len(preds)) if indices is None else indices
        self._of_batch = True
        try:
            return super().forward(preds, target, indices=indices)
        finally:
            self._of_batch = False

    def update(self, preds: Predictions, target: Targets, *, indices: Tensor | None = None) -> None:
        """Adds a batch."""
        if len(preds) != len(target):
            raise InputError(
                f"target: expected one of each of the {len(preds)} images of preds, "
                f"got {len(target)}"
            )
        indices = self._next_indices(len(preds)) if indices is None else torch.as_tensor(indices)
        if indices.is_floating_point() or indices.shape != (len(preds),):
            raise InputError(
                f"indices: expected integers [{len(preds)}], one an image, "
                f"got {indices.dtype} {list(indices.shape)}"
            )
        if len(indices.unique()) < len(indices):
            raise InputError(f"indices: expected each image once, got {indices.tolist()}")
        n = len(preds)
        detections, boxes = flat_predictions(preds, self.box_format), flat_targets(target)
        counts = [torch.bincount(rows[:, 0].long(), minlength=n) for rows in (detections, boxes)]
        images = torch.stack([indices.cpu(), *counts], 1).double()
        for name, rows in zip(_WIDTHS, (images, detections[:, 1:], boxes[:, 1:]), strict=True):
            getattr(self, name).append(rows.to(self.device))

    def compute(self) -> dict[str, Any]:
        """The miss rates over all batches, of all processes."""
        outcomes = self._outcomes()
        found: dict[str, Any] = dict(zip(self.settings, _rates(outcomes)[0].tolist(), strict=True))
        if self.curves:
            found["curves"] = dict(zip(self.settings, _curves(outcomes), strict=True))
        return found

    def pedestrians(self) -> dict[str, int]:
        """How many count in each setting, over the same as :meth:`compute`."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            counts = self._outcomes(expected=False).pedestrians.sum(1)
        return dict(zip(self.settings, counts.tolist(), strict=True))

    def intervals(self, *, draws: int = 1000, seed: int = 0) -> dict[str, Estimate]:
        """:meth:`compute` with 95 % intervals for other images like these.

        They are the bootstrap's percentiles, over images drawn anew.

        Args:
            draws: of the bootstrap.
            seed: of the draws, 0 or more; the same images with the same seed give the same.

        Source:
            Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
        """
        return self._estimates(*self._drawn(draws, seed)[:2])

    def paired_intervals(
        self,
        other: "LogAverageMissRate | Sequence[LogAverageMissRate]",
        *,
        draws: int = 1000,
        seed: int = 0,
    ) -> dict[str, Estimate]:
        """By how many points ``other`` misses more, with 95 % intervals over the same images.

        Args:
            other: of another detector or ablation, on the same images, with the same settings; of
                several, their mean counts.
            draws, seed: as in :meth:`intervals`.

        Raises:
            InputError: other settings or images, or no others.
        """
        others = [other] if isinstance(other, LogAverageMissRate) else list(other)
        if not others:
            raise InputError("other: expected one or more, got none")
        whole, drawn, mine = self._drawn(draws, seed)
        pairs = []
        for each in others:
            if self.settings != each.settings:
                raise InputError(f"other: expected settings {self.settings}, got {each.settings}")
            its_whole, its_drawn, its = each._drawn(draws, seed)
            if not all(np.array_equal(*pair) for pair in zip(mine, its, strict=True)):
                raise InputError(
                    f"other: expected the same {len(mine[0])} images with the same annotations, "
                    f"got {len(its[0])} that differ"
                )
            pairs.append((its_whole, its_drawn))
        means = (np.mean(parts, axis=0) for parts in zip(*pairs, strict=True))
        return self._estimates(
            *(mean - own for mean, own in zip(means, (whole, drawn), strict=True))
        )

    def _drawn(
        self, draws: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """The rates, those of each draw of images, and which images with which boxes these are."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            outcomes = self._outcomes()
            indices, _, boxes = self._each_once()
        drawn = _rates(outcomes, _times(outcomes, draws, seed))
        return _rates(outcomes), drawn, (indices, *boxes)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As torchmetrics', where a process that saw no image takes part with empty states."""
        for name, width in _WIDTHS.items():
            if not len(getattr(self, name)):
                empty = torch.zeros(0, width, dtype=torch.float64, device=self.device)
                setattr(self, name, [empty])
        super().sync(*args, **kwargs)

    def _next_indices(self, count: int) -> Tensor:
        return next_indices(sum(map(len, self.images)), count, "the order of equal scores")

    def _each_once(self) -> tuple[np.ndarray, Numbered, Numbered]:
        """Indices of the images, rising; detections and boxes as :func:`match` takes them."""
        images, detections, boxes = (
            dim_zero_cat(getattr(self, name)).cpu().numpy() for name in _WIDTHS
        )
        indices, first = np.unique(images[:, 0], return_index=True)
        place = np.full(len(images), -1)
        place[first] = np.arange(len(indices))
        counts = images[:, 1:].astype(np.int64)
        ends = counts[:, 1].cumsum()
        for again in np.flatnonzero(place < 0):
            before = first[np.searchsorted(indices, images[again, 0])]
            one, other = (boxes[ends[at] - counts[at, 1] : ends[at]] for at in (before, again))
            if not np.array_equal(one, other):
                raise InputError(
                    "indices: expected the same annotations wherever an image comes again, got "
                    f"others of image {int(images[again, 0])}"
                )

        def numbered(rows: np.ndarray, times: np.ndarray) -> Numbered:
            places = np.repeat(place, times)
            once = places >= 0 if len(indices) < len(images) else slice(None)
            return places[once], rows[once]

        return indices, numbered(detections, counts[:, 0]), numbered(boxes, counts[:, 1])

    def _outcomes(self, expected: bool = True) -> Outcomes:
        if not sum(map(len, self.images)):
            raise InputError("preds: expected one or more images, got none")
        indices, detections, boxes = self._each_once()
        chosen = [SETTINGS[name] for name in self.settings]
        outcomes = match(detections, boxes, len(indices), chosen)
        without = outcomes.pedestrians.sum(1) == 0
        if expected and not self._of_batch and without.any():
            names = ", ".join(np.array(self.settings)[without])
            raise InputError(
                f"target: expected pedestrians in each setting, got none of {names} in "
                f"{len(indices)} images; leave it out of settings to measure the others"
            )
        return outcomes

    def _estimates(self, values: np.ndarray, drawn: np.ndarray) -> dict[str, Estimate]:
        bounds = np.nanpercentile(drawn, (2.5, 97.5), axis=0)  # some draws have no pedestrian
        rows = np.concatenate([values, bounds]).T.tolist()
        return {name: Estimate(*row) for name, row in zip(self.settings, rows, strict=True)}


# The states, and how many numbers a row has: index, detections and boxes of an image; x, y, w, h
# and score; class, x, y, w, h and visibility.
_WIDTHS = {"images": 3, "detections": 5, "boxes": 6}


def _rates(outcomes: Outcomes, times: np.ndarray | None = None) -> np.ndarray:
    """MR⁻² in percent, ``[D,S]``, with each image as often as ``times`` ``[D,N]`` says; once."""
    images = outcomes.pedestrians.shape[1]
    times = np.ones((1, images), np.int64) if times is None else times
    rates = np.empty((len(times), len(outcomes.hit)))
    for setting, (hit, counted) in enumerate(zip(outcomes.hit, outcomes.counted, strict=True)):
        hit, of_image = hit[counted], outcomes.images[counted]
        # Nothing is read beyond 1 false positive an image, and few draws get there only after 2.
        enough = int(np.searchsorted((~hit).cumsum(), 2 * images))
        true, beyond = _found(times, hit[:enough], of_image[:enough])
        if enough < len(hit) and not beyond.all():
            true[~beyond] = _found(times[~beyond], hit, of_image)[0]
        people = times @ outcomes.pedestrians[setting]
        with np.errstate(divide="ignore", invalid="ignore"):  # all found, or nobody there
            rates[:, setting] = 100 * np.exp(np.log(1 - true / people[:, None]).mean(1))
    return rates


def _found(
    times: np.ndarray, hit: np.ndarray, of_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pedestrians found at each reference, ``[D,9]``, and whether the curve goes beyond the last.

    Recall is read at the last point at or below a reference, and is 0 before the first.
    """
    found, beyond = np.empty((len(times), len(REFERENCES))), np.empty(len(times), bool)
    step = max(1, _CELLS // (len(hit) + 1))
    for some in (slice(start, start + step) for start in range(0, len(times), step)):
        drawn = times[some]
        weights = np.zeros((len(drawn), len(hit) + 1), np.int64)  # a curve starts at 0 and 0
        weights[:, 1:] = drawn[:, of_image]
        true = (weights * np.append(False, hit)).cumsum(1)
        fppi = (weights.cumsum(1) - true) / times.shape[1]
        last = np.stack([np.searchsorted(row, REFERENCES, "right") - 1 for row in fppi])
        found[some], beyond[some] = np.take_along_axis(true, last, 1), fppi[:, -1] > REFERENCES[-1]
    return found, beyond


def _curves(outcomes: Outcomes) -> list[Curve]:
    found = []
    people, images = outcomes.pedestrians.sum(1), outcomes.pedestrians.shape[1]
    for hit, counted, total in zip(outcomes.hit, outcomes.counted, people, strict=True):
        true, false = (some[counted].cumsum() for some in (hit, ~hit))
        rates = false / images, 1 - true / max(total, 1)
        found.append(Curve(*map(torch.from_numpy, rates)))
    return found


def _times(outcomes: Outcomes, draws: int, seed: int) -> np.ndarray:
    """How often each image is in each draw, int64 ``[draws,N]``."""
    expect_integer("draws", draws, 1)
    expect_integer("seed", seed, 0)
    images = outcomes.pedestrians.shape[1]
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)

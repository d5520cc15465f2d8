"""A ranking of a layer's channels, and what can be done with it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gpe import hub
from gpe.errors import InputError, needs
from gpe.ops.flip_difference import flip_difference
from gpe.ranking.modes import DEVIATION, moments, score
from gpe.records import atomic
from gpe.statistics import drawn_means, interval_about

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

ImageId = int | str


class Sums(NamedTuple):
    """Sums over images, for means of them.

    Attributes:
        total: of the differences, of their sizes where the mode takes these, float64 ``[C]``; of a
            deviation of the values and of their squares, ``[2C]``.
        draws: the same of each draw of a bootstrap, float64 ``[D,C]`` or ``[D,2C]``.
        times: how many images each draw has, each as often as it was drawn, float64 ``[D]``.
    """

    total: Tensor
    draws: Tensor | None = None
    times: Tensor | None = None

    def plus(self, other: "Sums") -> "Sums":
        """Those over the images of both."""
        added = [a + b for a, b in zip(self, other, strict=True) if a is not None and b is not None]
        return Sums(*added)


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """How position-specific each channel is, or how important, by one mode.

    The scores are means over images, or the deviation over them. Where the difference of each image
    is kept, 4 bytes for each channel, sorted by the image's id, the result does not depend on who
    saw which image in which order, and rankings merge to the last bit. Where sums are kept in their
    place, that holds up to rounding in float64. No image counts twice.

    Attributes:
        mode: what was ranked, as :func:`gpe.rank_channels` calls it.
        scores: float64 ``[C]``, by channel; the higher, the more position-specific.
        layer: name of the module, None where it is not known.
        weights: a hash of the network's state dict, likewise.
        image_ids: of the images, sorted.
        differences: floating ``[n,C]``, of each image the difference of the latents, or what else
            the mode is about; None where scores are not of images, as those of ``"random"`` and
            ``"information"``, are made of other rankings', or where ``sums`` stand for them.
        sums: over the images, where these were not kept.

    Example:
        >>> differences = torch.tensor([[1.0, -4.0, 0.0], [1.0, 2.0, 0.0]])
        >>> overall = ChannelRanking.of_differences("overall", differences, (0, 1))
        >>> overall.scores.tolist(), overall.order.tolist()
        ([1.0, 3.0, 0.0], [1, 0, 2])
        >>> ChannelRanking.of_differences("left", differences, (0, 1)).order.tolist()
        [0, 2, 1]
        >>> later = ChannelRanking.of_differences("overall", differences[:1], (2,))
        >>> overall.merge(later).images
        3
    """

    mode: str
    scores: Tensor
    layer: str | None = None
    weights: str | None = None
    image_ids: tuple[ImageId, ...] = ()
    differences: Tensor | None = None
    sums: Sums | None = None

    def __post_init__(self) -> None:
        if self.scores.dim() != 1 or self.scores.dtype != torch.float64:
            got = f"{self.scores.dtype} {list(self.scores.shape)}"
            raise InputError(f"scores: expected {torch.float64} [C], got {got}")
        if not self.scores.isfinite().all():
            channel = int(self.scores.isfinite().logical_not().nonzero()[0])
            got = f"{self.scores[channel].item()} for channel {channel}"
            raise InputError(f"scores: expected finite numbers, got {got}")

    @classmethod
    def of_differences(
        cls,
        mode: str,
        differences: Tensor,  # [n,C]
        image_ids: Sequence[ImageId],  # [n]
        *,
        layer: str | None = None,
        weights: str | None = None,
    ) -> "ChannelRanking":
        """The ranking by the mean difference (left, right: Eq. 3; cells) or its mean size (Eq. 2).

        For a deviation they are values, and the scores are their standard deviation.

        Raises:
            InputError: no images, or one that comes twice; NaN.
        """
        order, ids = _sorted(image_ids, mode)
        differences = differences[order].cpu()
        summed = moments(mode, differences)
        total = flip_difference(summed, torch.zeros_like(summed)).total
        return cls(mode, score(mode, total / len(ids)), layer, weights, ids, differences)

    @classmethod
    def of_sums(
        cls,
        mode: str,
        sums: Sums,
        image_ids: Sequence[ImageId],  # [n]
        *,
        layer: str | None = None,
        weights: str | None = None,
    ) -> "ChannelRanking":
        """As :meth:`of_differences`, from sums over the images.

        Raises:
            InputError: no images, or one that comes twice; sums that are not finite.
        """
        _, ids = _sorted(image_ids, mode)
        return cls(mode, score(mode, sums.total / len(ids)), layer, weights, ids, sums=sums)

    @property
    def images(self) -> int:
        """How many were averaged."""
        return len(self.image_ids)

    @cached_property
    def order(self) -> Tensor:
        """Channels, int64 ``[C]``, the most position-specific first; of equal ones the lower."""
        return self.scores.argsort(descending=True, stable=True)

    def top(self, k: int) -> Tensor:
        """The ``k`` most position-specific channels, int64 ``[k]``."""
        try:
            count = index(k)
        except TypeError:
            count = -1
        if not 0 <= count <= len(self.scores):
            raise InputError(f"k: expected an integer from 0 to {len(self.scores)}, got {k!r}")
        return self.order[:count]

    @cached_property
    def interval(self) -> Tensor | None:
        """95 % confidence interval of the scores for other images like these, float64 ``[2,C]``.

        The bootstrap's percentiles, over images drawn anew; None where scores are no means of them,
        or where no more than their sums was kept.
        """
        if self.sums is not None and self.sums.draws is not None and self.sums.times is not None:
            means = self.sums.draws / self.sums.times[:, None]  # NaN of a draw without images
        elif self.differences is not None:
            means = drawn_means(moments(self.mode, self.differences))
        else:
            return None
        draws = score(self.mode, means)
        if self.mode == DEVIATION:  # images that come twice make it smaller
            return interval_about(self.scores, draws[draws.isfinite().all(1)])
        return draws.nanquantile(draws.new_tensor([0.025, 0.975]), dim=0)

    def expect_width(self, channels: int, argument: str = "ranking") -> None:
        """Raise an InputError unless the ranking is of so many channels."""
        if len(self.scores) != channels:
            raise InputError(
                f"{argument}: expected one of {channels} channels, got one of {len(self.scores)}"
            )

    def merge(self, other: "ChannelRanking") -> "ChannelRanking":
        """The ranking by the images of both, as all at once would have given it.

        To the last bit where images are kept, and to rounding where sums are.

        Raises:
            InputError: the other is of another mode, layer, network or width, keeps something
                else, or an image is in both.
        """
        for what in ("mode", "layer", "weights"):
            own, its = getattr(self, what), getattr(other, what)
            if own != its:
                raise InputError(f"other: expected a ranking with {what} {own!r}, got {its!r}")
        other.expect_width(len(self.scores), "other")
        if (
            self.sums is None
            and other.sums is None
            and None in (self.differences, other.differences)
        ):
            if torch.equal(self.scores, other.scores):
                return self
            raise InputError("other: expected a ranking of images, or the same scores, got neither")
        if self._kept != other._kept:
            raise InputError(f"other: expected one that keeps {self._kept}, got {other._kept}")
        if both := set(self.image_ids) & set(other.image_ids):
            raise InputError(
                f"other: expected other images, got {len(both)} that are in both, as {min(both)!r}"
            )
        ids = self.image_ids + other.image_ids
        about = {"layer": self.layer, "weights": self.weights}
        if self.sums is not None and other.sums is not None:
            sums = self.sums.plus(other.sums)
            return ChannelRanking.of_sums(self.mode, sums, ids, **about)
        assert self.differences is not None and other.differences is not None
        differences = torch.cat([self.differences, other.differences])
        return ChannelRanking.of_differences(self.mode, differences, ids, **about)

    @property
    def _kept(self) -> str:
        if self.sums is None:
            return "images" if self.differences is not None else "nothing"
        return "sums" if self.sums.draws is None else "draws"

    def to_pandas(self) -> "DataFrame":
        """A row for each channel, the most position-specific first.

        With the columns ``channel`` and ``score``, and ``low`` and ``high`` of the 95 % confidence
        interval where there is one.

        Raises:
            InputError: pandas is not installed.

        Example:
            >>> differences = torch.tensor([[1.0, -4.0], [1.0, 2.0]])
            >>> ranking = ChannelRanking.of_differences("overall", differences, (0, 1))
            >>> ranking.to_pandas()[["channel", "score"]].values.tolist()
            [[1.0, 3.0], [0.0, 1.0]]
        """
        with needs("to_pandas()"):
            import pandas
        columns = {"channel": self.order, "score": self.scores[self.order]}
        if self.interval is not None:
            columns |= zip(("low", "high"), self.interval[:, self.order], strict=True)
        return pandas.DataFrame({name: values.numpy() for name, values in columns.items()})

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the scores in the order of the ranking, and their 95 % confidence interval.

        Args:
            axes: of matplotlib, to draw into; None: the current ones.

        Returns:
            The axes, for titles and the like.

        Raises:
            InputError: matplotlib is not installed.
        """
        with needs("plot()"):
            from matplotlib import pyplot
        axes = pyplot.gca() if axes is None else axes
        places = range(len(self.order))
        axes.plot(places, self.scores[self.order], label=self.mode)
        if self.interval is not None:
            axes.fill_between(places, *self.interval[:, self.order], alpha=0.25, linewidth=0)
        axes.set(xlabel="channels, in the order of the ranking", ylabel=f"score, {self.mode}")
        return axes

    def save(self, path: str | Path) -> None:
        """Write all of it to one file, in the format of safetensors.

        Args:
            path: of the file; or ``"hf://OWNER/NAME/FILE"``, in a repository of the Hugging Face
                Hub, where ``huggingface_hub`` is installed.
        """
        tensors = {"scores": self.scores, "order": self.order}
        if self.differences is not None:
            tensors["differences"] = self.differences
        if self.sums is not None:
            tensors |= {n: t for n, t in self.sums._asdict().items() if t is not None}
        about = {name: getattr(self, name) for name in ("mode", "layer", "weights", "image_ids")}
        with hub.written(path) as file:
            file.write_bytes(save(tensors, {"gpe.ChannelRanking": json.dumps(about)}))

    @classmethod
    def load(cls, path: str | Path) -> "ChannelRanking":
        """What :meth:`save` wrote.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        file_here = hub.local(path)
        try:
            with safe_open(file_here, "pt") as file:
                about = json.loads((file.metadata() or {})["gpe.ChannelRanking"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                about["image_ids"] = tuple(about["image_ids"])
                sums = {name: tensors[name] for name in Sums._fields if name in tensors}
                ranking = cls(
                    **about,
                    scores=tensors["scores"],
                    differences=tensors.get("differences"),
                    sums=Sums(**sums) if sums else None,
                )
        except FileNotFoundError:
            raise InputError(f"path: there is no {path}") from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"path: expected a ranking, got {path}: {error}") from None
        return ranking

    def to_json(self, path: str | Path) -> None:
        """Write the order in the paper's form, ``{"overall": [1540, 111, ...]}``."""
        with atomic(Path(path)) as file:
            file.write_text(json.dumps({self.mode: self.order.tolist()}) + "\n")

    @classmethod
    def from_json(
        cls, path: str | Path, *, mode: str | None = None, layer: str | None = None
    ) -> "ChannelRanking":
        """A ranking in the paper's form, ``{"overall": [1540, 111, ...]}``.

        The form has no scores: they are C for the first channel, down to 1 for the last.

        Args:
            path: of the file.
            mode: what was ranked, if not what the file says. (That of the paper's right side says
                ``"left"``.)
            layer: name of the module.

        Raises:
            InputError: there is no such file, or it does not order channels 0 to C-1.
        """
        try:
            content = json.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"path: there is no {path}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"path: expected JSON, got {path}: {error}") from None
        lists = list(content.values()) if isinstance(content, dict) else []
        order = lists[0] if len(lists) == 1 else None
        if not isinstance(order, list) or not order:
            raise InputError(f'path: expected {{"overall": [channels]}}, got {path}')
        if {type(channel) for channel in order} != {int} or sorted(order) != [*range(len(order))]:
            raise InputError(
                f"path: expected each channel from 0 to {len(order) - 1} once, got {path}"
            )
        scores = torch.zeros(len(order), dtype=torch.float64)
        scores[torch.tensor(order)] = torch.arange(len(order), 0, -1, dtype=torch.float64)
        return cls(mode or next(iter(content)), scores, layer)

    def __repr__(self) -> str:
        images, top = f"{self.images} images", self.order[:5].tolist()
        return f"ChannelRanking({self.mode!r}, {self.layer!r}, {images}, top={top})"


def _sorted(image_ids: Sequence[ImageId], mode: str) -> tuple[list[int], tuple[ImageId, ...]]:
    """Positions of the ids, by the ids, and these, sorted; each may be there once."""
    # Of Python's own types, as those of NumPy are not.
    ids: list[ImageId] = [i if isinstance(i, str) else index(i) for i in image_ids]
    if not ids:
        raise InputError(f"images: expected one or more for {mode!r}, got none")
    if len({type(image) for image in ids}) > 1:
        raise InputError("image ids: expected all numbers or all strings, got both")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    found = tuple(ids[place] for place in order)
    for one, other in pairwise(found):
        if one == other:
            raise InputError(
                f"image ids: expected each image once, got {one!r} twice; without ids "
                "in the batches, images are numbered from `start`"
            )
    return order, found

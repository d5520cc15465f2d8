"""How sure a number is: 95 % intervals of shares, means and correlations, over images or seeds.

torch and scipy are imported where they are needed: reports read floats and should not wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpe.errors import InputError, needs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

DRAWS = 1000
AT_ONCE = 50  # draws, and as many columns times ten: it bounds the memory
SEED = 0


class Estimate(NamedTuple):
    """A number and its 95 % interval, whose ends are None where one value has none."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def half(self) -> float | None:
        """Half of the interval."""
        return None if self.ends is None else (self.ends[1] - self.ends[0]) / 2


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        share: in [0, 1].
        n: of how many; it need not be whole.

    Returns:
        Both ends, in [0, 1].

    Raises:
        InputError: a share outside [0, 1], or an ``n`` that is not above 0.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22,
        1927.

    Example:
        >>> low, high = wilson_interval(0.5, 100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if not 0 <= share <= 1:
        raise InputError(f"share: expected 0 to 1, got {share}")
    if not n > 0:
        raise InputError(f"n: expected above 0, got {n}")
    z = NormalDist().inv_cdf(0.975)
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    # A share of 0 or 1 is a bound itself, which rounding may leave out.
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean with Student's 95 % interval, which a single value does not have.

    Raises:
        InputError: no values, or one that is not finite.

    Source:
        Student, "The probable error of a mean", Biometrika 6, 1908.

    Example:
        >>> mean, low, high = mean_of([1.0, 2.0, 3.0])
        >>> mean, round(low, 2), round(high, 2)
        (2.0, -0.48, 4.48)
    """
    if not values or not all(map(math.isfinite, values)):
        raise InputError(f"values: expected one or more finite numbers, got {values!r:.80}")
    mean, count = fmean(values), len(values)
    if count == 1:
        return Estimate(mean)
    with needs("Student's interval"):
        from scipy.special import stdtrit

    half = float(stdtrit(count - 1, 0.975)) * stdev(values) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def difference_of(one: Estimate, other: Estimate) -> Estimate:
    """Of two independent estimates, ``one - other``: halves of intervals add up as squares do."""
    value = one.value - other.value
    if one.half is None or other.half is None:
        return Estimate(value)
    half = math.hypot(one.half, other.half)
    return Estimate(value, value - half, value + half)


def interval_of_mean(values: Tensor) -> Tensor:  # [n,C] -> [2,C]
    """The 95 % interval of the mean over n, by the percentiles of the bootstrap, float64.

    Each draw takes n of the rows with replacement. The same rows give the same interval.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    means = drawn_means(values)
    return means.quantile(means.new_tensor([0.025, 0.975]), dim=0)


def drawn_means(values: Tensor) -> Tensor:  # [n,C] -> [D,C]
    """The mean over n of each draw of the bootstrap, float64."""
    import torch

    if values.dim() != 2 or len(values) == 0:
        raise InputError(f"values: expected [n,C] of one or more rows, got {list(values.shape)}")
    count, width = values.shape
    means = torch.empty(DRAWS, width, dtype=torch.float64)
    for part, times in enumerate(times_drawn(count, DRAWS)):
        start = part * AT_ONCE
        for columns in torch.arange(width).split(10 * AT_ONCE):
            some = values[:, columns[0] : columns[-1] + 1].double()
            means[start : start + AT_ONCE, columns] = times @ some / count
    return means


def times_drawn(count: int, draws: int) -> Iterator[Tensor]:  # each [AT_ONCE,count]
    """How often each of ``count`` rows is in each draw, float64; ``AT_ONCE`` draws at a time."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    for start in range(0, draws, AT_ONCE):
        some = min(AT_ONCE, draws - start)
        drawn = torch.randint(count, (some, count), generator=generator)
        times = torch.zeros(some, count, dtype=torch.float64)
        yield times.scatter_add_(1, drawn, torch.ones_like(times))


def interval_about(estimate: Tensor, draws: Tensor) -> Tensor:  # [...], [D,...] -> [2,...]
    """The 95 % interval of ``estimate``, by the spread of the draws about their own mean.

    For what is no mean and is biased where images come twice, as information and correlations of
    ranks are: percentiles of such draws need not even hold the estimate.
    """
    apart = draws - draws.mean(0)
    return estimate - apart.quantile(draws.new_tensor([0.975, 0.025]), dim=0)


def rank_correlation(one: ArrayLike, other: ArrayLike) -> np.ndarray:  # [...,C], [...,C] -> [...]
    """Spearman's, float64; 0 where either is constant and there is none.

    Args:
        one, other: lists, arrays or tensors on the CPU, of the same shape.

    Raises:
        InputError: other shapes than each other's, or a number that is not finite.

    Source:
        Spearman, "The proof and measurement of association between two things", American Journal
        of Psychology 15, 1904.

    Example:
        >>> round(float(rank_correlation([1, 2, 9], [3, 2, 1])), 6)
        -1.0
    """
    with needs("rank_correlation"):
        from scipy.stats import rankdata

    values = np.asarray(one), np.asarray(other)
    if values[0].shape != values[1].shape:
        shapes = [list(value.shape) for value in values]
        raise InputError(f"other: expected {shapes[0]} as one, got {shapes[1]}")
    units = []
    for name, value in zip(("one", "other"), values, strict=True):
        if not np.isfinite(value).all():
            raise InputError(f"{name}: expected finite numbers, got NaN or infinity")
        ranks = rankdata(value, axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        units.append(ranks / np.maximum(np.linalg.norm(ranks, axis=-1, keepdims=True), 1e-12))
    return (units[0] * units[1]).sum(-1).clip(-1, 1)


def correlation_interval(
    one: Tensor,  # [C]
    other: Tensor,  # [C]
    one_draws: Tensor,  # [D,C]
    other_draws: Tensor,  # [D,C]
) -> Estimate:
    """Spearman's correlation of two scores with its 95 % interval over images.

    Args:
        one, other: by channel.
        one_draws, other_draws: the same of images drawn anew, the same ones for both.

    Returns:
        The interval is one of the correlation's Fisher transform.
    """
    import torch

    rho = rank_correlation(one, other)
    # Short of one, whose transform is infinite.
    transformed, draws = (
        torch.as_tensor(values).clamp(-1 + 1e-12, 1 - 1e-12).atanh()
        for values in (rho, rank_correlation(one_draws, other_draws))
    )
    low, high = interval_about(transformed, draws).tanh().tolist()
    return Estimate(float(rho), low, high)

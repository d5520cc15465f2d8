"""How sure a mean over images is, and whatever else is computed from images."""

from collections.abc import Iterator

import torch
from torch import Tensor

DRAWS = 1000
AT_ONCE = 50  # draws, and as many columns times ten: it bounds the memory
SEED = 0


def interval_of_mean(values: Tensor) -> Tensor:  # [n,C] -> [2,C]
    """The 95 % interval of the mean over n, by the percentiles of the bootstrap, float64.

    Each draw takes n of the rows with replacement. The same rows give the same interval.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    count, width = values.shape
    means = torch.empty(DRAWS, width, dtype=torch.float64)
    for part, times in enumerate(times_drawn(count, DRAWS)):
        start = part * AT_ONCE
        for columns in torch.arange(width).split(10 * AT_ONCE):
            some = values[:, columns[0] : columns[-1] + 1].double()
            means[start : start + AT_ONCE, columns] = times @ some / count
    return means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)


def times_drawn(count: int, draws: int) -> Iterator[Tensor]:  # each [AT_ONCE,count]
    """How often each of ``count`` rows is in each draw, float64; ``AT_ONCE`` draws at a time."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(0, draws, AT_ONCE):
        drawn = torch.randint(count, (AT_ONCE, count), generator=generator)
        times = torch.zeros(AT_ONCE, count, dtype=torch.float64)
        yield times.scatter_add_(1, drawn, torch.ones_like(times))


def interval_about(estimate: Tensor, draws: Tensor) -> Tensor:  # [...], [D,...] -> [2,...]
    """The 95 % interval of ``estimate``, by the spread of the draws about their own mean.

    For what is no mean and is biased where images come twice, as information and correlations of
    ranks are: percentiles of such draws need not even hold the estimate.
    """
    apart = draws - draws.mean(0)
    return estimate - apart.quantile(torch.tensor([0.975, 0.025], dtype=draws.dtype), dim=0)

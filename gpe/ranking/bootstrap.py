"""How sure a mean over images is."""

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
    generator = torch.Generator().manual_seed(SEED)
    means = torch.empty(DRAWS, width, dtype=torch.float64)
    for start in range(0, DRAWS, AT_ONCE):
        drawn = torch.randint(count, (AT_ONCE, count), generator=generator)
        times = torch.zeros(AT_ONCE, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        for columns in torch.arange(width).split(10 * AT_ONCE):
            part = values[:, columns[0] : columns[-1] + 1].double()
            means[start : start + AT_ONCE, columns] = times @ part / count
    return means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)

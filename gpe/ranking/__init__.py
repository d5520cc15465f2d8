"""Which channels of a network encode position, and for which side (section 4.2.1).

>>> import torch, gpe
>>> _ = torch.manual_seed(0)
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU())
>>> batches = [torch.rand(4, 3, 16, 16) for _ in range(3)]
>>> rankings = gpe.rank_channels(
...     model, batches, layer="1", modes=("overall", "left", "random"), subsets={"left": [0, 5, 6]}
... )
>>> rankings["overall"].images, rankings["left"].images
(12, 3)
>>> with torch.no_grad():
...     features = gpe.mask_channels(model(batches[0]), rankings["overall"].top(2))
>>> int((features.sum((0, 2, 3)) == 0).sum()) >= 2
True
"""

from gpe.ranking.information import mutual_information
from gpe.ranking.rank import rank_channels
from gpe.ranking.regions import group_means, rank_region
from gpe.ranking.result import ChannelRanking

__all__ = ["ChannelRanking", "group_means", "mutual_information", "rank_channels", "rank_region"]

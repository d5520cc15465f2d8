"""Removal is what a hook does that zeroes channels along the layer's own dimension."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gpe


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.layer = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, images):
        return self.head(self.layer(self.stem(images).flatten(2).mT).tanh().mean(1))


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.layer, self.down, self.head = nn.Linear(12, 16), nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, images):
        maps = self.stem(images)
        inner = self.down(F.gelu(self.layer(self.norm(maps.permute(0, 2, 3, 1)))))
        return self.head((maps + inner.permute(0, 3, 1, 2)).mean((2, 3)))


@pytest.mark.parametrize("compiled", (False, True))
@pytest.mark.parametrize(("kind", "dim"), ((Transformer, 2), (ConvNeXt, 3)))
def test_by_hook(kind, dim, compiled):
    torch.manual_seed(0)
    net, images = kind().double().eval(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    order = np.arange(16)[::-1]

    def zero(module, arguments, output):
        return output.index_fill(dim, torch.tensor(order[:3].copy()), 0)

    with torch.no_grad():
        plain = net(images)
        handle = net.layer.register_forward_hook(zero)
        expected = net(images)
        handle.remove()
        run = torch.compile(net, backend="eager") if compiled else net
        with gpe.ablated(run, "layer", order[:3]):
            torch.testing.assert_close(run(images), expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(plain, expected)

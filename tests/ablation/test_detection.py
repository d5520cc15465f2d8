"""Detections from a latent without some channels are those of the whole network without them."""

import pytest
import torch

from gpe.ablation import ablated, random_orders
from gpe.ablation.detection import detections_without
from gpe.models.detection import csp


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return csp("resnet18", width=8, neck_width=8, head_width=8).eval()


@torch.no_grad()
def test_heads_alone_find_what_the_network_without_these_channels_finds(detector):
    """Of images that have to be padded, for counts up to all channels."""
    images, size = torch.randn(3, 3, 100, 140), (100, 140)
    orders = random_orders(24, 2)
    found = detections_without(
        detector, detector.latent(images), size, orders, (1, 5, 13, 24), least_score=0.0
    )
    points = []
    for name, count, boxes in found:
        points.append((name, count))
        channels = orders[name][:count] if count else []
        with ablated(detector, "neck", channels, channel_dim=1):
            expected = detector.detect(detector.latent(images), size, least_score=0.0)
        for one, other in zip(boxes, expected, strict=True):
            # Boxes of nearly equal scores may change places.
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-6)
    assert sorted(points) == [("", 0)] + [
        (f"random/{n}", k) for n in (0, 1) for k in (1, 5, 13, 24)
    ]

"""Detections from a latent without some channels are those of the whole network without them."""

import pytest
import torch

from gpe.ablation import ablated, random_orders
from gpe.ablation.detection import detections_without, detections_without_inside
from gpe.models.detection import csp
from gpe.models.detection.two_stage import cascade_rcnn
from gpe.models.inside import layout_of


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
        expect_same(boxes, expected)
    assert sorted(points) == [("", 0)] + [
        (f"random/{n}", k) for n in (0, 1) for k in (1, 5, 13, 24)
    ]


@pytest.fixture(scope="module")
def cascade():
    torch.manual_seed(0)
    return cascade_rcnn(width=4, neck_width=8, head_width=16, proposals=20).eval()


@torch.no_grad()
@pytest.mark.parametrize("level", [0, 2, 4])
def test_one_level_loses_channels_and_the_others_keep_them(cascade, level):
    images, size, orders = torch.randn(2, 3, 64, 128), (64, 128), random_orders(8, 2)
    latent = cascade.latent(images)
    found = {
        (name, count): boxes
        for name, count, boxes in detections_without(
            cascade, latent, size, orders, (1, 5, 8), level=level, least_score=0.0
        )
    }
    assert len(found) == 1 + 2 * 3
    for (name, count), boxes in found.items():
        plain = [maps.clone() for maps in latent]
        plain[level][:, orders[name][:count] if count else []] = 0
        expect_same(boxes, cascade.detect(plain, size, least_score=0.0))


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "layer", "channels"),
    [
        ("detector", "backbone.layer3", 32),
        ("detector", "neck.p4", 8),
        ("cascade", "neck.reduction_conv", 8),
        ("cascade", "backbone.layer1", 16),
    ],
)
def test_a_layer_inside_loses_channels_as_by_hand(network, layer, channels, request):
    model = request.getfixturevalue(network)
    images = torch.randn(2, 3, 100, 140)
    layout = layout_of(model, layer, images)
    assert layout.channels == channels
    orders = random_orders(channels, 1)
    found = detections_without_inside(model, images, layout, orders, (3, 6), least_score=0.0)
    plain = {}
    for name, count, boxes in found:
        removed = orders[name][:count] if count else torch.zeros(0, dtype=torch.int64)
        handle = model.get_submodule(layer).register_forward_hook(
            lambda module, given, output, removed=removed: output.index_fill(1, removed, 0.0)
        )
        plain[count] = model.detect(model.latent(images), (100, 140), least_score=0.0)
        handle.remove()
        expect_same(boxes, plain[count])
    assert not torch.equal(plain[0][0]["scores"], plain[6][0]["scores"])


def expect_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        # Boxes of nearly equal scores may change places.
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-6)

"""Channels are zero within the block, and the network is itself again after it."""

import pytest
import torch
from torch import nn

import gpe
from gpe.errors import InputError
from gpe.models.inside import pooled_at


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


@pytest.fixture
def images(net):
    images = torch.rand(2, 3, 8, 8)
    net(images)
    return images


def test_it_is_zeroing_by_hand(net, images):
    expected = net[0](images)
    expected[:, [1, 4]] = 0
    with gpe.ablated(net, "0", [1, 4]) as same:
        assert same is net
        found = net(images)
    torch.testing.assert_close(found, net[1:](expected), rtol=0, atol=0)


def test_blocks_nest(net, images):
    with gpe.ablated(net, "0", [1, 4]):
        expected = net(images)
    with gpe.ablated(net, "0", torch.tensor([1])), gpe.ablated(net, "0", [4]):
        torch.testing.assert_close(net(images), expected, rtol=0, atol=0)


def test_a_layer_is_looked_at_within_a_block_that_removes_some_of_it(net, images):
    """The passes by which the block looks at it are not counted as its calls."""
    with gpe.ablated(net, "1", [1, 4]):
        ranked = gpe.rank_channels(net, [images], layer="1")["overall"]
    assert (ranked.scores == 0).nonzero().flatten().tolist() == [1, 4]
    whole = gpe.rank_channels(net, [images], layer="1")["overall"]
    with gpe.ablated(net, "0", [0]), gpe.ablated(net, "0", [2]):
        inner = gpe.rank_channels(net, [images], layer="0", modes=["overall"])["overall"]
        latents = pooled_at(net, ["0", "1"], images)
    assert (inner.scores == 0).nonzero().flatten().tolist() == [0, 2]
    assert not latents["0"][:, [0, 2]].any() and latents["0"][:, [1, 3, 4, 5]].all()
    assert (whole.scores > 0).sum() > (ranked.scores > 0).sum()


def test_the_network_is_untouched_afterwards_also_by_an_error(net, images):
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(images)
    with pytest.raises(ZeroDivisionError), gpe.ablated(net, "0", range(6)):
        assert not torch.equal(net(images), expected)
        raise ZeroDivisionError
    torch.testing.assert_close(net(images), expected, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def test_gradients_pass_through_the_others(net, images):
    with gpe.ablated(net, "0", [0]):
        net(images).sum().backward()
    of_channel = net[0].weight.grad.flatten(1).abs().sum(1)
    assert of_channel[0] == 0
    assert of_channel[1:].sum() > 0


def test_none_removes_nothing(net, images):
    with gpe.ablated(net, "0", []):
        found = net(images)
    torch.testing.assert_close(found, net(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layer", "channels", "message"),
    (
        ("9", [0], "layer: expected one of the network's, got '9'; nearest: 0, 1, 2"),
        ("0", [6], "channels: expected .* 0 to 5, got 6"),
        ("0", [-1], "channels: expected .* 0 to 5, got -1"),
        ("0", [2, 2], "channels: expected .* 2"),
    ),
)
def test_errors(net, images, layer, channels, message):
    with pytest.raises(InputError, match=message), gpe.ablated(net, layer, channels):
        net(images)


def test_a_layer_without_channels_is_refused():
    net = nn.LSTM(3, 4)
    net = nn.Sequential(net)
    with (
        pytest.raises(InputError, match="expected one tensor from '0', got 3 in a tuple"),
        gpe.ablated(net, "0", [0]),
    ):
        net(torch.rand(5, 2, 3))

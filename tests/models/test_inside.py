"""A layer is found by its name, or the nearest names are told."""

import pytest
from torch import nn

from gpe.errors import InputError
from gpe.models.inside import find_layer


@pytest.fixture
def net():
    return nn.ModuleDict({"backbone": nn.ModuleDict({"layer3": nn.ReLU(), "layer4": nn.Tanh()})})


def test_it_is_the_module_itself(net):
    assert find_layer(net, "backbone.layer4") is net["backbone"]["layer4"]


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("backbone.layer5", r"got 'backbone.layer5'; nearest: backbone.layer[34], backbone"),
        ("layer4", r"got 'layer4'; nearest: backbone.layer4"),
        ("zzz", r"got 'zzz'; nearest: backbone$"),
        ("", r"got ''; nearest: backbone$"),
    ),
)
def test_others_are_named(net, name, message):
    with pytest.raises(InputError, match=f"layer: expected one of the network's, {message}"):
        find_layer(net, name)

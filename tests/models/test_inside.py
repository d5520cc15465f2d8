"""A layer is found by its name, its channels where they lie, and nothing is changed by looking."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from gpe.errors import InputError
from gpe.models.inside import digest, find_layer, layout_of, pooled_at
from gpe.models.running import eager


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


# Layout


class Turned(nn.Module):
    """Features of a convolution, turned around; ``sizes`` are the sides that it takes."""

    def __init__(self, turn, channels=6, sizes=None):
        super().__init__()
        self.convolution, self.sizes = nn.Conv2d(3, channels, 3, padding=1), sizes
        self.turn, self.layer = turn, nn.Identity()

    def forward(self, images):
        if self.sizes and not {*images.shape[2:]} <= {*self.sizes}:
            raise AssertionError(f"sides {images.shape[2:]}\n(of two lines)")
        return self.layer(self.turn(self.convolution(images)))


def nhwc(maps):
    return maps.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("turn", "dim"),
    [
        (torch.clone, 1),
        (nhwc, 3),
        (lambda maps: nhwc(maps).contiguous(), 3),
        (lambda maps: nhwc(maps).flatten(1, 2), 2),
        (lambda maps: maps.flatten(2), 1),
        (lambda maps: maps.mean((2, 3)), 1),
    ],
)
@pytest.mark.parametrize("size", [(6, 6), (6, 12), (8, 8)])  # as many pixels as channels, too
def test_the_channels_are_found_where_other_sizes_tell(turn, dim, size):
    net, images = Turned(turn), torch.rand(2, 3, *size)
    layout = layout_of(net, "layer", images)
    assert (layout.channels, layout.dims) == (6, (dim,))
    expected = net.convolution(images).mean((2, 3))
    torch.testing.assert_close(pooled_at(net, ["layer"], images)["layer"], expected)


def test_what_stays_open_is_refused_and_may_be_given():
    net, images = Turned(nhwc, sizes=(6,)), torch.rand(2, 3, 6, 6)
    with pytest.raises(InputError, match=r"channel_dim: expected .* of 'layer', .* \[1, 6, 6, 6\]"):
        layout_of(net, "layer", images)
    for dim in (3, -1):
        assert layout_of(net, "layer", images, channel_dim=dim).dims == (3,)
    for dim in (0, 4, -4):
        with pytest.raises(InputError, match=f"channel_dim: expected .* got {dim}"):
            layout_of(net, "layer", images, channel_dim=dim)
    # One side alone has the image's proportions.
    assert layout_of(Turned(nhwc, 8, sizes=(6,)), "layer", images).dims == (3,)


class Pyramid(nn.Module):
    def __init__(self, kind=dict, channels=(4, 4)):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, channels[0], 3), nn.Conv2d(3, channels[1], 3, 2)
        self.kind = kind

    def forward(self, images):
        maps = {"a": self.fine(images), "b": self.coarse(images)}
        return maps if self.kind is dict else self.kind(maps.values())


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_maps_of_a_pyramid_are_pooled_level_by_level(kind):
    net, images = nn.Sequential(Pyramid(kind)), torch.rand(2, 3, 9, 9)
    levels = [net[0].fine(images).mean((2, 3)), net[0].coarse(images).mean((2, 3))]
    expected = torch.stack(levels).mean(0)
    torch.testing.assert_close(pooled_at(net, ["0"], images)["0"], expected)
    masked = layout_of(net, "0", images).mask(net(images), [1, 3])
    for maps in masked.values() if kind is dict else masked:
        assert (maps.abs().sum((0, 2, 3)) == 0).tolist() == [False, True, False, True]
    assert type(masked) is kind


def test_maps_of_different_channels_are_refused():
    with pytest.raises(InputError, match="expected maps with the same channels from '0'"):
        layout_of(nn.Sequential(Pyramid(channels=(4, 5))), "0", torch.rand(1, 3, 9, 9))


def test_masking_goes_along_the_channels():
    net, images = Turned(nhwc), torch.rand(2, 3, 6, 12)
    output = net(images)
    masked = layout_of(net, "layer", images).mask(output, [0, 5])
    expected = output.clone()
    expected[..., [0, 5]] = 0
    assert torch.equal(masked, expected) and not torch.equal(output, expected)


# Calls


def test_a_layer_that_runs_several_times_is_refused_with_its_calls():
    with pytest.raises(
        InputError,
        match=r"runs once, got 'layer3.0.relu', which runs 3 times: after 'layer3.0.bn1', "
        "'layer3.0.bn2', 'layer3.0.downsample.1'",
    ):
        layout_of(resnet50(), "layer3.0.relu", torch.rand(1, 3, 64, 64))


def test_what_a_network_raises_becomes_one_line():
    net, images = Turned(nhwc, sizes=(6,)), torch.rand(2, 3, 6, 7)
    message = r"float32 images \[1, 3, 6, 7\], got Turned: AssertionError: sides"
    with pytest.raises(InputError, match=message) as told:
        layout_of(net, "layer", images)
    assert "\n" not in str(told.value)


class Counts(nn.Module):
    """Keeps what it saw in attributes, a buffer and two generators."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.generator, self.sizes = torch.Generator().manual_seed(0), ()
        self.body, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        self.seen += 1
        self.sizes = (*self.sizes, images.shape[-1])
        self.cache = torch.rand(1) + torch.rand(1, generator=self.generator)
        return self.norm(self.body(images)).permute(0, 2, 3, 1)


def test_a_network_is_left_as_it_was():
    net = nn.Sequential(Counts()).train()
    torch.manual_seed(3)
    random = torch.rand(1)
    torch.manual_seed(3)
    layout_of(net, "0", torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(1), random)
    assert net[0].seen == 0 and net[0].sizes == () and not hasattr(net[0], "cache")
    assert net.training and net[0].norm.training and net[0].norm.num_batches_tracked == 0
    expected = torch.rand(1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(1, generator=net[0].generator), expected)
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in net.modules()]
    assert not any(hooks)


# Compiled, traced, scripted


def compiled(net):
    return torch.compile(net, backend="eager")


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


def compiled_within(net):
    net.layer1 = torch.compile(net.layer1, backend="eager")
    return net


@pytest.mark.parametrize("compile", [compiled, compiled_in_place, compiled_within])
@pytest.mark.parametrize("layer", ["layer1", "layer1.0.conv2", "layer3"])
def test_what_ran_compiled_before_is_looked_into_as_well(compile, layer):
    torch.manual_seed(0)
    net, images = resnet18().eval(), torch.rand(2, 3, 64, 64)
    expected, name = pooled_at(net, [layer], images)[layer], digest(net)
    net = compile(net)
    with torch.no_grad():
        net(images)
    assert torch.equal(pooled_at(net, [layer], images)[layer], expected)
    assert digest(net) == name


def test_hooks_are_called_in_a_compiled_function_around_the_network():
    net, images, called = nn.Sequential(nn.ReLU()), torch.rand(1, 3), []
    run = torch.compile(lambda images: net(images), backend="eager")
    run(images)
    with eager(net) as inner, torch.no_grad():
        handle = inner[0].register_forward_hook(lambda *call: called.append(call))
        run(images)
        handle.remove()
    assert called


@pytest.mark.parametrize(
    "freeze", [torch.jit.script, lambda n: torch.jit.trace(n, torch.rand(1, 3))]
)
@pytest.mark.filterwarnings("ignore")
def test_traced_and_scripted_networks_are_refused(freeze):
    net = freeze(nn.Sequential(nn.ReLU()).eval())
    for whole, layer in ((net, "0"), (nn.Sequential(net), "0.0")):
        with pytest.raises(InputError, match=r"model: expected .* Python code, .* traced or"):
            layout_of(whole, layer, torch.rand(1, 3, 2, 2))

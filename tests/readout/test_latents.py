"""Pooled latents of several layers from one pass, against one plain pass each."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from gpe.data import ImageSet
from gpe.errors import InputError
from gpe.models.inside import layouts_of, maps_at, pooled_at
from gpe.ops.place_on_grid import place_on_grid
from gpe.readout import grid_latents

LAYERS = ["layer3", "conv1", "bn1", "layer1.0.conv2", "avgpool", "fc"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return resnet18().eval()


def patches(count=5, size=16):
    torch.manual_seed(1)
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count), tuple("abcde"[:count]), (0.4,) * 3, (0.2,) * 3)


@torch.no_grad()
def test_each_layer_is_pooled_as_it_left_its_module(net):
    """Also those that what comes later writes over: bn1 before a ReLU in place."""
    images = torch.randn(2, 3, 64, 64)
    found = pooled_at(net, LAYERS, images)
    assert list(found) == LAYERS
    for layer in LAYERS:
        features = maps_at(net, layer, images)[0]
        expected = features.mean((2, 3)) if features.dim() == 4 else features
        torch.testing.assert_close(found[layer], expected, msg=layer)


@torch.no_grad()
def test_one_pass_serves_all_layers_and_ends_at_the_last():
    runs = []

    class Counted(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            runs.append(self.name)
            return x

    net = nn.Sequential(*map(Counted, "abcd"))
    images, layers = torch.zeros(1, 3, 4, 4), ["2", "0"]
    layouts = layouts_of(net, layers, images)
    runs.clear()
    pooled_at(net, layers, images, layouts)
    assert runs == ["a", "b", "c"]


@torch.no_grad()
def test_latents_are_those_of_each_canvas_by_itself(net):
    images, order = patches(), torch.tensor([4, 0, 0, 2, 1])
    cells = torch.tensor([8, 0, 3, 4, 1])
    found = grid_latents(
        net, images, cells, 3, layers=["conv1", "layer2"], order=order, batch_size=2
    )
    for row, (image, cell) in enumerate(zip(order, cells, strict=True)):
        patch = images.images[image][None]
        canvas = place_on_grid(patch, cell[None], 3, mean=images.mean, std=images.std)
        for layer, latents in found.items():
            expected = maps_at(net, layer, canvas)[0].mean((2, 3))[0]
            torch.testing.assert_close(latents[row], expected, rtol=1e-4, atol=1e-5)


def test_the_network_is_left_in_its_mode_and_unhooked(net):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    grid_latents(net, patches(2), torch.tensor([0, 1]), 2, layers=["layer1"])
    assert net.training and not net.layer1._forward_hooks
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.eval()


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x):
        return self.inner(x.permute(0, 2, 3, 1))


@torch.no_grad()
def test_channels_that_come_last_are_found_there():
    """Maps of square images, as Swin has them, and tokens, as a ViT has them."""
    images = torch.rand(2, 3, 8, 8)
    net = ChannelsLast()
    torch.testing.assert_close(pooled_at(net, ["inner"], images)["inner"], images.mean((2, 3)))
    tokens = nn.Sequential(ChannelsLast(), nn.Flatten(1, 2))
    torch.testing.assert_close(pooled_at(tokens, ["1"], images)["1"], images.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "layers", "complaint"),
    [
        (None, ["layer9"], "layer: expected one of the network's, got 'layer9'; nearest: layer"),
        (None, [], "layers: expected one or more, got none"),
        (
            nn.Sequential(nn.Flatten(0)),
            ["0"],
            r"expected .0. to yield .* \[1,H,W,C\], \[1,T",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(5, 2)),
            ["1"],
            "image_size: expected cells that make canvases of a size that the network takes, got "
            "16 pixels, 2×2 of which make 32×32: RuntimeError: .*mat1 and mat2",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(net, model, layers, complaint):
    with pytest.raises(InputError, match=complaint):
        grid_latents(model or net, patches(1), torch.tensor([0]), 2, layers=layers)


def test_cells_go_with_images(net):
    with pytest.raises(InputError, match=r"cells: expected int64 \[5\], one for each image"):
        grid_latents(net, patches(), torch.tensor([0]), 2, layers=["layer1"])

"""Kernel flips: which kernels are mirrored, and what a network with mirrored kernels sees."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import gpe
from gpe.ranking.kernel_flip import mirrored_weights
from tests.ranking.networks import images, stacked


def test_every_convolution_up_to_the_layer_and_none_after():
    model = stacked()
    mirrored = mirrored_weights(model, "features", images(1), {})
    names = ("first", "grouped", "depthwise", "transposed")
    assert set(mirrored) == {f"{name}.weight" for name in names}
    for name, weight in mirrored.items():
        assert torch.equal(weight, model.get_parameter(name).flip(-1))
    assert set(mirrored_weights(model, "grouped", images(1), {})) == {
        "first.weight",
        "grouped.weight",
    }
    assert "head.weight" in mirrored_weights(model, "head", images(1), {})
    assert "along.weight" not in mirrored_weights(model, "head", images(1), {})  # has no width


def test_execution_decides_and_not_the_order_of_the_names():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.unused = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

        def forward(self, batch):
            return self.head(self.body(batch))

    mirrored = mirrored_weights(Backwards().double(), "body", images(1), {})
    assert set(mirrored) == {"body.0.weight"}


def test_subclasses_and_shared_kernels():
    class Standardised(nn.Conv2d):
        def forward(self, batch):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(batch, weight, self.bias, padding=1)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Standardised(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1))
    model[2].weight = model[1].weight
    mirrored = mirrored_weights(model.double(), "2", images(1), {})
    assert set(mirrored) == {"0.weight", "1.weight"}
    assert torch.equal(mirrored["1.weight"], model[1].weight.flip(-1))
    with torch.no_grad():
        seen = functional_call(model, mirrored, images(2).flip(-1))
        torch.testing.assert_close(seen, model(images(2)).flip(-1))


@pytest.mark.parametrize("layer", ("first", "grouped", "depthwise", "features", "head"))
def test_mirrored_kernels_see_the_mirror_as_the_network_sees_the_image(layer):
    """With stride 1 to the last convolution: all of them were mirrored, in the right axis."""
    model = stacked().eval()
    mirrored = mirrored_weights(model, layer, images(1), {})
    if layer == "head":  # the pooled branch beside it has no width to mirror
        assert len(mirrored) == 5
    with torch.no_grad():
        outputs = {}
        for name, weights in (("own", {}), ("mirrored", mirrored)):
            hook = model.get_submodule(layer).register_forward_hook(
                lambda module, arguments, output, name=name: outputs.__setitem__(name, output)
            )
            functional_call(model, weights, images(2).flip(-1) if weights else images(2))
            hook.remove()
    torch.testing.assert_close(outputs["mirrored"], outputs["own"].flip(-1))


@pytest.mark.parametrize("layer", ("features", "head"))
def test_with_stride_1_all_three_rankings_are_one(layer):
    """z'(mirror) = z(image): Kernel-Flip* and ** measure the same |Δ|."""
    modes = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    rankings = gpe.rank_channels(stacked(), images().split(5), layer=layer, modes=modes)
    for mode in modes[1:]:
        torch.testing.assert_close(
            rankings[mode].scores, rankings["overall"].scores, rtol=1e-9, atol=1e-12
        )


def test_with_stride_2_and_an_even_width_they_are_not():
    """The mirrored kernels' grid lies a pixel off."""
    modes = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    rankings = gpe.rank_channels(stacked(stride=2), [images()], layer="features", modes=modes)
    for mode in modes[1:]:
        apart = (rankings[mode].scores - rankings["overall"].scores).abs()
        assert apart.max() > 0.01 * rankings["overall"].scores.max()
    odd = gpe.rank_channels(stacked(stride=2), [images(width=17)], layer="features", modes=modes)
    torch.testing.assert_close(odd[modes[1]].scores, odd["overall"].scores)


def test_rankings_by_the_formulas():
    """Image by image, with the kernels mirrored by hand in a network of its own."""
    model, flipped = stacked(stride=2).eval(), stacked(stride=2).eval()
    for module in (flipped.first, flipped.grouped, flipped.depthwise, flipped.transposed):
        module.weight.data = module.weight.data.flip(-1)

    def latent(network, image):
        maps = network.norm(network.depthwise(network.grouped(network.first(image).relu()).relu()))
        return network.transposed(maps).relu().mean((2, 3))[0]

    with torch.no_grad():
        star = [
            latent(flipped, image) - latent(flipped, image.flip(-1)) for image in images().split(1)
        ]
        pair = [latent(model, image) - latent(flipped, image) for image in images().split(1)]
    modes = ("kernel_flip_mirror", "kernel_flip_pair")
    rankings = gpe.rank_channels(model, images().split(5), layer="features", modes=modes)
    for mode, deltas in zip(modes, (star, pair), strict=True):
        torch.testing.assert_close(rankings[mode].scores, torch.stack(deltas).abs().mean(0))


def test_networks_without_kernels_to_mirror():
    model = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3)).double()
    with pytest.raises(gpe.InputError, match=r"expected convolutions before or in it.* got '0'"):
        gpe.rank_channels(model, [images()], layer="0", modes=("kernel_flip_pair",))


def test_computed_kernels_are_refused_by_name():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))).double()
    with pytest.raises(gpe.InputError, match="got '0', which computes its weight"):
        gpe.rank_channels(model, [images()], layer="0", modes=("kernel_flip_mirror",))

"""What is removed are the layer's channels, wherever they lie, and never nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gpe
from gpe.ablation import classifier_sweep, random_orders
from gpe.ablation.plan import make_plan
from gpe.errors import InputError

WIDTH, CLASSES = 8, 3


class Net(nn.Module):
    """A layer of some layout, and a head that weighs its channels and places unlike."""

    def __init__(self, layout: str):
        super().__init__()
        self.layout, self.stem = layout, nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.layer, self.head = nn.Identity(), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)  # [N,C,H,W]
        if self.layout == "NHWC":
            return self.head(self.layer(maps.permute(0, 2, 3, 1)).tanh().mean((1, 2)))
        if self.layout == "NTC":
            return self.head(self.layer(maps.flatten(2).mT).tanh().mean(1))
        if self.layout == "NC":
            return self.head(self.layer(maps.mean((2, 3))).tanh())
        if self.layout == "maps":
            both = self.layer({"fine": maps, "coarse": F.avg_pool2d(maps, 2)})
            return self.head(sum(part.tanh().mean((2, 3)) for part in both.values()))
        return self.head(self.layer(maps).tanh().mean((2, 3)))

    def by_hand(self, images: Tensor, channels: list[int]) -> Tensor:
        """Channels of the stem are those of the layer: zero weights and biases remove them."""
        weight, bias = self.stem.weight.clone(), self.stem.bias.clone()
        weight[channels], bias[channels] = 0, 0
        tensors = {"stem.weight": weight, "stem.bias": bias}
        return torch.func.functional_call(self, tensors, (images,))


LAYOUTS = ("NCHW", "NHWC", "NTC", "NC", "maps")


def made(layout: str, side: tuple[int, int] = (16, 24)) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(layout).double().eval(), torch.rand(4, 3, *side, dtype=torch.float64)


@pytest.mark.parametrize("side", ((16, 24), (16, 16)))  # of the latter, 8 rows and 8 channels
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_ablated_in_every_layout(layout, side):
    net, images = made(layout, side)
    for channels in ([5], [0, 7], list(range(WIDTH)), []):
        expected = net.by_hand(images, channels)
        assert torch.equal(expected, net(images)) == (not channels)
        with gpe.ablated(net, "layer", channels):
            found = net(images)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ("auto", "general"))
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_the_sweep_in_every_layout(layout, engine):
    net, images = made(layout)
    order, labels = list(range(WIDTH))[::-1], torch.tensor([0, 1, 2, 0])
    result = gpe.ablation_sweep(
        net,
        [(images, labels)],
        {"a": order},
        layer="layer",
        counts=[0, 1, 3, 8],
        ranges=[(2, 5)],
        regions=["full"],
        num_classes=CLASSES,
        engine=engine,
    )
    for row in result.rows:
        answers = net.by_hand(images, order[row["start"] : row["stop"]]).argmax(1)
        pairs = (CLASSES * labels + answers).bincount(minlength=CLASSES**2)
        assert torch.equal(row["confusion"], pairs.view(CLASSES, CLASSES))
    assert result.engine.measured <= result.engine.tolerance
    if layout == "maps":
        assert result.engine.name == "rerun"
        assert "not general" in result.engine.why


@torch.no_grad()
def test_a_mean_over_channels_is_not_taken_for_one_over_places():
    """[N,8,8,W] averaged over its channels keeps the first two sizes: 8 rows are no channels."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv1d(8, CLASSES, 1)

        def forward(self, images):
            return self.head(self.layer(images).mean(1)).mean(2)

    torch.manual_seed(0)
    net, images = Rows().eval(), torch.rand(2, 3, 16, 24)
    options = {"layer": "layer", "regions": ["full"], "num_classes": CLASSES, "counts": [0, 3]}
    batch = [(images, torch.tensor([0, 1]))]
    with pytest.raises(InputError, match="mean, which reads the layer, is not one of the linear"):
        gpe.ablation_sweep(net, batch, random_orders(8, 1), engine="incremental", **options)
    assert gpe.ablation_sweep(net, batch, random_orders(8, 1), **options).engine.name == "general"


def compiled_whole(net):
    return torch.compile(net, backend="eager"), "layer"


def compiled_in_place(net):
    net.compile(backend="eager")
    return net, "layer"


def compiled_part(net):
    net.layer.compile(backend="eager")
    return net, "layer"


def compiled_within(net):
    return nn.Sequential(torch.compile(net, backend="eager")), "0.layer"


@pytest.mark.parametrize("inference", (False, True))
@pytest.mark.parametrize(
    "compiled", (compiled_whole, compiled_in_place, compiled_part, compiled_within)
)
def test_compiled_networks_that_ran_lose_the_channels_too(compiled, inference):
    net, images = made("NCHW")
    with torch.no_grad():
        expected = net.by_hand(images, [0, 1])
    quick, layer = compiled(net)
    with torch.inference_mode() if inference else torch.no_grad():
        before = quick(images)
        with gpe.ablated(quick, layer, [0, 1]):
            torch.testing.assert_close(quick(images), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(quick(images), before, rtol=0, atol=0)
    labels = before.argmax(1)
    result = gpe.ablation_sweep(
        quick,
        [(images, labels)],
        {"a": range(WIDTH)},
        layer=layer,
        counts=[0, 2, 8],
        regions=["full"],
        num_classes=CLASSES,
    )
    for row in result.rows:
        with torch.no_grad():
            answers = made("NCHW")[0].by_hand(images, list(range(row["stop"]))).argmax(1)
        assert row["confusion"].trace() == (answers == labels).sum()


@pytest.mark.parametrize("make", (torch.jit.script, lambda net: torch.jit.trace(net, IMAGES)))
@pytest.mark.filterwarnings("ignore")
def test_traced_and_scripted_networks_are_refused(make):
    net = make(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval())
    with (
        pytest.raises(InputError, match="model: expected a network of Python code"),
        gpe.ablated(net, "0", [0]),
    ):
        net(IMAGES)


IMAGES = torch.rand(1, 3, 8, 8)


class Again(nn.Module):
    """Runs a layer twice, another never, and drops what a third one yields."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.unused, self.dropped = nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)

    def forward(self, images):
        maps = self.relu(self.relu(self.conv(images)) - 0.1)
        self.dropped(maps)
        return maps.mean((2, 3))


@pytest.mark.parametrize(
    ("layer", "message"),
    (
        (
            "relu",
            "layer: expected one that runs once, got 'relu', which runs 2 times: after 'conv'",
        ),
        ("unused", "layer: expected one that runs, got 'unused', which does not"),
        ("dropped", "got 'dropped', which works in place and whose result is dropped"),
    ),
)
def test_layers_whose_removal_would_mean_nothing(layer, message):
    net = Again().eval()
    with pytest.raises(InputError, match=message), gpe.ablated(net, layer, [0]):
        net(IMAGES)
    with pytest.raises(InputError, match=message):
        gpe.ablation_sweep(
            net,
            [(IMAGES, torch.tensor([0]))],
            {"a": range(4)},
            layer=layer,
            counts=[0, 2],
            regions=["full"],
            num_classes=4,
        )
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_one_pass_skips():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.deep = nn.Conv2d(3, 4, 1), True

        def forward(self, images):
            return (self.layer(images) if self.deep else images).mean((2, 3))

    net = Sometimes().eval()
    with gpe.ablated(net, "layer", [0]):
        assert (net(IMAGES)[:, 0] == 0).all()
        net.deep = False
        with pytest.raises(InputError, match="got 'layer', which does not"):
            net(IMAGES)


def test_what_a_network_raises_is_one_line():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 4)).eval()
    batch = [(torch.rand(1, 3, 9, 9), torch.tensor([0]))]
    options = {"layer": "0", "counts": [0, 2], "regions": ["full"], "num_classes": 4}
    with pytest.raises(InputError, match=r"model: expected a network that takes .*9, 9") as caught:
        gpe.ablation_sweep(net, batch, {"a": range(4)}, **options)
    assert "\n" not in str(caught.value)


KINDS = (
    lambda channels: np.array(channels),
    lambda channels: np.array(channels[::-1])[::-1],  # of negative stride, as argsort()[::-1]
    lambda channels: np.array(channels, np.uint8),
    lambda channels: [np.int32(channel) for channel in channels],
    lambda channels: torch.tensor(channels, dtype=torch.int32),
    lambda channels: tuple(channels),
)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_integers_of_any_kind(kind):
    net, images = made("NCHW")
    expected = net.by_hand(images, [5, 2, 7])
    with gpe.ablated(net, "layer", kind([5, 2, 7])):
        torch.testing.assert_close(net(images), expected, rtol=1e-12, atol=1e-12)
    order = [5, 4, 7, 0, 1, 2, 3, 6]
    plan = make_plan({"a": kind(order)}, kind([0, 3]), [kind([2, 5])], WIDTH)
    assert plan.orders["a"].tolist() == order
    assert [point[1:] for point in plan.points] == [("top", 0, 0), ("top", 0, 3), ("range", 2, 5)]
    labels = torch.zeros(4, dtype=torch.int64)
    found = gpe.ablation_sweep(
        net,
        [(images, labels)],
        {"a": kind(order)},
        layer="layer",
        counts=np.int64(4),
        regions=["full"],
        num_classes=np.int64(CLASSES),
    )
    assert [row["stop"] for row in found.rows] == [0, 4, 8]
    head = nn.Linear(WIDTH, CLASSES)
    swept = classifier_sweep(torch.rand(4, WIDTH), labels, head, {"a": kind(order)}, counts=[3])
    assert swept.orders["a"].tolist() == order


@pytest.mark.parametrize("channels", ([1.5], [True, False, None], "01", 3, np.array([0.5]), None))
def test_what_are_no_channels(channels):
    net, _ = made("NCHW")
    with pytest.raises(InputError, match="channels: expected"), gpe.ablated(net, "layer", channels):
        pass


def test_a_region_without_labelled_pixels_has_no_number():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, CLASSES, 1)).eval()
    labels = torch.randint(CLASSES, (1, 8, 8))
    labels[:, :, :4] = 255
    rows = gpe.ablation_sweep(
        net,
        [(IMAGES, labels)],
        random_orders(4, 2),
        layer="1",
        counts=[0, 2],
        regions=["left", "right"],
        num_classes=CLASSES,
    ).rows
    of = {region: [row["miou"] for row in rows if row["region"] == region] for region in OF}
    assert np.isnan(of["left"]).all()
    assert not np.isnan(of["right"]).any()
    curves = gpe.ablation.bands(rows)
    for curve in curves:
        assert np.isnan(curve["miou"]) == (curve["region"] == "left")


OF = ("left", "right")

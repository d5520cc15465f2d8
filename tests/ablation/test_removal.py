"""What is said to be removed is removed, whatever the layout, or refused; never neither."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gpe
from gpe.ablation import bands, classifier_sweep, random_orders
from gpe.ablation.choice import Engines
from gpe.ablation.engines import Rerun
from gpe.ablation.plan import make_plan
from gpe.errors import InputError
from gpe.models.inside import layout_of
from tests.ablation.networks import CLASSES, SIZE, Twice, batches, network

WHOLE = {"regions": ["full"], "num_classes": CLASSES}


def labels_of(images):
    return torch.arange(len(images)) % CLASSES


def sweep(net, images, width, layer="layer", labels=None, **options):
    data = [(images, labels_of(images) if labels is None else labels)]
    options = {"counts": [0, 1, width // 2, width], "ranges": [(1, width // 2)]} | options
    return gpe.ablation_sweep(net, data, random_orders(width, 1), layer=layer, **WHOLE, **options)


def answers(net, images, zero, **options):
    """The confusions of :func:`sweep`, from a function that zeroes channels in a plain pass."""
    order = random_orders(options["width"], 1)["random/0"]
    width, found = len(order), []
    for start, stop in ((0, 0), (0, 1), (0, width // 2), (0, width), (1, width // 2)):
        with torch.no_grad():
            predicted = zero(order[start:stop]).argmax(1)
        pairs = CLASSES * labels_of(images) + predicted
        found.append(pairs.bincount(minlength=CLASSES**2).view(CLASSES, CLASSES))
    return torch.stack(found)


class Turned(nn.Module):
    """A layer whose channels come last, as tokens, pooled, or in a dict of levels."""

    def __init__(self, turn, back, width=6):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.layer = nn.Module()
        self.layer.forward = turn
        self.back, self.head = back, nn.Linear(width, CLASSES)

    def forward(self, images):
        return self.head(F.relu(self.back(self.layer(self.stem(images)))))


LAYOUTS = {
    "NCHW": (lambda x: x * 1, lambda y: y.mean((2, 3)), lambda y, c: y.index_fill(1, c, 0)),
    "NHWC": (
        lambda x: x.permute(0, 2, 3, 1).contiguous(),
        lambda y: y.mean((1, 2)),
        lambda y, c: y.index_fill(3, c, 0),
    ),
    "tokens": (
        lambda x: x.flatten(2).mT.contiguous(),
        lambda y: y.mean(1),
        lambda y, c: y.index_fill(2, c, 0),
    ),
    "tokens last": (
        lambda x: x.flatten(2),
        lambda y: y.mean(2),
        lambda y, c: y.index_fill(1, c, 0),
    ),
    "pooled": (lambda x: x.mean((2, 3)), lambda y: y * 1, lambda y, c: y.index_fill(1, c, 0)),
    "levels": (
        lambda x: {"fine": x, "coarse": F.avg_pool2d(x, 2)},
        lambda y: y["fine"].mean((2, 3)) + y["coarse"].mean((2, 3)),
        lambda y, c: {name: level.index_fill(1, c, 0) for name, level in y.items()},
    ),
    "list": (
        lambda x: [x, x[..., ::2] * 2],
        lambda y: y[0].mean((2, 3)) + y[1].mean((2, 3)),
        lambda y, c: [level.index_fill(1, c, 0) for level in y],
    ),
}


@pytest.mark.parametrize("size", ((16, 16), (12, 24)))
@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_are_zeroed_where_they_lie(name, size):
    torch.manual_seed(0)
    turn, back, zero = LAYOUTS[name]
    net = Turned(turn, back).eval()
    images = torch.randn(10, 3, *size)

    def by_hand(channels):
        return net.head(F.relu(net.back(zero(net.layer(net.stem(images)), channels))))

    for channels in ([], [2, 5], range(6)):
        with gpe.ablated(net, "layer", channels), torch.no_grad():
            found = net(images)
        expected = by_hand(torch.tensor([*channels], dtype=torch.int64))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)

    result = sweep(net, images, 6)
    torch.testing.assert_close(result.confusion[:, 0], answers(net, images, by_hand, width=6))
    assert result.engine.measured <= result.engine.tolerance <= 1e-5
    if name in ("levels", "list"):
        assert result.engine.name == "rerun"
        assert "the layer yields more than one tensor" in result.engine.why
    if name in ("NHWC", "tokens"):
        assert "the channels lie in dimension" in result.engine.why


def test_the_caller_may_know_better():
    net = Turned(lambda x: x.mT * 1, lambda y: y.mean((2, 3))).eval()
    images = torch.randn(2, 3, 16, 24)
    with gpe.ablated(net, "layer", [7], channel_dim=-1), torch.no_grad():
        found = net(images)
    features = net.stem(images).mT.clone()
    features[..., 7] = 0
    torch.testing.assert_close(found, net.head(F.relu(features.mean((2, 3)))))
    assert sweep(net, images, 8, channel_dim=3).engine.name == "general"
    with (
        pytest.raises(InputError, match="channel_dim: expected one of 1 to 3"),
        gpe.ablated(net, "layer", [7], channel_dim=4),
    ):
        net(images)


def test_layers_of_other_than_images():
    """Videos, sequences and networks that take more than images: by the layer's own kind."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Tanh()

        def forward(self, images, gate):
            return self.act(self.norm(self.conv(images).movedim(1, 3))) * gate

    video = nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU())
    with gpe.ablated(video, "0", [1]), torch.no_grad():
        assert (video(torch.randn(2, 3, 4, 5, 6)).flatten(2).abs().sum((0, 2)) == 0)[1]
    sound = nn.Sequential(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), nn.Conv1d(4, 2, 1))
    taken = torch.randn(2, 3, 9)
    with gpe.ablated(sound, "0", [1], channel_dim=1), torch.no_grad():
        expected = sound[1](sound[0](taken).index_fill(1, torch.tensor([1]), 0))
        torch.testing.assert_close(sound(taken), expected)

    net, images = Gated(), torch.randn(2, 3, 5, 6)
    with gpe.ablated(net, "norm", [1]):
        assert not net(images, 2.0)[..., 1].any()
    with gpe.ablated(net, "conv", [1]), torch.no_grad():
        features = net.conv(images)
        assert not features[:, 1].any() and features[:, 0].any()
        net(images, 2.0)
    with (
        pytest.raises(InputError, match=r"channel_dim: expected the dimension .* 'act'"),
        gpe.ablated(net, "act", [1]),
    ):
        net(images, 2.0)
    with gpe.ablated(net, "act", [1], channel_dim=3):
        assert not net(images, 2.0)[..., 1].any()


@pytest.mark.parametrize("when", ("before", "in inference mode", "within"))
@pytest.mark.parametrize("how", ("wrapped", "in place", "in part"))
def test_compiled_networks_lose_the_same(how, when):
    torch.manual_seed(0)
    net, images = network("deeplab18"), batches(1)[0][0]
    with gpe.ablated(net, "backbone.layer4", range(64)), torch.no_grad():
        expected = net(images)
    counts = {"counts": [0, 32, 128], "ranges": (), "labels": batches(1)[0][1]}
    swept = sweep(net, images, 128, "backbone.layer4", **counts)
    compiled = net
    if how == "wrapped":
        compiled = torch.compile(net, backend="eager")
    elif how == "in place":
        net.compile(backend="eager")
    else:
        net.backbone = torch.compile(net.backbone, backend="eager")
    with torch.inference_mode(when == "in inference mode"), torch.no_grad():
        if when != "within":
            compiled(images)
    for layer in ("backbone.layer4", *(["_orig_mod.backbone.layer4"] if how == "wrapped" else [])):
        inference = torch.inference_mode(when == "in inference mode")
        with inference, torch.no_grad(), gpe.ablated(compiled, layer, range(64)) as same:
            assert same is compiled
            found = compiled(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        again = sweep(compiled, images, 128, layer, **counts)
        torch.testing.assert_close(again.confusion, swept.confusion, rtol=0, atol=0)
        assert again.layer == "backbone.layer4"
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", (torch.jit.script, lambda net: torch.jit.trace(net, _image())))
def test_traced_and_scripted_networks_are_refused(make):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    for model, layer in ((make(net), "0"), (nn.Sequential(make(net)), "0")):
        with (
            pytest.raises(InputError, match="traced or scripted"),
            gpe.ablated(model, layer, [0]),
        ):
            pass
        with pytest.raises(InputError, match="traced or scripted"):
            sweep(model, _image(), 4, layer)


def test_exported_networks_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    exported = torch.export.export(net, (_image(),)).module()
    for model, layer in ((exported, "0"), (nn.Sequential(exported), "0.0")):
        with pytest.raises(InputError, match="is exported, which cannot be looked into"):
            gpe.rank_channels(model, [_image()], layer=layer)


def _image():
    return torch.randn(1, 3, 8, 8)


def test_layers_that_run_several_times_are_refused_with_their_calls():
    from torchvision.models import resnet50

    net, images = resnet50().eval(), torch.randn(1, 3, 64, 64)
    message = r"'layer3.0.relu', which runs 3 times: after 'layer3.0.bn1', 'layer3.0.bn2',"
    with pytest.raises(InputError, match=message), gpe.ablated(net, "layer3.0.relu", [0]):
        net(images)
    with pytest.raises(InputError, match=message):
        sweep(net, images, 256, "layer3.0.relu")
    with pytest.raises(InputError, match="'encoder', which runs 2 times"):
        sweep(Twice().eval(), torch.randn(1, 3, *SIZE), 24, "encoder")

    class Later(nn.Module):
        """Calls it again only where it is told to."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, images, again=False):
            return self.conv(self.conv(images)) if again else self.conv(images)

    net = Later()
    with gpe.ablated(net, "conv", [0]):
        net(images)
        net(images)
        net.conv(images)
        with pytest.raises(InputError, match="'conv', which runs again in the same pass"):
            net(images, again=True)
        assert not net(images)[:, 0].any()


def test_layers_that_do_not_run_are_refused():
    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.direct = (nn.Conv2d(3, 4, 1) for _ in range(3))

        def forward(self, images, use=True):
            return self.one(images) if use else self.other(images) + self.direct.forward(images)

    net, images = Switched(), torch.randn(1, 3, 8, 8)
    for layer in ("other", "direct"):
        with (
            pytest.raises(InputError, match=f"expected one that runs, got '{layer}', which"),
            gpe.ablated(net, layer, [0]),
        ):
            net(images)
    with gpe.ablated(net, "one", [0]):
        net(images)
        with pytest.raises(InputError, match="expected one that runs, got 'one', which does not"):
            net(images, use=False)


class Dropped(nn.Module):
    """Goes on with what a ReLU in place wrote, not with what it returned."""

    def __init__(self, inplace=True, factor=1.0):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 6, 3), nn.ReLU(inplace)
        self.head, self.factor = nn.Linear(6, CLASSES), factor

    def forward(self, images):
        features = self.conv(images)
        returned = self.layer(features).mean((2, 3))
        return self.head(
            features.mean((2, 3)) + (0 if self.layer.inplace else self.factor * returned)
        )


def test_a_mask_without_an_effect_is_told():
    torch.manual_seed(0)
    images = torch.randn(3, 3, 8, 8)
    message = "whose result the network uses, got 'layer', which works in place"
    net = Dropped()
    with pytest.raises(InputError, match=message), gpe.ablated(net, "layer", [0]):
        net(images)
    with pytest.raises(InputError, match=message):
        sweep(Dropped(), images, 6)
    net = Dropped(inplace=False, factor=0.0)
    message = "the network yields the same without all 6 channels of 'layer'"
    with pytest.warns(UserWarning, match=message), gpe.ablated(net, "layer", [0]):
        net(images)
    with pytest.warns(UserWarning, match=message):
        result = sweep(net, images, 6)
    assert (result.confusion == result.confusion[0]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(Dropped(inplace=False), images, 6)


def test_parts_that_cannot_run_alone_are_not_used():
    """As of HRNet, whose stages write into the list that they are given."""

    class Stage(nn.Module):
        def forward(self, levels):
            levels[0] = levels[0] + levels[1].mean()
            return levels

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 1)
            self.stage, self.head = Stage(), nn.Linear(6, CLASSES)

        def forward(self, images):
            levels = self.stage([self.other(images), self.layer(images)])
            return self.head(levels[0].square().mean((2, 3)))

    torch.manual_seed(0)
    net, images = Branches().eval(), torch.randn(10, 3, 8, 8)

    def by_hand(channels):
        found = net.other(images) + net.layer(images).index_fill(1, channels, 0).mean()
        return net.head(found.square().mean((2, 3)))

    net.stage.__class__.__module__ = "torch.nn.own"  # which is not looked into, as HRNet's loops
    result = sweep(net, images, 6)
    torch.testing.assert_close(result.confusion[:, 0], answers(net, images, by_hand, width=6))
    assert result.engine.name == "rerun"
    assert "TypeError: 'immutable_list'" in result.engine.why


def test_networks_that_take_features_by_hooks():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.found = nn.Conv2d(3, 6, 3), {}
            self.head = nn.Linear(6, CLASSES)
            self.layer.register_forward_hook(lambda *call: self.found.update(at=call[2]))

        def forward(self, images):
            self.layer(images)
            return self.head(self.found["at"].mean((2, 3)))

    torch.manual_seed(0)
    net, images = Hooked().eval(), torch.randn(10, 3, 8, 8)
    with gpe.ablated(net, "layer", [1, 2]), torch.no_grad():
        found = net(images)

    def by_hand(channels):
        return net.head(net.layer(images).index_fill(1, channels, 0).mean((2, 3)))

    torch.testing.assert_close(found, by_hand(torch.tensor([1, 2])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that of an engine which is not used
        result = sweep(net, images, 6)
    torch.testing.assert_close(result.confusion[:, 0], answers(net, images, by_hand, width=6))


def test_the_network_may_train_within_the_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(256))
    images = torch.randn(4, 3, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16), gpe.ablated(net, "1", [2]):
        assert net.training
        net(images).square().sum().backward()
    assert net[0].weight.grad.abs().sum() > 0
    assert net[1].num_batches_tracked == 1 == before["1.num_batches_tracked"] + 1
    random = torch.random.get_rng_state()
    with gpe.ablated(net.eval(), "1", [1]):
        net(images)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_errors_and_nesting_within_the_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Conv2d(4, 2, 1))
    images = torch.randn(2, 3, 8, 12)
    with gpe.ablated(net, "0.1", [2]):
        with pytest.raises(RuntimeError):
            net(images[:, :2])
        net(images)
        assert not net[0](images)[:, 2].any()
        with gpe.ablated(net, "0.0", [1]):
            assert not net[0](images)[:, [1, 2]].any()
            net(images)
        net(images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    "channels",
    (
        np.array([0, 2, 4])[::-1],
        np.array([4, 2, 0], dtype=np.uint16),
        [np.int64(0), 2, torch.tensor(4)],
        torch.tensor([0, 2, 4], dtype=torch.int32),
        range(0, 6, 2),
    ),
    ids=repr,
)
def test_integers_of_any_kind(channels):
    net, images = nn.Sequential(nn.Identity(), nn.Flatten()), torch.ones(1, 6, 1, 1)
    with gpe.ablated(net, "0", channels):
        assert net(images).tolist() == [[0, 1, 0, 1, 0, 1]]
    plain = make_plan({"a": [5, 4, 3, 2, 1, 0]}, [0, 2], [(1, 3)], 6)
    array = np.arange(6)[::-1]
    plan = make_plan({"a": array}, np.array([0, 2]), np.array([[1, 3]]), np.int64(6))
    assert plan.points == plain.points
    assert make_plan({"a": array}, np.int64(2), np.int32(3), 6).points[-1][1:] == ("range", 3, 6)
    assert make_plan({"a": array}, torch.tensor([2]), (), 6).points[0].stop == 2
    assert list(random_orders(np.int64(4), np.int8(2))) == ["random/0", "random/1"]


@pytest.mark.parametrize(
    "channels", (["a"], [1.5], 3, None, torch.ones(2), torch.ones(1, 1).long())
)
def test_what_is_no_integer(channels):
    net = nn.Sequential(nn.Identity())
    with (
        pytest.raises(InputError, match="channels: expected integers"),
        gpe.ablated(net, "0", channels),
    ):
        pass
    with pytest.raises(InputError, match="rankings: expected a to be a ChannelRanking or channels"):
        make_plan({"a": channels}, 1, (), 2)


def test_numpy_integers_as_options():
    net, data = network("plain head"), batches(1)
    options = {"layer": "encoder", "regions": ["full"], "ignore_index": np.int64(255)}
    result = gpe.ablation_sweep(
        net,
        data,
        {"a": np.arange(24)[::-1]},
        counts=np.int64(12),
        num_classes=np.int64(CLASSES),
        memory=np.int64(2**20),
        every=np.int64(3),
        **options,
    )
    assert [row["stop"] for row in result.rows] == [0, 12, 24]
    head, latents = nn.Linear(6, 3), torch.randn(4, 6)
    found = classifier_sweep(
        latents, torch.zeros(4).long(), head, {"a": np.arange(6)[::-1]}, counts=np.int64(3)
    )
    assert [row["stop"] for row in found.rows] == [0, 3, 6]


def test_a_region_without_a_label_has_no_number(tmp_path):
    net, ((images, labels, ids),) = network("plain head"), batches(1)
    labels[..., : SIZE[1] // 2] = 255
    options = {"layer": "encoder", "counts": [0, 12], "num_classes": CLASSES}
    result = gpe.ablation_sweep(
        net, [(images, labels, ids)], random_orders(24, 3), regions=["left", "full"], **options
    )
    result.save(tmp_path / "result")
    for rows in (
        result.rows,
        gpe.AblationResult.load(tmp_path / "result")
        .merge(
            gpe.ablation_sweep(
                net, [(images, labels)], random_orders(24, 3), regions=["left", "full"], **options
            )
        )
        .rows,
    ):
        for row in rows:
            assert math.isnan(row["miou"]) == (row["region"] == "left")
        for curve in bands(rows):
            for name in ("miou", "std", "low", "high"):
                assert math.isnan(curve[name]) == (curve["region"] == "left")


def test_the_plain_way_is_measured_as_well():
    """Against another mechanism than its own; a network that yields something else is refused."""
    net, images = network("branching"), batches(1)[0][0]
    layout, plan = layout_of(net, "encoder", images), make_plan(random_orders(24, 1), 12, (), 24)
    engines = Engines(net, layout, "auto", 2**20)
    with torch.inference_mode():
        assert isinstance(engines.engine(images, plan), Rerun)
    assert engines.record.measured == 0.0 < engines.record.tolerance

    class Noisy(Turned):
        def forward(self, images):
            logits = super().forward(images)
            return logits + torch.rand(()) * (1 if logits.sum() > 0 else 2)

    net = Noisy(*LAYOUTS["NCHW"][:2])
    message = r"model: expected one that yields the logits again that it does with .* off by"
    with (
        pytest.warns(UserWarning, match="rerun engine: off"),
        pytest.raises(InputError, match=message),
    ):
        sweep(net, images, 6)


def test_foreign_errors_are_one_line():
    net, images = network("plain head"), batches(1)[0][0]
    labels = batches(1)[0][1]
    with pytest.raises(
        InputError, match=r"model: expected a network that takes .* got PlainHead: R"
    ):
        sweep(net, images[:, :2], 24, "encoder", labels=labels)

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 6, 3, padding=1)
            self.head = nn.Conv2d(6, CLASSES, 1)

        def forward(self, images):
            assert images.shape[-1] == 64, "images of one size\nand no other"
            return self.head(self.layer(images))

    data = [(images, labels), (images[..., :48], labels[..., :48])]
    for engine in ("auto", "general"):
        with pytest.raises(InputError, match=r"^model: expected .*of one size$"):
            gpe.ablation_sweep(
                Fixed(), data, random_orders(6, 1), layer="layer", counts=[0, 3], engine=engine,
                **WHOLE,
            )  # fmt: skip
    with pytest.raises(InputError, match="images: expected a tensor, got list"):
        gpe.ablation_sweep(
            net, [([1], labels)], random_orders(24, 1), layer="encoder", counts=[0], **WHOLE
        )

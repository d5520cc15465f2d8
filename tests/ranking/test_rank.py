"""rank_channels against the paper's own procedure, on anybody's networks and batches."""

import copy

import pytest
import torch
from torch import nn

import gpe
from gpe.models.deeplab import deeplabv3
from tests.ranking.networks import Stacked, images, paper, stacked


def after(name):
    """A function that runs a network up to a module by plain forward hooks."""

    def run(model, batch):
        outputs = []
        hook = model.get_submodule(name).register_forward_hook(
            lambda module, arguments, output: outputs.append(output)
        )
        model(batch)
        hook.remove()
        return outputs[0]

    return run


# Against the paper's procedure


def test_deeplab_gets_the_order_of_the_papers_procedure():
    """DeepLabv3-ResNet-50 with output stride 16, seeded random weights."""
    torch.manual_seed(0)
    model = deeplabv3("resnet50", output_stride=16).double()
    batches = images(5, height=32, width=64)
    deltas = paper(model, batches, after("backbone.layer4"))
    ranking = gpe.rank_channels(model, batches.split(2), layer="backbone.layer4")["overall"]
    assert len(ranking.scores) == 2048 and ranking.images == 5
    torch.testing.assert_close(ranking.scores, deltas.abs().mean(0), rtol=1e-12, atol=1e-15)
    assert torch.equal(ranking.order, deltas.abs().mean(0).argsort(descending=True, stable=True))


def test_a_network_of_timm():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False).double()
    batches = images(4, height=32, width=32)
    deltas = paper(model, batches, after("layer3"))
    ranking = gpe.rank_channels(model, batches.split(3), layer="layer3")["overall"]
    torch.testing.assert_close(ranking.scores, deltas.abs().mean(0), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("layer", ("first", "depthwise", "features", "head"))
def test_any_layer_of_ones_own_network(layer):
    model = stacked()
    deltas = paper(model, images(), after(layer))
    ranking = gpe.rank_channels(model, images().split(5), layer=layer)["overall"]
    torch.testing.assert_close(ranking.scores, deltas.abs().mean(0))
    assert ranking.layer == layer and ranking.mode == "overall" and ranking.images == 12


def test_left_and_right_are_signed_means_over_their_subsets():
    model, subsets = stacked(), {"left": [0, 7, 3], "right": torch.tensor([11, 2])}
    deltas = paper(model, images(), after("features"))
    modes = ("left", "overall", "right")
    rankings = gpe.rank_channels(
        model, images().split(5), layer="features", modes=modes, subsets=subsets
    )
    for side in ("left", "right"):
        expected = deltas[torch.as_tensor(subsets[side])].mean(0)
        torch.testing.assert_close(rankings[side].scores, expected)
        assert torch.equal(rankings[side].order, expected.argsort(descending=True))
    assert [rankings[mode].images for mode in modes] == [3, 12, 2]


def test_a_channel_that_sees_the_left_half_leads_the_left_ranking():
    """Δ is z(image) - z(mirror), for both sides."""
    model = nn.Conv2d(3, 4, 1, bias=False).double()

    class Halves(nn.Module):
        def forward(self, batch):
            left, right = batch[..., :8].mean(1), batch[..., 8:].mean(1)
            return torch.stack([right, left, left + right, left * 0], 1)

    model, bright_left = nn.Sequential(Halves()), images(6)
    bright_left[..., 8:] = 0
    modes, subsets = ("left", "right"), {"left": [0, 1, 2], "right": [3, 4, 5]}
    batch = torch.cat([bright_left[:3], bright_left[3:].flip(-1)])
    rankings = gpe.rank_channels(model, [batch], layer="0", modes=modes, subsets=subsets)
    assert rankings["left"].order.tolist()[0] == 1 and rankings["left"].order.tolist()[-1] == 0
    assert rankings["right"].order.tolist()[0] == 0 and rankings["right"].order.tolist()[-1] == 1


# One pass


class Counting(nn.Module):
    """Counts the images that it sees, and those that reach its head."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.seen = self.through = 0

    def forward(self, batch):
        self.seen += len(batch)
        out = self.head(self.body(batch))
        self.through += len(batch)
        return out


@pytest.mark.parametrize(
    ("modes", "passes"),
    (
        (("overall",), 2 * 12),
        (("overall", "left", "right", "random"), 2 * 12),
        (("kernel_flip_mirror",), 2 * 12 + 1),  # one image more to see which convolutions run
        (("overall", "kernel_flip_pair"), 3 * 12 + 1),
        (("overall", "left", "kernel_flip_mirror", "kernel_flip_pair"), 4 * 12 + 1),
        (("left",), 2 * 2),
        (("left", "right"), 2 * 4),
        (("random", "random:1"), 0),
        (("overall", "magnitude", "deviation", "relative", "matched:2", "activity:left"), 2 * 12),
    ),
    ids=str,
)
def test_passes_are_shared_and_end_at_the_layer(modes, passes):
    """The one that looks at the layer leaves the network as it was, its counters too."""
    model, subsets = Counting(), {"left": [0, 7], "right": [7, 8, 3]}
    batches = images(dtype=torch.float32).split(5)
    gpe.rank_channels(model, batches, layer="body", modes=modes, subsets=subsets)
    assert (model.seen, model.through) == (passes, 0)


@pytest.mark.parametrize("sizes", ((12,), (1,) * 12, (5, 7)))
def test_batches_change_nothing_but_rounding(sizes):
    modes = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    options = {"layer": "features", "modes": modes}
    expected = gpe.rank_channels(stacked(), [images()], **options)
    rankings = gpe.rank_channels(stacked(), images().split(sizes), **options)
    for mode in modes:
        torch.testing.assert_close(
            rankings[mode].scores, expected[mode].scores, rtol=1e-12, atol=1e-15
        )
        assert torch.equal(rankings[mode].order, expected[mode].order)


def test_each_mode_alone_is_as_among_others():
    subsets = {"left": [1, 2]}
    modes = ("overall", "left", "kernel_flip_mirror", "kernel_flip_pair", "random", "random:5")
    options = {"layer": "features", "subsets": subsets}
    together = gpe.rank_channels(stacked(), [images()], modes=modes, **options)
    assert tuple(together) == modes
    for mode in modes:
        alone = gpe.rank_channels(stacked(), [images()], modes=[mode], **options)[mode]
        assert torch.equal(alone.scores, together[mode].scores)


def test_random_rankings_differ_by_seed_alone():
    modes = ("random", "random:0", "random:1")
    rankings = gpe.rank_channels(stacked(), [images()], layer="features", modes=modes)
    again = gpe.rank_channels(stacked(), [images(seed=1)], layer="features", modes=modes)
    for mode in modes:
        assert torch.equal(rankings[mode].order, again[mode].order)
        assert sorted(rankings[mode].order.tolist()) == [*range(10)]
        assert rankings[mode].interval is None and rankings[mode].images == 0
    assert torch.equal(rankings["random"].order, rankings["random:0"].order)
    assert not torch.equal(rankings["random"].order, rankings["random:1"].order)


# Batches and layers of all kinds


def test_ids_come_last_in_the_batches():
    names = [f"frankfurt_{number:06}" for number in range(12)]
    labels = torch.zeros(12)
    batches = [
        (images()[start : start + 5], labels[start : start + 5], names[start : start + 5])
        for start in (0, 5, 10)
    ]
    options = {"layer": "features", "modes": ("left",)}
    named = gpe.rank_channels(stacked(), batches, subsets={"left": [names[8], names[1]]}, **options)
    numbered = gpe.rank_channels(stacked(), images().split(5), subsets={"left": [1, 8]}, **options)
    assert torch.equal(named["left"].scores, numbered["left"].scores)
    assert named["left"].image_ids == (names[1], names[8])


def test_batches_of_a_data_loader():
    """Which makes lists, and other things may follow the images."""
    dataset = torch.utils.data.TensorDataset(images(), torch.arange(12))
    loader = torch.utils.data.DataLoader(dataset, batch_size=5)
    ranking = gpe.rank_channels(stacked(), loader, layer="features")["overall"]
    expected = gpe.rank_channels(stacked(), images().split(5), layer="features")["overall"]
    assert torch.equal(ranking.scores, expected.scores)
    assert ranking.image_ids == tuple(range(12))


class Wraps(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.convolution, self.wrap = nn.Conv2d(3, 6, 3), wrap

    def forward(self, batch):
        return self.wrap(self.convolution(batch))


@pytest.mark.parametrize(
    "wrap",
    (
        lambda maps: {"out": maps},
        lambda maps: [maps],
        lambda maps: (maps, None),
        lambda maps: {"deep": [{"out": maps}], "size": 3},
        lambda maps: maps.mean((2, 3)),
    ),
)
def test_outputs_that_hold_one_tensor(wrap):
    torch.manual_seed(0)
    model = nn.Sequential(Wraps(wrap)).double()
    ranking = gpe.rank_channels(model, [images()], layer="0")["overall"]
    expected = gpe.rank_channels(model, [images()], layer="0.convolution")["overall"]
    torch.testing.assert_close(ranking.scores, expected.scores)


def test_the_network_is_left_as_it_was():
    model = stacked()
    model.norm.eval()
    model.train(False)
    model.first.train()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    gpe.rank_channels(model, [images()], layer="features", modes=("overall", "kernel_flip_mirror"))
    with pytest.raises(gpe.InputError, match="nan"):
        gpe.rank_channels(
            model, [images() * torch.nan], layer="features", modes=("kernel_flip_pair",)
        )
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_images_go_to_the_device_and_the_network_stays():
    """On meta there are shapes alone, which is enough to see where things ran."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)).to("meta")
    ran = []
    model[1].register_forward_hook(lambda module, arguments, output: ran.append(output.device))
    with pytest.raises(Exception, match=r"[Mm]eta"):  # no numbers come back from there
        gpe.rank_channels(model, [images(dtype=torch.float32)], layer="1", device="meta")
    assert ran[0].type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_order_of_the_cpu():
    modes = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    options = {"layer": "features", "modes": modes}
    expected, model = gpe.rank_channels(stacked(), [images()], **options), stacked()
    rankings = gpe.rank_channels(model, [images()], device="cuda", **options)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    for mode in modes:
        assert torch.equal(rankings[mode].order, expected[mode].order)
        assert rankings[mode].weights == expected[mode].weights


# Processes

EVERY_MODE = (
    *("overall", "left", "right", "kernel_flip_mirror", "kernel_flip_pair", "random:3"),
    *("magnitude", "deviation", "relative", "left_right", "activity:left", "matched:1"),
)
SUBSETS = {"left": ["1", "4"], "right": ["0", "8", "11"]}


def named_batches(rows):
    return [(images()[row : row + 1], [str(row)]) for row in rows]


def test_two_processes_give_the_bits_of_one(tmp_path):
    """Unequal shards in another order; all images of one subset lie in one of them."""
    model, options = stacked(), {"layer": "features", "modes": EVERY_MODE, "subsets": SUBSETS}
    expected = gpe.rank_channels(model, named_batches(range(12)), **options)
    run = {"args": (model, options, tmp_path), "nprocs": 2, "start_method": "fork"}
    torch.multiprocessing.start_processes(one_of_two, **run)
    for rank in range(2):
        for mode in EVERY_MODE:
            ranking = gpe.ChannelRanking.load(tmp_path / f"{rank}-{mode}")
            assert torch.equal(ranking.scores, expected[mode].scores)
            assert ranking.image_ids == expected[mode].image_ids
            assert ranking.weights == expected[mode].weights


def one_of_two(rank, model, options, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    mine = [0, 8, 11] if rank else [10, 9, 7, 6, 5, 4, 3, 2, 1]
    for mode, ranking in gpe.rank_channels(model, named_batches(mine), **options).items():
        ranking.save(folder / f"{rank}-{mode}")
    with pytest.raises(gpe.InputError, match="image ids: expected each image once, got 0 twice"):
        gpe.rank_channels(model, [images()], layer="features")
    ranking = gpe.rank_channels(model, [] if rank else [images()], layer="features")["overall"]
    assert ranking.images == 12  # a process without images helps all the same
    torch.distributed.destroy_process_group()


# Errors

TEN = {"layer": "features"}
WRONG = {
    "layer: expected one of the network's, got 'feature'; nearest: features": {"layer": "feature"},
    "layer: .* got 'xyz'; nearest: first": {"layer": "xyz"},
    "modes: expected one or more, got none": {"modes": ()},
    "modes: expected some of overall, .*random:SEED, got 'middle'": {"modes": ("middle",)},
    "modes: expected some of .* got 'random:'": {"modes": ("random:",)},
    "modes: expected some of .* got 'random:x'": {"modes": ("random:x",)},
    "subsets: expected the ids of the images for 'left', got none": {"modes": ("left",)},
    "subsets: expected one or more images for 'left', got none": {
        "modes": ("left",),
        "subsets": {"left": []},
    },
    "batches: expected one or more images, got none": {
        "modes": ("left",),
        "subsets": {"left": [40]},
    },
    "images: expected one or more for 'left', got none": {
        "modes": ("overall", "left"),
        "subsets": {"left": [40]},
    },
}


@pytest.mark.parametrize(("message", "options"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, options):
    with pytest.raises(gpe.InputError, match=message):
        gpe.rank_channels(stacked(), [images()], **TEN | options)


BATCHES = {
    "batches: expected one or more images, got none": [],
    r"batches: expected images \[N,C,H,W\] or tuples that begin with them, got \[3, 12, 16\]": [
        images()[0]
    ],
    "batches: expected images .* got str": [("a.png",)],
    "batches: expected 12 ids of as many images, got 2": [(images(), ["a", "b"])],
    "image ids: expected each image once, got 'a' twice": [(images(2), ["a", "a"])],
    "image ids: expected all numbers or all strings, got both": [images(1), (images(1), ["a"])],
    "model: 'features', images 12 to 23: .* a difference of nan in image 3, channel": [
        images(),
        torch.cat([images(3), images(9) * torch.nan]),
    ],
}


@pytest.mark.parametrize(("message", "batches"), BATCHES.items(), ids=BATCHES)
def test_wrong_batches_name_themselves(message, batches):
    with pytest.raises(gpe.InputError, match=message):
        gpe.rank_channels(stacked(), batches, layer="features")


def test_the_nearest_names_of_a_deep_network():
    model = deeplabv3("resnet50")
    with pytest.raises(gpe.InputError, match=r"nearest: .*backbone\.layer4\b"):
        gpe.rank_channels(model, [images()], layer="backbone.layer5")


class Unused(Stacked):
    def forward(self, batch):
        return self.first(batch)


@pytest.mark.parametrize(
    ("message", "model", "layer"),
    (
        ("expected one that runs, got 'head', which does not", Unused().double(), "head"),
        ("expected one tensor from '0', got 2 in a tuple", Wraps(lambda m: (m, m)), "0"),
        ("expected one tensor from '0', got 0 in a NoneType", Wraps(lambda m: None), "0"),
        (r"\[1,T,C\] or \[1,C\], got .* \[1, 6, 10, 14, 1\]", Wraps(lambda m: m[..., None]), "0"),
        ("'0' to yield .* got torch.int64", Wraps(lambda m: m.long()), "0"),
        (r"'0' to yield .* \[6, 1, 10, 14\]", Wraps(lambda m: m.transpose(0, 1)), "0"),
    ),
)  # fmt: skip
def test_layers_without_one_feature_map(message, model, layer):
    model = model if layer == "head" else nn.Sequential(model).double()
    with pytest.raises(gpe.InputError, match=f"layer: .*{message}"):
        gpe.rank_channels(model, [images()], layer=layer)

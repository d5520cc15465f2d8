"""Rankings that keep sums in place of images: the same scores in bounded memory."""

import numpy as np
import pytest
import torch
from torch import nn

import gpe
from gpe.models.inside import layout_of
from tests.ranking.networks import images, stacked

MODES = (
    *("overall", "left", "right", "kernel_flip_mirror", "kernel_flip_pair", "random:3"),
    *("magnitude", "deviation", "relative", "left_right", "activity:left", "matched:1"),
)
# Of squares that nearly cancel, sums in another order differ more.
ROUNDING = dict.fromkeys(("deviation", "relative"), 1e-8)
UNSEEN = ("random:3", "relative", "left_right", "matched:1")  # no interval
OPTIONS = {
    "layer": "features",
    "modes": MODES,
    "subsets": {"left": [0, 7, 3], "right": np.array([11, 2])[::-1]},
}


def ranked(batches, **options):
    return gpe.rank_channels(stacked(), batches, **OPTIONS | options)


def expect_close(found, expected, rtol):
    rtol = ROUNDING.get(found.mode, rtol)
    torch.testing.assert_close(found.scores, expected.scores, rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("keep", ["sums", "draws"])
def test_scores_are_those_of_images_kept(keep):
    expected, found = ranked(images().split(5)), ranked(images().split(5), keep=keep)
    for mode in MODES:
        expect_close(found[mode], expected[mode], 1e-13)
        assert found[mode].image_ids == expected[mode].image_ids
        assert found[mode].differences is None
        if mode not in UNSEEN:
            assert (found[mode].interval is None) == (keep == "sums")


@pytest.mark.parametrize("keep", ["sums", "draws"])
def test_batches_change_no_bit_and_order_only_rounding(keep):
    one, other = (ranked(images().split(size), keep=keep) for size in (12, 5))
    batches = [(image[None], [f"{n:02}"]) for n, image in enumerate(images())]
    subsets = {"left": ["00", "07", "03"], "right": ["11", "02"]}
    named, back = (ranked(each, keep=keep, subsets=subsets) for each in (batches, batches[::-1]))
    for mode in MODES:
        expect_close(one[mode], other[mode], 1e-12)
        for a, b in ((named, back),):
            expect_close(a[mode], b[mode], 1e-14)
            if a[mode].interval is not None:
                torch.testing.assert_close(a[mode].interval, b[mode].interval)


def test_the_interval_of_draws_is_near_that_of_images():
    """Two bootstraps of the same 400 images: within a tenth of the interval's width or so."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1))
    batches = torch.rand(400, 3, 4, 6).split(50)
    images, draws = (
        gpe.rank_channels(net, batches, layer="0", keep=keep)["overall"].interval
        for keep in ("images", "draws")
    )
    width = images[1] - images[0]
    assert ((draws - images).abs() / width).max() < 0.2
    assert ((draws[1] - draws[0]) / width).sub(1).abs().max() < 0.2


@pytest.mark.parametrize("keep", ["sums", "draws"])
def test_parts_merge_and_files_keep_them(keep, tmp_path):
    whole = ranked([images()], keep=keep, modes=("overall",))["overall"]
    parts = [
        gpe.rank_channels(stacked(), [some], layer="features", keep=keep, start=start)["overall"]
        for start, some in ((0, images()[:5]), (5, images()[5:]))
    ]
    for number, part in enumerate(parts):
        part.save(tmp_path / str(number))
    one, other = (gpe.ChannelRanking.load(tmp_path / str(number)) for number in range(2))
    merged = one.merge(other)
    torch.testing.assert_close(merged.scores, whole.scores, rtol=1e-14, atol=0)
    assert merged.image_ids == whole.image_ids
    if keep == "draws":
        torch.testing.assert_close(merged.interval, whole.interval)
    with pytest.raises(gpe.InputError, match="other images"):
        merged.merge(one)
    kept = gpe.rank_channels(stacked(), [images()], layer="features", start=12)["overall"]
    with pytest.raises(gpe.InputError, match=f"other: expected one that keeps {keep}, got images"):
        merged.merge(kept)


@pytest.mark.parametrize("keep", ["images", "sums", "draws"])
def test_two_processes_give_what_one_gives(keep, tmp_path):
    """One of them has no image of one subset."""
    expected = ranked(images().split(4), keep=keep)
    run = {"args": (keep, tmp_path), "nprocs": 2, "start_method": "fork"}
    torch.multiprocessing.start_processes(one_of_two, **run)
    for rank in range(2):
        for mode in MODES:
            found = gpe.ChannelRanking.load(tmp_path / f"{rank}-{mode}")
            expect_close(found, expected[mode], 1e-12)
            assert found.image_ids == expected[mode].image_ids
            if expected[mode].interval is not None:
                torch.testing.assert_close(found.interval, expected[mode].interval)


def one_of_two(rank, keep, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    some, start = (images()[8:], 8) if rank else (images()[:8], 0)
    for mode, ranking in ranked([some], keep=keep, start=start).items():
        ranking.save(folder / f"{rank}-{mode}")
    torch.distributed.destroy_process_group()


def test_memory_does_not_grow_with_images():
    """Of 20,000 images and 256 channels, 20 MB of differences were kept before."""
    import tracemalloc

    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 256, 1))
    batch = torch.rand(500, 3, 2, 4)
    tracemalloc.start()
    ranking = gpe.rank_channels(net, (batch for _ in range(40)), layer="1", keep="sums")["overall"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ranking.images == 20_000 and ranking.sums.draws is None
    assert ranking.sums.total.shape == (256,) and peak < 10e6


def test_levels_of_a_pyramid_are_averaged_in_size():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, 2)

        def forward(self, batch):
            return {"0": self.one(batch), "1": self.two(batch)}

    torch.manual_seed(0)
    net = nn.Sequential(Levels()).double()
    deltas = [
        level(images()).mean((2, 3)) - level(images().flip(-1)).mean((2, 3))
        for level in (net[0].one, net[0].two)
    ]
    for keep in ("images", "sums"):
        found = gpe.rank_channels(
            net,
            images().split(5),
            layer="0",
            modes=("overall", "left"),
            subsets={"left": [1, 2]},
            keep=keep,
        )
        sizes = sum(delta.abs() for delta in deltas) / 2
        torch.testing.assert_close(found["overall"].scores, sizes.mean(0))
        torch.testing.assert_close(found["left"].scores, (sum(deltas) / 2)[1:3].mean(0))


def test_channels_that_lie_last_and_numbers_of_numpy():
    class Last(nn.Module):
        def forward(self, maps):
            assert maps.shape[-2:] == (12, 12)
            return maps.permute(0, 2, 3, 1)

    net = nn.Sequential(nn.Conv2d(3, 12, 1), Last()).double()
    square = images(width=12)
    with pytest.raises(gpe.InputError, match="channel_dim: expected the dimension"):
        layout_of(nn.Sequential(Last()), "0", torch.rand(1, 12, 12, 12).double())
    expected = gpe.rank_channels(net, [square], layer="0")["overall"]
    found = gpe.rank_channels(net, [square], layer="1", channel_dim=-1)["overall"]
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.top(np.int64(3)), expected.order[:3])
    ids = np.arange(12)[::-1]
    again = gpe.ChannelRanking.of_differences("overall", found.differences, ids)
    assert again.image_ids == tuple(range(12)) and type(again.image_ids[0]) is int


def test_convolutions_that_are_no_modules_are_not_left_as_they_are():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 3)

        def forward(self, batch):
            return nn.functional.conv2d(batch, self.inner.weight)

    net = nn.Sequential(nn.Conv2d(3, 3, 3), Functional()).double()
    with pytest.raises(
        gpe.InputError, match=r"model: .* aten.convolution.* \[4, 3, 3, 3\] outside"
    ):
        gpe.rank_channels(net, [images()], layer="1", modes=("kernel_flip_pair",))
    assert gpe.rank_channels(net, [images()], layer="1")["overall"].images == 12


@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_are_ranked_as_they_are_and_traced_ones_refused():
    expected = gpe.rank_channels(stacked(), [images()], **OPTIONS)
    net = torch.compile(stacked().eval(), backend="eager")
    with torch.no_grad():
        net(images())
    found = gpe.rank_channels(net, [images()], **OPTIONS)
    for mode in MODES:
        assert torch.equal(found[mode].scores, expected[mode].scores)
        assert found[mode].weights == expected[mode].weights
    with pytest.raises(gpe.InputError, match="traced or scripted"):
        gpe.rank_channels(torch.jit.trace(stacked(), images()), [images()], layer="features")


def test_a_network_that_refuses_images_is_told_in_one_line():
    with pytest.raises(gpe.InputError, match=r"float64 images \[1, 4, 9, 9\], got Stacked: Runt"):
        gpe.rank_channels(stacked(), [torch.rand(2, 4, 9, 9).double()], layer="features")

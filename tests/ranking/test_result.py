"""ChannelRanking: orders, intervals, merging, files, and the paper's own rankings."""

import json

import pytest
import torch

import gpe
from gpe.ranking import ChannelRanking
from tests.conftest import SHARED_DATA
from tests.ranking.networks import images, stacked

MODES = ("overall", "left", "kernel_flip_pair")


def table(count=20, channels=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, generator=generator).to(dtype)


def ranking(mode="overall", **options):
    return ChannelRanking.of_differences(
        mode, table(), range(20), layer="layer4", weights="abc", **options
    )


def assert_same(one, other):
    for name in ("mode", "layer", "weights", "image_ids", "images"):
        assert getattr(one, name) == getattr(other, name)
    assert torch.equal(one.scores, other.scores) and torch.equal(one.order, other.order)
    if one.interval is not None:
        assert torch.equal(one.interval, other.interval)


@pytest.mark.parametrize("mode", MODES)
def test_scores_and_order(mode):
    values = table().double() if mode == "left" else table().double().abs()
    result = ranking(mode)
    torch.testing.assert_close(result.scores, values.mean(0))
    assert result.scores.dtype == torch.float64 and result.order.dtype == torch.int64
    assert result.scores[result.order].diff().le(0).all()
    assert torch.equal(result.top(3), result.order[:3]) and len(result.top(0)) == 0


def test_of_equal_scores_the_lower_channel_comes_first():
    scores = torch.tensor([1, 2, 1, 2, 0], dtype=torch.float64)
    assert ChannelRanking("overall", scores).order.tolist() == [1, 3, 0, 2, 4]


# Intervals


@pytest.mark.parametrize("mode", MODES)
def test_the_interval_is_that_of_a_mean_of_normal_numbers(mode):
    """Of many images the bootstrap's interval is close to mean ± 1.96 standard errors."""
    differences = table(2000, 4) + torch.tensor([0.0, 0.5, 1, 2])
    result = ChannelRanking.of_differences(mode, differences, range(2000))
    values = differences.double() if mode == "left" else differences.double().abs()
    half = 1.96 * values.std(0) / 2000**0.5
    expected = torch.stack([values.mean(0) - half, values.mean(0) + half])
    torch.testing.assert_close(result.interval, expected, rtol=0, atol=0.15 * half.max().item())


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(40):
        low, high = ChannelRanking.of_differences("left", table(60, 10, seed), range(60)).interval
        covered += ((low < 0) & (high > 0)).sum().item()
    assert 0.90 < covered / 400 < 0.98


def test_one_image_tells_nothing_of_others():
    result = ChannelRanking.of_differences("overall", table(1), [0])
    torch.testing.assert_close(result.interval, result.scores.expand(2, -1))


# Merging


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_merged_to_the_last_bit(mode, dtype):
    differences = table(dtype=dtype)
    whole = ChannelRanking.of_differences(mode, differences, range(20))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    parts = [
        ChannelRanking.of_differences(mode, differences[rows], rows.tolist())
        for rows in order.split([3, 10, 7])
    ]
    assert_same(parts[0].merge(parts[1]).merge(parts[2]), whole)
    assert_same(parts[2].merge(parts[1].merge(parts[0])), whole)


def test_rankings_of_parts_of_a_set_are_that_of_the_set():
    model, options = stacked(), {"layer": "features", "modes": ("overall", "kernel_flip_mirror")}
    whole = gpe.rank_channels(model, images().split(1), **options)
    first = gpe.rank_channels(model, images()[:5].split(1), **options)
    second = gpe.rank_channels(model, images()[5:].split(1), start=5, **options)
    for mode in options["modes"]:
        assert_same(second[mode].merge(first[mode]), whole[mode])
    with pytest.raises(gpe.InputError, match=r"expected other images, got 5 .* in both, as 0"):
        whole["overall"].merge(first["overall"])


def test_random_rankings_merge_with_their_like():
    options = {"layer": "features", "modes": ("random:1",)}
    one = gpe.rank_channels(stacked(), [images()], **options)["random:1"]
    assert one.merge(one) is one


@pytest.mark.parametrize(
    ("message", "other"),
    (
        ("with mode 'overall', got 'left'", ("left", table(), "layer4", "abc")),
        ("with layer 'layer4', got 'layer3'", ("overall", table(), "layer3", "abc")),
        ("with weights 'abc', got 'abd'", ("overall", table(), "layer4", "abd")),
        ("of 6 channels, got one of 5", ("overall", table(channels=5), "layer4", "abc")),
        ("expected other images, got 20", ("overall", table(), "layer4", "abc")),
    ),
)
def test_what_does_not_merge(message, other):
    mode, differences, layer, weights = other
    other = ChannelRanking.of_differences(
        mode, differences, range(20), layer=layer, weights=weights
    )
    with pytest.raises(gpe.InputError, match=f"other: .*{message}"):
        ranking().merge(other)


def test_networks_are_told_apart_by_their_weights():
    options = {"layer": "features"}
    model, again, other = stacked(), stacked(), stacked()
    other.head.bias.data[0] += 1e-9
    digests = [
        gpe.rank_channels(network, [images()], **options)["overall"].weights
        for network in (model, again, other)
    ]
    assert digests[0] == digests[1] != digests[2]


# Files


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded(mode, tmp_path):
    ranking(mode).save(tmp_path / "a.safetensors")
    assert_same(ChannelRanking.load(tmp_path / "a.safetensors"), ranking(mode))


@pytest.mark.parametrize("modes", (("random:2",), ("overall",)))
def test_loaded_ones_merge_as_before(modes, tmp_path):
    first, second = (
        gpe.rank_channels(
            stacked(),
            [(images(3, seed=seed), [f"{seed}-{n}" for n in range(3)])],
            layer="features",
            modes=modes,
        )[modes[0]]
        for seed in range(2)
    )
    first.save(tmp_path / "first")
    assert_same(ChannelRanking.load(tmp_path / "first").merge(second), first.merge(second))


def test_files_that_hold_something_else(tmp_path):
    with pytest.raises(gpe.InputError, match="path: there is no"):
        ChannelRanking.load(tmp_path / "none")
    (tmp_path / "text").write_text("not a ranking")
    with pytest.raises(gpe.InputError, match="path: expected a ranking, got"):
        ChannelRanking.load(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"scores": torch.zeros(3)}, tmp_path / "weights")
    with pytest.raises(gpe.InputError, match="path: expected a ranking, got"):
        ChannelRanking.load(tmp_path / "weights")


# The paper's form


def test_there_and_back(tmp_path):
    ranking().to_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"overall": ranking().order.tolist()}
    back = ChannelRanking.from_json(tmp_path / "a.json", layer="layer4")
    assert torch.equal(back.order, ranking().order)
    assert (back.mode, back.layer, back.images, back.interval) == ("overall", "layer4", 0, None)


PAPERS = {
    "overall": ("ordered_positional_encoding_neurons_absolute_difference.json", 1540),
    "left": ("left_ordered_positional_encoding_neurons_signed_difference.json", 624),
    "right": ("right_ordered_positional_encoding_neurons_signed_difference.json", 810),
}


@pytest.mark.parametrize(("mode", "file", "first"), [(m, *found) for m, found in PAPERS.items()])
def test_the_papers_own_rankings(mode, file, first, tmp_path):
    path = SHARED_DATA / "channel_rankings" / file
    if not path.exists():
        pytest.skip("the paper's rankings are not here")
    paper = ChannelRanking.from_json(path, mode=mode)
    assert paper.mode == mode and len(paper.order) == 2048 and paper.top(1).item() == first
    (written,) = json.loads(path.read_text()).values()
    assert paper.order.tolist() == written
    paper.to_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {mode: written}


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("[0, 1]", "expected {"),
        ("3", "expected {"),
        ("{}", "expected {"),
        ('{"overall": [0], "left": [0]}', "expected {"),
        ('{"overall": []}', "expected {"),
        ('{"overall": 3}', "expected {"),
        ('{"overall": [0, 2]}', "expected each channel from 0 to 1 once"),
        ('{"overall": [0, 0]}', "expected each channel from 0 to 1 once"),
        ('{"overall": [0, true]}', "expected each channel from 0 to 1 once"),
        ('{"overall": ["a"]}', "expected each channel from 0 to 0 once"),
        ("{", "expected JSON"),
    ),
)
def test_json_of_another_form(text, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(gpe.InputError, match=f"path: {message}"):
        ChannelRanking.from_json(tmp_path / "a.json")


# Errors


def test_scores_that_are_no_numbers_are_refused():
    scores = torch.tensor([0.0, float("nan")], dtype=torch.float64)
    with pytest.raises(
        gpe.InputError, match="scores: expected finite numbers, got nan for channel 1"
    ):
        ChannelRanking("overall", scores)
    with pytest.raises(gpe.InputError, match="nan"):
        ChannelRanking.of_differences("overall", table() / 0 * 0, range(20))


@pytest.mark.parametrize("k", (-1, 7, 1.5))
def test_top_of_more_than_there_are(k):
    with pytest.raises(gpe.InputError, match="k: expected an integer from 0 to 6, got"):
        ranking().top(k)


def test_another_width_is_refused():
    ranking().expect_width(6)
    with pytest.raises(
        gpe.InputError, match="ranking: expected one of 2048 channels, got one of 6"
    ):
        ranking().expect_width(2048)


# Frames and drawings


def test_a_frame_has_the_channels_in_order():
    pytest.importorskip("pandas")
    frame = ranking().to_pandas()
    assert frame["channel"].tolist() == ranking().order.tolist()
    assert frame["score"].is_monotonic_decreasing
    low, high = ranking().interval[:, ranking().order].numpy()
    assert (frame["low"] == low).all() and (frame["high"] == high).all()
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert list(ChannelRanking("random", scores).to_pandas()) == ["channel", "score"]


def test_a_drawing_has_the_scores_in_order():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = ranking().plot(figure.add_subplot())
    (line,) = axes.lines
    assert line.get_ydata().tolist() == ranking().scores.sort(descending=True).values.tolist()
    assert len(axes.collections) == 1  # the interval

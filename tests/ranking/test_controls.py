"""Planted channels: each ranking finds what was put there, and the controls what they are about."""

import pytest
import torch
from torch import nn

import gpe
from gpe.ranking.derived import WITHIN, derive, matched_order
from tests.ranking.networks import images, stacked

LEFT, RIGHT, BRIGHT, STEADY, SCENE, DEAD, USEFUL = range(7)
SIDES = {"left": range(0, 12, 2), "right": range(1, 12, 2)}
MODES = (
    *("overall", "left", "right", "left_right", "right_left", "activity"),
    *("magnitude", "deviation", "relative", "taylor", "matched:3"),
)


class Planted(nn.Module):
    """Channels that respond to objects on a side, to what all images have there, or to no place."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Identity(), nn.Conv2d(7, 2, 1, bias=False)
        self.head.weight.data.zero_()
        self.head.weight.data[1, :, 0, 0] = torch.tensor([0.1, 0.1, 0.01, 0.01, 0.1, 5.0, 40.0])

    def forward(self, batch):
        half = batch.shape[-1] // 2
        objects, bright, scene = batch.unbind(1)
        sides = torch.arange(batch.shape[-1]) < half
        maps = (objects * sides, objects * ~sides, 5 * bright, 0 * bright + 7)
        maps += (6 * scene * sides, 0 * bright, 0.01 * bright)
        return self.head(self.features(torch.stack(maps, 1)))


@pytest.fixture(scope="module")
def planted():
    """Twelve images: an object on one side, a brightness, and the same scene on the left."""
    torch.manual_seed(0)
    batch = torch.zeros(12, 3, 6, 8, dtype=torch.float64)
    batch[::2, 0, 2:4, 1:3], batch[1::2, 0, 2:4, 5:7] = 1, 1
    batch[:, 1] = torch.rand(12, 1, 1, dtype=torch.float64) + 0.5
    batch[:, 2, :, :4] = 1
    labels = torch.ones(12, 6, 8, dtype=torch.int64)
    return gpe.rank_channels(
        Planted().double(),
        [(batch[:5], labels[:5]), (batch[5:], labels[5:])],
        layer="features",
        modes=MODES,
        subsets=SIDES,
        regions={"left": (0, 0, 6, 4), "corner": (0, 0, 3, 2)},
    )


def found(ranking):
    """Channels whose scores are above zero, first ones first."""
    return [int(c) for c in ranking.order if ranking.scores[c] > 1e-9]


def test_position_without_importance_and_importance_without_position(planted):
    assert found(planted["overall"]) == [SCENE, LEFT, RIGHT]
    assert set(found(planted["relative"])) == {LEFT, RIGHT}  # the scene is the same in all images
    assert found(planted["magnitude"])[:2] == [STEADY, BRIGHT]
    assert DEAD not in found(planted["magnitude"])
    assert found(planted["deviation"])[0] == BRIGHT
    assert STEADY not in found(planted["deviation"]) and SCENE not in found(planted["deviation"])
    assert found(planted["taylor"])[0] == USEFUL and DEAD not in found(planted["taylor"])


def test_an_asymmetric_scene_leads_both_sides_until_they_are_subtracted(planted):
    assert found(planted["left"])[0] == found(planted["right"])[0] == SCENE
    assert found(planted["left_right"]) == [LEFT] and planted["left_right"].order[-1] == RIGHT
    assert found(planted["right_left"]) == [RIGHT] and planted["right_left"].order[-1] == LEFT
    assert planted["left_right"].scores[SCENE] == 0 and planted["left_right"].images == 12


def test_activity_is_of_the_region(planted):
    """The left object's four pixels, in half of the images; a corner cuts it in two."""
    left, corner = planted["activity:left"], planted["activity:corner"]
    assert found(left) == [SCENE, LEFT] and left.order[-1] == RIGHT
    assert left.scores[LEFT].item() == pytest.approx(0.5 * 4 / 24)
    assert corner.scores[LEFT].item() == pytest.approx(0.5 * (1 / 6 - 3 / 42))
    for channel in (BRIGHT, STEADY, DEAD):
        assert abs(left.scores[channel]) < 1e-9
    assert left.interval.shape == (2, 7) and "activity" not in planted


def test_activity_of_a_coarser_map_counts_parts_of_cells():
    model, batch = nn.Sequential(nn.AvgPool2d(4)).double(), images(3, height=8, width=12)
    ranking = gpe.rank_channels(
        model, [batch], layer="0", modes=("activity:part",), regions={"part": (0, 0, 8, 6)}
    )["activity:part"]
    maps = model(batch).mean((0, 2))
    inside, outside = (maps[:, 0] + maps[:, 1] / 2) / 1.5, (maps[:, 2] + maps[:, 1] / 2) / 1.5
    torch.testing.assert_close(ranking.scores, inside - outside)


def test_deviation_and_magnitude_are_those_of_the_pooled_channels():
    options = {"layer": "features", "modes": ("deviation", "magnitude", "overall", "relative")}
    rankings = gpe.rank_channels(stacked(), images().split(5), **options)
    with torch.no_grad():
        model, pooled = stacked().eval(), []
        model.features.register_forward_hook(lambda m, a, out: pooled.append(out.mean((2, 3))))
        model(images())
    deviation = pooled[0].std(0, correction=0)
    torch.testing.assert_close(rankings["deviation"].scores, deviation)
    torch.testing.assert_close(rankings["magnitude"].scores, pooled[0].abs().mean(0))
    alive = deviation > 0
    relative = rankings["overall"].scores[alive] / deviation[alive]
    torch.testing.assert_close(rankings["relative"].scores[alive], relative, rtol=1e-6, atol=0)
    assert not rankings["relative"].scores[~alive].any() and 0 < alive.sum() < 10
    low, high = rankings["deviation"].interval[:, alive]
    assert (low < deviation[alive]).all() and (deviation[alive] < high).all()


def test_taylor_is_exact_where_the_loss_is_linear():
    """What removing a channel changes, over the number of places; and only the head runs back."""
    torch.manual_seed(0)
    body, head = nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(5, 2, 1, bias=False)
    model, batch = nn.Sequential(body, nn.ReLU(inplace=True), head).double(), images(4)
    ranking = gpe.rank_channels(
        model, [batch], layer="0", modes=("taylor",), loss=lambda output, _: output.sum()
    )["taylor"]
    with torch.no_grad():
        features = body(batch).relu()
        lost = head.weight.sum(0)[:, 0, 0] * features.mean((2, 3))
    torch.testing.assert_close(ranking.scores, lost.abs().mean(0))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[0]._forward_hooks


def test_taylor_counts_the_class_255_where_there_is_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 300, 6), nn.Flatten()).double()
    batch = images(4, height=8, width=8)
    labels = torch.tensor([255, 7, 255, 299])
    given, own = (
        gpe.rank_channels(model, [(batch, labels)], layer="0", modes=("taylor",), loss=loss)
        for loss in (lambda z, _: nn.functional.cross_entropy(z, labels, reduction="sum"), None)
    )
    torch.testing.assert_close(own["taylor"].scores, given["taylor"].scores, rtol=1e-5, atol=0)


def test_taylor_without_labels_is_refused():
    with pytest.raises(
        gpe.InputError, match="integer labels for 'taylor', or a loss, got NoneType"
    ):
        gpe.rank_channels(stacked(), [images()], layer="features", modes=("taylor",))
    with pytest.raises(gpe.InputError, match="loss: expected one of what the network yields"):
        gpe.rank_channels(
            stacked(), [images()], layer="features", modes=("taylor",), loss=lambda *_: None
        )


def test_matched_channels_deviate_alike_and_nothing_else():
    """Of 600 channels, each rank within 5 %; the first fifty are mostly others, by chance."""
    torch.manual_seed(0)
    deviation, order = torch.randn(600, dtype=torch.float64).exp(), torch.randperm(600)
    shared = []
    for seed in range(3):
        matched = matched_order(order, deviation, seed)
        assert sorted(matched.tolist()) == [*range(600)]
        wanted, got = deviation[order], deviation[matched]
        assert ((got - wanted).abs() <= WITHIN * wanted).all()
        shared.append(len({*matched[:50].tolist()} & {*order[:50].tolist()}))
    assert max(shared) < 20
    assert not torch.equal(matched, matched_order(order, deviation, 0))
    assert torch.equal(matched, matched_order(order, deviation, 2))


def test_any_order_that_fits_is_as_likely():
    deviation = torch.tensor([1.0, 1.0, 1.0, 9.0])
    drawn = [tuple(matched_order(torch.arange(4), deviation, s).tolist()) for s in range(90)]
    counts = {order: drawn.count(order) for order in set(drawn)}
    assert len(counts) == 6 and min(counts.values()) > 5  # 15 each; by chance one in 1000 has 5
    assert all(order[3] == 3 for order in counts)


def test_a_matched_ranking_fits_the_overall_one():
    modes = ("overall", "deviation", "matched:7", "matched")
    rankings = gpe.rank_channels(stacked(), [images()], layer="features", modes=modes)
    deviation = rankings["deviation"].scores
    wanted = deviation[rankings["overall"].order]
    for mode in modes[2:]:
        got = deviation[rankings[mode].order]
        assert ((got - wanted).abs() <= WITHIN * wanted).all()
        assert rankings[mode].mode == mode and rankings[mode].images == 12


def test_what_is_made_of_merged_rankings_is_that_of_all_images():
    parts = [
        gpe.rank_channels(
            stacked(), [some], layer="features", modes=("overall", "deviation"), start=start
        )
        for start, some in ((0, images()[:5]), (5, images()[5:]))
    ]
    merged = {mode: parts[0][mode].merge(parts[1][mode]) for mode in parts[0]}
    whole = gpe.rank_channels(stacked(), [images()], layer="features", modes=("relative",))
    relative = derive(["relative"], merged)["relative"]
    torch.testing.assert_close(relative.scores, whole["relative"].scores)
    with pytest.raises(gpe.InputError, match="rankings: expected one by 'left', got none"):
        derive(["left_right"], merged)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"modes": ("activity",)}, "regions: expected one or more for 'activity', got none"),
        ({"modes": ("activity:full",)}, "regions: expected some of the image outside of 'full'"),
        ({"modes": ("activity:up",)}, "regions: expected each of full.* got 'up'"),
        ({"modes": ("matched:x",)}, "modes: expected some of .*matched:SEED.*got 'matched:x'"),
        ({"modes": ("left_right",), "subsets": {"left": [1]}}, "ids of the images for 'right'"),
    ),
)
def test_wrong_arguments_name_themselves(options, message):
    with pytest.raises(gpe.InputError, match=message):
        gpe.rank_channels(stacked(), [images()], layer="features", **options)


def test_activity_needs_maps():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 4)).double()
    with pytest.raises(gpe.InputError, match="to yield maps for activity:left, got"):
        gpe.rank_channels(model, [images()], layer="1", modes=("activity:left",))

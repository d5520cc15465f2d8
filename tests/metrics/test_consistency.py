"""Shift consistency: models whose answer is known, batches, processes, intervals, errors."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn
from torchmetrics import MetricCollection

import gpe
from gpe.errors import InputError
from gpe.metrics import ShiftConsistency, shift_consistency
from gpe.metrics.consistency import _consistency

PROTOCOLS = ("crop", "zeros", "reflect", "circular")


def sample(count=12, side=16):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, side, side)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 4, (count,), generator=generator)


def small_network():
    """Convolutions, batch norm and a linear layer: its predictions depend on the shifts."""
    torch.manual_seed(0)
    features = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)
    return nn.Sequential(*features, nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


# Models whose answer is known


def constant(views):
    return torch.tensor([0.0, 1.0, 0.0]).expand(len(views), 3)


def brightest_channel(views):
    """No shift in a circle changes it; a maximum has no rounding."""
    return views.amax((2, 3))


def corner_is_bright(views):
    corner = views[:, 0, 0, 0]
    return torch.stack([1 - corner, corner], dim=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_constant_prediction_is_consistent(protocol):
    images, _ = sample()
    target = torch.tensor([0, 1, 1] * 4)
    result = shift_consistency(constant, images, target, max_shift=4, protocol=protocol, passes=3)
    assert result.consistency == 1
    assert result.pairs == 36
    assert result.accuracy == 2 / 3
    assert [type(value) for value in result] == [float, tuple, int, float]


def test_a_model_blind_to_circular_shifts_is_consistent_under_these_alone():
    images, _ = sample(200, 4)
    circular = shift_consistency(brightest_channel, images, max_shift=4, protocol="circular")
    cropped = shift_consistency(brightest_channel, images, max_shift=1, protocol="crop")
    assert circular.consistency == 1
    assert cropped.consistency < 0.9


def test_a_model_that_reads_one_pixel_agrees_as_often_as_counting_says():
    """The corner of a view is bright where both its shifts exceed 0."""
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[:, :, 3:, 3:] = 255
    images = images.expand(4000, -1, -1, -1)
    result = shift_consistency(corner_is_bright, images, max_shift=2, protocol="crop")
    bright = [row > 0 and column > 0 for row, column in product(range(-2, 3), repeat=2)]
    agree = [one == other for one, other in product(bright, repeat=2)]
    expected = sum(agree) / len(agree)
    assert abs(result.consistency - expected) < 3 * (expected * (1 - expected) / 4000) ** 0.5
    assert result.interval[0] < expected < result.interval[1]


# The same number, however it is counted


OPTIONS = {"max_shift": 3, "protocol": "zeros", "passes": 2, "seed": 3, "mean": 0.5, "std": 0.25}


@pytest.fixture(scope="module")
def whole():
    """Images, labels, a network, and its consistency in one batch, neither 0 nor 1."""
    images, target = sample(530)
    model = small_network()
    result = shift_consistency(model, images, target, batch_size=530, **OPTIONS)
    assert 0.2 < result.consistency < 0.9
    return images, target, model, result


@pytest.mark.parametrize("batch_size", (1, 7, 512))
def test_batch_size_changes_nothing(whole, batch_size):
    images, target, model, expected = whole
    assert shift_consistency(model, images, target, batch_size=batch_size, **OPTIONS) == expected


def test_order_of_images_changes_nothing(whole):
    images, target, model, expected = whole
    order = torch.randperm(530, generator=torch.Generator().manual_seed(1))
    mixed = images[order], target[order]
    assert shift_consistency(model, *mixed, indices=order, **OPTIONS) == expected
    assert shift_consistency(model, *mixed, **OPTIONS) != expected


@pytest.mark.parametrize("change", ({"seed": 4}, {"passes": 3}))
def test_seed_and_passes_change_it(whole, change):
    images, target, model, expected = whole
    assert shift_consistency(model, images, target, **OPTIONS | change) != expected


def test_metric_numbers_the_images_as_they_come(whole):
    images, target, model, expected = whole
    metric = gpe.ShiftConsistency(**OPTIONS)
    for batch in zip(images.split(200), target.split(200), strict=True):
        metric.update(model, *batch)
    assert metric.compute() == expected


def test_forward_adds_a_batch_and_returns_it_alone(whole):
    images, target, model, expected = whole
    metric = ShiftConsistency(**OPTIONS)
    batches = list(zip(images.split(200), target.split(200), strict=True))
    alone = [metric(model, *batch) for batch in batches]
    assert metric.compute() == expected
    indices = torch.arange(200, 400)
    assert alone[1] == shift_consistency(model, *batches[1], indices=indices, **OPTIONS)


def test_parts_can_be_saved_and_merged_and_reset(whole):
    images, target, model, expected = whole
    parts = [ShiftConsistency(**OPTIONS) for _ in range(2)]
    for part, metric in enumerate(parts):
        indices = torch.arange(part, 530, 2)
        metric.update(model, images[part::2], target[part::2], indices=indices)
    merged = pickle.loads(pickle.dumps(parts[0]))
    merged.merge_state(parts[1])
    assert merged.compute() == expected
    merged.reset()
    merged.update(model, images, target)
    assert merged.compute() == expected


def test_two_processes_give_the_number_of_one(whole, tmp_path):
    """Unequal shards, in another order and in other batches, summed by gloo."""
    images, target, model, expected = whole
    # Forked, with one thread each, as the workers of a DataLoader are: nothing is imported anew.
    run = {"args": (model, images, target, tmp_path), "nprocs": 2, "start_method": "fork"}
    torch.multiprocessing.start_processes(one_of_two, **run)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [expected, expected]


def one_of_two(rank, model, images, target, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    metric = ShiftConsistency(**OPTIONS)
    with pytest.raises(InputError, match=r"indices: expected the images' indices .* got None"):
        metric.update(model, images, target)
    mine = torch.arange(180) if rank else torch.arange(180, 530).flip(0)
    for indices in mine.split(7 if rank else 100):
        metric.update(model, images[indices], target[indices], indices=indices)
    torch.save(tuple(metric.compute()), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_number_of_the_cpu(whole):
    """In float64, where rounding brings no two logits level."""
    images, target, model, _ = whole
    results = [
        shift_consistency(
            copy.deepcopy(model).to(device, torch.float64),
            images.to(device),
            target.to(device),
            dtype=torch.float64,
            **OPTIONS,
        )
        for device in ("cpu", "cuda")
    ]
    assert results[0] == results[1]
    metric = ShiftConsistency(dtype=torch.float64, **OPTIONS).to("cuda")
    metric.update(model.double().cuda(), images.cuda(), target.cuda())
    assert metric.compute() == results[0]


# Accuracy


def test_accuracy_counts_both_views_of_every_pair():
    images, target = sample(50)
    model, classes = small_network(), []
    model.register_forward_hook(lambda *called: classes.append(called[-1].argmax(1)))
    options = {"max_shift": 2, "protocol": "reflect", "passes": 3}
    result = shift_consistency(model, images, target, **options)
    hits = torch.stack(classes) == target.repeat(2)
    assert hits.shape == (3, 2 * 50)
    assert result.accuracy == hits.sum().item() / hits.numel()


def test_accuracy_is_of_the_images_that_came_with_a_target():
    images, target = sample(8)
    metric = ShiftConsistency(max_shift=1, protocol="crop")
    metric.update(constant, images)
    assert metric.compute().accuracy is None
    metric.update(constant, images, torch.ones_like(target))
    assert metric.compute().accuracy == 1


# Interval


def interval(agreements, passes):
    """Of images of which each agrees in so many passes."""
    a = torch.as_tensor(agreements)
    return _consistency(torch.tensor([len(a), a.sum(), (a * a).sum(), 0, 0]), passes).interval


def wilson(agreements, count):
    return pytest.approx(tuple(binomtest(agreements, count).proportion_ci(method="wilson")))


@pytest.mark.parametrize("agree", (0, 1, 37, 99, 100))
def test_interval_of_one_pass_is_wilsons(agree):
    assert interval([1] * agree + [0] * (100 - agree), 1) == wilson(agree, 100)


@pytest.mark.parametrize("agree", (0, 60, 100))
def test_passes_that_repeat_each_other_are_worth_one(agree):
    assert interval([5] * agree + [0] * (100 - agree), 5) == wilson(agree, 100)


def test_passes_that_vary_less_than_chance_are_worth_their_pairs_and_no_more():
    assert interval([3] * 50 + [2] * 50, 5) == wilson(250, 500)
    assert interval([2] * 100, 4) == wilson(200, 400)


def test_interval_holds_the_share_itself():
    """Where all agree or none do, rounding must not leave it out."""
    for count in range(1, 300):
        assert interval([1] * count, 1)[1] == 1
        assert interval([0] * count, 1)[0] == 0


@pytest.mark.parametrize("passes", (1, 5))
@pytest.mark.parametrize("spread", (0.3, 2.0, 30.0))
def test_interval_covers_the_truth_as_often_as_it_says(passes, spread):
    """Each image has its own chance to agree, from a beta distribution of mean 0.8."""
    torch.manual_seed(0)
    chances = torch.distributions.Beta(0.8 * spread, 0.2 * spread).sample((2000, 200))
    agreements = torch.binomial(torch.full_like(chances, passes), chances).long()
    intervals = [interval(a, passes) for a in agreements]
    covered = sum(low <= 0.8 <= high for low, high in intervals) / 2000
    # 2000 trials leave a standard deviation of 0.5 %.
    assert 0.93 < covered < 0.97


# The model is left as it was


class Moody(nn.Module):
    """Keeps what it saw of modes and gradients; one part is in another mode than the rest."""

    def __init__(self, fails):
        super().__init__()
        self.parts = nn.ModuleList([nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)])
        self.fails = fails

    def forward(self, views):
        self.seen = modes(self), torch.is_grad_enabled()
        if self.fails:
            raise RuntimeError("out of memory")
        return self.parts[1](self.parts[0](views)).flatten(1)


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", (False, True))
@pytest.mark.parametrize("stateful", (False, True))
def test_model_runs_in_evaluation_mode_and_is_left_in_its_own(stateful, fails):
    model, (images, _) = Moody(fails), sample()
    mode, state = modes(model), copy.deepcopy(model.state_dict())
    options = {"max_shift": 1, "protocol": "zeros"}
    try:
        if stateful:
            ShiftConsistency(**options)(model, images)
        else:
            shift_consistency(model, images, **options)
    except RuntimeError:
        assert fails
    assert model.seen == ([False] * 4, False)
    assert modes(model) == mode == [True, True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    shift_consistency(constant, sample()[0], max_shift=1, protocol="crop")
    assert torch.equal(state, torch.get_rng_state())


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"protocol": "wrap"}, "protocol: expected one of crop, zeros, .*, got 'wrap'"),
        ({"max_shift": -1}, "max_shift: expected an integer of at least 0, got -1"),
        ({"max_shift": 1.5}, "max_shift: expected an integer of at least 0, got 1.5"),
        ({"passes": 0}, "passes: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"size": 0}, "size: expected an integer of at least 1, or two of them, got 0"),
        ({"size": (4, 4, 4)}, r"size: expected .*, got \(4, 4, 4\)"),
        ({"size": 18}, r"size: expected .* protocol crop .* \[16, 16\], got \[18, 18\]"),
        (
            {"size": 12, "max_shift": 3},
            "max_shift: expected at most 2, the border that protocol crop has, got 3",
        ),
        (
            {"max_shift": 8},
            "max_shift: expected at most 7, the border that protocol crop has, got 8",
        ),
        (
            {"protocol": "reflect", "max_shift": 16},
            "max_shift: expected at most 15, the reach that protocol reflect has, got 16",
        ),
        (
            {"protocol": "circular", "size": 14, "max_shift": 18},
            "max_shift: expected at most 17, the reach that protocol circular has, got 18",
        ),
        ({"images": torch.zeros(2, 3, 8, 8)}, "images: expected torch.uint8 .*float32"),
        ({"images": sample()[0][0]}, r"images: .*, got torch.uint8 \[3, 16, 16\]"),
        ({"images": sample()[0][:0]}, r"images: .*, got torch.uint8 \[0, 3, 16, 16\]"),
        ({"target": torch.zeros(11).long()}, r"target: expected .*\[12\].*, got .*\[11\]"),
        ({"target": torch.zeros(12)}, "target: expected torch.int64 .*float32"),
        ({"target": torch.zeros(12).long().to("meta")}, "target: expected the device .* meta"),
        ({"target": torch.full((12,), 3)}, "target: expected classes from 0 to 2, got 3 to 3"),
        ({"target": torch.full((12,), -1)}, "target: expected classes from 0 to 2, got -1"),
        ({"indices": torch.arange(3)}, r"indices: expected .*\[12\].*, got .*\[3\]"),
        ({"model": lambda views: {"out": views}}, r"model: expected logits \[24,K\], got dict"),
        ({"model": lambda views: (views, views)}, "model: expected logits .*, got tuple"),
        ({"model": lambda views: views}, r"model: expected logits .*, got \[24, 3, 14, 14\]"),
        ({"model": lambda views: views[:3, 0, 0]}, r"model: expected logits .*, got \[3, 14\]"),
        ({"model": lambda views: views[:, 0, 0, :1]}, r"model: .* 2 or more .* \[24, 1\]"),
        ({"model": lambda views: views[:, 0, 0] / 0 * 0}, r"model: .* NaN .* \[24, 14\]"),
    ),
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"model": constant, "images": sample()[0], "max_shift": 1, "protocol": "crop"}
    with pytest.raises(InputError, match=message):
        shift_consistency(**defaults | arguments)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_images_no_number():
    with pytest.raises(InputError, match="images: expected one or more, got none"):
        ShiftConsistency(max_shift=1, protocol="crop").compute()


def test_metrics_in_a_collection_keep_their_own_states():
    """The first batch is one colour, so that no shift changes a thing."""
    kinds = {"small": np.int64(1), "large": np.int32(3)}
    both = MetricCollection(
        {n: ShiftConsistency(max_shift=shift, protocol="circular") for n, shift in kinds.items()}
    )
    images, _ = sample(40)
    first, model = torch.zeros_like(images), small_network()
    both.update(model, first)
    both.update(model, images)
    for name, shift in kinds.items():
        alone = ShiftConsistency(max_shift=int(shift), protocol="circular")
        alone.update(model, first)
        alone.update(model, images)
        assert both[name].compute() == alone.compute()
    assert both["small"].compute() != both["large"].compute()

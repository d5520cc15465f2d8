"""AugShift trials: how each row is trained, what is drawn, what the network sees."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from timm.layers import BlurPool2d
from torch.nn import functional as F

from gpe.data import ImageSet, epoch_order
from gpe.experiments.augshift.config import METHODS
from gpe.experiments.augshift.run import AugShiftTrial
from tests.experiments.tiny import config, same


def noise(count, side=10):
    """Images of which no two crops are alike, and whose normalised pixels are the pixels."""
    draws = torch.Generator().manual_seed(5)
    pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=draws)
    labels = torch.randint(10, (count,), generator=draws)
    return ImageSet(pixels, labels, tuple("0123456789"), (0.0,) * 3, (1 / 255,) * 3)


def trial(method="augshift", images=60, **options):
    return AugShiftTrial(config(method, **options), noise(images), noise(40))


@pytest.fixture
def seen():
    """A function from a trial and an epoch to the batches that its network saw in training."""

    def of(trial, epoch=1):
        batches = []
        hook = trial.model.backbone.register_forward_pre_hook(
            lambda _, inputs: batches.append(inputs[0].detach().clone())
        )
        *_, of.tally = trial.train_epoch(epoch)
        hook.remove()
        assert of.tally.count == sum(map(len, batches)), "each crop is counted"
        return batches

    return of


# How each row is trained


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_one_of_sgd_down_the_row_s_own_loss(method, relative, seen):
    """(ℓ1 + ℓ2 + λ·MSE) / 2 of two crops, ℓ of one; λ is 0 in rows without the loss."""
    crops, loss, blur = (getattr(METHODS[method], name) for name in ("crops", "loss", "blur"))
    assert crops == (1 if method in ("baseline", "blurpool") else 2)
    assert loss == ("augshift" in method) and blur == ("blurpool" in method)

    options = {"epoch_images": 8, "batch_size": 8, "label_smoothing": 0.1}
    ours = trial(method, relative=relative, **options)
    assert any(isinstance(module, BlurPool2d) for module in ours.model.modules()) == blur
    (group,) = ours.optimizer.param_groups
    before, rate = copy.deepcopy(ours.model).train(), group["lr"]
    (images,) = seen(ours)

    latents = before.forward_features(images).mean((2, 3))
    order = epoch_order(60, seed=0, epoch=1, samples=8 // crops)
    target = ours.train_set.labels[order].repeat(crops)
    unsmoothed = F.cross_entropy(before.head(latents), target).item()
    assert seen.tally.loss == pytest.approx(unsmoothed, rel=1e-4)
    # The mean over crops is half of Equation 1's sum.
    expected = F.cross_entropy(before.head(latents), target, label_smoothing=0.1)
    if loss:
        assert ours.config.weight == 2
        scale = latents.var(0, correction=0).mean() if relative else 1
        expected = expected + 2 * F.mse_loss(*latents.chunk(2)) / scale / 2
    expected.backward()
    for now, then in zip(ours.model.parameters(), before.parameters(), strict=True):
        # PyTorch's Nesterov momentum, in its first step.
        slope = (1 + 0.9) * (then.grad + 5e-4 * then)
        torch.testing.assert_close(now, then - rate * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_all_rows_see_equally_many_crops_in_a_step_and_in_an_epoch(method, seen):
    """By half as many images where each has two crops."""
    ours = trial(method)
    assert list(map(len, seen(ours))) == [16, 16, 16, 12]
    assert ours.images_per_epoch == 60


@pytest.mark.parametrize("method", METHODS)
def test_without_equal_compute_rows_see_equally_many_images(method, seen):
    """And so twice as many crops where each has two: the paper's way."""
    ours = trial(method, equal_compute=False)
    crops = METHODS[method].crops
    assert [len(batch) for batch in seen(ours)] == [crops * n for n in (16, 16, 16, 12)]
    assert ours.images_per_epoch == crops * 60


def test_an_epoch_goes_through_the_whole_set_where_nothing_else_is_said(seen):
    ours = trial("baseline", images=50, preset="paper", epoch_images=None, batch_size=None)
    assert list(map(len, seen(ours))) == [50] and ours.config.batch_size == 128


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_the_learning_rate_ends_at_zero(schedule, seen):
    """Once over the whole training, step by step."""
    ours = trial(schedule=schedule, learning_rate=0.2)
    (group,) = ours.optimizer.param_groups
    rates = [group["lr"]]  # of each step, and one that no step uses
    for epoch in (1, 2):
        rates += [group["lr"] for _ in ours.train_epoch(epoch)]
    if schedule == "cosine":
        assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * t / 8)) for t in range(9)])
    else:
        assert len(rates) == 9
        assert rates[0] < 0.02 and max(rates) > 0.19 and rates[-2] < 1e-4


def test_steps_are_a_tenth_every_30_epochs():
    """torchvision's recipe for ImageNet."""
    options = {"epoch_images": 4, "batch_size": 2, "width": 1}
    ours = trial("baseline", schedule="step", learning_rate=1e-3, epochs=31, **options)
    (group,) = ours.optimizer.param_groups
    rates = []
    for epoch in range(1, 32):
        rates.append(group["lr"])
        assert len(list(ours.train_epoch(epoch))) == 2
    assert rates == pytest.approx([1e-3] * 30 + [1e-4])


@pytest.mark.parametrize(("stem", "side"), [("cifar", 9), ("grid", 17), ("imagenet", 33)])
def test_the_smallest_images_can_be_trained_on(stem, side):
    """With a last batch of one crop, and blurred: the least that batch norm has to go by."""
    chosen = config("blurpool", stem=stem, image_size=side, epoch_images=17)
    *_, last = AugShiftTrial(chosen, noise(20, side), noise(2, side)).train_epoch(1)
    assert last.count == 17 and math.isfinite(last.loss)


# What is drawn


def place(crop, image, reach):
    """How far off the centre of a black-bordered image a crop lies, and whether it is mirrored."""
    padded = F.pad(image, (reach,) * 4)
    height, width = crop.shape[1:]
    found = [
        (row - reach, column - reach, mirrored)
        for mirrored in (False, True)
        for row in range(2 * reach + 1)
        for column in range(2 * reach + 1)
        if torch.equal(
            padded[:, row : row + height, column : column + width],
            crop.flip(2) if mirrored else crop,
        )
    ]
    assert len(found) == 1, "an image of noise has one place for a crop"
    return found[0]


def places(trial, batches, epoch, reach):
    """The ``place`` of each crop of an epoch, ``[views, images, 3]``."""
    crops = METHODS[trial.config.method].crops
    order = epoch_order(len(trial.train_set), seed=trial.config.seed, epoch=epoch)
    views = [batch.round().to(torch.uint8).chunk(crops) for batch in batches]
    return torch.tensor(
        [
            [place(crop, trial.train_set.images[i], reach) for crop, i in zip(*pair, strict=False)]
            for pair in ((torch.cat([batch[v] for batch in views]), order) for v in range(crops))
        ]
    )


@pytest.mark.parametrize("method", ["baseline", "augshift"])
def test_crops_lie_within_crop_shift_of_the_centre(method, seen):
    """Over the whole range in both axes; half of them mirrored; the views independent."""
    ours = trial(method, images=200, crop_shift=2, epoch_images=200)
    found = places(ours, seen(ours), 1, reach=3)
    for axis in (0, 1):
        assert found[..., axis].unique().tolist() == [-2, -1, 0, 1, 2]
    share = found[..., 2].float().mean()
    assert abs(share - 0.5) < 0.15  # four standard deviations
    for one, other in pairwise(found):
        assert (one != other).any(0).all()


@pytest.mark.parametrize("method", ["baseline", "augshift"])
def test_without_shift_and_flip_a_crop_is_the_image(method, seen):
    ours = trial(method, crop_shift=0, flip=False)
    assert (places(ours, seen(ours), 1, reach=1) == 0).all()


def test_crops_are_drawn_anew_each_epoch_and_from_the_seed(seen):
    """Each epoch's alone: which epochs went before in this process does not matter."""
    ours = trial(crop_shift=2)
    first, second = (places(ours, seen(ours, epoch), epoch, 2) for epoch in (1, 2))
    assert not torch.equal(first, second)
    other = trial(crop_shift=2)
    assert torch.equal(places(other, seen(other, 2), 2, 2), second)
    other = trial(crop_shift=2, seed=1)
    assert not torch.equal(places(other, seen(other), 1, 2), first)


def test_rows_of_one_seed_begin_with_the_same_weights():
    """BlurPool has none of its own; another seed has others."""
    first, *others = (trial(method).model.state_dict() for method in METHODS)
    learnt = [name for name in first if "blur" not in name]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in learnt)
    assert not same(first, trial("baseline", seed=1).model.state_dict())


# What the network sees


def test_the_network_sees_normalised_test_images():
    ours, batches = trial(), []
    ours.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    ours.test(1)
    images = ours.test_set.images.float()
    torch.testing.assert_close(torch.cat(batches), images, rtol=1e-5, atol=1e-4)


def test_crops_and_maps_are_of_bf16_and_channels_last():
    """At 16 channels and more, where it is safe on a CPU."""
    ours, strides = trial(width=16, precision="bf16", epoch_images=8, batch_size=8), []
    ours.model.backbone.register_forward_hook(
        lambda _, inputs, maps: strides.extend((inputs[0], maps))
    )
    list(ours.train_epoch(1))
    assert {tensor.dtype for tensor in strides} == {torch.bfloat16}
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in strides)

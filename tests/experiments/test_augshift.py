"""AugShift runs: how each row is trained, what is drawn, what is kept, and used again."""

import copy
import io
import json
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from timm.layers import BlurPool2d
from torch.nn import functional as F

from gpe.data import ImageSet, epoch_order, load
from gpe.errors import InputError
from gpe.experiments.augshift import AugShiftTrial, load_trained, run
from gpe.experiments.augshift_config import METHODS, AugShiftConfig
from gpe.experiments.progress import Progress
from gpe.experiments.training import CHECKPOINT
from gpe.experiments.under_shifts import SHIFT_SEED
from gpe.metrics import shift_consistency
from gpe.records import RECORD, Record, load_arrays

TINY = {
    "data": "digits",
    "device": "cpu",
    "stem": "cifar",
    "image_size": 10,
    "width": 4,
    "epochs": 2,
    "train_images": 60,
    "test_images": 40,
    "epoch_images": 60,
    "batch_size": 16,
    "test_batch_size": 16,
    "learning_rate": 0.05,
    "weight": 2.0,
    "shifts": (1, 3),
    "passes": 2,
}


def config(method="augshift", preset="quick", **options):
    return AugShiftConfig.of_preset(preset, method, **TINY | options)


def train(out, *configs, **options):
    """The directories of the configurations, run below ``out``, and what was shown meanwhile."""
    console = Console(file=io.StringIO())
    directories = run(configs, out, progress=Progress(console), **options)
    return directories, console.file.getvalue()


def noise(count, side=10):
    """Images of which no two crops are alike, and whose normalised pixels are the pixels."""
    draws = torch.Generator().manual_seed(5)
    pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=draws)
    labels = torch.randint(10, (count,), generator=draws)
    return ImageSet(pixels, labels, tuple("0123456789"), (0.0,) * 3, (1 / 255,) * 3)


def trial(method="augshift", images=60, **options):
    return AugShiftTrial(config(method, **options), noise(images), noise(40))


def outside_run(directory):
    record = json.loads((directory / RECORD).read_text())
    return {name: value for name, value in record.items() if name != "run"}


def weights(directory):
    return torch.load(directory / CHECKPOINT, weights_only=True)["trial"]["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def seen():
    """A function from a trial and an epoch to the batches that its network saw in training."""

    def of(trial, epoch=1):
        batches = []
        hook = trial.model.backbone.register_forward_pre_hook(
            lambda _, inputs: batches.append(inputs[0].detach().clone())
        )
        *_, tally = trial.train_epoch(epoch)
        hook.remove()
        assert tally.count == sum(map(len, batches)), "each crop is counted"
        return batches

    return of


# How each row is trained


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_one_of_sgd_down_the_row_s_own_loss(method, relative, seen):
    """(ℓ1 + ℓ2 + λ·MSE) / 2 of two crops, ℓ of one; λ is 0 in rows without the loss."""
    crops, loss, blur = METHODS[method]
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


def test_wide_crops_are_augshift_without_its_loss(tmp_path):
    """The same network bit for bit with λ = 0, and another one with λ."""
    configs = [config("wide-crops", epochs=1), config(weight=0.0, epochs=1), config(epochs=1)]
    wide, without, augshift = (weights(directory) for directory in train(tmp_path, *configs)[0])
    assert same(wide, without)
    assert not same(wide, augshift)


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


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path):
    first, again = (train(tmp_path / name, config())[0][0] for name in "ab")
    assert outside_run(first) == outside_run(again)
    assert same(weights(first), weights(again))
    assert same(load_arrays(first), load_arrays(again))
    other = outside_run(train(tmp_path, config(seed=1))[0][0])
    assert other["epochs"] != outside_run(first)["epochs"]


def test_the_validation_split_never_reads_a_test_image(tmp_path, image_tree):
    """Which are damaged here: with the split that tests on them, there is no run."""
    for file in (image_tree / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    chosen = partial(config, data=str(image_tree), epochs=1)
    (directory,), _ = train(tmp_path / "out", chosen(split="validation"))
    record = Record.load(directory)
    assert record.config["split"] == "validation"
    # A fifth of the training images of each class, of two passes each.
    assert [row["pairs"] for row in record.result["consistency"]] == [2 * 2, 2 * 2]
    with pytest.raises(InputError, match="data: cannot read the image "):
        train(tmp_path / "out", chosen(split="test"))


# What is kept


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function from a configuration to the directory of its run, run once."""
    directories = {}

    def of(chosen):
        if chosen not in directories:
            directories[chosen] = train(tmp_path_factory.mktemp("runs"), chosen)[0][0]
        return directories[chosen]

    return of


def test_the_record_says_what_was_run_and_what_was_found(trained):
    chosen = config()
    record = Record.load(trained(chosen))
    assert record.experiment == "augshift" and record.paper is None
    assert record.config == json.loads(json.dumps(vars(chosen)))
    assert record.config["equal_compute"] is True
    assert record.chance == 10
    assert [epoch["epoch"] for epoch in record.epochs] == [1, 2]
    last = record.epochs[-1]
    assert record.result["last"] == {"epoch": 2, "test_accuracy": last["test_accuracy"]}
    assert record.result["classes"] == list("0123456789")
    rows = record.result["consistency"]
    assert [row["shift"] for row in rows] == [1, 3]
    for row in rows:
        assert row.keys() == {"shift", "consistency", "low", "high", "pairs", "accuracy"}
        assert 0 <= row["low"] <= row["consistency"] <= row["high"] <= 100
        assert row["pairs"] == 40 * 2 and 0 <= row["accuracy"] <= 100
    assert max(row["consistency"] for row in rows) > 1, "in percent"


@pytest.mark.parametrize("protocol", ["zeros", "reflect", "circular"])
def test_a_trained_network_is_used_again_with_what_was_found(protocol, trained):
    """load_trained: the same consistency, accuracy and probabilities, on the same images."""
    directory = trained(config(protocol=protocol))
    opened = load_trained(directory)
    record, arrays = Record.load(directory), load_arrays(directory)
    _, test = load("digits", image_size=10, train_images=60, test_images=40)
    assert opened.name == directory.name and opened.classes == 10
    assert (opened.mean, opened.std) == (test.mean, test.std)
    assert (opened.input_size, opened.resize_size) == (10, 10)
    assert not opened.model.training

    for row in record.result["consistency"]:
        result = shift_consistency(
            opened.model,
            test.images,
            test.labels,
            max_shift=row["shift"],
            protocol=protocol,
            passes=2,
            seed=SHIFT_SEED,
            mean=opened.mean,
            std=opened.std,
        )
        assert row["consistency"] == pytest.approx(100 * result.consistency)
        assert row["accuracy"] == pytest.approx(100 * result.accuracy)

    mean, std = (torch.tensor(v)[:, None, None] for v in (opened.mean, opened.std))
    with torch.no_grad():
        logits = opened.model((test.images / 255 - mean) / std)
    accuracy = 100 * (logits.argmax(1) == test.labels).float().mean().item()
    assert record.epochs[-1]["test_accuracy"] == pytest.approx(accuracy)

    chosen = torch.arange(16) * 40 // 16  # spread over the test set
    assert torch.equal(arrays["images"], test.images[chosen])
    assert torch.equal(arrays["labels"], test.labels[chosen])
    (middle,) = (arrays["shifts"] == 0).nonzero()
    unshifted = arrays["probabilities"][:, middle[0]]
    torch.testing.assert_close(unshifted, logits[chosen].softmax(1), rtol=1e-4, atol=1e-5)


def test_the_network_sees_normalised_test_images():
    ours, batches = trial(), []
    ours.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    ours.test(1)
    images = ours.test_set.images.float()
    torch.testing.assert_close(torch.cat(batches), images, rtol=1e-5, atol=1e-4)


def test_what_is_no_checkpoint_of_an_augshift_run_is_refused_in_a_line(trained, tmp_path):
    state = torch.load(trained(config()) / CHECKPOINT, weights_only=True)
    wider = state | {"config": state["config"] | {"width": 5}}
    files = {
        "of gpe location": stored(state | {"config": {"network": "gapnet", "task": "object"}}),
        "damaged": (trained(config()) / CHECKPOINT).read_bytes()[:1000],
        "empty": b"",
        "missing": None,
        "of other weights": stored(wider),
        "without images": stored(state | {"trial": {"model": state["trial"]["model"]}}),
        "a list": stored([1, 2]),
    }
    for name, content in files.items():
        directory = tmp_path / name
        directory.mkdir()
        if content is not None:
            (directory / CHECKPOINT).write_bytes(content)
        with pytest.raises(InputError) as error:
            load_trained(directory)
        message = str(error.value)
        expected = f"model: expected {directory / CHECKPOINT} to be a checkpoint of gpe augshift, "
        assert message.startswith(expected) and "\n" not in message, name


def stored(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_a_finished_run_is_not_run_again_unless_asked(tmp_path):
    (directory,), shown = train(tmp_path, config(epochs=1))
    assert "epoch 1/1" in shown
    before = (directory / RECORD).read_bytes()
    _, shown = train(tmp_path, config(epochs=1))
    assert "finished before" in shown and "epoch" not in shown
    assert (directory / RECORD).read_bytes() == before
    _, shown = train(tmp_path, config(epochs=1), force=True)
    assert "epoch 1/1" in shown


def test_bf16_and_channels_last_train_alike(tmp_path):
    """At 16 channels and more, maps are channels-last; bf16 rounds."""
    chosen = partial(config, width=16, epochs=1, epoch_images=16)
    half, full = (
        outside_run(train(tmp_path, chosen(precision=precision))[0][0])["epochs"][0]
        for precision in ("bf16", "fp32")
    )
    assert half["train_loss"] != full["train_loss"]
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)

    ours, strides = trial(width=16, precision="bf16", epoch_images=8, batch_size=8), []
    ours.model.backbone.register_forward_hook(
        lambda _, inputs, maps: strides.extend((inputs[0], maps))
    )
    list(ours.train_epoch(1))
    assert {tensor.dtype for tensor in strides} == {torch.bfloat16}
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in strides)


def test_a_compiled_run_is_the_same_and_its_weights_are_kept(tmp_path, monkeypatch):
    """Training step and network are compiled, here to what they were."""
    compiled = []

    def take(graph, _):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=take))
    few = {"epochs": 1, "epoch_images": 16, "test_images": 16, "shifts": (1,)}
    runs = [train(tmp_path, config(compile=compile, **few))[0][0] for compile in (True, False)]
    assert len(compiled) >= 2
    assert same(*map(weights, runs))
    records = [outside_run(directory) for directory in runs]
    assert records[0]["config"]["compile"] and records[0]["epochs"] == records[1]["epochs"]
    assert records[0]["result"] == records[1]["result"]


# Large images


@pytest.mark.parametrize(
    ("reading", "protocol", "method"),
    [
        ("resized", "zeros", "augshift"),
        ("plain", "crop", "augshift"),
        ("plain", "zeros", "baseline"),
    ],
)
def test_large_images_of_any_size_train_and_test(reading, protocol, method, tmp_path, image_tree):
    options = {"image_size": 36, "resize_size": 44, "stem": "imagenet", "crop_shift": 2}
    chosen = config(
        method,
        data=str(image_tree),
        images="large",
        reading=reading,
        protocol=protocol,
        epochs=1,
        **TINY_LARGE | options,
    )
    (directory,), _ = train(tmp_path / "out", chosen, workers=0)
    record, arrays = Record.load(directory), load_arrays(directory)
    assert record.result["classes"] == ["cat", "dog"]
    assert [row["pairs"] for row in record.result["consistency"]] == [8, 8]
    side = 44 if protocol == "crop" else 36
    assert arrays["images"].shape == (4, 3, side, side)
    opened = load_trained(directory)
    assert (opened.input_size, opened.resize_size, opened.classes) == (36, 44, 2)
    assert (opened.mean, opened.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    # Unmoved: the centre of the image as it was read, for each protocol.
    border = (side - 36) // 2
    centre = arrays["images"][:, :, border : border + 36, border : border + 36]
    mean, std = (torch.tensor(v)[:, None, None] for v in (opened.mean, opened.std))
    with torch.no_grad():
        expected = opened.model((centre / 255 - mean) / std).softmax(1)
    (middle,) = (arrays["shifts"] == 0).nonzero()
    unshifted = arrays["probabilities"][:, middle[0]]
    torch.testing.assert_close(unshifted, expected, rtol=1e-4, atol=1e-5)


TINY_LARGE = {"train_images": None, "test_images": None, "epoch_images": None, "batch_size": 8}


def test_imagenet_trains_and_tests(tmp_path, imagenet_tree):
    options = {"image_size": 36, "resize_size": 44, "stem": None, "crop_shift": None, "weight": 1.0}
    chosen = config(data="imagenet", epochs=1, **TINY_LARGE | options)
    (directory,), _ = train(tmp_path / "out", chosen, root=imagenet_tree, workers=0)
    record = Record.load(directory)
    assert record.config["stem"] == "imagenet" and record.config["crop_shift"] == 16
    assert record.result["classes"] == ["tench", "goldfish"]
    assert record.paper["consistency"] == {"8": 90.2, "16": 88.2}


def test_what_cannot_be_had_is_said_before_anything_is_trained(tmp_path):
    for data, options in (("absent", {}), ("imagenet", {}), ("digits", {"images": "large"})):
        with pytest.raises(InputError, match=rf"data: (there is no {data}|no imagenet in )"):
            train(tmp_path / "out", config(data=data, **options, **LARGE_ENOUGH), root=tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"out: cannot make {tmp_path / 'file'}/augshift-"):
        train(tmp_path / "file", config())


LARGE_ENOUGH = {"image_size": 36}


def test_a_learning_rate_that_is_too_large_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"learning_rate: the (loss|features) became (nan|inf) in epoch \d"
    ):
        train(tmp_path, config(learning_rate=1e30, schedule="cosine"))

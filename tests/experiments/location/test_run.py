"""Location runs: how they are trained, what is drawn, what is kept, what is learnt."""

import json
from functools import partial

import pytest
import torch

from gpe.data import epoch_order, load
from gpe.errors import InputError
from gpe.experiments.location import run as location
from gpe.experiments.location.config import LocationConfig
from gpe.experiments.location.run import LocationTrial, run
from gpe.experiments.runs import CHECKPOINT
from gpe.records import RECORD, Record, load_arrays
from tests.experiments.tiny import launch, outside_run

TINY = {
    "network": "gapnet",
    "padding_mode": "zeros",
    "data": "digits",
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "seed": 0,
    "grid_size": 2,
    "image_size": 10,
    "width": 4,
    "epochs": 2,
    "train_images": 60,
    "test_images": 40,
    "batch_size": 16,
    "test_batch_size": 16,
    "bn_batches": 0,
}


def config(preset="quick", task="location", **options):
    return LocationConfig.of(preset=preset, task=task, **TINY | options)


def train(out, *configs, **places):
    return launch(run, out, *configs, **places)


def trial(**options):
    chosen = config(**options)
    sets = load(
        "digits",
        train_images=chosen.train_images,
        test_images=chosen.test_images,
        image_size=chosen.image_size,
        seed=chosen.seed,
    )
    return LocationTrial(chosen, *sets)


# How it is trained


def test_the_recipe_reaches_the_network_and_its_training():
    """Adam with its learning rate and betas, the same in every step; ResNet-18 of this width."""
    whole = TINY | {"train_images": None, "batch_size": None, "width": 16}
    ours = LocationTrial(
        LocationConfig.of(preset="paper", task="location", **whole),
        *load("digits", image_size=10, train_images=60, test_images=40),
    )
    assert ours.images_per_epoch == 60 and ours.model.backbone.num_features == 8 * 16
    assert type(ours.optimizer) is torch.optim.Adam
    (group,) = ours.optimizer.param_groups
    assert [group["lr"], group["betas"], group["weight_decay"]] == [0.001, (0.5, 0.999), 0.0]
    assert len(list(ours.train_epoch(1))) == 2  # 48 and 12 images
    assert group["lr"] == 0.001


def test_one_cycle_spans_the_whole_training():
    """Up to the learning rate, and down to nothing in the last step of the last epoch."""
    ours = trial(schedule="one-cycle", learning_rate=0.01)
    (group,) = ours.optimizer.param_groups
    rates = [group["lr"]]  # of each step, and one that no step uses
    for epoch in (1, 2):
        rates += [group["lr"] for _ in ours.train_epoch(epoch)]
    assert len(rates) == 2 * 4 + 1
    assert rates[0] < 0.001 and max(rates) > 0.009 and rates[-2] < 1e-6


def test_batch_norm_is_estimated_anew_before_a_test():
    """The first layer's mean is that of all ``bn_batches`` batches, whatever was trained on."""
    shown = trial(bn_batches=3)
    seen = []
    shown.model.backbone.conv1.register_forward_hook(lambda _, __, maps: seen.append(maps))
    bn = shown.model.backbone.bn1
    bn.running_mean.fill_(1e3)
    shown.test(1)
    assert len(seen) > 3  # batches to estimate from, then those of the test
    expected = torch.stack([maps.mean((0, 2, 3)) for maps in seen[:3]]).mean(0)
    torch.testing.assert_close(bn.running_mean, expected)
    assert bn.momentum == 0.1

    kept = trial(bn_batches=0)
    kept.model.backbone.bn1.running_mean.fill_(1e3)
    kept.test(1)
    assert kept.model.backbone.bn1.running_mean.eq(1e3).all()


def test_the_smallest_canvas_can_be_trained_on():
    """Also with reflection, and with a last batch of one image."""
    *_, last = trial(
        grid_size=1, image_size=17, padding_mode="reflect", train_images=17
    ).train_epoch(1)
    assert last.count == 17


# What is drawn


@pytest.fixture
def placed(monkeypatch):
    """A function from a trial, and an epoch to train or to test, to (images, cells) placed."""
    calls = []

    def spy(images, cells, *arguments, **options):
        calls.append((images.clone(), cells.clone(), options))
        return place(images, cells, *arguments, **options)

    place = location.place_on_grid
    monkeypatch.setattr(location, "place_on_grid", spy)

    def of(trial, *, train=None, test=None):
        calls.clear()
        if train:
            list(trial.train_epoch(train))
        else:
            trial.test(test)
            calls.pop()  # the samples kept for pictures
        return torch.cat([images for images, *_ in calls]), torch.cat([c for _, c, _ in calls])

    of.calls = calls
    return of


@pytest.mark.parametrize("phase", ["train", "test"])
def test_cells_are_drawn_anew_each_epoch_and_from_the_seed(phase, placed):
    """Each epoch's alone: which epochs went before in this process does not matter."""
    ours = trial()
    first, second = (placed(ours, **{phase: epoch})[1] for epoch in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(placed(trial(), **{phase: 2})[1], second)
    assert not torch.equal(placed(trial(seed=1), **{phase: 1})[1], first)


def test_training_and_test_cells_are_not_the_same_draws(placed):
    ours = trial(train_images=40, test_images=40)
    assert not torch.equal(placed(ours, train=1)[1], placed(ours, test=1)[1])


def test_all_cells_are_equally_likely(placed):
    counts = placed(trial(train_images=1800, grid_size=3), train=1)[1].bincount()
    assert len(counts) == 9
    assert counts.sub(200).abs().max() < 60  # 4.5 standard deviations


def test_training_images_are_flipped_only_when_asked(placed):
    ours = trial(flip=False)
    for epoch in (1, 2):
        order = epoch_order(60, seed=0, epoch=epoch)
        assert torch.equal(placed(ours, train=epoch)[0], ours.train_set.images[order])


def test_about_half_are_flipped_others_each_epoch_and_no_test_image(placed):
    """By draws of their own: the cells are those of a run without flips."""
    ours, flipped = trial(flip=True), []
    for epoch in (1, 2):
        images = ours.train_set.images[epoch_order(60, seed=0, epoch=epoch)]
        shown, cells = placed(ours, train=epoch)
        as_is, mirrored = ((shown == of).flatten(1).all(1) for of in (images, images.flip(3)))
        assert (as_is | mirrored).all() and 15 < mirrored.sum() < 45
        flipped.append(mirrored)

        again, _ = placed(trial(flip=True), train=epoch)
        assert torch.equal(again, shown)
        _, without = placed(trial(flip=False), train=epoch)
        assert torch.equal(without, cells)
    assert not torch.equal(*flipped)
    assert torch.equal(placed(ours, test=1)[0], ours.test_set.images)


def test_a_small_set_is_gone_through_repeatedly(placed):
    """As 1,437 digits are for the 4,000 images of the quick preset."""
    sets = load("digits", train_images=50, test_images=10, image_size=10)
    ours = LocationTrial(config(train_images=120, flip=False), *sets)
    shown, _ = placed(ours, train=1)
    assert len(shown) == ours.images_per_epoch == 120
    pixels, counts = shown.flatten(1).unique(dim=0, return_counts=True)
    assert len(pixels) == len(sets[0].images.flatten(1).unique(dim=0)) and counts.max() <= 4


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path):
    same = [
        outside_run(train(tmp_path / name, config(network="permutenet"))[0][0]) for name in "ab"
    ]
    assert same[0] == same[1]
    other = outside_run(train(tmp_path, config(network="permutenet", seed=1))[0][0])
    assert other["epochs"] != same[0]["epochs"]


# What is kept


@pytest.mark.parametrize("task", ["location", "object"])
def test_pictures_and_confusion_are_those_of_the_last_test(task, tmp_path):
    """The image in its cell, black elsewhere; every test image counted once."""
    chosen = config(task=task, network="permutenet", grid_size=3, train_images=400)
    (directory,), _ = train(tmp_path, chosen)
    record, arrays = Record.load(directory), load_arrays(directory)
    _, test = load("digits", train_images=400, test_images=40, image_size=10)

    confusion = arrays["confusion"]
    classes = 9 if task == "location" else 10
    assert confusion.shape == (classes, classes) and confusion.sum() == 40
    share = 100 * confusion.diagonal().sum() / 40
    assert record.epochs[-1]["test_accuracy"] == pytest.approx(float(share))
    assert record.result["last"] == {"epoch": 2, "test_accuracy": pytest.approx(float(share))}
    assert record.chance == pytest.approx(100 / classes)
    if task == "object":
        assert torch.equal(confusion.sum(1), test.labels.bincount(minlength=10))

    indices = torch.arange(12) * 40 // 12  # spread over the test set
    assert len(arrays["canvases"]) == len(arrays["predictions"]) == 12
    targets = arrays["locations"] if task == "location" else test.labels[indices]
    assert torch.equal(arrays["targets"], targets)
    assert arrays["canvases"].dtype == torch.uint8
    for i, (canvas, cell) in enumerate(zip(arrays["canvases"], arrays["locations"], strict=True)):
        row, column = 10 * (int(cell) // 3), 10 * (int(cell) % 3)
        expected = torch.zeros(3, 30, 30, dtype=torch.uint8)
        expected[:, row : row + 10, column : column + 10] = test.images[indices[i]]
        assert torch.equal(canvas, expected)
    for target, answer in zip(arrays["targets"], arrays["predictions"], strict=True):
        assert confusion[target, answer] > 0


def test_the_network_sees_normalised_canvases_that_are_zero_elsewhere():
    """Zero after the normalisation: black would be -mean / std."""
    ours, seen = trial(flip=False), []
    ours.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    ours.test(1)
    canvas, image = seen[0][0], ours.test_set.images[0]
    patch = canvas[:, canvas[0].any(1)][:, :, canvas[0].any(0)]
    mean, std = (torch.tensor(v)[:, None, None] for v in (ours.test_set.mean, ours.test_set.std))
    torch.testing.assert_close(patch, (image / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert (canvas == 0).sum() >= 3 * 300


def test_a_finished_run_is_not_run_again_unless_asked(tmp_path):
    (directory,), shown = train(tmp_path, config())
    assert "epoch 2/2" in shown
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.iterdir()}
    assert len(before) == 3
    for resume in (False, True):
        again, shown = train(tmp_path, config(), resume=resume)
        assert again == [directory] and "finished before" in shown and "epoch" not in shown
        assert before == {
            file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.iterdir()
        }

    _, shown = train(tmp_path, config(), force=True)
    assert "epoch 1/2" in shown
    assert (directory / RECORD).stat().st_mtime_ns > before[directory / RECORD][0]
    assert outside_run(directory) == {
        name: value
        for name, value in json.loads(before[directory / RECORD][1]).items()
        if name != "run"
    }


def test_a_forced_run_that_is_interrupted_is_not_finished_and_goes_on(tmp_path, monkeypatch):
    """Its first epoch goes on from nothing, not from the end of the run before."""
    (directory,), _ = train(tmp_path, config())
    whole = outside_run(directory)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocationTrial, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, config(), force=True)
    assert not (directory / RECORD).exists()
    _, shown = train(tmp_path, config(), force=True, resume=True)
    assert "epoch 1/2" in shown
    assert outside_run(directory) == whole


def test_one_changed_option_makes_another_run(tmp_path):
    (first,), _ = train(tmp_path, config(epochs=1))
    before = (first / RECORD).stat().st_mtime_ns
    (second,), shown = train(tmp_path, config(epochs=1, learning_rate=0.01))
    assert second != first and "epoch 1/1" in shown
    assert (first / RECORD).stat().st_mtime_ns == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    (directory,), _ = train(tmp_path, config(epochs=1))
    other = tmp_path / config(epochs=1, width=5).name
    other.mkdir()
    (directory / CHECKPOINT).rename(other / CHECKPOINT)
    with pytest.raises(InputError, match=r"resume: .* is of another configuration"):
        train(tmp_path, config(epochs=1, width=5), resume=True)


def test_what_cannot_be_had_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match="data: there is no "):
        train(tmp_path / "out", config(data=str(tmp_path / "absent")))
    assert not (tmp_path / "out").exists()

    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=rf"out: cannot write to {out}/location-"):
            train(out, config())


# What is learnt


def test_gapnet_learns_where_it_is_and_a_random_permutation_takes_it_away(tmp_path):
    """The paper's claim, on 100 steps; a fixed permutation, the control, takes nothing."""
    options = {"image_size": 12, "width": 8, "train_images": 400, "batch_size": 8}
    options |= {"learning_rate": 0.004, "test_images": 200}
    configs = [
        config(network=network, permutation=permutation, **options)
        for network, permutation in (
            ("gapnet", None),
            ("permutenet", "random"),
            ("permutenet", "fixed"),
        )
    ]
    directories, _ = train(tmp_path, *configs)
    gapnet, random, fixed = (
        Record.load(directory).result["last"]["test_accuracy"] for directory in directories
    )
    # Over seeds 0 to 3: 100, 45 to 62, and 100.
    assert gapnet >= 95 and fixed >= 95
    assert random <= 80


def test_bf16_trains_and_tests_on_canvases_of_bf16(placed, tmp_path):
    (directory,), _ = train(tmp_path, config(precision="bf16"))
    assert {options["dtype"] for *_, options in placed.calls if "dtype" in options} == {
        torch.bfloat16
    }
    full = outside_run(train(tmp_path, config())[0][0])["epochs"]
    half = outside_run(directory)["epochs"]
    for a, b in zip(half, full, strict=True):
        assert a["train_loss"] != b["train_loss"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)


def test_a_compiled_network_is_trained_and_its_weights_are_kept(tmp_path, monkeypatch):
    """With the graphs that torch.compile takes, run as they are: inductor needs a minute."""
    compiled = []

    def take(graph, _):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=take))
    runs = [
        train(tmp_path, config(network="permutenet", compile=compile, epochs=1))[0][0]
        for compile in (True, False)
    ]
    assert compiled
    records = [outside_run(directory) for directory in runs]
    assert records[0]["config"]["compile"] and records[0]["epochs"] == records[1]["epochs"]
    weights = [
        torch.load(directory / CHECKPOINT, weights_only=True)["trial"]["model"]
        for directory in runs
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_learning_rate_that_is_too_large_is_named(tmp_path):
    with pytest.raises(InputError, match=r"learning_rate: the loss became (nan|inf) in epoch \d"):
        train(tmp_path, config(learning_rate=1e30))

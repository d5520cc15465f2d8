"""AugShift runs from end to end: what is kept, and what is made of it again."""

import io
import json
from functools import partial

import pytest
import torch

from gpe.data import load
from gpe.errors import InputError
from gpe.experiments.runs import CHECKPOINT
from gpe.experiments.trained import open_trained
from gpe.experiments.under_shifts import SHIFT_SEED
from gpe.metrics import shift_consistency
from gpe.records import RECORD, Record, load_arrays
from tests.experiments.tiny import (
    config,
    outside_run,
    probabilities,
    same,
    train,
    unshifted,
    weights,
)

# What is run


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


def test_wide_crops_are_augshift_without_its_loss(tmp_path):
    """The same network bit for bit with λ = 0, and another one with λ."""
    configs = [config("wide-crops", epochs=1), config(weight=0.0, epochs=1), config(epochs=1)]
    wide, without, augshift = (weights(directory) for directory in train(tmp_path, *configs)[0])
    assert same(wide, without)
    assert not same(wide, augshift)


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
    """open_trained: the same consistency, accuracy and probabilities, on the same images."""
    directory = trained(config(protocol=protocol))
    opened = open_trained(str(directory))
    record, arrays = Record.load(directory), load_arrays(directory)
    _, test = load("digits", image_size=10, train_images=60, test_images=40)
    assert opened.name == directory.name and opened.num_classes == 10
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

    expected = probabilities(opened, test.images)
    accuracy = 100 * (expected.argmax(1) == test.labels).float().mean().item()
    assert record.epochs[-1]["test_accuracy"] == pytest.approx(accuracy)

    chosen = torch.arange(16) * 40 // 16  # spread over the test set
    assert torch.equal(arrays["images"], test.images[chosen])
    assert torch.equal(arrays["labels"], test.labels[chosen])
    torch.testing.assert_close(unshifted(arrays), expected[chosen], rtol=1e-4, atol=1e-5)


def test_what_is_no_checkpoint_of_an_augshift_run_is_refused_in_a_line(trained, tmp_path):
    state = torch.load(trained(config()) / CHECKPOINT, weights_only=True)
    wider = state | {"config": state["config"] | {"width": 5}}
    files = {
        "of no experiment": stored(state | {"experiment": "detection"}),
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
            open_trained(str(directory))
        message = str(error.value)
        assert str(directory / CHECKPOINT) in message, name
        assert message.startswith("model: ") and "\n" not in message, name


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


def test_bf16_rounds_and_trains_alike(tmp_path):
    chosen = partial(config, epochs=1, epoch_images=16)
    half, full = (
        outside_run(train(tmp_path, chosen(precision=precision))[0][0])["epochs"][0]
        for precision in ("bf16", "fp32")
    )
    assert half["train_loss"] != full["train_loss"]
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)


def test_a_compiled_run_is_the_same_and_its_weights_are_kept(tmp_path, monkeypatch):
    """Training step and network are compiled, here to what they were, but for gap_mse's sums."""
    compiled = []

    def take(graph, _):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=take))
    few = {"epochs": 1, "epoch_images": 16, "test_images": 16, "shifts": (1,)}
    runs = [train(tmp_path, config(compile=compile, **few))[0][0] for compile in (True, False)]
    assert len(compiled) >= 2
    torch.testing.assert_close(*map(weights, runs), rtol=1e-4, atol=1e-5)
    records = [outside_run(directory) for directory in runs]
    assert records[0]["config"]["compile"] and records[0]["result"] == records[1]["result"]


# Large images


LARGE = {"train_images": None, "test_images": None, "epoch_images": None, "batch_size": 8}
LARGE |= {"image_size": 36, "resize_size": 44, "epochs": 1}


@pytest.mark.parametrize(
    ("reading", "protocol", "method"),
    [
        ("resized", "zeros", "augshift"),
        ("plain", "crop", "augshift"),
        ("plain", "zeros", "baseline"),
    ],
)
def test_large_images_of_any_size_train_and_test(reading, protocol, method, tmp_path, image_tree):
    options = {"stem": "imagenet", "crop_shift": 2}
    chosen = config(
        method,
        data=str(image_tree),
        images="large",
        reading=reading,
        protocol=protocol,
        **LARGE | options,
    )
    (directory,), _ = train(tmp_path / "out", chosen)
    record, arrays = Record.load(directory), load_arrays(directory)
    assert record.result["classes"] == ["cat", "dog"]
    assert [row["pairs"] for row in record.result["consistency"]] == [8, 8]
    side = 44 if protocol == "crop" else 36
    assert arrays["images"].shape == (4, 3, side, side)
    opened = open_trained(str(directory))
    assert (opened.input_size, opened.resize_size, opened.num_classes) == (36, 44, 2)
    assert (opened.mean, opened.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    # Unmoved: the centre of the image as it was read, for each protocol.
    border = (side - 36) // 2
    centre = arrays["images"][:, :, border : border + 36, border : border + 36]
    expected = probabilities(opened, centre)
    torch.testing.assert_close(unshifted(arrays), expected, rtol=1e-4, atol=1e-5)


def test_imagenet_trains_and_tests(tmp_path, imagenet_tree):
    chosen = config(data="imagenet", **LARGE, stem=None, crop_shift=None)
    (directory,), _ = train(tmp_path / "out", chosen, root=imagenet_tree)
    record = Record.load(directory)
    assert record.config["stem"] == "imagenet" and record.config["crop_shift"] == 16
    assert record.result["classes"] == ["tench", "goldfish"]
    assert record.paper["consistency"] == {"8": 90.2, "16": 88.2}


def test_what_cannot_be_had_is_said_before_anything_is_trained(tmp_path):
    for data, options in (("absent", {}), ("imagenet", {}), ("digits", {"images": "large"})):
        with pytest.raises(InputError, match=rf"data: (there is no {data}|no imagenet in )"):
            train(tmp_path / "out", config(data=data, image_size=36, **options), root=tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"out: cannot write to {tmp_path / 'file'}/augshift-"):
        train(tmp_path / "file", config())


def test_a_learning_rate_that_is_too_large_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"learning_rate: the (loss|features) became (nan|inf) in epoch \d"
    ):
        train(tmp_path, config(learning_rate=1e30, schedule="cosine"))

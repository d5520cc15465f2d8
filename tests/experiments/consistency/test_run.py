"""Scores of anybody's classifiers: which images, which labels, what is kept, what is refused."""

import json

import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.consistency.config import ConsistencyConfig
from gpe.experiments.consistency.run import run
from gpe.experiments.runs import CHECKPOINT
from gpe.models.pretrained import open_model
from gpe.records import Record, load_arrays
from tests.experiments.tiny import config as tiny_run
from tests.experiments.tiny import launch, outside_run, probabilities, same, told, train, unshifted

TINY = {
    "model": "squeezenet1_1",
    "weights": "random",
    "protocol": "zeros",
    "shifts": (2, 4),
    "passes": 2,
    "images": None,
    "image_size": 32,
    "resize_size": 40,
    "batch_size": 3,
    "device": "cpu",
    "precision": "fp32",
}


def config(data, **options):
    return ConsistencyConfig(data=str(data), **TINY | options)


def score(chosen, out, **places):
    ((directory,), _) = launch(run, out, chosen, **places)
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a network trained on digits."""
    (directory,), _ = train(tmp_path_factory.mktemp("runs"), tiny_run(epochs=1))
    return directory


OF_A_RUN = {"weights": None, "image_size": None, "resize_size": None, "batch_size": 16}


def test_a_run_s_network_is_scored_as_at_the_end_of_its_training(trained, tmp_path):
    """On the same images, under the same shifts: all numbers and pictures are those of the run."""
    chosen = config("digits", model=str(trained), shifts=(1, 3), images=40, **OF_A_RUN)
    directory = score(chosen, tmp_path)
    ours, run = Record.load(directory), Record.load(trained)
    assert ours.result == {
        "consistency": run.result["consistency"],
        "accuracy": run.result["last"]["test_accuracy"],
        "classes": run.result["classes"],
        "labels": "by name",
    }
    arrays, of_run = load_arrays(directory), load_arrays(trained)
    assert arrays.keys() == of_run.keys()
    for name in arrays:
        torch.testing.assert_close(arrays[name], of_run[name])
    assert ours.config["network"] == trained.name


def test_the_record_says_what_was_scored_and_how(tmp_path, image_tree):
    directory = score(config(image_tree), tmp_path / "out")
    record = Record.load(directory)
    assert record.experiment == "consistency" and record.epochs == [] and record.paper is None
    assert told(record.config) == told(json.loads(json.dumps(vars(config(image_tree))))) | {
        "network": "torchvision/squeezenet1_1"
    }
    assert record.chance == 0.1  # of 1000 classes
    assert record.run["images"] == 4, "the test images of two parts"
    rows = record.result["consistency"]
    assert [(row["shift"], row["pairs"]) for row in rows] == [(2, 8), (4, 8)]
    for row in rows:
        assert 0 <= row["low"] <= row["consistency"] <= row["high"] <= 100


def test_labels_are_used_only_where_there_are_as_many_classes(trained, tmp_path, image_tree):
    """Two classes are none of ten digits; digits are."""
    options = OF_A_RUN | {"model": str(trained)}
    chosen = config(image_tree, **options)
    unlabelled = Record.load(score(chosen, tmp_path / "out")).result
    assert unlabelled["classes"] == [] and unlabelled["accuracy"] is None
    assert [row["accuracy"] for row in unlabelled["consistency"]] == [None, None]
    chosen = config("digits", images=20, **options)
    labelled = Record.load(score(chosen, tmp_path / "out")).result
    assert labelled["classes"] == list("0123456789") and 0 <= labelled["accuracy"] <= 100
    assert all(0 <= row["accuracy"] <= 100 for row in labelled["consistency"])


@pytest.mark.parametrize("model", ["torchvision/resnet18", "timm/resnet18"])
@pytest.mark.parametrize(("protocol", "side"), [("zeros", 32), ("crop", 40)])
def test_networks_of_both_libraries_see_images_of_any_size(
    model, protocol, side, tmp_path, image_tree
):
    """As large as the network sees them; with a border where the protocol needs it."""
    chosen = config(image_tree, model=model, protocol=protocol, passes=1, shifts=(4,))
    directory = score(chosen, tmp_path / "out")
    arrays = load_arrays(directory)
    assert arrays["images"].shape == (4, 3, side, side)
    assert Record.load(directory).config["network"] == model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        opened = open_model(model, weights="random")
    border = (side - 32) // 2
    centre = arrays["images"][:, :, border : border + 32, border : border + 32]
    expected = probabilities(opened, centre)
    torch.testing.assert_close(unshifted(arrays), expected, rtol=1e-3, atol=1e-6)


def test_the_sizes_are_the_model_s_where_none_are_given(tmp_path, image_tree):
    """224 of 256 pixels; a larger image_size than its resize_size takes that along."""
    options = {"resize_size": None, "protocol": "crop", "passes": 1}
    for image_size, side in ((None, 256), (250, 256)):
        chosen = config(image_tree, image_size=image_size, images=1, shifts=(3,), **options)
        directory = score(chosen, tmp_path / "out")
        assert load_arrays(directory)["images"].shape == (1, 3, side, side)
    chosen = config(image_tree, image_size=260, **options)
    with pytest.raises(InputError, match="shifts: expected at most 0 pixels with protocol crop"):
        score(chosen, tmp_path / "out")


def test_imagenet_is_scored_on_what_it_calls_validation(tmp_path, imagenet_tree):
    chosen = config("imagenet", images=3)
    record = Record.load(score(chosen, tmp_path / "out", root=imagenet_tree))
    assert record.run["images"] == 3


def test_the_same_score_twice_is_the_same(tmp_path, image_tree):
    """Random weights are drawn from a seed of their own, whatever was drawn before."""
    directories = []
    for name in "ab":
        torch.rand(3)
        before = torch.random.get_rng_state()
        directories.append(score(config(image_tree), tmp_path / name))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert outside_run(directories[0]) == outside_run(directories[1])
    assert same(*map(load_arrays, directories))


def test_bf16_is_used_when_asked(tmp_path, image_tree):
    full, half = (
        load_arrays(score(config(image_tree, precision=precision), tmp_path / "out"))
        for precision in ("fp32", "bf16")
    )
    difference = (full["probabilities"] - half["probabilities"]).abs() / full["probabilities"]
    assert 0 < difference.max() < 0.2


def test_no_two_scores_share_a_directory(trained, tmp_path):
    options = {
        "model": "resnet18",
        "data": "digits",
        "protocol": "reflect",
        "shifts": (1,),
        "passes": 1,
        "images": 7,
        "image_size": 33,
        "resize_size": 41,
        "precision": "bf16",
    }
    names = {config(**{"data": "images"} | {name: options[name]}).name for name in options}
    names.add(config("images").name)
    assert len(names) == len(options) + 1
    assert config("a/images", model="timm/resnet18").name.startswith(
        "consistency-timm-resnet18-images-"
    )
    name = config("digits", model=f"{trained}/", weights=None).name
    assert "/" not in name and name.startswith("consistency-")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"protocol": "wrap"}, "protocol: expected one of crop, zeros, reflect, circular, got "),
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16, got 'fp8'"),
        ({"passes": 0}, "passes: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"images": 0}, "images: expected at least 1, got 0"),
        ({"image_size": 0}, "image_size: expected at least 1, got 0"),
        ({"resize_size": 0}, "resize_size: expected at least 1, got 0"),
        ({"shifts": (0,)}, "shifts: expected at least 1, got 0"),
        ({"shifts": ()}, "shifts: expected one or more, got none"),
        ({"resize_size": 31}, "resize_size: expected at least image_size, 32, got 31"),
        (
            {"protocol": "crop", "shifts": (4, 5)},
            "shifts: expected at most 4 pixels with protocol crop, got 5",
        ),
        (
            {"protocol": "reflect", "shifts": (32,)},
            "shifts: expected at most 31 pixels with protocol reflect, got 32",
        ),
        (
            {"protocol": "circular", "shifts": (33,)},
            "shifts: expected at most 32 pixels with protocol circular, got 33",
        ),
        ({"device": "tpu"}, "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ({"model": "resnet"}, "name: expected a classifier of torchvision or timm, got 'resnet'"),
        ({"weights": "absent.pth"}, "weights: there is no absent.pth"),
        ({"data": "absent"}, "data: there is no absent; expected imagenet or a folder of images"),
    ],
)
def test_what_cannot_be_scored_is_said_and_nothing_is_left_behind(
    options, complaint, tmp_path, image_tree
):
    with pytest.raises(InputError, match=complaint):
        score(config(**{"data": image_tree} | options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_is_its_own_weights(trained, tmp_path, image_tree):
    with pytest.raises(InputError, match=r"weights: expected pretrained or random with .* got V1"):
        score(config("digits", model=str(trained), weights="V1"), tmp_path / "out")
    expected = f"model: there is no {image_tree / CHECKPOINT}"
    with pytest.raises(InputError, match=expected):
        score(config("digits", model=str(image_tree), weights=None), tmp_path / "out")


def test_a_place_where_nothing_can_be_written_is_named(tmp_path, image_tree):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"out: cannot write to {tmp_path / 'file'}/consistency-"):
        score(config(image_tree), tmp_path / "file")

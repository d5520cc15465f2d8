"""gpe decode: what is read from which network, what is kept, what is refused."""

import json

import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.decode.config import DecodeConfig
from gpe.experiments.decode.run import run as run_all
from gpe.experiments.location.run import build
from gpe.experiments.runs import CHECKPOINT
from gpe.experiments.trained import open_trained
from gpe.models import GAPNet, deeplabv3, resnet18
from gpe.models.pretrained import open_model
from gpe.records import Record, load_arrays
from tests.experiments import tiny, tiny_segments
from tests.experiments.location.test_run import config as location_config
from tests.experiments.location.test_run import train as train_location
from tests.experiments.tiny import launch, outside_run, told

TINY = {
    "model": "squeezenet1_1",
    "weights": "random",
    "grid_size": 2,
    "layers": ("last",),
    "readouts": ("gapnet", "permutenet", "fixed"),
    "data": "digits",
    "image_size": 16,
    "train_images": 40,
    "test_images": 12,
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "canvases": 16,
    "device": "cpu",
    "seed": 0,
}


def config(**options):
    return DecodeConfig(**TINY | options)


def run(configs, out):
    directories, _ = launch(run_all, out, *configs)
    return directories


@pytest.fixture(scope="module")
def located(tmp_path_factory):
    """A network that gpe location trained for a few seconds, till it knows where digits lie."""
    chosen = location_config(
        grid_size=3, image_size=12, width=8, epochs=3, train_images=2000, bn_batches=20
    )
    ((directory,), _) = train_location(tmp_path_factory.mktemp("located"), chosen)
    return directory


def test_a_location_network_is_read_and_only_by_who_knows_the_order(located, tmp_path):
    chosen = config(
        model=str(located),
        weights="pretrained",
        grid_size=3,
        image_size=12,
        train_images=900,
        test_images=300,
        epochs=40,
    )
    (directory,) = run([chosen], tmp_path)
    rows = {row["readout"]: row for row in Record.load(directory).result["rows"]}
    assert all(row["layer"] == "backbone.layer4" for row in rows.values())
    assert rows["gapnet"]["accuracy"] >= 99
    assert rows["fixed"]["accuracy"] >= 99
    assert rows["permutenet"]["high"] < 70


def test_the_record_says_what_was_read_and_how(tmp_path):
    (directory,) = run([config(layers=("depth",))], tmp_path)
    record = Record.load(directory)
    assert record.experiment == "decode" and record.epochs == [] and record.paper is None
    assert record.chance == 25
    assert told(record.config) == told(json.loads(json.dumps(vars(config(layers=("depth",))))))
    result = record.result
    assert (result["network"], result["task"]) == ("torchvision/squeezenet1_1", "classification")
    assert (result["trained_on"], result["tested_on"]) == (40, 12)
    depths = [row["depth"] for row in result["rows"]]
    assert depths == sorted(depths) and depths[-1] > 3
    cells = load_arrays(directory)["cells"]
    assert cells.shape == (12,) and 0 <= cells.min() <= cells.max() < 4
    for row in result["rows"]:
        predictions = load_arrays(directory)[f"predictions.{row['readout']}.{row['layer']}"]
        right = (predictions == cells).double().mean().item()
        assert row["accuracy"] == pytest.approx(100 * right)
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 100


def test_layers_by_name_and_the_last_alone_say_what_all_say(tmp_path):
    """One pass for several layers changes none of them."""
    everything, last, one = run(
        [config(layers=("depth",)), config(), config(layers=("features.3",))], tmp_path
    )
    every = Record.load(everything).result["rows"]
    (deepest, *_) = Record.load(last).result["rows"]
    assert [r["accuracy"] for r in every[-3:]] == [
        r["accuracy"] for r in Record.load(last).result["rows"]
    ]
    assert deepest["layer"] == every[-1]["layer"]
    assert [r["layer"] for r in Record.load(one).result["rows"]] == ["features.3"] * 3


def test_the_same_configuration_leaves_the_same_record(tmp_path):
    (first,), (second,) = (run([config()], tmp_path / name) for name in "ab")
    assert outside_run(first) == outside_run(second)
    _, shown = launch(run_all, tmp_path / "a", config())
    assert shown == f"{first.name}: finished before; --force runs it again\n"


def test_seeds_and_weights_have_directories_of_their_own(tmp_path):
    names = {config(**o).name for o in ({}, {"seed": 1}, {"weights": "a.pth"}, {"grid_size": 3})}
    assert len(names) == 4


# Networks


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    tensors = [name for name in a if isinstance(a[name], torch.Tensor)]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in tensors)


def test_a_location_run_is_opened_with_its_weights_or_with_none(located):
    frozen, control = (open_trained(str(located), weights) for weights in ("pretrained", "random"))
    state = torch.load(located / CHECKPOINT, weights_only=True)["trial"]["model"]
    assert isinstance(frozen.model, GAPNet) and not frozen.model.training
    assert all(torch.equal(frozen.model.state_dict()[name], state[name]) for name in state)
    untrained = build(location_config(grid_size=3, image_size=12, width=8), 9)
    assert same(control.model, untrained)
    assert not same(control.model, open_trained(str(located), "random", seed=1).model)


def test_runs_of_augshift_and_segment_are_opened_too(tmp_path):
    (classifier,), _ = tiny.train(tmp_path, tiny.config(epochs=1))
    (segmenter,), _ = tiny_segments.train(tmp_path, tiny_segments.config(epochs=1))
    for directory, task in ((classifier, "classification"), (segmenter, "segmentation")):
        frozen = open_trained(str(directory))
        assert (frozen.task, frozen.inside) == (task, "backbone")
        state = torch.load(directory / CHECKPOINT, weights_only=True)["trial"]["model"]
        weights = frozen.model.state_dict()
        assert all(torch.equal(weights[name], state[name]) for name in state)
        control = open_trained(str(directory), "random")
        assert not same(control.model, frozen.model) and not control.model.training
        assert (control.mean, control.std) == (frozen.mean, frozen.std)
        options = {"model": str(directory), "weights": "pretrained", "image_size": 32}
        (found,) = run([config(**options)], tmp_path / "out")
        assert Record.load(found).result["rows"][-1]["layer"] == "backbone.layer4"


def test_files_of_location_and_segmentation_networks_are_told_apart(tmp_path):
    net = GAPNet(resnet18(width=4), 9)
    weights = net.backbone.state_dict() | net.classifier.state_dict(prefix="pre_classifier.")
    torch.save({"net": weights, "acc": 99.0, "epoch": 3}, tmp_path / "gapnet.pth")
    frozen = open_trained(str(tmp_path / "gapnet.pth"))
    assert frozen.task == "location" and isinstance(frozen.model, GAPNet)
    torch.save(deeplabv3("resnet18", 3, width=4).state_dict(), tmp_path / "deeplab.pth")
    assert open_trained(str(tmp_path / "deeplab.pth")).task == "segmentation"


def test_a_library_s_network_wants_its_own_mean_and_std():
    frozen, opened = open_trained("resnet18", "random"), open_model("resnet18", weights="random")
    assert (frozen.mean, frozen.std, frozen.name) == (opened.mean, opened.std, opened.name)
    assert same(frozen.model, open_trained("resnet18", "random").model)
    assert not same(frozen.model, open_trained("resnet18", "random", seed=1).model)


# Refusals


def test_fewer_images_than_cells_are_refused():
    with pytest.raises(
        InputError, match="train_images: expected at least 49, one for each cell, got 48"
    ):
        config(grid_size=7, train_images=48)


def test_a_folder_with_fewer_images_than_cells_is_refused(tmp_path, image_tree):
    with pytest.raises(InputError, match="images: expected at least 25 to train a readout of 25"):
        run([config(data=str(image_tree), grid_size=5)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_size_that_the_network_refuses_is_told(tmp_path):
    with pytest.raises(InputError, match="image_size: expected cells that make canvases of a size"):
        run([config(image_size=4)], tmp_path)


@pytest.mark.parametrize("weights", ["random", "other.pth"])
def test_a_file_has_its_own_weights(tmp_path, weights):
    (tmp_path / "net.pth").write_bytes(b"")
    with pytest.raises(InputError, match="weights: expected pretrained"):
        open_trained(str(tmp_path / "net.pth"), weights)


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(InputError, match=r"model: there is no .*checkpoint\.pt"):
        open_trained(str(tmp_path))
    (tmp_path / "net.pth").write_bytes(b"no network")
    with pytest.raises(InputError, match="to hold a location or segmentation network, got neither"):
        open_trained(str(tmp_path / "net.pth"))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_run_that_does_not_say_what_it_was_trained_on_is_told(weights, tmp_path):
    state = {"config": vars(tiny.config()), "trial": {"model": {}}}
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"model: expected .*, got KeyError: 'images'"):
        open_trained(str(tmp_path), weights)

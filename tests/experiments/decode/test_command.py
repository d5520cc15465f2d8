"""``gpe decode``: what it reads, what it prints where, and how it refuses."""

import json

import pytest

from gpe.records import RECORD, Record
from tests.experiments.tiny import runs, told

TINY = ["--model", "squeezenet1_1", "--weights", "random", "--image-size", "16", "--epochs", "1"]
TINY += ["--train-images", "30", "--test-images", "10", "--layer", "last"]


def test_every_combination_is_read_and_printed(call):
    code, out, err = call("decode", *TINY, "--grid", "2,3", "--seed", "0,1")
    assert code == 0, err
    found = [Record.load(directory).config for directory in runs()]
    assert sorted((c["seed"], c["grid_size"]) for c in found) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert "2×2" in out and "3×3" in out and "GAPNet" in out and "25.0" in out
    assert "canvases through the network" in err and "seed 1" in out


def test_json_prints_the_record_alone_and_the_report_draws_it(call, tmp_path):
    code, out, _ = call("decode", *TINY, "--grid", "2", "--json")
    (file,) = tmp_path.rglob(RECORD)
    assert code == 0 and json.loads(out) == json.loads(file.read_text())
    code, _, err = call("report", "runs", "--out", "page.html")
    assert code == 0, err
    assert "What does a frozen network know about place?" in (
        tmp_path / "here" / "page.html"
    ).read_text(encoding="utf-8")


def test_every_option_reaches_the_readout(call):
    options = {
        "data": "digits",
        "image_size": 20,
        "train_images": 21,
        "test_images": 7,
        "epochs": 2,
        "batch_size": 5,
        "learning_rate": 0.02,
        "weight_decay": 0.5,
        "canvases": 4,
        "channel_dim": 1,
        "device": "cpu",
    }
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    words += ["--model", "timm/resnet18", "--weights", "random", "--grid", 2, "--seed", 3]
    words += ["--layer", "layer1,layer2", "--readout", "fixed,gapnet", "--json"]
    code, out, err = call("decode", *words)
    assert code == 0, err
    others = {"model": "timm/resnet18", "weights": "random", "grid_size": 2, "seed": 3}
    lists = {"layers": ["layer1", "layer2"], "readouts": ["fixed", "gapnet"]}
    assert told(json.loads(out)["config"]) == options | others | lists


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--grid 1", "grid_size: expected at least 2, got 1"),
        ("--grid three", "grid: expected whole numbers separated by commas, got 'three'"),
        ("--grid 6", "train_images: expected at least 36, one for each cell, got 30"),
        ("--layer last,features", "layers: expected depth, last or names, got ('last', 'features"),
        ("--layer layer4", "layer: expected one of the network's, got 'layer4'; nearest: "),
        ("--readout mlp", "readouts: expected one of gapnet, permutenet, fixed, got 'mlp'"),
        ("--readout fixed,fixed", "readouts: expected one or more, each once, got ('fixed', 'fixe"),
        ("--model squeezenet9", "name: expected a classifier of torchvision or timm, got 'squeez"),
        ("--weights absent.pth", "weights: there is no absent.pth"),
        ("--data absent", "data: there is no absent; expected digits, cifar10, cifar100 or a fol"),
        ("--data cifar10", "data: no intact cifar10 in data/cifar-10-batches-py; add --download"),
        ("--image-size 2", "image_size: expected cells that make canvases of a size that the ne"),
        ("--epochs 0", "epochs: expected at least 1, got 0"),
        ("--learning-rate 0", "learning_rate: expected above 0, got 0.0"),
        ("--weight-decay -1", "weight_decay: expected at least 0, got -1.0"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("--seed -1", "seed: expected at least 0, got -1"),
    ],
)
def test_wrong_input_is_told_in_one_line(call, options, complaint):
    code, out, err = call("decode", *TINY, "--grid", "2", *options.split())
    assert code == 2 and out == "" and runs() == []
    (line,) = [line for line in err.splitlines() if line.startswith("gpe: ")]
    assert line.startswith(f"gpe: {complaint}")

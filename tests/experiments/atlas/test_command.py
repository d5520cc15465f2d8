"""``gpe atlas``: what it maps, what it prints where, and how it refuses."""

import json

import pytest

from gpe.records import RECORD, Record
from tests.experiments.tiny import runs, told

TINY = ["--weights", "random", "--image-size", "16", "--images", "16", "--layer", "features.3"]


def test_every_network_and_grid_is_mapped_printed_and_drawn(call, tmp_path):
    code, out, err = call("atlas", "squeezenet1_1", "squeezenet1_0", *TINY, "--grid", "2,3")
    assert code == 0, err
    found = [Record.load(directory).config for directory in runs()]
    assert sorted((c["model"], c["grid_size"]) for c in found) == [
        (f"squeezenet1_{minor}", grid) for minor in (0, 1) for grid in (2, 3)
    ]
    assert "3×3 cells" in out and "Spearman" in out and "bottom" in out
    assert "canvases through the network" in err
    code, _, err = call("report", "runs", "--out", "page.html")
    assert code == 0, err
    page = (tmp_path / "here" / "page.html").read_text(encoding="utf-8")
    assert "Where does each channel respond?" in page


def test_every_option_reaches_the_record(call, tmp_path):
    options = {
        "weights": "random",
        "layer": "layer1",
        "data": "digits",
        "image_size": 20,
        "images": 9,
        "canvases": 4,
        "channel_dim": 1,
        "device": "cpu",
        "seed": 3,
    }
    words = [f for name, v in options.items() for f in (f"--{name.replace('_', '-')}", v)]
    code, out, err = call(
        "atlas", "timm/resnet18", *words, "--grid", 2, "--regions", "top,0+3", "--json"
    )
    assert code == 0, err
    (file,) = tmp_path.rglob(RECORD)
    assert json.loads(out) == json.loads(file.read_text())
    others = {"model": "timm/resnet18", "grid_size": 2, "regions": ["top", "0+3"]}
    assert told(json.loads(out)["config"]) == options | others


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--grid three", "grid: expected whole numbers separated by commas, got 'three'"),
        ("--images 3", "images: expected at least 4, got 3"),
        ("--regions 9", "regions: expected left, right, top, bottom, centre or some cells of 0 "),
        ("--layer layer4", "layer: expected one of the network's, got 'layer4'; nearest: "),
        ("--weights absent.pth", "weights: there is no absent.pth"),
        ("--data absent", "data: there is no absent; expected digits, cifar10, cifar100 or a fol"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("--seed -1", "seed: expected at least 0, got -1"),
    ],
)
def test_wrong_input_is_told_in_one_line(call, options, complaint):
    code, out, err = call("atlas", "squeezenet1_1", *TINY, "--grid", "2", *options.split())
    assert code == 2 and out == "" and runs() == []
    (line,) = [line for line in err.splitlines() if line.startswith("gpe: ")]
    assert line.startswith(f"gpe: {complaint}")


def test_an_unknown_model_is_told(call):
    code, _, err = call("atlas", "squeezenet9", *TINY)
    assert code == 2 and "gpe: name: expected a classifier of torchvision or timm, got" in err

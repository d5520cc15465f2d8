"""``gpe consistency``: what it scores, what it prints where, and how it refuses."""

import json

import pytest
from PIL import Image

from gpe.records import RECORD
from tests.experiments.tiny import runs, told

TINY = ["squeezenet1_1", "--weights", "random", "--data", "../tree", "--image-size", "32"]
TINY += ["--workers", "0", "--shifts", "2"]


@pytest.fixture(autouse=True)
def tree(tmp_path):
    """One tree of classes: three images in each of two."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.new("RGB", (40 + number, 50), (200 * label, 80 * number, 30))
            image.save(tmp_path / "tree" / name / f"{number}.png")


def test_json_prints_the_record_alone(call, tmp_path):
    code, out, _ = call("consistency", *TINY, "--json")
    (file,) = tmp_path.rglob(RECORD)
    assert code == 0
    assert file.parent.parent == tmp_path / "here" / "runs"
    assert json.loads(out) == json.loads(file.read_text())
    assert json.loads(out)["run"]["images"] == 6, "all images of one tree"


def test_every_option_reaches_the_score(call):
    options = {
        "weights": "random",
        "data": "digits",
        "protocol": "crop",
        "passes": 2,
        "images": 5,
        "image_size": 33,
        "resize_size": 43,
        "batch_size": 4,
        "device": "cpu",
        "precision": "bf16",
    }
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    words += ["--shifts", "2,5", "--out", "elsewhere", "--json"]
    code, out, err = call("consistency", "timm/resnet18", *words)
    assert code == 0, err
    config = told(json.loads(out)["config"])
    network = {"model": "timm/resnet18", "network": "timm/resnet18", "shifts": [2, 5]}
    assert config == options | network


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--protocol wrap", "protocol: expected one of crop, zeros, reflect, circular, got 'wrap'"),
        (
            "--protocol crop --resize-size 34",
            "shifts: expected at most 1 pixels with protocol crop",
        ),
        ("--protocol circular --shifts 33", "shifts: expected at most 32 pixels with protocol cir"),
        ("--resize-size 31", "resize_size: expected at least image_size, 32, got 31"),
        ("--shifts 0", "shifts: expected at least 1, got 0"),
        ("--shifts two", "shifts: expected whole numbers separated by commas, got 'two'"),
        ("--passes 0", "passes: expected at least 1, got 0"),
        ("--images 0", "images: expected at least 1, got 0"),
        ("--batch-size 0", "batch_size: expected at least 1, got 0"),
        ("--workers -1", "workers: expected at least 0, got -1"),
        ("--weights absent.pth", "weights: there is no absent.pth"),
        ("--data absent", "data: there is no absent; expected imagenet or a folder of images"),
        ("--data cifar10", "data: no intact cifar10 in data/cifar-10-batches-py; add --download"),
        ("--data imagenet", "data: no imagenet in data: meta.bin, train, val missing. "),
        ("--precision fp8", "precision: expected one of fp32, bf16, got 'fp8'"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("--out ../file", "out: cannot write to ../file: File exists"),
        ("another", "Got unexpected extra argument"),
    ],
)
def test_wrong_input_gets_a_line_and_leaves_nothing_behind(options, complaint, call, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = call("consistency", *TINY, *options.split())
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith(f"gpe: {complaint}") and err.count("gpe:") == 1
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("squeezenet1_1", "Missing option '--data'."),
        (
            "resnet --data ../tree",
            "name: expected a classifier of torchvision or timm, got 'resnet'",
        ),
        ("../tree --data ../tree", "model: there is no ../tree/checkpoint.pt"),
        (
            "../tree --weights V1 --data ../tree",
            "weights: expected pretrained or random with ../tree, got V1",
        ),
    ],
)
def test_networks_that_cannot_be_had_are_named(words, complaint, call):
    code, out, err = call("consistency", *words.split())
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith(f"gpe: {complaint}") and err.count("gpe:") == 1
    assert runs() == []

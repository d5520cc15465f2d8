"""``gpe segment``: what it runs, what it prints where, and how it refuses."""

import json

import pytest
import torch

from gpe.models.deeplab import deeplabv3
from gpe.records import RECORD
from tests.data import labelled_trees as trees
from tests.experiments.tiny import runs

TINY = [
    *("--size", "32,64", "--width", "4", "--epochs", "1", "--train-images", "8"),
    *("--test-images", "3", "--batch-size", "4", "--workers", "0", "--device", "cpu"),
]


def test_train_then_evaluate_in_a_directory_of_its_own(call):
    code, out, err = call("segment", "train", *TINY, "--json")
    (directory,) = runs()
    assert code == 0, err
    trained = json.loads(out)
    assert trained == json.loads((directory / RECORD).read_text())
    assert err.splitlines()[0] == directory.name

    words = ["--images", "3", "--workers", "0", "--device", "cpu", "--out", "scores", "--json"]
    code, out, err = call("segment", "evaluate", directory, *words)
    assert code == 0, err
    scored = json.loads(out)
    assert scored["result"]["miou"] == trained["result"]["miou"]
    assert scored["config"]["checkpoint"] == str(directory)
    assert len(list(directory.parent.parent.glob("scores/*"))) == 1


def test_the_table_has_regions_and_classes(call):
    code, out, _ = call("segment", "train", *TINY)
    assert code == 0
    lines = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    names = [cells[0].strip() for cells in lines]
    assert names[0] == "mIoU" and {"road", "parking", "person"} <= set(names)
    (directory,) = runs()
    miou = json.loads((directory / RECORD).read_text())["result"]["miou"]
    assert [cell.strip() for cell in lines[0][1:]] == [f"{value:.1f}" for value in miou.values()]


def test_every_option_reaches_the_run(call, tmp_path):
    root = trees.camvid(tmp_path, (("train", 4), ("test", 2)), (40, 60))
    options = {
        "preset": "quick",
        "data": "camvid",
        "split": "test",
        "backbone": "resnet50",
        "width": 2,
        "output_stride": 16,
        "flip": True,
        "epochs": 1,
        "train_images": 3,
        "test_images": 1,
        "batch_size": 3,
        "test_batch_size": 5,
        "learning_rate": 0.02,
        "backbone_rate": 0.3,
        "momentum": 0.8,
        "weight_decay": 0.01,
        "power": 0.7,
        "device": "cpu",
        "precision": "bf16",
    }
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] + ([value] if value is not True else [])
    words += ["--size", "40,60", "--crop", "32,48", "--scales", "0.5,2", "--seed", "3"]
    words += ["--root", root, "--workers", "0", "--out", "elsewhere", "--json"]
    code, out, err = call("segment", "train", *words)
    assert code == 0, err
    lists = {"size": [40, 60], "crop": [32, 48], "scales": [0.5, 2.0]}
    rest = {"seed": 3, "weights": None, "compile": False}
    assert json.loads(out)["config"] == options | lists | rest


def test_several_seeds_are_a_run_each(call):
    code, out, _ = call("segment", "train", *TINY, "--seed", "1,0,1", "--json")
    assert code == 0
    assert [record["config"]["seed"] for record in json.loads(out)] == [1, 0]


def test_every_option_reaches_the_score(call, tmp_path):
    torch.save(deeplabv3("resnet18", 11, width=4).state_dict(), tmp_path / "w.pth")
    root = trees.camvid(tmp_path)
    options = {
        "data": "camvid",
        "split": "train",
        "images": 2,
        "output_stride": 16,
        "batch_size": 3,
        "device": "cpu",
        "precision": "bf16",
    }
    words = ["--size", "32,48", "--root", root, "--workers", "0", "--json"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    code, out, err = call("segment", "evaluate", tmp_path / "w.pth", *words)
    assert code == 0, err
    names = {"checkpoint": str(tmp_path / "w.pth"), "network": "w.pth", "size": [32, 48]}
    names["weights"] = None
    config = json.loads(out)["config"]
    assert len(config.pop("weights_digest")) == 32
    assert config == options | names
    assert json.loads(out)["result"]["images"] == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("train --preset fast", "preset: expected one of quick, camvid, cityscapes, got 'fast'"),
        ("train --data camvid", "data: no camvid in data: expected images in data/train and"),
        ("train --data cityscapes", "data: no cityscapes in data: data/leftImg8bit/train, "),
        ("train --split test", "split: expected one of train, val, got 'test'"),
        ("train --size 32", "size: expected 2 values, got 1: 32"),
        ("train --size 16,64", "size: expected at least 32×32 pixels, got 16×64"),
        ("train --crop a,b", "crop: expected whole numbers separated by commas, got 'a,b'"),
        ("train --scales 0.5,2", "scales: expected none without a crop, got (0.5, 2.0)"),
        ("train --workers -1", "workers: expected at least 0, got -1"),
        ("train --weights absent.pth --width 64", "weights: there is no absent.pth"),
        ("train --device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("train --out ../file", "out: cannot write to ../file: File exists"),
        ("evaluate absent.pth --data voc", "path: there is no absent.pth"),
        ("evaluate ../tree --data voc", "model: there is no ../tree/checkpoint.pt"),
        ("evaluate ../w.pth", "data: expected one of streets, camvid, cityscapes, voc with a "),
        ("evaluate ../w.pth --data voc", "data: no voc in data: expected data/VOCdevkit"),
        ("evaluate ../w.pth --data streets --images 1", "checkpoint: expected a network for the"),
        ("evaluate ../w.pth --data streets --batch-size 0", "batch_size: expected at least 1"),
        ("evaluate", "Missing argument '"),
        ("another", "No such command 'another'."),
    ],
)
def test_wrong_input_gets_a_line_and_leaves_nothing_behind(words, complaint, call, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "tree").mkdir()
    torch.save(deeplabv3("resnet18", 4, width=4).state_dict(), tmp_path / "w.pth")
    command, *rest = words.split()
    tiny = [*TINY, *rest] if command == "train" else rest
    code, out, err = call("segment", command, *tiny)
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith(f"gpe: {complaint}") and err.count("gpe:") == 1
    assert list((tmp_path / "here").iterdir()) == []

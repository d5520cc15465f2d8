"""``gpe location``: what it runs, what it prints where, and how it refuses."""

import json
import re

import pytest
import torch
from PIL import Image

from gpe.experiments.runs import CHECKPOINT
from gpe.records import ARRAYS, RECORD, Record
from tests.experiments.tiny import runs

TINY = [
    *("--width", "4", "--epochs", "1", "--train-images", "40", "--test-images", "40"),
    *("--grid", "2", "--image-size", "10"),
]


# What is run


def test_json_prints_the_record_alone(call, tmp_path):
    """Progress goes to standard error."""
    code, out, err = call("location", *TINY, "--json")
    (file,) = tmp_path.rglob(RECORD)
    assert code == 0
    assert file.parent.parent == tmp_path / "here" / "runs"
    assert json.loads(out) == json.loads(file.read_text())
    assert err.splitlines()[0] == file.parent.name
    assert re.match(r"  epoch 1/1  loss [\d.]+  train [\d.]+ %", err.splitlines()[1])


def test_json_of_a_finished_run_is_the_same(call):
    first = call("location", *TINY, "--json")
    code, out, err = call("location", *TINY, "--json")
    assert (code, out) == (0, first[1])
    assert "finished before; --force runs it again" in err
    assert json.loads(call("location", *TINY, "--json", "--force")[1]) != json.loads(out)


def test_every_combination_is_run_once(call):
    """GAPNet has no permutation: it is not run once for each."""
    several = ["--grid", "2,3", "--network", "gapnet,permutenet", "--permutation", "random,fixed"]
    code, out, err = call("location", *TINY, *several, "--seed", "0,1", "--json")
    configs = [record["config"] for record in json.loads(out)]
    names = ("seed", "network", "permutation", "grid_size")
    assert code == 0
    assert [tuple(config[name] for name in names) for config in configs] == [
        (seed, network, permutation, grid)
        for seed in (0, 1)
        for network, permutation in (
            ("gapnet", None),
            ("permutenet", "random"),
            ("permutenet", "fixed"),
        )
        for grid in (2, 3)
    ]
    assert [line.split()[0] for line in err.splitlines() if line.startswith("[")] == [
        f"[{i}/12]" for i in range(1, 13)
    ]


def test_every_option_reaches_the_run(call):
    options = {
        "network": "permutenet",
        "task": "object",
        "grid": 3,
        "padding": "circular",
        "permutation": "fixed",
        "data": "digits",
        "preset": "paper",
        "seed": 3,
        "width": 4,
        "epochs": 2,
        "train-images": 30,
        "test-images": 20,
        "batch-size": 10,
        "test-batch-size": 15,
        "learning-rate": 0.002,
        "betas": "0.8,0.9",
        "weight-decay": 0.01,
        "schedule": "one-cycle",
        "bn-batches": 2,
        "image-size": 9,
        "device": "cpu",
        "precision": "bf16",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    code, out, err = call("location", *words, "--no-flip", "--out", "elsewhere", "--json")
    assert code == 0, err
    config = json.loads(out)["config"]
    renamed = {"grid": "grid_size", "padding": "padding_mode"}
    expected = {renamed.get(name, name.replace("-", "_")): options[name] for name in options}
    assert config == expected | {"betas": [0.8, 0.9], "flip": False, "compile": False}


def test_the_table_shows_what_was_measured_beside_the_paper_s(call):
    """Without a terminal: no colours, no line cut to 80 columns."""
    several = ["--network", "gapnet,permutenet", "--task", "location,object", "--grid", "2,3,5,7"]
    code, out, err = call("location", *TINY, *several)
    assert code == 0 and "\x1b" not in out + err and "…" not in out
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in out.splitlines() if line[:2] == "│ "]
    records = {directory.name[:-9]: Record.load(directory) for directory in runs()}
    expected = []
    for task in ("location", "object"):
        expected.append(["padding zeros", "", "", "", ""])
        for network, label in (("gapnet", "GAPNet"), ("permutenet", "PermuteNet")):
            cells = []
            for grid in (2, 3, 5, 7):
                record = records[f"{task}-{network}-{grid}x{grid}-zeros-digits-quick"]
                cell = f"{record.result['best']['test_accuracy']:.1f}"
                cells.append(cell + (f" ({record.paper['value']:.1f})" if record.paper else ""))
            expected.append([label, *cells])
    assert rows == expected
    assert "digits, quick preset" in out and "in parentheses the paper's" in out


# What is refused


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--network resnet", "network: expected one of gapnet, permutenet, got 'resnet'"),
        ("--task where", "task: expected one of location, object, got 'where'"),
        ("--grid 0", "grid_size: expected at least 1, got 0"),
        ("--grid 3,x", "grid: expected whole numbers separated by commas, got '3,x'"),
        ("--grid 2,0", "grid_size: expected at least 1, got 0"),
        ("--padding same", "padding_mode: expected one of zeros, reflect, replicate, circular, "),
        ("--network permutenet --permutation none", "permutation: expected one of random, fixed, "),
        ("--data absent/path", "data: there is no absent/path; expected digits, cifar10, "),
        ("--data cifar10", "data: no intact cifar10 in data/cifar-10-batches-py; add --download"),
        ("--preset fast", "preset: expected one of quick, paper, got 'fast'"),
        ("--seed x", "seed: expected whole numbers separated by commas, got 'x'"),
        ("--seed 99999999999999999999", "seed: expected at most 9223372036854775807, got 999"),
        ("--width 0", "width: expected at least 1, got 0"),
        ("--epochs 0", "epochs: expected at least 1, got 0"),
        ("--epochs many", "Invalid value for '--epochs': "),
        ("--train-images 0", "train_images: expected at least 1, got 0"),
        ("--learning-rate 0", "learning_rate: expected above 0, got 0.0"),
        ("--betas 0.5", "betas: expected 2 values, got 1: 0.5"),
        ("--betas a,b", "betas: expected numbers separated by commas, got 'a,b'"),
        ("--schedule cosine", "schedule: expected one of constant, one-cycle, got 'cosine'"),
        ("--image-size 8", "image_size: expected canvases of more than 16 pixels a side"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("--device cuda:99", "device: expected one that is there, got cuda:99; torch sees "),
        ("--precision fp8", "precision: expected one of fp32, bf16, got 'fp8'"),
        ("--bogus", "No such option: --bogus"),
        ("--out ../file", "out: cannot write to ../file: File exists"),
        ("--data ../empty", "data: in ../empty expected train/CLASS/IMAGE and test/CLASS/IMAGE"),
        ("--data ../damaged", "data: cannot read the image ../damaged/a/1.png: "),
    ],
)
def test_wrong_input_gets_a_line_and_leaves_nothing_behind(options, complaint, call, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        (tmp_path / "damaged" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (10, 10)).save(tmp_path / "damaged" / name / f"{i}.png")
    (tmp_path / "damaged" / "a" / "1.png").write_bytes(b"\x89PNG half")
    code, out, err = call("location", *TINY, *options.split(), "--resume")
    assert (code, out) == (2, "")
    assert err.startswith(f"gpe: {complaint}") and len(err.splitlines()) <= 2
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(call):
    code, out, err = call("location", *TINY, "--device", "cuda")
    assert (code, out) == (2, "")
    assert err == "gpe: device: expected one that is there, got cuda; torch sees 0 GPUs\n"


def test_a_checkpoint_of_another_network_is_refused(call):
    call("location", *TINY, "--network", "gapnet,permutenet")
    other, changed = sorted(runs())
    (changed / CHECKPOINT).write_bytes((other / CHECKPOINT).read_bytes())
    (changed / RECORD).unlink()
    before = (changed / ARRAYS).read_bytes()
    code, out, err = call("location", *TINY, "--network", "permutenet", "--resume")
    assert (code, out) == (2, "")
    assert err == f"gpe: resume: {changed / CHECKPOINT} is of another configuration\n"
    assert (changed / ARRAYS).read_bytes() == before


def test_a_diverging_training_is_told_to_slow_down(call):
    code, out, err = call("location", *TINY, "--learning-rate", "1e30", "--epochs", 3)
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith("gpe: learning_rate: the loss became ") and "Traceback" not in err

"""``gpe augshift``: what it runs, what it prints where, and how it refuses."""

import json

import pytest
from PIL import Image

from gpe.experiments.runs import CHECKPOINT
from gpe.records import RECORD, Record
from tests.experiments.tiny import runs

TINY = [
    *("--stem", "cifar", "--image-size", "10", "--width", "4", "--epochs", "1", "--passes", "1"),
    *("--train-images", "40", "--test-images", "20", "--epoch-images", "32", "--shifts", "1,2"),
]
ROWS = ["baseline", "wide-crops", "augshift", "blurpool", "blurpool-augshift"]


def test_json_prints_the_record_alone(call, tmp_path):
    """Progress goes to standard error."""
    code, out, err = call("augshift", *TINY, "--method", "augshift", "--json")
    (file,) = tmp_path.rglob(RECORD)
    assert code == 0
    assert file.parent.parent == tmp_path / "here" / "runs"
    assert json.loads(out) == json.loads(file.read_text())
    assert err.splitlines()[0] == file.parent.name


def test_all_five_rows_are_run_unless_some_are_named(call):
    """Each with equal compute, which the record says."""
    records = json.loads(call("augshift", *TINY, "--json")[1])
    assert [record["config"]["method"] for record in records] == ROWS
    assert all(record["config"]["equal_compute"] is True for record in records)
    code, out, err = call("augshift", *TINY, "--json")
    assert (code, json.loads(out)) == (0, records) and err.count("finished before") == 5


def test_the_paper_s_twice_as_many_crops_are_an_option(call):
    options = ["--method", "augshift", "--no-equal-compute", "--json"]
    code, out, _ = call("augshift", *TINY, *options)
    assert code == 0 and json.loads(out)["config"]["equal_compute"] is False


def test_every_combination_is_run_once(call):
    """Seeds slowest; a row without the loss has no λ, so it is not run once for each."""
    several = ["--method", "wide-crops,augshift", "--weight", "0.5,2", "--crop-shift", "1,2"]
    code, out, _ = call("augshift", *TINY, *several, "--seeds", "2", "--seed", "3", "--json")
    configs = [record["config"] for record in json.loads(out)]
    names = ("seed", "method", "weight", "crop_shift")
    assert code == 0
    assert [tuple(config[name] for name in names) for config in configs] == [
        (seed, method, weight, shift)
        for seed in (3, 4)
        for method, weight in (("wide-crops", 0.0), ("augshift", 0.5), ("augshift", 2.0))
        for shift in (1, 2)
    ]


def test_every_option_reaches_the_run(call):
    options = {
        "method": "blurpool-augshift",
        "data": "digits",
        "preset": "paper",
        "seed": 3,
        "network": "resnet50",
        "split": "validation",
        "weight": 0.5,
        "crop-shift": 3,
        "stem": "cifar",
        "width": 2,
        "epochs": 1,
        "train-images": 30,
        "test-images": 20,
        "epoch-images": 24,
        "batch-size": 10,
        "test-batch-size": 15,
        "learning-rate": 0.002,
        "momentum": 0.8,
        "weight-decay": 0.01,
        "schedule": "one-cycle",
        "label-smoothing": 0.1,
        "image-size": 11,
        "protocol": "reflect",
        "passes": 2,
        "device": "cpu",
        "precision": "bf16",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += [
        "--shifts",
        "1,3",
        "--no-flip",
        "--no-relative",
        "--images",
        "small",
        "--out",
        "elsewhere",
    ]
    code, out, err = call("augshift", *words, "--out", "elsewhere", "--json")
    assert code == 0, err
    expected = {name.replace("-", "_"): value for name, value in options.items()}
    expected |= {"shifts": [1, 3], "flip": False, "compile": False, "equal_compute": False}
    expected |= {"relative": False, "resize_size": None, "reading": None}
    assert json.loads(out)["config"] == expected


@pytest.fixture
def tree(tmp_path):
    """Images of different sizes, ImageFolder's form, two classes."""
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "tree" / part / name).mkdir(parents=True)
            for number in range(count):
                size, colour = (50 + 5 * number, 60 - 5 * number), (100 * label, 9 * number, 0)
                image = Image.new("RGB", size, colour)
                image.save(tmp_path / "tree" / part / name / f"{number}.png")
    return "../tree"


def test_large_images_are_trained_on_and_scored(call, tree):
    """From files to a record, and from the run that is left to the score of its network."""
    options = ["--data", tree, "--images", "large", "--workers", "0", "--image-size", "36"]
    options += ["--resize-size", "44", "--width", "4", "--epochs", "1", "--crop-shift", "2"]
    options += ["--reading", "plain", "--protocol", "crop", "--shifts", "2,4"]
    code, out, err = call("augshift", "--method", "augshift", *options, "--json")
    assert code == 0, err
    trained = json.loads(out)
    assert trained["config"]["resize_size"] == 44 and trained["config"]["reading"] == "plain"
    (run,) = runs()
    options = ["--data", tree, "--workers", "0", "--protocol", "crop", "--shifts", "2,4"]
    code, out, err = call("consistency", run, *options, "--json")
    assert code == 0, err
    assert json.loads(out)["result"]["consistency"] == trained["result"]["consistency"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--method shift", "method: expected one of baseline, wide-crops, augshift, blurpool, "),
        ("--method augshift,", "method: expected one of baseline, wide-crops, augshift, blurpool"),
        ("--preset slow", "preset: expected one of quick, fast, paper, got 'slow'"),
        ("--preset fast --images large", "preset: fast has no recipe for large images"),
        ("--images huge", "images: expected one of small, large, got 'huge'"),
        ("--network vgg", "network: expected one of resnet18, resnet50, got 'vgg'"),
        ("--protocol wrap", "protocol: expected one of crop, zeros, reflect, circular, got 'wrap'"),
        ("--protocol crop", "shifts: expected at most 0 pixels with protocol crop, got 2"),
        ("--protocol reflect --shifts 10", "shifts: expected at most 9 pixels with protocol refl"),
        ("--shifts 0", "shifts: expected at least 1, got 0"),
        ("--shifts one", "shifts: expected whole numbers separated by commas, got 'one'"),
        ("--seeds 0", "seeds: expected at least 1, got 0"),
        ("--seed -1", "seed: expected at least 0, got -1"),
        ("--weight -1", "weight: expected at least 0, got -1.0"),
        ("--weight 1,x", "weight: expected numbers separated by commas, got '1,x'"),
        ("--crop-shift -1", "crop_shift: expected at least 0, got -1"),
        ("--crop-shift 1.5", "crop_shift: expected whole numbers separated by commas, got '1.5'"),
        ("--image-size 8", "image_size: expected at least 9 with stem cifar, got 8"),
        ("--reading plain", "reading: expected none for small images, got plain"),
        ("--resize-size 40", "resize_size: expected none for small images, got 40"),
        (
            "--images large --image-size 40 --resize-size 39",
            "resize_size: expected at least image_size, 40, got 39",
        ),
        (
            "--images large --image-size 40 --resize-size 44 --protocol crop --shifts 3",
            "shifts: expected at most 2 pixels with protocol crop, got 3",
        ),
        ("--images large --reading raw", "reading: expected one of resized, plain, got 'raw'"),
        ("--images large", "data: there is no digits; expected imagenet or a folder of images"),
        ("--images large --data ../tree --workers -1", "workers: expected at least 0, got -1"),
        ("--data imagenet", "data: no imagenet in data: meta.bin, train, val missing. "),
        ("--data cifar10", "data: no intact cifar10 in data/cifar-10-batches-py; add --download"),
        ("--data absent", "data: there is no absent; expected digits, cifar10, cifar100 or a "),
        ("--split val", "split: expected one of test, validation, got 'val'"),
        ("--label-smoothing 2", "label_smoothing: expected at most 1, got 2.0"),
        ("--learning-rate 0", "learning_rate: expected above 0, got 0.0"),
        ("--schedule constant", "schedule: expected one of cosine, one-cycle, step, got "),
        ("--precision fp8", "precision: expected one of fp32, bf16, got 'fp8'"),
        ("--device tpu", "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ("--epochs many", "Invalid value for '--epochs': "),
        ("--out ../file", "out: cannot write to ../file: File exists"),
        ("--bogus", "No such option: --bogus"),
    ],
)
def test_wrong_input_gets_a_line_and_leaves_nothing_behind(
    options, complaint, call, tmp_path, tree
):
    """Before the first row is trained, whichever row it is wrong for."""
    (tmp_path / "file").touch()
    code, out, err = call("augshift", *TINY, *options.split(), "--resume")
    assert (code, out) == (2, "")
    assert err.startswith(f"gpe: {complaint}") and len(err.splitlines()) <= 2
    assert list((tmp_path / "here").iterdir()) == []


def test_a_checkpoint_of_another_row_is_refused(call):
    call("augshift", *TINY, "--method", "baseline,augshift", "--json")
    other, changed = sorted(runs())
    (changed / CHECKPOINT).write_bytes((other / CHECKPOINT).read_bytes())
    (changed / RECORD).unlink()
    code, out, err = call("augshift", *TINY, "--method", "baseline,augshift", "--json", "--resume")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"gpe: resume: {changed / CHECKPOINT} is of another configuration"
    )


@pytest.mark.parametrize("method", ["baseline", "augshift"])
def test_a_diverging_training_is_told_to_slow_down(method, call):
    options = ["--learning-rate", "1e30", "--epochs", 3, "--method", method]
    code, out, err = call("augshift", *TINY, *options)
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith("gpe: learning_rate: the ") and "Traceback" not in err
    assert not [Record.load(run) for run in runs()]

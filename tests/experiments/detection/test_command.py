"""``gpe detect`` and ``gpe table-s1``: what they run, what they print, and how they refuse."""

import json
from pathlib import Path

import pytest

from gpe.experiments.detection import run
from tests.conftest import SHARED_DATA
from tests.experiments.tiny_detectors import TINY

REAL = SHARED_DATA / "citypersons"
WORDS = [
    word
    for name, value in TINY.items()
    for word in (
        f"--{name.replace('_', '-')}",
        ",".join(map(str, value)) if isinstance(value, tuple) else str(value),
    )
]


def test_train_evaluate_and_ablate(call):
    code, out, err = call("detect", "train", *WORDS, "--epochs", "1", "--json")
    assert code == 0, err
    trained = json.loads(out)
    directory = err.splitlines()[0].split(":")[0]
    code, out, err = call("detect", "evaluate", f"runs/{directory}", "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["result"]["miss_rates"] == trained["result"]["miss_rates"]
    code, out, err = call("detect", "ablate", f"runs/{directory}", "--device", "cpu")
    assert code == 0, err
    assert "By position" in out and "Random" in out and "(11.1)" in out


def test_the_table_trains_what_is_not_there(call, monkeypatch):
    """The quick preset's network, made small."""
    small = {name: TINY[name] for name in TINY.keys() - {"device", "size"}}
    quick = run.DetectionConfig.PRESETS["quick"] | small | {"epochs": 1}
    monkeypatch.setattr(run.DetectionConfig, "PRESETS", {"quick": quick})
    words = ["--size", "64,128", "--random-seeds", "1", "--device", "cpu", "--json"]
    code, out, err = call("table-s1", *words)
    assert code == 0, err
    record = json.loads(out)
    assert record["experiment"] == "table-s1" and record["config"]["detector"] == "csp"
    assert record["config"]["checkpoint"].startswith("runs/detect-csp-streets-quick")


@pytest.mark.skipif(not (REAL / "anno_val.mat").is_file(), reason="no CityPersons")
def test_the_real_annotations_have_the_official_numbers_of_pedestrians(call):
    Path("found.json").write_text("[]")
    words = ["--root", REAL, "--device", "cpu", "--json"]
    code, out, err = call("detect", "evaluate", "found.json", *words)
    assert code == 0, err
    result = json.loads(out)["result"]
    assert list(result["pedestrians"].values()) == [1579, 351, 735, 2875]
    assert result["images"] == 500 and result["miss_rates"]["all"] == [100, 100, 100]


def test_a_network_that_is_no_detector_is_refused(call):
    words = ["--size", "32,64", "--width", "4", "--epochs", "1", "--train-images", "4"]
    words += ["--test-images", "2", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    _, _, err = call("segment", "train", *words)
    directory = f"runs/{err.splitlines()[0].split(':')[0]}"
    code, _, err = call("detect", "ablate", directory, "--device", "cpu")
    assert code == 2
    assert err == f"gpe: checkpoint: expected a detector, got {directory}, for segmentation\n"


def test_refusals_are_one_line(call):
    for words, message in (
        (("detect", "ablate"), "gpe: checkpoint: expected one or more, got none\n"),
        (("detect", "evaluate", "absent.json"), "gpe: checkpoint: there is no absent.json\n"),
        (("table-s1", "--preset", "paper"), "gpe: preset: expected one of quick, streets, "),
    ):
        code, _, err = call(*words)
        assert code == 2 and err.startswith(message) and err.count("\n") == 1

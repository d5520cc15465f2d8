"""The command line: what all commands share, and the small ones."""

import pytest

import gpe
from gpe.experiments.augshift.config import AugShiftConfig
from gpe.experiments.location.config import LocationConfig
from gpe.experiments.segmentation.config import SegmentationConfig
from gpe.records import Record
from tests.experiments.tiny import runs

TINY = [
    *("--width", "4", "--epochs", "1", "--train-images", "40", "--test-images", "40"),
    *("--grid", "2", "--image-size", "10"),
]


def test_report_writes_one_file(call, tmp_path):
    call("location", *TINY, "--network", "gapnet,permutenet")
    before = set(tmp_path.rglob("*"))
    code, out, _ = call("report", "runs", "--out", "page.html")
    assert (code, out) == (0, "page.html: 2 runs\n")
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "here" / "page.html"}
    assert "<html" in (tmp_path / "here" / "page.html").read_text(encoding="utf-8")


def test_info_is_the_doctor_s_diagnosis(call):
    assert call("info") == (0, f"{gpe.doctor()}\n", "")


def test_demo_trains_six_networks_and_says_what_was_shown(call, tmp_path, monkeypatch):
    """With networks so small that they show nothing; `make demo` runs the real ones."""
    demo = pytest.importorskip("gpe.experiments.demo")
    tiny = {"train_images": 40, "test_images": 40, "width": 4}
    small = {"size": (32, 64), "width": 4, "epochs": 1, "batch_size": 4}
    for config, options in (
        (LocationConfig, tiny | {"epochs": {"location": 1, "object": 1}}),
        (AugShiftConfig, tiny | {"epochs": 1, "epoch_images": 40, "passes": 1}),
        (SegmentationConfig, small),
    ):
        presets = config.PRESETS | {"quick": config.PRESETS["quick"] | options}
        monkeypatch.setattr(config, "PRESETS", presets)
    monkeypatch.setattr(demo, "STREETS", {"train_images": 8, "test_images": 40})
    code, out, err = call("demo")
    assert code == 0, err
    records = list(map(Record.load, runs()))
    accuracy = {
        record.config["permutation"]: record.result["best"]["test_accuracy"]
        for record in records
        if record.experiment == "location"
    }
    assert accuracy.keys() == {None, "random", "fixed"}
    moved = [record.config["method"] for record in records if record.experiment == "augshift"]
    assert sorted(moved) == ["augshift", "baseline"]
    assert (tmp_path / "here" / "runs" / "demo" / "report.html").exists()
    shown = out[out.index("What was found") :]
    assert f"GAPNet names the right cell for {accuracy[None]:.1f}\u00a0%" in shown
    assert f"does so for {accuracy['random']:.1f}\u00a0%" in shown
    assert f"does so for {accuracy['fixed']:.1f}\u00a0%" in shown
    assert "Guessing would do so for 11.1\u00a0%" in shown
    assert "runs/demo/report.html" in shown
    figures = {record.experiment for record in records} - {"location", "augshift"}
    assert figures == {"segment", "figure4", "figure5"}
    assert call("demo")[2].count("finished before") == 6


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("report absent", "runs: expected a directory, got absent"),
        ("report .", "runs: no record.json below ."),
        ("report", "Missing argument "),
        ("bogus", "No such command 'bogus'."),
    ],
)
def test_other_commands_refuse_alike(words, complaint, call, tmp_path):
    code, out, err = call(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"gpe: {complaint}") and len(err.splitlines()) <= 2
    assert list((tmp_path / "here").iterdir()) == []


def test_without_a_command_help_is_printed_and_nothing_else(call):
    _, out, err = call()
    assert err == ""
    for command in ("location", "augshift", "consistency", "report", "demo", "info"):
        assert f" {command} " in out
        assert call(command, "--help")[0] == 0

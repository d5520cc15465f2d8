"""The command line: what all commands share, and the small ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpe
from gpe.experiments.augshift.config import AugShiftConfig
from gpe.experiments.location.config import LocationConfig
from gpe.experiments.segmentation.config import SegmentationConfig
from gpe.records import Record
from gpe.report.words import count
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


def shell(command, folder, **environment):
    """Runs ``gpe`` in a process of its own, in ``folder``; ``{gpe}`` in the command is its name."""
    root = Path(__file__).parents[1]
    gpe_command = f"{sys.executable} -m gpe.cli"
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.format(gpe=gpe_command)}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder whose name rich would take for markup, 200 characters deep, with one run."""
    folder = tmp_path_factory.mktemp("odd") / "a[/v2]" / Path(*["deep-folder"] * 17)
    folder.mkdir(parents=True)
    done = shell(f"{{gpe}} location {' '.join(TINY)}", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_terminal_without_utf_8_gets_ascii(finished):
    (run,) = (finished / "runs").iterdir()
    record = Record.load(run)
    record.config["seed"] = 1
    record.save(finished / "runs" / "other seed λ")
    done = shell(f"{{gpe}} location {' '.join(TINY)}", finished, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "| GAPNet " in done.stdout and " 2x2 |" in done.stdout
    done = shell("{gpe} report runs", finished, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "report.html: 2 runs\n")


def test_a_run_in_an_odd_folder_is_named_by_its_path_and_used_again(finished):
    """Rich took the brackets for markup; the name of the folder was too long."""
    (run,) = (run for run in (finished / "runs").iterdir() if run.name.startswith("location"))
    words = "--data digits --images 16 --layer backbone.layer4 --grid 2 --image-size 16 --out"
    done = shell(f"{{gpe}} atlas '{run}' {words} '{finished / 'atlas'}'", finished)
    assert done.returncode == 0, done.stderr
    (mapped,) = (finished / "atlas").iterdir()
    assert len(mapped.name) < 256 and "[" not in mapped.name


def test_a_reader_that_goes_away_ends_the_command_in_silence(finished):
    done = shell(f"{{gpe}} location {' '.join(TINY)} --json | head -c 1", finished)
    assert done.stdout == "{" and "Traceback" not in done.stderr and "ignored" not in done.stderr
    done = shell(f"{{gpe}} location {' '.join(TINY)} --json > /dev/full", finished)
    assert done.returncode == 1 and "ignored" not in done.stderr
    assert done.stderr.splitlines()[-1] == "gpe: [Errno 28] No space left on device"


def test_one_bad_record_is_named_and_the_others_are_drawn(call):
    call("location", *TINY, "--network", "gapnet,permutenet")
    good, *others = sorted(runs())
    for name, text in (("half", "{"), ("empty", "{}"), ("nan", '{"chance": NaN}')):
        (good.parent / name).mkdir()
        (good.parent / name / "record.json").write_text(text)
    record = Record.load(good)
    del record.config["task"]
    record.save(good)
    code, out, err = call("report", "runs")
    assert (code, out) == (0, f"report.html: {count(len(others), 'run')}\n")
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("gpe: runs/") for line in lines)
    assert f"{good}/record.json is not a location record: KeyError('task'); it is left out" in err


def test_a_copy_counts_once(call):
    call("location", *TINY)
    (run,) = runs()
    Record.load(run).save(run.parent / "copy")
    code, out, err = call("report", "runs")
    assert (code, out) == (0, "report.html: 1 run\n") and "is a copy of" in err


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
    assert call("demo")[2].count("finished before") == 8


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


def test_the_version_is_printed(call):
    code, out, err = call("--version")
    assert (code, err) == (0, "") and out.startswith("gpe 0.")


@pytest.mark.parametrize(
    ("words", "found"), [("gpe segm", "segment"), ("gpe location --gr", "--grid")]
)
def test_the_shell_completes_commands_and_options(words, found, tmp_path):
    main = f"{sys.executable} -c 'import sys, gpe.cli; sys.argv[0] = \"gpe\"; gpe.cli.main()'"
    asked = {"_GPE_COMPLETE": "complete_bash", "COMP_WORDS": words}
    done = shell(main, tmp_path, COMP_CWORD=str(words.count(" ")), **asked)
    assert done.stdout.split() == [found], done.stderr

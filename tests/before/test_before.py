"""Records, checkpoints and rankings of before are read; the README tells how they were made."""

import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gpe import cli
from gpe.data import streets
from gpe.experiments.reports import print_findings, print_tables, write_report
from gpe.experiments.trained import open_trained
from gpe.ranking import ChannelRanking
from gpe.records import ARRAYS, Record, load_arrays
from tests.before import street_scene
from tests.reporting import find

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLES = sorted((HERE / "printed").glob("*.table.txt"))
CHECKPOINTS = sorted((HERE / "made").glob("*/checkpoint.pt"))
README = (HERE / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for line in README.splitlines() if line.startswith("gpe ")]
READERS = ("rank", "ablate", "figure4", "figure5", "figure6", "consistency", "decode", "atlas")
AGAIN = {name: [line for line in COMMANDS if line.startswith(f"gpe {name} ")] for name in READERS}
AGAIN["segment"] = [line for line in COMMANDS if line.startswith("gpe segment evaluate ")]
AGAIN["ablate-classify"] = [line for line in AGAIN["ablate"] if "--task classify" in line]
AGAIN["ablate"] = [line for line in AGAIN["ablate"] if "--task classify" not in line]


# What the tests call of gpe: the only lines to change where it moves.


def printed(directories):
    """The tables of runs as the terminal shows them."""
    console = Console(file=StringIO(), width=200)
    print_tables(directories, console)
    return console.file.getvalue()


def found(directories):
    """What the terminal says of runs in plain words."""
    console = Console(file=StringIO(), width=200)
    print_findings(directories, console)
    return console.file.getvalue()


def page(directories, path):
    """The report about runs."""
    write_report(directories, path)
    return path.read_text(encoding="utf-8")


def frozen(directory, weights="pretrained"):
    """The network of a run, to be read, and the task that it was trained for."""
    opened = open_trained(str(directory), weights)
    return opened.model, opened.task


@pytest.fixture
def gpe(monkeypatch, capsys):
    """Runs a line of the README with more arguments, from the root of the repository."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")
    monkeypatch.chdir(ROOT)
    # Streets are drawn otherwise since (CHANGELOG.md); all else is held to the numbers of before.
    monkeypatch.setattr(streets, "draw", street_scene.draw)

    def run(command, *more):
        monkeypatch.setattr(sys, "argv", [*command.split(), "--device", "cpu", *map(str, more)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        assert not ended.value.code, output.err
        return output.out

    return run


def runs_of(table):
    """The directories that ``printed/FOLDER-EXPERIMENT.table.txt`` is about."""
    folder, _, experiment = table.name.removesuffix(".table.txt").partition("-")
    runs = [run for run in find([HERE / folder]) if Record.load(run).experiment == experiment]
    assert runs
    return runs, experiment


def rows(text):
    """The numbers in each row of all tables in a text, sorted: names that hold digits are none.

    Rows that are alike count once: tables of several networks are one now, which says once what
    guessing would reach.
    """
    lines = (line for line in text.splitlines() if "│" in line)
    numbers = (
        re.findall(r"(?<![\w.-])[+-]?\d+(?:\.\d+)?(?!\w)", line.replace("−", "-")) for line in lines
    )
    return sorted(map(list, {tuple(sorted(map(float, row))) for row in numbers if row}))


def test_every_table_has_its_runs_and_every_run_its_table():
    tabled = {run for table in TABLES for run in runs_of(table)[0]}
    assert tabled == set(find([HERE / "made", HERE / "records"]))
    assert len({runs_of(table)[1] for table in TABLES}) == 12


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name.partition(".")[0])
def test_tables_show_the_numbers_of_before(table):
    runs, _ = runs_of(table)
    assert rows(printed(runs)) == rows(table.read_text(encoding="utf-8"))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name.partition(".")[0])
def test_something_is_found_and_the_report_drawn(table, tmp_path):
    runs, _ = runs_of(table)
    assert found(runs).strip()
    text = page(runs, tmp_path / "report.html")
    assert all(run.name in text for run in runs)


def test_one_report_draws_all_runs(tmp_path):
    runs = find([HERE / "made", HERE / "records"])
    assert page(runs, tmp_path / "report.html").count("<svg") > len(TABLES)


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.parent.name)
def test_checkpoints_open(checkpoint, weights):
    """With the weights in them; ``random`` is the same network before its training."""
    model, task = frozen(checkpoint.parent, weights)
    assert not model.training
    kept = torch.load(checkpoint, weights_only=True)["trial"]["model"]
    same = [torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items()]
    assert len(same) == len(kept) and all(same) == (weights == "pretrained")
    assert task == {"loc": "location", "seg": "segmentation"}.get(
        checkpoint.parent.name[:3], "classification"
    )


@pytest.mark.parametrize("folder", ["rank", "ablate", "figure5", "atlas"])
def test_rankings_are_those_in_the_arrays_beside_them(folder):
    for run in (HERE / "made").glob(f"{folder}-*"):
        arrays = load_arrays(run)
        files = set(run.glob("*.safetensors")) - {run / ARRAYS}
        rankings = {file.stem: ChannelRanking.load(file) for file in files}
        kept = {name[6:] for name in arrays if name.startswith("order.")}
        assert rankings and rankings.keys() == kept
        for name, ranking in rankings.items():
            assert torch.equal(ranking.order, arrays[f"order.{name}"])
            assert torch.equal(ranking.scores, arrays[f"scores.{name}"])


@pytest.mark.parametrize("experiment", AGAIN)
def test_commands_give_the_numbers_of_before(experiment, gpe, tmp_path):
    """On the networks of before, which are not trained again; rankings since then add rows."""
    table = HERE / "printed" / f"made-{experiment}.table.txt"
    for command in AGAIN[experiment]:
        gpe(command, "--out", tmp_path)
    if experiment == "segment":  # whose table has the training as well
        (trained,) = (run for run in runs_of(table)[0] if (run / "checkpoint.pt").exists())
        shutil.copytree(trained, tmp_path / trained.name)
    now, then = rows(printed(find([tmp_path]))), rows(table.read_text(encoding="utf-8"))
    # Training readouts amplifies the last bit, which differs between processors and releases.
    if experiment == "decode":
        assert list(map(len, now)) == list(map(len, then))
        return
    rest = iter(now)
    for before in then:
        assert any(row == pytest.approx(before, rel=0.01, abs=0.1) for row in rest), before
    if experiment not in ("ablate", "figure4", "figure6", "ablate-classify"):
        assert len(now) == len(then)


def test_an_interrupted_training_goes_on(gpe, tmp_path):
    """Its first epoch is not run again; the end is the one that it had without interruption."""
    (left,) = (HERE / "interrupted").iterdir()
    shutil.copytree(left, tmp_path / left.name)
    state = torch.load(tmp_path / left.name / "checkpoint.pt", weights_only=True)
    (first,) = state["history"]["epochs"]
    assert first == Record.load(HERE / "made" / left.name).epochs[0]
    first["train_loss"] = 7.0  # would not be found by running it again
    torch.save(state, tmp_path / left.name / "checkpoint.pt")
    (command,) = (line for line in COMMANDS if line.endswith("--out tests/before/interrupted"))
    gpe(command, "--out", tmp_path, "--resume")
    now, before = Record.load(tmp_path / left.name), Record.load(HERE / "made" / left.name)
    assert now.epochs[0] == first and len(now.epochs) == 3
    assert now.epochs[2] == pytest.approx(before.epochs[2], rel=0.1, abs=1)

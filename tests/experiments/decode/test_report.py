"""What was read from frozen networks, as a page and on a terminal."""

import io

import pytest
from rich.console import Console

from gpe.errors import InputError
from gpe.experiments.decode.report import blocks, sentences, tables
from gpe.experiments.reports import print_findings, print_tables
from gpe.records import Record
from gpe.report.blocks import Finding
from tests.reporting import Page, report, runs_of

LAYERS = ("conv1", "layer4")
ACCURACY = {"gapnet": 90.0, "permutenet": 20.0, "fixed": 89.0}


def decode_run(directory, grid=3, *, layers=LAYERS, readouts=tuple(ACCURACY), **config):
    """Ten percent less at each layer above the last; an interval of three on each side."""
    rows = [
        {
            "layer": layer,
            "depth": depth,
            "channels": 8,
            "readout": readout,
            "accuracy": (share := ACCURACY[readout] - grid - 10 * (len(layers) - depth)),
            "low": share - 3,
            "high": share + 3,
            "train_accuracy": 99.0,
        }
        for depth, layer in enumerate(layers, 1)
        for readout in readouts
    ]
    defaults = {"model": "resnet18", "weights": "random", "data": "digits", "seed": 0}
    Record(
        experiment="decode",
        config=defaults | {"grid_size": grid, "layers": ["depth"]} | config,
        epochs=[],
        result={
            "network": "torchvision/resnet18",
            "task": "classification",
            "trained_on": 1600,
            "tested_on": 400,
            "rows": rows,
        },
        chance=100 / grid**2,
        paper=None,
        run={"seconds": 3.0},
    ).save(directory)
    return directory


def test_the_table_has_a_row_a_readout_and_a_column_a_grid(tmp_path):
    for grid in (11, 3):
        decode_run(tmp_path / str(grid), grid)
    page = Page(report(tmp_path))
    assert page.row("GAPNet") == ["87.0 (84.0\u201390.0)", "79.0 (76.0\u201382.0)"]
    assert page.row("PermuteNet, fixed")[0].startswith("86.0")
    heads = [cell for row in page.tables[0] for cell in row if "guessing " in cell]
    assert heads == ["3×3 guessing 11.1", "11×11 guessing 0.8"]
    assert page.count("svg") >= 3, "Figure S1, and a panel by depth for each grid"


def test_one_layer_has_no_figure_by_depth(tmp_path):
    decode_run(tmp_path / "a", layers=("layer4",))
    text = report(tmp_path)
    assert "Figure S1</b>" in text and "By depth" not in text


def test_networks_are_told_apart_by_what_they_differ_in(tmp_path):
    runs = runs_of(
        decode_run(tmp_path / "a", seed=0),
        decode_run(tmp_path / "b", seed=1),
        decode_run(tmp_path / "c", 5, seed=1),
        decode_run(tmp_path / "d", model="runs/a-run", weights="pretrained", data="/x/photos"),
    )
    assert [trial.name for trial in tables(runs)] == [
        "resnet18, random weights, digits, seed 0",
        "resnet18, random weights, digits, seed 1",
        "a-run, pretrained weights, photos",
    ]


def test_findings_say_it_in_words(tmp_path):
    runs = runs_of(decode_run(tmp_path / "a", 3), decode_run(tmp_path / "b", 5))
    (trial,) = tables(runs)
    first, permuting, control, depth = sentences(trial)
    found = [block for block in blocks(runs) if isinstance(block, Finding)]
    assert found[0].text == " ".join((first, permuting, control, depth))
    assert first == (
        "resnet18, random weights, digits: from the pooled features of layer4, GAPNet's readout "
        "names the right cell of 3×3 and 5×5 grids for 87.0 and 85.0\u00a0% of new images; "
        "guessing would for 11.1 and 4.0\u00a0%."
    )
    assert permuting == "PermuteNet (channels in a new order each time): 17.0 and 15.0\u00a0%."
    assert control.startswith("PermuteNet, fixed (")
    assert depth == "By depth, 5×5: 75.0\u00a0% from conv1, most, 85.0\u00a0%, from layer4."


def test_some_readouts_alone_do(tmp_path):
    decode_run(tmp_path / "a", readouts=("permutenet",), layers=("layer4",))
    page = Page(report(tmp_path))
    assert [row[0] for row in page.tables[0][1:]] == [
        "PermuteNet resnet18, random weights, digits: layer4",
        "guessing",
    ]


def test_the_terminal_has_both_tables(tmp_path):
    directories = [decode_run(tmp_path / str(grid), grid) for grid in (3, 5)]
    console = Console(file=io.StringIO(), width=120)
    print_tables(directories, console)
    print_findings(directories, console)
    text = console.file.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert ["GAPNet", "87.0 (84.0\u201390.0)", "85.0 (82.0\u201388.0)"] in cells
    assert ["guessing", "11.1", "4.0"] in cells
    assert ["conv1", "77.0", "75.0", "7.0", "5.0", "76.0", "74.0"] in cells
    assert "GAPNet's readout names the right cell" in text


def test_what_is_no_such_record_is_told(tmp_path):
    directory = decode_run(tmp_path / "a", layers=())
    with pytest.raises(InputError, match="is not a decode record: ValueError"):
        tables(runs_of(directory))


def test_names_are_escaped(tmp_path):
    decode_run(tmp_path / "a", model="<b>", layers=("[red]x", "layer4"))
    assert "<b>, random" not in report(tmp_path)
    console = Console(file=io.StringIO(), width=120)
    print_tables([tmp_path / "a"], console)
    assert "[red]x" in console.file.getvalue()

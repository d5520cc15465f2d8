"""Location runs on a terminal: the numbers of the records, whatever the width and the names."""

import io
import re

import pytest
from rich.console import Console

from gpe.experiments.reports import print_findings, print_tables
from gpe.records import Record
from tests.reporting import augshift_run, consistency_run


def location_run(directory, *, best, last=10.0, paper=None, grid=3, task="location", **config):
    """A finished run of two epochs, the first the better."""
    defaults = {
        "network": "gapnet",
        "task": task,
        "grid_size": grid,
        "padding_mode": "zeros",
        "permutation": None,
        "data": "digits",
        "preset": "quick",
        "seed": 0,
    }
    epochs = [
        {"epoch": i, "test_loss": 0.5, "test_accuracy": accuracy}
        for i, accuracy in enumerate((best, last), 1)
    ]
    Record(
        experiment="location",
        config=defaults | config,
        epochs=epochs,
        result={"best": epochs[0], "last": epochs[1]},
        chance=100 / grid**2,
        paper=paper and {"source": "Table 1", "value": paper, "protocol": "best epoch"},
    ).save(directory)
    return directory


def printed(show, directories, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(directories, console)
    return console.file.getvalue()


def rows(text):
    """The cells of all tables, row by row, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_cell_has_the_best_epoch_and_the_paper_s_value_where_there_is_one(tmp_path):
    runs = [
        location_run(tmp_path / "a", best=98.76, paper=100.0),
        location_run(tmp_path / "b", best=54.32, paper=78.8, network="permutenet"),
        location_run(tmp_path / "c", best=97.0, network="permutenet", permutation="fixed", grid=4),
    ]
    assert rows(printed(print_tables, runs)) == [
        ["padding zeros", "", ""],
        ["GAPNet", "98.8 (100.0)", ""],
        ["PermuteNet", "54.3 (78.8)", ""],
        ["PermuteNet, fixed shuffle", "", "97.0"],
    ]


def test_several_seeds_are_one_cell_with_their_mean_and_spread(tmp_path):
    runs = [
        location_run(tmp_path / str(seed), best=best, paper=78.8, seed=seed)
        for seed, best in enumerate((50.0, 52.0, 54.0))
    ]
    assert rows(printed(print_tables, runs)) == [
        ["padding zeros", ""],
        ["GAPNet", "52.0 ± 2.0 (78.8)"],
    ]


def test_each_data_set_preset_and_task_has_a_table_of_its_own(tmp_path):
    runs = [
        location_run(
            tmp_path / f"{data}{preset}{task}", best=50, data=data, preset=preset, task=task
        )
        for data in ("digits", "cifar10")
        for preset in ("quick", "paper")
        for task in ("object", "location")
    ]
    titles = re.findall(r"(\w+): .*\? *(\w+), (\w+) preset", printed(print_tables, runs, 200))
    assert titles == [
        (task, data, preset)
        for preset in ("paper", "quick")
        for data in ("cifar10", "digits")
        for task in ("Location", "Object")
    ]


@pytest.mark.parametrize("task", ["location", "object"])
def test_table_1_fits_into_80_columns(task, tmp_path):
    """All of its numbers stand uncut on one line a row."""
    runs = [
        location_run(
            tmp_path / f"{padding}{network}{permutation}{grid}",
            best=100.0,
            paper=None if permutation == "fixed" else 100.0,
            task=task,
            grid=grid,
            padding_mode=padding,
            network=network,
            permutation=permutation,
        )
        for padding in ("zeros", "reflect", "replicate")
        for network, permutation in (
            ("gapnet", None),
            ("permutenet", "random"),
            ("permutenet", "fixed"),
        )
        for grid in (3, 5, 7)
    ]
    text = printed(print_tables, runs)
    found = rows(text)
    assert text.count("100.0 (100.0)") == 3 * 2 * 3 and "…" not in text
    networks = ["GAPNet", "PermuteNet", "PermuteNet, fixed shuffle"]
    paddings = ("zeros", "reflect", "replicate")
    names = [[f"padding {padding}", *networks] for padding in paddings]
    assert [row[0] for row in found] == [each for row in names for each in row]


def test_names_with_brackets_are_printed_as_they_are(tmp_path):
    """Rich would take them for markup: to vanish, or to fail."""
    runs = [
        location_run(tmp_path / str(i), best=50.0, data="photos [red] [/x]", note=note)
        for i, note in enumerate(("[bold]", "[/bold]"))
    ]
    text = printed(print_tables, runs, width=200)
    assert "photos [red] [/x], quick preset" in text
    assert "note [bold]" in text and "note [/bold]" in text
    assert "note [/bold]" in printed(print_findings, runs)


def test_findings_are_sentences_about_the_best_epochs(tmp_path):
    runs = [
        location_run(tmp_path / "a", best=100.0),
        location_run(tmp_path / "b", best=54.3, network="permutenet", permutation="random"),
    ]
    (line,) = printed(print_findings, runs, width=200).replace("\u00a0", " ").splitlines()
    assert line.strip() == (
        "On 3×3 grids GAPNet names the right cell for 100.0 % of the test images. PermuteNet, "
        "which shuffles its channels before it decides, does so for 54.3 %. Guessing would do so "
        "for 11.1 %."
    )


def test_table_2_has_the_numbers_of_each_row_and_the_paper_s(tmp_path):
    runs = [
        augshift_run(tmp_path / "a", "baseline", accuracy=59, consistency=61, paper=(93.1, 90.8)),
        *(
            augshift_run(tmp_path / str(seed), seed=seed, accuracy=50 + seed, consistency=70 + seed)
            for seed in range(3)
        ),
    ]
    text = printed(print_tables, runs)
    assert text.startswith("cifar10, resnet18, quick preset\n")
    assert rows(text) == [
        ["Baseline", "59.0 (93.1)", "68.0 ± 2.0", "61.0 ± 2.0 (90.8)"],
        ["crops ±4", "", "shifted 34.0", "shifted 30.5"],
        ["compute ×1, 1 seed", "", "", ""],
        ["AugShift", "51.0 ± 2.5", "78.0 ± 2.5", "71.0 ± 2.5"],
        ["crops ±8, λ 1", "", "shifted 39.0", "shifted 35.5"],
        ["compute ×1, 3 seeds", "", "", ""],
    ]


def test_table_2_fits_into_80_columns(tmp_path):
    """It shows as many shifts as there is room for, 8 and 16 first, and cuts no number."""
    shifts = (1, 2, 4, 8, 12, 16)
    runs = [
        augshift_run(
            tmp_path / f"{method}{seed}", method, seed=seed, shifts=shifts, paper=(93.1, 90.8)
        )
        for method in ("baseline", "wide-crops", "augshift", "blurpool", "blurpool-augshift")
        for seed in (0, 1)
    ]
    narrow, wide = (printed(print_tables, runs, width) for width in (80, 200))
    assert "…" not in narrow + wide
    heading = next(line for line in narrow.splitlines() if line.startswith("┃"))
    assert re.findall(r"Cons\.\d+", heading) == ["Cons.8", "Cons.16"]
    assert all(f"Cons.{shift} " in wide for shift in shifts)


def test_validation_runs_are_named_so_and_a_sweep_is_a_table_of_crops_by_weight(tmp_path):
    runs = [
        augshift_run(
            tmp_path / str(weight),
            "augshift" if weight else "wide-crops",
            weight=weight,
            consistency=70 + weight,
            split="validation",
        )
        for weight in (0.0, 1.0, 10.0)
    ]
    text = printed(print_tables, runs)
    assert "cifar10, resnet18, quick preset, validation images" in text
    assert rows(text) == [
        ["Two crops ±8 px", "70.0 58.0", "71.0 58.0", "80.0 58.0"],
    ]
    assert "crops ±8, λ 10 has the highest Cons.8, 80.0" in printed(print_findings, runs)


def test_experiments_are_printed_one_after_the_other(tmp_path):
    runs = [
        location_run(tmp_path / "a", best=98.76),
        augshift_run(tmp_path / "b"),
        consistency_run(tmp_path / "c", model="[red]mine[/x]"),
    ]
    text = printed(print_tables, runs)
    assert [line for line in ("98.8", "75.0 ± 2.0", "90.0 ± 2.0") if line not in text] == []
    assert "[red]mine[/x]" in text
    assert "photos, protocol crop" in text
    found = printed(print_findings, runs, width=200)
    assert "GAPNet names" in found and "AugShift: the same" in found and "[red]mine" in found

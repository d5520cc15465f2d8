"""Rankings, ablations and Figure 5 on a terminal: the numbers of the records in 80 columns."""

import io

from rich.console import Console

from gpe.experiments.reports import print_findings, print_tables
from tests.removals import ablation_run, figure5_run, rank_run


def printed(show, directories, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(directories, console)
    return console.file.getvalue()


def rows(text):
    """The cells of all tables, row by row, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def kept(ranking, kind, start, stop, region):
    return {"overall": 40.0, "random/0": 50.0, "random/1": 53.0}.get(ranking, 45.0)


PAPER = [
    {
        "ranking": "overall",
        "removal": "top",
        "start": 0,
        "stop": 100,
        "region": "full",
        "miou": 71.9,
    }
]


def test_an_ablation_is_a_block_for_each_count(tmp_path):
    run = ablation_run(tmp_path, miou=kept, counts=(100, 500), channels=2048, draws=2, paper=PAPER)
    text = printed(print_tables, [run])
    assert text.startswith("streets, val, deeplabv3, backbone.layer4\n")
    assert rows(text) == [
        ["Nothing removed", *["60.0"] * 4],
        ["100 of 2048 removed", *[""] * 4],
        ["Overall", "40.0 (71.9)", *["40.0"] * 3],
        ["Random", *["51.5"] * 4],
        ["", *["50.0\u201353.0"] * 4],
        ["500 of 2048 removed", *[""] * 4],
        ["Overall", *["40.0"] * 4],
        ["Random", *["51.5"] * 4],
        ["", *["50.0\u201353.0"] * 4],
    ]


def test_figure_4_with_the_paper_s_numbers_fits_into_80_columns(tmp_path):
    names = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    run = ablation_run(
        *(tmp_path,),
        miou=kept,
        rankings=names,
        channels=2048,
        counts=range(0, 2001, 100),
        draws=2,
        paper=PAPER,
    )
    text = printed(print_tables, [run])
    assert "…" not in text
    assert max(map(len, text.splitlines()[:-1])) <= 80


def test_rankings_are_their_first_channels_and_how_far_they_agree(tmp_path):
    falling = [12.0 - i for i in range(12)]
    scores = {"overall": falling, "kernel_flip_mirror": falling[::-1], "random": falling}
    found = rows(printed(print_tables, [rank_run(tmp_path, scores)]))
    assert found[0] == ["1", "0  12.0", "11  12.0"]
    assert found[9] == ["10", "9  3.0", "2  3.0"]
    assert found[10:] == [
        ["Overall", "-1.00  0", "1.00  1"],
        ["Kernel-Flip*", "", "-1.00  0"],
    ]


def test_figure_5_is_its_accuracies(tmp_path):
    found = rows(printed(print_tables, [figure5_run(tmp_path, counts=(0, 8, 24))]))
    assert found == [["0", "100.0", "100.5"], ["8", "90.0", "90.5"], ["24", "80.0", "80.5"]]


def test_names_with_brackets_are_printed_as_they_are(tmp_path):
    """Rich would take them for markup: to vanish, or to fail."""
    run = ablation_run(
        *(tmp_path, "ablate"),
        miou=kept,
        rankings=("[red]mine[/x]",),
        regions=("[bold]",),
        layer="[/x]",
        draws=2,
    )
    text = printed(print_tables, [run])
    assert "[red]mine[/x]" in text and "[bold]" in text and "backbone" not in text
    assert "“[red]mine[/x]”" in printed(print_findings, [run], width=200)


def test_all_experiments_are_printed_one_after_the_other(tmp_path):
    miou = kept
    runs = [
        ablation_run(tmp_path / name, name, miou=miou, rankings=("overall", "left", "right"))
        for name in ("ablate", "figure4", "figure6")
    ]
    runs += [figure5_run(tmp_path / "figure5"), rank_run(tmp_path / "rank", {"overall": [2.0, 1]})]
    text = printed(print_tables, runs)
    assert text.count("Nothing removed") == 3
    found = printed(print_findings, runs, width=200).splitlines()
    starts = ("Overall, over", "Without its 6 most", "On the left half", "Of the labelled")
    counts = [sum(line.strip().startswith(start) for line in found) for start in starts]
    # Figure 6 tells of the halves alone, and the others of both.
    assert counts == [1, 2, 3, 1]

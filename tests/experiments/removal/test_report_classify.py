"""Ablated classifiers in the report and on a terminal: the records' numbers, side by side."""

import json

import pytest

from gpe.errors import InputError
from gpe.experiments.removal.classify_report import blocks
from gpe.experiments.reports import print_findings, print_tables
from gpe.records import RECORD
from gpe.report.blocks import Legend
from gpe.report.runs import Run
from tests.removals import classify_run
from tests.report.test_terminal import printed, rows
from tests.reporting import Page, find, report


def test_a_row_for_each_network_with_what_random_channels_cost(tmp_path):
    networks = [classify_run(tmp_path / "a", "plain"), classify_run(tmp_path / "b", "calm", lost=1)]
    table = rows(printed(print_tables, networks, width=120))
    assert table == [
        ["plain", "80.0", "60.0", "60.0"],
        ["Overall, 128 channels", "", *["70.0 (69.0\u201371.0)"] * 2],
        ["calm", "80.0", "69.0", "69.0"],
        ["Overall, 128 channels", "", *["70.0 (69.0\u201371.0)"] * 2],
    ]


def test_the_page_has_the_same_numbers_and_a_panel_for_each_network(tmp_path):
    classify_run(tmp_path / "a", "plain")
    classify_run(tmp_path / "b", "calm", lost=1)
    page = Page(report(tmp_path))
    cells = {row[0].split()[0]: row[1:] for row in page.tables[0][1:]}
    assert cells["plain"][0] == "80.0"
    assert cells["plain"][2] == (
        "60.0 70.0 (69.0\u201371.0) 32 removed, 25 % 10.0 more than random (8.0 to 12.0)"
    )
    assert cells["calm"][2].startswith("69.0 70.0 (69.0\u201371.0) 32 removed")
    # Two rows of two panels, and what both cost beyond random channels.
    assert page.count("svg") - page.count("svg", class_="dash") == 5


def test_a_network_has_its_method_s_colour_and_the_same_one_another_dash(tmp_path):
    for number, name in enumerate(("blurpool-augshift-a", "baseline-b", "baseline-c")):
        classify_run(tmp_path / str(number), name)
    drawn = blocks(list(map(Run.load, find([tmp_path]))))
    legend = [block for block in drawn if isinstance(block, Legend)][-1]
    keys = {key.text: (key.colour, key.dashes) for key in legend.keys}
    assert keys["blurpool-augshift-a"] == ("teal", "")
    assert keys["baseline-b"] == ("red", "") and keys["baseline-c"] == ("red", "7 3")


def test_findings_tell_networks_apart_by_intervals_alone(tmp_path):
    strong = classify_run(tmp_path / "a", "plain", lost=10)
    weak = classify_run(tmp_path / "b", "calm", lost=0.5)
    text = " ".join(printed(print_findings, [strong, weak]).split())
    assert "plain: without its 32 most position-specific channels of 128" in text
    assert (
        "top-1 accuracy goes from 80.0 to 60.0; without 32 random ones to 70.0 (69.0 to 71.0, 3"
        in text
    )
    assert "They cost 10.0 points more than random ones" in text
    assert "not told apart from random (+0.5 points beyond random" in text
    assert "plain loses more without them than calm, by 9.5 points (+6.7 to +12.3)" in text
    near = classify_run(tmp_path / "c", "near", lost=9)
    text = " ".join(printed(print_findings, [strong, near]).split())
    assert "plain and near are not told apart (by +1.0 points, −1.8 to +3.8)" in text


def test_a_ranking_within_the_draws_is_not_told_apart(tmp_path):
    """Although the interval over images alone would."""
    network = classify_run(tmp_path, lost=0.5, half=0.1)
    assert "not told apart from random" in printed(print_findings, [network])


def test_without_random_orders_nothing_is_claimed(tmp_path):
    network = classify_run(tmp_path, draws=0)
    text = " ".join(printed(print_findings, [network]).split())
    assert "No random orders were tried" in text and "more than" not in text
    assert rows(printed(print_tables, [network], width=120))[0][1:] == ["80.0", "60.0", "60.0"]
    assert report(tmp_path)


def test_other_images_are_another_table(tmp_path):
    networks = [classify_run(tmp_path / "a"), classify_run(tmp_path / "b", data="digits")]
    text = printed(print_tables, networks, width=120)
    assert "cifar10, 500 images" in text and "digits, 500 images" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.pop("rows"),
        lambda result: result["rows"].pop(),
        lambda result: result["rows"][0].update(accuracy=101.0),
        lambda result: result["rows"][1].update(start=3),
        lambda result: result["rows"][1].update(stop=129),
        lambda result: result["excess"][0].update(low=float("nan")),
    ],
)
def test_a_broken_record_is_named(tmp_path, change):
    directory = classify_run(tmp_path)
    record = json.loads((directory / RECORD).read_text())
    change(record["result"])
    (directory / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputError, match="is not an ablate-classify record"):
        report(tmp_path)


def test_position_is_held_against_channels_that_deviate_alike(tmp_path):
    for matched, told in ((6.0, "told apart from them"), (1.0, "not told apart from them")):
        classify_run(tmp_path / told, "plain", matched=matched)
        text = " ".join(printed(print_findings, [tmp_path / told]).split())
        assert (
            "plain: 32 random channels that deviate as those of Equation 2 do leave "
            f"{60 + matched:.1f} ({60 + matched:.1f} to {60 + matched:.1f}, 2 draws; 8 of 32 the "
            f"same). Position costs +{matched:.1f} points beyond them: {told} (95 % interval over "
            f"images {'+' if matched > 2 else '−'}{abs(matched - 2):.1f} to +{matched + 2:.1f})."
        ) in text

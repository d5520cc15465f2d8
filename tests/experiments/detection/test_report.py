"""The report of detectors: its first sentence, the table beside the paper's, curves and boxes."""

import dataclasses
import json
from pathlib import Path

import pytest

from gpe.experiments.detection.config import TABLE_S1
from gpe.experiments.detection.report import blocks
from gpe.experiments.reports import write_report
from gpe.records import Record
from gpe.report.blocks import Finding, Pictures, Plots, Table
from gpe.report.runs import Run

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def runs(finished, removed):
    return Run.load(finished), Run.load(removed)


def with_result(run, **changes):
    record = dataclasses.replace(run.record, result=run.record.result | changes)
    return dataclasses.replace(run, record=record)


NAMES = ("reasonable", "small", "heavy", "all")


def by_name(values):
    return dict(zip(NAMES, values, strict=True))


def rows_of(rates):
    return [
        {"order": order, "count": 2 if order else 0, **by_name(values)}
        for order, values in rates.items()
    ]


def told(found):
    return [block.text for block in found if isinstance(block, Finding)]


def test_a_removal_says_its_result_and_then_how_sure_it_is(runs):
    """Of a record of before, which has no controls."""
    names = NAMES
    rates = {
        "": (20.0, 30.0, 40.0, 50.0),
        "overall": (26.0, 29.0, 41.0, 58.0),
        "random/0": (21.0, 33.0, 40.0, 52.0),
        "random/1": (23.0, 31.0, 42.0, 54.0),
    }
    apart = ((4.0, 1.0, 7.0), (-3.0, -5.0, -1.0), (0.0, -2.0, 2.0), (5.0, 3.0, 7.0))
    interval, targeted = (
        {name: [value, value - 3, value + 3] for name, value in zip(names, rates[n], strict=True)}
        for n in ("", "overall")
    )
    differences = dict(zip(names, map(list, apart), strict=True))
    old = with_result(runs[1])
    for name in ("controls", "targeted_less_matched", "shared"):
        old.record.result.pop(name)
    run = with_result(
        old,
        rows=rows_of(rates),
        miss_rates=interval,
        targeted=targeted,
        targeted_less_whole=differences,
        random_less_whole=differences,
        targeted_less_random=differences,
        pedestrians=dict.fromkeys(names, 7),
    )
    found = blocks([run])
    first, second = told(found)
    assert first == (
        "Without the 2 of 12 channels that hold most position CSP misses 26.0\u00a0% of reasonable "
        "pedestrians, without 2 random ones 22.0\u00a0%, with all 20.0\u00a0%. In points, it "
        "misses more of reasonable pedestrians (+4.0) and all (+5.0), fewer of small ones (−3.0) "
        "and about as many of heavily occluded ones (+0.0) than without random ones."
    )
    assert second.startswith("One network, 12 images.") and "+1.0 to +7.0 points" in second
    assert "from 21.0 to 23.0" in second and "one case of 3" in second
    (table,) = (block for block in found if isinstance(block, Table))
    nothing, random, targeted_row, apart_row = table.sections[0].rows
    assert [cell.text for cell in random.cells] == ["22.0", "32.0", "41.0", "53.0"]
    assert random.cells[0].lines == ("21.0 to 23.0",)
    assert [cell.paper for cell in targeted_row.cells] == ["11.1", "16.7", "41.2", "38.8"]
    assert apart_row.cells[0].text == "+4.0" and nothing.cells[0].paper == "11.1"
    assert TABLE_S1["csp"]["overall"][0] == 11.14


def test_controls_stand_beside_position(runs):
    rates = {
        "": (20.0, 30.0, 40.0, 50.0),
        "overall": (26.0, 29.0, 41.0, 58.0),
        "magnitude": (80.0, 81.0, 82.0, 83.0),
        "matched/0": (24.0, 29.0, 38.0, 57.0),
        "matched/1": (26.0, 31.0, 40.0, 57.0),
        "random/0": (21.0, 33.0, 40.0, 52.0),
    }
    matched = ((1.0, -1.0, 3.0), (-1.0, -2.0, 0.0), (2.0, 1.0, 3.0), (1.0, -4.0, 5.0))
    run = with_result(
        runs[1],
        rows=rows_of(rates),
        miss_rates=by_name([[value, value, value] for value in rates[""]]),
        targeted_less_matched=by_name(map(list, matched)),
        controls={
            "magnitude": by_name([[value, value - 1, value + 1] for value in rates["magnitude"]])
        },
        shared={"2": 1.0},
        pedestrians=dict.fromkeys(NAMES, 7),
    )
    for name in ("targeted", "targeted_less_whole", "random_less_whole", "targeted_less_random"):
        run.record.result[name] = by_name([[0.0, 0.0, 0.0]] * 4)
    found = blocks([run])
    *_, matched_text, others = told(found)
    assert matched_text == (
        "Without 2 random channels that deviate over images as those do, 1 of them the same, "
        "25.0\u00a0% of reasonable pedestrians are missed. In points, CSP misses more of heavily "
        "occluded ones (+2.0) and about as many of reasonable pedestrians (+1.0), small ones "
        "(−1.0) and all (+1.0) without the channels of Equation 2 than without these."
    )
    assert others == (
        "Missed of reasonable pedestrians without the first 2 by other rankings: 80.0\u00a0% "
        "(Magnitude)."
    )
    (table,) = (block for block in found if isinstance(block, Table))
    rows = {row.label: row for row in table.sections[0].rows[:-2]}
    assert list(rows) == ["Nothing removed", "Random", "Magnitude", "Matched", "By position"]
    assert rows["Magnitude"].cells[0].lines == ("79.0 to 81.0",)
    assert (
        rows["Matched"].cells[0].lines == ("24.0 to 26.0",) and not rows["Matched"].cells[0].paper
    )
    random, alike = table.sections[0].rows[-2:]
    assert random.cells[0].paper and alike.cells[0].text == "+1.0" and not alike.cells[0].paper


def test_published_records_without_controls_are_still_drawn(tmp_path):
    published = json.loads((RESULTS / "table-s1-streets-quick.json").read_text())["runs"]
    for number, run in enumerate(published):
        about = {"experiment": "table-s1", "epochs": [], "chance": 100, "paper": None}
        Record(**about | run).save(tmp_path / str(number))
    found = blocks([Run.load(tmp_path / str(number)) for number in range(len(published))])
    tables = [block for block in found if isinstance(block, Table)]
    labels = ["Nothing removed", "Random", "By position", "Difference"]
    assert [[row.label for row in table.sections[0].rows] for table in tables] == [labels] * 3


def test_networks_of_several_seeds_are_summed_up(runs):
    found = blocks([runs[1], runs[1]])
    assert any(t.startswith("CSP, 2 networks: points that targeting costs") for t in told(found))


def test_curves_and_boxes_are_drawn(runs):
    found = blocks([runs[1]])
    panels, curves = (block for block in found if isinstance(block, Plots))
    assert len(panels.plots) == len(curves.plots) >= 2 and "<svg" in curves.plots[0].svg
    (pictures,) = (block for block in found if isinstance(block, Pictures))
    assert all(len(row) == 3 and "<rect" in row[0].source for _, row in pictures.rows)


def test_the_page_shows_both_kinds(runs, tmp_path):
    assert write_report([run.directory for run in runs], tmp_path / "page.html") == 2
    page = (tmp_path / "page.html").read_text()
    assert "Which pedestrians are missed?" in page and "(Table S1)" in page

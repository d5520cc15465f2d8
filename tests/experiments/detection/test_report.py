"""The report of detectors: its first sentence, the table beside the paper's, curves and boxes."""

import dataclasses

import pytest

from gpe.experiments.detection.config import TABLE_S1
from gpe.experiments.detection.report import blocks
from gpe.experiments.reports import write_report
from gpe.report.blocks import Finding, Pictures, Plots, Table
from gpe.report.runs import Run


@pytest.fixture
def runs(finished, removed):
    return Run.load(finished), Run.load(removed)


def with_result(run, **changes):
    record = dataclasses.replace(run.record, result=run.record.result | changes)
    return dataclasses.replace(run, record=record)


def test_a_removal_says_its_result_and_then_how_sure_it_is(runs):
    names = ("reasonable", "small", "heavy", "all")
    rates = {
        "": (20.0, 30.0, 40.0, 50.0),
        "overall": (26.0, 29.0, 41.0, 58.0),
        "random/0": (21.0, 33.0, 40.0, 52.0),
        "random/1": (23.0, 31.0, 42.0, 54.0),
    }
    apart = ((4.0, 1.0, 7.0), (-3.0, -5.0, -1.0), (0.0, -2.0, 2.0), (5.0, 3.0, 7.0))
    rows = [
        {"order": order, "count": 0 if not order else 2, **dict(zip(names, values, strict=True))}
        for order, values in rates.items()
    ]
    interval, targeted = (
        {name: [value, value - 3, value + 3] for name, value in zip(names, rates[n], strict=True)}
        for n in ("", "overall")
    )
    differences = dict(zip(names, map(list, apart), strict=True))
    run = with_result(
        runs[1],
        rows=rows,
        miss_rates=interval,
        targeted=targeted,
        targeted_less_whole=differences,
        random_less_whole=differences,
        targeted_less_random=differences,
        pedestrians=dict.fromkeys(names, 7),
    )
    found = blocks([run])
    first, second = (block.text for block in found if isinstance(block, Finding))
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


def test_networks_of_several_seeds_are_summed_up(runs):
    found = blocks([runs[1], runs[1]])
    texts = [block.text for block in found if isinstance(block, Finding)]
    assert any(text.startswith("CSP, 2 networks: points that targeting costs") for text in texts)


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

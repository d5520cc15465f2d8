"""Position against importance, and regions against each other, in the report."""

import pytest

from gpe.experiments.removal import figures as ablation_figures
from gpe.experiments.removal.config import GRID
from gpe.experiments.removal.findings import findings
from gpe.experiments.removal.trials import read, top
from gpe.report.blocks import Heading, Plots, Table
from gpe.report.runs import Run
from tests.removals import ablation_run, fixed
from tests.reporting import report

RANKINGS = ("overall", "magnitude", "deviation", "taylor", "relative")


def trial(directory):
    return read(Run.load(directory))


def controlled(directory, overall, *, matched=(50.0, 54.0), **options):
    miou = fixed(
        overall=overall,
        magnitude=58.0,
        deviation=30.0,
        taylor=35.0,
        relative=59.0,
        matched=matched,
        _=(56.0, 57.0, 58.0),
    )
    return ablation_run(
        directory, miou=miou, rankings=RANKINGS, matched=2, counts=(0, 32), **options
    )


@pytest.mark.parametrize(
    ("overall", "told"),
    (
        (40.0, "position costs 12.0 points more than these, no draw costs as much."),
        (51.0, "position costs 1.0 points more than these, within the draws, so not told apart "
         "from them."),
        (55.0, "position costs 3.0 points less than these, every draw costs more."),
    ),
)  # fmt: skip
def test_position_is_held_against_channels_that_deviate_alike(tmp_path, overall, told):
    texts = findings(trial(controlled(tmp_path, overall)))
    (text,) = (text for text in texts if text.startswith("Random channels that deviate"))
    assert text == (
        "Random channels that deviate as those of Equation 2 do leave 52.0 (50.0 to 54.0, 2 draws; "
        f"16 of 32 the same): {told}"
    )


def test_importance_that_does_more_harm_is_named(tmp_path):
    (text,) = (
        text
        for text in findings(trial(controlled(tmp_path / "a", 40.0)))
        if text.startswith("Position against importance")
    )
    assert text == (
        "Position against importance, without 32 channels: Overall leaves 40.0, Relative leaves "
        "59.0, Magnitude leaves 58.0, Deviation leaves 30.0 and Taylor leaves 35.0. More harm than "
        "by Overall is done by Deviation and Taylor."
    )
    texts = findings(trial(controlled(tmp_path / "b", 20.0)))
    assert any(text.endswith("None does more harm than Overall.") for text in texts)
    assert not any("by another ranking" in text for text in texts)


def test_controls_have_panels_of_their_own(tmp_path):
    """Those of the paper stay as they are; two bands, random and matched, in the others."""
    shown = trial(controlled(tmp_path, 40.0))
    names = ("overall", "relative", "magnitude", "deviation", "taylor", "matched", "random")
    assert shown.lines == [*names]
    assert shown.value("matched", top(32), "left") == (52.0, 50.0, 54.0)
    drawn = ablation_figures.figures(shown)
    assert [block.text for block in drawn if isinstance(block, Heading)] == [
        "Figure 4: the first N channels removed",
        "Figure 4, position against importance",
    ]
    first, second = (block for block in drawn if isinstance(block, Plots))
    assert "var(--purple)" not in first.plots[0].svg and "var(--purple)" in second.plots[0].svg
    assert "Matched" in report(tmp_path)


def grid_of(own, other):
    """Points that the channels of a region cost it and others; random ones cost all of them 3."""

    def miou(name, stop, region):
        if stop == 0:
            return 70.0
        return 67.0 if name.startswith("random") else 70.0 - (own if name == region else other)

    return miou


def test_the_grid_tells_which_region_is_hurt(tmp_path):
    options = {"miou": fixed(left=40.0, overall=40.0, right=40.0, _=50.0), "counts": (0, 32)}
    options |= {"rankings": ("left", "overall", "right")}
    ablation_run(tmp_path / "a", "figure6", grid=grid_of(15.0, 5.0), **options)
    texts = findings(trial(tmp_path / "a"))
    assert (
        "Of a 3×3 grid, 31 channels removed: those active in a region cost it 10.0 points more "
        "than they cost the others on average (random draws: 0.0 to 0.0); 9 of 9 regions are hurt "
        "most by their own channels."
    ) in texts
    (table,) = (
        block
        for block in ablation_figures.figures(trial(tmp_path / "a"))
        if isinstance(block, Table)
    )
    rows = table.sections[0].rows
    assert [row.label for row in rows][::4] == ["top left", "middle centre", "bottom right"]
    for n, row in enumerate(rows):
        assert [cell.text for cell in row.cells] == ["12.0" if n == m else "2.0" for m in range(9)]
        assert row.cells[n].tint == 1.0
    assert "Which region" in report(tmp_path / "a")

    ablation_run(tmp_path / "b", "figure6", grid=grid_of(5.0, 15.0), **options)
    (text,) = (t for t in findings(trial(tmp_path / "b")) if t.startswith("Of a 3×3 grid"))
    assert "−10.0 points" in text and "; 0 of 9 regions" in text


def test_regions_of_the_grid_without_labels_have_no_number(tmp_path):
    def miou(name, stop, region):
        return None if region == GRID[0] else grid_of(15.0, 5.0)(name, stop, region)

    rankings = ("left", "overall", "right")
    options = {"miou": fixed(left=40.0, overall=40.0, right=40.0, _=50.0), "rankings": rankings}
    ablation_run(tmp_path, "figure6", grid=miou, **options)
    (text,) = (t for t in findings(trial(tmp_path)) if t.startswith("Of a 3×3 grid"))
    assert text.endswith("8 of 8 regions are hurt most by their own channels.")
    assert "nan" not in report(tmp_path).lower()


def test_each_kind_of_side_ranking_is_told_and_drawn(tmp_path):
    """Activity leans to its own side, the others do not."""
    sides = ("left", "right", "left_right", "right_left", "activity:left", "activity:right")

    def miou(name, kind, start, stop, region):
        return 40.0 if name == f"activity:{region}" else 50.0

    ablation_run(tmp_path, "figure6", miou=miou, rankings=(*sides, "overall"), counts=(0, 16, 32))
    texts = findings(trial(tmp_path))
    told = [text for text in texts if text.startswith("Half against half")]
    assert len(told) == 3 and "left-active ones cost the left half 20.0 points" in told[2]
    assert "(10.0 more on the left)" in told[2] and "(0.0 between them)" in told[0]
    headings = [b.text for b in ablation_figures.figures(trial(tmp_path)) if isinstance(b, Heading)]
    assert "Which channels hurt their own half more" in headings

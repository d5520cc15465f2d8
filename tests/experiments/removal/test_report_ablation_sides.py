"""Figures 6, S3 and S4 in the report: sides are told apart beyond the random band alone."""

import pytest

from gpe.experiments.removal import findings as ablation_findings
from gpe.experiments.removal import trials as ablation_trials
from gpe.report.runs import Run
from tests.removals import ablation_run, fixed


def findings(directory):
    return ablation_findings.findings(ablation_trials.read(Run.load(directory)))


def halves(left, right):
    return {"left": left, "right": right, "full": 50.0, "centre": 50.0}


@pytest.mark.parametrize(
    ("right_on_left", "told"),
    (
        (50.0, "cost it 10.0 points more than right-specific ones; random draws lie no more than "
         "6.0 apart."),
        (45.0, "cost it 5.0 points more than right-specific ones, but random draws lie 6.0 apart: "
         "this may be chance."),
        (35.0, "cost it 5.0 points less than right-specific ones, but random draws lie 6.0 apart: "
         "this may be chance."),
        (30.0, "cost it 10.0 points less than right-specific ones; random draws lie no more than "
         "6.0 apart, which is the opposite of what the paper found."),
    ),
)  # fmt: skip
def test_figure_6_tells_sides_apart_only_beyond_the_random_band(tmp_path, right_on_left, told):
    miou = fixed(
        left=halves(40.0, 52.0),
        right=halves(right_on_left, 45.0),
        overall=halves(44.0, 46.0),
        _={"left": (54.0, 60.0), "right": (53.0, 58.0), "full": 50.0, "centre": 50.0},
    )
    baseline = halves(61.0, 60.0)
    rankings = ("right", "overall", "left")
    ablation_run(
        tmp_path, "figure6", miou=miou, baseline=baseline, counts=(24,), draws=2, rankings=rankings
    )
    left, right, sides, _ = findings(tmp_path)
    kept = {"left-specific": 40.0, "position-specific": 44.0, "right-specific": right_on_left}
    first, second, third = sorted(kept, key=kept.get)
    assert left == (
        "On the left half, removing 24 channels of 128 takes mIoU from 61.0 to "
        f"{kept[first]:.1f} ({first}), {kept[second]:.1f} ({second}), {kept[third]:.1f} ({third}) "
        f"and 57.0 (random: 54.0 to 60.0, 2 draws). Left-specific channels {told}"
    )
    assert right.startswith("On the right half,")
    assert right.endswith(
        "Right-specific channels cost it 7.0 points more than left-specific ones; random draws "
        "lie no more than 5.0 apart."
    )
    tilt = 61 - right_on_left - 15
    side = "left" if tilt > 0 else "right"
    assert sides == (
        "Half against half, 24 channels removed: left-specific ones cost the left half 21.0 points "
        "and the right half 8.0 points (13.0 more on the left); right-specific ones cost the left "
        f"half {61 - right_on_left:.1f} points and the right half 15.0 points ({abs(tilt):.1f} "
        f"more on the {side}). In random draws it is from 1.0 more on the right to 0.0 between "
        "them."
    )


def test_it_is_told_at_which_counts_a_side_is_hurt_more_than_by_chance(tmp_path):
    kept = {10: 40.0, 20: 30.0, 30: 45.0, 40: 30.0}

    def miou(name, kind, start, stop, region):
        """Draws lean by 5 and by 0 points to the left."""
        on_left = {"left": kept[stop], "right": 50.0, "random/0": 45.0, "random/1": 50.0}
        return on_left[name] if region == "left" else 50.0

    sides = ("left", "right")
    ablation_run(tmp_path, "figure6", miou=miou, counts=(10, 20, 30, 40), draws=2, rankings=sides)
    (text,) = (text for text in findings(tmp_path) if text.startswith("Over all"))
    assert text == (
        "Over all 4 counts, from 10 to 40: left-specific ones lean to the left more than every "
        "draw at 10 to 20 and 40; right-specific ones lean to the right more than every draw at "
        "none."
    )

"""`gpe rank` in the report: scores, intervals, and how far rankings agree."""

import pytest

from gpe.errors import InputError
from gpe.experiments.removal import rank_report as rank
from gpe.records import Record, load_arrays, save_arrays
from gpe.report.blocks import Finding, Plots
from tests.removals import rank_run
from tests.reporting import Page, find, report, runs_of

# Of 40 channels the first is worth comparing 2: round(40 * 100 / 2048).
FALLING = [40.0 - i for i in range(40)]
SWAPPED = [*FALLING[2:4], *FALLING[:2], *FALLING[4:]]


def found_of(*directories):
    """Title and text of each finding."""
    found = [block for block in rank.blocks(runs_of(*directories)) if isinstance(block, Finding)]
    return [(block.title, block.text.replace("\u00a0", " ")) for block in found]


def findings(*directories):
    return [text for _, text in found_of(*directories)]


def test_findings_name_the_first_channel_and_compare_rankings(tmp_path):
    scores = {"overall": FALLING, "kernel_flip_mirror": FALLING[::-1], "kernel_flip_pair": SWAPPED}
    rank_run(tmp_path, scores | {"random": SWAPPED[::-1]}, width=0.25)
    # By 1 - 6 Σd² / (n (n² - 1)): four channels of SWAPPED moved by two.
    rho = 1 - 6 * 4 * 2**2 / (40 * (40**2 - 1))
    assert findings(tmp_path) == [
        "Overall, over 40 images: channel 0 of 40 comes first, 40.0 (95 % interval 39.8 to 40.2), "
        "2.0 times the median channel.",
        "Kernel-Flip*, over 40 images: channel 39 of 40 comes first, 40.0 (95 % interval 39.8 to "
        "40.2), 2.0 times the median channel.",
        "Kernel-Flip**, over 40 images: channel 2 of 40 comes first, 40.0 (95 % interval 39.8 to "
        "40.2), 2.0 times the median channel.",
        "Overall and Kernel-Flip*: Spearman correlation −1.00, 0 of the first 2 channels in both "
        "(0.1 by chance).",
        f"Overall and Kernel-Flip**: Spearman correlation +{rho:.2f}, 0 of the first 2 channels in "
        "both (0.1 by chance).",
    ]


def test_of_a_side_it_is_told_how_many_channels_are_surely_above_zero(tmp_path):
    left = [20.0 - i for i in range(40)]
    rank_run(tmp_path, {"left": left, "right": left[::-1]}, width=2.5)
    first, second, pair = findings(tmp_path)
    # 20 to 3 lie above zero by more than 2.5.
    assert first.endswith(
        "; of 18 channels the interval lies above zero, where chance would put it for about 1."
    )
    assert second.startswith("Right, over 40 images: channel 39 of 40")
    assert pair.startswith("Left and Right: Spearman correlation −1.00, 0 of the first 2")


def test_tables_have_the_first_ten_and_any_two_rankings(tmp_path):
    small = [value / 1000 for value in SWAPPED]
    rank_run(
        tmp_path, {"random": FALLING, "overall": FALLING, "kernel_flip_pair": small}, width=0.001
    )
    page = Page(report(tmp_path))
    first, agree = page.tables[:2]
    assert first[0] == ["rank", "Overall 40 images", "Kernel-Flip** 40 images"]
    assert len(first) == 11
    assert first[1] == ["1", "0 40.0 40.0 to 40.0", "2 0.0400 0.0390 to 0.0410"]
    assert first[4] == ["4", "3 37.0 37.0 to 37.0", "1 0.0370 0.0360 to 0.0380"]
    assert agree == [
        ["", "Kernel-Flip**", "Random"],
        ["Overall", "1.00 0", "1.00 2"],
        ["Kernel-Flip**", "-", "1.00 0"],
    ]
    assert any(
        "how many of the first 2 channels two rankings share; unrelated ones share 0.1 " in text
        for _, text in page.texts
    )


def test_scores_are_drawn_by_rank_with_their_intervals(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(rank, "panel", lambda lines, **_: drawn.extend(lines) or "")
    scores = {"overall": SWAPPED, "random": FALLING, "left": FALLING}
    rank_run(tmp_path, scores, width=0.5)
    (plots,) = [block for block in rank.blocks(runs_of(tmp_path)) if isinstance(block, Plots)]
    assert [(plot.title, plot.text) for plot in plots.plots] == [
        ("Overall", "40 images"),
        ("Left", "40 images"),
    ]
    assert [line.colour for line in drawn] == ["blue", "red"]
    assert list(drawn[0].points) == list(range(1, 41))
    assert drawn[0].points[1] == (40.0, 39.5, 40.5)
    assert drawn[0].points[40] == (1.0, 0.5, 1.5)
    rank_run(tmp_path, {"overall": [float(i) for i in range(2048)]})
    drawn.clear()
    rank.blocks(runs_of(tmp_path))
    assert len(drawn[0].points) == 256 and {1, 2048} <= drawn[0].points.keys()


def test_without_arrays_there_are_the_first_channels_alone(tmp_path):
    rank_run(tmp_path, {"overall": FALLING, "left": FALLING}, arrays=False)
    assert findings(tmp_path) == [
        f"{name}, over 40 images: channel 0 of 40 comes first, 40.0 (95 % interval 39.5 to 40.5)."
        for name in ("Overall", "Left")
    ]
    text = report(tmp_path)
    assert "How far the rankings agree" not in text and "Scores by rank" not in text
    assert Page(text).tables[0][1] == ["1", "0 40.0 39.5 to 40.5", "0 40.0 39.5 to 40.5"]


def test_a_ranking_may_have_no_intervals(tmp_path):
    """Such as one that was read from the paper's JSON."""
    rank_run(tmp_path, {"overall": FALLING, "left": FALLING}, width=None)
    first, left = findings(tmp_path)
    assert first == (
        "Overall, over 40 images: channel 0 of 40 comes first, 40.0, 2.0 times the median channel."
    )
    assert left == "Left, over 40 images: channel 0 of 40 comes first, 40.0."
    page = Page(report(tmp_path))
    assert page.tables[0][1] == ["1", "0 40.0", "0 40.0"]
    assert page.count("svg") == 2


def test_each_layer_has_a_group(tmp_path):
    for layer in ("layer3", "layer4"):
        rank_run(tmp_path / layer, {"overall": FALLING}, layer=layer)
    titles = [title for title, _ in found_of(*find([tmp_path]))]
    assert titles == [f"streets, val, deeplabv3, {layer}" for layer in ("layer3", "layer4")]


@pytest.mark.parametrize(
    ("change", "complaint"),
    (
        (lambda r, a: r.result.pop("channels"), "KeyError.*channels"),
        (lambda r, a: r.result.update(rankings={}), "no rankings"),
        (lambda r, a: r.result["rankings"]["overall"].pop("high"), "KeyError.*high"),
        (lambda r, a: r.result["rankings"]["overall"].update(top=[4]), "longer"),
        (lambda r, a: r.result["rankings"]["overall"]["top"].__setitem__(0, 40), "below 40"),
        (lambda r, a: r.result.update(channels=39), "expected 39 finite numbers"),
        (lambda r, a: a.pop("high.overall"), "KeyError.*high.overall"),
        (lambda r, a: a["order.overall"].fill_(3), "expected each of 40 channels once"),
        (lambda r, a: a["low.overall"].fill_(float("inf")), "high.overall: expected 40 finite"),
        (lambda r, a: a["scores.overall"].fill_(float("nan")), "expected 40 finite numbers"),
    ),
)
def test_a_damaged_record_is_named(tmp_path, change, complaint):
    rank_run(tmp_path / "a", {"overall": FALLING})
    record, arrays = Record.load(tmp_path / "a"), load_arrays(tmp_path / "a")
    change(record, arrays)
    record.save(tmp_path / "a")
    save_arrays(tmp_path / "a", arrays)
    with pytest.raises(InputError, match=rf"a/record\.json is not a rank record: .*({complaint})"):
        report(tmp_path)

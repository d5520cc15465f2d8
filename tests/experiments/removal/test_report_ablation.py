"""`gpe ablate`, Figures 4 and 6 in the report: no more is said than random orders let one say."""

import re

import pytest

from gpe.errors import InputError
from gpe.experiments.removal import figures as ablation_figures
from gpe.experiments.removal import findings as ablation_findings
from gpe.experiments.removal import trials as ablation_trials
from gpe.experiments.removal.report import blocks
from gpe.experiments.removal.trials import Value, top
from gpe.records import load_all
from gpe.report.blocks import Heading, Plots, Table
from gpe.report.runs import Run
from tests.removals import ablation_run, figure5_run, fixed, rank_run, spoil
from tests.reporting import Page, report

PAPER = [
    {"ranking": name, "removal": "top", "start": 0, "stop": stop, "region": "full", "miou": miou}
    for name, stop, miou in (
        ("overall", 0, 74.0),
        ("overall", 100, 71.9),
        ("overall", 500, 64.7),
        ("random", 100, 73.4),
        ("random", 500, 70.5),
    )
]


def trial(directory):
    return ablation_trials.read(Run.load(directory))


def the_table(directory):
    (found,) = (each for each in blocks([Run.load(directory)]) if isinstance(each, Table))
    return found


def the_plots(directory):
    drawn = ablation_figures.figures(trial(directory))
    return [each for each in drawn if isinstance(each, Plots)]


def findings(directory):
    return ablation_findings.findings(trial(directory))


@pytest.mark.parametrize(
    ("left", "verdict"),
    (
        (40.25, "No draw costs as much."),
        (48.2, "That is within the draws: not told apart from a random order."),
        (59.0, "That is within the draws: not told apart from a random order."),
        (60.2, "Every draw costs more."),
    ),
)
def test_a_ranking_is_set_against_the_band_of_random_draws(tmp_path, left, verdict):
    miou = fixed(overall=left, _=(48.2, 57.0, 60.1))
    ablation_run(tmp_path, miou=miou, baseline=62.14, counts=(0, 24))
    first, second, *_ = findings(tmp_path)
    assert first == (
        f"Without its 24 most position-specific channels of 128 the network falls from 62.1 to "
        f"{left:.1f} mIoU; without 24 random ones to 55.1 (48.2 to 60.1, 3 draws). {verdict}"
    )
    assert second.startswith("By region, without 24 channels, Overall lies")


def test_few_draws_and_none_say_less(tmp_path):
    miou = fixed(overall=40.0, _=(50.0,))
    ablation_run(tmp_path / "one", miou=miou, counts=(24,), draws=1)
    first, *_, last = findings(tmp_path / "one")
    assert first.endswith(
        "random ones to 50.0 (one draw). One draw does not say how far random orders lie apart."
    )
    assert last.endswith("random lies below a single one in one case of 2.")
    assert not any("By region" in text for text in findings(tmp_path / "one"))

    ablation_run(tmp_path / "none", miou=miou, counts=(24,), draws=0)
    assert findings(tmp_path / "none")[0] == (
        "Without its 24 most position-specific channels of 128 the network falls from 60.0 to "
        "40.0 mIoU. No random orders were tried, so this says nothing of the ranking."
    )

    many = fixed(overall=40.0, _=tuple(range(41, 61)))
    ablation_run(tmp_path / "many", miou=many, counts=(24,), draws=20)
    assert findings(tmp_path / "many")[-1] == "Random: mean, lowest and highest of 20 draws."


def test_the_counts_told_of_are_the_paper_s_shares(tmp_path):
    miou = fixed(overall=40.0, _=50.0)
    ablation_run(tmp_path / "a", miou=miou, counts=range(0, 2001, 100), channels=2048)
    assert trial(tmp_path / "a").told == {100: 100, 500: 500}
    # 100 and 500 of 2048 are 6.25 and 31.25 of 128.
    ablation_run(tmp_path / "b", miou=miou, counts=(0, 5, 8, 30, 34, 128))
    assert trial(tmp_path / "b").told == {5: 100, 30: 500}
    ablation_run(tmp_path / "c", miou=miou, counts=(0, 128))
    assert trial(tmp_path / "c").told == {}


def test_the_paper_s_numbers_stand_beside_those_of_the_same_share(tmp_path):
    miou = fixed(overall=40.0, _=50.0)
    ablation_run(tmp_path / "a", miou=miou, counts=(0, 6, 31), paper=PAPER)
    assert findings(tmp_path / "a")[0].endswith(
        "The paper, without 100 of 2048: 71.9, 73.4 at random."
    )
    table = the_table(tmp_path / "a")
    assert [section.title for section in table.sections] == [
        "",
        "6 of 128 removed; the paper, 100 of 2048",
        "31 of 128 removed; the paper, 500 of 2048",
    ]
    papers = [[row.cells[0].paper for row in section.rows] for section in table.sections]
    assert papers == [["74.0"], ["71.9", "73.4"], ["64.7", "70.5"]]
    # Left, centre and right: the record has none of the paper's.
    cells = [cell for section in table.sections for row in section.rows for cell in row.cells]
    assert sum(cell.paper == "" for cell in cells) == 3 * 5

    random, overall = ablation_figures.lines(trial(tmp_path / "a"), "full", "top")
    assert overall.paper == {0: 74.0, 6.25: 71.9, 31.25: 64.7}
    assert random.paper == {6.25: 73.4, 31.25: 70.5}
    text = report(tmp_path)
    assert "at the same share of its 2048 channels" in text

    ablation_run(tmp_path / "b", miou=miou, counts=(0, 6, 31))
    assert "the paper's" not in report(tmp_path / "b")


def test_regions_and_other_rankings_are_told_apart_from_draws_each(tmp_path):
    overall = {"full": 40.0, "left": 50.0, "centre": 30.0, "right": 70.0}
    miou = fixed(overall=overall, kernel_flip_mirror=45.0, kernel_flip_pair=44.0, _=(45.0, 60.0))
    rankings = ("kernel_flip_pair", "overall", "kernel_flip_mirror")
    ablation_run(tmp_path, miou=miou, counts=(24,), draws=2, rankings=rankings)
    assert findings(tmp_path)[1:3] == [
        "By region, without 24 channels, Overall lies below every draw in full and centre; "
        "within the draws in left; above every draw in right.",
        "Without 24 channels by another ranking: Kernel-Flip* leaves 45.0 (within the draws) and "
        "Kernel-Flip** leaves 44.0 (below every draw).",
    ]


def test_it_is_told_where_on_its_curve_a_ranking_leaves_the_band(tmp_path):
    """Two counts out of many may be lucky ones."""

    def miou(name, kind, start, stop, region):
        lucky = {10: 40.0, 30: 40.0, 40: 40.0, 50: 70.0}.get(stop, 50.0)
        return {"overall": lucky, "kernel_flip_pair": 50.0, "random/0": 45.0}.get(name, 55.0)

    rankings = ("overall", "kernel_flip_pair")
    ablation_run(
        tmp_path, miou=miou, counts=(0, 10, 20, 30, 40, 50, 60, 128), draws=2, rankings=rankings
    )
    (text,) = (text for text in findings(tmp_path) if text.startswith("Over all"))
    assert text == (
        "Over all 6 counts, from 10 to 60: Overall lies below every draw at 10 and 30 to 40, above "
        "every draw at 50; Kernel-Flip** lies within the draws at every one."
    )


def test_ranges_are_told_by_their_trend_and_that_of_random_orders(tmp_path):
    def miou(name, kind, start, stop, region):
        rising = {"overall": 1, "random/0": -1, "random/1": 0}[name]
        return 50.0 + rising * start / 32

    ablation_run(tmp_path, miou=miou, counts=(), step=32, draws=2)
    (text, _) = findings(tmp_path)
    assert text == (
        "One range at a time: without ranks 1 to 32 of Overall 50.0 is left, without ranks 97 to "
        "128 53.0. Spearman correlation of place with what is left is +1.00 over 4 ranges; above "
        "zero, the first channels count most. In random orders it is −1.00 to +0.00."
    )
    random, overall = ablation_figures.lines(trial(tmp_path), "left", "range")
    assert overall.points == {16: (50,) * 3, 48: (51,) * 3, 80: (52,) * 3, 112: (53,) * 3}
    assert random.points[112] == (48.5, 47.0, 50.0)


def test_the_table_has_each_number_in_its_cell(tmp_path):
    overall = {"full": 40.0, "left": 41.0, "centre": 42.0, "right": 43.0}
    miou = fixed(overall=overall, _=(50.0, 52.0, 57.0))
    ablation_run(tmp_path, miou=miou, counts=(0, 24), paper=PAPER)
    band = "53.0 50.0\u201357.0"
    # 24 is nearest to both of the paper's shares; the first one holds.
    assert trial(tmp_path).told == {24: 100}
    assert Page(report(tmp_path)).tables[0] == [
        ["Ranking", "full", "left", "centre", "right"],
        ["Nothing removed", "60.0 paper 74.0", "60.0", "60.0", "60.0"],
        ["24 of 128 removed; the paper, 100 of 2048"],
        [
            "Overall Normal in Figure 4 (Equation 2)",
            "40.0 paper 71.9",
            *("41.0", "42.0", "43.0"),
        ],
        ["Random 3 draws", "53.0 paper 73.4 50.0\u201357.0", band, band, band],
    ]


def test_panels_stand_where_the_figures_of_the_paper_have_them(tmp_path):
    miou = fixed(overall=40.0, left=41.0, right=42.0, _=(50.0, 52.0, 57.0))
    sides = {"rankings": ("overall", "left", "right"), "step": 64}
    found = {}
    for experiment in ("ablate", "figure4", "figure6"):
        ablation_run(tmp_path / experiment, experiment, miou=miou, **sides)
        rows = the_plots(tmp_path / experiment)
        found[experiment] = [(row.size, len(row.plots)) for row in rows]
    assert found["figure4"] == [("small", 4)] * 2 + [("wide", 2)] * 4
    assert found["ablate"] == [("small", 4)] * 2 + [("wide", 2)] * 3
    assert found["figure6"] == [("wide", 2)] * 4
    ablation_run(tmp_path / "figure4", miou=miou)
    (row,) = the_plots(tmp_path / "figure4")
    assert [plot.title for plot in row.plots] == [
        *("full", "left half", "centre", "right half"),
    ]


def test_curves_begin_where_nothing_is_removed_and_random_ones_have_a_band(tmp_path):
    miou = fixed(overall=40.0, _=(50.0, 52.0, 57.0))
    ablation_run(tmp_path, miou=miou, baseline=61.0, counts=(6, 32))
    random, overall = ablation_figures.lines(trial(tmp_path), "full", "top")
    assert (random.colour, overall.colour) == ("grey", "blue")
    assert random.points == {0: (61.0,) * 3, 6: (53.0, 50.0, 57.0), 32: (53.0, 50.0, 57.0)}
    assert overall.points == {0: (61.0,) * 3, 6: (40.0,) * 3, 32: (40.0,) * 3}
    assert trial(tmp_path).value("random", top(6), "left") == Value(53.0, 50.0, 57.0)
    # One band a panel: of the random orders alone.
    page = report(tmp_path)
    assert len(re.findall(r'style="fill: var\(--grey\); fill-opacity: 0\.22', page)) == 4
    assert "fill: var(--blue); fill-opacity" not in page


def test_panels_of_ranges_share_their_scale_and_those_of_counts_their_axis(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        ablation_figures, "panel", lambda lines, *, limits, **_: shown.append(limits) or ""
    )
    baseline = {"full": 80.0, "left": 60.0, "centre": 60.0, "right": 60.0}
    kept = {"full": 70.0, "left": 58.0, "centre": 58.0, "right": 58.0}
    ablation_run(tmp_path, miou=fixed(overall=kept, _=kept), baseline=baseline, step=64)
    ablation_figures.figures(trial(tmp_path))
    assert set(shown[:4]) == {(56.9, 81.1)}
    assert shown[4:] == [(69.5, 80.5)] + [(53.5, 64.5)] * 3


def test_each_checkpoint_has_a_group_and_a_copy_has_none(tmp_path):
    for name, kept in (("a", 40.0), ("b", 30.0)):
        miou = fixed(overall=kept, _=50.0)
        ablation_run(tmp_path / name, miou=miou, checkpoint=f"runs/{name}.safetensors")
    ablation_run(tmp_path / "copy", miou=miou, checkpoint="runs/b.safetensors")
    drawn = blocks([Run(path, record) for path, record in load_all([tmp_path])[0].items()])
    assert [block.text for block in drawn if isinstance(block, Heading) and block.level == 2] == [
        f"streets, val, deeplabv3, backbone.layer4, checkpoint runs/{name}.safetensors"
        for name in "ab"
    ]
    kept = [row[1] for row in Page(report(tmp_path)).tables[0] if row[0].startswith("Overall")]
    assert kept == ["40.0", "40.0"]
    assert "to 30.0 mIoU" in report(tmp_path)


def test_rankings_and_regions_of_the_user_s_own_are_escaped(tmp_path):
    evil = "<script>"
    miou = fixed(**{evil: 40.0, "_": (50.0, 51.0)})
    ablation_run(tmp_path, "ablate", miou=miou, rankings=(evil,), regions=(evil, "sky"), draws=2)
    text = report(tmp_path)
    assert "<script" not in text
    assert "Without its 6 most “&lt;script&gt;” channels of 128" in text
    assert "mIoU in &lt;script&gt;; without 6 random ones" in text


def test_random_orders_alone_have_no_ranking_to_tell_of(tmp_path):
    ablation_run(tmp_path, miou=fixed(_=(50.0, 52.0, 54.0)), rankings=(), counts=(24,))
    assert findings(tmp_path)[0] == (
        "Without 24 random channels of 128 the network falls from 60.0 to 52.0 mIoU "
        "(50.0 to 54.0, 3 draws)."
    )


def test_the_page_of_all_five_refers_to_nothing_outside_itself(tmp_path):
    miou = fixed(overall=40.0, left=41.0, right=42.0, _=(50.0, 52.0, 57.0))
    for experiment in ("ablate", "figure4", "figure6"):
        sides = ("overall", "left", "right")
        ablation_run(tmp_path / experiment, experiment, miou=miou, rankings=sides, step=32)
    figure5_run(tmp_path / "figure5")
    rank_run(tmp_path / "rank", {"overall": [3.0, 1.0], "left": [1.0, -1.0]})
    text = report(tmp_path)
    page = Page(text)
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset")
    ]
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    # No colour of matplotlib's is left: all follow the page.
    assert not re.search(r"#0000\d\d\b", text)
    assert page.count("h1") == 5
    assert report(tmp_path) == text


def test_the_baseline_may_stand_among_the_rows(tmp_path):
    miou = fixed(overall=40.0, _=50.0)
    ablation_run(tmp_path, miou=miou, baseline=61.5, counts=(0, 24))
    spoil(tmp_path, lambda record: record.result.pop("baseline"))
    assert "falls from 61.5 to 40.0 mIoU" in findings(tmp_path)[0]
    ablation_run(tmp_path, miou=miou, counts=(24,))
    spoil(tmp_path, lambda record: record.result.pop("baseline"))
    with pytest.raises(InputError, match="expected a baseline, or rows with nothing removed"):
        report(tmp_path)


def test_it_is_told_how_near_the_engine_came(tmp_path):
    ablation_run(tmp_path, miou=fixed(overall=40.0, _=50.0))
    spoil(tmp_path, lambda record: record.result.update(measured=3.52e-7, why="no linear head"))
    assert trial(tmp_path).engine == (
        "incremental (logits within 4e-07 of plainly zeroing channels, tolerance 1e-05; "
        "no linear head)"
    )
    assert "engine incremental (logits" in report(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    (
        (lambda r: r.result.pop("rows"), "KeyError.*rows"),
        (lambda r: r.result.update(rows=[]), "no rows"),
        (lambda r: r.result.pop("tolerance"), "KeyError.*tolerance"),
        (lambda r: r.result["baseline"].pop("left"), "regions are not those of the baseline"),
        (lambda r: r.result["rows"].pop(), "regions are not those of the baseline"),
        (lambda r: r.result["rows"].append(r.result["rows"][0]), "twice: overall"),
        (lambda r: r.result["rows"][0].update(miou=101), "in percent, got 101"),
        (lambda r: r.result["rows"][0].update(removal="all"), "no removal"),
        (lambda r: r.result["rows"][0].update(start=3), "no removal"),
        (lambda r: r.result.update(channels=100), "the layer has 100 channels"),
        (lambda r: r.result.update(rankings=["overall"]), "AttributeError"),
        (lambda r: setattr(r, "paper", {"source": "Figure 4"}), "KeyError.*rows"),
    ),
)
def test_a_damaged_record_is_named(tmp_path, change, complaint):
    ablation_run(tmp_path / "a", miou=fixed(overall=40.0, _=50.0))
    spoil(tmp_path / "a", change)
    wanted = rf"a/record\.json is not a figure4 record: .*{complaint}"
    with pytest.raises(InputError, match=wanted):
        report(tmp_path)

"""AugShift on the report: Table 2, what its runs show, the picture, Figure S2 and the sweep."""

import re
from math import sqrt

import numpy as np
import pytest

from gpe.errors import InputError
from gpe.experiments.augshift import findings as augshift_findings
from gpe.experiments.augshift import trials as augshift_trials
from gpe.experiments.augshift.config import METHODS
from gpe.experiments.augshift.report import blocks
from gpe.records import ARRAYS, Record, load_arrays, save_arrays
from gpe.report import words
from gpe.report.blocks import Heading
from gpe.report.runs import Run
from gpe.statistics import Estimate
from tests.reporting import Page, augshift_run, consistency_run, find, pixels, report

T_OF_TWO = 4.302653  # Student's t at 97.5 %, two degrees of freedom: from a printed table


def findings(directory):
    """Of the one table there is, without the spaces that do not break."""
    (trials,) = augshift_trials.tables([Run.load(path) for path in find([directory])])
    return [text.replace("\u00a0", " ") for text in augshift_findings.findings(trials)]


def test_table_2_has_each_number_in_its_cell_in_the_order_of_the_paper(tmp_path):
    """Numbers are of the last epoch: choosing the best would be choosing on test images."""
    methods = ("blurpool-augshift", "augshift", "wide-crops", "blurpool", "baseline")
    for index, method in enumerate(methods):
        paper = None if index in (0, 2) else (90.1 + index, 80.1 + index)
        augshift_run(
            tmp_path / method, method, accuracy=50.0 + index, consistency=70.0 + index, paper=paper
        )
    page = Page(report(tmp_path))
    one, two = "compute ×1, 1 seed", "crops ±8, λ"
    assert page.tables[0] == [
        [
            "Method",
            "accuracy guessing 33.3",
            "Cons.1 maximum shift 1 px",
            "Cons.8 maximum shift 8 px",
        ],
        [
            f"Baseline crops ±4 {one}",
            "54.0 paper 94.1",
            "81.0 ± 2.0 shifted 40.5",
            "74.0 ± 2.0 paper 84.1 shifted 37.0",
        ],
        [
            f"Wide crops alone {two} 0 {one} control, not in the paper",
            "52.0",
            "79.0 ± 2.0 shifted 39.5",
            "72.0 ± 2.0 shifted 36.0",
        ],
        [
            f"AugShift {two} 1 {one}",
            "51.0 paper 91.1",
            "78.0 ± 2.0 shifted 39.0",
            "71.0 ± 2.0 paper 81.1 shifted 35.5",
        ],
        [
            f"BlurPool crops ±4 {one}",
            "53.0 paper 93.1",
            "80.0 ± 2.0 shifted 40.0",
            "73.0 ± 2.0 paper 83.1 shifted 36.5",
        ],
        [
            f"BlurPool + AugShift {two} 1 {one} not in the paper",
            "50.0",
            "77.0 ± 2.0 shifted 38.5",
            "70.0 ± 2.0 shifted 35.0",
        ],
    ]


def test_the_table_makes_room_for_the_paper_s_shifts_first(tmp_path):
    augshift_run(tmp_path, shifts=(1, 4, 16, 8))
    header = Page(report(tmp_path)).tables[0][0]
    assert [name.split()[0] for name in header[2:]] == ["Cons.8", "Cons.16"]


def test_seeds_are_averaged_with_student_s_interval(tmp_path):
    for seed, (accuracy, consistency) in enumerate(((50, 70), (52, 71), (54, 75))):
        augshift_run(
            tmp_path / str(seed), seed=seed, accuracy=accuracy, consistency=consistency, shifts=(8,)
        )
    augshift_run(tmp_path / "copy", seed=2, accuracy=54, consistency=75, shifts=(8,))
    halves = [T_OF_TWO * deviation / sqrt(3) for deviation in (2.0, sqrt(7.0))]
    assert Page(report(tmp_path)).tables[0][1] == [
        "AugShift crops ±8, λ 1 compute ×1, 3 seeds",
        f"52.0 ± {halves[0]:.1f}",
        f"72.0 ± {halves[1]:.1f} shifted 36.0",
    ]


def test_runs_that_differ_in_more_than_the_seed_have_rows_of_their_own(tmp_path):
    augshift_run(tmp_path / "a", "wide-crops", width=16)
    augshift_run(tmp_path / "b", "wide-crops", width=64, equal_compute=False)
    augshift_run(tmp_path / "c", weight=10.0)
    augshift_run(tmp_path / "d", crop_shift=12)
    names = [row[0] for row in Page(report(tmp_path)).tables[0][1:]]
    control = "Wide crops alone crops ±8, λ 0 equal compute"
    assert [name.removesuffix(" control, not in the paper") for name in names] == [
        f"{control} False, width 64 compute ×2, 1 seed",
        f"{control} True, width 16 compute ×1, 1 seed",
        "AugShift crops ±8, λ 10 equal compute True, width 16 compute ×1, 1 seed",
        "AugShift crops ±12, λ 1 equal compute True, width 16 compute ×1, 1 seed",
    ]


def test_validation_runs_are_named_so_and_never_stand_beside_the_paper(tmp_path):
    augshift_run(tmp_path / "a", split="validation", paper=(92.1, 94.8))
    augshift_run(tmp_path / "b", "baseline", split="validation", paper=(93.1, 90.8))
    text = report(tmp_path)
    assert ("h3", "cifar10, resnet18, quick preset, validation images") in Page(text).texts
    assert "<b>cifar10, resnet18, quick preset, validation images:</b> AugShift gives" in text
    assert "Measured on the validation split" in text
    for number in ("92.1", "94.8", "93.1", "90.8", "the paper&#39;s"):
        assert number not in text


def test_each_data_set_network_preset_and_split_has_a_table_of_its_own(tmp_path):
    augshift_run(tmp_path / "a")
    for index, option in enumerate(
        ({"data": "digits"}, {"network": "resnet50"}, {"preset": "paper"}, {"split": "validation"})
    ):
        augshift_run(tmp_path / str(index), **option)
    runs = [Run.load(path) for path in find([tmp_path])]
    headings = [block for block in blocks(runs) if isinstance(block, Heading)]
    titles = dict.fromkeys(block.text for block in headings if block.level == 3)
    assert list(titles) == [
        "cifar10, resnet18, paper preset",
        "cifar10, resnet18, quick preset",
        "cifar10, resnet18, quick preset, validation images",
        "cifar10, resnet50, quick preset",
        "digits, resnet18, quick preset",
    ]


@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_a_table_says_what_is_ours_and_what_the_paper_s(preset, tmp_path):
    paper = preset == "paper"
    augshift_run(tmp_path, preset=preset, relative=not paper, equal_compute=not paper)
    text = " ".join(report(tmp_path).split())
    assert ("The paper states neither λ nor the crops: these are ours." in text) == paper
    for said in (
        "These quick runs are not the paper&#39;s training",
        "The loss is relative to the variance of the latents; the paper&#39;s is not.",
        "Rows with two crops an image see half as many images",
    ):
        assert (said in text) == (not paper)
    assert f"compute ×{2 if paper else 1}, 1 seed" in text


# What the runs show


def three(directory, method, consistencies, accuracies=(50, 51, 52), **config):
    for seed, (consistency, accuracy) in enumerate(zip(consistencies, accuracies, strict=True)):
        augshift_run(
            directory / f"{method}{seed}{config}",
            method,
            seed=seed,
            consistency=consistency,
            accuracy=accuracy,
            **config,
        )


def test_differences_are_paired_by_seed(tmp_path):
    """Seeds that lie far apart hide no difference that all of them show."""
    three(tmp_path, "baseline", (40, 60, 80))
    three(tmp_path, "augshift", (50, 71, 92), (49, 50, 51))
    assert findings(tmp_path) == [
        "AugShift gives the same answer under two random shifts of at most 8 px for 71.0 % of "
        "the images, the baseline 60.0 %: 11.0 points more (95 % interval 8.5 to 13.5, "
        "3 seeds). Its accuracy without a shift is 50.0 %, the baseline 51.0 %: "
        "1.0 points less (95 % interval 1.0 to 1.0, 3 seeds)."
    ]


def test_what_the_loss_adds_to_the_same_crops_is_told_as_found(tmp_path):
    three(tmp_path, "wide-crops", (70, 71, 72))
    three(tmp_path, "wide-crops", (10, 10, 10), crop_shift=12)  # other crops: no rival
    three(tmp_path, "augshift", (71, 71, 75))
    (text,) = findings(tmp_path)
    half = T_OF_TWO * np.std([1, 0, 3], ddof=1) / sqrt(3)
    assert text.startswith(
        "What the loss adds: AugShift gives the same answer under two random shifts of at most "
        "8 px for 72.3 % of the images, wide crops alone (crops ±8, λ 0) 71.0 %: 3 seeds "
        f"cannot tell them apart (+1.3 points, 95 % interval −{half - 4 / 3:.1f} to "
        f"+{half + 4 / 3:.1f})."
    )


def test_each_pair_of_the_table_is_compared_once(tmp_path):
    for method in METHODS:
        three(tmp_path, method, (70, 71, 72))
    found = findings(tmp_path)
    rivals = [re.search(r"^(.*?) gives.*?images, (.*?) [\d.]+ %:", text).groups() for text in found]
    assert rivals == [
        ("AugShift", "the baseline"),
        ("What the loss adds: AugShift", "wide crops alone"),
        ("BlurPool", "the baseline"),
        ("What AugShift adds to BlurPool: BlurPool + AugShift", "BlurPool"),
    ]
    assert [text.count("two random") for text in found] == [1, 0, 0, 0]


def test_only_runs_that_differ_in_nothing_but_the_method_are_compared(tmp_path):
    three(tmp_path, "baseline", (60, 60, 60), width=64)
    three(tmp_path, "augshift", (70, 71, 72))
    found = findings(tmp_path)
    assert [text.split(":")[0] for text in found] == ["The baseline", "AugShift"]
    assert "for 71.0 % of the images, accuracy without a shift 51.0 %" in found[1]


def test_only_seeds_that_both_have_are_compared(tmp_path):
    three(tmp_path, "baseline", (60, 61, 62))
    augshift_run(tmp_path / "a", seed=1, consistency=70)
    augshift_run(tmp_path / "b", seed=7, consistency=99)
    found = findings(tmp_path)
    assert "for 70.0 % of the images, the baseline 61.0 %: 9.0 points more, from one" in found[0]
    assert found[1].startswith("One seed says nothing about how far seeds lie apart")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    (
        (0.1, 1.9, "1.0 points more (95 % interval 0.1 to 1.9, 4 seeds)"),
        (-1.9, -0.1, "1.0 points less (95 % interval 0.1 to 1.9, 4 seeds)"),
        (-0.5, 2.5, "4 seeds cannot tell them apart (+1.0 points, 95 % interval −0.5 to +2.5)"),
        (0.0, 2.0, "4 seeds cannot tell them apart (+1.0 points, 95 % interval +0.0 to +2.0)"),
    ),
)
def test_a_difference_is_told_as_far_as_its_interval_allows(low, high, said):
    difference = Estimate((low + high) / 2, low, high)
    assert words.compared(difference, 4).replace("\u00a0", " ") == said


# The sweep


def sweep(directory, **config):
    """λ 0 of two crops is wide crops alone; one crop has no λ."""
    settings = {(4, 0.0): (70, 60), (4, 1.0): (72, 59), (8, 0.0): (74, 58), (8, 1.0): (73, 57)}
    for (crop_shift, weight), (consistency, accuracy) in settings.items():
        augshift_run(
            directory / f"{crop_shift}-{weight}",
            "augshift" if weight else "wide-crops",
            crop_shift=crop_shift,
            weight=weight,
            consistency=consistency,
            accuracy=accuracy,
            **config,
        )
    augshift_run(directory / "one", "baseline", consistency=61, accuracy=62, **config)


def test_a_sweep_on_the_validation_split_is_a_table_of_crops_by_weight(tmp_path):
    sweep(tmp_path, split="validation")
    text = report(tmp_path)
    page = Page(text)
    assert page.tables[0] == [
        ["", "λ 0", "λ 1"],
        ["One crop ±4 px", "61.0 62.0", "-"],
        ["Two crops ±4 px", "70.0 60.0", "72.0 59.0"],
        ["Two crops ±8 px", "74.0 58.0", "73.0 57.0"],
    ]
    assert re.findall(r'class="top">([\d.]+)', text) == ["61.0", "62.0", "60.0", "74.0"]
    assert len(page.tables) == 2  # this one and the runs
    assert findings(tmp_path) == [
        "Two crops: of 4 settings, crops ±8, λ 0 has the highest Cons.8, 74.0 % at accuracy "
        "58.0 %; crops ±4, λ 0 has the highest accuracy, 60.0 % at Cons.8 70.0 %."
    ]


def test_several_settings_on_test_images_are_compared_not_chosen_from(tmp_path):
    sweep(tmp_path)
    assert len(Page(report(tmp_path)).tables[0]) == 1 + 5
    found = findings(tmp_path)
    assert not any("highest" in text for text in found)
    subjects = [text.split(" gives")[0] for text in found[:-1]]
    loss = "What the loss adds: "
    names = ["AugShift (crops ±4, λ 1)", "AugShift (crops ±8, λ 1)"]
    assert subjects == [*names, *(loss + name for name in names)]


# The picture


def answers(*rows):
    """Probabilities ``[K,S,3]`` of a network that gives these answers, 80 % sure of each."""
    return [[[0.8 if k == answer else 0.1 for k in range(3)] for answer in row] for row in rows]


# Labels are 0, 1, 2: the first network is right about the second and third while they stand still.
BASELINE = answers([1, 0, 1, 0, 1], [0, 1, 1, 2, 2], [0, 0, 2, 2, 2])
AUGSHIFT = answers([0, 0, 0, 0, 0], [1, 1, 1, 1, 2], [2, 2, 2, 2, 2])


def test_the_picture_is_of_the_image_that_the_baseline_is_least_steady_about(tmp_path):
    augshift_run(tmp_path / "a", "baseline", probabilities=BASELINE)
    augshift_run(tmp_path / "b", "wide-crops", probabilities=AUGSHIFT)
    augshift_run(tmp_path / "c", "augshift", probabilities=AUGSHIFT)
    text = " ".join(report(tmp_path).split())
    assert (
        "of 3 test images, the one about which the baseline changes its answer most often, among "
        "those that it is right about while they stand still."
    ) in text
    bars = re.findall(r'<li class="(correct|wrong)" style="flex-grow: (\d)"[^>]*>(\w+)</li>', text)
    assert bars == [
        ("wrong", "1", "cat"),
        ("correct", "2", "dog"),
        ("wrong", "2", "frog"),
        ("correct", "4", "dog"),
        ("wrong", "1", "frog"),
    ]
    assert "changes its answer 2 times in 4 steps" in text
    assert "changes its answer 1 time in 4 steps" in text
    curves = re.findall(r'<polyline points="([^"]*)"', text)
    assert curves == [
        "0.00,90.00 25.00,20.00 50.00,20.00 75.00,90.00 100.00,90.00",
        "0.00,20.00 25.00,20.00 50.00,20.00 75.00,20.00 100.00,90.00",
    ]


def test_the_pick_is_put_in_proportion_by_all_images_and_methods(tmp_path):
    augshift_run(tmp_path / "a", "baseline", probabilities=BASELINE)
    augshift_run(tmp_path / "b", "blurpool", probabilities=BASELINE)
    augshift_run(tmp_path / "c", "augshift", probabilities=AUGSHIFT)
    assert Page(report(tmp_path)).tables[0] == [
        ["method", "images", "steps"],
        ["Baseline", "3 of 3", "58.3 %"],  # 4, 2 and 1 changes in 3 × 4 steps
        ["AugShift", "1 of 3", "8.3 %"],
        ["BlurPool", "3 of 3", "58.3 %"],
    ]


def test_runs_about_other_images_are_not_set_beside_these(tmp_path):
    augshift_run(tmp_path / "a", "baseline", probabilities=BASELINE)
    arrays = load_arrays(tmp_path / "a")
    augshift_run(tmp_path / "b", "augshift", probabilities=AUGSHIFT)
    save_arrays(tmp_path / "b", arrays | {"images": arrays["images"].flip(0)})
    text = report(tmp_path)
    assert text.count('class="answers"') == 1


@pytest.mark.parametrize(
    ("protocol", "columns"),
    (
        ("zeros", [[2, 3, None, None], [1, 2, 3, None], [0, 1, 2, 3], [None, 0, 1, 2]]),
        ("circular", [[2, 3, 0, 1], [1, 2, 3, 0], [0, 1, 2, 3], [3, 0, 1, 2]]),
        ("reflect", [[2, 3, 2, 1], [1, 2, 3, 2], [0, 1, 2, 3], [1, 0, 1, 2]]),
    ),
)
def test_the_film_shows_what_the_network_saw(tmp_path, protocol, columns):
    augshift_run(tmp_path, probabilities=BASELINE, protocol=protocol)
    text = report(tmp_path)
    film = [pixels(source) for source in re.findall(r'<img src="([^"]*)"', text)]
    image = load_arrays(tmp_path)["images"][1].permute(1, 2, 0).numpy()
    black = np.zeros((4, 3), np.uint8)
    assert len(film) == 5
    for shown, places in zip(film, columns, strict=False):
        expected = [black if place is None else image[:, place] for place in places]
        assert np.array_equal(shown, np.stack(expected, 1))
    assert re.findall(r"<small>([−+]?\d)", text)[:5] == ["−2", "−1", "0", "+1", "+2"]


def test_from_a_larger_image_the_film_shows_the_crop(tmp_path):
    augshift_run(tmp_path, probabilities=BASELINE, protocol="crop", image_size=2)
    film = re.findall(r'<img src="([^"]*)"', report(tmp_path))
    image = load_arrays(tmp_path)["images"][1].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(film[1]), image[1:3, 2:4])
    assert np.array_equal(pixels(film[3]), image[1:3, 0:2])


def test_without_arrays_there_are_numbers_but_no_picture(tmp_path):
    augshift_run(tmp_path, probabilities=BASELINE)
    (tmp_path / ARRAYS).unlink()
    page = Page(report(tmp_path))
    assert page.count("img") == 0
    assert page.tables[0][1][1] == "58.0"


# Figure S2 and the curves


def test_figure_s2_has_a_line_and_a_band_for_each_row_and_the_paper_s_points(tmp_path):
    augshift_run(tmp_path / "a", "baseline", shifts=(1, 2, 8), consistency=60, paper=(93.1, 90.8))
    augshift_run(tmp_path / "b", "augshift", shifts=(1, 2, 8), consistency=75)
    text = report(tmp_path)
    figure = re.search(r'<div class="plots wide">(.*?)</figure>', text, re.S)[1]
    assert "#0000" not in figure  # every colour follows the page
    for colour in ("red", "blue"):
        line = re.search(rf'<path d="([^"]*)"[^>]*fill: none; stroke: var\(--{colour}\)', figure)
        heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", line[1])]
        assert len(heights) == 3
        # One point of consistency lost by each pixel of shift; y counts downwards in SVG.
        steps = np.diff(heights)
        assert steps[1] == pytest.approx(6 * steps[0], rel=1e-3) and steps[0] > 0
        assert re.search(rf"fill: var\(--{colour}\); (fill-)?opacity: 0.15", figure)
    assert "the paper" in re.search(r'<ul class="legend">(.*?)</ul>', text, re.S)[1]
    assert figure.count("fill: var(--paper); stroke: var(--red)") >= 1


def test_curves_mark_the_last_epoch(tmp_path):
    augshift_run(tmp_path, accuracy=50.0, best=60.0)
    text = report(tmp_path)
    plot = re.search(r"test accuracy</figcaption>\s*(<svg.*?</svg>)", text, re.S)[1]
    line = re.search(r'<path d="([^"]*)"[^>]*stroke: var\(--blue\)', plot)[1]
    _, (x, y) = re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)
    dot = re.search(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*fill: var\(--blue\)', plot)
    assert dot.groups() == (x, y)


# Records


def test_the_table_of_runs_leaves_tables_and_class_names_out(tmp_path):
    augshift_run(tmp_path / "a")
    page = Page(report(tmp_path))
    names = [text for tag, text in page.texts if tag == "dt"] + page.tables[-1][0]
    assert "classes" not in names and "consistency" not in names
    assert "last test accuracy" in names


def test_hostile_text_is_escaped(tmp_path):
    evil = '<script>alert(1)</script>"><img src=x>'
    augshift_run(tmp_path / "a", data=evil, network=evil, preset=evil, note=evil, protocol=evil)
    augshift_run(tmp_path / "b", evil, split=evil, probabilities=BASELINE)
    record = Record.load(tmp_path / "b")
    record.result["classes"] = [evil] * 3
    record.save(tmp_path / "b")
    consistency_run(tmp_path / "c", evil, weights=evil, data=evil)
    text = report(tmp_path)
    assert "<script" not in text and "<img src=x" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("part", "name"),
    (
        ("config", "method"),
        ("config", "crop_shift"),
        ("result", "consistency"),
        ("result", "classes"),
        ("result", "last"),
    ),
)
def test_a_damaged_record_is_named(tmp_path, part, name):
    augshift_run(tmp_path / "a")
    record = Record.load(tmp_path / "a")
    del getattr(record, part)[name]
    record.save(tmp_path / "a")
    with pytest.raises(InputError, match=rf"a/record\.json is not an augshift record: .*{name}"):
        report(tmp_path)


def test_a_record_without_one_of_its_shifts_is_named(tmp_path):
    augshift_run(tmp_path / "a")
    record = Record.load(tmp_path / "a")
    record.result["consistency"].pop()
    record.save(tmp_path / "a")
    with pytest.raises(InputError, match=r"is not an augshift record: KeyError.8"):
        report(tmp_path)


# Given networks


def test_given_networks_stand_in_one_table_by_data_and_protocol(tmp_path):
    consistency_run(tmp_path / "a")
    consistency_run(tmp_path / "b", weights="V2", consistency=91.0)
    consistency_run(tmp_path / "c", "mine.pt", weights=None, accuracy=None)
    consistency_run(tmp_path / "d", protocol="zeros")
    text = report(tmp_path)
    page = Page(text)
    assert page.tables[0][1:] == [
        ["mine.pt 1 seed", "-", *CELLS],
        ["resnet18 V1 1 seed", "70.0", *CELLS],
        [
            "resnet18 V2 1 seed",
            "70.0",
            "91.0 ± 2.0 shifted 45.5",
            "81.0 ± 2.0 shifted 40.5",
        ],
    ]
    assert [row[0] for row in page.tables[1][1:]] == ["resnet18 V1 1 seed"]
    lead = next(text for tag, text in page.texts if "keep their answer" in text)
    assert lead.replace("\u00a0", " ") == (
        "Images that keep their answer under two random shifts of at most 8 px: "
        "90.0 % (95 % interval 88.0 to 92.0) with mine.pt, "
        "90.0 % (95 % interval 88.0 to 92.0) with resnet18 (V1) and "
        "91.0 % (95 % interval 89.0 to 93.0) with resnet18 (V2)."
    )
    assert page.count("div", class_="plots wide") == 2


CELLS = ["90.0 ± 2.0 shifted 45.0", "80.0 ± 2.0 shifted 40.0"]


def test_a_damaged_record_of_a_given_network_is_named(tmp_path):
    consistency_run(tmp_path / "a")
    record = Record.load(tmp_path / "a")
    del record.result["accuracy"]
    record.save(tmp_path / "a")
    with pytest.raises(InputError, match=r"is not a consistency record: .*accuracy"):
        report(tmp_path)


def test_experiments_come_in_the_order_of_the_paper(tmp_path):
    consistency_run(tmp_path / "a")
    augshift_run(tmp_path / "b")
    Record("other", {}, [], {}, 0, None, {}).save(tmp_path / "0")
    headings = [text for tag, text in Page(report(tmp_path)).texts if tag == "h1"]
    assert headings == [
        "Does the answer stay when the image moves?",
        "Given networks: does the answer stay when the image moves?",
        "other",
    ]

"""The report says what the records hold, on one page that needs nothing else."""

import itertools
import re

import numpy as np
import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.reports import write_report
from gpe.records import ARRAYS, Record, save_arrays
from tests.reporting import Page, pixels, report


def location_run(directory, *, best=90.0, last=80.0, paper=None, grid=3, task="location", **config):
    """A finished run of two epochs, the first the better, with random pictures beside it."""
    defaults = {
        "network": "gapnet",
        "task": task,
        "grid_size": grid,
        "padding_mode": "zeros",
        "permutation": "random",
        "data": "digits",
        "preset": "quick",
        "width": 8,
        "seed": 0,
    }
    classes = grid**2 if task == "location" else 10
    metrics = [
        {"epoch": 1, "test_loss": 0.5, "test_accuracy": best},
        {"epoch": 2, "test_loss": 0.7, "test_accuracy": last},
    ]
    Record(
        experiment="location",
        config=defaults | config,
        epochs=metrics,
        result={
            "last": {"epoch": 2, "test_accuracy": last},
            "best": {"epoch": 1, "test_accuracy": best},
        },
        chance=100 / classes,
        paper=paper and {"source": "Table 1", "value": paper, "protocol": "best epoch"},
        run={"seconds": 31.0, "images_per_second": 800.0, "hardware": {"cpu": "a <cpu>"}},
    ).save(directory)

    draw = torch.Generator().manual_seed(0)
    locations = torch.arange(12) % grid**2
    answers = torch.randint(classes, (12,), generator=draw)
    arrays = {
        "canvases": torch.randint(256, (12, 3, grid * 4, grid * 4), generator=draw).byte(),
        "locations": locations,
        "targets": locations if task == "location" else torch.arange(12) % classes,
        "predictions": answers,
        "confusion": torch.eye(classes, dtype=torch.int64) * 5,
    }
    save_arrays(directory, arrays)
    return arrays


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    location_run(tmp_path / "a")
    location_run(tmp_path / "b", network="permutenet")
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
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_table_1_has_each_number_in_its_cell(tmp_path):
    cells = itertools.product(("gapnet", "permutenet"), ("location", "object"), (3, 5))
    for index, (network, task, grid) in enumerate(cells):
        location_run(
            tmp_path / str(index),
            network=network,
            task=task,
            grid=grid,
            best=90 + index,
            last=80 + index,
            paper=70 + index + 0.5,
        )
    location_run(tmp_path / "fixed", network="permutenet", permutation="fixed", best=99, last=98)
    page = Page(report(tmp_path))
    assert page.tables[0][:2] == [
        ["Network", "Location: where is it?", "Object: what is it?"],
        ["3×3 guessing 11.1", "5×5 guessing 4.0", "3×3 guessing 10.0", "5×5 guessing 10.0"],
    ]
    expected = [f"{90 + i}.0 paper {70 + i}.5 last {80 + i}.0" for i in range(8)]
    assert page.row("GAPNet") == expected[:4]
    assert page.row("PermuteNet") == expected[4:]
    assert page.row("PermuteNet, fixed shuffle control, not in the paper") == [
        "99.0 last 98.0",
        "-",
        "-",
        "-",
    ]


def test_the_whole_of_table_1_stays_in_the_order_of_the_paper_with_few_pictures(tmp_path):
    paddings, networks = ("reflect", "zeros", "replicate"), ("permutenet", "gapnet")
    cells = itertools.product(networks, ("object", "location"), (7, 3, 5), paddings)
    for index, (network, task, grid, padding) in enumerate(cells):
        location_run(
            tmp_path / str(index), network=network, task=task, grid=grid, padding_mode=padding
        )
    page = Page(report(tmp_path))
    assert [row[0] for row in page.tables[0][2:]] == [
        label
        for padding in ("zeros", "reflect", "replicate")
        for label in (f"padding {padding}", "GAPNet", "PermuteNet")
    ]
    assert all(len(row) == 7 for row in page.tables[0] if row[0] in ("GAPNet", "PermuteNet"))
    # Two networks, three grid sizes; nine canvases each.
    assert page.count("svg", class_="maps") == 6
    assert page.count("svg", class_="canvas") == 6 * 9


def test_seeds_are_averaged_with_their_spread(tmp_path):
    for seed, best in enumerate((20.0, 22.0, 24.0)):
        location_run(tmp_path / str(seed), seed=seed, best=best, last=best - 10)
    page = Page(report(tmp_path))
    assert page.row("GAPNet") == ["22.0 ± 2.0 last 12.0 · 3 seeds"]


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    for name in ("run", "copy"):
        location_run(tmp_path / name)
    assert Page(report(tmp_path)).row("GAPNet") == ["90.0 last 80.0"]


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    for width, best in ((8, 50.0), (16, 60.0)):
        location_run(tmp_path / str(width), width=width, best=best)
    page = Page(report(tmp_path))
    assert page.row("GAPNet width 8") == ["50.0 last 80.0"]
    assert page.row("GAPNet width 16") == ["60.0 last 80.0"]


def test_each_data_set_and_preset_has_a_table_of_its_own(tmp_path):
    location_run(tmp_path / "a", best=50.0)
    location_run(tmp_path / "b", best=60.0, data="cifar10", preset="paper")
    text = report(tmp_path)
    page = Page(text)
    # The paper's recipe comes first; the runs' table last.
    assert [table[3][1][:4] for table in page.tables[:2]] == ["60.0", "50.0"]
    assert len(page.tables) == 3
    assert text.count("quick runs are not the paper") == 1


def test_the_findings_are_those_of_the_records(tmp_path):
    location_run(tmp_path / "g3", best=99.96)
    location_run(tmp_path / "g5", grid=5, best=99.5)
    location_run(tmp_path / "p3", network="permutenet", best=24.1)
    lead = next(text for tag, text in Page(report(tmp_path)).texts if "names the" in text)
    assert lead.replace("\u00a0", " ") == (
        "On 3×3 and 5×5 grids GAPNet names the right cell for 100.0 and 99.5 % of the test images. "
        "PermuteNet, which shuffles its channels before it decides, does so for 24.1 and - %. "
        "Guessing would do so for 11.1 and 4.0 %."
    )


def test_pictures_mark_true_and_answered_cells(tmp_path):
    arrays = location_run(tmp_path)
    text = report(tmp_path)
    canvases = re.findall(r'<svg class="canvas".*?</svg>\s*<figcaption><b>(.)</b>', text, re.S)
    right = (arrays["predictions"] == arrays["targets"]).tolist()[:9]
    assert True in right and False in right
    assert canvases == ["✓" if hit else "✗" for hit in right]
    assert f"{sum(right)} of these 9 correct" in text

    true = re.findall(r'<rect class="truth" x="(\d)" y="(\d)" width="1"', text)[:9]
    answered = re.findall(r'<rect class="answer" x="(\d)\.14" y="(\d)\.14"', text)
    for drawn, name in ((true, "locations"), (answered, "predictions")):
        cells = arrays[name][:9].tolist()
        assert drawn == [(str(cell % 3), str(cell // 3)) for cell in cells]
    first = pixels(re.search(r'<image href="(data:[^"]*)"', text)[1])
    assert np.array_equal(first, arrays["canvases"][0].permute(1, 2, 0).numpy())


def test_a_map_shows_where_the_answers_for_one_true_cell_went(tmp_path):
    """Rows of the confusion are the truth: the second true cell, answered as the last."""
    arrays = location_run(tmp_path)
    arrays["confusion"] = torch.eye(9, dtype=torch.int64)
    arrays["confusion"][1] = torch.tensor([0, 3, 0, 0, 0, 0, 0, 0, 1])
    arrays["confusion"][2] = 0
    save_arrays(tmp_path, arrays)
    maps = re.search(r'<svg class="maps".*?</svg>', report(tmp_path), re.S)[0]
    opacity = [pixels(source)[..., 3] for source in re.findall(r'href="([^"]*)"', maps)]
    assert opacity[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert opacity[1].tolist() == [[0, round(255 * 0.75**0.5), 0], [0, 0, 0], [0, 0, 128]]
    assert not opacity[2].any()
    assert "90.9 % of all test images correct" in report(tmp_path).replace("\u00a0", " ")


def test_object_runs_alone_are_shown_by_class(tmp_path):
    arrays = location_run(tmp_path, task="object")
    text = report(tmp_path)
    assert f"class 0, answer {arrays['predictions'][0]}" in text
    assert 'class="answer"' not in text


def test_curves_go_through_every_epoch(tmp_path):
    location_run(tmp_path)
    text = report(tmp_path)
    plots = dict(re.findall(r"test (\w+)</figcaption>\s*(<svg.*?</svg>)", text, re.S))
    assert list(plots) == ["accuracy", "loss"]
    for plot in plots.values():
        line = re.search(r'<path d="([^"]*)"[^>]*stroke: var\(--blue\)', plot)[1]
        (_, first), (_, second) = re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)
        # Accuracy falls from 90 to 80 and loss rises; y counts downwards in SVG.
        assert (float(first) < float(second)) == (plot is plots["accuracy"])


def test_hostile_text_is_escaped(tmp_path):
    evil = '<script>alert(1)</script>"><img src=x>'
    location_run(tmp_path / "a<b>", data=evil, preset=evil, padding_mode=evil, note=evil)
    location_run(tmp_path / "c", data=evil, network=evil, task=evil)
    Record(evil, {evil: evil}, [], {evil: {evil: 1.0}}, 0, None, {evil: evil}).save(tmp_path / "d")
    text = report(tmp_path)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_a_run_without_arrays_has_its_numbers_but_no_pictures(tmp_path):
    location_run(tmp_path / "a")
    (tmp_path / "a" / ARRAYS).unlink()
    page = Page(report(tmp_path))
    assert page.row("GAPNet") == ["90.0 last 80.0"]
    assert page.count("image") == 0
    assert ("h2", "What the networks answered") not in page.texts


def test_unknown_experiments_are_listed(tmp_path):
    location_run(tmp_path / "a")
    for weight in (0.5, 1.0):
        Record(
            experiment="detection",
            config={"weight": weight, "data": "cifar10"},
            epochs=[],
            result={"best": {"miss_rate": 90 + weight}, "classes": ["person"]},
            chance=0.0,
            paper=None,
            run={"seconds": 12.0},
        ).save(tmp_path / f"shift-{weight}")
    page = Page(report(tmp_path))
    assert page.row("GAPNet") == ["90.0 last 80.0"]
    assert page.tables[-1] == [
        ["run", "weight", "best miss rate", "seconds"],
        ["shift-0.5", "0.5", "90.5", "12"],
        ["shift-1.0", "1", "91", "12"],
    ]
    assert ("dd", "cifar10") in page.texts


def test_the_table_of_runs_says_what_is_shared_and_what_differs(tmp_path):
    location_run(tmp_path / "a")
    location_run(tmp_path / "b", network="permutenet", best=20.0)
    page = Page(report(tmp_path))
    header, *rows = page.tables[-1]
    assert [row[0] for row in rows] == ["a", "b"]
    by_name = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["network"] for row in by_name] == ["gapnet", "permutenet"]
    assert [row["best test accuracy"] for row in by_name] == ["90", "20"]
    assert by_name[0]["seconds"] == "31"
    assert ("dt", "grid_size") in page.texts and "grid_size" not in header
    assert ("dd", "a <cpu>") in page.texts


def test_a_damaged_location_record_is_named_and_the_old_report_stays(tmp_path):
    location_run(tmp_path / "a")
    before = report(tmp_path)
    record = Record.load(tmp_path / "a")
    del record.config["task"]
    record.save(tmp_path / "a")
    with pytest.raises(InputError, match=r"a/record\.json is not a location record: .*task"):
        report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_bad_arguments_are_refused(tmp_path):
    location_run(tmp_path / "a")
    with pytest.raises(InputError, match="runs: no record"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(InputError, match="path: expected a file"):
        write_report([tmp_path / "a"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no record"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")


def test_the_same_records_give_the_same_page(tmp_path):
    location_run(tmp_path)
    assert report(tmp_path) == report(tmp_path)


def test_what_the_shuffle_takes_away_and_what_more_width_reads(tmp_path):
    for permutation, best in (("random", 28.0), ("sorted", 99.0), ("mean", 21.0)):
        options = {"network": "permutenet", "permutation": permutation, "train_images": 4000}
        location_run(tmp_path / permutation, best=best, **options)
    text = report(tmp_path)
    assert "PermuteNet with its channels sorted by value (a control) does so for 99.0" in text
    assert (
        "On 3×3 cells the set of numbers without any order tells 99.0\u00a0%, of which a linear "
        "layer reads 28.0 when they are shuffled, and one number 21.0."
    ) in text
    assert "by its size" not in text
    for width, images, best in ((16, 4000, 35.0), (16, 1000, 25.0)):
        options = {"network": "permutenet", "width": width, "train_images": images}
        location_run(tmp_path / f"{width}-{images}", best=best, **options)
    text = report(tmp_path)
    assert "How much PermuteNet reads, by its size" in text and "1000 training images" in text

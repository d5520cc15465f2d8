"""Images without labels in some places have no number there, and the rest is told."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gpe.experiments.removal import run as removal
from gpe.experiments.removal.config import RemovalConfig
from gpe.experiments.removal.report import blocks
from gpe.experiments.reports import print_tables
from gpe.models.deeplab import deeplabv3
from gpe.records import RECORD, Record
from gpe.report.blocks import Finding
from tests.data import labelled_trees as trees
from tests.experiments.tiny import launch
from tests.removals import ablation_run, fixed, spoil
from tests.report.test_terminal import printed, rows
from tests.reporting import report, runs_of

VOID = 11


@pytest.fixture
def ablate(tmp_path):
    """A function that runs a job where labels are void left of a column."""
    root = trees.camvid(tmp_path / "data", size=(32, 64))
    torch.manual_seed(0)
    torch.save(deeplabv3("resnet18", 11, width=4).state_dict(), tmp_path / "w.pth")

    def run(job, column, **options):
        for file in root.glob("camvid/valannot/*.png"):
            labels = np.array(Image.open(file))
            labels[:, :column] = VOID
            Image.fromarray(labels).save(file)
        options = {"data": "camvid", "device": "cpu"} | options
        (chosen,) = RemovalConfig.several(job=job, checkpoint=[tmp_path / "w.pth"], **options)
        ((directory,), _) = launch(removal.run, tmp_path / "out", chosen, root=root)
        json.loads((directory / RECORD).read_text(), parse_constant=pytest.fail)  # strict JSON
        return directory

    return run


def findings(directory):
    return [block.text for block in blocks(runs_of(directory)) if isinstance(block, Finding)]


def test_a_half_without_labels_has_no_number(ablate):
    directory = ablate("ablate", 32, counts=(0, 8), random_seeds=2)
    record = Record.load(directory)
    assert {row["miou"] for row in record.result["rows"] if row["region"] == "left"} == {None}
    assert record.result["baseline"]["left"] is None
    others = [row["miou"] for row in record.result["rows"] if row["region"] != "left"]
    assert all(0 <= value <= 100 for value in others)
    page = report(directory)
    assert "No labelled pixel, and so no mIoU, in: left." in page and "nan" not in page.lower()
    text = printed(print_tables, [directory])
    assert "full" in text and "right" in text and "nan" not in text


@pytest.mark.parametrize("job", ["rank", "figure4"])
def test_without_any_label_it_is_said(ablate, job):
    directory = ablate(job, 64)
    assert report(directory)
    if job != "rank":  # which needs none
        assert findings(directory) == ["No region has a labelled pixel, so there is no mIoU."]
        assert "in: full, left, centre and right." in printed(print_tables, [directory])


def test_predictions_are_shown_without_any_label(ablate):
    directory = ablate("figure5", 64, counts=(0, 8))
    assert findings(directory) == [
        "No pixel of the 2 images has a label, so there is no accuracy.",
    ]
    assert report(directory).count("<img") == 2 * (2 + 2 * 2)
    assert rows(printed(print_tables, [directory])) == [["0", "-", "-"], ["8", "-", "-"]]


def test_a_region_without_a_number_in_a_record_of_before_is_left_out(tmp_path):
    """There it was NaN."""
    miou = fixed(overall=40.0, _=50.0)
    ablation_run(tmp_path, miou=miou, counts=(0, 24))

    def change(record):
        record.result["baseline"]["left"] = None
        for row in record.result["rows"]:
            row["miou"] = None if row["region"] == "left" else row["miou"]

    spoil(tmp_path, change)
    whole = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(whole.replace('"miou": null', '"miou": NaN'))
    assert "in: left." in report(tmp_path)
    assert rows(printed(print_tables, [tmp_path]))[0] == ["Nothing removed", *["60.0"] * 3]


@pytest.mark.parametrize("draws", [0, 1])
@pytest.mark.parametrize("counts", [(0,), (24,), (0, 128)])
@pytest.mark.parametrize("experiment", ["ablate", "figure4", "figure6"])
def test_few_draws_and_counts_are_drawn(tmp_path, experiment, counts, draws):
    miou = fixed(overall=40.0, left=41.0, right=42.0, _=50.0)
    sides = {"rankings": ("overall", "left", "right"), "regions": ("full", "left", "right")}
    ablation_run(tmp_path, experiment, miou=miou, counts=counts, draws=draws, **sides)
    assert report(tmp_path) and findings(tmp_path)
    assert rows(printed(print_tables, [tmp_path]))[0] == ["Nothing removed", *["60.0"] * 3]

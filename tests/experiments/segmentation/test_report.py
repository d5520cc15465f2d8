"""Segmentation in the report and on a terminal: the numbers and pictures of the records."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from gpe.errors import InputError
from gpe.experiments.reports import print_findings, print_tables
from gpe.records import Record, save_arrays
from tests.reporting import Page, pixels, report

CLASSES = ["road", "<sky>", "person"]
REGIONS = ("full", "left", "centre", "right")


def segment_run(directory, *, miou=(71.23, 60.0, 65.5, 62.0), paper=None, pictures=True, **config):
    """A finished run of a network that never saw a person on the left."""
    defaults = {"data": "streets", "split": "val", "size": [32, 64]}
    if "network" not in config:
        trained = {"backbone": "resnet18", "width": 16, "seed": 0, "epochs": 4, "preset": "quick"}
        defaults |= trained
    iou = {region: [90.0 + place, 80.0, 30.0] for place, region in enumerate(REGIONS)}
    iou["left"][2] = None
    Record(
        experiment="segment",
        config=defaults | config,
        epochs=[],
        result={
            "miou": dict(zip(REGIONS, miou, strict=True)),
            "iou": iou,
            "pixel_accuracy": 93.21,
            "classes": CLASSES,
            "images": 20,
        },
        chance=100 / 3,
        paper=paper and {"source": "Section 4.2", "value": paper, "protocol": "mIoU"},
        run={"seconds": 3.0},
    ).save(directory)
    if pictures:
        draw = torch.Generator().manual_seed(0)
        arrays = {"palette": torch.tensor([[128, 64, 128], [70, 130, 180], [220, 20, 60]]).byte()}
        for place in range(2):
            labels = torch.randint(3, (8, 16), generator=draw).byte()
            labels[0] = 255
            arrays[f"labels{place}"] = labels
            arrays[f"predictions{place}"] = torch.randint(3, (8, 16), generator=draw).byte()
            arrays[f"image{place}"] = torch.randint(256, (3, 8, 16), generator=draw).byte()
        save_arrays(directory, arrays)
        return arrays
    return None


def test_tables_have_miou_by_region_and_iou_by_class(tmp_path):
    segment_run(tmp_path / "a", paper=74.0)
    page = Page(report(tmp_path))
    assert page.tables[0][0] == ["Network", *(f"mIoU {r}" for r in REGIONS), "pixel accuracy"]
    assert page.row("DeepLabv3-ResNet-18, width 16") == [
        "71.2 paper 74.0",
        "60.0",
        "65.5",
        "62.0",
        "93.2",
    ]
    assert page.tables[1] == [
        ["class", *REGIONS],
        ["mIoU", "71.2 paper 74.0", "60.0", "65.5", "62.0"],
        ["road", "90.0", "91.0", "92.0", "93.0"],
        ["<sky>", "80.0", "80.0", "80.0", "80.0"],
        ["person", "30.0", "-", "30.0", "30.0"],
    ]


def test_pictures_show_image_labels_and_predictions_in_the_palette(tmp_path):
    arrays = segment_run(tmp_path / "a")
    sources = [has["src"] for tag, has in Page(report(tmp_path)).tags if tag == "img"]
    shown = [pixels(source) for source in sources]
    assert len(shown) == 6
    colours = np.zeros((256, 3), np.uint8)
    colours[:3] = arrays["palette"]
    for place in range(2):
        image, labels, predictions = shown[3 * place : 3 * place + 3]
        np.testing.assert_array_equal(image, arrays[f"image{place}"].permute(1, 2, 0))
        np.testing.assert_array_equal(labels, colours[arrays[f"labels{place}"]])
        np.testing.assert_array_equal(predictions[1:], colours[arrays[f"predictions{place}"]][1:])
        assert not predictions[0].any(), "ignored pixels are black"


def test_splits_and_datasets_are_tables_of_their_own(tmp_path):
    segment_run(tmp_path / "a")
    segment_run(tmp_path / "b", split="train", network="w.pth", checkpoint="w.pth")
    segment_run(tmp_path / "c", data="camvid", pictures=False)
    segment_run(tmp_path / "d", network="w.pth", checkpoint="w.pth")
    page = Page(report(tmp_path))
    first = [table for table in page.tables if table[0][0] == "Network"]
    assert sorted(len(table) - 1 for table in first) == [1, 1, 2]
    assert sum(kind == "h2" and "camvid, val, 20 images" in text for kind, text in page.texts) == 1


def test_runs_of_one_label_are_told_apart(tmp_path):
    segment_run(tmp_path / "a", epochs=4)
    segment_run(tmp_path / "b", epochs=9)
    segment_run(tmp_path / "c", epochs=9, seed=1)
    text = report(tmp_path)
    labels = [row[0] for row in Page(text).tables[0][1:]]
    assert [label.split("16 ")[1] for label in labels] == [
        "seed 0 epochs 4",
        "seed 0 epochs 9",
        "seed 1 epochs 9",
    ]


def test_a_terminal_gets_the_same_numbers(tmp_path):
    segment_run(tmp_path, paper=74.0)
    console = Console(file=io.StringIO(), width=80)
    print_tables([tmp_path], console)
    print_findings([tmp_path], console)
    text = console.file.getvalue()
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["mIoU", "71.2 (74.0)", "60.0", "65.5", "62.0"],
        ["road", "90.0", "91.0", "92.0", "93.0"],
        ["<sky>", "80.0", "80.0", "80.0", "80.0"],
        ["person", "30.0", "", "30.0", "30.0"],
    ]
    assert "reaches an mIoU of 71.2\u00a0% on streets" in text


@pytest.mark.parametrize("missing", ["miou", "iou", "classes", "images", "pixel_accuracy"])
def test_a_record_without_what_it_needs_is_named(missing, tmp_path):
    segment_run(tmp_path, pictures=False)
    record = Record.load(tmp_path)
    del record.result[missing]
    record.save(tmp_path)
    with pytest.raises(InputError, match=rf"is not a segment record: .*{missing}"):
        report(tmp_path)

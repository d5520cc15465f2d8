"""Figure 5 in the report: the pictures of the records, in the colours of their classes."""

import re

import numpy as np
import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.removal import figure5_report as figure5
from gpe.records import ARRAYS, Record, load_arrays, save_arrays
from gpe.report.blocks import Finding, Heading, Legend
from tests.removals import figure5_run
from tests.reporting import Page, find, pixels, report, runs_of

COLOURS = np.array([[128, 64, 128], [70, 130, 180], [0, 0, 142]], np.uint8)


def pictures(directory):
    """By what stands beside it as a text, the picture."""
    found = re.findall(r'<img src="([^"]*)" alt="([^"]*)"', report(directory))
    return [(name, pixels(source)) for source, name in found]


def findings(*directories):
    """Title and text of each."""
    found = [block for block in figure5.blocks(runs_of(*directories)) if isinstance(block, Finding)]
    return [(block.title, block.text.replace("\u00a0", " ")) for block in found]


def test_image_label_and_predictions_stand_in_the_order_of_the_figure(tmp_path):
    figure5_run(tmp_path, counts=(0, 2), samples=1)
    arrays = {name: array.numpy() for name, array in load_arrays(tmp_path).items()}
    shown = pictures(tmp_path)
    in_order = re.findall(r'<h4>(.*?)</h4>|<img src="[^"]*" alt="([^"]*)"', report(tmp_path))
    assert [title or name for title, name in in_order] == [
        "Without position-specific channels",
        "street_0",
        "predictions without 0 position-specific channels",
        "predictions without 2 position-specific channels",
        "Without random channels",
        "labels of street_0",
        "predictions without 0 random channels",
        "predictions without 2 random channels",
    ]
    assert np.array_equal(shown[0][1], arrays["image0"].transpose(1, 2, 0))
    ignored = arrays["labels0"] == 255
    assert ignored.any()
    expected = (*arrays["overall0"], arrays["labels0"], *arrays["random0"])
    for (_, picture), classes in zip(shown[1:], expected, strict=True):
        # What is ignored is black everywhere.
        assert not picture[ignored].any()
        assert np.array_equal(picture[~ignored], COLOURS[classes[~ignored]])


def test_captions_say_n_and_how_much_is_right(tmp_path):
    """The 7 labelled pixels: 0, 1, 2, 2 above 0, 1, 2; the first column said to be class 2."""
    figure5_run(tmp_path, counts=(0, 2), samples=1)
    found = re.findall(r"<figcaption>(.*?)</figcaption>", report(tmp_path).replace("\u00a0", " "))
    assert found == [
        "image street_0",
        "<b>100.0 %</b> 0 removed",
        "<b>71.4 %</b> 2 removed",
        "labels",
        "<b>100.0 %</b> 0 removed",
        "<b>100.0 %</b> 2 removed",
    ]


def test_findings_are_the_record_s_accuracies(tmp_path):
    figure5_run(tmp_path, counts=(0, 8, 24), samples=2)
    ((_, text),) = findings(tmp_path)
    assert text == (
        "Pixel accuracy on the 2 images: 100.0 % with all 128 channels; 90.0 % without 8 "
        "position-specific ones, 90.5 % without 8 random ones; 80.0 % without 24 "
        "position-specific ones, 80.5 % without 24 random ones. A few images illustrate; they "
        "prove nothing."
    )


def test_the_legend_has_the_classes_that_are_seen(tmp_path):
    figure5_run(tmp_path, samples=1)
    arrays = load_arrays(tmp_path)
    record = Record.load(tmp_path)
    record.result["classes"] = [*record.result["classes"], "<never>"]
    record.save(tmp_path)
    arrays["palette"] = torch.cat((arrays["palette"], arrays["palette"][:1]))
    save_arrays(tmp_path, arrays)
    blocks = figure5.blocks(runs_of(tmp_path))
    (legend,) = [block for block in blocks if isinstance(block, Legend)]
    assert [(key.text, key.colour) for key in legend.keys] == [
        ("road", "rgb(128 64 128)"),
        ("sky", "rgb(70 130 180)"),
        ("car", "rgb(0 0 142)"),
        ("ignored", "rgb(0 0 0)"),
    ]
    assert report(tmp_path).count('<i class="class"') == 4


def test_a_large_label_is_shrunk_without_inventing_classes(tmp_path):
    figure5_run(tmp_path, counts=(8,), samples=1)
    labels = torch.randint(3, (300, 900), generator=torch.Generator().manual_seed(0)).byte()
    save_arrays(
        tmp_path,
        load_arrays(tmp_path)
        | {
            "image0": torch.zeros(3, 300, 900).byte(),
            "labels0": labels,
            "overall0": labels[None],
            "random0": labels[None],
        },
    )
    for _, picture in pictures(tmp_path)[1:]:
        assert max(picture.shape) == 320
        assert {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0)} == {
            tuple(colour) for colour in COLOURS
        }


def test_without_arrays_there_are_numbers_and_no_pictures(tmp_path):
    figure5_run(tmp_path, arrays=False)
    text = report(tmp_path)
    assert "<img" not in text
    assert "90.0 % without 8 position-specific ones" in text.replace("\u00a0", " ")


def test_any_rankings_have_a_row_each(tmp_path):
    figure5_run(tmp_path, counts=(8,), samples=1)
    record, arrays = Record.load(tmp_path), load_arrays(tmp_path)
    record.result["accuracy"] |= {"left": [70.0], "<mine>": [60.0]}
    record.save(tmp_path)
    save_arrays(tmp_path, arrays | {f"{n}0": arrays["random0"] for n in ("left", "<mine>")})
    assert re.findall("<h4>Without (.*) channels</h4>", report(tmp_path)) == [
        *("position-specific", "left-specific", "random", "“&lt;mine&gt;”"),
    ]
    ((_, text),) = findings(tmp_path)
    assert "70.0 % without 8 left-specific ones" in text
    assert "60.0 % without 8 “<mine>” ones" in text
    assert len(pictures(tmp_path)) == 1 + 1 + 4


def test_each_checkpoint_has_a_group(tmp_path):
    for name in "ab":
        figure5_run(tmp_path / name, checkpoint=name)
    paths = find([tmp_path])
    titles = [f"streets, val, deeplabv3, backbone.layer4, checkpoint {n}" for n in "ab"]
    assert [title for title, _ in findings(*paths)] == titles
    blocks = figure5.blocks(runs_of(*paths))
    headings = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    assert headings == [f"Figure 5: {title}" for title in titles]
    assert Page(report(tmp_path)).count("img") == 2 * 2 * (2 + 2 * 2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    (
        (lambda r, a: r.result.pop("counts"), "KeyError.*counts"),
        (lambda r, a: r.result.update(counts=[0, 8, 24]), "accuracy: expected a number for each"),
        (lambda r, a: r.result.update(accuracy={}), "accuracy: expected a number for each"),
        (lambda r, a: a.pop("overall1"), "KeyError.*overall1"),
        (lambda r, a: a.pop("palette"), "palette: expected"),
        (lambda r, a: a.update(palette=a["palette"][:2]), "palette: expected"),
        (lambda r, a: a.update(labels0=a["labels0"][:1]), r"expected \(2, 1, 4\)"),
        (lambda r, a: a.update(random1=a["random1"][:1]), r"random1: expected \(2, 2, 4\)"),
    ),
)
def test_a_damaged_record_is_named(tmp_path, change, complaint):
    figure5_run(tmp_path / "a")
    record, arrays = Record.load(tmp_path / "a"), load_arrays(tmp_path / "a")
    change(record, arrays)
    record.save(tmp_path / "a")
    save_arrays(tmp_path / "a", arrays)
    with pytest.raises(InputError, match=rf"a/record\.json is not a figure5 record: .*{complaint}"):
        report(tmp_path)


def test_damaged_arrays_are_named(tmp_path):
    figure5_run(tmp_path)
    (tmp_path / ARRAYS).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"^\S*arrays\.safetensors is damaged"):
        report(tmp_path)
